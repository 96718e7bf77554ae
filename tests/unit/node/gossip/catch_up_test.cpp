// How soon a node that was away has what it missed: at the default configuration, with peer stores that are as durable
// as SQLite's, in virtual time.
#include <gtest/gtest.h>

#include "kitsune2/testing/fault_store.hpp"
#include "unit/node/gossip/gossip_harness.hpp"

namespace kitsune2::node_test {
namespace {

/// A node that can crash and start again, with the same stores, agent and url.
struct Home {
  Home(Net& n, std::string name_, std::uint64_t number)
      : net(n),
        name(std::move(name_)),
        agent(make_agent(number)),
        disk(n.world.make_runtime()),
        ops(make_memory_op_store(*disk, make_prefix_policy())),
        peers(make_memory_peer_store(*disk, kSpace)),
        notes(make_memory_peer_meta_store(*disk)) {
    start();
  }
  void start() {
    node = std::make_unique<GossipNode>(net, name);
    node->builder.config.k2_gossip = config;
    node->builder.op_store = [this](const ModuleContext& c) -> Result<std::shared_ptr<OpStore>> {
      return std::make_shared<testing::FaultStore>(*c.runtime, ops);
    };
    node->builder.peer_store = [this](const ModuleContext&) { return peers; };
    node->builder.peer_meta_store = [this](const ModuleContext&) { return notes; };
    node->quiet();
    EXPECT_TRUE(node->join(agent));
  }
  void crash() { node.reset(); }
  void knows(const Home& other) { node->knows(other.agent, other.node->url); }
  std::uint64_t held() const { return node->held(); }

