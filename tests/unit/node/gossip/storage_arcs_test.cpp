// Storage arcs grow by what gossip compares, in whole nodes and against scripted peers. Rules G8, G9 of K2Gossip.
#include <gtest/gtest.h>

#include "unit/node/gossip/gossip_harness.hpp"

namespace kitsune2::node_test {
namespace {

/// An agent that holds nothing yet.
std::shared_ptr<LocalAgent> newcomer(std::uint64_t number, DhtArc target = DhtArc::full()) {
  auto agent = make_agent(number);
  agent->set_cur_storage_arc(DhtArc::none());
  agent->set_tgt_storage_arc(target);
  return agent;
}

/// Whole nodes at the default pace.
struct StorageArcs : ::testing::Test {
  struct Node : GossipNode {
    Node(Net& n, const std::string& name, std::uint64_t number, DhtArc target = DhtArc::full())
        : GossipNode(n, name), agent(newcomer(number, target)) {
      builder.config.k2_gossip = {};
      start();
    }
    DhtArc arc() const { return agent->cur_storage_arc(); }
    std::shared_ptr<LocalAgent> agent;
  };
  void meet(std::initializer_list<Node*> nodes) {
    for (auto* node : nodes) EXPECT_TRUE(node->join(node->agent));
    for (auto* node : nodes) {
      for (auto* other : nodes) {
        if (other != node) node->knows(other->agent, other->url, other->arc());
      }
    }
  }
  static GossipStateSummary summary(Node& node) { return node.space->gossip().state_summary({}); }
  Net net;
};

TEST_F(StorageArcs, TwoNewcomersThatHoldNothingAreInSync) {
  Node a(net, "a", 1), b(net, "b", 2);
  meet({&a, &b});
  EXPECT_EQ(a.arc(), DhtArc::none());
  EXPECT_TRUE(net.world.run_until([&] { return a.arc().is_full() && b.arc().is_full(); }, 2s))
      << "one round, from which both learn it";
  net.world.run_for(1s);
  EXPECT_EQ(a.space->peer_store().get(b.agent->agent())->info().storage_arc, DhtArc::full()) << "and are told";
}

TEST_F(StorageArcs, ALateJoinerClaimsWhatItHoldsWhenItHoldsIt) {
  Node a(net, "a", 1), b(net, "b", 2);
  a.agent->set_cur_storage_arc(DhtArc::full());  // its host has made the ops
  a.add_ops(1, 3'000, 1'000);
  meet({&a, &b});
  EXPECT_EQ(a.arc(), DhtArc::full());
  std::uint64_t held_when_full = 0;
  EXPECT_TRUE(net.world.run_until(
      [&] {
        if (!b.arc().empty()) held_when_full = b.held();
        return b.arc().is_full();
      },
      20s))
      << "it does not wait for gossip's turn";
  EXPECT_EQ(held_when_full, 3'000U);
  EXPECT_EQ(a.stats().peer_errors + b.stats().peer_errors, 0U);
  const auto with_a = summary(b).peer_meta.at(a.url);
  EXPECT_EQ(with_a.in_sync_sectors, 512U);
  EXPECT_TRUE(with_a.in_sync_at);
  EXPECT_EQ(summary(b).coverage, (GossipCoverage{512, 512, 512}));
  EXPECT_EQ(summary(b).local_op_count, 3'000U);
}

TEST_F(StorageArcs, EachAgentGrowsToItsOwnTarget) {
  const auto of = DhtArc::of_sectors;
  Node a(net, "a", 1), b(net, "b", 2, of(500, 100));
  const auto second = newcomer(3, of(40, 100)), third = newcomer(4, DhtArc::none());
  a.add_ops(1, 500);
  meet({&a, &b});
  EXPECT_TRUE(b.join(second));
  EXPECT_TRUE(b.join(third));
  EXPECT_TRUE(net.world.run_until([&] { return b.arc() == of(500, 100); }, 20s)) << b.arc().to_string();
  // It joined later, so that the first round may have been without it.
  EXPECT_TRUE(net.world.run_until([&] { return second->cur_storage_arc() == of(40, 100); }, 5min));
  EXPECT_EQ(third->cur_storage_arc(), DhtArc::none());
  EXPECT_LT(b.held(), 500U);
  net.world.run_for(1s);
  EXPECT_FALSE(a.arc().is_full()) << "nobody else holds the rest";
  EXPECT_FALSE(a.arc().empty());
}

TEST_F(StorageArcs, WithoutAnAnswerNothingGrows) {
  Node a(net, "a", 1), b(net, "b", 2);
  a.agent->set_cur_storage_arc(DhtArc::full());
  a.add_ops(1, 20);
  net.network->set_reachable(a.url, b.url, false);
  meet({&a, &b});
  net.world.run_for(1min);
  EXPECT_EQ(b.arc(), DhtArc::none());
  net.network->heal();
  // They did not answer, so they leave each other alone for a while.
  EXPECT_TRUE(net.world.run_until([&] { return b.arc().is_full(); }, 40min));
  EXPECT_EQ(b.held(), 20U);
}

// ---------------------------------------------------------------- what a peer says

TEST(StorageArcsOfAnAcceptor, GrowByANoDiffThatFollowsASnapshot) {
  WithStranger<> both([](K2GossipConfig& c) { c.min_initiate_interval_ms = 0; });
  Net& net = both.net;
  GossipNode& node = both.node;
  Scripted& peer = both.peer;
  const auto agent = newcomer(1);
  ASSERT_TRUE(node.join(agent));
  node.add_ops(1, 3);
  net.world.run_for(1h);
  const auto round = [&](const std::string& session, const DhtArc& theirs, bool cannot_compare) {
    auto m = up_to_date(node, session);
    m.arc_set = set_of(theirs);
    peer.gossips.clear();
    peer.gossip(node.url, m);
    const auto accept = peer.next_gossip<wire::GossipAccept>();
    EXPECT_TRUE(accept);
    auto end = no_diff(session);
    end.cannot_compare = cannot_compare;
    peer.gossip(node.url, end);
    net.world.run_for(20s);
    return accept && accept->snapshot.has_value();
  };
  EXPECT_TRUE(round("one", DhtArc::full(), true));
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::none()) << "it could not compare";
  EXPECT_FALSE(round("two", DhtArc::none(), false));
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::none()) << "nothing is common";
  EXPECT_TRUE(round("three", DhtArc::of_sectors(10, 20), false));
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::of_sectors(10, 20));
  EXPECT_EQ(node.info_of(agent)->info().storage_arc, DhtArc::of_sectors(10, 20));
  EXPECT_TRUE(round("four", DhtArc::of_sectors(100, 400), false));
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::of_sectors(10, 20)) << "an arc has no holes";
  EXPECT_EQ(node.space->gossip().coverage(), (GossipCoverage{512, 20, 420}));
  EXPECT_TRUE(round("five", DhtArc::full(), false));
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::full());
}

