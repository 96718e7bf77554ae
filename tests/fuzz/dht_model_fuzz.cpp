// The DHT model against its naive twin; the bytes are the commands.
#include "fuzz/fuzz.hpp"
#include "model/dht_twin.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  model::DhtTwinRun(ByteView(data, std::min<std::size_t>(size, 512))).run();  // a difference throws: a crash here
  return 0;
}
