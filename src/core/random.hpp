// Random numbers from a runtime.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "kitsune2/runtime.hpp"

namespace kitsune2 {

/// Thread rule: that of Runtime::random_bytes.
inline std::uint64_t random_u64(Runtime& runtime) {
  std::array<std::uint8_t, sizeof(std::uint64_t)> bytes{};
  runtime.random_bytes(bytes);
  return std::bit_cast<std::uint64_t>(bytes);
}

}  // namespace kitsune2
