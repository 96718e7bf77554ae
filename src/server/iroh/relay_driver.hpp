// The relay of dialect 0.5 on WebSockets: passes messages to its core, carries out what that decides, and logs.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kitsune2/relay_server.hpp"
#include "kitsune2/runtime.hpp"
#include "server/http_server.hpp"
#include "server/iroh/relay_core.hpp"
#include "server/relay_log.hpp"

namespace kitsune2::server {

IrohRelayLimits iroh_limits(const RelayServerOptions& options);

/// What `GET /relay` does. docs/protocol-iroh.md has the protocol, IrohRelayCore the rules. Strand only; `runtime`,
/// `log` and the options of the service must outlive it.
class IrohRelay {
 public:
  using Id = IrohRelayCore::Id;
  using Right = IrohRelayCore::Right;

  /// `is_listed`: see IrohRelayCore.
  IrohRelay(Runtime& runtime, const RelayServerOptions& options, RelayLog& log, IrohRelayCore::IsListed is_listed);
  ~IrohRelay();
  IrohRelay(const IrohRelay&) = delete;
  IrohRelay& operator=(const IrohRelay&) = delete;

  /// The version to echo; empty: the client offered none that is known.
  static std::string_view subprotocol(const HttpServerRequest& request);
  /// See HttpHandler::on_upgrade. `ip`: of the client, perhaps told by a proxy. `on_gone`: called once when the client
  /// is gone, if it was taken.
  std::shared_ptr<WsPeerEvents> open(const HttpServerRequest& request, WsPeer& peer, const net::IpAddress& ip,
                                     Right right, HttpReply& refusal, std::function<void()> on_gone = {});
  /// Requests of clients that are not for a WebSocket: /relay, /ping, /generate_204. nullopt: another path.
  static std::optional<HttpReply> on_request(const HttpServerRequest& request);
  /// Applies the options as they are now.
  void reload();
  /// All clients are being closed: nothing is sent to them any more.
  void forget_all();

  const IrohRelayCounters& counters() const { return core_.counters(); }
  const IrohRelayCore& core() const { return core_; }
  /// O(n); tests.
  void check_invariants() const;

 private:
  class Peer;
  struct Client {
    WsPeer* peer = nullptr;
    std::string remote;  ///< its address
    Time since{};
    std::optional<Id> key;  ///< once proven
    std::function<void()> on_gone;
  };

  WsPeerEvents::Next on_message(std::uint64_t from, net::WsPayload& message);
  void on_frame(std::uint64_t from);
  bool on_ping(std::uint64_t from, std::size_t size);
  void on_sent(std::uint64_t id, std::size_t queued);
  void on_closed(std::uint64_t id, std::string_view why);
  void on_joined(std::uint64_t id);
  std::string name(const Client& client) const;
  std::string lived(const Client& client) const;
  std::string explain(IrohReject reason) const;
  void erase(std::uint64_t id);
  void carry_out();

  Runtime& runtime_;
  const RelayServerOptions& options_;
  RelayLog& log_;
  IrohRelayCore core_;
  boost::unordered_flat_map<std::uint64_t, Client> clients_;
  std::vector<IrohRelayCore::Action> actions_;
  Time alarm_ = Time::max();
  Runtime::TimerId timer_ = 0;
};

}  // namespace kitsune2::server
