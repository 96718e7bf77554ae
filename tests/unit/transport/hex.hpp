// Hexadecimal literals of captured vectors.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kitsune2/bytes.hpp"

namespace kitsune2::tests {

inline Bytes hex(std::string_view text) {
  const auto digit = [](char c) { return static_cast<std::uint8_t>(c <= '9' ? c - '0' : c - 'a' + 10); };
  std::vector<std::uint8_t> out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    out.push_back(static_cast<std::uint8_t>(digit(text[i]) << 4 | digit(text[i + 1])));
  }
  return Bytes(std::move(out));
}

template <std::size_t N>
std::array<std::uint8_t, N> hex_array(std::string_view text) {
  const Bytes bytes = hex(text);
  std::array<std::uint8_t, N> out{};
  for (std::size_t i = 0; i < N && i < bytes.size(); ++i) out[i] = bytes[i];
  return out;
}

}  // namespace kitsune2::tests