TEST(StorageArcsOfAnAcceptor, AreNotOneInfoForEachSector) {
  WithStranger<> both([](K2GossipConfig& c) { c.initiate_burst_factor = 20; });
  auto& [net, node, peer] = both;
  const auto agent = newcomer(1);
  ASSERT_TRUE(node.join(agent));
  net.world.run_for(1min);
  const auto before = node.bootstrap->puts.size();
  for (std::uint32_t sector = 0; sector < 100; ++sector) {
    auto m = up_to_date(node, "s" + std::to_string(sector));
    m.arc_set = set_of(DhtArc::of_sectors(sector, 1));
    peer.gossip(node.url, m);
    ASSERT_TRUE(peer.next_gossip<wire::GossipAccept>());
    peer.gossip(node.url, no_diff("s" + std::to_string(sector)));
    peer.gossips.clear();
    net.world.run_for(300ms);
  }
  EXPECT_LE(node.bootstrap->puts.size() - before, 4U) << "in 30 s";
  net.world.run_for(10s);
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::of_sectors(0, 100)) << "what had to wait is not forgotten";
}

// ---------------------------------------------------------------- the first node of a space

struct FirstNode : ::testing::Test {
  FirstNode() {
    node.builder.config.k2_gossip = {};
    node.builder.config.core_bootstrap.server_url = "http://boot:80";
    node.builder.bootstrap = [this](const ModuleContext& c) {
      return make_core_bootstrap(c, server.client(*c.runtime));
    };
    node.start();
  }
  AgentInfoPtr somebody(Duration age = {}) {
    AgentInfoBuilder b{.url = MemoryNetwork::url_of("elsewhere"), .storage_arc = DhtArc::none()};
    b.created_at = node.runtime->wall_now() - age;
    return b.sign(*make_agent(7));
  }
  Net net;
  FakeServer server{net.world};
  GossipNode node{net, "node"};
  std::shared_ptr<LocalAgent> agent = newcomer(1);
};

