// The book of rounds, the rounds, the turns of disc and rings, what is put off, the queue of reads and the storage arcs
// of gossip against their naive twins, under random commands.
#include <gtest/gtest.h>

#include <set>

#include "model/arc_growth_twin.hpp"
#include "model/comparison_turns_twin.hpp"
#include "model/put_offs_twin.hpp"
#include "model/read_queue_twin.hpp"
#include "model/round_book_twin.hpp"
#include "model/rounds_twin.hpp"

namespace kitsune2::model {
namespace {

TEST(GossipTwin, TheBookAgreesAfterEveryCommand) {
  RoundBookCoverage coverage;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const auto commands = random_commands(seed, 3'000);
    ASSERT_NO_THROW(RoundBookTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  // Every important case has occurred.
  EXPECT_GT(coverage.choices, 20'000U);
  EXPECT_GT(coverage.chosen, 5'000U);
  EXPECT_GT(coverage.of_strangers, 1'000U);
  EXPECT_GT(coverage.gone, 1'000U);
  EXPECT_GT(coverage.not_now, 1'000U);
  EXPECT_GT(coverage.changed, 1'000U);
  EXPECT_GT(coverage.owed, 100'000U);
  EXPECT_GT(coverage.answers_busy, 10U);
  EXPECT_GT(coverage.answers_too_soon, 100U);
  EXPECT_GT(coverage.starts_over, 100U);
  EXPECT_GT(coverage.of_a_burst, 100U);
  EXPECT_GT(coverage.bursts_used_up, 10U);
  EXPECT_GT(coverage.unheard, 100U);
}

TEST(GossipTwin, TheRoundsAgreeAfterEveryCommand) {
  std::vector<std::string> seen;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const auto commands = random_commands(seed, 3'000);
    ASSERT_NO_THROW(RoundsTwinRun(commands, &seen).run()) << "seed " << seed;
  }
  const std::set<std::string> words(seen.begin(), seen.end());
  EXPECT_EQ(words, (std::set<std::string>{"answer ",
                                          "answer disc ",
                                          "answer rings ",
                                          "answer rings first ",
                                          "compared ",
                                          "completed",
                                          "completed, decline",
                                          "ended by it",
                                          "fault",
                                          "fault, busy",
                                          "finish ",
                                          "in sync ",
                                          "incomparable ",
                                          "may accept",
                                          "may accept, instead",
                                          "may accept, tie",
                                          "may accept, tie, instead",
                                          "name",
                                          "name, in sync",
                                          "name, last",
                                          "name, last, in sync",
                                          "nothing",
                                          "say busy",
                                          "show ",
                                          "was busy"}));
}

TEST(GossipTwin, TheQueueOfReadsAgreesAfterEveryCommand) {
  std::uint64_t begun = 0;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const auto commands = random_commands(seed, 3'000);
    ASSERT_NO_THROW(ReadQueueTwinRun(commands, &begun).run()) << "seed " << seed;
  }
  EXPECT_GT(begun, 10'000U);
}

TEST(GossipTwin, DiscAndRingsTakeTheSameTurnsAfterEveryCommand) {
  ComparisonTurnsTwinRun::Coverage coverage;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const auto commands = random_commands(seed, 1'000);
    ASSERT_NO_THROW(ComparisonTurnsTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  EXPECT_GT(coverage.rings, 10'000U);
  EXPECT_GT(coverage.discs, 10'000U);
}

TEST(GossipTwin, TheSameComparisonsArePutOff) {
  PutOffsTwinRun::Coverage coverage;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const auto commands = random_commands(seed, 1'000);
    ASSERT_NO_THROW(PutOffsTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  EXPECT_GT(coverage.put_off, 10'000U);
  EXPECT_GT(coverage.due, 1'000U);
}

TEST(GossipTwin, StorageArcsGrowAlikeAfterEveryCommand) {
  ArcGrowthTwinRun::Coverage coverage;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    const auto commands = random_commands(seed, 1'000);
    ASSERT_NO_THROW(ArcGrowthTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  EXPECT_GT(coverage.steps, 200U);
  EXPECT_GT(coverage.to_target, 100U);
  EXPECT_GT(coverage.waits, 200U);
}

}  // namespace
}  // namespace kitsune2::model
