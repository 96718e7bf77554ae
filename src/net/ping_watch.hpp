// Whether the server of a WebSocket connection still answers: when to ask it, and when to leave it. Pure: told the
// time.
#pragma once

#include <cstdint>
#include <optional>

#include "kitsune2/bytes.hpp"
#include "kitsune2/time.hpp"
#include "transport/ws.hpp"

namespace kitsune2::net {

/// A server that hangs, or that cannot be reached any more though nobody says so, leaves a connection that is up and
/// deaf: TCP takes what is sent, and tells nothing for many minutes. So the server is asked (a WebSocket ping, which
/// every server has to answer), and left when it says nothing.
///
///  W1  Any byte that comes is a sign of life. *Rationale*: a server may be slow to read, because it holds senders back
///      or is under load; as long as it talks it is not deaf.
///  W2  A ping goes out when nothing has come for `quiet`, or when kProofBytes have been sent since the last ping. One
///      is under way at a time. *Rationale*: an answer proves that all that was sent before it has been read; the
///      second rule keeps small what has not been proven.
///  W3  The server is deaf when nothing has come for `answer` since the ping left this process, and for as much longer
///      as the bytes before it need that are not proven to be read, at kSlowestRate, at most kLongestExtra.
///      *Rationale*: the ping stands behind them in the buffers of both systems. A server that reads slowly, or a slow
///      line, needs that time and is healthy.
///  W4  A ping that waits in the own queue has not left: the wait begins anew each time the system takes some of it.
///  W5  A check that comes later than kLate after it was due judges nothing; it asks again. *Rationale*: this process
///      stood still (a machine that slept, a stopped process), and the answer may lie unread in the socket.
/// Thread rule: confined to the owner's strand.
class PingWatch {
 public:
  enum class Verdict {
    wait,  ///< nothing to do before `next_deadline`
    ping,  ///< send a ping with `payload`
    deaf,  ///< close the connection
  };
  static constexpr std::uint64_t kProofBytes = 256U << 10;
  static constexpr std::uint64_t kSlowestRate = 8U << 10;
  static constexpr Duration kLongestExtra = std::chrono::seconds(60);
  static constexpr Duration kLate = std::chrono::seconds(1);

  /// `now`: when the connection was opened.
  PingWatch(const WsPings& pings, Time now) : pings_(pings), last_received_(now) {}

  /// Something came.
  void received(Time now) { last_received_ = now; }
  /// The answer to a ping came. Any other payload than the one of the ping under way proves nothing.
  void answered(ByteView payload);
  /// `bytes` were put into the queue. True: call `on_time` now, a ping is due (W2).
  bool sent(std::size_t bytes);
  /// The system took some of the queue; `queued` bytes are left.
  void taken(std::size_t queued, Time now);

  Verdict on_time(Time now);
  Time next_deadline() const;
  /// Eight bytes that are different for each ping.
  Bytes payload() const;

 private:
  struct Ping {
    std::uint64_t position;  ///< bytes sent before it
    Time left_at;            ///< W4
    bool in_queue = true;
    Duration extra{};  ///< W3
  };

  const WsPings pings_;
  Time last_received_;
  std::uint64_t sent_ = 0;       ///< bytes ever put into the queue
  std::uint64_t proven_ = 0;     ///< of them, read by the server for certain
  std::uint64_t last_ping_ = 0;  ///< sent_ at the last ping
  std::uint64_t count_ = 0;
  std::optional<Ping> ping_;
};

}  // namespace kitsune2::net
