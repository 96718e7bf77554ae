// Bytes of which no part looks like another, for tests that send them.
#pragma once

#include <cstdint>
#include <string>

namespace kitsune2::tests {

inline std::string pattern(std::size_t size) {
  std::string out(size, '\0');
  std::uint32_t z = 1;
  for (char& c : out) c = static_cast<char>((z = z * 1664525 + 1013904223) >> 24);
  return out;
}

}  // namespace kitsune2::tests
