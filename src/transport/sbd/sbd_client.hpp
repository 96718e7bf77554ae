// The client side of an sbd relay connection, as a state machine. See docs/protocol-tx5.md, 1.
#pragma once

#include <cstdint>
#include <optional>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/time.hpp"
#include "transport/sbd/sbd_frames.hpp"
#include "transport/tx5/e2e.hpp"

namespace kitsune2::tx5 {

/// How an sbd client reacts to the server's messages, and when it may send. Bytes and time in, actions out; no socket.
///
///  R1  `areq` is answered with the signature of its nonce. The order of `lbrt` and `areq` is not relied on.
///      *Rationale*: the server sends them from two tasks.
///  R2  Nothing is forwarded before `srdy`. `areq` or `lidl` after it closes; unknown commands are ignored.
///  R3  A send costs its length x `lbrt` x 1.1; the next one is due when that time has passed. `lbrt` may change at any
///      time; 1 or less means no limit. A lead of kPacingSlack is allowed. *Rationale*: the server closes a connection
///      (of any node behind the same IP) whose backlog is over its burst, 2 s at the default rate; a millisecond of it
///      saves a timer for every small message.
///  R4  A `keep` is due when nothing was sent for half of the idle limit.
///  R5  The handshake must end within kHandshakeLimit.
/// Pure. Thread rule: confined to the owner's strand.
class SbdClient {
 public:
  static constexpr Duration kPacingSlack = std::chrono::milliseconds(1);
  static constexpr Duration kHandshakeLimit = std::chrono::seconds(10);
  /// The pacing never demands a longer wait, whatever the server's `lbrt` says.
  static constexpr Duration kMaxPacingLead = std::chrono::hours(1);
  /// Keepalives are never more frequent, whatever the server's `lidl` says.
  static constexpr Duration kMinKeepalive = std::chrono::milliseconds(50);

  struct Action {
    enum class Kind {
      none,
      send,     ///< send `bytes` at once, then call `sent`
      ready,    ///< the handshake is over
      forward,  ///< `body` came from `peer`
      group,    ///< `peer` has the address `group`; to be believed only of the relay inside this process
      credit,   ///< `peer` has received `credited` bytes, or they are lost; the same
      gone,     ///< `peer` has left the relay; the same
    };
    Kind kind = Kind::none;
    Bytes bytes;
    NodeId peer{};
    std::array<std::uint8_t, 16> group{};
    std::uint32_t credited = 0;
    ByteView body;  ///< points into the message passed to `on_message`
  };

  /// `key` must outlive this object. `now`: when the WebSocket opened.
  SbdClient(const NodeKey& key, Time now) : key_(key), opened_(now), last_sent_(now) {}

  /// Handles a message of the server. On an error, close the
  /// connection. Errc::peer_fault: a protocol violation.
  Result<Action> on_message(ByteView message, Time now);
  /// A message of `bytes` bytes was passed to the socket.
  void on_sent(std::size_t bytes, Time now);

  bool is_ready() const { return ready_; }
  /// Whether the pacing allows a message now.
  bool may_send(Time now) const { return ready_ && (!is_limited() || now + kPacingSlack >= next_send()); }
  /// When the pacing allows the next message; now or in the past if it does already.
  Time next_send() const;
  /// The keepalive to send, if one is due.
  std::optional<Bytes> keepalive(Time now) const;
  /// Whether the handshake has taken too long.
  bool is_handshake_overdue(Time now) const { return !ready_ && now >= opened_ + kHandshakeLimit; }
  /// When to call `keepalive` or `is_handshake_overdue` again.
  Time next_deadline() const;
  /// From `ares` to `srdy`: a round trip to the relay, plus its check of the signature. Zero before that.
  Duration round_trip() const { return round_trip_; }
  /// The nanoseconds per byte, as the server said last.
  std::int32_t byte_nanos() const { return byte_nanos_; }

 private:
  bool is_limited() const { return byte_nanos_ > sbd::kUnlimitedByteNanos; }
  Duration keepalive_interval() const;

  const NodeKey& key_;
  Time opened_;
  Time last_sent_;
  Time authenticated_at_{};
  Duration round_trip_{};
  bool authenticated_ = false;
  bool ready_ = false;
  std::int32_t byte_nanos_ = sbd::kDefaultByteNanos;
  std::int32_t idle_millis_ = sbd::kDefaultIdleMillis;
  std::int64_t next_send_ns_ = 0;  ///< on the Time axis, but in nanoseconds; includes all costs so far
};

}  // namespace kitsune2::tx5
