// Transports: how bytes reach a peer (backend), and who gets which message (Transport).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/dialect.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/op_policy.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Figures of one open connection. Rust: `TransportConnectionStats`.
struct TransportConnectionStats {
  Url peer;
  std::uint64_t send_message_count = 0;
  std::uint64_t send_bytes = 0;
  std::uint64_t recv_message_count = 0;
  std::uint64_t recv_bytes = 0;
  Timestamp opened_at;
  bool is_direct = false;  ///< false: through the relay (Rust's is_webrtc)
};

/// Rust: `TransportStats`, as `dump_network_stats` gives it.
struct TransportStats {
  std::string backend;         ///< "memory", "tx5-relay"
  std::vector<Url> peer_urls;  ///< own urls
  std::vector<TransportConnectionStats> connections;
  std::uint64_t blocked_message_count = 0;  ///< messages and connections, in and out, that the access hook refused
};

/// Why the node has no url: what the tries to reach its relay met since it had one.
struct TransportFailure {
  Error error;                 ///< of the last try, with the address in it ("connect 10.0.0.1:443: Connection refused")
  Timestamp since;             ///< when the url was lost, or when the first try failed
  std::uint32_t attempts = 0;  ///< how many have failed, the lost connection included
};

/// Which way a connection is opened or a message goes.
enum class Direction { incoming, outgoing };

/// What a close means to the peer.
enum class CloseCode {
  failure = 0,     ///< something went wrong: the peer does not count on this node for a while
  on_purpose = 1,  ///< no failure
};

/// Why this node closes a connection.
struct CloseReason {
  CloseCode code = CloseCode::on_purpose;
  std::string text = {};  ///< for people; the peer may show it. Empty: none is given
};

/// What a backend tells its owner. All calls on the strand, none from inside a call to the backend.
class TransportEvents {
 public:
  virtual ~TransportEvents() = default;
  /// The own url is known or has changed (a relay reconnect makes a new one).
  virtual void new_listening_address(const Url& own_url) = 0;
  /// The own url is gone (relay lost). A new one follows when the relay is back.
  virtual void listening_address_lost() = 0;
  /// A connection is being opened, by either side: the first message to send to this peer (an encoded K2Proto
  /// PREFLIGHT), or an error to refuse the connection.
  virtual Result<Bytes> peer_connect(const Url& peer) = 0;
  /// A whole message. The first of each connection is the peer's preflight. An error closes the connection.
  virtual Result<void> recv_data(const Url& peer, Bytes message) = 0;
  /// Bytes of a message that is not whole yet: a sign of life during long transfers.
  virtual void recv_progress(const Url& peer, std::size_t bytes) = 0;
  /// An opened connection is gone. Exactly once for every peer_connect that succeeded.
  virtual void peer_disconnect(const Url& peer, const std::optional<std::string>& reason) = 0;
};

/// Moves whole messages between peers, in order for each peer. The narrow interface a new transport implements.
///
/// *Rules*. B1: `send` opens a connection if there is none. B2: the first message each way is the preflight; nothing
/// else is sent before the peer's has come in. B3: messages to one peer arrive in order or the connection is closed;
/// messages to different peers do not wait for each other. B4: per-peer send queues are bounded (`max_queue_bytes`):
/// beyond it `send` completes with Errc::overloaded. Rust counterpart: `TxImp`. Strand only.
class TransportBackend {
 public:
  virtual ~TransportBackend() = default;
  /// Called once, before anything else. `events` outlives the backend's last callback.
  virtual void start(TransportEvents& events) = 0;
  /// Own url, or nullopt while not reachable.
  virtual std::optional<Url> url() const = 0;
  /// See Transport::failure. Default: never known.
  virtual std::optional<TransportFailure> failure() const { return std::nullopt; }
  /// `done`: see Transport::send_module. A backend that cannot send pieces sends `message.joined()`; one that sends
  /// them keeps them alive, and does not copy them, until they are sent.
  virtual void send(const Url& peer, ByteChain message, Handler<> done) = 0;
  /// Closes, and tells the peer `reason` as far as the transport's close can carry it. `farewell`: a last message that
  /// says the same to a peer whose transport cannot, to be delivered before; empty where Dialect has `close_has_text`,
  /// or without a reason. No-op without a connection.
  virtual void disconnect(const Url& peer, const CloseReason& reason, Bytes farewell) = 0;
  /// The largest message that `send` takes; a larger one is Errc::too_large. The same for the whole life of the
  /// backend. Default: that of the reference's family as it is configured by default.
  virtual std::uint64_t max_message_bytes() const { return kDefaultMaxMessageBytes; }
  /// See Transport::round_trip. Default: not known.
  virtual std::optional<Duration> round_trip(const Url& /*peer*/) const { return std::nullopt; }
  /// See Transport::wasted. Default: no effect.
  virtual void wasted(const Url& /*peer*/, std::uint64_t /*bytes*/) {}
  /// See Transport::on_server_answered. Default: no effect.
  virtual void on_server_answered() {}
  virtual TransportStats stats() const = 0;
  /// Closes everything; no callback after `done`.
  virtual void stop(std::function<void()> done) = 0;
};

