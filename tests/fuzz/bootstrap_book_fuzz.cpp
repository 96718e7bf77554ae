// What the bootstrap server keeps, and its naive twin, told the same; they must agree. Input: commands of four bytes.
#include "fuzz/fuzz.hpp"
#include "model/bootstrap_twin.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  model::BootstrapUnderTest both({.max_entries_per_space = 4, .max_spaces = size % 8 < 4 ? 8U : 1U, .max_bytes = 6000});
  for (std::size_t at = 0; at + 4 <= size && at < 8000; at += 4) {
    both.step(data[at], data[at + 1], data[at + 2], data[at + 3]);
  }
  return 0;
}
