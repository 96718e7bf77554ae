// The window of a source against its naive twin, under random commands.
#include "model/window_twin_run.hpp"

#include <gtest/gtest.h>

#include <random>

namespace kitsune2::model {
namespace {

TEST(WindowTwin, AgreesAfterEveryCommand) {
  WindowCoverage coverage;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<std::uint8_t> commands(600);
    for (std::uint8_t& byte : commands) byte = static_cast<std::uint8_t>(random() >> 32U);
    ASSERT_NO_THROW(WindowTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  // Nothing that matters was left out.
  EXPECT_GT(coverage.longs, 1'000U);
  EXPECT_GT(coverage.shorts, 1'000U);
  EXPECT_GT(coverage.widest, 8U << 20);
  EXPECT_GT(coverage.settled, 1'000U);
  EXPECT_GT(coverage.lost, 500U);
  EXPECT_GT(coverage.at_most, 100U);
}

}  // namespace
}  // namespace kitsune2::model
