// The permit bank and its naive twin, told the same; they must say the same. Input: a byte for the room, then commands
// of four bytes.
#include "fuzz/fuzz.hpp"
#include "model/permits_twin.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  tx5::PermitLimits limits;
  limits.max_granted_bytes = std::uint64_t{1} << (10 + data[0] % 20);
  limits.frame_bytes = static_cast<std::uint32_t>(limits.max_granted_bytes / 16384);
  model::PermitsUnderTest both(limits);
  for (std::size_t at = 1; at + 4 <= size; at += 4) {
    both.step(data[at], data[at + 1], static_cast<std::uint16_t>(data[at + 2] << 8 | data[at + 3]));
  }
  return 0;
}
