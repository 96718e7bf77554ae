// Gossip with stock nodes, which say nothing of what they are, and with ours, which do.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/dht/dht_model.hpp"
#include "node/gossip/snapshots.hpp"
#include "unit/node/gossip/gossip_harness.hpp"

namespace kitsune2::node_test {
namespace {

Timestamp half_an_hour_ago(SimNode& node) { return node.runtime->wall_now() - 30min; }

/// As a stock node that has met nobody asks.
wire::GossipInitiate stock_initiate(SimNode& node, const std::string& session, std::uint64_t agent) {
  auto m = initiate(session);
  m.participating_agents = {make_agent(agent)->agent().bytes()};
  m.new_since = half_an_hour_ago(node);
  m.max_op_data_bytes = 100U << 20;
  return m;
}

std::set<Bytes> as_set(const std::vector<Bytes>& ids) { return {ids.begin(), ids.end()}; }

TEST(StockPeers, AreNamedWhatWasStoredLongBeforeTheFirstMeeting) {
  WithPeer<> both;
  auto& [net, node, peer] = both;
  const auto old = node.add_ops(1, 20);
  net.world.run_for(2h);
  const auto recent = node.add_ops(100, 5);
  const auto first = round_of(node, peer, stock_initiate(node, "one", 7));
  ASSERT_TRUE(first);
  auto all = as_bytes_list(old);
  for (const auto& id : as_bytes_list(recent)) all.push_back(id);
  EXPECT_EQ(first->new_ops, all);
  // The next time it is the bookmark that counts.
  net.world.run_for(5min);
  auto next = stock_initiate(node, "two", 7);
  next.new_since = first->updated_new_since;
  const auto second = round_of(node, peer, next);
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->new_ops.empty());
}

TEST(StockPeers, AFirstMeetingIsSeenByTheAgentsNotByTheUrl) {
  Net net;
  GossipNode node(net, "node");
  node.quiet();
  ASSERT_TRUE(node.join(make_agent(1)));
  const auto old = node.add_ops(1, 20);
  net.world.run_for(2h);
  Scripted before(net, "before"), after(net, "after"), other(net, "other");
  EXPECT_EQ(round_of(node, before, stock_initiate(node, "one", 7))->new_ops.size(), 20U);
  EXPECT_EQ(round_of(node, after, stock_initiate(node, "two", 7))->new_ops.size(), 0U) << "it has another url now";
  EXPECT_EQ(round_of(node, other, stock_initiate(node, "three", 8))->new_ops.size(), 20U);
  auto both = stock_initiate(node, "four", 7);
  both.participating_agents.push_back(make_agent(9)->agent().bytes());
  Scripted fourth(net, "fourth");
  EXPECT_EQ(round_of(node, fourth, both)->new_ops.size(), 20U) << "one of its agents is new";
}

TEST(StockPeers, AreNamedAllAgainWhenTheirArcGrows) {
  WithPeer<> both([](K2GossipConfig& c) { c.min_initiate_interval_ms = 0; });
  auto& [net, node, peer] = both;
  const auto old = node.add_ops(1, 100);
  net.world.run_for(2h);
  auto little = stock_initiate(node, "one", 7);
  little.arc_set = set_of(DhtArc(0, 0x3fffffff));
  const auto quarter = round_of(node, peer, little);
  ASSERT_TRUE(quarter);
  EXPECT_GT(quarter->new_ops.size(), 10U);
  EXPECT_LT(quarter->new_ops.size(), 45U);
  auto grown = stock_initiate(node, "two", 7);
  grown.new_since = quarter->updated_new_since;
  EXPECT_EQ(as_set(round_of(node, peer, grown)->new_ops), as_set(as_bytes_list(old)));
}

TEST(StockPeers, ALongHistoryIsNamedPieceByPieceAndWhatIsNewBesides) {
  WithPeer<> both([](K2GossipConfig& c) { c.max_request_gossip_op_bytes = 2'000; });
  auto& [net, node, peer] = both;
  std::set<Bytes> lacking;
  for (std::uint64_t i = 0; i < 50; ++i) {
    for (const auto& id : as_bytes_list(node.add_ops(i, 1, 100))) lacking.insert(id);
    net.world.run_for(1ms);
  }
  net.world.run_for(2h);
  Timestamp since = half_an_hour_ago(node);
  int rounds = 0;
  for (; !lacking.empty() && rounds < 20; ++rounds) {
    const auto fresh = node.add_ops(1'000 + static_cast<std::uint64_t>(rounds), 1, 100);
    auto m = stock_initiate(node, "s" + std::to_string(rounds), 7);
    m.new_since = since;
    const auto accept = round_of(node, peer, m);
    ASSERT_TRUE(accept);
    EXPECT_LE(accept->new_ops.size(), 20U);
    EXPECT_EQ(std::count(accept->new_ops.begin(), accept->new_ops.end(), fresh[0].bytes()), 1) << rounds;
    for (const auto& id : accept->new_ops) lacking.erase(id);
    since = accept->updated_new_since;
    net.world.run_for(5min);
  }
  EXPECT_TRUE(lacking.empty());
  EXPECT_EQ(rounds, 5) << "half of the allowance in each";
}

TEST(StockPeers, NewcomersShareOneAllowance) {
  Net net;
  GossipNode node(net, "node");
  node.builder.config.k2_gossip.max_request_gossip_op_bytes = 10'000;
  node.quiet();
  ASSERT_TRUE(node.join(make_agent(1)));
  node.add_ops(1, 200, 100);
  net.world.run_for(2h);
  std::size_t named = 0;
  std::vector<std::unique_ptr<Scripted>> peers;
  for (std::uint64_t i = 0; i < 30; ++i) {
    peers.push_back(std::make_unique<Scripted>(net, "p" + std::to_string(i)));
    const auto accept = round_of(node, *peers.back(), stock_initiate(node, "s", 10 + i));
    ASSERT_TRUE(accept);
    named += accept->new_ops.size();
  }
  EXPECT_GE(named, 90U);
  EXPECT_LE(named, 100U) << "10,000 bytes in a minute, however many they are";
}

TEST(StockPeers, AnOpOfMoreThanHalfTheAllowanceIsNamed) {
  WithPeer<> both([](K2GossipConfig& c) { c.max_request_gossip_op_bytes = 1'000; });
  auto& [net, node, peer] = both;
  node.add_ops(1, 1, 900);
  net.world.run_for(2h);
  EXPECT_EQ(round_of(node, peer, stock_initiate(node, "one", 7))->new_ops.size(), 1U);
}

/// Where we start the round, it is our NO_DIFF that names.
TEST(StockPeers, AreNamedTheHistoryInRoundsThatWeStartToo) {
  Net net;
  GossipNode node(net, "node");
  node.builder.config.k2_gossip = {};
  node.quiet();
  node.add_ops(1, 20);
  net.world.run_for(2h);
  Scripted peer(net, "peer");
  node.knows(make_agent(7), peer.url);
  ASSERT_TRUE(node.join(make_agent(1)));
  const auto m = await_initiate(net, peer);
  ASSERT_TRUE(m);
  wire::GossipAccept accept;
  accept.session_id = m->session_id;
  accept.arc_set = full_set();
  accept.participating_agents = {make_agent(7)->agent().bytes()};
  accept.new_since = half_an_hour_ago(node);
  accept.max_op_data_bytes = 100U << 20;
  peer.gossip(node.url, accept);
  const auto answer = peer.next_gossip<wire::GossipNoDiff>();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->accept_response.new_ops.size(), 20U);
}

/// A stock node holds a second round within 5 minutes against us; whatever is owed, it is not asked.
TEST(StockPeers, AreNeverAskedWithinTheirInterval) {
  WithPeer<> both([](K2GossipConfig& c) { c = {}; });
  auto& [net, node, peer] = both;
  std::optional<Time> last;
  int rounds = 0;
  std::uint64_t op = 1;
  for (int second = 0; second < 3'000; ++second) {
    if (second % 600 == 0) node.knows(make_agent(7), peer.url);
    if (second % 20 == 0) {
      // A publish that is lost, each time.
      node.space->publish().publish_ops(node.add_ops(op++, 1), peer.url, [](const Result<void>&) {});
      net.network->cut(node.url, peer.url, true);
    }
    net.world.run_for(1s);
    while (!peer.gossips.empty()) {
      const auto m = peer.next_gossip<wire::GossipInitiate>();
      if (!m) {
        peer.gossips.pop_front();
        continue;
      }
      const Time now = node.runtime->now();
      if (last) {
        EXPECT_GE(now - *last, 5min - 1s);
      }
      last = now;
      ++rounds;
      answer_round(node, peer, m->session_id);
    }
  }
  EXPECT_GE(rounds, 8);
}

/// A node of a dialect whose stock peers take bursts of rounds, at the defaults.
struct BurstNode : GossipNode {
  BurstNode(Net& n, const std::string& name) : GossipNode(n, name) {
    builder.config.k2_gossip = {};
    builder.config.network.dialect = Dialect::v0_5;
  }
};

TEST(StockPeers, OfDialect05AreAskedAtOnceForAReasonAndNeverBeyondTheirBurst) {
  Net net;
  BurstNode node(net, "node");
  node.quiet();
  Scripted peer(net, "peer");
  ASSERT_TRUE(node.join(make_agent(1)));
  std::vector<Time> asked;
  for (int second = 0; second < 3'000; ++second) {
    if (second % 60 == 0) node.knows(make_agent(7), peer.url);
    net.world.run_for(1s);
    while (!peer.gossips.empty()) {
      const auto m = peer.next_gossip<wire::GossipInitiate>();
      if (!m) {
        peer.gossips.pop_front();
        continue;
      }
      asked.push_back(node.runtime->now());
      wire::GossipAccept accept;
      accept.session_id = m->session_id;
      accept.arc_set = full_set();
      peer.gossip(node.url, accept);
      ASSERT_TRUE(peer.next_gossip<wire::GossipNoDiff>());
      // The round breaks off, each time: it is owed.
      net.network->cut(node.url, peer.url, true);
      net.world.run_for(1ms);
    }
  }
  ASSERT_GT(asked.size(), 40U);
  EXPECT_LE(asked[11] - asked[0], 30s);
  for (std::size_t i = 0; i + 15 < asked.size(); ++i) EXPECT_GT(asked[i + 15] - asked[i], 10min) << i;
}

/// A stock node drops what it is sent until it knows the sender. Here it does not answer, and speaks a minute later.
TEST(StockPeers, OfDialect05AreAskedAgainAsSoonAsTheyShowThatTheyKnowUs) {
  Net net;
  BurstNode node(net, "node");
  node.quiet();
  Scripted peer(net, "peer");
  node.knows(make_agent(7), peer.url);
  ASSERT_TRUE(node.join(make_agent(1)));
  ASSERT_TRUE(await_initiate(net, peer, 2s));
  EXPECT_FALSE(await_initiate(net, peer, 60s)) << "as it may be one that allows no more";
  peer.transport->send_space_notify(node.url, kSpace, Bytes::copy_of("hello"), [](const Result<void>&) {});
  const auto next = await_initiate(net, peer, 2s);
  ASSERT_TRUE(next);
  answer_round(node, peer, next->session_id);
  EXPECT_EQ(node.stats().completed, 1U);
  // It has shown that once.
  peer.transport->send_space_notify(node.url, kSpace, Bytes::copy_of("hello"), [](const Result<void>&) {});
  EXPECT_FALSE(await_initiate(net, peer, 60s));
}

/// G8. It was told all that the peer holds; nothing was compared, so it claims nothing yet.
TEST(StockPeers, OfDialect05AreComparedWithAsSoonAsWhatTheyNamedIsFetched) {
  Net net;
  BurstNode taker(net, "taker");
  taker.quiet();
  Scripted peer(net, "peer");
  taker.knows(make_agent(7), peer.url);
  const auto agent = make_agent(2);
  agent->set_cur_storage_arc(DhtArc::none());
  ASSERT_TRUE(taker.join(agent));
  const auto first = await_initiate(net, peer, 2s);
  ASSERT_TRUE(first);
  wire::GossipAccept accept;
  accept.session_id = first->session_id;
  accept.arc_set = full_set();
  accept.new_ops = as_bytes_list(taker.add_ops(1, 3));
  SectorSet full;
  full.add(DhtArc::full());
  accept.snapshot = to_wire(dht::DhtModel(taker.runtime->wall_now()).minimal(full));
  peer.gossip(taker.url, accept);
  ASSERT_TRUE(peer.next_gossip<wire::GossipNoDiff>());
  peer.gossip(taker.url, wire::GossipTerminate{first->session_id, Bytes::copy_of("No agents requested")});
  EXPECT_FALSE(await_initiate(net, peer, 900ms));
  EXPECT_TRUE(await_initiate(net, peer, 3s));
}

/// What bounds hostile peers must not touch an honest one that catches up.
TEST(StockPeers, ThirtyRoundsOfCatchUpFitAllBounds) {
  WithPeer<> both([](K2GossipConfig& c) {
    c.initiate_interval_ms = 86'400'000;
    c.initiate_burst_factor = 6;
  });
  auto& [net, node, peer] = both;
  std::set<Bytes> named;
  Timestamp since = half_an_hour_ago(node);
  for (std::uint64_t i = 0; i < 30; ++i) {
    node.add_ops(i * 1'000, 1'000, 100);
    auto m = stock_initiate(node, "s" + std::to_string(i), 7);
    m.new_since = since;
    peer.gossip(node.url, m);
    const auto accept = peer.next_gossip<wire::GossipAccept>();
    ASSERT_TRUE(accept) << i;
    since = accept->updated_new_since;
    named.insert(accept->new_ops.begin(), accept->new_ops.end());
    auto answer = no_diff(m.session_id.str());
    answer.accept_response.new_ops =
        as_bytes_list(testing::ids_of(testing::make_ops(*make_prefix_policy(), 1'000'000 + i * 1'000, 1'000)));
    answer.accept_response.updated_new_since = node.runtime->wall_now();
    if (!accept->missing_agents.empty()) {
      AgentInfoBuilder info{.url = peer.url};
      info.created_at = node.runtime->wall_now();
      answer.accept_response.provided_agents = {Bytes::copy_of(info.sign(*make_agent(7))->encode())};
    }
    peer.gossip(node.url, answer);
    ASSERT_TRUE(peer.next_gossip<wire::GossipTerminate>()) << i;
    // One message that comes late, as from a round that timed out.
    peer.gossip(node.url, wire::GossipTerminate{Bytes::copy_of("late"), Bytes::copy_of("x")});
    net.world.run_for(5min);
  }
  EXPECT_EQ(named.size(), 30'000U);
  EXPECT_EQ(node.stats().ops_learned, 30'000U);
  EXPECT_EQ(node.stats().busy_sent + node.stats().too_soon, 0U);
  EXPECT_EQ(node.stats().peer_errors, 30U);
}

// ---------------------------------------------------------------- ours

TEST(OurPeers, AreToldThatWeAre) {
  Net net;
  GossipNode node(net, "node");
  node.builder.config.k2_gossip = {};
  node.quiet();
  Scripted peer(net, "peer"), other(net, "other");
  peer.gossip(node.url, initiate());
  EXPECT_EQ(peer.next_gossip<wire::GossipAccept>()->abilities, wire::kQuickRounds);
  node.knows(make_agent(7), other.url);
  ASSERT_TRUE(node.join(make_agent(1)));
  EXPECT_EQ(await_initiate(net, other)->abilities, wire::kQuickRounds);
}

TEST(OurPeers, OneThatSaysBusyIsAskedAgainWithinSeconds) {
  for (const bool ours : {true, false}) {
    Net net;
    GossipNode node(net, "node");
    node.builder.config.k2_gossip = {};
    node.quiet();
    Scripted peer(net, "peer");
    node.knows(make_agent(7), peer.url);
    ASSERT_TRUE(node.join(make_agent(1)));
    const auto m = await_initiate(net, peer);
    ASSERT_TRUE(m);
    peer.gossip(node.url, wire::GossipBusy{m->session_id, ours ? wire::kQuickRounds : 0});
    EXPECT_EQ(net.world.run_until([&] { return !peer.gossips.empty(); }, 10s), ours);
  }
}

TEST(OurPeers, AreToldBusyByOneOfTheirKind) {
  Net net;
  GossipNode node(net, "node");
  node.builder.config.k2_gossip.max_concurrent_accepted_rounds = 1;
  node.quiet();
  Scripted first(net, "first"), second(net, "second"), stock(net, "stock");
  first.gossip(node.url, initiate("first"));
  ASSERT_TRUE(first.next_gossip<wire::GossipAccept>());
  auto m = initiate("second");
  m.abilities = wire::kQuickRounds;
  second.gossip(node.url, m);
  stock.gossip(node.url, initiate("stock"));
  EXPECT_EQ(second.next_gossip<wire::GossipBusy>()->abilities, wire::kQuickRounds);
  EXPECT_EQ(stock.next_gossip<wire::GossipBusy>()->abilities, 0U);
}

/// A node with the usual waits whose fetch waits for so many ops of a peer that says nothing.
struct Fetching {
  explicit Fetching(std::size_t ops) {
    node.builder.config.k2_gossip = {};
    node.quiet();
    const auto ids = testing::ids_of(testing::make_ops(*make_prefix_policy(), 5'000, ops));
    node.space->fetch().request_ops(ids, silent.url, [](const Result<void>& result) { EXPECT_TRUE(result); });
  }
  Net net;
  GossipNode node{net, "node"};
  Scripted silent{net, "silent"}, peer{net, "peer"};
};

// G4: rounds that we start.
TEST(OurPeers, AreNotAskedWhileFetchHasMuchToDoButAreAfterAWhile) {
  for (const std::size_t ops : {999U, 1'000U}) {
    Fetching all(ops);
    all.node.knows(make_agent(7), all.peer.url);
    ASSERT_TRUE(all.node.join(make_agent(1)));
    EXPECT_EQ(await_initiate(all.net, all.peer, 4s).has_value(), ops < 1'000);
    EXPECT_EQ(await_initiate(all.net, all.peer, 2s).has_value(), ops == 1'000);
  }
}

// G4: rounds that others start. A stock node would hold it against us.
TEST(OurPeers, AreToldBusyWhileFetchHasMuchToDo) {
  Fetching all(1'000);
  Scripted stock(all.net, "stock");
  auto m = initiate();
  m.abilities = wire::kQuickRounds;
  all.peer.gossip(all.node.url, m);
  EXPECT_TRUE(all.peer.next_gossip<wire::GossipBusy>());
  stock.gossip(all.node.url, initiate());
  EXPECT_TRUE(stock.next_gossip<wire::GossipAccept>());
  all.net.world.run_for(6s);
  all.peer.gossip(all.node.url, m);
  EXPECT_TRUE(all.peer.next_gossip<wire::GossipAccept>()) << "it is busy for too long to be waited for";
}

TEST(StockPeers, OneThatWeToldBusyIsNotAskedWithinItsInterval) {
  Net net;
  GossipNode node(net, "node");
  node.builder.config.k2_gossip = {};
  node.builder.config.k2_gossip.max_concurrent_accepted_rounds = 1;
  node.quiet();
  Scripted first(net, "first"), stock(net, "stock");
  first.gossip(node.url, initiate("first"));
  ASSERT_TRUE(first.next_gossip<wire::GossipAccept>());
  stock.gossip(node.url, initiate("stock"));
  ASSERT_TRUE(stock.next_gossip<wire::GossipBusy>());
  node.knows(make_agent(7), stock.url);
  ASSERT_TRUE(node.join(make_agent(1)));
  net.world.run_for(299s);
  EXPECT_TRUE(stock.gossips.empty()) << "it counts from its last attempt";
  EXPECT_TRUE(net.world.run_until([&] { return !stock.gossips.empty(); }, 200s));
}

TEST(OurPeers, ALargeOpBeforeManySmallOnesDoesNotEndTheNaming) {
  WithPeer<> both([](K2GossipConfig& c) { c = {}; });
  auto& [net, node, peer] = both;
  // As many small ops as make the limit of ids cut, behind an op that is larger than what is left of the bytes then.
  const auto large = node.add_ops(1, 1, 30U << 20);
  net.world.run_for(1ms);
  node.add_ops(2, 300'000, 32);
  auto m = initiate();
  m.abilities = wire::kQuickRounds;
  m.max_op_data_bytes = 100U << 20;
  peer.gossip(node.url, m);
  const auto accept = peer.next_gossip<wire::GossipAccept>();
  ASSERT_TRUE(accept);
  ASSERT_FALSE(accept->new_ops.empty()) << "nothing would be named, for ever";
  EXPECT_EQ(accept->new_ops[0], large[0].bytes());
  EXPECT_GT(accept->updated_new_since, m.new_since);
}

TEST(OurPeers, MayComeAgainAtOnceAndAreBusyAfterABurst) {
  WithPeer<> both;
  auto& [net, node, peer] = both;
  int accepted = 0;
  for (int i = 0; i < 12; ++i) {
    auto m = initiate("s" + std::to_string(i));
    m.abilities = wire::kQuickRounds;
    accepted += round_of(node, peer, m) ? 1 : 0;
  }
  EXPECT_EQ(accepted, 8);
  EXPECT_EQ(node.stats().busy_sent, 4U);
  EXPECT_EQ(node.stats().too_soon, 0U);
}

TEST(OurPeers, AreToldWhenTheLimitCutAndAskAgainAfterASecond) {
  Net net;
  GossipNode giver(net, "giver"), taker(net, "taker");
  for (auto* node : {&giver, &taker}) {
    node->builder.config.k2_gossip = {};
    node->builder.config.k2_gossip.max_gossip_op_bytes = 3'000;
    node->quiet();
  }
  for (std::uint64_t i = 0; i < 100; ++i) {
    giver.add_ops(i, 1, 100);
    net.world.run_for(1ms);
  }
  taker.knows(make_agent(1), giver.url);
  ASSERT_TRUE(giver.join(make_agent(1)));
  ASSERT_TRUE(taker.join(make_agent(2)));
  ASSERT_TRUE(net.world.run_until([&] { return taker.held() == 100; }, 6s));
  net.world.run_for(100ms);
  const auto rounds = taker.stats().completed;
  EXPECT_GE(rounds, 4U) << "3,000 of 10,000 bytes in each";
  net.world.run_for(100s);
  EXPECT_EQ(taker.stats().completed, rounds) << "and then there is no reason for more";
}

TEST(OurPeers, RepeatedRequestsComeFromTheAllowanceOfNewcomers) {
  WithPeer<> both([](K2GossipConfig& c) { c.max_request_gossip_op_bytes = 10'000; });
  auto& [net, node, peer] = both;
  node.add_ops(1, 80, 100);
  std::size_t named = 0;
  for (int i = 0; i < 8; ++i) {
    auto m = initiate("s" + std::to_string(i));
    m.abilities = wire::kQuickRounds;
    const auto accept = round_of(node, peer, m);
    ASSERT_TRUE(accept);
    named += accept->new_ops.size();
  }
  EXPECT_LE(named, 80U + 100U);
  EXPECT_GE(named, 80U + 50U);
}

/// O2. Others may use up the allowance as often as they like.
TEST(OurPeers, AnAllowanceThatIsUsedUpPutsOffNoComparisonThatTheyBegin) {
  WithPeer<> both([](K2GossipConfig& c) { c.max_request_gossip_op_bytes = 10'000; });
  auto& [net, node, peer] = both;
  node.add_ops(1, 80, 100);
  for (int i = 0; i < 8; ++i) {
    auto m = initiate("s" + std::to_string(i));
    m.abilities = wire::kQuickRounds;
    const auto accept = round_of(node, peer, m);
    ASSERT_TRUE(accept);
    EXPECT_EQ(accept->more_ops, i > 0);
    EXPECT_TRUE(accept->snapshot) << i;
  }
}

TEST(OurPeers, AnAllowanceThatIsUsedUpPutsOffNoComparisonThatWeBegin) {
  Net net;
  GossipNode node(net, "node");
  node.builder.config.k2_gossip = {};
  node.builder.config.k2_gossip.max_request_gossip_op_bytes = 10'000;
  node.quiet();
  node.add_ops(1, 80, 100);
  Scripted peer(net, "peer");
  node.knows(make_agent(7), peer.url);
  ASSERT_TRUE(node.join(make_agent(1)));
  for (int i = 0; i < 6; ++i) {
    const auto m = await_initiate(net, peer);
    ASSERT_TRUE(m) << i;
    wire::GossipAccept accept;
    accept.session_id = m->session_id;
    accept.arc_set = full_set();
    accept.max_op_data_bytes = 1U << 20;  // all from the beginning, again and again
    accept.abilities = wire::kQuickRounds;
    // There is more to come, so the next round follows.
    accept.more_ops = true;
    accept.new_ops = as_bytes_list(testing::ids_of(testing::make_ops(*make_prefix_policy(), 500, 1)));
    SectorSet full;
    full.add(DhtArc::full());
    accept.snapshot = to_wire(dht::DhtModel(node.runtime->wall_now()).minimal(full));
    peer.gossip(node.url, accept);
    const auto diff = peer.next_gossip<wire::GossipDiscSectorsDiff>();
    ASSERT_TRUE(diff) << i;
    EXPECT_LE(diff->accept_response.new_ops.size(), i == 0 ? 80U : 50U);
    peer.gossip(node.url, wire::GossipTerminate{m->session_id, Bytes::copy_of("enough")});
  }
}

/// O3. Where more is stored than a round may name, each list is cut off.
TEST(OurPeers, AfterThreeListsThatWereCutOffARoundCompares) {
  WithPeer<> both([](K2GossipConfig& c) { c.max_request_gossip_op_bytes = 1'000; });
  auto& [net, node, peer] = both;
  node.add_ops(1, 200, 100);
  Timestamp since;
  for (int i = 0; i < 8; ++i) {
    auto m = initiate("s" + std::to_string(i));
    m.abilities = wire::kQuickRounds;
    m.new_since = since;
    const auto accept = round_of(node, peer, m);
    ASSERT_TRUE(accept);
    since = accept->updated_new_since;
    const bool is_due = i % 4 == 3;
    EXPECT_EQ(accept->snapshot.has_value(), is_due) << i;
    EXPECT_EQ(accept->new_ops.size(), is_due ? 5U : 10U) << "half is left to the comparison";
  }
}

}  // namespace
}  // namespace kitsune2::node_test
