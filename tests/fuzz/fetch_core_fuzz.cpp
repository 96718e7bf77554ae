// The fetch core against its naive twin; the bytes are the commands.
#include "fuzz/fuzz.hpp"
#include "model/fetch_twin_run.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_hash_seed(1);
  model::FetchTwinRun(ByteView(data, std::min<std::size_t>(size, 4096))).run();  // a divergence throws: a crash here
  return 0;
}
