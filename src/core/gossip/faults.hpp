// When a peer has sent so many messages that fit no round that its connection is closed.
#pragma once

#include <cstddef>
#include <unordered_map>

#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

/// Counts the messages of each peer that fit no round, its *faults*, and says when to close its connection.
///
/// *Rules*.
///  F1  A peer that reaches `kMost` faults is closed. One fault is forgiven in each `kForgivenIn`. Rationale: an honest
///      peer is at fault a few times an hour, when its message arrives after the round has timed out, or when its clock
///      and ours disagree on whether a round comes too soon. A message that is dropped costs its sender nothing, and us
///      some microseconds.
///  F2  Faults outlive the connection. A peer that returns is closed again at its next fault, until enough are
///  forgiven. F3  At most `kMostPeers` are kept. Beyond that, the half with the fewest faults is forgotten.
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
