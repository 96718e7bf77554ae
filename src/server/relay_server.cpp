// The relay and bootstrap server on real sockets, and the admin endpoint: listeners, certificates, start and stop.
#include "kitsune2/relay_server.hpp"

#include <future>
#include <optional>
#include <utility>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/http.hpp"
#include "log/log.hpp"
#include "net/conn.hpp"
#include "net/local_conn.hpp"
#include "net/loop_wait.hpp"
#include "net/udp.hpp"
#include "server/exposition.hpp"
#include "server/iroh/quic_refusal.hpp"
#include "server/relay_service.hpp"

namespace kitsune2 {

using namespace kitsune2::server;

namespace {

constexpr Duration kReloadTls = std::chrono::hours(1);

/// The service and its sockets, which belong to the strand.
class Serving {
 public:
  Serving(AsioRuntime& runtime, const RelayServerOptions& options)
      : runtime_(runtime),
        options_(options),
        service_(std::make_unique<RelayService>(runtime, options)),
        door_(std::make_shared<net::LocalDoor>(
            runtime, [this](const std::shared_ptr<net::Conn>& conn) { return service_->accept(conn); })) {
    service_->set_loop_wait([this] { return wait_.total(); });
    if (!options.authentication_hook_server.empty()) service_->set_hook_client(make_http_client(runtime));
  }

  ~Serving() {
    door_->shut();
    for (const auto& listener : listeners_) listener->stop();
    for (const auto& responder : responders_) responder->stop();
    runtime_.cancel(tls_timer_);
  }

  Result<void> open() {
    std::shared_ptr<net::TlsContext> tls;
    if (!options_.tls_cert.empty()) {
      auto made = net::TlsContext::server(options_.tls_cert, options_.tls_key);
      if (!made) return made.error();
      tls = *made;
      read_tls_later();
    }
    for (const auto& address : options_.listen) {
      auto listener = net::Listener::listen(
          runtime_, address, tls, [this](const std::shared_ptr<net::Conn>& conn) { return service_->accept(conn); });
      if (!listener) return listener.error();
      listeners_.push_back(*listener);
    }
    for (const auto& listener : listeners_) listener->start();
    for (const auto& address : options_.quic_listen) {
      auto responder = net::UdpResponder::listen(runtime_, address, refuse_quic);
      if (!responder && responder.error().code == Errc::invalid_argument) {
        return make_error(Errc::invalid_argument, "quic_listen: " + responder.error().message);
      }
      if (!responder) {
        log::warn("relay", responder.error().message +
                               "; unless another relay has the port, stock nodes of dialect 0.5 start 3 s later");
        continue;
      }
      (*responder)->start();
      responders_.push_back(*responder);
    }
    return {};
  }

  Result<std::vector<std::string>> reload(const RelayServerOptions& wanted) {
    if (const auto valid = check_options(wanted); !valid) return valid.error();
    RelayServerOptions options = options_;
    auto kept = adopt_options(options, wanted);
    if (!options.tls_cert.empty()) {
      auto made = net::TlsContext::server(options.tls_cert, options.tls_key);
      if (!made) return made.error();
      for (const auto& listener : listeners_) listener->set_tls(*made);
      log::info("relay", "new connections get the certificate of " + options.tls_cert + " as it is now");
    }
    options_ = options;
    service_->reload(options);
    return kept;
  }

  void drain(std::function<void()> done) {
    for (const auto& listener : listeners_) listener->stop();
    const auto open = service_->http_counters().connections.get();
    log::info("relay", "stopping; closing " + std::to_string(open) + (open == 1 ? " connection" : " connections"));
    service_->drain(std::move(done));
  }

  std::vector<std::string> addresses() const {
    std::vector<std::string> out;
    for (const auto& listener : listeners_) out.push_back(listener->address());
    return out;
  }
  const RelayService& service() const { return *service_; }
  const std::shared_ptr<net::LocalDoor>& door() const { return door_; }

