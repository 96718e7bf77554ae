// The spaces of a node: making them, blocking peers, stopping, reports.
#include <gtest/gtest.h>

#include "core/access/known_urls.hpp"
#include "kitsune2/kitsune.hpp"
#include "unit/node/node_harness.hpp"

namespace kitsune2::node_test {
namespace {

Result<void> notify(Net& net, SimNode& from, const Url& to) {
  auto sent =
      await<void>(net.world, [&](auto done) { from.space->send_notify(to, Bytes::copy_of("x"), std::move(done)); });
  net.world.run_ready();
  return sent;
}

// Reference: core_kitsune::test::happy_space_construct; the counts: space_local_agent_join_leave.
TEST(CoreKitsune, MakesSpacesOnDemand) {
  Net net;
  SimNode node(net, "a");
  auto kitsune = node.builder.build(*node.runtime).value();
  const auto space = [&](const SpaceId& id) {
    return await<std::shared_ptr<Space>>(net.world, [&](auto done) { kitsune->space(id, done); });
  };
  EXPECT_EQ(space(kSpace).error().code, Errc::invalid_argument) << "no handler yet";
  EXPECT_EQ(kitsune->register_handler(nullptr).error().code, Errc::invalid_argument);
  ASSERT_TRUE(kitsune->register_handler(node.app));
  EXPECT_EQ(kitsune->register_handler(node.app).error().code, Errc::already_exists);

  EXPECT_EQ(kitsune->space_if_exists(kSpace), nullptr);
  EXPECT_TRUE(kitsune->list_spaces().empty());
  const auto made = space(kSpace);
  ASSERT_TRUE(made) << made.error().to_string();
  EXPECT_EQ((*made)->id(), kSpace);
  EXPECT_EQ(kitsune->space_if_exists(kSpace), *made);
  EXPECT_EQ(kitsune->space_if_exists(SpaceId::from_text("nope")), nullptr);
  EXPECT_EQ(kitsune->list_spaces(), std::vector<SpaceId>{kSpace});
  EXPECT_EQ(*space(kSpace), *made) << "made once";
  EXPECT_EQ(node.app->created.size(), 1U);
  EXPECT_EQ(space(SpaceId()).error().code, Errc::invalid_argument);
}

TEST(CoreKitsune, ARefusedOrBrokenSpaceIsNotKept) {
  Net net;
  SimNode node(net, "a");
  bool broken = true;
  node.builder.op_store = [&](const ModuleContext& c) -> Result<std::shared_ptr<OpStore>> {
    if (broken) return make_error(Errc::corrupt, "file.db: not a database");
    return make_memory_op_store(*c.runtime, make_prefix_policy());
  };
  auto kitsune = node.builder.build(*node.runtime).value();
  ASSERT_TRUE(kitsune->register_handler(node.app));
  const auto space = [&] {
    return await<std::shared_ptr<Space>>(net.world, [&](auto done) { kitsune->space(kSpace, done); });
  };
  node.app->refuse = true;
  EXPECT_EQ(space().error().code, Errc::blocked);
  node.app->refuse = false;
  EXPECT_EQ(space().error().code, Errc::corrupt);
  EXPECT_NE(space().error().message.find("file.db"), std::string::npos);
  EXPECT_TRUE(kitsune->list_spaces().empty());
  broken = false;
  EXPECT_TRUE(space());
}

TEST(CoreKitsune, MessagesForSpacesThatAreNotHereAreDropped) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  a.start();
  b.start(SpaceId::from_text("another"));
  ASSERT_TRUE(notify(net, a, b.url));
  EXPECT_TRUE(b.app->notifies.empty());
  EXPECT_EQ(b.kitsune->list_spaces().size(), 1U);
  EXPECT_TRUE(b.app->gone.empty()) << "the connection stays";
}

TEST(CoreKitsune, ABlockedPeerIsNeitherHeardNorAnswered) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  a.start();
  b.start();
  ASSERT_TRUE(notify(net, a, b.url));
  ASSERT_EQ(b.app->notifies.size(), 1U);
  const auto ids = a.add_ops(1, 3);
  net.network->set_links_to(a.url, {.swallow = true});
  ASSERT_TRUE(await<void>(net.world, [&](auto done) { b.space->fetch().request_ops(ids, a.url, done); }));
  EXPECT_EQ(b.space->fetch().pending_ops(), 3U);
  net.network->clear_links();

