// The receiving side of publish against its naive twin; the bytes are the commands.
#include "fuzz/fuzz.hpp"
#include "model/offers_twin.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_hash_seed(1);
  model::OffersTwinRun(ByteView(data, std::min<std::size_t>(size, 1024))).run();  // a difference throws: a crash here
  return 0;
}
