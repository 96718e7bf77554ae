// The budget of peers, rule by rule.
#include "core/budget/peer_budget_core.hpp"

#include <gtest/gtest.h>

#include "unit/core/named.hpp"

namespace kitsune2 {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

using tests::agent;
using tests::peer;
Time at(Duration passed) { return Time() + passed; }

class PeerBudgetRules : public ::testing::Test {
 protected:
  PeerBudgetCore::Limits limits_ = PeerBudgetCore::limits_of({});
  PeerBudgetCore budget_{limits_};
  const std::vector<AgentId> nobody_{};

  /// Charges a millisecond at a time, until the peer is no longer `from`. Returns how many it took.
  int drive(const Url& url, const PeerBudgetCore::Group& group, PeerStanding from, Time now) {
    for (int count = 1; count <= 100'000; ++count) {
      if (budget_.charge(url, group, 1000, now) != from) return count;
    }
    return 0;
  }
};

TEST_F(PeerBudgetRules, CatchingUpWithAMillionOpsFitsOnePeer) {
  const PeerWork work = PeerWork().look_ups(1'000'000).rows(1'000'000).bytes(300'000'000).messages(2'300);
  EXPECT_EQ(budget_.charge(peer(1), std::nullopt, work.micros(), at({})), PeerStanding::good);
  EXPECT_FALSE(budget_.waits_until(peer(1), std::nullopt, at({})));
  // Three sources at once, and nothing is given back yet.
  for (int i = 2; i <= 4; ++i) {
    EXPECT_EQ(budget_.charge(peer(i), std::nullopt, work.micros(), at({})), PeerStanding::good);
    EXPECT_FALSE(budget_.waits_until(peer(i), std::nullopt, at({})));
  }
}

TEST_F(PeerBudgetRules, ThirtyRoundsOfAStockNodeFit) {
  for (int round = 0; round < 30; ++round) {
    const PeerWork work = PeerWork().messages(10'000).look_ups(10'000).time(milliseconds(50));
    EXPECT_EQ(budget_.charge(peer(1), "10.0.0.1", work.micros(), at(seconds(round))), PeerStanding::good);
    budget_.useful(peer(1), "10.0.0.1", PeerWork().messages(10'000).look_ups(10'000).micros(), 10'000,
                   at(seconds(round)));
  }
  EXPECT_FALSE(budget_.waits_until(peer(1), "10.0.0.1", at(seconds(30))));
}

TEST_F(PeerBudgetRules, OverTheBudgetAPeerWaitsThenItIsClosed) {
  EXPECT_EQ(drive(peer(1), std::nullopt, PeerStanding::good, at({})), 5'002);
  const auto until = budget_.waits_until(peer(1), std::nullopt, at({}));
  ASSERT_TRUE(until);
  EXPECT_EQ(budget_.charge(peer(1), std::nullopt, 0, *until), PeerStanding::good) << "what flows back is there again";
  EXPECT_EQ(drive(peer(2), std::nullopt, PeerStanding::good, at({})), 5'002);
  EXPECT_EQ(drive(peer(2), std::nullopt, PeerStanding::waits, at({})), 4'998);
}

TEST_F(PeerBudgetRules, OneDearThingDoesNotCloseAPeer) {
  EXPECT_EQ(budget_.charge(peer(1), std::nullopt, 60'000'000, at({})), PeerStanding::good);
  EXPECT_TRUE(budget_.waits_until(peer(1), std::nullopt, at({})));
}

TEST_F(PeerBudgetRules, NewcomersTogetherLeaveKnownPeersTheirs) {
  budget_.useful(peer(0), std::nullopt, 0, 1, at({}));
  // A thousand keys, none of them over what one may.
  for (int i = 1; i <= 1000; ++i) budget_.charge(peer(i), std::nullopt, 1'000'000, at({}));
  EXPECT_EQ(budget_.charge(peer(1001), std::nullopt, 1, at({})), PeerStanding::waits);
  EXPECT_EQ(budget_.charge(peer(0), std::nullopt, 1, at({})), PeerStanding::good);
  EXPECT_FALSE(budget_.waits_until(peer(0), std::nullopt, at({})));
}

TEST_F(PeerBudgetRules, WhatAnAttackLeavesOfACommonAccountIsPaidBackWithinTenSeconds) {
  // 300 keys that have been useful once, and as many that have not, use up what they have, for a minute.
  for (int i = 0; i < 300; ++i) budget_.useful(peer(i), std::nullopt, 0, i < 20 ? 1000U : 1U, at({}));
  for (int second = 0; second < 60; ++second) {
    for (int i = 20; i < 600; ++i) budget_.charge(peer(i), std::nullopt, 400'000, at(seconds(second)));
  }
  const Time over = at(seconds(59));
  ASSERT_TRUE(budget_.waits_until(peer(1001), std::nullopt, over));
  EXPECT_EQ(budget_.charge(peer(1001), std::nullopt, 1000, over + seconds(9)), PeerStanding::good);
  EXPECT_LE(budget_.waits_until(peer(0), std::nullopt, over).value_or(over), over + seconds(9)) << "one that is known";
}

TEST_F(PeerBudgetRules, APenaltyIsPaidByThePeerAndItsAddressAndNotByAllNewcomers) {
  // What is sent by fresh keys, each of which goes away before it is over.
  for (int i = 1; i <= 10'000; ++i) {
    EXPECT_EQ(budget_.charge(peer(i), std::nullopt, {5, 4'000'000}, at({})), PeerStanding::good) << i;
  }
  EXPECT_FALSE(budget_.waits_until(peer(10'001), std::nullopt, at({})));
  EXPECT_EQ(budget_.charge(peer(1), std::nullopt, {5, 2'000'000}, at({})), PeerStanding::good);
  EXPECT_EQ(budget_.charge(peer(1), std::nullopt, {5, 4'000'000}, at({})), PeerStanding::over);
  // Of one address they share what it has.
  for (int i = 1; i <= 10'000; ++i) budget_.charge(peer(i), "10.0.0.1", {5, 4'000'000}, at({}));
  EXPECT_TRUE(budget_.waits_until(peer(10'001), "10.0.0.1", at({})));
  EXPECT_FALSE(budget_.waits_until(peer(10'001), "10.0.0.2", at({})));
}

TEST_F(PeerBudgetRules, NewcomersOfOneAddressShareAndOthersAreNotHeldUp) {
  int last = 1;
  for (PeerStanding standing = PeerStanding::good; standing != PeerStanding::over; ++last) {
    ASSERT_LT(last, 1000);
    standing = budget_.charge(peer(last), "10.0.0.1", 1'000'000, at({}));
  }
  budget_.put_aside(peer(last), nobody_, "10.0.0.1", at({}));
  EXPECT_TRUE(budget_.is_aside(peer(2000), nobody_, "10.0.0.1", at({})));
  EXPECT_FALSE(budget_.is_aside(peer(2000), nobody_, "10.0.0.2", at({})));
  EXPECT_EQ(budget_.charge(peer(2000), "10.0.0.2", 1, at({})), PeerStanding::good);
  EXPECT_EQ(budget_.charge(peer(2001), std::nullopt, 1, at({})), PeerStanding::good);
}

TEST_F(PeerBudgetRules, AKnownPeerAtAnAddressThatIsAsideStays) {
  budget_.useful(peer(0), "10.0.0.1", 0, 1, at({}));
  for (int i = 1; i < 100; ++i) budget_.charge(peer(i), "10.0.0.1", 1'000'000, at({}));
  budget_.put_aside(peer(99), nobody_, "10.0.0.1", at({}));
  EXPECT_TRUE(budget_.is_aside(peer(98), nobody_, "10.0.0.1", at({})));
  EXPECT_FALSE(budget_.is_aside(peer(0), nobody_, "10.0.0.1", at({})));
}

TEST_F(PeerBudgetRules, AFormerlyKnownPeerMayComeBackToAnAddressThatIsAside) {
  const std::vector<AgentId> agents{agent(1)};
  budget_.useful(peer(0), "10.0.0.1", 0, 1, at({}));
  budget_.useful(peer(1), "10.0.0.1", 0, 1, at({}));
  budget_.on_disconnect(peer(0), nobody_);
  budget_.on_disconnect(peer(1), agents);
  for (int i = 2; i < 100; ++i) budget_.charge(peer(i), "10.0.0.1", 1'000'000, at({}));
  budget_.put_aside(peer(99), nobody_, "10.0.0.1", at({}));
  EXPECT_TRUE(budget_.is_aside(peer(98), nobody_, "10.0.0.1", at({})));
  EXPECT_FALSE(budget_.is_aside(peer(0), nobody_, "10.0.0.1", at({})));
  EXPECT_FALSE(budget_.is_aside(peer(3), agents, "10.0.0.1", at({}))) << "under another url";
}

TEST_F(PeerBudgetRules, AsideSurvivesAReconnectAndGrows) {
  Time now = at({});
  const std::vector<AgentId> agents{agent(1)};
  for (const Duration length : {seconds(60), seconds(120), seconds(240)}) {
    budget_.put_aside(peer(1), agents, std::nullopt, now);
    budget_.on_disconnect(peer(1), agents);
    EXPECT_TRUE(budget_.is_aside(peer(2), agents, std::nullopt, now + length - Duration(1))) << "under another url";
    EXPECT_TRUE(budget_.is_aside(peer(1), nobody_, std::nullopt, now + length - Duration(1)));
    EXPECT_FALSE(budget_.is_aside(peer(2), agents, std::nullopt, now + length));
    now += length + seconds(1);
  }
}

TEST_F(PeerBudgetRules, AnInfoWithAnothersUrlPutsNobodyAside) {
  budget_.put_aside(peer(1), std::vector<AgentId>{agent(1)}, std::nullopt, at({}));
  EXPECT_FALSE(budget_.is_aside(peer(2), std::vector<AgentId>{agent(1), agent(2)}, std::nullopt, at({})));
}

TEST_F(PeerBudgetRules, HonestWorkCostsNothingInTheEnd) {
  Time now = at({});
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_EQ(budget_.charge(peer(1), std::nullopt, 10'000, now), PeerStanding::good);
    budget_.useful(peer(1), std::nullopt, 10'000, 100, now);
  }
  // Neither it nor the newcomers have less for it.
  EXPECT_EQ(drive(peer(2), std::nullopt, PeerStanding::good, now), 5'002);
  EXPECT_EQ(drive(peer(1), std::nullopt, PeerStanding::good, now), 5'002);
}

TEST_F(PeerBudgetRules, TheMostUsefulStayKnown) {
  for (int i = 0; i < 256; ++i) budget_.useful(peer(i), std::nullopt, 0, 10, at({}));
  budget_.useful(peer(300), std::nullopt, 0, 10, at({}));
  EXPECT_FALSE(budget_.is_known(peer(300))) << "no more useful than the others";
  budget_.useful(peer(300), std::nullopt, 0, 1, at({}));
  EXPECT_TRUE(budget_.is_known(peer(300)));
  EXPECT_EQ(budget_.known(), 256U);
}

/// One useful op makes known: 240 keys had 240 accounts, which is more work than the machine has.
TEST_F(PeerBudgetRules, ManyThatAreBarelyKnownShareAndTheMostUsefulAreNotHeldUp) {
  for (int i = 0; i < 16; ++i) budget_.useful(peer(i), std::nullopt, 0, 1000, at({}));
  for (int i = 100; i < 340; ++i) budget_.useful(peer(i), std::nullopt, 0, 1, at({}));
  ASSERT_EQ(budget_.known(), 256U);
  std::int64_t done = 0;
  for (int round = 0; round < 5; ++round) {
    for (int i = 100; i < 340; ++i) {
      if (budget_.charge(peer(i), std::nullopt, 500'000, at({})) == PeerStanding::good) done += 500'000;
    }
  }
  EXPECT_EQ(done, limits_.known.burst_micros + 500'000);
  EXPECT_TRUE(budget_.waits_until(peer(339), std::nullopt, at({})));
  EXPECT_EQ(budget_.aside(at({})), 0U) << "nobody is put aside for the work of others";
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(budget_.charge(peer(i), std::nullopt, 1000, at({})), PeerStanding::good);
    EXPECT_FALSE(budget_.waits_until(peer(i), std::nullopt, at({})));
  }
  // What was useful after all is given back.
  for (int i = 100; i < 340; ++i) budget_.useful(peer(i), std::nullopt, 2'500'000, 1, at({}));
  EXPECT_FALSE(budget_.waits_until(peer(339), std::nullopt, at({})));
}

TEST_F(PeerBudgetRules, AReturningPeerIsKnownByItsAgent) {
  budget_.useful(peer(1), std::nullopt, 0, 10, at({}));
  budget_.on_disconnect(peer(1), std::vector<AgentId>{agent(1)});
  EXPECT_FALSE(budget_.is_known(peer(1)));
  budget_.on_connect(peer(2), std::vector<AgentId>{agent(2)});
  EXPECT_FALSE(budget_.is_known(peer(2)));
  budget_.on_connect(peer(3), std::vector<AgentId>{agent(1)});
  EXPECT_TRUE(budget_.is_known(peer(3)));
  budget_.on_connect(peer(4), std::vector<AgentId>{agent(1)});
  EXPECT_FALSE(budget_.is_known(peer(4))) << "once";
}

TEST_F(PeerBudgetRules, MemoryIsBoundedWhateverComes) {
  for (int i = 0; i < 30'000; ++i) {
    budget_.charge(peer(i), "group" + std::to_string(i), 1, at({}));
    budget_.put_aside(peer(100'000 + i), std::vector<AgentId>{agent(i)}, std::nullopt, at({}));
  }
  EXPECT_LE(budget_.accounts(), 2 * limits_.max_accounts);
  EXPECT_LE(budget_.aside(at({})), limits_.max_aside);
  budget_.check_invariants();
  // Room comes back with time.
  budget_.charge(peer(40'000), std::nullopt, 1, at(seconds(300)));
  EXPECT_EQ(budget_.accounts(), 1U) << "all but the new one are gone";
}

}  // namespace
}  // namespace kitsune2
