// The DHT model against its naive twin, and two models against each other, under random commands.
#include "model/dht_twin.hpp"

#include <gtest/gtest.h>

#include <random>

namespace kitsune2::model {
namespace {

TEST(DhtTwin, AgreesUnderRandomCommands) {
  DhtCoverage coverage;
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    const auto commands = random_commands(seed, 700);
    ASSERT_NO_THROW(DhtTwinRun(commands, &coverage).run()) << "seed " << seed;
  }
  // Every important case has occurred.
  EXPECT_GT(coverage.adds, 10'000U);
  EXPECT_GT(coverage.removes, 500U);
  EXPECT_GT(coverage.updates, 500U);
  EXPECT_GT(coverage.refused, 500U);
  EXPECT_GT(coverage.identical, 100U);
  EXPECT_GT(coverage.cannot_compare, 20U);
  EXPECT_GT(coverage.disc, 500U);
  EXPECT_GT(coverage.ring, 20U);
}

TEST(DhtModel, TheOrderOfStoringDoesNotMatter) {
  const Timestamp now = dht::unit_start(1'995'000);
  SectorSet all;
  all.add(DhtArc::full());
  std::mt19937_64 random(7);
  std::vector<DhtTwin::Op> ops;
  for (int i = 0; i < 500; ++i) {
    DhtTwin::Op op{
        static_cast<std::uint32_t>(random()), now - Duration(static_cast<std::int64_t>(random() >> 14U)), {}};
    for (int k = 0; k < 32; ++k) op.id.push_back(static_cast<std::uint8_t>(random()));
    ops.push_back(std::move(op));
  }
  dht::DhtModel first(now);
  for (const auto& op : ops) ASSERT_TRUE(first.add(op.location, op.created_at, op.id));
  std::shuffle(ops.begin(), ops.end(), random);
  // The second model lived through a day in which the ops arrived one by one.
  dht::DhtModel second(now - 96 * dht::kUnit);
  for (std::size_t i = 0; i < ops.size(); ++i) {
    ASSERT_TRUE(second.add(ops[i].location, ops[i].created_at, ops[i].id));
    second.update(now - 96 * dht::kUnit + (i * 96 / ops.size()) * dht::kUnit);
  }
  second.update(now);
  ASSERT_EQ(first.layout(), second.layout());
  EXPECT_EQ(first.minimal(all), second.minimal(all));
}

TEST(DhtModel, CellsOfAStoreMakeTheSameModel) {
  const Timestamp now = dht::unit_start(1'995'000);
  SectorSet all;
  all.add(DhtArc::full());
  dht::DhtModel told(now), loaded(now);
  for (std::uint8_t i = 1; i < 200; ++i) {
    const std::vector<std::uint8_t> id(36, i);
    const std::int64_t unit = 1'995'000 - std::int64_t{i} * 13;
    ASSERT_TRUE(told.add(std::uint32_t{i} << 24U, dht::unit_start(unit), id));
    const dht::DhtModel::Cell cell{dht::CombinedHash(id), 1};
    const std::uint32_t sector = SectorSet::sector_of(std::uint32_t{i} << 24U);
    if (unit < told.layout().boundary_unit()) {
      ASSERT_TRUE(loaded.load_slice(sector, static_cast<std::uint64_t>(unit) / 512, cell).value());
    } else {
      ASSERT_TRUE(loaded.load_unit(sector, unit, cell));
    }
  }
  EXPECT_EQ(told.minimal(all), loaded.minimal(all));
  EXPECT_EQ(told.op_count(), loaded.op_count());
  loaded.check_invariants();
}

TEST(DhtModel, AClockThatWasSetBackNeedsTheOpsOfTheSlicesThatAreNotFullAnyMore) {
  const Timestamp now = dht::unit_start(1'995'000);
  dht::DhtModel model(now - 4 * 512 * dht::kUnit);
  const dht::DhtModel::Cell cell{dht::CombinedHash(std::vector<std::uint8_t>(32, 7)), 3};
  EXPECT_FALSE(model.load_slice(0, dht::TimeLayout::at(now).full_slices() - 1, cell).value());
  EXPECT_EQ(model.op_count(), 0U);
}

TEST(DhtModel, DamagedCellsAreRefused) {
  dht::DhtModel model(dht::unit_start(1'995'000));
  const dht::CombinedHash hash(std::vector<std::uint8_t>(32, 7));
  ASSERT_TRUE(model.load_unit(511, 1'995'000, {hash, 1}));
  EXPECT_EQ(model.load_unit(512, 1'995'000, {hash, 1}).error().code, Errc::corrupt);
  EXPECT_EQ(model.load_unit(0, -1, {hash, 1}).error().code, Errc::corrupt);
  EXPECT_EQ(model.load_unit(0, 1'995'000, {hash, 0}).error().code, Errc::corrupt);
  EXPECT_EQ(model.load_slice(0, 1, {dht::CombinedHash(std::vector<std::uint8_t>(31, 7)), 1}).error().code,
            Errc::corrupt);
}

TEST(DhtModel, IdsOfMixedLengthsAreRefusedAndChangeNothing) {
  dht::DhtModel model(dht::unit_start(1'995'000));
  ASSERT_TRUE(model.add(0, dht::unit_start(1'994'990), std::vector<std::uint8_t>(36, 1)));
  const auto refused = model.add(0, dht::unit_start(1'994'990), std::vector<std::uint8_t>(32, 1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "an op id of 32 bytes in a space whose op ids have 36");
  EXPECT_EQ(model.add(0, dht::unit_start(1'994'990), {}).error().code, Errc::invalid_argument);
  EXPECT_EQ(model.op_count(), 1U);
  model.check_invariants();
}

TEST(DhtModel, SnapshotsOfALiarAreAPeersFault) {
  dht::DhtModel model(dht::unit_start(1'995'000));
  ASSERT_TRUE(model.add(0, dht::unit_start(1'000'000), std::vector<std::uint8_t>(32, 1)));
  SectorSet common;
  common.set(0);
  const dht::CombinedHash odd(std::vector<std::uint8_t>(32, 9));
  const Timestamp boundary = model.layout().disc_boundary();
  const auto fault = [&](const dht::Snapshot& snapshot) {
    const auto next = model.handle(snapshot, std::nullopt, common);
    return !next && next.error().code == Errc::peer_fault;
  };
  EXPECT_TRUE(fault(dht::DiscSectorsSnapshot{boundary, {{1, odd}}}));
  EXPECT_TRUE(fault(dht::DiscSectorsSnapshot{boundary, {{4'000'000'000U, odd}}}));
  EXPECT_TRUE(fault(dht::DiscSectorDetailsSnapshot{boundary, {{1, {{1, odd}}}}}));
  EXPECT_TRUE(fault(dht::DiscSectorDetailsSnapshot{boundary, {{0, {{UINT64_MAX, odd}}}}}));
  EXPECT_TRUE(fault(dht::RingSectorDetailsSnapshot{boundary, {{0, {{511, odd}}}}}));
  // A ring that we do not have is not a fault: the peer may be a unit ahead.
  const auto next = model.handle(dht::RingSectorDetailsSnapshot{boundary, {{99, {{0, odd}}}}}, std::nullopt, common);
  EXPECT_EQ(next.value(), dht::NextAction(dht::CannotCompare{}));
}

}  // namespace
}  // namespace kitsune2::model
