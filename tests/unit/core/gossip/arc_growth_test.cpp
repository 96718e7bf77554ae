// The rules of gossip::ArcGrowth, by their letters.
#include "core/gossip/arc_growth.hpp"

#include <gtest/gtest.h>

namespace kitsune2::gossip {
namespace {

using namespace std::chrono_literals;

AgentId id(const std::string& name) { return AgentId(Bytes::copy_of(name)); }

SectorSet sectors(std::initializer_list<DhtArc> arcs) {
  SectorSet out;
  for (const DhtArc& arc : arcs) out.add(arc);
  return out;
}

DhtArc of(std::uint32_t first, std::uint32_t count) { return DhtArc::of_sectors(first, count); }

struct ArcGrowthTest : ::testing::Test {
  ArcGrowth growth;
  ArcGrowth::Agent agent{id("a"), DhtArc::none(), of(0, 100)};
  Time now{1h};

  /// The storage arc after an update.
  DhtArc grow() {
    for (const auto& step : growth.update({agent}, now)) agent.current = step.arc;
    return agent.current;
  }
};

// Reference: storage_arc::tests::no_mismatched_sectors_from_empty, some_mismatched_sectors_from_empty.
TEST_F(ArcGrowthTest, AnEmptyArcTakesTheLongestRunA2) {
  EXPECT_EQ(grow(), DhtArc::none()) << "nothing was compared";
  growth.in_sync(sectors({of(0, 3), of(4, 1), of(200, 50)}));
  EXPECT_EQ(grow(), of(0, 3)) << "what is outside of the target does not count";
  now += 10s;
  growth.in_sync(sectors({of(0, 512)}));
  EXPECT_EQ(grow(), of(0, 100));
}

// Reference: storage_arc::tests::discover_sectors_that_do_not_expand_arc, expand_towards_target_arc.
TEST_F(ArcGrowthTest, AnArcGrowsAroundWhatItWasA2) {
  agent.current = of(2, 3);
  growth.in_sync(sectors({of(1, 1), of(6, 60)}));
  EXPECT_EQ(grow(), of(1, 4)) << "sector 5 lacks, however long the run after it is";
  now += 10s;
  growth.in_sync(sectors({of(5, 1)}));
  EXPECT_EQ(grow(), of(1, 65)) << "what was found in sync before counts";
}

// Reference: storage_arc::tests::storage_arc_at_target, storage_arc_larger_than_target.
TEST_F(ArcGrowthTest, AnArcNeverBecomesShorterA2) {
  agent.current = of(0, 200);
  growth.in_sync(sectors({of(0, 512)}));
  EXPECT_EQ(grow(), of(0, 200));
  agent.current = agent.target = DhtArc::full();
  EXPECT_EQ(grow(), DhtArc::full());
  growth.forget();
  EXPECT_EQ(grow(), DhtArc::full());
}

TEST_F(ArcGrowthTest, AcrossZeroA2) {
  agent.target = of(500, 24);
  growth.in_sync(sectors({of(505, 10)}));
  EXPECT_EQ(grow(), of(505, 10));
}

TEST_F(ArcGrowthTest, StepsOnTheWayAreApartA3) {
  growth.in_sync(sectors({of(0, 1)}));
  EXPECT_EQ(grow(), of(0, 1)) << "the first one is taken at once";
  growth.in_sync(sectors({of(1, 1)}));
  now += 10s - 1us;
  EXPECT_EQ(grow(), of(0, 1));
  EXPECT_EQ(growth.due(), Time(1h + 10s));
  now += 1us;
  EXPECT_EQ(grow(), of(0, 2));
  EXPECT_FALSE(growth.due());
  growth.in_sync(sectors({of(2, 98)}));
  EXPECT_EQ(grow(), of(0, 100)) << "the last one is taken at once";
}

TEST_F(ArcGrowthTest, AllSectorsOneByOneAreFewStepsA3) {
  agent.target = DhtArc::full();
  int steps = 0;
  for (std::uint32_t sector = 0; sector < 512; ++sector, now += 100ms) {
    growth.in_sync(sectors({of(sector, 1)}));
    const DhtArc before = agent.current;
    if (grow() != before) ++steps;
  }
  EXPECT_EQ(agent.current, DhtArc::full());
  EXPECT_LE(steps, 7);
}

// Reference: storage_arc::tests::update_multiple_agents.
TEST_F(ArcGrowthTest, EachAgentHasItsOwnTarget) {
  const std::vector<ArcGrowth::Agent> agents{{id("a"), of(10, 5), DhtArc::full()},
                                             {id("b"), of(0, 5), DhtArc::full()},
                                             {id("c"), DhtArc::none(), of(5, 2)},
                                             {id("d"), DhtArc::none(), DhtArc::none()}};
  growth.in_sync(sectors({of(0, 3), of(5, 2)}));
  EXPECT_EQ(growth.update(agents, now), (std::vector<ArcGrowth::Step>{{id("b"), of(0, 7)}, {id("c"), of(5, 2)}}));
}

TEST_F(ArcGrowthTest, SectorsThatNobodyWantsAnyMoreAreForgottenA1) {
  growth.in_sync(sectors({of(0, 512)}));
  EXPECT_EQ(grow(), of(0, 100));
  EXPECT_EQ(growth.held().count(), 100U);
  growth.update({}, now);
  EXPECT_TRUE(growth.held().empty());
  agent.current = DhtArc::none();
  EXPECT_EQ(grow(), DhtArc::none()) << "it has come back, and may have missed something";
}

}  // namespace
}  // namespace kitsune2::gossip
