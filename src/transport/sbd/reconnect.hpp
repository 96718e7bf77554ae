// When to connect to a relay again. Pure: it is told the time and given the randomness.
#pragma once

#include <cstdint>
#include <optional>

#include "kitsune2/time.hpp"

namespace kitsune2::sbd {

struct ReconnectLimits {
  Duration first = std::chrono::milliseconds(250);
  Duration longest = std::chrono::seconds(8);
  /// After a connection that lasted this long, the waits start anew.
  Duration stable_after = std::chrono::seconds(10);
  /// After a sign of life the next attempt comes within this time.
  Duration sign_spread = std::chrono::seconds(1);
};

/// The back-off of a node that has lost its relay.
///
///  K1  The waits double from `first` to `longest`. After a connection that lasted `stable_after` they start anew.
///      *Rationale*: a node without its relay reaches nobody. One attempt in 4 to 8 s is a handful of packets, so there
///      is no reason to be away longer once the relay is back.
///  K2  Each wait is drawn between a half and the whole of that, by each node on its own. *Rationale*: nodes that lost
///      the same relay at the same time return over seconds, not all at once: a starting relay must not be overrun by
///      its own clients. After a minute their attempts are spread evenly over the 8 s.
///  K3  A sign that the way to the relay may be open again (a server of this node has answered) shortens the running
///      wait to a part of `sign_spread`, drawn by each node. At most one in `longest`; the doubling continues.
///      *Rationale*: a bootstrap server that works beside a relay that does not says nothing useful, however often.
/// Thread rule: confined to the owner's strand.
class Reconnect {
 public:
  explicit Reconnect(const ReconnectLimits& limits) : limits_(limits), backoff_(limits.first) {}

  /// The relay has accepted this node.
  void on_connected(Time now);
  /// The connection was lost or not made. Returns when to try
  /// again. `random`: any number, drawn for this call.
  Time on_lost(Time now, std::uint32_t random);
  /// A sign of life. Returns the time of the next attempt if it is sooner now; nullopt: nothing changes.
  std::optional<Time> on_sign_of_life(Time now, std::uint32_t random);

 private:
  const ReconnectLimits& limits_;
  Duration backoff_;
  std::optional<Time> connected_at_;
  std::optional<Time> next_try_;  ///< while the relay is lost
  Time next_sign_ = Time::min();  ///< an earlier sign changes nothing
};

}  // namespace kitsune2::sbd
