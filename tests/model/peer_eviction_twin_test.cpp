// Which infos a full peer store drops: the real choice against the naive one.
#include "model/peer_eviction_twin.hpp"

#include <gtest/gtest.h>

#include <random>

namespace kitsune2::model {
namespace {

TEST(PeerEvictionTwin, AgreesOnRandomTables) {
  for (std::uint64_t seed = 1; seed <= 2'000; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<std::uint8_t> commands(random() % 300);
    for (std::uint8_t& byte : commands) byte = static_cast<std::uint8_t>(random() >> 32U);
    ASSERT_NO_THROW(run_peer_eviction(commands)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace kitsune2::model