/// Hears about one space. Rust: `TxSpaceHandler`.
class SpaceMessageHandler {
 public:
  virtual ~SpaceMessageHandler() = default;
  virtual void new_listening_address(const Url& /*own_url*/) {}
  /// An error closes the connection.
  virtual Result<void> recv_space_notify(const Url& peer, const SpaceId& space, Bytes data) = 0;
  virtual void peer_connect(const Url& /*peer*/) {}
  virtual void peer_disconnect(const Url& /*peer*/, const std::optional<std::string>& /*reason*/) {}
};

/// Hears about one module of one space. Rust: `TxModuleHandler`.
class ModuleMessageHandler {
 public:
  virtual ~ModuleMessageHandler() = default;
  /// What completed with Errc::disconnected may be sent again.
  virtual void new_listening_address(const Url& /*own_url*/) {}
  /// An error closes the connection (a peer that sends nonsense is not worth its slot).
  virtual Result<void> recv_module_msg(const Url& peer, const SpaceId& space, Bytes data) = 0;
  virtual void recv_progress(const Url& /*peer*/, std::size_t /*bytes*/) {}
  virtual void peer_connect(const Url& /*peer*/) {}
  virtual void peer_disconnect(const Url& /*peer*/, const std::optional<std::string>& /*reason*/) {}
};

/// Hears about the node as a whole; preflight and access hooks. Rust: `TxHandler`.
class TransportHandler {
 public:
  virtual ~TransportHandler() = default;
  virtual void new_listening_address(const Url& /*own_url*/) {}
  virtual void peer_connect(const Url& /*peer*/) {}
  virtual void peer_disconnect(const Url& /*peer*/, const std::optional<std::string>& /*reason*/) {}
  /// The host's preflight bytes for a peer; an error refuses the connection. Default: empty.
  virtual Result<Bytes> preflight_gather_outgoing(const Url& /*peer*/) { return Bytes{}; }
  /// Judges a peer's preflight bytes; an error closes the connection.
  virtual Result<void> preflight_validate_incoming(const Url& /*peer*/, Bytes /*data*/) { return {}; }
  /// Whether this peer is heard (`incoming`) or spoken to (`outgoing`). Asked for every message, each way, and with a
  /// null `space` for the two preflights of a connection, whoever opens it. No: the connection is refused, the incoming
  /// message dropped without a word, the outgoing one completes with Errc::blocked; each is counted in TransportStats.
  /// Default: yes.
  virtual bool allow(const Url& /*peer*/, const SpaceId* /*space*/, Direction /*direction*/) { return true; }
};

