// How long a peer may send messages that fit no round.
#pragma once

#include <cstddef>
#include <unordered_map>

#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

/// Counts the faults of peers and decides when to close a connection because of them.
///
/// *Rules*. F1: a peer whose faults reach `kMost` is closed. One fault is forgiven per `kForgivenIn`. F2: faults
/// outlive the connection: a peer that returns is closed again at the next fault, until enough are forgiven. F3: at
/// most `kMostPeers` are kept; then the half with the fewest faults is forgotten. *Rationale*: F1, an honest peer is at
/// fault when its message arrives after the round has timed out, or when its clock and ours disagree on whether a round
/// is too soon: a few times per hour. A message that is dropped costs its sender nothing and us some microseconds.
class Faults {
 public:
  static constexpr double kMost = 64;
  static constexpr Duration kForgivenIn = std::chrono::seconds(10);
  static constexpr std::size_t kMostPeers = 4'096;

  /// `weight`: 1 for a message that fits no round. Returns true if the connection must be closed. F1.
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
