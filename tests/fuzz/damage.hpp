// Damage to a valid file: a list of edits, each with two bytes of position (little-endian), one of length, and the
// bytes.
#pragma once

#include <algorithm>
#include <vector>

#include "fuzz/fuzz.hpp"

namespace kitsune2::fuzz {

/// The positions are taken modulo the file's size; a length of 255 truncates the file there.
inline std::vector<std::uint8_t> damaged(std::vector<std::uint8_t> file, ByteView edits) {
  while (edits.size() >= 3 && !file.empty()) {
    const std::size_t place = (edits[0] | std::size_t{edits[1]} << 8U) % file.size();
    const std::size_t length = edits[2];
    edits = edits.subspan(3);
    if (length == 255) {
      file.resize(place);
      continue;
    }
    const std::size_t n = std::min({length, edits.size(), file.size() - place});
    std::copy_n(edits.begin(), n, file.begin() + static_cast<std::ptrdiff_t>(place));
    edits = edits.subspan(std::min(length, edits.size()));
  }
  return file;
}

}  // namespace kitsune2::fuzz
