// Which infos a full peer store drops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace kitsune2 {

/// What is known about an agent whose info is kept.
struct PeerCandidate {
  static constexpr std::uint32_t kNoGroup = UINT32_MAX;
  bool is_own = false;
  bool in_use = false;
  std::uint64_t usefulness = 0;
  std::int64_t known_since = 0;    ///< when the first info of this agent was stored, in any unit
  std::uint32_t bringer = 0;       ///< equal for all infos that one bringer has brought
  std::uint32_t group = kNoGroup;  ///< equal for all infos of one address group
};

/// Chooses `count` of `candidates` to be dropped; returns their indexes in the order of dropping.
///
/// *Rules*
///  E1  An agent of this node is never dropped. An agent in use is dropped only when no others are left.
///      Reason: a node must not lose the peer from which it fetches because strangers announce many others.
///  E2  Protected are the most useful quarter of all agents (without those of no use), the quarter that has been known
///      longest, and in each address group the agent known longest, up to an eighth of all.
///      Reason: an attacker can make any number of keys, but usefulness costs work, age costs time, and addresses cost
///      money. What it cannot have all of is left to those that were there before it.
///  E3  Of the others, one is dropped at random from the bringer that has brought most of them; repeated.
///      Reason: a bringer of many infos displaces its own. It is random because any known order can be aimed at: an
///      attacker who knows which info is next signs so that it is not its own.
///  E4  When no others are left, the protected ones are dropped, then those in use, each time the one known last.
///      Reason: the bound must hold in any case, and a newcomer has less to lose.
///
/// `random(n)` returns a number below n; it is called once for each drop by E3. Pure. O(n log n).
std::vector<std::size_t> choose_peers_to_evict(std::span<const PeerCandidate> candidates, std::size_t count,
                                               const std::function<std::size_t(std::size_t n)>& random);

}  // namespace kitsune2
