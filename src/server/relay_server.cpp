#include "kitsune2/relay_server.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <sstream>
#include <utility>

#include "kitsune2/asio_runtime.hpp"
#include "net/conn.hpp"
#include "server/bootstrap_core.hpp"
#include "server/http_server.hpp"
#include "server/relay_core.hpp"

namespace kitsune2 {

using namespace kitsune2::server;

namespace {

constexpr Duration kReloadTls = std::chrono::hours(1);

Duration millis(std::uint32_t ms) { return std::chrono::milliseconds(ms); }

Result<void> check(const RelayServerOptions& o) {
  const auto bad = [](const std::string& what) { return make_error(Errc::invalid_argument, what); };
  if (o.listen.empty()) return bad("listen: no address");
  if (o.tls_cert.empty() != o.tls_key.empty()) return bad("tls_cert and tls_key: give both or none");
  if (o.max_entries_per_space == 0) return bad("max_entries_per_space: must be at least 1");
  if (o.prune_interval_ms == 0) return bad("prune_interval_ms: must be at least 1");
  if (o.limit_ip_kbps == 0 || o.limit_ip_kbps > 8'000'000) return bad("limit_ip_kbps: must be 1..8000000");
  if (o.limit_ip_byte_burst < sbd::kMaxMessageBytes) {
    return bad("limit_ip_byte_burst: must be at least " + std::to_string(sbd::kMaxMessageBytes) + ", one message");
  }
  if (o.limit_idle_millis == 0 || o.limit_idle_millis > 0x7fffffffU) return bad("limit_idle_millis: must be 1..2^31-1");
  if (o.limit_send_queue_bytes < 2 * sbd::kMaxMessageBytes) {
    return bad("limit_send_queue_bytes: must be at least " + std::to_string(2 * sbd::kMaxMessageBytes));
  }
  const std::pair<const char*, std::uint32_t> times[] = {
      {"slow_receiver_millis", o.slow_receiver_millis}, {"http_header_millis", o.http_header_millis},
      {"http_body_millis", o.http_body_millis},         {"http_idle_millis", o.http_idle_millis},
      {"write_stall_millis", o.write_stall_millis},     {"slow_receiver_bytes", o.slow_receiver_bytes}};
  for (const auto& [name, value] : times) {
    if (value == 0) return bad(std::string(name) + ": must be at least 1");
  }
  return {};
}

RelayLimits relay_limits(const RelayServerOptions& o) {
  RelayLimits out;
  out.clients = o.limit_clients;
  out.rate_limiting = !o.disable_rate_limiting;
  out.ip_kbps = o.limit_ip_kbps;
  out.ip_byte_burst = o.limit_ip_byte_burst;
  out.idle_millis = o.limit_idle_millis;
  out.send_queue_bytes = o.limit_send_queue_bytes;
  out.slow_receiver_millis = o.slow_receiver_millis;
  out.slow_receiver_bytes = o.slow_receiver_bytes;
  return out;
}

HttpLimits http_limits(const RelayServerOptions& o) {
  HttpLimits out;
  out.connections = o.limit_connections == 0 ? SIZE_MAX : o.limit_connections;
  out.connections_per_ip = o.trusted_ip_header.empty() ? o.limit_ip_connections : 0;
  out.ws_message_bytes = sbd::kMaxMessageBytes;
  out.header_time = millis(o.http_header_millis);
  out.body_time = millis(o.http_body_millis);
  out.idle_time = millis(o.http_idle_millis);
  out.stall_time = millis(o.write_stall_millis);
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

/// Everything that lives on the strand.
class Service final : public HttpHandler {
 public:
  Service(AsioRuntime& runtime, const RelayServerOptions& options)
      : runtime_(runtime),
        options_(options),
        relay_(relay_limits(options)),
        bootstrap_(
            {options.max_entries_per_space, options.max_spaces == 0 ? SIZE_MAX : options.max_spaces,
             options.max_bootstrap_bytes == 0 ? SIZE_MAX : static_cast<std::size_t>(options.max_bootstrap_bytes)}) {
    http_.emplace(runtime, http_limits(options), *this);
  }

  ~Service() override {
    for (const auto& listener : listeners_) listener->stop();
    http_.reset();  // its last callbacks may still set the alarm
    for (const auto timer : {core_timer_, prune_timer_, tls_timer_}) runtime_.cancel(timer);
  }

  Result<void> open() {
    std::shared_ptr<net::TlsContext> tls;
    if (!options_.tls_cert.empty()) {
      auto made = net::TlsContext::server(options_.tls_cert, options_.tls_key);
      if (made.has_error()) return made.error();
      tls = *made;
      reload_tls_later();
    }
    for (const auto& address : options_.listen) {
      auto listener = net::Listener::listen(
          runtime_, address, tls, [this](const std::shared_ptr<net::Conn>& conn) { return http_->accept(conn); });
      if (listener.has_error()) return listener.error();
      listeners_.push_back(*listener);
    }
    for (const auto& listener : listeners_) listener->start();
    prune_later();
    return {};
  }

  std::vector<std::string> addresses() const {
    std::vector<std::string> out;
    for (const auto& listener : listeners_) out.push_back(listener->address());
    return out;
  }

  // Counters are read by other threads: see Counter.
  const RelayCounters& relay_counters() const { return relay_.counters(); }
  const BootstrapCounters& bootstrap_counters() const { return bootstrap_.counters(); }
  const HttpCounters& http_counters() const { return http_->counters(); }

  // --- HttpHandler
  bool admit(const net::IpAddress& ip) override {
    if (!options_.trusted_ip_header.empty()) return true;  // that is the proxy; see on_upgrade
    return relay_.on_connect(ip.limit_key().bytes, runtime_.now());
  }

  HttpReply on_request(const HttpServerRequest& request) override {
    const bool get = request.method == "GET" || request.method == "HEAD";
    if (request.path == "/health") return get ? json(200, "{}") : method_not_allowed("GET,HEAD");
    std::string_view rest = request.path;
    if (rest.starts_with('/')) rest.remove_prefix(1);
    const bool one_segment = rest.find('/') == std::string_view::npos;
    const std::string_view first = next_segment(rest);
    if (first == "bootstrap" && !one_segment) {
      const bool with_agent = rest.find('/') != std::string_view::npos;
      const std::string_view space = next_segment(rest);
      if (!with_agent) {
        if (!get) return method_not_allowed("GET,HEAD");
        return of(bootstrap_.get(space, runtime_.wall_now()));
      }
      if (rest.find('/') == std::string_view::npos) {
        if (request.method != "PUT") return method_not_allowed("PUT");
        return of(bootstrap_.put(space, rest, request.body, runtime_.wall_now()));
      }
    } else if (one_segment && !options_.no_sbd && !first.empty()) {
      if (!get) return method_not_allowed("GET,HEAD");
      return json(400, R"({"error":"this is for WebSocket connections"})");
    }
    return json(404, R"({"error":"not found"})");
  }

  std::shared_ptr<WsPeerEvents> on_upgrade(const HttpServerRequest& request, WsPeer& peer, HttpReply& refusal) override;

 private:
  class Peer;

  static HttpReply of(BootstrapAnswer answer) { return json(answer.status, std::move(answer.body)); }

  WsPeerEvents::Next on_message(std::uint64_t from, net::WsPayload& message) {
    std::array<std::uint8_t, RelayCore::kHeadBytes> head;
    const std::size_t n = std::min(message.size, head.size());
    message.copy_to(head.data(), 0, n);
    const auto routed = relay_.on_message(from, {head.data(), n}, message.size, runtime_.now());
    auto next = WsPeerEvents::Next::kGo;
    switch (routed.verdict) {
      case RelayCore::Verdict::kForward: {
        const auto it = peers_.find(routed.to);
        K2_ASSERT(it != peers_.end());
        // The one copy: it unmasks, and puts the sender's key where the receiver's was.
        std::uint8_t* out = it->second->send_space(message.size);
        std::copy(routed.from_key->begin(), routed.from_key->end(), out);
        message.copy_to(out + sbd::kHeaderBytes, sbd::kHeaderBytes, message.size - sbd::kHeaderBytes);
        return next;  // a forward makes no actions
      }
      case RelayCore::Verdict::kHold:
        next = WsPeerEvents::Next::kHold;
        break;
      case RelayCore::Verdict::kClosed:
        next = WsPeerEvents::Next::kStop;
        break;
      case RelayCore::Verdict::kTaken:
        break;
    }
    carry_out();
    return next;
  }

  void on_ping(std::uint64_t from, std::size_t size) {
    relay_.on_other_bytes(from, size, runtime_.now());
    carry_out();
  }

  void on_sent(std::uint64_t id, std::size_t queued) {
    relay_.on_queue(id, queued, runtime_.now());
    carry_out();
  }

  void on_gone(std::uint64_t id) {
    peers_.erase(id);
    relay_.on_close(id, runtime_.now());
    carry_out();
  }

  /// Does what the core wants, and sets the alarm for its next deadline.
  void carry_out() {
    actions_.clear();
    relay_.take_actions(actions_);
    for (const auto& action : actions_) {
      const auto it = peers_.find(action.conn);
      if (it == peers_.end()) continue;
      WsPeer& peer = *it->second;
      switch (action.kind) {
        case RelayCore::Action::Kind::kSend:
          peer.send(action.message);
          break;
        case RelayCore::Action::Kind::kResume:
          peer.resume();
          break;
        case RelayCore::Action::Kind::kClose: {
          peers_.erase(it);
          const auto reason = to_string(action.reason);
          if (action.reason == RelayReject::kSlowReceiver) {
            peer.abort(reason);
          } else {
            peer.close(action.reason == RelayReject::kTooLarge ? 1009 : 1008, reason);
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
      relay_.poll(runtime_.now());
      carry_out();
    });
  }

  void prune_later() {
    prune_timer_ = runtime_.schedule_after(millis(options_.prune_interval_ms), [this] {
      bootstrap_.prune(runtime_.wall_now());
      prune_later();
    });
  }

  void reload_tls_later() {
    tls_timer_ = runtime_.schedule_after(kReloadTls, [this] {
      if (auto made = net::TlsContext::server(options_.tls_cert, options_.tls_key); made.has_error()) {
        spdlog::error("relay: keeps the old certificate: {}", made.error().message);
      } else {
        for (const auto& listener : listeners_) listener->set_tls(*made);
      }
      reload_tls_later();
    });
  }

  AsioRuntime& runtime_;
  RelayServerOptions options_;
  RelayCore relay_;
  BootstrapCore bootstrap_;
  boost::unordered_flat_map<std::uint64_t, WsPeer*> peers_;
  std::vector<RelayCore::Action> actions_;
  std::optional<HttpServer> http_;
  std::vector<std::shared_ptr<net::Listener>> listeners_;
  Time core_alarm_ = Time::max();
  Runtime::TimerId core_timer_ = 0;
  Runtime::TimerId prune_timer_ = 0;
  Runtime::TimerId tls_timer_ = 0;
};

/// One relay client's messages.
class Service::Peer final : public WsPeerEvents {
 public:
  Peer(Service& service, std::uint64_t id) : service_(service), id_(id) {}
  Next on_ws_message(net::WsPayload& message) override { return service_.on_message(id_, message); }
  void on_ws_ping(std::size_t size) override { service_.on_ping(id_, size); }
  void on_ws_sent(std::size_t queued) override { service_.on_sent(id_, queued); }
  void on_ws_closed() override { service_.on_gone(id_); }

 private:
  Service& service_;
  std::uint64_t id_;
};

std::shared_ptr<WsPeerEvents> Service::on_upgrade(const HttpServerRequest& request, WsPeer& peer, HttpReply& refusal) {
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
  net::IpAddress ip = request.ip;
  const Time now = runtime_.now();
  if (!options_.trusted_ip_header.empty()) {
    if (const auto told = net::IpAddress::parse(request.header(options_.trusted_ip_header))) ip = *told;
    if (!relay_.on_connect(ip.limit_key().bytes, now)) {
      refusal = json(429, R"({"error":"rate_limited"})");
      return nullptr;
    }
  }
  RelayCore::Nonce nonce;
  runtime_.random_bytes(nonce);
  if (const auto refused = relay_.on_open(peer.id(), ip.limit_key().bytes, key, nonce, now)) {
    refusal = json(*refused == RelayReject::kIllegalKey ? 400 : 503,
                   R"({"error":")" + std::string(to_string(*refused)) + R"("})");
    return nullptr;
  }
  peers_.emplace(peer.id(), &peer);
  carry_out();
  return std::make_shared<Peer>(*this, peer.id());
}

/// A wildcard address cannot be connected to: the loopback one reaches the same server.
std::string reachable(const std::string& address) {
  if (address.starts_with("0.0.0.0:")) return "127.0.0.1:" + address.substr(8);
  if (address.starts_with("[::]:")) return "[::1]:" + address.substr(5);
  return address;
}

}  // namespace

struct RelayServer::Impl {
  std::unique_ptr<AsioRuntime> own_runtime;
  AsioRuntime* runtime = nullptr;
  std::unique_ptr<Service> service;  // made and destroyed on the strand
  bool stopped = false;
  bool tls = false;
  std::vector<std::string> addresses;
  RelayServerStats last;  // once stopped

  void end() {
    if (service) last = snapshot();
    last.connections = last.relay_clients = last.bootstrap_spaces = last.bootstrap_entries = 0;
    service.reset();
  }
  RelayServerStats snapshot() const;
};

RelayServer::RelayServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RelayServer::~RelayServer() {
  stop();
  // Counters may be read until here; connections that end later do not know the service any more.
  auto& im = *impl_;
  if (im.own_runtime) im.own_runtime->stop();
}

Result<std::unique_ptr<RelayServer>> RelayServer::start(AsioRuntime& runtime, const RelayServerOptions& options) {
  if (const auto valid = check(options); valid.has_error()) return valid.error();
  auto impl = std::make_unique<Impl>();
  impl->runtime = &runtime;
  impl->tls = !options.tls_cert.empty();
  Result<void> opened;
  const bool ran = runtime.call([&] {
    impl->service = std::make_unique<Service>(runtime, options);
    opened = impl->service->open();
    impl->addresses = impl->service->addresses();
    if (opened.has_error()) impl->service.reset();
  });
  if (!ran) return make_error(Errc::invalid_argument, "the runtime is not running");
  if (opened.has_error()) return opened.error();
  return std::unique_ptr<RelayServer>(new RelayServer(std::move(impl)));
}

Result<std::unique_ptr<RelayServer>> RelayServer::start(const RelayServerOptions& options) {
  auto runtime = std::make_unique<AsioRuntime>();
  runtime->start();
  auto server = start(*runtime, options);
  if (server.has_value()) (*server)->impl_->own_runtime = std::move(runtime);
  return server;
}

const std::string& RelayServer::address() const { return impl_->addresses.front(); }
const std::vector<std::string>& RelayServer::addresses() const { return impl_->addresses; }
bool RelayServer::uses_tls() const { return impl_->tls; }
std::string RelayServer::relay_url() const { return (impl_->tls ? "wss://" : "ws://") + reachable(address()); }
std::string RelayServer::bootstrap_url() const { return (impl_->tls ? "https://" : "http://") + reachable(address()); }

RelayServerStats RelayServer::stats() const { return impl_->service ? impl_->snapshot() : impl_->last; }

RelayServerStats RelayServer::Impl::snapshot() const {
  RelayServerStats out;
  const auto& http = service->http_counters();
  const auto& relay = service->relay_counters();
  const auto& bootstrap = service->bootstrap_counters();
  out.connections = http.connections.get();
  out.relay_clients = relay.clients.get();
  out.accepted = http.accepted.get();
  out.handshakes = relay.handshakes.get();
  out.forwards = relay.forwards.get();
  out.forward_bytes = relay.forward_bytes.get();
  out.dropped_unknown = relay.dropped_unknown.get();
  out.sender_waits = relay.sender_waits.get();
  out.http_requests = http.requests.get();
  out.bootstrap_puts = bootstrap.puts.get();
  out.bootstrap_gets = bootstrap.gets.get();
  out.bootstrap_spaces = bootstrap.spaces.get();
  out.bootstrap_entries = bootstrap.entries.get();
  for (std::size_t i = 0; i < kRelayRejectCount; ++i) {
    out.rejects.emplace_back(to_string(static_cast<RelayReject>(i)), relay.rejects[i].get());
  }
  out.rejects.emplace_back("limit_connections", http.limit_connections.get());
  out.rejects.emplace_back("limit_ip", http.limit_ip.get());
  out.rejects.emplace_back("bad_request", http.bad_request.get());
  out.rejects.emplace_back("request_timeout", http.timed_out.get());
  out.rejects.emplace_back("write_stall", http.stalled.get());
  out.rejects.emplace_back("websocket_fault", http.ws_fault.get());
  out.rejects.emplace_back("bootstrap_refused", bootstrap.refused.get());
  return out;
}

std::string RelayServer::metrics() const {
  const RelayServerStats s = stats();
  std::ostringstream out;
  const auto figure = [&](const char* name, const char* type, const char* help, std::uint64_t value) {
    out << "# HELP kitsune2_relay_" << name << ' ' << help << "\n# TYPE kitsune2_relay_" << name << ' ' << type
        << "\nkitsune2_relay_" << name << ' ' << value << '\n';
  };
  figure("connections", "gauge", "TCP connections open.", s.connections);
  figure("clients", "gauge", "Relay clients connected.", s.relay_clients);
  figure("accepted_total", "counter", "TCP connections accepted.", s.accepted);
  figure("handshakes_total", "counter", "Relay handshakes finished.", s.handshakes);
  figure("forwards_total", "counter", "Messages forwarded.", s.forwards);
  figure("forward_bytes_total", "counter", "Bytes forwarded, headers included.", s.forward_bytes);
  figure("dropped_unknown_total", "counter", "Messages to a key that is not connected.", s.dropped_unknown);
  figure("sender_waits_total", "counter", "Times a sender was held for a full receiver.", s.sender_waits);
  figure("http_requests_total", "counter", "HTTP requests, upgrades included.", s.http_requests);
  figure("bootstrap_puts_total", "counter", "Agent infos accepted.", s.bootstrap_puts);
  figure("bootstrap_gets_total", "counter", "Agent info lists given.", s.bootstrap_gets);
  figure("bootstrap_spaces", "gauge", "Spaces held.", s.bootstrap_spaces);
  figure("bootstrap_entries", "gauge", "Agent infos held.", s.bootstrap_entries);
  out << "# HELP kitsune2_relay_rejects_total Connections and requests refused or closed, by reason.\n"
         "# TYPE kitsune2_relay_rejects_total counter\n";
  for (const auto& [reason, count] : s.rejects) {
    out << "kitsune2_relay_rejects_total{reason=\"" << reason << "\"} " << count << '\n';
  }
  return out.str();
}

void RelayServer::stop() {
  auto& im = *impl_;
  if (std::exchange(im.stopped, true)) return;
  const bool ran = im.runtime->call([&] { im.end(); });
  if (!ran) im.end();  // the runtime has stopped: nothing else touches it
}

struct AdminServer::Impl final : public HttpHandler {
  Metrics metrics;
  std::function<Health()> health;
  AsioRuntime* runtime = nullptr;
  std::optional<HttpServer> http;
  std::shared_ptr<net::Listener> listener;
  std::string address;
  bool stopped = false;

  bool admit(const net::IpAddress&) override { return true; }
  HttpReply on_request(const HttpServerRequest& request) override {
    HttpReply out;
    out.content_type = "text/plain; charset=utf-8";
    if (request.path != "/metrics" && request.path != "/healthz") {
      out.status = 404;
      out.body = "try /metrics or /healthz\n";
    } else if (request.method != "GET" && request.method != "HEAD") {
      out.status = 405;
      out.allow = "GET,HEAD";
      out.body = "method not allowed\n";
    } else if (request.path == "/metrics") {
      out.content_type = "text/plain; version=0.0.4; charset=utf-8";
      out.body = metrics ? metrics() : std::string();
    } else {
      const Health now = health ? health() : Health{};
      out.status = now.ok ? 200 : 503;
      out.body = now.text;
    }
    return out;
  }
  std::shared_ptr<WsPeerEvents> on_upgrade(const HttpServerRequest&, WsPeer&, HttpReply&) override { return nullptr; }
};

AdminServer::AdminServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AdminServer::~AdminServer() { stop(); }
const std::string& AdminServer::address() const { return impl_->address; }

Result<std::unique_ptr<AdminServer>> AdminServer::start(AsioRuntime& runtime, const std::string& listen,
                                                        Metrics metrics, std::function<Health()> health) {
  auto impl = std::make_unique<Impl>();
  impl->metrics = std::move(metrics);
  impl->health = std::move(health);
  impl->runtime = &runtime;
  std::string where = listen;
  if (where.find(':') == std::string::npos) where.insert(0, ":");
  if (where.front() == ':') where.insert(0, "127.0.0.1");
  Result<void> opened;
  const bool ran = runtime.call([&] {
    HttpLimits limits;
    limits.connections = 64;
    limits.connections_per_ip = 0;
    impl->http.emplace(runtime, limits, *impl);
    auto listener = net::Listener::listen(
        runtime, where, nullptr,
        [im = impl.get()](const std::shared_ptr<net::Conn>& conn) { return im->http->accept(conn); });
    if (listener.has_error()) {
      opened = listener.error().context("admin");
      impl->http.reset();
      return;
    }
    impl->listener = *listener;
    impl->address = impl->listener->address();
    impl->listener->start();
  });
  if (!ran) return make_error(Errc::invalid_argument, "the runtime is not running");
  if (opened.has_error()) return opened.error();
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(impl)));
}

void AdminServer::stop() {
  auto& im = *impl_;
  if (std::exchange(im.stopped, true)) return;
  const auto end = [&] {
    if (im.listener) im.listener->stop();
    im.http.reset();
  };
  if (!im.runtime->call(end)) end();
}

}  // namespace kitsune2
