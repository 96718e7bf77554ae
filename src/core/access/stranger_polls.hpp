// How often the bootstrap server is asked who a stranger is.
#pragma once

#include <cstddef>
#include <deque>

#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// When a peer without a known agent in the space sends a message (`known_peers_only`), that waits in the StrangerBook.
/// The answer to a poll may tell who the peer is.
///
///  P1  At most kMost polls count at a time. Every kEvery, the oldest of them stops counting.
///      Reason: urls are free, and this is what a flood of strangers can make a node do. One answer tells about all
///      that are listed, so nobody waits for much longer than kEvery.
///  P2  The polls for a peer that has become known no longer count.
///      Reason: newcomers that come one after another must not wait for each other. Each of them is listed by the
///      server, which a flood of mere urls is not.
///  P3  The server is not asked about a peer again within kAgain of a poll for it that counts.
///      Reason: a peer sends several messages at once, and the answer under way may tell who it is.
/// Pure. O(kMost).
class StrangerPolls {
 public:
  static constexpr std::size_t kMost = 6;
  static constexpr Duration kEvery = std::chrono::seconds(1);
  static constexpr Duration kAgain = std::chrono::milliseconds(200);

  /// `peer` has sent a message, or one of its messages still waits. True: the server is to be asked now.
  bool ask_for(const Url& peer, Time now);
  /// An agent is known at `peer` now.
  void on_known(const Url& peer);

 private:
  struct Poll {
    Url peer;
    Time at{};
  };
  std::deque<Poll> polls_;  ///< those that count, the oldest first
  Time next_end_{};         ///< when the oldest stops counting, if there is one
};

}  // namespace kitsune2
