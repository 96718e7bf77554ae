// The window of a fetch source against its naive twin; the bytes are the commands.
#include "fuzz/fuzz.hpp"
#include "model/window_twin_run.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  model::WindowTwinRun({data, std::min<std::size_t>(size, 1024)}).run();  // a divergence throws: a crash here
  return 0;
}
