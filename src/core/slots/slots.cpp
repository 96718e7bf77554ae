// Which place is given away. The rules are in the header.
#include "core/slots/slots.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace kitsune2::slots {
namespace {

/// E2: marks the best by `is_better` among those that may still go, `places` of them.
template <class IsBetter>
void protect(std::span<const Slot> sample, std::vector<bool>& stays, std::size_t places, IsBetter is_better) {
  const std::size_t of_one_address = std::max<std::size_t>(places / 4, 1);
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    if (!stays[i]) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return is_better(a, b); });
  std::vector<std::size_t> chosen;
  for (const std::size_t i : order) {
    if (chosen.size() == places) break;
    const auto& address = sample[i].address;
    const auto same = [&](std::size_t other) { return sample[other].address == address; };
    if (address && static_cast<std::size_t>(std::ranges::count_if(chosen, same)) >= of_one_address) continue;
    chosen.push_back(i);
  }
  for (const std::size_t i : chosen) stays[i] = true;
}

/// How many of the sample have the group, and how many the address, of `slot`.
std::pair<std::size_t, std::size_t> crowd(std::span<const Slot> sample, const Slot& slot) {
  if (!slot.address) return {1, 1};
  std::size_t group = 0, address = 0;
  for (const Slot& other : sample) {
    if (!other.address || group_of(*other.address) != group_of(*slot.address)) continue;
    group += 1;
    address += *other.address == *slot.address ? 1 : 0;
  }
  return {group, address};
}

}  // namespace

bool is_v4(const Address& address) {
  return std::all_of(address.begin(), address.begin() + 10, [](std::uint8_t b) { return b == 0; }) &&
         address[10] == 0xff && address[11] == 0xff;
}

Address group_of(const Address& address) {
  Address out = address;
  std::fill(out.begin() + (is_v4(address) ? 14 : 4), out.end(), std::uint8_t{0});
  return out;
}

std::uint64_t drawn(std::uint64_t random, std::size_t i) {
  // splitmix64
  std::uint64_t x = random + (i + 1) * 0x9e3779b97f4a7c15U;
  x = (x ^ x >> 30U) * 0xbf58476d1ce4e5b9U;
  x = (x ^ x >> 27U) * 0x94d049bb133111ebU;
  return x ^ x >> 31U;
}

std::optional<std::size_t> choose(std::span<const Slot> sample, const std::optional<Address>& newcomer,
                                  std::uint64_t random) {
  std::vector<bool> stays;
  for (const Slot& slot : sample) stays.push_back(slot.keep);
  const std::size_t places = static_cast<std::size_t>(std::ranges::count(stays, false)) / 8;
  protect(sample, stays, places,
          [&](std::size_t a, std::size_t b) { return sample[a].useful_bytes > sample[b].useful_bytes; });
  protect(sample, stays, places, [&](std::size_t a, std::size_t b) { return sample[a].since < sample[b].since; });
  std::pair<std::size_t, std::size_t> largest{};
  std::vector<std::size_t> pool;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    if (stays[i]) continue;
    const auto size = crowd(sample, sample[i]);
    if (size < largest) continue;
    if (size > largest) pool.clear();
    largest = size;
    pool.push_back(i);
  }
  if (pool.empty()) return std::nullopt;
  const bool own = newcomer && std::ranges::all_of(pool, [&](std::size_t i) { return sample[i].address == newcomer; });
  if (own) return std::nullopt;
  std::vector<std::uint64_t> useful;
  useful.reserve(pool.size());
  for (const std::size_t i : pool) useful.push_back(sample[i].useful_bytes);
  const auto median = useful.begin() + static_cast<std::ptrdiff_t>((useful.size() - 1) / 2);
  std::nth_element(useful.begin(), median, useful.end());
  std::erase_if(pool, [&, most = *median](std::size_t i) { return sample[i].useful_bytes > most; });
  return pool[random % pool.size()];
}

}  // namespace kitsune2::slots
