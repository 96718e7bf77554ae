// A bound for shares that refer to few ops many times.
#pragma once

#include <cstdint>
#include <limits>

namespace kitsune2::files {

/// What a list of files may cost: a fixed number of bytes, plus a multiple of the bytes of all ops that this node holds
/// of the space. *Rationale*: an op of a few bytes can be referred to any number of times. Large files of zeros and
/// sparse disk images do so and must work; docs/file-format.md has the figures. The ops that are held were fetched at
/// the same cost to their sender, or are the user's own.
struct Allowance {
  std::uint64_t free_bytes;
  std::uint64_t times_held;
  bool covers(std::uint64_t bytes, std::uint64_t held) const {
    if (bytes <= free_bytes) return true;
    return held >= std::numeric_limits<std::uint64_t>::max() / times_held || bytes - free_bytes <= held * times_held;
  }
};
inline constexpr Allowance kForFiles{std::uint64_t{16} << 30, 1024};
inline constexpr Allowance kForList{std::uint64_t{64} << 20, 32};

}  // namespace kitsune2::files