  b.kitsune->blocks().block_peer(a.url, b.runtime->wall_now() + 1h);
  net.world.run_ready();
  EXPECT_EQ(b.app->gone, std::vector<Url>{a.url}) << "its connection is closed at once";
  EXPECT_EQ(b.space->fetch().pending_ops(), 0U) << "and nothing is expected of it";
  static_cast<void>(notify(net, a, b.url));
  EXPECT_EQ(b.app->notifies.size(), 1U);
  EXPECT_EQ(notify(net, b, a.url).error().code, Errc::blocked);
  net.world.run_for(1h);
  ASSERT_TRUE(notify(net, a, b.url));
  EXPECT_EQ(b.app->notifies.size(), 2U);
}

TEST(CoreKitsune, ABlockedAgentsNodeIsNeitherHeardNorAnsweredUnlessAnotherAgentIsThere) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  a.start();
  b.start();
  auto bad = make_agent(1), good = make_agent(2);
  b.space->peer_store().insert({AgentInfoBuilder{.url = a.url}.sign(*bad)});
  ASSERT_TRUE(notify(net, a, b.url));
  b.kitsune->blocks().block_agent(bad->agent(), std::nullopt);
  net.world.run_ready();
  static_cast<void>(notify(net, a, b.url));
  EXPECT_EQ(b.app->notifies.size(), 1U);
  EXPECT_EQ(notify(net, b, a.url).error().code, Errc::blocked);
  // A blocked agent could claim anybody's url: an unblocked agent there counts more.
  b.space->peer_store().insert({AgentInfoBuilder{.url = a.url}.sign(*good)});
  ASSERT_TRUE(notify(net, a, b.url));
  EXPECT_EQ(b.app->notifies.size(), 2U);
  b.kitsune->blocks().block_agent(good->agent(), std::nullopt);
  net.world.run_ready();
  static_cast<void>(notify(net, a, b.url));
  EXPECT_EQ(b.app->notifies.size(), 2U);
  b.kitsune->blocks().unblock_agent(bad->agent());
  ASSERT_TRUE(notify(net, a, b.url));
  EXPECT_EQ(b.app->notifies.size(), 3U);
}

TEST(CoreKitsune, TheApplicationsHookDecidesToo) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  a.start();
  b.start();
  b.app->denied = a.url;
  static_cast<void>(notify(net, a, b.url));
  EXPECT_TRUE(b.app->notifies.empty());
  EXPECT_EQ(notify(net, b, a.url).error().code, Errc::blocked);
  EXPECT_GE(b.kitsune->transport().stats().blocked_message_count, 2U);
  b.app->denied = Url();
  ASSERT_TRUE(notify(net, a, b.url));
  EXPECT_EQ(b.app->notifies.size(), 1U);
}

TEST(CoreKitsune, StopsFromAnyState) {
  Net net;
  {
    SimNode node(net, "a");
    node.kitsune = node.builder.build(*node.runtime).value();
    EXPECT_TRUE(node.stop()) << "without a handler";
    EXPECT_EQ(node.kitsune->register_handler(node.app).error().code, Errc::cancelled);
  }
  {
    SimNode node(net, "b");
    node.start();
    int calls = 0;
    node.kitsune->stop([&] { ++calls; });
    node.kitsune->stop([&] { ++calls; });  // while it stops
    EXPECT_EQ(calls, 0);
    net.world.run_for(1s);
    EXPECT_EQ(calls, 2);
    const auto late = await<std::shared_ptr<Space>>(net.world, [&](auto done) { node.kitsune->space(kSpace, done); });
    EXPECT_EQ(late.error().code, Errc::cancelled);
    EXPECT_TRUE(node.kitsune->list_spaces().empty());
  }
  {
    // Destroyed without stopping, with work under way.
    SimNode node(net, "c");
    node.start();
    node.space->send_notify(MemoryNetwork::url_of("d"), Bytes::copy_of("x"), {});
    node.space->local_agent_join(make_agent(1), {});
  }
  net.world.run_for(1min);
}

