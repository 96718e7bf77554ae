// What strangers have sent, until it is found out who they are.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Keeps the messages of peers that have no known agent in the space (`known_peers_only`). The reference drops them.
/// Here they wait while the bootstrap server is asked, so that the first op of a new peer is taken at once.
///
///  W1  A message waits for at most kPatience.
///  W2  At most kMostMessages with kMostBytes wait for each peer; a message beyond that is refused.
///  W3  At most kMostBytesInAll wait for all peers together. To make room, the peer with the most bytes waiting loses
///      all of its messages; if that peer is the sender, its new message is refused.
///      Reason: urls are free, and a flood of strangers must not keep an honest one out.
///  W4  The messages of a peer in a space are given back in the order in which they came.
///  W5  A message is copied, so that the bytes counted are the bytes kept: it is often a slice of a large buffer.
/// Pure. `hold` is O(log peers), but O(peers) when everything is full; `take` is O(messages of the peer).
class StrangerBook {
 public:
  static constexpr Duration kPatience = std::chrono::seconds(20);
  static constexpr std::size_t kMostMessages = 64;
  static constexpr std::size_t kMostBytes = 256U << 10U;
  static constexpr std::size_t kMostBytesInAll = 8U << 20U;
  /// The least that a message counts as.
  static constexpr std::size_t kLeastBytes = 256;

  /// False: refused. `dropped` grows by the messages that lose their room.
  bool hold(const Url& peer, const SpaceId& space, const Bytes& message, Time now, std::uint64_t& dropped);
  /// Takes out what waits of `peer` in `space`.
  std::vector<Bytes> take(const Url& peer, const SpaceId& space);
  /// Gives up what waits in a space, or for too long. Returns how many.
  std::uint64_t forget(const SpaceId& space);
  std::uint64_t expire(Time now);

  std::size_t size() const { return messages_; }
  /// A peer of each space in which something waits.
  std::map<SpaceId, Url> waiting() const;

 private:
  struct Item {
    SpaceId space;
    Bytes message;
    Time until{};
  };
  struct Peer {
    std::deque<Item> items;  ///< the oldest first
    std::size_t bytes = 0;
  };
  using Peers = std::map<Url, Peer>;

  static std::size_t cost_of(const Bytes& message) { return std::max(kLeastBytes, message.size()); }

  /// Takes out what `gone` says. Erases a peer of which nothing is left.
  template <class Gone>
  std::vector<Bytes> remove(Peers::iterator peer, Gone gone);

  Peers peers_;
  std::size_t messages_ = 0, bytes_ = 0;
};

}  // namespace kitsune2
