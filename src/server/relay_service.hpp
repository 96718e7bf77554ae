// The relay and bootstrap server without sockets: routes, clients, timers on any runtime.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kitsune2/relay_server.hpp"
#include "kitsune2/runtime.hpp"
#include "server/auth/authenticator.hpp"
#include "server/bootstrap_core.hpp"
#include "server/http_server.hpp"
#include "server/iroh/relay_driver.hpp"
#include "server/relay_log.hpp"
#include "server/sbd/relay_core.hpp"

namespace kitsune2::server {

/// Errc::invalid_argument names the option.
Result<void> check_options(const RelayServerOptions& options);
/// Takes over from `wanted` what may change while the server runs. Returns the names of other options that differ.
std::vector<std::string> adopt_options(RelayServerOptions& options, const RelayServerOptions& wanted);

/// What a relay server does with the connections that it is given, over real sockets (RelayServer) or simulated ones.
/// docs/protocol-relay.md has the routes. `options` must be valid (`check_options`). Strand only; `runtime` must
/// outlive it.
class RelayService final : public HttpHandler {
 public:
  RelayService(Runtime& runtime, const RelayServerOptions& options);
  ~RelayService() override;

  /// `waited` tells for how long the loop has waited for a processor in all (RelayCore R12, HttpServer R9). Without it:
  /// never.
  void set_loop_wait(std::function<Duration()> waited) { loop_wait_ = std::move(waited); }
  /// What the authentication hook server is called with, if there is one.
  void set_hook_client(std::unique_ptr<HttpClient> client) { auth_.use_client(std::move(client)); }
  /// Called by a Listener. Null: refused.
  std::shared_ptr<net::ConnEvents> accept(const std::shared_ptr<net::Conn>& conn);
  /// Applies new, valid limits. Returns the names of options that keep their value until a restart.
  std::vector<std::string> reload(const RelayServerOptions& options);
  /// Closes all connections cleanly; calls `done` when the last one is closed. See HttpServer::drain.
  void drain(std::function<void()> done);

  // Other threads may read the counters.
  const RelayCounters& relay_counters() const { return relay_.counters(); }
  const IrohRelayCounters& iroh_counters() const { return iroh_.counters(); }
  const BootstrapCounters& bootstrap_counters() const { return bootstrap_.counters(); }
  const HttpCounters& http_counters() const { return http_->counters(); }
  const AuthCounters& auth_counters() const { return auth_.counters(); }
  const Counter& log_left_out() const { return log_.left_out(); }
  /// O(n); tests.
  void check_invariants() const;

  // --- HttpHandler
  bool admit(const net::IpAddress& ip) override;
  Cost cost(const HttpServerRequest& request) override;
  HttpReply on_request(const HttpServerRequest& request) override;
  std::string_view subprotocol(const HttpServerRequest& request) override;
  std::shared_ptr<WsPeerEvents> on_upgrade(const HttpServerRequest& request, WsPeer& peer, HttpReply& refusal) override;
  void on_fault(const std::string& remote, HttpFault fault, std::string_view what) override;

 private:
  class Peer;
  /// A connected client, and what the log says about it.
  struct Client {
    WsPeer* peer = nullptr;
    std::string name;  ///< "client <key> of <address>"
    Time since{};
    bool joined = false;
  };

  std::shared_ptr<WsPeerEvents> open_sbd(const HttpServerRequest& request, WsPeer& peer, HttpReply& refusal);
  bool may_connect(const net::IpAddress& ip, HttpReply& refusal);
  WsPeerEvents::Next on_message(std::uint64_t from, net::WsPayload& message);
  void on_frame(std::uint64_t from, std::size_t size);
  void on_sent(std::uint64_t id, std::size_t queued);
  void on_gone(std::uint64_t id, std::string_view why);
  std::string explain(RelayReject reason) const;
  std::string lived(const Client& client) const;
  void refuse(const std::string& who, RelayReject reason);
  Duration waited(Time now);
  void carry_out();
  void prune_later();
  HttpReply route(const HttpServerRequest& request);
  HttpReply bootstrap(const HttpServerRequest& request, std::string_view space, std::string_view agent);
  HttpReply authenticate(const HttpServerRequest& request);
  std::string_view page_headers() const;
  net::IpAddress client_ip(const HttpServerRequest& request) const;

  Runtime& runtime_;
  RelayServerOptions options_;
  RelayCore relay_;
  BootstrapCore bootstrap_;
  RelayLog log_;
  Authenticator auth_;
  IrohRelay iroh_;
  boost::unordered_flat_map<std::uint64_t, Client> peers_;
  std::vector<RelayCore::Action> actions_;
  std::unique_ptr<HttpServer> http_;
  std::function<Duration()> loop_wait_;
  Duration waited_before_{};  ///< the relay began
  Duration waited_{};         ///< since then, at the last look
  std::optional<Time> look_at_;
  Time core_alarm_ = Time::max();
  Runtime::TimerId core_timer_ = 0;
  Runtime::TimerId prune_timer_ = 0;
};

}  // namespace kitsune2::server
