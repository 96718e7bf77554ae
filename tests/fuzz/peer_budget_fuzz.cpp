// The budget of peers against its naive twin; the bytes are the commands.
#include "fuzz/fuzz.hpp"
#include "model/peer_budget_twin.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_hash_seed(1);
  model::PeerBudgetTwinRun(ByteView(data, std::min<std::size_t>(size, 2048))).run();  // a difference throws: a crash
  return 0;
}
