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
