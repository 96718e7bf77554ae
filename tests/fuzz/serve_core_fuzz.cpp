// The serving side of fetch against its naive twin; the bytes are the commands.
#include "fuzz/fuzz.hpp"
#include "model/serve_twin.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_hash_seed(1);
  model::ServeTwinRun(ByteView(data, std::min<std::size_t>(size, 4096))).run();  // a difference throws: a crash here
  return 0;
}
