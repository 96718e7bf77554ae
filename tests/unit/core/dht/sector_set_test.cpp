// Sets of sectors: arcs to sectors and back, and their texts.
#include "core/dht/sector_set.hpp"

#include <gtest/gtest.h>

namespace kitsune2 {
namespace {

TEST(SectorSet, AsTextAndBack) {
  SectorSet some, full;
  full.add(DhtArc::full());
  some.add({5U << 23U, (200U << 23U) - 1});
  const std::string text = some.to_string();
  const auto back = SectorSet::parse(text);
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, some);
  EXPECT_TRUE(back->is_within(some));
  EXPECT_FALSE(full.is_within(some));
  EXPECT_TRUE(SectorSet().is_within(some));
  EXPECT_FALSE(SectorSet::parse(""));
  EXPECT_FALSE(SectorSet::parse(text + "0"));
  EXPECT_FALSE(SectorSet::parse("x" + text.substr(1)));
  EXPECT_FALSE(SectorSet::parse("-" + text.substr(1)));
}

TEST(SectorSet, WholeSectorsOfArcs) {
  constexpr std::uint32_t kSize = 1U << 23;
  const auto of = [](const DhtArc& arc) {
    SectorSet out;
    out.add(arc);
    return out;
  };
  EXPECT_EQ(of(DhtArc::full()).count(), 512U);
  EXPECT_EQ(of(DhtArc::none()).count(), 0U);
  EXPECT_EQ(of(DhtArc(0, kSize - 1)).count(), 1U);
  EXPECT_EQ(of(DhtArc(0, kSize - 2)).count(), 0U) << "not to the end";
  EXPECT_EQ(of(DhtArc(1, 2 * kSize - 1)).count(), 1U);
  const auto wrapped = of(DhtArc(511 * kSize, kSize - 1));
  EXPECT_EQ(wrapped.count(), 2U);
  EXPECT_TRUE(wrapped.contains(0) && wrapped.contains(UINT32_MAX));
  EXPECT_EQ(wrapped.hull(), DhtArc(511 * kSize, kSize - 1));
  EXPECT_EQ(of(DhtArc(3 * kSize, 7 * kSize - 1)).hull(), DhtArc(3 * kSize, 7 * kSize - 1));
  EXPECT_EQ(of(DhtArc::full()).hull(), DhtArc::full());
  auto holes = of(DhtArc(0, kSize - 1));
  holes.add(DhtArc(5 * kSize, 6 * kSize - 1));
  EXPECT_EQ(holes.hull(), DhtArc::full());
  EXPECT_EQ(of(DhtArc(kSize / 2, kSize / 2 - 1)).count(), 511U) << "all around, but its start cuts one";
  EXPECT_EQ(holes.common(of(DhtArc(5 * kSize, UINT32_MAX))).count(), 1U);
}

/// The union of runs of sectors, each as its first sector and their number.
SectorSet set_of(std::initializer_list<std::pair<std::uint32_t, std::uint32_t>> runs) {
  SectorSet out;
  for (const auto& [first, count] : runs) out.add(DhtArc::of_sectors(first, count));
  return out;
}

TEST(SectorSet, ArcsThatOverlapOrTouchAreOneRun) {
  EXPECT_EQ(set_of({{0, 255}, {255, 257}}).runs(), std::vector{DhtArc::full()});
  EXPECT_EQ(set_of({{0, 2}, {1, 511}}).runs(), std::vector{DhtArc::full()});
  EXPECT_EQ(set_of({{1, 1}, {2, 511}}).runs(), std::vector{DhtArc::full()}) << "across zero";
  EXPECT_EQ(set_of({{0, 3}, {2, 2}}), set_of({{0, 4}}));
  EXPECT_EQ(set_of({{510, 5}, {2, 2}}), set_of({{510, 6}}));
  EXPECT_EQ(set_of({{510, 6}}).count(), 6U);
  EXPECT_EQ(set_of({{0, 2}, {10, 30}}).runs(), (std::vector{DhtArc::of_sectors(0, 2), DhtArc::of_sectors(10, 30)}));
}

TEST(SectorSet, WhatIsCommonToTwo) {
  EXPECT_TRUE(set_of({{0, 1}}).common(set_of({{2, 1}})).empty());
  EXPECT_EQ(set_of({{0, 2}}).common(set_of({{1, 2}})), set_of({{1, 1}}));
  EXPECT_EQ(set_of({{0, 10}}).common(set_of({{1, 2}})), set_of({{1, 2}}));
  const SectorSet full = set_of({{0, 512}});
  EXPECT_EQ(full.common(full), full);
  EXPECT_EQ(SectorSet().common(full), SectorSet());
}

TEST(SectorSet, WordsOfTheWireAndBack) {
  for (const SectorSet& set : {SectorSet(), set_of({{0, 512}}), set_of({{0, 1}, {20, 1}, {511, 1}})})
    EXPECT_EQ(SectorSet(set.words()), set);
  const SectorSet::Words words = set_of({{0, 1}, {20, 1}, {33, 1}, {511, 1}}).words();
  EXPECT_EQ(words[0], 1U | 1U << 20U);
  EXPECT_EQ(words[1], 2U);
  EXPECT_EQ(words[15], 1U << 31U);
}

TEST(SectorSet, EveryLocationIsInOneSector) {
  for (std::uint32_t sector = 0; sector < SectorSet::kCount; ++sector) {
    const DhtArc arc = DhtArc::of_sectors(sector, 1);
    EXPECT_EQ(SectorSet::sector_of(arc.start()), sector);
    EXPECT_EQ(SectorSet::sector_of(arc.start() + arc.span()), sector);
    EXPECT_EQ(arc.start() + arc.span() + 1, DhtArc::of_sectors((sector + 1) % SectorSet::kCount, 1).start());
  }
}

TEST(SectorSet, RunsAreArcsOfWholeSectors) {
  SectorSet set;
  EXPECT_TRUE(set.runs().empty());
  for (const std::uint32_t sector : {0U, 1U, 5U, 510U, 511U}) set.set(sector);
  EXPECT_EQ(set.runs(), (std::vector<DhtArc>{DhtArc::of_sectors(5, 1), DhtArc::of_sectors(510, 4)}));
  for (const DhtArc& run : set.runs()) EXPECT_TRUE(run.is_of_whole_sectors());
  set.add(DhtArc::full());
  EXPECT_EQ(set.runs(), std::vector<DhtArc>{DhtArc::full()});
  EXPECT_EQ(DhtArc::of_sectors(0, 512), DhtArc::full());
  EXPECT_EQ(DhtArc::of_sectors(7, 0), DhtArc::none());
  EXPECT_EQ(DhtArc::of_sectors(511, 2), DhtArc(511U << 23U, (1U << 23U) - 1));
  EXPECT_TRUE(DhtArc::none().is_of_whole_sectors());
  EXPECT_TRUE(DhtArc::full().is_of_whole_sectors());
  EXPECT_FALSE(DhtArc(1, UINT32_MAX).is_of_whole_sectors());
  EXPECT_FALSE(DhtArc(0, 1U << 23U).is_of_whole_sectors());
}

}  // namespace
}  // namespace kitsune2
