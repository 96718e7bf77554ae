// The fetch core against its naive twin; the bytes are the commands.
#include "fuzz/fuzz.hpp"
#include "model/fetch_twin_run.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_hash_seed(1);
  // Short runs: interesting states are a few dozen commands away. A divergence throws, which is a crash here.
  model::FetchTwinRun(ByteView(data, std::min<std::size_t>(size, 160)), nullptr, model::TwinPace::quick).run();
  return 0;
}
