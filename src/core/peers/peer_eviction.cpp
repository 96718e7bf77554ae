// Chooses the infos that a full peer store drops. The rules are in the header.
#include "core/peers/peer_eviction.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace kitsune2 {
namespace {

using Indexes = std::vector<std::size_t>;

/// The first `count` of `of` in the order `before`, which is strict.
template <class Before>
Indexes first_of(Indexes of, std::size_t count, Before before) {
  count = std::min(count, of.size());
  std::partial_sort(of.begin(), of.begin() + static_cast<std::ptrdiff_t>(count), of.end(), before);
  of.resize(count);
  return of;
}

/// E2: marks the protected ones.
std::vector<bool> protected_ones(std::span<const PeerCandidate> all, const Indexes& strangers) {
  std::vector<bool> out(all.size());
  const auto protect = [&](const Indexes& some) {
    for (const std::size_t i : some) out[i] = true;
  };
  const auto is_older = [&](std::size_t a, std::size_t b) {
    return std::pair(all[a].known_since, a) < std::pair(all[b].known_since, b);
  };
  const std::size_t quarter = all.size() / 4;
  Indexes useful;
  std::copy_if(strangers.begin(), strangers.end(), std::back_inserter(useful),
               [&](std::size_t i) { return all[i].usefulness > 0; });
  protect(first_of(std::move(useful), quarter, [&](std::size_t a, std::size_t b) {
    return all[a].usefulness != all[b].usefulness ? all[a].usefulness > all[b].usefulness : is_older(a, b);
  }));
  protect(first_of(strangers, quarter, is_older));
  std::map<std::uint32_t, std::size_t> oldest_of;
  for (const std::size_t i : strangers) {
    if (all[i].group == PeerCandidate::kNoGroup) continue;
    const auto [it, is_new] = oldest_of.try_emplace(all[i].group, i);
    if (!is_new && is_older(i, it->second)) it->second = i;
  }
  Indexes diverse;
  for (const auto& [group, i] : oldest_of) diverse.push_back(i);
  protect(first_of(std::move(diverse), all.size() / 8, is_older));
  return out;
}

}  // namespace

std::vector<std::size_t> choose_peers_to_evict(std::span<const PeerCandidate> candidates, std::size_t count,
                                               const std::function<std::size_t(std::size_t n)>& random) {
  Indexes strangers, in_use;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].is_own) continue;
    (candidates[i].in_use ? in_use : strangers).push_back(i);
  }
  const auto is_protected = protected_ones(candidates, strangers);
  Indexes kept, out;
  std::map<std::uint32_t, Indexes> of_bringer;
  for (const std::size_t i : strangers) {
    if (is_protected[i]) {
      kept.push_back(i);
    } else {
      of_bringer[candidates[i].bringer].push_back(i);
    }
  }
  // E3. The largest first; among equals the lower number.
  std::set<std::pair<std::ptrdiff_t, std::uint32_t>> most;
  for (const auto& [bringer, its] : of_bringer) most.emplace(-static_cast<std::ptrdiff_t>(its.size()), bringer);
  while (out.size() < count && !most.empty()) {
    const std::uint32_t bringer = most.begin()->second;
    most.erase(most.begin());
    Indexes& its = of_bringer[bringer];
    const auto at = its.begin() + static_cast<std::ptrdiff_t>(random(its.size()));
    out.push_back(*at);
    its.erase(at);
    if (!its.empty()) most.emplace(-static_cast<std::ptrdiff_t>(its.size()), bringer);
  }
  // E4.
  for (Indexes* some : {&kept, &in_use}) {
    std::sort(some->begin(), some->end(), [&](std::size_t a, std::size_t b) {
      return std::pair(candidates[a].known_since, a) > std::pair(candidates[b].known_since, b);
    });
    for (const std::size_t i : *some) {
      if (out.size() < count) out.push_back(i);
    }
  }
  return out;
}

}  // namespace kitsune2
