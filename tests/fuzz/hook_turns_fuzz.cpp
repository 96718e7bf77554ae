// Turns of the questions to a hook server against their naive twin. Input: commands of three bytes.
#include "fuzz/fuzz.hpp"
#include "model/hook_turns_twin.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kitsune2::model::HookTurnsUnderTest both({.calls = 4, .address_calls = 2, .waiting = 12, .address_waiting = 5});
  for (std::size_t at = 0; at + 3 <= size && at < 9000; at += 3) both.step(data[at], data[at + 1], data[at + 2]);
  both.end();
  return 0;
}
