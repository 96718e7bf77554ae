// When to connect to a relay again. Pure: told the time, given the randomness.
#pragma once

#include <cstdint>
#include <optional>

#include "kitsune2/time.hpp"

namespace kitsune2::sbd {

struct ReconnectLimits {
  Duration first = std::chrono::milliseconds(250);
  Duration longest = std::chrono::seconds(8);
  /// A connection that lasted this long starts the waits anew.
  Duration stable_after = std::chrono::seconds(10);
  /// After a sign of life the next try comes within this.
  Duration sign_spread = std::chrono::seconds(1);
};

/// The back-off of a node that has lost its relay.
///
///  K1  The waits double from `first` to `longest`; a connection that lasted `stable_after` starts them anew.
///      *Rationale*: a node without its relay reaches nobody. One attempt in 4 to 8 s is a handful of packets, so there
///      is no reason to be away for longer once the relay is back.
///  K2  Each wait is drawn between a half and the whole of that, for each node on its own. *Rationale*: nodes that lost
///      the same relay in the same instant come back over seconds, not all at once: a relay that starts must not fall
///      over its own clients. After a minute their attempts lie evenly over the 8 s.
///  K3  A sign that the way to the relay may be open again (a server of this node has answered) shortens the wait that
///  is
///      running to a part of `sign_spread`, drawn for each node. At most one in `longest`; the doubling goes on.
///      *Rationale*: a bootstrap server that is up beside a relay that is down says nothing of worth, however often.
/// Thread rule: confined to the owner's strand.
class Reconnect {
 public:
  explicit Reconnect(const ReconnectLimits& limits) : limits_(limits), backoff_(limits.first) {}

  /// The relay has accepted this node.
  void connected(Time now);
  /// The connection is lost, or could not be made: when to try again. `random`: any number, drawn for this call.
  Time lost(Time now, std::uint32_t random);
  /// A sign of life: the time of the next try, if it has come nearer. nullopt: nothing changes.
  std::optional<Time> sign(Time now, std::uint32_t random);

 private:
  const ReconnectLimits& limits_;
  Duration backoff_;
  std::optional<Time> connected_at_;
  std::optional<Time> next_try_;  ///< while the relay is lost
  Time next_sign_ = Time::min();  ///< one before that changes nothing
};

}  // namespace kitsune2::sbd
