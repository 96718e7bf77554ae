// What may be under way to a peer, and its naive twin, told the same. Input: a byte for who tells, then three for each
// command.
#include "fuzz/fuzz.hpp"
#include "model/credit_twin.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto source = data[0] % 2 == 0 ? tx5::SendCredit::Source::permits : tx5::SendCredit::Source::relay;
  model::CreditUnderTest both({.first = 50'000, .most = 400'000, .in_process = 100'000}, source);
  for (std::size_t at = 1; at + 3 <= size && at < 3000; at += 3) {
    both.step(data[at], static_cast<std::uint16_t>(data[at + 1] << 8 | data[at + 2]));
  }
  return 0;
}
