// The fetch core against its naive twin, under random commands.
#include "model/fetch_twin_run.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

#include "model/commands.hpp"

namespace kitsune2::model {
namespace {

/// More runs: K2_TWIN_SEEDS=100000; one run again: K2_TWIN_FIRST=<seed> K2_TWIN_SEEDS=1.
std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

TEST(FetchTwin, AgreesAfterEveryCommand) {
  const std::uint64_t first = from_environment("K2_TWIN_FIRST", 1);
  const std::uint64_t seeds = from_environment("K2_TWIN_SEEDS", 500);
  TwinCoverage coverage;
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    set_hash_seed(seed);
    const auto commands = random_commands(seed, 2'500);
    try {
      FetchTwinRun(commands, &coverage).run();
    } catch (const Divergence& e) {
      FAIL() << e.what() << "; seed " << seed;
    }
  }
  RecordProperty("commands", std::to_string(coverage.commands));
  if (seeds < 500) return;
  EXPECT_GE(coverage.commands, 200'000U);
  // Every important case has occurred.
  EXPECT_GT(coverage.requests, 1000U);
  EXPECT_GT(coverage.full_requests, 20U);
  EXPECT_GT(coverage.overdue, 1000U);
  EXPECT_GT(coverage.lost, 200U);
  EXPECT_GT(coverage.missing, 1000U);
  EXPECT_GT(coverage.given_up, 100U);
  EXPECT_GT(coverage.orphaned, 100U);
  EXPECT_GT(coverage.refused, 100U);
  EXPECT_GT(coverage.wanted, 1000U);
  EXPECT_GT(coverage.duplicates, 100U);
  EXPECT_GT(coverage.stored, 1000U);
  EXPECT_GT(coverage.store_failures, 100U);
  EXPECT_GT(coverage.refused_pairs, 100U);
  EXPECT_GT(coverage.back_offs, 100U);
  EXPECT_GT(coverage.many_sources, 100U);
  EXPECT_GT(coverage.replaced, 500U);
  EXPECT_GT(coverage.moved, 1000U);
  EXPECT_GT(coverage.merged, 100U);
  EXPECT_GT(coverage.late, 1000U);
  EXPECT_GT(coverage.unasked, 1000U);
  EXPECT_GT(coverage.put_aside, 1000U);
  EXPECT_GT(coverage.put_aside_given_up, 20U);
  EXPECT_GT(coverage.further, 30U);
  EXPECT_GT(coverage.unserved, 100U);
  EXPECT_GT(coverage.unserved_orphans, 50U);
  EXPECT_GT(coverage.late_after_all, 10U);
  EXPECT_GT(coverage.take_overs, 30U);
  EXPECT_GT(coverage.read, 20U);
}

TEST(FetchTwin, AnyBytesAreCommands) {
  for (const std::vector<std::uint8_t>& bytes :
       {std::vector<std::uint8_t>{}, std::vector<std::uint8_t>(500, 0), std::vector<std::uint8_t>(500, 255),
        std::vector<std::uint8_t>{19, 19, 19}}) {
    EXPECT_NO_THROW(FetchTwinRun(bytes).run());
  }
}

}  // namespace
}  // namespace kitsune2::model
