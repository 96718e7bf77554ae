// What an index of ops says of one op, and the two orders that there are indexes for.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>

#include "kitsune2/bytes.hpp"

namespace kitsune2::runs {

/// An op in an index. `stored_at` names its row, and no two ops have the same.
struct Entry {
  std::uint32_t location = 0;
  std::uint32_t size = 0;  ///< of its bytes
  std::int64_t created_at = 0;
  std::int64_t stored_at = 0;
  ByteView id = {};  ///< borrowed
};

/// Longer ids have no place in a run.
inline constexpr std::size_t kLongestId = 254;

enum class Order : std::uint8_t {
  by_place = 1,  ///< location, id, stored_at: for looking ids up too, since an id says where it lies
  by_time = 2,   ///< created_at, stored_at
};

inline std::strong_ordering compare(ByteView a, ByteView b) { return as_text(a) <=> as_text(b); }

inline std::strong_ordering compare(Order order, const Entry& a, const Entry& b) {
  if (order == Order::by_time) {
    if (const auto c = a.created_at <=> b.created_at; c != 0) return c;
    return a.stored_at <=> b.stored_at;
  }
  if (const auto c = a.location <=> b.location; c != 0) return c;
  if (const auto c = compare(a.id, b.id); c != 0) return c;
  return a.stored_at <=> b.stored_at;
}

/// The beginning of an entry's key in two words, which never go down where the entries do not.
struct Fence {
  std::uint64_t major = 0, minor = 0;
  friend auto operator<=>(const Fence&, const Fence&) = default;
};

inline Fence fence_of(Order order, const Entry& entry) {
  constexpr std::uint64_t kSign = std::uint64_t{1} << 63U;
  if (order == Order::by_time) {
    return {static_cast<std::uint64_t>(entry.created_at) ^ kSign, static_cast<std::uint64_t>(entry.stored_at) ^ kSign};
  }
  std::uint64_t first = 0;
  for (std::size_t i = 0; i < 8; ++i) first = first << 8U | (i < entry.id.size() ? entry.id[i] : 0U);
  return {entry.location, first};
}

}  // namespace kitsune2::runs
