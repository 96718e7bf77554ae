// The client side of a connection to an iroh relay, as a state machine.
#pragma once

#include <optional>
#include <string>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/time.hpp"
#include "transport/iroh/endpoint_key.hpp"
#include "transport/iroh/relay_frames.hpp"

namespace kitsune2::iroh {

/// How a client reacts to the relay's frames. Bytes and time in, actions out; no socket.
///
///  R1  The relay's first frame is its challenge, which is answered with our key and a signature. Then the relay
///      confirms or denies. If the key was proven to its TLS (tls_proof.hpp), it may do that at once. Anything else
///      before that is its fault. This must be done within kHandshakeLimit.
///  R2  A ping of the relay is answered at once, or as soon as the socket has room, before any datagram. *Rationale*:
///      the relay waits for three round trips at most (half a second if they are short), and then closes.
///  R3  Our first ping is due when the handshake is done, every other one when nothing has arrived for kPingInterval.
///      One is under way at a time; its pong is recognised by its payload.
///  R4  A pong is overdue after kMostPongWait while no round trip is known, then after three times the last one, but
///      not less than kLeastPongWait and not more than kMostPongWait. Then the connection must be closed.
///  R5  The first pong makes the connection established. If an established connection that lasted is lost, it is tried
///      again at once, otherwise after a wait.
///  R6  Where a peer is, only a relay in this process may say; of any other it is a frame that does not exist.
/// Pure. Thread rule: confined to the owner's strand.
class RelayClient {
 public:
  static constexpr Duration kHandshakeLimit = std::chrono::seconds(10);
  static constexpr Duration kPingInterval = std::chrono::seconds(15);
  static constexpr Duration kLeastPongWait = std::chrono::milliseconds(500);
  static constexpr Duration kMostPongWait = std::chrono::seconds(5);

  /// The outcome of a message. Each member is independent.
  struct Outcome {
    std::optional<Bytes> send;           ///< must be sent before anything else
    bool ready = false;                  ///< the handshake is done: datagrams may be sent
    std::optional<Datagrams> datagrams;  ///< from a peer
    std::optional<EndpointId> gone;      ///< a peer that we sent to has left this relay
    std::optional<Restarting> restarting;
    std::optional<PeerAddress> address;  ///< of a peer; only of a relay in this process
    std::string notice;                  ///< what the relay says about this connection, for the log; empty: nothing
  };

  struct Opened {
    bool has_proof = false;   ///< the request had the proof for TLS
    bool in_process = false;  ///< the relay is in this process
  };
  /// `key` must outlive this object. `version`: the relay's choice. `now`: when the WebSocket opened.
  RelayClient(const EndpointKey& key, RelayVersion version, Time now) : RelayClient(key, version, now, Opened()) {}
  RelayClient(const EndpointKey& key, RelayVersion version, Time now, Opened how)
      : key_(key), version_(version), opened_(now), how_(how) {}

  /// Handles one binary message. On an error, close the connection. Errc::peer_fault: the relay broke the protocol;
  /// Errc::blocked: it denies us, with its reason.
  Result<Outcome> on_message(const Bytes& message, Time now);
  /// The ping to send, if one is due. `payload`: random.
  std::optional<Bytes> ping(const PingPayload& payload, Time now);
  /// Why the connection must be closed; nullopt: it need not be.
  std::optional<Error> overdue(Time now) const;
  /// When to call `ping` or `overdue` again.
  Time next_deadline() const;

  bool is_ready() const { return state_ == State::ready; }
  /// R5.
  bool is_established() const { return round_trip_.has_value(); }
  std::optional<Duration> round_trip() const { return round_trip_; }

 private:
  enum class State { opened, answered, ready };
  struct Sent {
    PingPayload payload;
    Time at;
  };

  Result<Outcome> on_handshake(const RelayFrame& frame, Time now);
  Duration pong_wait() const;
  Time ping_due() const { return pinged_ ? last_heard_ + kPingInterval : last_heard_; }

  const EndpointKey& key_;
  const RelayVersion version_;
  const Time opened_;
  const Opened how_;
  State state_ = State::opened;
  Time last_heard_{};
  bool pinged_ = false;
  std::optional<Sent> under_way_;
  std::optional<Duration> round_trip_;
};

}  // namespace kitsune2::iroh