 private:
  void read_tls_later() {
    tls_timer_ = runtime_.schedule_after(kReloadTls, [this] {
      if (auto made = net::TlsContext::server(options_.tls_cert, options_.tls_key); !made) {
        log::error("relay", "keeping the old certificate: " + made.error().message);
      } else {
        for (const auto& listener : listeners_) listener->set_tls(*made);
      }
      read_tls_later();
    });
  }

  AsioRuntime& runtime_;
  RelayServerOptions options_;
  net::LoopWait wait_;
  std::unique_ptr<RelayService> service_;
  std::shared_ptr<net::LocalDoor> door_;
  std::vector<std::shared_ptr<net::Listener>> listeners_;
  std::vector<std::shared_ptr<net::UdpResponder>> responders_;
  Runtime::TimerId tls_timer_ = 0;
};

/// Nobody can connect to a wildcard address; the loopback one reaches the same server.
std::string reachable(const std::string& address) {
  if (address.starts_with("0.0.0.0:")) return "127.0.0.1:" + address.substr(8);
  if (address.starts_with("[::]:")) return "[::1]:" + address.substr(5);
  return address;
}

}  // namespace

struct RelayServer::Impl {
  std::unique_ptr<AsioRuntime> own_runtime;
  AsioRuntime* runtime = nullptr;
  std::unique_ptr<Serving> serving;  // made and destroyed on the strand
  bool stopped = false;
  bool tls = false;
  std::vector<std::string> addresses;
  std::shared_ptr<net::LocalDoor> door;
  RelayServerStats last;  // once stopped

