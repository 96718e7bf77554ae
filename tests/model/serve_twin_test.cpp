// The serving side of fetch against its naive twin, under random commands.
#include "model/serve_twin.hpp"

#include <gtest/gtest.h>

namespace kitsune2::model {
namespace {

TEST(ServeTwin, AgreesAfterEveryCommand) {
  ServeCoverage coverage;
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    const auto commands = random_commands(seed, 3'000);
    ASSERT_NO_THROW(ServeTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  // Every important case has occurred.
  EXPECT_GT(coverage.requests, 10'000U);
  EXPECT_GT(coverage.refused, 1'000U);
  EXPECT_GT(coverage.joined, 1'000U);
  EXPECT_GT(coverage.reads, 10'000U);
  EXPECT_GT(coverage.left_over, 1'000U);
  EXPECT_GT(coverage.sends, 10'000U);
  EXPECT_GT(coverage.failed_sends, 1'000U);
  EXPECT_GT(coverage.discarded, 50U);
  EXPECT_GT(coverage.forgotten, 1'000U);
  EXPECT_GT(coverage.stale_reads, 100U);
  EXPECT_GT(coverage.proven, 1'000U);
  EXPECT_GT(coverage.framed, 1'000U);
  EXPECT_GT(coverage.far, 100U);
  EXPECT_GT(coverage.waiting, 100U);
  EXPECT_GT(coverage.disconnected, 10U);
  EXPECT_GT(coverage.again, 1'000U);
  EXPECT_GT(coverage.held_back, 1'000U);
  EXPECT_GT(coverage.dropped, 100U);
}

}  // namespace
}  // namespace kitsune2::model
