// What peers can cost us by gossip: stray messages, infos, reads of the store.
#include <gtest/gtest.h>

#include "kitsune2/testing/fault_store.hpp"
#include "unit/node/gossip/gossip_harness.hpp"

namespace kitsune2::node_test {
namespace {

// ---------------------------------------------------------------- messages and infos

TEST(GossipLimits, OfInfosNoMoreAreLookedAtThanWereAskedFor) {
  WithStranger<> both;
  auto& [net, node, peer] = both;
  auto first = initiate();
  first.participating_agents = {make_agent(3)->agent().bytes()};
  peer.gossip(node.url, first);
  auto m = no_diff();
  for (std::uint64_t i = 3; i < 20; ++i) {
    m.accept_response.provided_agents.push_back(
        Bytes::copy_of(AgentInfoBuilder{.url = peer.url}.sign(*make_agent(i))->encode()));
  }
  peer.gossip(node.url, m);
  EXPECT_EQ(node.stats().agents_learned, 1U);
  EXPECT_EQ(node.stats().agents_refused, 16U);
  EXPECT_EQ(node.stats().peer_errors, 1U);
}

TEST(GossipLimits, AfterEightBadInfosTheRestOfAMessageIsNotLookedAt) {
  WithStranger<> both;
  auto& [net, node, peer] = both;
  auto first = initiate();
  for (std::uint64_t i = 3; i < 103; ++i) first.participating_agents.push_back(make_agent(i)->agent().bytes());
  peer.gossip(node.url, first);
  auto m = no_diff();
  m.accept_response.provided_agents.assign(8, Bytes::copy_of("{}"));
  m.accept_response.provided_agents.push_back(
      Bytes::copy_of(AgentInfoBuilder{.url = peer.url}.sign(*make_agent(3))->encode()));
  peer.gossip(node.url, m);
  EXPECT_EQ(node.stats().agents_learned, 0U);
  EXPECT_EQ(node.stats().agents_refused, 9U);
}

/// What cost a commit of the database each.
TEST(GossipLimits, AFloodOfMessagesOfNoRoundIsNotNotedAndCloses) {
  Net net;
  GossipNode node(net, "node");
  const auto notes = make_memory_peer_meta_store(*node.runtime);
  node.builder.peer_meta_store = [&](const ModuleContext&) { return notes; };
  node.quiet();
  Scripted peer(net, "peer"), other(net, "other");
  other.gossip(node.url, initiate());
  const wire::GossipTerminate stray{Bytes::copy_of("none"), Bytes::copy_of("x")};
  for (int i = 0; i < 63; ++i) peer.gossip(node.url, stray);
  EXPECT_EQ(peer.disconnects, 0);
  peer.gossip(node.url, stray);
  net.world.run_for(1s);
  EXPECT_EQ(peer.disconnects, 1);
  peer.gossip(node.url, stray);
  net.world.run_for(1s);
  EXPECT_EQ(peer.disconnects, 2) << "whoever comes back has used up what is borne";
  EXPECT_FALSE(notes->get(peer.url, GossipPeerMeta::kBehaviorErrors)) << "nobody knows it";
  EXPECT_EQ(other.disconnects, 0);
  EXPECT_EQ(node.stats().peer_errors, 65U);
}

TEST(GossipLimits, ThePenaltyOfAStrangerKeepsNobodyElseWaiting) {
  Net net;
  GossipNode node(net, "node");
  node.builder.config.peer_budget.newcomers_burst_ms = 4;
  node.builder.config.peer_budget.newcomers_ms_per_second = 1;
  node.quiet();
  Scripted stray(net, "stray"), honest(net, "honest");
  for (int i = 0; i < 50; ++i) stray.gossip(node.url, wire::GossipTerminate{Bytes::copy_of("none"), Bytes()});
  honest.gossip(node.url, initiate("one"));
  EXPECT_TRUE(honest.next_gossip<wire::GossipAccept>());
}

/// Stock nodes: one late message in each round of a month.
TEST(GossipLimits, FaultsOfAnHonestPeerAreForgiven) {
  WithStranger<> both;
  auto& [net, node, peer] = both;
  for (int i = 0; i < 300; ++i) {
    peer.gossip(node.url, wire::GossipTerminate{Bytes::copy_of("late"), Bytes::copy_of("x")});
    net.world.run_for(100s);
  }
  EXPECT_EQ(node.stats().peer_errors, 300U);
  EXPECT_EQ(peer.disconnects, 0);
}

// ---------------------------------------------------------------- the budget, and who comes first

TEST(GossipLimits, WhileNewcomersAreOverTheirBudgetTheirInitiatesAreToldBusy) {
  Net net;
  GossipNode node(net, "node");
  node.builder.config.peer_budget.newcomers_burst_ms = 4;
  node.builder.config.peer_budget.newcomers_ms_per_second = 1;
  node.quiet();
  Scripted stray(net, "stray"), honest(net, "honest");
  // 6 ms of work.
  stray.gossip(node.url, wire::GossipTerminate{Bytes::copy_of("none"), Bytes::copy_of(std::string(6U << 20U, 'x'))});
  honest.gossip(node.url, initiate("one"));
  EXPECT_TRUE(honest.next_gossip<wire::GossipBusy>());
  net.world.run_for(10s);
  honest.gossip(node.url, initiate("two"));
  EXPECT_TRUE(honest.next_gossip<wire::GossipAccept>());
  EXPECT_EQ(honest.disconnects, 0);
}

TEST(GossipLimits, TenStrangersDoNotHoldAllRoundsAgainstAKnownPeer) {
  WithPeer<> both;
  auto& [net, node, known] = both;
  std::vector<std::unique_ptr<Scripted>> strangers;
  for (int i = 0; i < 11; ++i) {
    strangers.push_back(std::make_unique<Scripted>(net, "s" + std::to_string(i)));
    strangers.back()->gossip(node.url, initiate());
    net.world.run_for(1ms);
  }
  EXPECT_TRUE(strangers.back()->next_gossip<wire::GossipBusy>());
  node.kitsune->budget().useful(known.url, 1'000, 1U << 20, {});
  known.gossip(node.url, initiate());
  EXPECT_TRUE(known.next_gossip<wire::GossipAccept>());
  ASSERT_TRUE(strangers[0]->next_gossip<wire::GossipAccept>());
  EXPECT_TRUE(strangers[0]->next_gossip<wire::GossipTerminate>()) << "the oldest gives way";
  EXPECT_TRUE(strangers[1]->next_gossip<wire::GossipAccept>());
  EXPECT_TRUE(strangers[1]->gossips.empty());
}

// ---------------------------------------------------------------- reads

/// A node whose store takes its time to read.
struct SlowNode : GossipNode {
  SlowNode(Net& n, const std::string& name, Duration reads_take) : GossipNode(n, name) {
    builder.op_store = [this, reads_take](const ModuleContext& c) -> Result<std::shared_ptr<OpStore>> {
      store = std::make_shared<testing::FaultStore>(*c.runtime, make_memory_op_store(*c.runtime, make_prefix_policy()));
      store->delay_reads(reads_take);
      return std::shared_ptr<OpStore>(store);
    };
    quiet();
    EXPECT_TRUE(join(make_agent(1)));
    add_ops(1, 20);
  }
  std::shared_ptr<testing::FaultStore> store;
};

/// The scans of 700 rounds a second, each over at once, kept a store busy for minutes after the attack.
TEST(GossipLimits, AReadCostsItsSlotUntilItEndsAndNotUntilItsRoundEnds) {
  Net net;
  SlowNode node(net, "node", 1s);
  const auto before = node.store->reads();
  std::vector<std::unique_ptr<Scripted>> peers;
  for (int i = 0; i < 200; ++i) {
    peers.push_back(std::make_unique<Scripted>(net, "p" + std::to_string(i)));
    peers.back()->gossip(node.url, initiate());
    peers.back()->gossip(node.url, wire::GossipTerminate{Bytes::copy_of("session-0001"), Bytes()});
  }
  net.world.run_for(100ms);
  EXPECT_EQ(node.store->reads() - before, 1U) << "one is at the store, the others have gone with their rounds";
  Scripted honest(net, "honest");
  honest.gossip(node.url, initiate());
  ASSERT_TRUE(net.world.run_until([&] { return !honest.gossips.empty(); }, 5s));
  EXPECT_EQ(honest.next_gossip<wire::GossipAccept>()->new_ops.size(), 20U);
  EXPECT_EQ(node.store->reads() - before, 2U);
}

TEST(GossipLimits, ReadsForOthersRestTwiceAsLongAsTheyTake) {
  Net net;
  SlowNode node(net, "node", 100ms);
  const auto before = node.store->reads();
  std::vector<std::unique_ptr<Scripted>> peers;
  for (int i = 0; i < 10; ++i) {
    peers.push_back(std::make_unique<Scripted>(net, "p" + std::to_string(i)));
    peers.back()->gossip(node.url, initiate());
  }
  net.world.run_for(950ms);
  EXPECT_EQ(node.store->reads() - before, 4U);
  net.world.run_for(2s);
  for (const auto& peer : peers) EXPECT_TRUE(peer->next_gossip<wire::GossipAccept>()) << "all are served";
}

TEST(GossipLimits, WhenTooManyReadsWaitAnInitiateIsToldBusy) {
  Net net;
  SlowNode node(net, "node", 70ms);
  ASSERT_TRUE(node.kitsune->config().update(R"({"k2Gossip":{"maxConcurrentAcceptedRounds":0}})"));
  std::vector<std::unique_ptr<Scripted>> peers;
  std::size_t busy = 0, served = 0;
  for (int i = 0; i < 100; ++i) {
    peers.push_back(std::make_unique<Scripted>(net, "p" + std::to_string(i)));
    peers.back()->gossip(node.url, initiate());
    busy += peers.back()->next_gossip<wire::GossipBusy>() ? 1 : 0;
  }
  EXPECT_EQ(busy, 35U) << "one is at the store, and 64 wait";
  net.world.run_for(14s);
  for (const auto& peer : peers) served += peer->next_gossip<wire::GossipAccept>() ? 1 : 0;
  EXPECT_EQ(served, 65U);
}

}  // namespace
}  // namespace kitsune2::node_test