  void end() {
    if (serving) last = snapshot();
    last.connections = last.relay_clients = last.bootstrap_spaces = last.bootstrap_entries = last.queued_bytes = 0;
    last.iroh.clients = last.iroh.queued_bytes = 0;
    serving.reset();
  }
  RelayServerStats snapshot() const;
};

RelayServer::RelayServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RelayServer::~RelayServer() {
  stop(std::chrono::milliseconds(0));
  // Counters may be read until here; connections that end later do not use the service any more.
  auto& im = *impl_;
  if (im.own_runtime) im.own_runtime->stop();
}

Result<std::unique_ptr<RelayServer>> RelayServer::start(AsioRuntime& runtime, const RelayServerOptions& options) {
  if (const auto valid = check_options(options); !valid) return valid.error();
  auto impl = std::make_unique<Impl>();
  impl->runtime = &runtime;
  impl->tls = !options.tls_cert.empty();
  Result<void> opened;
  const bool ran = runtime.call([&] {
    impl->serving = std::make_unique<Serving>(runtime, options);
    opened = impl->serving->open();
    impl->addresses = impl->serving->addresses();
    impl->door = impl->serving->door();
    if (!opened) impl->serving.reset();
  });
  if (!ran) return make_error(Errc::invalid_argument, "the runtime is not running");
  if (!opened) return opened.error();
  return std::unique_ptr<RelayServer>(new RelayServer(std::move(impl)));
}

Result<std::unique_ptr<RelayServer>> RelayServer::start(const RelayServerOptions& options) {
  auto runtime = std::make_unique<AsioRuntime>(options.log);
  runtime->start();
  auto server = start(*runtime, options);
  if (server.has_value()) (*server)->impl_->own_runtime = std::move(runtime);
  return server;
}

const std::string& RelayServer::address() const { return impl_->addresses.front(); }
const std::vector<std::string>& RelayServer::addresses() const { return impl_->addresses; }
std::shared_ptr<net::LocalDoor> RelayServer::local_door() const { return impl_->door; }
bool RelayServer::uses_tls() const { return impl_->tls; }
std::string RelayServer::relay_url() const { return (impl_->tls ? "wss://" : "ws://") + reachable(address()); }
std::string RelayServer::iroh_relay_url() const { return bootstrap_url() + "/relay"; }
std::string RelayServer::bootstrap_url() const { return (impl_->tls ? "https://" : "http://") + reachable(address()); }

RelayServerStats RelayServer::stats() const { return impl_->serving ? impl_->snapshot() : impl_->last; }

static IrohRelayStats snapshot_of(const IrohRelayCounters& counters) {
  IrohRelayStats out;
  out.clients = counters.clients.get();
  out.queued_bytes = counters.queued_bytes.get();
  out.accepts = counters.accepts.get();
  out.disconnects = counters.disconnects.get();
  out.packets_received = counters.frames_recv.get();
  out.bytes_received = counters.bytes_recv.get();
  out.packets_sent = counters.frames_sent.get();
  out.bytes_sent = counters.bytes_sent.get();
  out.dropped_absent = counters.dropped_absent.get();
  out.dropped_full = counters.dropped_full.get();
  out.dropped_unwritable = counters.dropped_unwritable.get();
  out.pings_received = counters.got_ping.get();
  out.pongs_sent = counters.sent_pong.get();
  out.rate_waits = counters.waits.get();
  out.rate_waiters = counters.waited.get();
  out.rate_wait_bytes = counters.wait_bytes.get();
  for (std::size_t i = 0; i < kIrohRejectCount; ++i) {
    out.rejects.emplace_back(to_string(static_cast<IrohReject>(i)), counters.rejects[i].get());
  }
  return out;
}

static AuthStats snapshot_of(const AuthCounters& counters) {
  AuthStats out;
  out.accepted = counters.accepted.get();
  out.pending = counters.pending.get();
  out.refused = counters.refused.get();
  out.failed = counters.failed.get();
  out.busy = counters.busy.get();
  out.unauthorized = counters.unauthorized.get();
  out.tokens = counters.tokens.get();
  out.keys = counters.keys.get();
  out.calls = counters.calls.get();
  out.waiting = counters.waiting.get();
  return out;
}

RelayServerStats RelayServer::Impl::snapshot() const {
  RelayServerStats out;
  const auto& http = serving->service().http_counters();
  const auto& relay = serving->service().relay_counters();
  const auto& bootstrap = serving->service().bootstrap_counters();
  out.connections = http.connections.get();
  out.relay_clients = relay.clients.get();
  out.accepted = http.accepted.get();
  out.handshakes = relay.handshakes.get();
  out.forwards = relay.forwards.get();
  out.forward_bytes = relay.forward_bytes.get();
  out.dropped_unknown = relay.dropped_unknown.get();
  out.sender_waits = relay.sender_waits.get();
  out.log_left_out = serving->service().log_left_out().get();
  out.queued_bytes = relay.queued_bytes.get();
  out.http_requests = http.requests.get();
  out.http_waits = http.request_waits.get();
  out.http_blamed = http.blamed.get();
  out.bootstrap_puts = bootstrap.puts.get();
  out.bootstrap_gets = bootstrap.gets.get();
  out.bootstrap_spaces = bootstrap.spaces.get();
  out.bootstrap_entries = bootstrap.entries.get();
  out.bootstrap_evicted = bootstrap.evicted.get();
  for (std::size_t i = 0; i < kRelayRejectCount; ++i) {
    out.rejects.emplace_back(to_string(static_cast<RelayReject>(i)), relay.rejects[i].get());
  }
  out.rejects.emplace_back("limit_connections", http.limit_connections.get());
  out.rejects.emplace_back("limit_ip", http.limit_ip.get());
  out.rejects.emplace_back("tls_failed", http.tls_failed.get());
  out.rejects.emplace_back("bad_request", http.bad_request.get());
  out.rejects.emplace_back("request_timeout", http.timed_out.get());
  out.rejects.emplace_back("write_stall", http.stalled.get());
  out.rejects.emplace_back("websocket_fault", http.ws_fault.get());
  out.rejects.emplace_back("evicted_connection", http.evicted.get());
  out.rejects.emplace_back("limit_rate", http.limit_rate.get());
  out.rejects.emplace_back("limit_input", http.limit_input.get());
  out.rejects.emplace_back("bootstrap_refused", bootstrap.refused.get());
  out.iroh = snapshot_of(serving->service().iroh_counters());
  out.auth = snapshot_of(serving->service().auth_counters());
  return out;
}

/// The relay of dialect 0.5: under names of ours, and under those of iroh-relay 1.4.1.
static void add_iroh(Exposition& out, const IrohRelayStats& s) {
  const auto ours = [&](const char* name, const char* type, const char* help, std::uint64_t value) {
    out.add((std::string("kitsune2_relay_iroh_") + name).c_str(), type, help, "", value);
  };
  ours("clients", "gauge", "Clients of the relay of dialect 0.5 connected.", s.clients);
  ours("queued_bytes", "gauge", "Bytes that wait for these clients.", s.queued_bytes);
  ours("dropped_absent_total", "counter", "Packets to a key that is not connected.", s.dropped_absent);
  ours("dropped_full_total", "counter", "Packets to a client whose queue was full.", s.dropped_full);
  ours("dropped_unwritable_total", "counter", "Packets that are empty or of the largest size.", s.dropped_unwritable);
  ours("rate_waits_total", "counter", "Times a client was read later because of a rate.", s.rate_waits);
  for (const auto& [reason, count] : s.rejects) {
    out.add("kitsune2_relay_iroh_rejects_total", "counter", "Clients refused or closed, by reason.",
            "reason=" + quoted_label(reason), count);
  }
  const auto theirs = [&](const char* name, const char* help, std::uint64_t value) {
    out.add((std::string("relayserver_") + name + "_total").c_str(), "counter", help, "", value);
  };
  theirs("accepts", "Handshakes finished.", s.accepts);
  theirs("disconnects", "Clients that left after their handshake.", s.disconnects);
  theirs("unique_client_keys", "The same as accepts.", s.accepts);
  theirs("bytes_sent", "Bytes of datagrams sent.", s.bytes_sent);
  theirs("bytes_recv", "Bytes of datagrams received.", s.bytes_received);
  theirs("send_packets_sent", "Frames of datagrams sent.", s.packets_sent);
  theirs("send_packets_recv", "Frames of datagrams received.", s.packets_received);
  theirs("send_packets_dropped", "Frames of datagrams dropped.",
         s.dropped_absent + s.dropped_full + s.dropped_unwritable);
  theirs("other_packets_dropped", "Always 0.", 0);
  theirs("got_ping", "Pings of clients.", s.pings_received);
  theirs("sent_pong", "Pongs to clients.", s.pongs_sent);
  theirs("bytes_rx_ratelimited", "Bytes that were read later because of a rate.", s.rate_wait_bytes);
  theirs("conns_rx_ratelimited", "Clients that were read later because of a rate.", s.rate_waiters);
}

static void add_auth(Exposition& out, const AuthStats& s) {
  const std::pair<const char*, std::uint64_t> outcomes[] = {
      {"accepted", s.accepted}, {"pending", s.pending}, {"refused", s.refused}, {"failed", s.failed}, {"busy", s.busy}};
  for (const auto& [outcome, value] : outcomes) {
    out.add("kitsune2_relay_auth_requests_total", "counter", "Requests for a token, by outcome.",
            "outcome=" + quoted_label(outcome), value);
  }
  out.add("kitsune2_relay_auth_unauthorized_total", "counter", "Requests without a good token.", "", s.unauthorized);
  out.add("kitsune2_relay_auth_tokens", "gauge", "Tokens of the hook server that are good.", "", s.tokens);
  out.add("kitsune2_relay_auth_keys", "gauge", "Endpoints on the list of those that had a token.", "", s.keys);
  out.add("kitsune2_relay_auth_hook_calls", "gauge", "Calls to the hook server under way.", "", s.calls);
  out.add("kitsune2_relay_auth_hook_waiting", "gauge", "Clients that wait for such a call.", "", s.waiting);
  out.add("bootstrap_auth_failures_total", "counter", "Requests for a token that got none and are not pending.", "",
          s.refused + s.failed + s.busy);
}

std::string RelayServer::metrics() const {
  const RelayServerStats s = stats();
  Exposition out;
  const auto figure = [&](const char* name, const char* type, const char* help, std::uint64_t value) {
    out.add((std::string("kitsune2_relay_") + name).c_str(), type, help, "", value);
  };
  figure("connections", "gauge", "TCP connections open.", s.connections);
  figure("clients", "gauge", "Relay clients connected.", s.relay_clients);
  figure("accepted_total", "counter", "TCP connections accepted.", s.accepted);
  figure("handshakes_total", "counter", "Relay handshakes finished.", s.handshakes);
  figure("forwards_total", "counter", "Messages forwarded.", s.forwards);
  figure("forward_bytes_total", "counter", "Bytes forwarded, headers included.", s.forward_bytes);
  figure("dropped_unknown_total", "counter", "Messages to a key that is not connected.", s.dropped_unknown);
  figure("sender_waits_total", "counter", "Times a sender was held for a full receiver.", s.sender_waits);
  figure("queued_bytes", "gauge", "Bytes that wait for receivers.", s.queued_bytes);
  figure("http_waits_total", "counter", "HTTP requests that waited for their turn.", s.http_waits);
  figure("http_blamed_total", "counter", "Clients that broke a rule, whose address waits behind others for a minute.",
         s.http_blamed);
  figure("http_requests_total", "counter", "HTTP requests, upgrades included.", s.http_requests);
  figure("bootstrap_puts_total", "counter", "Agent infos accepted.", s.bootstrap_puts);
  figure("bootstrap_gets_total", "counter", "Agent info lists given.", s.bootstrap_gets);
  figure("bootstrap_spaces", "gauge", "Spaces held.", s.bootstrap_spaces);
  figure("bootstrap_entries", "gauge", "Agent infos held.", s.bootstrap_entries);
  figure("bootstrap_evicted_total", "counter", "Spaces that made room for others.", s.bootstrap_evicted);
  figure("log_lines_left_out_total", "counter", "Lines of log left out: too many of a kind.", s.log_left_out);
  for (const auto& [reason, count] : s.rejects) {
    out.add("kitsune2_relay_rejects_total", "counter", "Connections and requests refused or closed, by reason.",
            "reason=" + quoted_label(reason), count);
  }
  add_iroh(out, s.iroh);
  add_auth(out, s.auth);
  return out.str();
}

Result<std::vector<std::string>> RelayServer::reload(const RelayServerOptions& options) {
  Result<std::vector<std::string>> out = make_error(Errc::cancelled, "the server is stopped");
  impl_->runtime->call([&] {
    if (impl_->serving) out = impl_->serving->reload(options);
  });
  return out;
}

void RelayServer::stop(std::chrono::milliseconds patience) {
  auto& im = *impl_;
  if (std::exchange(im.stopped, true)) return;
  if (patience.count() > 0 && !im.runtime->on_strand()) {
    const auto gone = std::make_shared<std::promise<void>>();
    auto all_gone = gone->get_future();
    const bool began = im.runtime->call([&] {
      if (im.serving) im.serving->drain([gone] { gone->set_value(); });
    });
    if (began) all_gone.wait_for(patience);
  }
  const bool ran = im.runtime->call([&] { im.end(); });
  if (!ran) im.end();  // the runtime has stopped, so nothing else uses it
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
    if (!listener) {
      opened = listener.error().context("admin");
      impl->http.reset();
      return;
    }
    impl->listener = *listener;
    impl->address = impl->listener->address();
    impl->listener->start();
  });
  if (!ran) return make_error(Errc::invalid_argument, "the runtime is not running");
  if (!opened) return opened.error();
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(impl)));
}

std::string AdminServer::process_metrics() { return server::process_metrics(); }

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
