// Transports: how bytes reach a peer (TransportBackend), and which module receives which message (Transport).
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
  bool is_direct = false;  ///< what this node sends does not go through the relay (Rust's is_webrtc)
};

/// Figures of the transport, as the reference's `dump_network_stats` gives them. Rust: `TransportStats`.
struct TransportStats {
  std::string backend;         ///< "memory", "tx5-relay"
  std::vector<Url> peer_urls;  ///< this node's own urls
  std::vector<TransportConnectionStats> connections;
  std::uint64_t blocked_message_count = 0;  ///< messages and connections, both ways, that the access hook refused
  std::uint64_t waiting_message_count = 0;  ///< messages of and to peers that are not known yet
};

/// Why the node has no url: the outcome of its attempts to reach its relay since it last had one.
struct TransportFailure {
  Error error;                 ///< of the last attempt, with the address ("connect 10.0.0.1:443: Connection refused")
  Timestamp since;             ///< when the url was lost, or when the first attempt failed
  std::uint32_t attempts = 0;  ///< failed attempts, including the lost connection
};

/// The direction in which a connection is opened or a message travels.
enum class Direction { incoming, outgoing };

/// What a close means to the peer.
enum class CloseCode {
  failure = 0,     ///< something went wrong: the peer should not rely on this node for a while
  on_purpose = 1,  ///< no failure
};

/// Why this node closes a connection.
struct CloseReason {
  CloseCode code = CloseCode::on_purpose;
  std::string text = {};  ///< for people, the peer may show it; empty: no reason is given
};

/// The events that a backend reports to its owner. Called on the strand, never from within a call to the backend.
class TransportEvents {
 public:
  virtual ~TransportEvents() = default;
  /// The node's own url is known or has changed (a new connection to the relay makes a new one).
  virtual void new_listening_address(const Url& own_url) = 0;
  /// The node has lost its url together with its relay. A new one follows when the relay is back.
  virtual void listening_address_lost() = 0;
  /// A connection is being opened, by either side. Returns the first message for this peer (an encoded K2Proto
  /// PREFLIGHT), or an error to refuse the connection.
  virtual Result<Bytes> peer_connect(const Url& peer) = 0;
  /// A whole message has arrived. The first of each connection is the peer's preflight. An error closes the connection.
  virtual Result<void> recv_data(const Url& peer, Bytes message) = 0;
  /// Bytes of an incomplete message have arrived: a sign of life during long transfers.
  virtual void recv_progress(const Url& peer, std::size_t bytes) = 0;
  /// A connection is closed. Called exactly once for every peer_connect that succeeded.
  virtual void peer_disconnect(const Url& peer, const std::optional<std::string>& reason) = 0;
  /// Whether the peer has sent a message in a space of this node in the last hour, and may: it may be told what
  /// strangers are not, such as this node's addresses. Default: no.
  virtual bool shares_space(const Url& /*peer*/) { return false; }
};

/// Moves whole messages between peers, in order for each peer. The narrow interface that a new transport implements.
///
/// *Rules*.
///  B1  `send` opens a connection if there is none.
///  B2  The first message each way is the preflight; nothing else is sent before the peer's has arrived.
///  B3  Messages to one peer arrive in order, or the connection is closed; messages to different peers do not wait for
///      each other.
///  B4  The send queue of each peer is bounded (`max_queue_bytes`); beyond that `send` completes with Errc::overloaded.
///
/// Rust counterpart: `TxImp`. Strand only.
class TransportBackend {
 public:
  virtual ~TransportBackend() = default;
  /// Called once, before anything else. `events` must outlive the backend's last callback.
  virtual void start(TransportEvents& events) = 0;
  /// The node's own url; nullopt while it cannot be reached.
  virtual std::optional<Url> url() const = 0;
  /// See Transport::failure. Default: not known.
  virtual std::optional<TransportFailure> failure() const { return std::nullopt; }
  /// `done`: see Transport::send_module. A backend that cannot send pieces sends `message.joined()`; one that can keeps
  /// them alive until they are sent, without copying them.
  virtual void send(const Url& peer, ByteChain message, Handler<> done) = 0;
  /// Closes the connection and tells the peer `reason`, as far as the transport's close can carry it. `farewell` says
  /// the same in a last message, to be delivered first, to a peer whose transport cannot; it is empty where the dialect
  /// has `close_has_text`, or without a reason. No-op without a connection.
  virtual void disconnect(const Url& peer, const CloseReason& reason, Bytes farewell) = 0;
  /// The largest message that `send` accepts; a larger one is Errc::too_large. Constant for the life of the backend.
  /// Default: that of the reference's transports in their default configuration.
  virtual std::uint64_t max_message_bytes() const { return kDefaultMaxMessageBytes; }
  /// See Transport::round_trip. Default: not known.
  virtual std::optional<Duration> round_trip(const Url& /*peer*/) const { return std::nullopt; }
  /// See Transport::wasted. Default: no effect.
  virtual void wasted(const Url& /*peer*/, std::uint64_t /*bytes*/) {}
  /// See Transport::sent_mark. Default: 0.
  virtual std::uint64_t sent_mark(const Url& /*peer*/) const { return 0; }
  /// See Transport::was_read. Default: no effect.
  virtual void was_read(const Url& /*peer*/, std::uint64_t /*mark*/) {}
  /// See Transport::on_server_answered. Default: no effect.
  virtual void on_server_answered() {}
  virtual TransportStats stats() const = 0;
  /// Closes everything. No callback after `done`.
  virtual void stop(std::function<void()> done) = 0;
};

