// A node's connection to its iroh relay, driven over Runtime and WsConnector.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "kitsune2/transport.hpp"
#include "kitsune2/transport_iroh.hpp"
#include "log/log.hpp"
#include "transport/iroh/endpoint_key.hpp"
#include "transport/iroh/relay_client.hpp"
#include "transport/sbd/reconnect.hpp"
#include "transport/ws.hpp"

namespace kitsune2::iroh {

struct RelayLinkOptions {
  /// "ws://host:port" or "wss://host:port". The path is always /relay, as in the reference.
  std::string server;
  std::string tls_ca_file;
  RelayAccess access;                                    ///< null: the relay is open to everyone
  std::string versions = std::string(kOfferedVersions);  ///< that are offered to the relay
  /// Bytes in the WebSocket's queue: little, so that a datagram does not wait behind much.
  std::size_t max_socket_queue = 256 * 1024;
  /// When a relay that was lost is tried again.
  sbd::ReconnectLimits reconnect;
};

/// Hears about the link. Never from inside a call to it.
class RelayLinkOwner {
 public:
  virtual ~RelayLinkOwner() = default;
  /// The relay has accepted this endpoint: datagrams may be sent.
  virtual void on_relay_up() = 0;
  virtual void on_relay_down() = 0;
  virtual void on_relay_datagrams(const Datagrams& datagrams) = 0;
  /// A relay in this process says where a peer is. What it said before `on_relay_up` does not hold any more.
  virtual void on_relay_address(const PeerAddress& address) = 0;
  /// A relay in this process says that an endpoint has left it.
  virtual void on_relay_gone(const EndpointId& id) = 0;
  /// After a refused `send`, the link takes datagrams again.
  virtual void on_relay_writable() = 0;
};

/// Keeps one connection to the relay, for ever: what RelayClient decides is carried out, and a connection that was lost
/// is made again when sbd::Reconnect says. The endpoint's id, and so its url, stays the same. A relay that asks for
/// authentication is presented what RelayLinkOptions::access gives; when it refuses that, the next try asks for
/// another. Thread rule: strand.
class RelayLink {
 public:
  /// `key` and `owner` must outlive the link.
  RelayLink(Runtime& runtime, std::shared_ptr<WsConnector> connector, const EndpointKey& key, RelayLinkOptions options,
            RelayLinkOwner& owner);
  ~RelayLink();

  void start();
  bool up() const { return state_ == State::up; }
  /// Whether the relay is in this process; false while it is not there.
  bool is_in_process() const { return socket_ && socket_->is_in_process(); }
  /// What the tries to connect have met since it was up; nullopt while it is.
  const std::optional<TransportFailure>& failure() const { return failure_; }
  /// False: nothing was taken, because the relay is not there or its socket is full. If it is full, `on_relay_writable`
  /// follows.
  bool send(const Datagrams& datagrams);
  /// A server of this node has answered: a relay that was lost is tried again soon.
  void on_server_answered();
  /// Lets what is queued go out, for a second at most, and closes. `done` later; nothing else is called any more.
  void stop(std::function<void()> done);

 private:
  enum class State { offline, asking, connecting, greeting, up, stopped };

  void connect();
  void open(std::string token);
  void connect_at(Time when);
  std::uint32_t random();
  void on_open();
  void on_message(const Bytes& message);
  void on_writable();
  /// False: an answer to the relay still waits for room.
  bool send_answer();
  void lost(const Error& why);
  void on_timer();
  void arm_timer();
  void end_linger();

  Runtime& runtime_;
  const std::shared_ptr<WsConnector> connector_;
  const EndpointKey& key_;
  const RelayLinkOptions options_;
  RelayLinkOwner& owner_;
  State state_ = State::offline;
  std::optional<RelayClient> client_;
  std::shared_ptr<WsConnection> socket_;
  /// The pong that the full socket did not take. Only the newest: the relay waits for that of its last ping.
  std::optional<Bytes> answer_;
  std::uint64_t generation_ = 0;
  bool refused_ = false;    ///< by the relay, with what it was presented
  bool has_proof_ = false;  ///< of the key, in the request of this connection
  sbd::Reconnect reconnect_;
  std::optional<TransportFailure> failure_;
  Time up_since_{};
  log::Gate notice_log_;
  Runtime::TimerId timer_ = 0;
  Time timer_at_{};
  std::function<void()> stopped_;
  Time linger_until_{};
  Lifetime lifetime_;
};

}  // namespace kitsune2::iroh
