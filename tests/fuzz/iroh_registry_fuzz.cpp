// Which connection to a peer counts, under dials of both sides, preflights, ends and deadlines in any order, beside its
// naive twin. Input: whether spares are kept, then two bytes for each command.
#include "fuzz/fuzz.hpp"
#include "model/registry_twin.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kitsune2::model::RegistryTwinRun({data, size}).run();
  return 0;
}
