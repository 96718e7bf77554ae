// The naive twin of slots::choose: the rules E1 to E4, one after the other, on lists.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "core/slots/slots.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::model {

/// The occupants that the rules allow to be dropped. Empty: the newcomer is refused.
inline std::vector<std::size_t> may_go(std::span<const slots::Slot> sample,
                                       const std::optional<slots::Address>& newcomer) {
  std::vector<std::size_t> rest;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    if (!sample[i].keep) rest.push_back(i);
  }
  const std::size_t places = rest.size() / 8;
  const auto keep_best = [&](auto worth) {
    std::map<slots::Address, std::size_t> taken;
    for (std::size_t kept = 0; kept < places;) {
      auto best = rest.end();
      for (auto it = rest.begin(); it != rest.end(); ++it) {
        const auto& address = sample[*it].address;
        if (address && taken[*address] >= std::max<std::size_t>(places / 4, 1)) continue;
        if (best == rest.end() || worth(*it) > worth(*best)) best = it;
      }
      if (best == rest.end()) return;
      if (sample[*best].address) ++taken[*sample[*best].address];
      rest.erase(best);
      ++kept;
    }
  };
  keep_best([&](std::size_t i) { return static_cast<std::int64_t>(sample[i].useful_bytes); });
  keep_best([&](std::size_t i) { return -static_cast<std::int64_t>(sample[i].since.time_since_epoch().count()); });
  std::map<slots::Address, std::size_t> groups, addresses;
  for (const auto& slot : sample) {
    if (!slot.address) continue;
    ++groups[slots::group_of(*slot.address)];
    ++addresses[*slot.address];
  }
  const auto keep_largest = [&](auto size) {
    std::size_t most = 0;
    for (const std::size_t i : rest) most = std::max(most, size(i));
    std::erase_if(rest, [&](std::size_t i) { return size(i) != most; });
  };
  keep_largest([&](std::size_t i) { return sample[i].address ? groups[slots::group_of(*sample[i].address)] : 1; });
  keep_largest([&](std::size_t i) { return sample[i].address ? addresses[*sample[i].address] : 1; });
  if (newcomer && std::ranges::all_of(rest, [&](std::size_t i) { return sample[i].address == newcomer; })) rest.clear();
  // The more useful half stays: whoever has at least half of the others at or below it, and is above those.
  const std::vector<std::size_t> pool = rest;
  std::erase_if(rest, [&](std::size_t i) {
    const auto below = std::ranges::count_if(
        pool, [&](std::size_t other) { return sample[other].useful_bytes < sample[i].useful_bytes; });
    return 2 * static_cast<std::size_t>(below) > pool.size() - 1;
  });
  return rest;
}

/// Makes a sample from `bytes`, and compares both choices.
inline void compare_slots(std::span<const std::uint8_t> bytes) {
  if (bytes.size() < 2) return;
  const auto address = [](std::uint8_t b) {
    slots::Address out{};
    out[10] = out[11] = 0xff;
    out[12] = 10;
    out[13] = b & 3U;
    out[15] = b >> 2 & 3U;
    return out;
  };
  std::vector<slots::Slot> sample;
  for (std::size_t at = 2; at + 2 <= bytes.size() && sample.size() < slots::kSample; at += 2) {
    slots::Slot slot;
    if ((bytes[at] & 0x40U) == 0) slot.address = address(bytes[at]);
    slot.keep = (bytes[at] & 0xb0U) == 0xb0U;
    slot.since = Time(std::chrono::seconds(bytes[at + 1] & 15U));
    slot.useful_bytes = bytes[at + 1] >> 4;
    sample.push_back(slot);
  }
  std::optional<slots::Address> newcomer;
  if (bytes[0] % 2 == 0) newcomer = address(bytes[1]);
  const auto allowed = may_go(sample, newcomer);
  const auto chosen = slots::choose(sample, newcomer, bytes[1]);
  K2_ASSERT(chosen.has_value() == !allowed.empty());
  if (chosen) K2_ASSERT(*chosen == allowed[bytes[1] % allowed.size()]);
}

}  // namespace kitsune2::model
