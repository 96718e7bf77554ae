// Who says what fits no round, and for how long that is borne.
#pragma once

#include <cstddef>
#include <unordered_map>

#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

/// Counts the faults of peers and says when a connection is to be closed for them.
///
/// *Rules*. F1: a peer whose faults come to `kMost` is closed. One is forgiven in `kForgivenIn`. F2: faults outlive the
/// connection: whoever comes back is closed at the next one, until enough are forgiven. F3: at most `kMostPeers` are
/// kept; then the half with the fewest faults is forgotten. *Rationale*: F1, an honest peer is at fault when a message
/// of its comes after the round has timed out, or its clock and ours disagree on when a round is too soon: a few in an
/// hour. A message that is thrown away costs its sender nothing and us some microseconds.
class Faults {
 public:
  static constexpr double kMost = 64;
  static constexpr Duration kForgivenIn = std::chrono::seconds(10);
  static constexpr std::size_t kMostPeers = 4'096;

  /// `weight`: 1 for a message that fits no round. True: close the connection. F1.
  bool add(const Url& peer, double weight, Time now);
  std::size_t size() const { return peers_.size(); }

 private:
  struct Count {
    double faults = 0;  ///< as of `at`
    Time at = Time::min();
  };
  static double at(const Count& count, Time now);
  void make_room(Time now);

  std::unordered_map<Url, Count> peers_;
};

}  // namespace kitsune2::gossip