/// Receives the messages and events of one space. Rust: `TxSpaceHandler`.
class SpaceMessageHandler {
 public:
  virtual ~SpaceMessageHandler() = default;
  virtual void new_listening_address(const Url& /*own_url*/) {}
  /// An error closes the connection.
  virtual Result<void> recv_space_notify(const Url& peer, const SpaceId& space, Bytes data) = 0;
  virtual void peer_connect(const Url& /*peer*/) {}
  virtual void peer_disconnect(const Url& /*peer*/, const std::optional<std::string>& /*reason*/) {}
};

/// Receives the messages and events of one module in one space. Rust: `TxModuleHandler`.
class ModuleMessageHandler {
 public:
  virtual ~ModuleMessageHandler() = default;
  /// The node has a new url. Messages that failed with Errc::disconnected may be sent again.
  virtual void new_listening_address(const Url& /*own_url*/) {}
  /// A message for this module. An error closes the connection: a peer that sends nonsense is not worth its slot.
  virtual Result<void> recv_module_msg(const Url& peer, const SpaceId& space, Bytes data) = 0;
  virtual void recv_progress(const Url& /*peer*/, std::size_t /*bytes*/) {}
  /// The peer has shown, for the first time or after an hour, that it knows an agent of this node in the space: a
  /// message of it is about to be handled. What was sent to it before may have been dropped there. Only in dialects
  /// with `known_peers_only`.
  virtual void peer_knows_us(const Url& /*peer*/) {}
  virtual void peer_connect(const Url& /*peer*/) {}
  virtual void peer_disconnect(const Url& /*peer*/, const std::optional<std::string>& /*reason*/) {}
};

/// Receives the events of the node as a whole, and has the hooks for preflights and access. Rust: `TxHandler`.
class TransportHandler {
 public:
  virtual ~TransportHandler() = default;
  virtual void new_listening_address(const Url& /*own_url*/) {}
  virtual void peer_connect(const Url& /*peer*/) {}
  virtual void peer_disconnect(const Url& /*peer*/, const std::optional<std::string>& /*reason*/) {}
  /// Returns the host's preflight bytes for a peer. An error refuses the connection. Default: empty.
  virtual Result<Bytes> preflight_gather_outgoing(const Url& /*peer*/) { return Bytes{}; }
  /// Judges a peer's preflight bytes. An error closes the connection.
  virtual Result<void> preflight_validate_incoming(const Url& /*peer*/, Bytes /*data*/) { return {}; }
  /// Whether messages from this peer are heard (`incoming`) or messages to it sent (`outgoing`). Called for every
  /// message in both directions, and with a null `space` for both preflights of a connection, whichever side opens it.
  /// If false, the connection is refused, an incoming message is dropped silently, an outgoing one completes with
  /// Errc::blocked, and TransportStats counts it. Default: true.
  virtual bool allow(const Url& /*peer*/, const SpaceId* /*space*/, Direction /*direction*/) { return true; }
  /// Whether an agent of the space is known at `peer`. Asked for every message in both directions where
  /// `known_peers_only(dialect)`. If false, the message waits for `Transport::on_peer_known`. After 20 s an incoming
  /// one is dropped and counted (src/core/access/stranger_book.hpp); after 5 s an outgoing one completes with
  /// Errc::blocked (unsent_book.hpp). If too many wait, that happens at once. Default: true.
  virtual bool is_known(const Url& /*peer*/, const SpaceId& /*space*/) { return true; }
  /// A message of or to `peer`, which is not known in the space, waits: who it is should be found out soon. Called
  /// again each second for each space as long as something waits. Default: no effect.
  virtual void on_stranger(const Url& /*peer*/, const SpaceId& /*space*/) {}
};

