#include "core/gossip/newcomers.hpp"

#include <gtest/gtest.h>

#include <string>

#include "unit/core/named.hpp"

namespace kitsune2::gossip {
namespace {

using namespace std::chrono_literals;

using tests::agent;
SectorSet sectors_in(const DhtArc& arc) {
  SectorSet out;
  out.add(arc);
  return out;
}
const SectorSet kFull = sectors_in(DhtArc::full());
const SectorSet kHalf = sectors_in(DhtArc(0, 0x7fffffff));

TEST(Newcomers, APeerIsAsFarAsTheLeastFarOfItsAgents) {
  Newcomers n;
  EXPECT_FALSE(n.place({}, kFull)) << "nobody takes part";
  EXPECT_EQ(n.place({agent(1)}, kFull), Timestamp{0});
  n.on_named({agent(1)}, kFull, Timestamp{70});
  n.on_named({agent(2)}, kFull, Timestamp{90});
  EXPECT_EQ(n.place({agent(1)}, kFull), Timestamp{70});
  EXPECT_EQ(n.place({agent(1), agent(2)}, kFull), Timestamp{70});
  EXPECT_EQ(n.place({agent(2), agent(3)}, kFull), Timestamp{0});
}

TEST(Newcomers, WhenMoreIsCommonItBeginsAnew) {
  Newcomers n;
  n.on_named({agent(1)}, kHalf, Timestamp{70});
  EXPECT_EQ(n.place({agent(1)}, kHalf), Timestamp{70});
  EXPECT_EQ(n.place({agent(1)}, kFull), Timestamp{0});
  n.on_named({agent(1)}, kFull, Timestamp{30});
  EXPECT_EQ(n.place({agent(1)}, kFull), Timestamp{30});
  EXPECT_EQ(n.place({agent(1)}, kHalf), Timestamp{30});
  n.on_named({agent(1)}, kHalf, Timestamp{20});
  EXPECT_EQ(n.place({agent(1)}, kFull), Timestamp{30}) << "never back";
}

TEST(Newcomers, AllShareOneAllowanceThatFillsUpWithinAMinute) {
  Newcomers n;
  Time now(1h);
  EXPECT_EQ(n.room(now, 1000), (Newcomers::Room{125'000, 500}));
  n.spend(125'000, 500);
  EXPECT_EQ(n.room(now, 1000), (Newcomers::Room{62'500, 250})) << "the next one finds something, too";
  n.spend(1'000'000, 1'000'000);
  EXPECT_EQ(n.room(now, 1000), (Newcomers::Room{0, 0}));
  now += 6s;
  EXPECT_EQ(n.room(now, 1000), (Newcomers::Room{12'500, 50}));
  now += 10min;
  EXPECT_EQ(n.room(now, 1000), (Newcomers::Room{125'000, 500}));
}

TEST(Newcomers, PlacesAreBoundedAndTheLatestAreKept) {
  Newcomers n;
  for (int i = 0; i < 25'000; ++i) n.on_named({agent(i)}, kFull, Timestamp{i + 1});
  EXPECT_EQ(n.place({agent(0)}, kFull), Timestamp{0}) << "forgotten";
  EXPECT_EQ(n.place({agent(24'999)}, kFull), Timestamp{25'000});
  EXPECT_EQ(n.place({agent(24'000)}, kFull), Timestamp{24'001});
}

}  // namespace
}  // namespace kitsune2::gossip
