// Turns of HTTP requests against their naive twin. Input: commands of three bytes.
#include "fuzz/fuzz.hpp"
#include "model/request_turns_twin.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kitsune2::model::TurnsUnderTest both({.all_percent = 20, .address_percent = 10});
  for (std::size_t at = 0; at + 3 <= size && at < 9000; at += 3) both.step(data[at], data[at + 1], data[at + 2]);
  both.end();
  return 0;
}
