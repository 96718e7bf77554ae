// Tokens and the keys of their holders against the naive twin. Input: a byte that says how many places there are, then
// commands of three bytes.
#include "fuzz/fuzz.hpp"
#include "model/token_book_twin.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  kitsune2::model::TokensUnderTest both((data[0] & 1U) != 0);
  for (std::size_t at = 1; at + 3 <= size && at < 9000; at += 3) both.step(data[at], data[at + 1], data[at + 2]);
  both.end();
  return 0;
}
