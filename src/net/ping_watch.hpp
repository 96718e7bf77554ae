// Whether the server of a WebSocket connection still answers: when to ping it, and when to give it up. Pure: it is told
// the time.
#pragma once

#include <cstdint>
#include <optional>

#include "kitsune2/bytes.hpp"
#include "kitsune2/time.hpp"
#include "transport/ws.hpp"

namespace kitsune2::net {

/// A server that hangs, or that became unreachable without any sign, leaves a connection that is open but deaf: TCP
/// accepts what is sent and reports nothing for many minutes. So the server is pinged (every WebSocket server must
/// answer a ping), and the connection is closed if nothing arrives.
///
///  W1  Any byte that arrives is a sign of life. *Rationale*: a server may be slow to read, because it holds senders
///      back or is under load; as long as it sends, it is not deaf.
///  W2  A ping is sent when nothing has arrived for `quiet`, or when kProofBytes have been sent since the last ping.
///      One ping is under way at a time. *Rationale*: an answer proves that everything sent before was read; the second
///      condition keeps the unproven part small.
///  W3  The server is deaf when nothing has arrived for `answer` after the ping left this process, plus the time that
///      the unproven bytes before it need at kSlowestRate, at most kLongestExtra. *Rationale*: the ping waits behind
///      them in the buffers of both systems. A healthy server that reads slowly, or has a slow line, needs that time.
///  W4  A ping in our own queue has not left: the wait starts again each time the system accepts some of the queue.
///  W5  A check that comes more than kLate after it was due judges nothing, and pings again. *Rationale*: this process
///      stood still (a machine that slept, a stopped process), and the answer may be in the socket.
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

  /// Something has arrived.
  void on_received(Time now) { last_received_ = now; }
  /// The answer to a ping has arrived. A payload other than that of the ping under way proves nothing.
  void on_pong(ByteView payload);
  /// `bytes` were put into the queue. Returns true if a ping is due (W2): call `on_time` now.
  bool on_sent(std::size_t bytes);
  /// The system has accepted some of the queue; `queued` bytes are left.
  void on_taken(std::size_t queued, Time now);

  Verdict on_time(Time now);
  Time next_deadline() const;
  /// Eight bytes that differ for each ping.
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
  std::uint64_t sent_ = 0;       ///< bytes that were ever put into the queue
  std::uint64_t proven_ = 0;     ///< those of them that the server has certainly read
  std::uint64_t last_ping_ = 0;  ///< sent_ at the last ping
  std::uint64_t count_ = 0;
  std::optional<Ping> ping_;
};

}  // namespace kitsune2::net
