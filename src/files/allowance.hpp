// How much a share may be that names few ops many times.
#pragma once

#include <cstdint>
#include <limits>

namespace kitsune2::files {

/// What a list of files may cost: so many bytes, and so many times the bytes of all ops that this node holds of the
/// space. *Rationale*: an op of some bytes can be named any number of times. Large files of zeros and sparse disk
/// images do that and have to come; docs/file-format.md has the figures. What is held was fetched at the same cost by
/// whoever sent it, or is the user's own.
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
