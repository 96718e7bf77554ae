// The source of commands for the runs of the twins: bytes.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kitsune2/bytes.hpp"

namespace kitsune2::model {

/// Commands are read byte by byte; after the end, each further byte is 0.
class Commands {
 public:
  explicit Commands(ByteView bytes) : bytes_(bytes) {}

  bool is_empty() const { return bytes_.empty(); }
  std::uint8_t byte() {
    if (bytes_.empty()) return 0;
    const std::uint8_t out = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return out;
  }

 private:
  ByteView bytes_;
};

/// The same bytes for the same seed.
inline std::vector<std::uint8_t> random_commands(std::uint64_t seed, std::size_t size) {
  std::mt19937_64 random(seed);
  std::vector<std::uint8_t> out(size);
  for (std::uint8_t& byte : out) byte = static_cast<std::uint8_t>(random() >> 32U);
  return out;
}

}  // namespace kitsune2::model