  Net& net;
  std::string name;
  std::shared_ptr<LocalAgent> agent;
  K2GossipConfig config;
  std::unique_ptr<SimRuntime> disk;
  std::shared_ptr<OpStore> ops;
  std::shared_ptr<PeerStore> peers;
  std::shared_ptr<PeerMetaStore> notes;
  std::unique_ptr<GossipNode> node;
};

struct CatchUp : ::testing::Test {
  /// Two or more nodes that have met, and hold the same.
  void meet(std::vector<Home*> homes) {
    homes[0]->node->add_ops(1, 10);
    for (auto* home : homes) {
      for (auto* other : homes) {
        if (other != home) home->knows(*other);
      }
    }
    ASSERT_TRUE(net.world.run_until(
        [&] { return std::all_of(homes.begin(), homes.end(), [](auto* h) { return h->held() == 10; }); }, 10s));
    net.world.run_for(30s);
  }
  bool has(const Home& home, std::uint64_t count, Duration within) {
    return net.world.run_until([&] { return home.held() == count; }, within);
  }
  Net net;
};

/// The time of the last round, kept on disk, put it off by 215 s.
TEST_F(CatchUp, ANodeThatRestartsHasWhatItMissedWithinSeconds) {
  Home a(net, "a", 1), b(net, "b", 2);
  meet({&a, &b});
  b.crash();
  a.node->add_ops(100, 20);
  net.world.run_for(20s);
  b.start();
  EXPECT_TRUE(has(b, 30, 3s));
}

TEST_F(CatchUp, ANodeThatRestartsAmongThreeFindsTheOneThatHasIt) {
  Home a(net, "a", 1), b(net, "b", 2), c(net, "c", 3);
  meet({&a, &b, &c});
  b.crash();
  // c has been away for some of it itself.
  net.network->set_reachable(a.node->url, c.node->url, false);
  a.node->add_ops(100, 20);
  c.node->add_ops(200, 5);
  net.world.run_for(20s);
  b.start();
  EXPECT_TRUE(has(b, 35, 5s)) << "both are asked";
}

/// Who lacks the ops is the one that stayed.
TEST_F(CatchUp, OpsThatANodeStoredBeforeItsRestartAreFetchedFromItWithinSeconds) {
  Home a(net, "a", 1), b(net, "b", 2);
  meet({&a, &b});
  b.node->add_ops(100, 20);
  b.crash();
  net.world.run_for(20s);
  b.start();
  EXPECT_TRUE(has(a, 30, 5s));
}

TEST_F(CatchUp, ANodeWithANewUrlHasWhatItMissedWithinSeconds) {
  Home a(net, "a", 1), b(net, "b", 2);
  meet({&a, &b});
  net.network->change_url(b.node->url, 10s);
  net.world.run_for(5s);
  a.node->add_ops(100, 20);
  net.world.run_for(5s);
  EXPECT_TRUE(has(b, 30, 3s));
}

TEST_F(CatchUp, ANodeThatWasOfflineHasWhatItMissedWithinSeconds) {
  Home a(net, "a", 1), b(net, "b", 2);
  meet({&a, &b});
  net.network->go_offline(b.node->url, 60s);
  net.world.run_for(30s);
  a.node->add_ops(100, 20);
  net.world.run_for(31s);
  EXPECT_TRUE(has(b, 30, 3s));
}

TEST_F(CatchUp, APublishThatWasLostIsMadeUpForSoonAfterTheCut) {
  for (const auto outage : {8s, 60s, 300s}) {
    Net each;
    Home a(each, "a", 1), b(each, "b", 2);
    for (auto* h : {&a, &b}) h->knows(h == &a ? b : a);
    ASSERT_TRUE(each.world.run_until([&] { return a.node->stats().completed > 0; }, 10s));
    each.world.run_for(10s);
    each.network->set_reachable(a.node->url, b.node->url, false);
    const auto ids = a.node->add_ops(100, 20);
    a.node->space->publish().publish_ops(ids, b.node->url, [](const Result<void>&) {});
    each.world.run_for(outage);
    EXPECT_EQ(b.held(), 0U);
    each.network->heal();
    // A quarter of the outage, and an attempt that was under way when it ended.
    EXPECT_TRUE(each.world.run_until([&] { return b.held() == 20; }, outage / 4 + 20s)) << outage.count();
  }
}

/// It was handed to the network, and the connection lost at once.
TEST_F(CatchUp, APublishWhoseConnectionWasLostIsMadeUpFor) {
  Home a(net, "a", 1), b(net, "b", 2);
  meet({&a, &b});
  net.network->set_link(a.node->url, b.node->url, {.swallow = true});
  const auto ids = a.node->add_ops(100, 20);
  a.node->space->publish().publish_ops(ids, b.node->url, [](const Result<void>& sent) { EXPECT_TRUE(sent); });
  net.world.run_for(5s);
  net.network->clear_links();
  net.network->cut(a.node->url, b.node->url, true);
  EXPECT_TRUE(has(b, 30, 3s));
}

TEST_F(CatchUp, TwoNodesThatHoldTheSameDoNotKeepEachOtherBusy) {
  Home a(net, "a", 1), b(net, "b", 2), c(net, "c", 3);
  meet({&a, &b, &c});
  const auto rounds = [&] { return a.node->stats().initiated + b.node->stats().initiated + c.node->stats().initiated; };
  const auto before = rounds();
  net.world.run_for(20min);
  // Each starts one in two minutes at most; with each of its peers there is one in five.
  EXPECT_LE(rounds() - before, 3U * 2U * 4U + 3U);
}

/// 300 MB are named in three rounds at the defaults: the second and the third waited for 5 minutes each.
TEST_F(CatchUp, ALateJoinerIsBoundedByItsLineFromOneSourceAndFromThree) {
  constexpr std::uint64_t kOps = 5'000, kOpBytes = 60'000, kLine = 5'000'000;
  const auto payloads = testing::payloads_of(testing::make_ops(*make_prefix_policy(), 1, kOps, kOpBytes));
  std::vector<Duration> took;
  for (const std::size_t sources : {1U, 3U}) {
    Net each;
    std::vector<std::unique_ptr<Home>> homes;
    for (std::size_t i = 0; i < sources; ++i) {
      homes.push_back(std::make_unique<Home>(each, "s" + std::to_string(i), 1 + i));
      ASSERT_TRUE(await<ProcessedOps>(
          each.world, [&](auto done) { homes[i]->node->space->op_store().process_incoming_ops(payloads, done); }));
    }
    each.world.run_for(1h);
    // The joiner's line, shared by all sources.
    each.network->set_links_to(MemoryNetwork::url_of("joiner"), {.latency = 20ms, .bytes_per_second = kLine / sources});
    Home joiner(each, "joiner", 9);
    for (const auto& home : homes) joiner.knows(*home);
    const auto start = each.world.now();
    ASSERT_TRUE(each.world.run_until([&] { return joiner.held() == kOps; }, 10min));
    took.push_back(each.world.now() - start);
  }
  const auto line = std::chrono::seconds(kOps * kOpBytes / kLine);
  EXPECT_LE(took[0], line * 5 / 4 + 5s);
  EXPECT_LE(took[1], line * 5 / 4 + 5s);
  EXPECT_LE(took[1], took[0] * 11 / 10 + 2s) << "three sources are not slower than one";
}

}  // namespace
}  // namespace kitsune2::node_test