/// Routes messages between a backend and the handlers of spaces and modules. Ignores messages for a space or module
/// without a handler, and messages of an undefined type. Where `refused_message_closes(dialect())`, a message that does
/// not decode or that its handler refuses closes the connection, as does DISCONNECT. Handlers may call the transport.
/// They are borrowed: unregister them (or stop) before they are destroyed. Strand only. Rust:
/// `Transport`/`DefaultTransport`.
class Transport {
 public:
  virtual ~Transport() = default;
  /// The dialect that this node speaks; constant for the life of the transport.
  virtual Dialect dialect() const = 0;
  virtual std::optional<Url> url() const = 0;
  /// The reason why there is no url; nullopt while there is one, and until the first attempt to get one has failed.
  /// *Rationale*: a user who waits wants to know what for: a relay that refuses, a certificate that is not trusted, a
  /// name that cannot be resolved.
  virtual std::optional<TransportFailure> failure() const { return std::nullopt; }
  /// Errc::already_exists: there is a handler for the same space (or the same space and module) already.
  virtual Result<void> register_space_handler(const SpaceId& space, std::shared_ptr<SpaceMessageHandler> handler) = 0;
  virtual Result<void> register_module_handler(const SpaceId& space, const std::string& module,
                                               std::shared_ptr<ModuleMessageHandler> handler) = 0;
  virtual void unregister_space(const SpaceId& space) = 0;
  virtual void send_space_notify(const Url& peer, const SpaceId& space, Bytes data, Handler<> done) = 0;
  /// `done`, for this and the other sends: exactly once, later, on the strand.
  ///
  /// *Success* means that the last byte was handed to the network after the peer's preflight had arrived: this node has
  /// done its part. It does not mean that the message has arrived. What is in a socket's buffers (some hundred KiB) and
  /// in the relay may still be lost with a connection, and nobody learns which part. A sender that needs to know waits
  /// for an answer of the peer, or takes a `peer_disconnect` or a new own url soon after a success as a sign that the
  /// message may be lost.
  ///
  /// *Errors* mean that the message was not handed on as a whole, so the peer's modules never see it and it may be sent
  /// again: Errc::peer_unresponsive (the peer could not be reached, or its connection closed before),
  /// Errc::disconnected (this node has no relay now, or has lost it), Errc::overloaded (the peer's queue is full),
  /// Errc::too_large, Errc::blocked, Errc::cancelled (the transport was stopped), Errc::invalid_argument (not the url
  /// of a peer).
  ///
  /// `body` is the module's message, in one piece or several; large pieces are sent from where they lie. A `Bytes`
  /// converts to it.
  virtual void send_module(const Url& peer, const SpaceId& space, const std::string& module, ByteChain body,
                           Handler<> done) = 0;
  /// Closes the connection to `peer`, if there is one, and logs the reason (debug). The peer receives `reason.text` in
  /// every dialect (in 0.2 in a last message), and `reason.code` where `close_has_code(dialect())`: tx5's close has no
  /// room for it.
  virtual void disconnect(const Url& peer, const CloseReason& reason) = 0;
  /// The largest message that can be sent, including what surrounds its payload: see `largest_op_bytes`.
  virtual std::uint64_t max_message_bytes() const { return kDefaultMaxMessageBytes; }
  /// The round-trip time to `peer`, as measured on its connection; nullopt: not known.
  virtual std::optional<Duration> round_trip(const Url& /*peer*/) const { return std::nullopt; }
  /// Reports that `bytes` of `peer` were refused because they exceeded a limit. A backend with flow control makes the
  /// peer pay: its next large message waits, for seconds at most. *Rationale*: receiving what is then dropped costs
  /// more than sending it, at the expense of other peers. Default: no effect. No-op without a connection.
  virtual void wasted(const Url& /*peer*/, std::uint64_t /*bytes*/) {}
  /// A mark for `was_read`, behind everything that was sent to `peer` on its connection or waits for that. 0: there is
  /// no connection, or nothing would come of knowing what the peer has read.
  virtual std::uint64_t sent_mark(const Url& /*peer*/) const { return 0; }
  /// Reports that `peer` has sent something that only a reader of everything before `mark` can have sent. A backend
  /// that limits what may be under way to a peer may then send more at once. No effect if the connection of the mark
  /// has ended. Default: no effect.
  virtual void was_read(const Url& /*peer*/, std::uint64_t /*mark*/) {}
  /// Reports that a server of this node (its bootstrap server) has answered, so the relay may be reachable again: a
  /// backend that waits to connect to its relay does so soon. Harmless however often it is called. Default: no effect.
  virtual void on_server_answered() {}
  /// Reports that an agent of `space` has become known at `peer`: messages that wait for that are handled. No-op
  /// without any. Default: no effect.
  virtual void on_peer_known(const SpaceId& /*space*/, const Url& /*peer*/) {}
  /// Whether `peer` has shown in the last hour that it knows an agent of this node in `space`: by a message in it.
  /// Until then what is sent to it may be dropped there, although the send succeeds. Always true in dialects without
  /// `known_peers_only`. Default: true.
  virtual bool is_known_to(const SpaceId& /*space*/, const Url& /*peer*/) const { return true; }
  virtual TransportStats stats() const = 0;
  virtual void stop(std::function<void()> done) = 0;
};

/// `handler` may be null. Starts the backend at once. `runtime` must outlive the transport. After `stop`, sends
/// complete with Errc::cancelled and no handler is called any more. `backend` must be one for `dialect`.
std::shared_ptr<Transport> make_transport(Runtime& runtime, std::unique_ptr<TransportBackend> backend,
                                          std::shared_ptr<TransportHandler> handler, Dialect dialect = Dialect::v0_2);

}  // namespace kitsune2
