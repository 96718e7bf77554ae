// The budget of peers against its naive twin, under random commands.
#include "model/peer_budget_twin.hpp"

#include <gtest/gtest.h>

namespace kitsune2::model {
namespace {

TEST(PeerBudgetTwin, AgreesAfterEveryCommand) {
  PeerBudgetCoverage coverage;
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    const auto commands = random_commands(seed, 3'000);
    ASSERT_NO_THROW(PeerBudgetTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  // Every important case has occurred.
  EXPECT_GT(coverage.good, 1'000U);
  EXPECT_GT(coverage.waits, 1'000U);
  EXPECT_GT(coverage.over, 1'000U);
  EXPECT_GT(coverage.known, 1'000U);
  EXPECT_GT(coverage.demoted, 100U);
  EXPECT_GT(coverage.returned, 100U);
  EXPECT_GT(coverage.aside, 1'000U);
}

}  // namespace
}  // namespace kitsune2::model
