// How often the bootstrap server is asked who a stranger is.
#pragma once

#include <cstddef>
#include <deque>

#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// A peer of which no agent is known in the space speaks (`known_peers_only`), and its messages wait in the
/// StrangerBook. The answer to a poll may tell who it is.
///
///  P1  At most kMost polls count. Each kEvery, the one that has counted longest ends to count.
///      Reason: urls are free, and this is what a flood of strangers can make a node do. One answer tells about all
///      that are listed, so nobody waits for much longer than kEvery.
///  P2  The polls for a peer that becomes known do not count any more.
///      Reason: newcomers that come one after the other must not wait for each other. Each of them has had itself
///      listed by the server, which a flood of mere urls has not.
///  P3  For one peer there is no second poll within kAgain after one that counts.
///      Reason: it sends several messages at once, and the answer that is on its way may tell who it is.
/// Pure. O(kMost).
class StrangerPolls {
 public:
  static constexpr std::size_t kMost = 6;
  static constexpr Duration kEvery = std::chrono::seconds(1);
  static constexpr Duration kAgain = std::chrono::milliseconds(200);

  /// `peer` has sent a message, or one of it still waits. True: the server is to be asked now.
  bool ask_for(const Url& peer, Time now);
  /// An agent is known at `peer` now.
  void on_known(const Url& peer);

 private:
  struct Poll {
    Url peer;
    Time at{};
  };
  std::deque<Poll> polls_;  ///< those that count, the oldest first
  Time next_end_{};         ///< when the oldest ends to count, if there is one
};

}  // namespace kitsune2