TEST_F(FirstNode, IsFullOnceItsServerShowsNobodyElse) {
  server.unreachable = true;
  ASSERT_TRUE(node.join(agent));
  net.world.run_for(30min);
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::none()) << "nothing answered";
  server.unreachable = false;
  server.body = "[]";
  net.world.run_for(15min);
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::none()) << "its own info is not there yet";
  server.body.reset();
  net.world.run_for(6min);
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::full());
  EXPECT_EQ(server.infos[agent->agent()]->info().storage_arc, DhtArc::full());
}

TEST_F(FirstNode, IsFullWithinSecondsOfItsStart) {
  ASSERT_TRUE(node.join(agent));
  EXPECT_TRUE(net.world.run_until([&] { return agent->cur_storage_arc().is_full(); }, 11s));
}

TEST_F(FirstNode, IsNotAloneWhileSomebodyIsListedHoweverOldTheInfoIs) {
  server.infos[make_agent(7)->agent()] = somebody(24h);
  ASSERT_TRUE(node.join(agent));
  net.world.run_for(1h);
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::none()) << "its own clock may be a day ahead";
  server.infos.erase(make_agent(7)->agent());
  net.world.run_for(6min);
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::full());
}

TEST_F(FirstNode, IsNotAloneWhileItKnowsSomebody) {
  node.space->peer_store().insert({somebody()});
  ASSERT_TRUE(node.join(agent));
  net.world.run_for(10min);
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::none());
  net.world.run_for(16min);  // the info expires, and the server is asked
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::full());
}

TEST_F(FirstNode, OfAPartHoldsThatPart) {
  agent->set_tgt_storage_arc(DhtArc::of_sectors(3, 4));
  ASSERT_TRUE(node.join(agent));
  net.world.run_for(11s);
  EXPECT_EQ(agent->cur_storage_arc(), DhtArc::of_sectors(3, 4));
}

// ---------------------------------------------------------------- the summary

// Reference: gossip::test (get_state_summary).
TEST(GossipSummary, SaysWhatIsUnderWayAndWhatIsNotedOfPeers) {
  WithPeer<> both;
  auto& [net, node, peer] = both;
  node.add_ops(1, 2);
  net.world.run_for(1h);
  node.knows(make_agent(2), peer.url, DhtArc::of_sectors(0, 256));
  peer.gossip(node.url, initiate());
  auto summary = node.space->gossip().state_summary({.include_dht_summary = true});
  EXPECT_TRUE(summary.initiated_rounds.empty());
  ASSERT_EQ(summary.accepted_rounds.size(), 1U);
  EXPECT_EQ(summary.accepted_rounds[0].session_with_peer, peer.url);
  ASSERT_EQ(summary.dht_summary.size(), 1U);
  EXPECT_EQ(summary.dht_summary[0].first, DhtArc::full());
  EXPECT_EQ(summary.dht_summary[0].second.disc_top_hash.size(), 32U);
  EXPECT_FALSE(summary.dht_summary[0].second.ring_top_hashes.empty());
  EXPECT_EQ(summary.local_op_count, 2U);
  peer.gossip(node.url, no_diff());
  peer.gossip(node.url, no_diff());
  summary = node.space->gossip().state_summary({});
  EXPECT_TRUE(summary.accepted_rounds.empty());
  EXPECT_TRUE(summary.dht_summary.empty()) << "it was not asked for";
  ASSERT_TRUE(summary.peer_meta.contains(peer.url));
  const auto& meta = summary.peer_meta[peer.url];
  EXPECT_EQ(meta.completed_rounds, 1U);
  EXPECT_EQ(meta.peer_behavior_errors, 1U) << "the second end";
  EXPECT_TRUE(meta.last_gossip_timestamp);
  EXPECT_TRUE(meta.new_ops_bookmark);
  EXPECT_FALSE(meta.peer_timeouts);
  EXPECT_FALSE(meta.peer_busy);
  EXPECT_EQ(meta.storage_arc, DhtArc::of_sectors(0, 256));
}

}  // namespace
}  // namespace kitsune2::node_test