/// Routes messages between a backend and the handlers of spaces and modules.
/// A message for a space or module without a handler is ignored, as is one of an undefined type. One that does not
/// decode, that its handler refuses, or a DISCONNECT closes the connection, where `refused_message_closes(dialect())`.
/// Handlers may call back into the transport.
/// Handlers are borrowed: unregister (or stop) before they go. Strand only. Rust: `Transport`/`DefaultTransport`.
class Transport {
 public:
  virtual ~Transport() = default;
  /// What this node speaks. The same for the whole life of the transport.
  virtual Dialect dialect() const = 0;
  virtual std::optional<Url> url() const = 0;
  /// Why there is no url. nullopt while there is one, and until the first try to get one has failed. *Rationale*: a
  /// user who waits wants to know for what: a relay that refuses, a certificate that is not trusted, a name that is not
  /// known.
  virtual std::optional<TransportFailure> failure() const { return std::nullopt; }
  /// Errc::already_exists for a second handler of the same space (or space and module).
  virtual Result<void> register_space_handler(const SpaceId& space, std::shared_ptr<SpaceMessageHandler> handler) = 0;
  virtual Result<void> register_module_handler(const SpaceId& space, const std::string& module,
                                               std::shared_ptr<ModuleMessageHandler> handler) = 0;
  virtual void unregister_space(const SpaceId& space) = 0;
  virtual void send_space_notify(const Url& peer, const SpaceId& space, Bytes data, Handler<> done) = 0;
  /// `done`, for this and the other sends: exactly once, later, on the strand.
  ///
  /// *Success* means that the last byte was handed to the network after the peer's preflight had come in: this node has
  /// done its part. It does not mean that the message has arrived. Up to a socket's buffers of it (some hundred KiB)
  /// and what the relay holds may still be lost with a connection, and nobody is told which. So whoever needs to know
  /// waits for an answer of the peer, or takes a `peer_disconnect` soon after a success, or a new own url, as a sign
  /// that the message may be lost.
  ///
  /// *Errors* mean that the message was not handed on as a whole, so the peer's modules never see it and it may be sent
  /// again: Errc::peer_unresponsive (the peer could not be reached, or its connection closed before),
  /// Errc::disconnected (this node has no relay now, or lost it), Errc::overloaded (the peer's queue is full),
  /// Errc::too_large, Errc::blocked, Errc::cancelled (the transport stopped), Errc::invalid_argument (the url is no
  /// peer's).
  ///
  /// `body` is the module's message, in one piece or several: large pieces are sent from where they lie. A `Bytes` is a
  /// body, too.
  virtual void send_module(const Url& peer, const SpaceId& space, const std::string& module, ByteChain body,
                           Handler<> done) = 0;
  /// Closes the connection to `peer`, if there is one, and logs why (debug). The peer gets `reason.code` where
  /// `close_has_code(dialect())`: tx5's close has no room for it. It gets `reason.text` in each dialect, in 0.2 by a
  /// last message.
  virtual void disconnect(const Url& peer, const CloseReason& reason) = 0;
  /// The largest message that can be sent, with everything around its payload: see `largest_op_bytes`.
  virtual std::uint64_t max_message_bytes() const { return kDefaultMaxMessageBytes; }
  /// How long a message to `peer` and its answer take on their way, as the connection has shown; nullopt: not known.
  virtual std::optional<Duration> round_trip(const Url& /*peer*/) const { return std::nullopt; }
  /// So many bytes that `peer` sent were refused for being over a limit. A backend with flow control lets it pay: its
  /// next large message has to wait, for seconds at most. *Rationale*: to take in what is thrown away costs more than
  /// to send it, and the peers that are served pay for it. Default: no effect. No-op without a connection.
  virtual void wasted(const Url& /*peer*/, std::uint64_t /*bytes*/) {}
  /// A server of this node (its bootstrap server) has answered, so the line is up and the relay may be back: a backend
  /// that waits to connect to its relay again does so soon. Harmless however often it is called. Default: no effect.
  virtual void on_server_answered() {}
  virtual TransportStats stats() const = 0;
  virtual void stop(std::function<void()> done) = 0;
};

/// `handler` may be null. The transport starts its backend at once; `runtime` must outlive it. After `stop`, sends
/// complete with Errc::cancelled and no handler is called any more. `backend` must be one for `dialect`.
std::shared_ptr<Transport> make_transport(Runtime& runtime, std::unique_ptr<TransportBackend> backend,
                                          std::shared_ptr<TransportHandler> handler, Dialect dialect = Dialect::v0_2);

}  // namespace kitsune2
