// Which infos a full peer store drops, written naively. Also the run that compares this with the real choice.
#pragma once

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "core/peers/peer_eviction.hpp"
#include "kitsune2/bytes.hpp"

namespace kitsune2::model {

/// How many of `all` precede `i` in the order `before` and satisfy `belongs`.
template <class Belongs, class Before>
std::size_t rank(std::span<const PeerCandidate> all, std::size_t i, Belongs belongs, Before before) {
  std::size_t out = 0;
  for (std::size_t j = 0; j < all.size(); ++j) out += j != i && belongs(j) && before(j, i) ? 1 : 0;
  return out;
}

inline std::vector<std::size_t> twin_evictions(std::span<const PeerCandidate> all, std::size_t count,
                                               const std::function<std::size_t(std::size_t n)>& random) {
  const auto older = [&](std::size_t a, std::size_t b) {
    return all[a].known_since < all[b].known_since || (all[a].known_since == all[b].known_since && a < b);
  };
  const auto stranger = [&](std::size_t i) { return !all[i].is_own && !all[i].in_use; };
  const auto useful = [&](std::size_t i) { return stranger(i) && all[i].usefulness > 0; };
  const auto first_of_group = [&](std::size_t i) {
    if (!stranger(i) || all[i].group == PeerCandidate::kNoGroup) return false;
    return rank(
               all, i, [&](std::size_t j) { return stranger(j) && all[j].group == all[i].group; }, older) == 0;
  };
  std::vector<bool> is_protected(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto more_useful = [&](std::size_t a, std::size_t b) {
      if (all[a].usefulness != all[b].usefulness) return all[a].usefulness > all[b].usefulness;
      return older(a, b);
    };
    is_protected[i] = (useful(i) && rank(all, i, useful, more_useful) < all.size() / 4) ||
                      (stranger(i) && rank(all, i, stranger, older) < all.size() / 4) ||
                      (first_of_group(i) && rank(all, i, first_of_group, older) < all.size() / 8);
  }
  std::vector<std::size_t> out;
  const auto has_gone = [&](std::size_t i) { return std::find(out.begin(), out.end(), i) != out.end(); };
  while (out.size() < count) {
    const auto is_open = [&](std::size_t i) { return stranger(i) && !is_protected[i] && !has_gone(i); };
    std::optional<std::uint32_t> worst;
    std::size_t most = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!is_open(i)) continue;
      std::size_t its = 0;
      for (std::size_t j = 0; j < all.size(); ++j) its += is_open(j) && all[j].bringer == all[i].bringer ? 1 : 0;
      if (its > most || (its == most && all[i].bringer < *worst)) most = its, worst = all[i].bringer;
    }
    if (!worst) break;
    std::size_t left = random(most);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!is_open(i) || all[i].bringer != *worst) continue;
      if (left-- == 0) {
        out.push_back(i);
        break;
      }
    }
  }
  for (const bool in_use : {false, true}) {
    while (out.size() < count) {
      std::optional<std::size_t> youngest;
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (all[i].is_own || all[i].in_use != in_use || has_gone(i)) continue;
        if (!youngest || older(*youngest, i)) youngest = i;
      }
      if (!youngest) break;
      out.push_back(*youngest);
    }
  }
  return out;
}

/// Makes candidates from bytes and compares both choices. Throws std::logic_error if they differ, or violate E1.
inline void run_peer_eviction(ByteView commands) {
  const auto byte = [&]() -> std::uint8_t {
    if (commands.empty()) return 0;
    const std::uint8_t out = commands.front();
    commands = commands.subspan(1);
    return out;
  };
  const std::uint64_t seed = byte();
  const std::size_t wanted = byte();
  std::vector<PeerCandidate> all;
  while (!commands.empty() && all.size() < 120) {
    const std::uint8_t kind = byte();
    PeerCandidate one;
    one.is_own = kind % 16 == 0;
    one.in_use = kind % 16 == 1;
    one.usefulness = kind % 4 == 2 ? kind / 16U : 0;
    one.known_since = byte() % 32;
    one.bringer = byte() % 8;
    if (kind >= 128) one.group = kind % 8;
    all.push_back(one);
  }
  const std::size_t count = std::min(wanted, all.size());
  const auto make_random = [seed] {
    return [state = seed](std::size_t n) mutable {
      state = state * 6'364'136'223'846'793'005ULL + 1'442'695'040'888'963'407ULL;
      return static_cast<std::size_t>((state >> 33U) % n);
    };
  };
  const auto out = choose_peers_to_evict(all, count, make_random());
  if (out != twin_evictions(all, count, make_random())) throw std::logic_error("evictions differ from the twin's");
  const auto is_gone = [&](std::size_t i) { return std::find(out.begin(), out.end(), i) != out.end(); };
  bool some_stranger_stays = false;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].is_own && is_gone(i)) throw std::logic_error("an agent of this node was evicted");
    some_stranger_stays = some_stranger_stays || (!all[i].is_own && !all[i].in_use && !is_gone(i));
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].in_use && is_gone(i) && some_stranger_stays) throw std::logic_error("one in use went before others");
  }
}

}  // namespace kitsune2::model
