// The receiving side of publish against its naive twin, under random commands.
#include "model/offers_twin.hpp"

#include <gtest/gtest.h>

namespace kitsune2::model {
namespace {

TEST(OffersTwin, AgreesAfterEveryCommand) {
  OffersCoverage coverage;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    const auto commands = random_commands(seed, 1'500);
    ASSERT_NO_THROW(OffersTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  // Every important case has occurred.
  EXPECT_GT(coverage.offers, 1'000U);
  EXPECT_GT(coverage.refused, 1'000U);
  EXPECT_GT(coverage.pieces, 1'000U);
  EXPECT_GT(coverage.dropped, 100U);
  EXPECT_GT(coverage.held, 1'000U);
  EXPECT_GT(coverage.agents, 1'000U);
  EXPECT_GT(coverage.too_many, 1'000U);
  EXPECT_GT(coverage.gone, 1'000U);
  EXPECT_GT(coverage.rests, 100U);
}

}  // namespace
}  // namespace kitsune2::model
