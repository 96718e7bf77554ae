// Routes requests and messages to the cores of the relay and the bootstrap server, carries out their actions, and logs.
#include "server/relay_service.hpp"

#include <algorithm>
#include <utility>

#include "core/random.hpp"
#include "server/cors.hpp"

namespace kitsune2::server {

Result<void> check_options(const RelayServerOptions& o) {
  const auto bad = [](const std::string& what) { return make_error(Errc::invalid_argument, what); };
  if (o.listen.empty()) return bad("listen: no address");
  if (o.tls_cert.empty() != o.tls_key.empty()) return bad("tls_cert and tls_key: give both or none");
  if (o.max_entries_per_space == 0) return bad("max_entries_per_space: must be at least 1");
  if (o.limit_clients == 0) return bad("limit_clients: must be at least 1");
  if (o.prune_interval_ms == 0) return bad("prune_interval_ms: must be at least 1");
  if (o.limit_ip_kbps == 0 || o.limit_ip_kbps > 8'000'000) return bad("limit_ip_kbps: must be 1..8000000");
  if (o.limit_ip_byte_burst < sbd::kMaxMessageBytes) {
    return bad("limit_ip_byte_burst: must be at least " + std::to_string(sbd::kMaxMessageBytes) + ", one message");
  }
  if (o.limit_idle_millis == 0 || o.limit_idle_millis > 0x7fffffffU) return bad("limit_idle_millis: must be 1..2^31-1");
  if (o.limit_send_queue_bytes < 2 * sbd::kMaxMessageBytes) {
    return bad("limit_send_queue_bytes: must be at least " + std::to_string(2 * sbd::kMaxMessageBytes));
  }
  if (o.limit_all_queue_bytes != 0 && o.limit_all_queue_bytes < 16ULL * o.limit_send_queue_bytes) {
    return bad("limit_all_queue_bytes: must be at least 16 times limit_send_queue_bytes, or 0 for no limit");
  }
  if (!o.authentication_hook_server.empty()) {
    if (const auto url = hook_url(o.authentication_hook_server); !url) {
      return bad("authentication_hook_server: " + url.error().message);
    }
  }
  if (o.relay_client_rx_burst_bytes != 0 && o.relay_client_rx_bytes_per_second == 0) {
    return bad("relay_client_rx_burst_bytes: has no meaning without relay_client_rx_bytes_per_second");
  }
  if (o.limit_http_percent > 100) return bad("limit_http_percent: must be 0..100");
  const std::pair<const char*, std::uint32_t> times[] = {{"auth_token_idle_millis", o.auth_token_idle_millis},
                                                         {"slow_receiver_millis", o.slow_receiver_millis},
                                                         {"http_header_millis", o.http_header_millis},
                                                         {"http_body_millis", o.http_body_millis},
                                                         {"http_idle_millis", o.http_idle_millis},
                                                         {"write_stall_millis", o.write_stall_millis},
                                                         {"slow_receiver_bytes", o.slow_receiver_bytes}};
  for (const auto& [name, value] : times) {
    if (value == 0) return bad(std::string(name) + ": must be at least 1");
  }
  return {};
}

std::vector<std::string> adopt_options(RelayServerOptions& options, const RelayServerOptions& wanted) {
  using O = RelayServerOptions;
  std::vector<std::string> kept;
  const auto keep = [&](const char* name, auto O::*member) {
    if (options.*member != wanted.*member) kept.emplace_back(name);
  };
  keep("listen", &O::listen);
  if (options.tls_cert.empty() != wanted.tls_cert.empty()) kept.emplace_back("tls_cert");
  keep("max_spaces", &O::max_spaces);
  keep("max_bootstrap_bytes", &O::max_bootstrap_bytes);
  keep("no_sbd", &O::no_sbd);
  keep("no_iroh", &O::no_iroh);
  keep("quic_listen", &O::quic_listen);
  keep("authentication_hook_server", &O::authentication_hook_server);
  keep("auth_token_idle_millis", &O::auth_token_idle_millis);
  keep("trusted_ip_header", &O::trusted_ip_header);
  keep("limit_send_queue_bytes", &O::limit_send_queue_bytes);
  keep("limit_all_queue_bytes", &O::limit_all_queue_bytes);
  keep("limit_http_percent", &O::limit_http_percent);
  keep("slow_receiver_millis", &O::slow_receiver_millis);
  keep("slow_receiver_bytes", &O::slow_receiver_bytes);
  keep("http_header_millis", &O::http_header_millis);
  keep("http_body_millis", &O::http_body_millis);
  keep("http_idle_millis", &O::http_idle_millis);
  keep("write_stall_millis", &O::write_stall_millis);
  const auto take = [&](auto O::*member) { options.*member = wanted.*member; };
  take(&O::max_entries_per_space);
  take(&O::prune_interval_ms);
  take(&O::limit_clients);
  take(&O::disable_rate_limiting);
  take(&O::limit_ip_kbps);
  take(&O::limit_ip_byte_burst);
  take(&O::limit_idle_millis);
  take(&O::allowed_origins);
  take(&O::relay_client_rx_bytes_per_second);
  take(&O::relay_client_rx_burst_bytes);
  take(&O::limit_ip_connections);
  take(&O::limit_connections);
  if (!options.tls_cert.empty() && !wanted.tls_cert.empty()) {
    take(&O::tls_cert);
    take(&O::tls_key);
  }
  return kept;
}

namespace {

Duration millis(std::uint32_t ms) { return std::chrono::milliseconds(ms); }

// The cost of requests in processor time, with what the kernel needs for them, measured on a busy virtual machine:
// docs/decisions/0064-what-an-attack-takes-of-the-processor.md.
constexpr Duration kConnectionCost = std::chrono::microseconds(50);
constexpr Duration kTlsCost = std::chrono::microseconds(1000);     // the server's signature, with an RSA key
constexpr Duration kRequestCost = std::chrono::microseconds(80);   // up to a list of 32 KiB
constexpr Duration kPutCost = std::chrono::microseconds(250);      // JSON and a signature to check
constexpr Duration kUpgradeCost = std::chrono::microseconds(250);  // with the signature that follows
// In so long a time the default share of requests is as much as four of these.
constexpr Duration kTogether = std::chrono::milliseconds(5);

RelayLimits relay_limits(const RelayServerOptions& o) {
  RelayLimits out;
  out.clients = o.limit_clients;
  out.rate_limiting = !o.disable_rate_limiting;
  out.ip_kbps = o.limit_ip_kbps;
  out.ip_byte_burst = o.limit_ip_byte_burst;
  out.idle_millis = o.limit_idle_millis;
  out.send_queue_bytes = o.limit_send_queue_bytes;
  out.all_queue_bytes = o.limit_all_queue_bytes == 0 ? SIZE_MAX : static_cast<std::size_t>(o.limit_all_queue_bytes);
  out.slow_receiver_millis = o.slow_receiver_millis;
  out.slow_receiver_bytes = o.slow_receiver_bytes;
  return out;
}

HttpLimits http_limits(const RelayServerOptions& o) {
  HttpLimits out;
  out.connections = o.limit_connections == 0 ? SIZE_MAX : o.limit_connections;
  out.connections_per_ip = o.trusted_ip_header.empty() ? o.limit_ip_connections : 0;
  out.ws_message_bytes = sbd::kMaxMessageBytes;
  out.unfinished_bytes = o.limit_all_queue_bytes == 0 ? SIZE_MAX : static_cast<std::size_t>(o.limit_all_queue_bytes);
  out.header_time = millis(o.http_header_millis);
  out.body_time = millis(o.http_body_millis);
  out.idle_time = millis(o.http_idle_millis);
  out.stall_time = millis(o.write_stall_millis);
  out.shares.all_percent = o.disable_rate_limiting ? 0 : o.limit_http_percent;
  out.shares.together = kTogether;
  out.connection_cost = o.tls_cert.empty() ? kConnectionCost : kTlsCost;
  return out;
}

BootstrapLimits bootstrap_limits(const RelayServerOptions& o) {
  BootstrapLimits out;
  out.max_entries_per_space = o.max_entries_per_space;
  out.max_spaces = o.max_spaces == 0 ? SIZE_MAX : o.max_spaces;
  out.max_bytes = o.max_bootstrap_bytes == 0 ? SIZE_MAX : static_cast<std::size_t>(o.max_bootstrap_bytes);
  return out;
}

std::string_view next_segment(std::string_view& path) {
  const auto slash = path.find('/');
  const std::string_view out = path.substr(0, slash);
  path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
  return out;
}

HttpReply json(int status, std::string body) {
  HttpReply out;
  out.status = status;
  out.body = std::move(body);
  return out;
}

HttpReply method_not_allowed(std::string allow) {
  HttpReply out = json(405, R"({"error":"method not allowed"})");
  out.allow = std::move(allow);
  return out;
}

/// Enough of a space's id to distinguish spaces. Whoever knows all of it can join, so the log does not have it.
std::string shortened(std::string_view space) { return log::printable(space.substr(0, 8)) + "…"; }

/// What a client does itself, and stock ones seldom do.
bool breaks_a_rule(RelayReject reason) {
  return reason != RelayReject::idle && reason != RelayReject::taken_over && reason != RelayReject::evicted;
}

HttpReply of(BootstrapAnswer answer) { return json(answer.status, std::move(answer.body)); }

}  // namespace

/// The messages of one relay client.
class RelayService::Peer final : public WsPeerEvents {
 public:
  Peer(RelayService& service, std::uint64_t id) : service_(service), id_(id) {}
  Next on_ws_message(net::WsPayload& message) override { return service_.on_message(id_, message); }
  void on_ws_frame(std::size_t size) override { service_.on_frame(id_, size); }
  void on_ws_sent(std::size_t queued) override { service_.on_sent(id_, queued); }
  void on_ws_closed(std::string_view why) override { service_.on_gone(id_, why); }

