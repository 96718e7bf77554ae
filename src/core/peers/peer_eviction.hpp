// Who goes from a full peer store.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace kitsune2 {

/// What is known of one agent whose info is kept.
struct PeerCandidate {
  static constexpr std::uint32_t kNoGroup = UINT32_MAX;
  bool is_own = false;
  bool in_use = false;
  std::uint64_t usefulness = 0;
  std::int64_t known_since = 0;    ///< when the first info of this agent was kept, in any unit
  std::uint32_t bringer = 0;       ///< the same number for all that one bringer has brought
  std::uint32_t group = kNoGroup;  ///< the same number for all at one address group
};

/// Chooses `count` of `candidates` that are to go, as indexes, in the order of going.
///
/// *Rules*
///  E1  An agent of this node never goes. Who is in use goes only when nobody else is left.
///      Reason: a node must not lose the peer that it fetches from because strangers tell of many others.
///  E2  Protected are the most useful quarter of all (who has been of no use is not among them), the quarter that has
///      been known longest, and in each address group the one that has been known longest, for an eighth of all.
///      Reason: an attacker can make keys without end, but usefulness costs work, age costs time, and addresses cost
///      money. What it cannot have all of is left to those who were there before it.
///  E3  Of the others one goes at random, of that bringer of whom most of these others are; and so on.
///      Reason: a bringer of masses displaces its own. Chance, since any order that is known can be aimed at: who sees
///      what goes next, signs so that it is another's.
///  E4  When no others are left, the protected ones go, then those in use; each time the one that was known last.
///      Reason: the bound holds in any case; and a newcomer has less to lose.
///
/// `random(n)` gives a number below n; it is called once for each that goes by E3. Pure. O(n log n).
std::vector<std::size_t> choose_peers_to_evict(std::span<const PeerCandidate> candidates, std::size_t count,
                                               const std::function<std::size_t(std::size_t n)>& random);

}  // namespace kitsune2
