// The window of a source against its naive twin, under random commands.
#include "model/window_twin_run.hpp"

#include <gtest/gtest.h>

#include "model/commands.hpp"

namespace kitsune2::model {
namespace {

TEST(WindowTwin, AgreesAfterEveryCommand) {
  WindowCoverage coverage;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    const auto commands = random_commands(seed, 600);
    ASSERT_NO_THROW(WindowTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  // Every important case has occurred.
  EXPECT_GT(coverage.longs, 1'000U);
  EXPECT_GT(coverage.shorts, 1'000U);
  EXPECT_GT(coverage.widest, 8U << 20);
  EXPECT_GT(coverage.settled, 1'000U);
  EXPECT_GT(coverage.lost, 500U);
  EXPECT_GT(coverage.at_most, 100U);
}

}  // namespace
}  // namespace kitsune2::model