 private:
  RelayService& service_;
  std::uint64_t id_;
};

RelayService::RelayService(Runtime& runtime, const RelayServerOptions& options)
    : runtime_(runtime),
      options_(options),
      relay_(relay_limits(options)),
      bootstrap_(bootstrap_limits(options)),
      log_(runtime),
      auth_(runtime, options.authentication_hook_server, log_, millis(options.auth_token_idle_millis)),
      iroh_(runtime, options_, log_, [this](const IrohRelay::Id& key, IrohRelay::Right right) {
        return right == IrohRelay::Right::if_registered ? auth_.is_registered(key) : auth_.is_listed(key);
      }) {
  http_ = std::make_unique<HttpServer>(runtime, http_limits(options), *this);
  http_->leave_out([this] { return waited(runtime_.now()); });
  prune_later();
}

RelayService::~RelayService() {
  http_.reset();  // its last callbacks may still set the alarm
  runtime_.cancel(core_timer_);
  runtime_.cancel(prune_timer_);
}

void RelayService::check_invariants() const {
  relay_.check_invariants();
  bootstrap_.check_invariants();
  iroh_.check_invariants();
  auth_.check_invariants();
  K2_ASSERT(peers_.size() == relay_.client_count());
}

std::vector<std::string> RelayService::reload(const RelayServerOptions& wanted) {
  auto kept = adopt_options(options_, wanted);
  relay_.set_limits(relay_limits(options_), runtime_.now());
  bootstrap_.set_max_entries_per_space(options_.max_entries_per_space);
  iroh_.reload();
  http_->set_limits(http_limits(options_));
  carry_out();
  return kept;
}

void RelayService::drain(std::function<void()> done) {
  const Time now = runtime_.now();
  for (const auto& [id, client] : std::exchange(peers_, {}))
    relay_.on_close(id, now);  // nothing is sent to them any more
  carry_out();
  iroh_.forget_all();
  http_->drain(std::move(done));
}

std::shared_ptr<net::ConnEvents> RelayService::accept(const std::shared_ptr<net::Conn>& conn) {
  log_.say(log::Level::debug, "connections", [&] { return conn->remote() + " connects"; });
  return http_->accept(conn);
}

bool RelayService::admit(const net::IpAddress& ip) {
  if (!options_.trusted_ip_header.empty()) return true;  // this is the proxy; see on_upgrade
  if (relay_.on_connect(ip.limit_key().bytes, runtime_.now())) return true;
  refuse("a connection of " + ip.to_string(), RelayReject::rate_limited);
  return false;
}

void RelayService::on_fault(const std::string& remote, HttpFault fault, std::string_view what) {
  log_.say(log::Level::info, to_string(fault),
           [&] { return remote + ": " + std::string(to_string(fault)) + ": " + log::printable(what); });
  if (fault == HttpFault::limit_connections) {
    log_.urge("limit_connections", [&] {
      return "limit_connections " + std::to_string(options_.limit_connections) + " is reached: connections are refused";
    });
  }
}

void RelayService::refuse(const std::string& who, RelayReject reason) {
  log_.say(log::Level::info, to_string(reason), [&] { return who + " is refused: " + explain(reason); });
  if (reason == RelayReject::limit_clients) {
    log_.urge("limit_clients", [&] {
      return "limit_clients " + std::to_string(options_.limit_clients) + " is reached: new clients are refused";
    });
  }
}

/// The reason by the name in the metrics, then its meaning and the limit.
std::string RelayService::explain(RelayReject reason) const {
  const auto with = [](const char* name, auto value) { return std::string(name) + ' ' + std::to_string(value); };
  std::string what;
  switch (reason) {
    case RelayReject::illegal_key:
      what = "its key would read as a command";
      break;
    case RelayReject::limit_clients:
      what = std::to_string(relay_.client_count()) + " are connected";
      break;
    case RelayReject::rate_limited:
      what = "its address sent more than " + with("limit_ip_kbps", options_.limit_ip_kbps) + " and " +
             with("limit_ip_byte_burst", options_.limit_ip_byte_burst) +
             " allow, or it sent too many pings or fragments";
      break;
    case RelayReject::bad_signature:
      what = "it does not have the key that it gave";
      break;
    case RelayReject::handshake_timeout:
      what = "it did not prove its key within " + with("limit_idle_millis", options_.limit_idle_millis);
      break;
    case RelayReject::early_forward:
      what = "it sent a message before it had proved its key";
      break;
    case RelayReject::late_response:
      what = "it proved its key twice";
      break;
    case RelayReject::malformed:
      what = "a message of the wrong length";
      break;
    case RelayReject::too_large:
      what = "a message over " + std::to_string(sbd::kMaxMessageBytes) + " bytes";
      break;
    case RelayReject::idle:
      what = "nothing came for " + with("limit_idle_millis", options_.limit_idle_millis);
      break;
    case RelayReject::slow_receiver:
      what = "it kept senders waiting and took less than " + with("slow_receiver_bytes", options_.slow_receiver_bytes) +
             " in " + with("slow_receiver_millis", options_.slow_receiver_millis);
      break;
    case RelayReject::taken_over:
      what = "another connection proved the same key";
      break;
    case RelayReject::evicted:
      what =
          "its place was given to a newcomer, since " + with("limit_clients", options_.limit_clients) + " is reached";
      break;
    case RelayReject::queues_full:
      what = "it had taken nothing for longest when " + with("limit_all_queue_bytes", options_.limit_all_queue_bytes) +
             " was reached";
      break;
  }
  return std::string(to_string(reason)) + ": " + what;
}

std::string RelayService::lived(const Client& client) const {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(runtime_.now() - client.since).count();
  return " after " + std::to_string(ms / 1000) + '.' + std::to_string(ms % 1000 / 100) + " s: ";
}

/// Behind a proxy: the address that the proxy tells.
net::IpAddress RelayService::client_ip(const HttpServerRequest& request) const {
  if (options_.trusted_ip_header.empty()) return request.ip;
  const auto told = net::IpAddress::parse(request.header(options_.trusted_ip_header));
  return told && told->bytes != RelayCore::kThisProcess ? *told : request.ip;
}

HttpHandler::Cost RelayService::cost(const HttpServerRequest& request) {
  const bool upgrade = !request.header("upgrade").empty();
  const bool asks_hook = request.path == "/authenticate" && auth_.hook_has_tls();
  return {client_ip(request).limit_key().bytes, asks_hook                 ? kTlsCost
                                                : upgrade                 ? kUpgradeCost
                                                : request.method == "PUT" ? kPutCost
                                                                          : kRequestCost};
}

HttpReply RelayService::on_request(const HttpServerRequest& request) {
  const bool for_pages =
      request.path == "/health" || request.path == "/authenticate" || request.path.starts_with("/bootstrap/");
  const bool preflight = for_pages && request.method == "OPTIONS";
  HttpReply out = preflight ? HttpReply() : route(request);
  if (for_pages) {
    out.headers += cors_headers(options_.allowed_origins, request.header("origin"), auth_.has_hook(), preflight);
  }
  out.headers += page_headers();
  return out;
}

HttpReply RelayService::route(const HttpServerRequest& request) {
  const bool get = request.method == "GET" || request.method == "HEAD";
  if (request.path == "/health") return get ? json(200, "{}") : method_not_allowed("GET,HEAD");
  if (!options_.no_iroh) {
    const bool registers = request.path == "/relay/register";  // that of kitsune2 0.4.1
    if (registers || request.path == "/relay/keepalive") {
      if (request.method != "PUT") return method_not_allowed("PUT");
      return auth_.list(request, client_ip(request), registers ? TokenBook::As::registered : TokenBook::As::kept_alive);
    }
    if (auto answer = IrohRelay::on_request(request)) return std::move(*answer);
  }
  std::string_view rest = request.path;
  if (rest.starts_with('/')) rest.remove_prefix(1);
  const bool one_segment = rest.find('/') == std::string_view::npos;
  const std::string_view first = next_segment(rest);
  if (first == "bootstrap" && !one_segment) {
    const bool with_agent = rest.find('/') != std::string_view::npos;
    const std::string_view space = next_segment(rest);
    if (!with_agent) return get ? bootstrap(request, space, {}) : method_not_allowed("GET,HEAD");
    if (rest.find('/') == std::string_view::npos) {
      return request.method == "PUT" ? bootstrap(request, space, rest) : method_not_allowed("PUT");
    }
  } else if (one_segment && first == "authenticate") {
    return request.method == "PUT" ? authenticate(request) : method_not_allowed("PUT");
  } else if (one_segment && !options_.no_sbd && !first.empty()) {
    if (!get) return method_not_allowed("GET,HEAD");
    return json(400, R"({"error":"this is for WebSocket connections"})");
  }
  return json(404, R"({"error":"not found"})");
}

/// What browsers are told over TLS, as by the reference: to come back by TLS only, and to run nothing.
std::string_view RelayService::page_headers() const {
  return options_.tls_cert.empty() ? std::string_view()
                                   : "Strict-Transport-Security: max-age=63072000; includeSubDomains\r\n"
                                     "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; form-action "
                                     "'none'; base-uri 'self'; "
                                     "block-all-mixed-content; plugin-types 'none'\r\n";
}

/// `agent`: whose info is put; empty: the space's list is asked for.
HttpReply RelayService::bootstrap(const HttpServerRequest& request, std::string_view space, std::string_view agent) {
  if (auto refused = auth_.refusal(request)) return std::move(*refused);
  const net::IpAddress ip = client_ip(request);
  if (request.method != "PUT") {
    log_.say(log::Level::debug, "lists",
             [&] { return request.ip.to_string() + " asks for the agents of space " + shortened(space); });
    return of(bootstrap_.get(space, runtime_.wall_now(), ip.limit_key().bytes));
  }
  auto answer =
      bootstrap_.put(space, agent, request.body, runtime_.wall_now(), ip.limit_key().bytes, random_u64(runtime_));
  const bool taken = answer.status == 200;
  log_.say(taken ? log::Level::debug : log::Level::info, taken ? "infos" : "bootstrap_refused", [&] {
    return request.ip.to_string() + ": the info of agent " + log::printable(agent, 100) + " in space " +
           shortened(space) +
           (taken ? " is taken" : " is refused: " + std::to_string(answer.status) + ' ' + log::printable(answer.body));
  });
  return of(std::move(answer));
}

HttpReply RelayService::authenticate(const HttpServerRequest& request) {
  // The answer comes without the request, so what pages need is made now.
  std::string cors = cors_headers(options_.allowed_origins, request.header("origin"), auth_.has_hook(), false);
  cors += page_headers();
  auto answer = auth_.authenticate(request, client_ip(request), [this, id = request.connection, cors](HttpReply reply) {
    reply.headers += cors;
    http_->answer(id, reply);
  });
  if (answer) return std::move(*answer);
  HttpReply later;
  later.later = true;
  return later;
}

std::string_view RelayService::subprotocol(const HttpServerRequest& request) {
  return request.path == "/relay" && !options_.no_iroh ? IrohRelay::subprotocol(request) : std::string_view();
}

/// Behind a proxy, connections are charged to an address here, since it was not known when they were accepted.
bool RelayService::may_connect(const net::IpAddress& ip, HttpReply& refusal) {
  if (options_.trusted_ip_header.empty() || relay_.on_connect(ip.limit_key().bytes, runtime_.now())) return true;
  refuse("a client of " + ip.to_string(), RelayReject::rate_limited);
  refusal = json(429, R"({"error":"rate_limited"})");
  return false;
}

std::shared_ptr<WsPeerEvents> RelayService::on_upgrade(const HttpServerRequest& request, WsPeer& peer,
                                                       HttpReply& refusal) {
  if (request.path != "/relay") return open_sbd(request, peer, refusal);
  const net::IpAddress ip = client_ip(request);
  if (options_.no_iroh || !may_connect(ip, refusal)) return nullptr;
  const TokenBook::Opened opened = auth_.open(request);
  using Access = TokenBook::Access;
  const auto right = opened.access == Access::good     ? IrohRelay::Right::granted
                     : opened.access == Access::stale  ? IrohRelay::Right::if_listed
                     : opened.access == Access::by_key ? IrohRelay::Right::if_registered
                                                       : IrohRelay::Right::none;
  const auto on_gone = [this, opened] {
    if (opened.token) auth_.closed(*opened.token);
  };
  auto events = iroh_.open(request, peer, ip, right, refusal, on_gone);
  if (!events) on_gone();
  return events;
}

std::shared_ptr<WsPeerEvents> RelayService::open_sbd(const HttpServerRequest& request, WsPeer& peer,
                                                     HttpReply& refusal) {
  if (options_.no_sbd) return nullptr;
  std::string_view path = request.path;
  if (path.starts_with('/')) path.remove_prefix(1);
  std::vector<std::uint8_t> raw;
  sbd::NodeId key{};
  if (!from_base64url(path, raw) || raw.size() != key.size()) {
    refusal = json(400, R"({"error":"the path is not a node key"})");
    return nullptr;
  }
  std::copy(raw.begin(), raw.end(), key.begin());
  const net::IpAddress ip = client_ip(request);
  const Time now = runtime_.now();
  if (!may_connect(ip, refusal)) return nullptr;
  if (auto refused = auth_.refusal(request)) {
    refusal = std::move(*refused);
    return nullptr;
  }
  const bool told = ip != request.ip;  // by a proxy
  std::string name = "client " + to_base64url(key) + " of " + (told ? ip.to_string() : peer.remote());
  RelayCore::Nonce nonce;
  runtime_.random_bytes(nonce);
  if (const auto refused = relay_.on_open(peer.id(), ip.limit_key().bytes, key, nonce, now, random_u64(runtime_))) {
    refuse(name, *refused);
    refusal = json(*refused == RelayReject::illegal_key ? 400 : 503,
                   R"({"error":")" + std::string(to_string(*refused)) + R"("})");
    return nullptr;
  }
  peers_[peer.id()] = {&peer, std::move(name), now, false};
  carry_out();
  return std::make_shared<Peer>(*this, peer.id());
}

WsPeerEvents::Next RelayService::on_message(std::uint64_t from, net::WsPayload& message) {
  std::array<std::uint8_t, RelayCore::kHeadBytes> head;
  const std::size_t n = std::min(message.size, head.size());
  message.copy_to(head.data(), 0, n);
  const Time now = runtime_.now();
  relay_.on_waited(waited(now));
  const auto routed = relay_.on_message(from, {head.data(), n}, message.size, now);
  auto next = WsPeerEvents::Next::go;
  switch (routed.verdict) {
    case RelayCore::Verdict::forward: {
      const auto it = peers_.find(routed.to);
      K2_ASSERT(it != peers_.end());
      if (routed.first) carry_out();  // only sends: nobody is closed
      // The only copy: it unmasks, and replaces the receiver's key by the sender's.
      std::uint8_t* out = it->second.peer->send_space(message.size);
      std::copy(routed.from_key->begin(), routed.from_key->end(), out);
      message.copy_to(out + sbd::kHeaderBytes, sbd::kHeaderBytes, message.size - sbd::kHeaderBytes);
      carry_out();  // others may have been closed to make room for it
      return next;
    }
    case RelayCore::Verdict::hold:
      next = WsPeerEvents::Next::hold;
      break;
    case RelayCore::Verdict::closed:
      next = WsPeerEvents::Next::stop;
      break;
    case RelayCore::Verdict::taken:
      break;
  }
  if (routed.joined) {
    Client& client = peers_.at(from);
    client.joined = true;
    log_.say(log::Level::info, "clients that connected", [&] { return client.name + " connected"; });
  }
  carry_out();
  return next;
}

void RelayService::on_frame(std::uint64_t from, std::size_t size) {
  relay_.on_other_bytes(from, size, runtime_.now());
  carry_out();
}

void RelayService::on_sent(std::uint64_t id, std::size_t queued) {
  relay_.on_queue(id, queued, runtime_.now());
  carry_out();
}

void RelayService::on_gone(std::uint64_t id, std::string_view why) {
  if (const auto it = peers_.find(id); it != peers_.end()) {
    const Client& client = it->second;
    log_.say(log::Level::info, "clients that disconnected", [&] {
      return client.name + (client.joined ? " disconnected" : " disconnected before it had proved its key") +
             lived(client) + log::printable(why);
    });
    peers_.erase(it);
  }
  relay_.on_close(id, runtime_.now());
  carry_out();
}

/// R12 of the core, R9 of the server. Not for each message, because it costs a system call.
Duration RelayService::waited(Time now) {
  constexpr Duration kLookEvery = std::chrono::milliseconds(1);
  if (!loop_wait_ || (look_at_ && now < *look_at_)) return waited_;
  const Duration all = loop_wait_();
  if (!look_at_) waited_before_ = all;
  look_at_ = now + kLookEvery;
  waited_ = all - waited_before_;
  return waited_;
}

/// Carries out the core's actions, and sets the alarm for its next deadline.
void RelayService::carry_out() {
  actions_.clear();
  relay_.take_actions(actions_);
  for (const auto& action : actions_) {
    const auto it = peers_.find(action.conn);
    if (it == peers_.end()) continue;
    WsPeer& peer = *it->second.peer;
    switch (action.kind) {
      case RelayCore::Action::Kind::send:
        peer.send(action.message);
        break;
      case RelayCore::Action::Kind::resume:
        peer.resume();
        break;
      case RelayCore::Action::Kind::close: {
        log_.say(log::Level::info, to_string(action.reason),
                 [&] { return it->second.name + " is closed" + lived(it->second) + explain(action.reason); });
        // Who floods before it has proved a key is no stock client: to wait until it has read why costs more than it.
        const bool joined = it->second.joined;
        peers_.erase(it);
        const auto reason = to_string(action.reason);
        if (breaks_a_rule(action.reason)) peer.blame();
        if (action.reason == RelayReject::slow_receiver || action.reason == RelayReject::queues_full ||
            (action.reason == RelayReject::rate_limited && !joined)) {
          peer.abort(reason);
        } else {
          peer.close(action.reason == RelayReject::too_large ? 1009 : 1008, reason);
        }
        break;
      }
    }
  }
  const auto next = relay_.next_deadline();
  if (!next || *next >= core_alarm_) return;
  runtime_.cancel(core_timer_);
  core_alarm_ = *next;
  core_timer_ = runtime_.schedule(*next, [this] {
    core_alarm_ = Time::max();
    core_timer_ = 0;
    relay_.on_waited(waited(runtime_.now()));
    relay_.poll(runtime_.now());
    carry_out();
  });
}

void RelayService::prune_later() {
  prune_timer_ = runtime_.schedule_after(millis(options_.prune_interval_ms), [this] {
    bootstrap_.prune(runtime_.wall_now());
    auth_.prune();
    log_.flush();
    prune_later();
  });
}

}  // namespace kitsune2::server
