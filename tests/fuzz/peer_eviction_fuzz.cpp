// Which infos a full peer store drops: the real choice against the naive one; the bytes are the table.
#include "fuzz/fuzz.hpp"
#include "model/peer_eviction_twin.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kitsune2::model::run_peer_eviction(kitsune2::ByteView(data, size));  // a difference throws: a crash here
  return 0;
}
