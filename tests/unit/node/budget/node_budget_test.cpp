// The budget of a whole node: what its modules charge, who is sent away, and who is heard again.
#include <gtest/gtest.h>

#include "kitsune2/budget.hpp"
#include "node/budget/node_peer_budget.hpp"
#include "unit/node/node_harness.hpp"

namespace kitsune2::node_test {
namespace {

std::vector<OpId> made_up(std::uint64_t first, std::size_t count) {
  return testing::ids_of(testing::make_ops(*make_prefix_policy(), first, count));
}

/// A node whose peers have little.
struct Frugal {
  explicit Frugal(bool sees_addresses = false) {
    auto& budget = b.builder.config.peer_budget;
    budget.peer_ms_per_second = 1;
    budget.peer_burst_ms = 10;
    budget.newcomers_ms_per_second = 1;
    budget.newcomers_burst_ms = 40;
    budget.group_ms_per_second = 1;
    budget.group_burst_ms = 40;
    budget.first_aside_ms = 60'000;
    if (sees_addresses) {
      b.builder.address_group = [](const Url&) { return std::optional<AddressGroup>("10.0.0.1"); };
    }
    b.start();
  }
  /// Sends ids until the node closes the connection. Returns how many it sent.
  std::size_t flood(Scripted& peer) {
    std::size_t sent = 0;
    while (peer.disconnects == 0 && sent < 1'000'000) {
      peer.send(b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, made_up(sent, 2'000)));
      sent += 2'000;
    }
    return sent;
  }
  Net net;
  SimNode b{net, "b"};
};

TEST(NodeBudget, APeerThatStaysOverItsBudgetIsClosedAndNotHeardAgain) {
  Frugal w;
  Scripted peer(w.net, "peer");
  EXPECT_LT(w.flood(peer), 1'000'000U);
  EXPECT_EQ(w.b.kitsune->budget().stats().put_aside, 1U);
  const auto received = w.b.space->publish().stats().ops_received;
  peer.send(w.b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, made_up(1, 10)));
  EXPECT_EQ(w.b.space->publish().stats().ops_received, received);
  EXPECT_GT(w.b.kitsune->budget().stats().refused, 0U) << "it tried again";
  w.net.world.run_for(61s);
  peer.send(w.b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, made_up(1, 10)));
  EXPECT_EQ(w.b.space->publish().stats().ops_received, received + 10) << "not for ever";
}

TEST(NodeBudget, ItsAgentIsNotHeardUnderAnotherUrlEither) {
  Frugal w;
  const auto agent = testing::make_agent(77);
  Scripted peer(w.net, "peer"), again(w.net, "again"), other(w.net, "other");
  const auto info_at = [&](const Url& url) {
    return AgentInfoBuilder{.space = kSpace, .created_at = w.b.runtime->wall_now(), .url = url}.sign(*agent);
  };
  w.b.space->peer_store().insert({info_at(peer.url)});
  w.flood(peer);
  w.net.world.run_for(1ms);
  w.b.space->peer_store().insert({info_at(again.url)});
  const auto received = w.b.space->publish().stats().ops_received;
  again.send(w.b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, made_up(1, 10)));
  EXPECT_EQ(w.b.space->publish().stats().ops_received, received);
  other.send(w.b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, made_up(1, 10)));
  EXPECT_EQ(w.b.space->publish().stats().ops_received, received + 10);
}

TEST(NodeBudget, OfAPeerThatIsConnectedTheAddressIsAskedUntilItIsKnown) {
  Frugal w;
  int asked = 0;
  std::optional<AddressGroup> told;
  const Url peer = MemoryNetwork::url_of("peer");
  NodePeerBudget budget(*w.b.runtime, PeerBudgetConfig(),
                        {.agents_at = [](const Url&) { return std::vector<AgentId>(); },
                         .disconnect = [](const Url&, const std::string&) {},
                         .address_group =
                             [&](const Url&) {
                               ++asked;
                               return told;
                             }});
  w.b.runtime->post([&] {
    for (int i = 0; i < 2; ++i) EXPECT_FALSE(budget.address_group(peer));
    budget.on_connect(peer);
    for (int i = 0; i < 2; ++i) EXPECT_FALSE(budget.address_group(peer)) << "the relay has not told it yet";
    told = "10.0.0.1";
    for (int i = 0; i < 5; ++i) EXPECT_EQ(budget.address_group(peer), told);
    EXPECT_EQ(asked, 5);
    budget.on_disconnect(peer);
    told = "10.0.0.2";
    for (int i = 0; i < 2; ++i) EXPECT_EQ(budget.address_group(peer), told);
    EXPECT_EQ(asked, 7);
  });
  w.net.world.run_for(1ms);
  EXPECT_EQ(asked, 7);
}

TEST(NodeBudget, NewcomersOfOneAddressAreHeldUpAndWhoWasUsefulIsNot) {
  Frugal w(true);
  SimNode honest(w.net, "honest");
  honest.start();
  const auto ids = honest.add_ops(1, 50);
  ASSERT_TRUE(await<void>(w.net.world, [&](auto done) { honest.space->publish().publish_ops(ids, w.b.url, done); }));
  ASSERT_TRUE(w.net.world.run_until([&] { return w.b.held() == 50; }, 10s));
  EXPECT_TRUE(w.b.kitsune->budget().is_known(honest.url));
  std::deque<Scripted> peers;
  for (int i = 0; i < 60; ++i) {
    peers.emplace_back(w.net, "fresh" + std::to_string(i));
    peers.back().send(w.b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, made_up(10'000, 5'000)));
  }
  EXPECT_GT(w.b.kitsune->budget().stats().waits + w.b.kitsune->budget().stats().refused, 0U);
  const auto more = honest.add_ops(1'000, 50);
  ASSERT_TRUE(await<void>(w.net.world, [&](auto done) { honest.space->publish().publish_ops(more, w.b.url, done); }));
  EXPECT_TRUE(w.net.world.run_until([&] { return w.b.held() == 100; }, 10s));
}

TEST(NodeBudget, WaitingWorkIsDoneLater) {
  Frugal w;
  Scripted peer(w.net, "peer");
  peer.send(w.b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, made_up(1, 6'000)));
  peer.send(w.b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, made_up(10'000, 4'000)));
  peer.send(w.b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, made_up(20'000, 1'000)));
  w.net.world.run_for(1ms);
  EXPECT_LT(w.b.space->fetch().pending_ops(), 11'000U);
  EXPECT_TRUE(w.net.world.run_until([&] { return w.b.space->fetch().pending_ops() == 11'000; }, 1min));
  EXPECT_EQ(w.b.space->publish().stats().ops_refused, 0U);
}

}  // namespace
}  // namespace kitsune2::node_test