TEST(Builder, ValidatesFirst) {
  Net net;
  SimNode node(net, "a");
  node.builder.config.core_fetch.num_back_off_intervals = 0;
  const auto bad = node.builder.build(*node.runtime);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, Errc::invalid_config);
  EXPECT_EQ(bad.error().message.substr(0, 30), "coreFetch.numBackOffIntervals:");
  node.builder.config = {};
  node.builder.gossip = {};
  const auto missing = node.builder.build(*node.runtime);
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("gossip"), std::string::npos);
}

TEST(Builder, ModulesAreTheApplicationsChoice) {
  Net net;
  SimNode node(net, "a");
  std::vector<std::string> order;
  const auto watch = [&](const char* name, auto& factory) {
    factory = [&order, name, inner = factory](const ModuleContext& c) {
      order.push_back(name);
      return inner(c);
    };
  };
  watch("peer_store", node.builder.peer_store);
  watch("bootstrap", node.builder.bootstrap);
  watch("local_agent_store", node.builder.local_agent_store);
  watch("op_store", node.builder.op_store);
  watch("fetch", node.builder.fetch);
  watch("publish", node.builder.publish);
  watch("peer_meta_store", node.builder.peer_meta_store);
  watch("gossip", node.builder.gossip);
  node.start();
  EXPECT_EQ(order, (std::vector<std::string>{"peer_store", "bootstrap", "local_agent_store", "op_store", "fetch",
                                             "publish", "peer_meta_store", "gossip"}));
}

TEST(CoreReport, KeepsTheMostRecentlyActivePeersAndAllTotals) {
  auto report = make_core_report(2);
  const auto url = [](const char* name) { return MemoryNetwork::url_of(name); };
  report->fetched(kSpace, url("a"), 1, 10);
  report->served(kSpace, url("b"), 2, 20);
  report->failed(kSpace, url("a"));
  report->fetched(kSpace, url("c"), 3, 30);  // b is dropped
  const auto all = report->snapshot();
  ASSERT_EQ(all.size(), 1U);
  const auto& space = all[0].second;
  EXPECT_EQ(space.total.ops_fetched, 4U);
  EXPECT_EQ(space.total.bytes_fetched, 40U);
  EXPECT_EQ(space.total.ops_served, 2U);
  EXPECT_EQ(space.total.failures, 1U);
  ASSERT_EQ(space.peers.size(), 2U);
  EXPECT_EQ(space.peers.count(url("b")), 0U);
  EXPECT_EQ(space.peers.at(url("a")).failures, 1U);
}

/// A node whose next poll of the bootstrap server is five minutes away.
void start_with_rare_polls(Net& net, SimNode& node, Dialect dialect) {
  node.builder.bootstrap = default_test_builder(net.network, "any", make_prefix_policy()).bootstrap;
  node.builder.config.network.dialect = dialect;
  node.builder.config.mem_bootstrap.poll_freq_ms = 300'000;
  node.start();
}

/// How long the first op of a node that has just joined takes to one that has joined before.
Duration first_op(Dialect dialect) {
  Net net;
  SimNode sharer(net, "sharer"), fetcher(net, "fetcher");
  for (SimNode* node : {&sharer, &fetcher}) start_with_rare_polls(net, *node, dialect);
  EXPECT_TRUE(sharer.join(make_agent(1)));
  const auto ids = sharer.add_ops(1, 3);
  net.world.run_for(1min);
  EXPECT_TRUE(fetcher.join(make_agent(2)));
  fetcher.space->bootstrap().poll_now();
  net.world.run_ready();
  const Time begin = net.world.now();
  EXPECT_TRUE(await<void>(net.world, [&](auto done) { fetcher.space->fetch().request_ops(ids, sharer.url, done); }));
  EXPECT_TRUE(net.world.run_until([&] { return fetcher.held() == 3; }, 10min));
  EXPECT_EQ(fetcher.kitsune->transport().stats().blocked_message_count, 0U);
  EXPECT_EQ(sharer.kitsune->transport().stats().blocked_message_count, 0U);
  return net.world.now() - begin;
}

// The sharer's next poll would come in four minutes.
TEST(CoreKitsune, TheFirstOpTakesNoLongerWhereOnlyKnownPeersAreHeard) {
  const Duration before = first_op(Dialect::v0_2);
  for (const Dialect dialect : {Dialect::v0_4, Dialect::v0_5}) EXPECT_EQ(first_op(dialect), before);
}

