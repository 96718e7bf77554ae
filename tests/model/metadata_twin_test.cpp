// The metadata of pending ops against its naive twin, under random commands.
#include "model/metadata_twin.hpp"

#include <gtest/gtest.h>

namespace kitsune2::model {
namespace {

TEST(MetadataTwin, AgreesAfterEveryCommand) {
  MetadataCoverage coverage;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    const auto commands = random_commands(seed, 1'500);
    ASSERT_NO_THROW(MetadataTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  // Every important case has occurred.
  EXPECT_GT(coverage.kept, 1'000U);
  EXPECT_GT(coverage.repeated, 500U);
  EXPECT_GT(coverage.refused, 1'000U);
  EXPECT_GT(coverage.found, 10'000U);
  EXPECT_GT(coverage.forgotten, 1'000U);
  EXPECT_GT(coverage.gone, 1'000U);
  EXPECT_GT(coverage.moved, 1'000U);
}

TEST(MetadataTwin, ACrowdOfNewcomersLeavesRoomForKnownPeers) {
  MetadataBook book;
  const Bytes metadata(std::string(1024, 'm'));
  const auto op = [](std::size_t i) { return OpId::from_text("op " + std::to_string(i)); };
  const auto peer = [](std::size_t i) { return Url::parse("ws://h:1/" + std::to_string(i)).value(); };
  std::size_t kept = 0;
  for (std::size_t i = 0; i < 100'000; ++i) kept += book.keep(op(i), peer(i % 1'000), metadata, true) ? 1 : 0;
  EXPECT_LE(book.bytes(), MetadataBook::kMostBytes / MetadataBook::kNewcomersPart);
  EXPECT_GT(kept, 10'000U) << "but they may fill their part";
  for (std::size_t i = 0; i < 10'000; ++i) EXPECT_TRUE(book.keep(op(i), peer(5'000), metadata, false)) << i;
  book.check_invariants();
}

}  // namespace
}  // namespace kitsune2::model
