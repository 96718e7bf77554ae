// The metadata of pending ops against its naive twin; the bytes are the commands.
#include "fuzz/fuzz.hpp"
#include "model/metadata_twin.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_hash_seed(1);
  model::MetadataTwinRun(ByteView(data, std::min<std::size_t>(size, 1024))).run();  // a difference throws: a crash here
  return 0;
}