// As many as fetch one share.
TEST(CoreKitsune, NewcomersOneAfterTheOtherDoNotWaitForEachOther) {
  Net net;
  SimNode sharer(net, "sharer");
  start_with_rare_polls(net, sharer, Dialect::v0_5);
  ASSERT_TRUE(sharer.join(make_agent(1)));
  const auto ids = sharer.add_ops(1, 3);
  net.world.run_for(1min);
  std::deque<SimNode> fetchers;
  for (unsigned i = 0; i < 20; ++i) {
    SimNode& fetcher = fetchers.emplace_back(net, "fetcher-" + std::to_string(i));
    start_with_rare_polls(net, fetcher, Dialect::v0_5);
    ASSERT_TRUE(fetcher.join(make_agent(2 + i)));
    fetcher.space->bootstrap().poll_now();
    net.world.run_ready();
    ASSERT_TRUE(await<void>(net.world, [&](auto done) { fetcher.space->fetch().request_ops(ids, sharer.url, done); }));
    EXPECT_TRUE(net.world.run_until([&] { return fetcher.held() == 3; }, 1s)) << i;
  }
}

/// Two nodes where only known peers are heard. Neither knows the other.
struct CoreKitsuneStrangers : ::testing::Test {
  void SetUp() override {
    for (SimNode* node : {&a, &b}) {
      node->builder.config.network.dialect = Dialect::v0_5;
      node->start();
    }
    ASSERT_TRUE(a.join(agent_a));
    ASSERT_TRUE(b.join(agent_b));
  }

  Net net;
  SimNode a{net, "a"}, b{net, "b"};
  const std::shared_ptr<Ed25519LocalAgent> agent_a = make_agent(1), agent_b = make_agent(2);
};

TEST_F(CoreKitsuneStrangers, AreHeardWhenTheyAreKnownAndCauseFewPolls) {
  EXPECT_EQ(notify(net, a, b.url).error().code, Errc::blocked) << "a does not know b either";
  a.space->peer_store().insert({b.info_of(agent_b)});
  const int polls = b.bootstrap->polls;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(notify(net, a, b.url));
    net.world.run_for(1s);
  }
  EXPECT_TRUE(b.app->notifies.empty());
  EXPECT_GE(b.bootstrap->polls - polls, 6);
  EXPECT_LE(b.bootstrap->polls - polls, 12);
  EXPECT_FALSE(a.kitsune->transport().is_known_to(kSpace, b.url));
  b.space->peer_store().insert({a.info_of(agent_a)});
  net.world.run_ready();
  EXPECT_EQ(b.app->notifies.size(), 10U);
  ASSERT_TRUE(notify(net, b, a.url));
  EXPECT_TRUE(a.kitsune->transport().is_known_to(kSpace, b.url));
}

// They are faster than honest peers renew their infos.
TEST_F(CoreKitsuneStrangers, AFloodOfNewcomersMakesNoPeerInTheStoreAStranger) {
  PeerStore& peers = b.space->peer_store();
  peers.insert({a.info_of(agent_a)});
  a.space->peer_store().insert({b.info_of(agent_b)});
  const auto newcomer = make_agent(3);
  const Timestamp now = a.info_of(agent_a)->info().created_at;
  for (std::size_t i = 0; i <= KnownUrls::kMost; ++i) {
    AgentInfoBuilder info{.space = kSpace, .created_at = now, .url = MemoryNetwork::url_of("n" + std::to_string(i))};
    info.created_at.micros += static_cast<std::int64_t>(i);
    peers.insert_from({info.sign(*newcomer)}, "sockpuppet");
  }
  ASSERT_EQ(peers.get(newcomer->agent())->info().url, MemoryNetwork::url_of("n" + std::to_string(KnownUrls::kMost)));
  ASSERT_TRUE(notify(net, b, a.url));
  ASSERT_TRUE(notify(net, a, b.url));
  net.world.run_ready();
  EXPECT_EQ(b.app->notifies.size(), 1U);
  peers.remove(agent_a->agent());
  EXPECT_EQ(notify(net, b, a.url).error().code, Errc::blocked) << "only the store has known it";
}

}  // namespace
}  // namespace kitsune2::node_test
