// Who gives up its place, and the naive twin of that choice. Input: the newcomer, then two bytes for each place.
#include "fuzz/fuzz.hpp"
#include "model/slots_twin.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kitsune2::model::compare_slots({data, size});
  return 0;
}
