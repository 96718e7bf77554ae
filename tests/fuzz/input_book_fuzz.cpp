// What a server keeps of its clients' input, against a naive twin. Input: commands of two to four bytes.
#include "fuzz/fuzz.hpp"
#include "model/input_book_twin.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 4000) return 0;
  model::InputBookUnderTest both;
  model::Commands in{ByteView(data, size)};
  while (!in.is_empty()) both.step(in);
  return 0;
}
