// The publish module: sending, receiving, turns and bounds.
#include <gtest/gtest.h>

#include "kitsune2/publish.hpp"
#include "support/fake_fetch.hpp"
#include "unit/node/node_harness.hpp"
#include "wire/protobuf.hpp"

namespace kitsune2::node_test {
namespace {

Result<void> publish(Net& net, SimNode& from, const std::vector<OpId>& ids, const Url& to) {
  return await<void>(net.world, [&](auto done) { from.space->publish().publish_ops(ids, to, done); });
}

/// The same info with one bit of its signature changed.
std::string forged(const AgentInfoPtr& info) {
  std::string json = info->encode();
  const auto at = json.rfind("\"signature\":\"") + 13;
  json[at] = json[at] == 'A' ? 'B' : 'A';
  return json;
}

// Reference: core_publish::test::published_ops_can_be_retrieved.
TEST(CorePublish, PublishedOpsAreFetched) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  a.start();
  b.start();
  const auto ids = a.add_ops(1, 100, 200);
  ASSERT_TRUE(publish(net, a, ids, b.url));
  ASSERT_TRUE(net.world.run_until([&] { return b.held() == 100; }, 10s));
  EXPECT_TRUE(b.lacking(ids).empty());
  EXPECT_EQ(a.space->publish().stats().ops_sent, 100U);
  EXPECT_EQ(b.space->publish().stats().ops_received, 100U);
}

// Reference: core_publish::message_handler::test::publish_ops: the sender is the source.
TEST(CorePublish, TheSenderBecomesTheSource) {
  Net net;
  SimNode b(net, "b");
  b.start();
  Scripted peer(net, "peer");
  const auto ids = testing::ids_of(testing::make_ops(*make_prefix_policy(), 1, 3));
  peer.send(b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, ids));
  const auto state = b.space->fetch().state_summary();
  ASSERT_EQ(state.pending_requests.size(), 3U);
  for (const auto& id : ids) EXPECT_EQ(state.pending_requests.at(id), std::vector<Url>{peer.url});
  EXPECT_FALSE(peer.fetch_messages.empty()) << "and it is asked";
}

// Reference: core_publish::test::publish_to_invalid_url_does_not_impede_subsequent_publishes.
TEST(CorePublish, AnUnreachablePeerDoesNotImpedeOthers) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  a.start();
  b.start();
  const auto ids = a.add_ops(1, 2);
  EXPECT_EQ(publish(net, a, ids, MemoryNetwork::url_of("nobody")).error().code, Errc::peer_unresponsive);
  EXPECT_EQ(a.space->publish().stats().send_failures, 1U);
  ASSERT_TRUE(publish(net, a, ids, b.url));
  EXPECT_TRUE(net.world.run_until([&] { return b.held() == 2; }, 10s));
}

// Reference: core_publish::test::published_agent_can_be_retrieved.
TEST(CorePublish, PublishedAgentsAreStored) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  a.start();
  b.start();
  auto agent = make_agent(1);
  const auto info = AgentInfoBuilder{.url = a.url, .storage_arc = DhtArc(42, UINT32_MAX / 13)}.sign(*agent);
  ASSERT_TRUE(await<void>(net.world, [&](auto done) { a.space->publish().publish_agent(info, b.url, done); }));
  net.world.run_ready();
  ASSERT_TRUE(b.info_of(agent));
  EXPECT_EQ(b.info_of(agent)->encode(), info->encode());
  EXPECT_EQ(a.space->publish().stats().agents_sent, 1U);
}

// Reference: core_publish::test::invalid_agent_is_not_inserted_into_peer_store_and_subsequent_publishes_succeed.
TEST(CorePublish, BadAgentsAreCountedAndTheConnectionStays) {
  Net net;
  SimNode b(net, "b");
  b.start();
  Scripted peer(net, "peer");
  auto agent = make_agent(1);
  const AgentInfoBuilder good{.url = peer.url};
  const auto send = [&](const std::string& json) {
    peer.send(b.url, kPublishModule, wire::encode_publish_agent(json));
  };
  const auto start = good.created_at;
  send(forged(good.sign(*agent)));
  send("{}");
  EXPECT_EQ(b.space->publish().stats().agents_invalid, 2U);
  AgentInfoBuilder other = good;
  other.space = SpaceId::from_text("elsewhere");
  send(other.sign(*agent)->encode());
  AgentInfoBuilder expired = good;
  expired.created_at = start - 20min;
  send(expired.sign(*agent)->encode());
  AgentInfoBuilder future = good;
  future.created_at = start + 3min + 1us;
  send(future.sign(*agent)->encode());
  AgentInfoBuilder eternal = good;
  eternal.lifetime = std::chrono::minutes(31);
  send(eternal.sign(*agent)->encode());
  EXPECT_EQ(b.space->publish().stats().agents_refused, 4U);
  EXPECT_FALSE(b.info_of(agent));
  AgentInfoBuilder edge = good;  // a clock that is just not too far ahead
  edge.created_at = start + 3min;
  send(edge.sign(*agent)->encode());
  EXPECT_TRUE(b.info_of(agent));
  EXPECT_EQ(b.space->publish().stats().agents_received, 7U);
  EXPECT_EQ(peer.disconnects, 0);
}

TEST(CorePublish, ReplayedInfosAreHarmless) {
  Net net;
  SimNode b(net, "b");
  b.start();
  Scripted peer(net, "peer"), thief(net, "thief");
  auto agent = make_agent(1);
  AgentInfoBuilder builder{.url = peer.url};
  const auto old = builder.sign(*agent);
  builder.url = MemoryNetwork::url_of("moved");
  builder.created_at = builder.created_at + 1min;
  const auto moved = builder.sign(*agent);
  builder.url.reset();
  builder.is_tombstone = true;
  builder.created_at = builder.created_at + 1min;
  const auto gone = builder.sign(*agent);
  const auto tell = [&](const AgentInfoPtr& info) {
    thief.send(b.url, kPublishModule, wire::encode_publish_agent(info->encode()));
  };
  tell(moved);
  ASSERT_TRUE(b.info_of(agent));
  for (int i = 0; i < 10; ++i) tell(old);
  EXPECT_EQ(b.info_of(agent)->encode(), moved->encode()) << "an older info does not send us to an old url";
  tell(gone);
  EXPECT_FALSE(b.info_of(agent));
  for (const auto& info : {old, moved}) tell(info);
  EXPECT_FALSE(b.info_of(agent)) << "nor is an agent that left brought back";
  // Beyond its bound nothing of it is accepted at all.
  net.world.run_for(40min);
  tell(moved);
  EXPECT_FALSE(b.info_of(agent));
}

// Reference: core_publish::message_handler::test::{decoding_error, invalid_message_type}.
TEST(CorePublish, NonsenseClosesTheConnection) {
  Net net;
  SimNode b(net, "b");
  b.start();
  const auto closes = [&](const char* name, const Bytes& data) {
    Scripted peer(net, name);
    peer.send(b.url, kPublishModule, data);
    net.world.run_for(1s);
    return peer.disconnects == 1;
  };
  EXPECT_TRUE(closes("p1", Bytes::copy_of("this is not a publish message")));
  const std::uint8_t type9[] = {0x08, 9, 0x12, 2, 'o', 'p'};
  EXPECT_TRUE(closes("p2", Bytes::copy_of(ByteView(type9))));
  const OpId empty_id;
  EXPECT_TRUE(closes("p3", wire::encode_publish_ops(Dialect::v0_2, std::span(&empty_id, 1))));
  EXPECT_FALSE(closes("p4", wire::encode_publish_ops(Dialect::v0_2, {})));
}

TEST(CorePublish, ALongPublishIsSplitAndSentInOrder) {
  Net net;
  SimNode a(net, "a");
  a.builder.config.core_publish.max_ids_per_message = 10;
  a.start();
  Scripted peer(net, "peer");
  const auto ids = testing::ids_of(testing::make_ops(*make_prefix_policy(), 1, 25));
  ASSERT_TRUE(publish(net, a, ids, peer.url));
  net.world.run_ready();
  ASSERT_EQ(peer.op_messages.size(), 3U);
  std::vector<OpId> heard;
  for (const auto& message : peer.op_messages) heard.insert(heard.end(), message.begin(), message.end());
  EXPECT_EQ(heard, ids);
  EXPECT_EQ(peer.op_messages[2].size(), 5U);
  ASSERT_TRUE(publish(net, a, {}, peer.url));
  EXPECT_EQ(peer.op_messages.size(), 3U) << "nothing to say";
}

TEST(CorePublish, StoppingCompletesPendingCalls) {
  Net net;
  SimNode a(net, "a");
  a.builder.config.core_publish.max_ids_per_message = 1;
  a.start();
  Scripted peer(net, "peer");
  net.network->set_links_to(peer.url, {.fail_sends = true, .fail_after = 10s});
  const auto ids = testing::ids_of(testing::make_ops(*make_prefix_policy(), 1, 3));
  testing::Outcome<void> outcome;
  a.space->publish().publish_ops(ids, peer.url, outcome.handler());
  a.space->publish().stop();
  ASSERT_TRUE(net.world.run_until(outcome.has_come(), 1min));
  EXPECT_FALSE(outcome.result());
  EXPECT_EQ(publish(net, a, ids, peer.url).error().code, Errc::cancelled);
  const auto info = AgentInfoBuilder{}.sign(*make_agent(1));
  EXPECT_EQ(
      await<void>(net.world, [&](auto done) { a.space->publish().publish_agent(info, peer.url, done); }).error().code,
      Errc::cancelled);
}

TEST(CorePublish, InfosOfOtherSpacesAreNotSent) {
  Net net;
  SimNode a(net, "a");
  a.start();
  const auto send = [&](AgentInfoPtr info) {
    return await<void>(net.world, [&](auto done) { a.space->publish().publish_agent(info, a.url, done); });
  };
  EXPECT_EQ(send(nullptr).error().code, Errc::invalid_argument);
  EXPECT_EQ(send(AgentInfoBuilder{.space = SpaceId::from_text("other"), .url = std::nullopt}.sign(*make_agent(1)))
                .error()
                .code,
            Errc::invalid_argument);
}

TEST(CorePublish, AFloodOfAgentInfosIsNotLookedAt) {
  Net net;
  SimNode b(net, "b");
  b.start();
  Scripted peer(net, "flood"), honest(net, "honest");
  const auto info = AgentInfoBuilder{.url = peer.url}.sign(*make_agent(1));
  for (int i = 0; i < 1000; ++i) peer.send(b.url, kPublishModule, wire::encode_publish_agent(info->encode()));
  EXPECT_EQ(b.space->publish().stats().agents_rate_limited, 1000U - 256U);
  // Nobody else pays for it, and the peer is heard again later.
  auto other = make_agent(2);
  const auto honest_info = AgentInfoBuilder{.url = honest.url}.sign(*other);
  honest.send(b.url, kPublishModule, wire::encode_publish_agent(honest_info->encode()));
  EXPECT_TRUE(b.info_of(other));
  net.world.run_for(2s);
  for (int i = 0; i < 100; ++i) peer.send(b.url, kPublishModule, wire::encode_publish_agent(info->encode()));
  EXPECT_EQ(b.space->publish().stats().agents_rate_limited, 1000U - 256U + 100U - 32U);
}

/// Addresses are cheap enough to have many.
TEST(CorePublish, OfNewcomersTogetherSoManyInfosAreLookedAtWhereverTheyComeFrom) {
  Net net;
  SimNode b(net, "b");
  b.builder.address_group = [](const Url& peer) { return std::optional<AddressGroup>(peer.to_string()); };
  b.start();
  std::deque<Scripted> peers;
  for (std::uint64_t i = 0; i < 8; ++i) {
    peers.emplace_back(net, "fresh" + std::to_string(i));
    const auto info = AgentInfoBuilder{.url = peers.back().url}.sign(*make_agent(i));
    for (int k = 0; k < 200; ++k) peers.back().send(b.url, kPublishModule, wire::encode_publish_agent(info->encode()));
  }
  EXPECT_EQ(b.space->publish().stats().agents_rate_limited, 1600U - 1024U);
}

/// What is left undone must not be free: a peer that goes on is put aside.
TEST(CorePublish, InfosBeyondTheRateAreCharged) {
  Net net;
  SimNode b(net, "b");
  b.builder.config.peer_budget.peer_burst_ms = 100;
  b.builder.config.peer_budget.peer_ms_per_second = 1;
  b.start();
  Scripted peer(net, "flood");
  const auto info = AgentInfoBuilder{.url = peer.url}.sign(*make_agent(1));
  for (int i = 0; i < 100'000 && peer.disconnects == 0; ++i)
    peer.send(b.url, kPublishModule, wire::encode_publish_agent(info->encode()));
  EXPECT_EQ(peer.disconnects, 1);
}

TEST(CorePublish, AFloodOfOpIdsIsBoundedWhileTheStoreIsBusy) {
  Net net;
  SimNode b(net, "b");
  b.builder.fetch = [](const ModuleContext& c) -> Result<std::shared_ptr<Fetch>> {
    // A fetch module that never answers.
    struct Stuck : FakeFetch {
      explicit Stuck(Runtime& r) : runtime(r) {}
      void request_ops(std::vector<OpId> ids, const Url&, Handler<> done) override {
        waiting += ids.size();
        handlers.push_back(std::move(done));
      }
      std::uint64_t pending_ops() const override { return waiting; }
      void stop(std::function<void()> done) override {
        for (auto& handler : handlers) handler(make_error(Errc::cancelled, ""));
        runtime.post(std::move(done));
      }
      Runtime& runtime;
      std::uint64_t waiting = 0;
      std::vector<Handler<>> handlers;
    };
    return std::shared_ptr<Fetch>(std::make_shared<Stuck>(*c.runtime));
  };
  b.start();
  Scripted peer(net, "flood"), honest(net, "honest");
  std::vector<OpId> ids;
  for (std::uint32_t i = 0; i < 400'000; ++i) ids.emplace_back(as_bytes("op " + std::to_string(i)));
  const auto message = wire::encode_publish_ops(Dialect::v0_2, ids);
  for (int i = 0; i < 5; ++i) peer.send(b.url, kPublishModule, message);
  EXPECT_EQ(b.space->fetch().pending_ops(), 4U * 4096U) << "pieces";
  EXPECT_EQ(b.space->publish().stats().ops_refused, 1'200'000U) << "two messages are within 2^20 ids";
  honest.send(b.url, kPublishModule, message);
  EXPECT_EQ(b.space->publish().stats().ops_refused, 1'200'000U);
  EXPECT_TRUE(b.stop());
}

// A million ids of one peer are looked up in pieces: those of another one do not wait for all of them.
TEST(CorePublish, PeersThatAnnounceOpsTakeTurns) {
  Net net;
  SimNode b(net, "b");
  std::vector<std::pair<Url, std::size_t>> pieces;
  b.builder.fetch = [&pieces](const ModuleContext& c) -> Result<std::shared_ptr<Fetch>> {
    struct Slow : FakeFetch {
      Slow(Runtime& r, std::vector<std::pair<Url, std::size_t>>& p) : runtime(r), pieces(p) {}
      void request_ops(std::vector<OpId> ids, const Url& source, Handler<> done) override {
        pieces.emplace_back(source, ids.size());
        runtime.schedule_after(10ms, [done = std::move(done)] { done(Result<void>()); });
      }
      void stop(std::function<void()> done) override { runtime.post(std::move(done)); }
      Runtime& runtime;
      std::vector<std::pair<Url, std::size_t>>& pieces;
    };
    return std::shared_ptr<Fetch>(std::make_shared<Slow>(*c.runtime, pieces));
  };
  b.start();
  Scripted flood(net, "flood"), honest(net, "honest");
  std::vector<OpId> ids;
  for (std::uint32_t i = 0; i < 100'000; ++i) ids.emplace_back(as_bytes("op " + std::to_string(i)));
  flood.send(b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, ids));
  ids.resize(10'000);
  honest.send(b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, ids));
  net.world.run_for(10s);
  std::size_t told = 0, before = 0;
  for (const auto& [from, count] : pieces) {
    EXPECT_LE(count, 4096U);
    told += count;
    if (from == honest.url) before = told;
  }
  EXPECT_EQ(told, 110'000U);
  EXPECT_LE(before, 10'000U + 7U * 4096U) << "the last of the honest peer's pieces";
  EXPECT_EQ(b.space->publish().stats().ops_refused, 0U);
}

// Announcing ids costs nothing. While peers are being served, they keep most of the node.
TEST(CorePublish, WhilePeersAreServedTheLookUpOfIdsRests) {
  const auto pieces_in = [](bool serving, Duration time) {
    Net net;
    SimNode b(net, "b");
    std::size_t pieces = 0, most_at_once = 0;
    b.builder.fetch = [&](const ModuleContext& c) -> Result<std::shared_ptr<Fetch>> {
      struct Slow : FakeFetch {
        void request_ops(std::vector<OpId>, const Url&, Handler<> done) override {
          ++*pieces;
          *most = std::max(*most, ++at_once);
          runtime->schedule_after(10ms, [this, done = std::move(done)] {
            --at_once;
            done(Result<void>());
          });
        }
        FetchLoad load(const Url&) const override {
          FetchLoad out;
          out.serving = serving;
          return out;
        }
        void stop(std::function<void()> done) override { runtime->post(std::move(done)); }
        Runtime* runtime = nullptr;
        std::size_t *pieces = nullptr, *most = nullptr;
        std::size_t at_once = 0;
        bool serving = false;
      };
      auto slow = std::make_shared<Slow>();
      slow->runtime = c.runtime;
      slow->pieces = &pieces;
      slow->most = &most_at_once;
      slow->serving = serving;
      return std::shared_ptr<Fetch>(std::move(slow));
    };
    b.start();
    Scripted flood(net, "flood");
    std::vector<OpId> ids;
    for (std::uint32_t i = 0; i < 1'000'000; ++i) ids.emplace_back(as_bytes("op " + std::to_string(i)));
    flood.send(b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, ids));
    net.world.run_for(time);
    EXPECT_EQ(most_at_once, serving ? 1U : 4U);
    return pieces;
  };
  EXPECT_EQ(pieces_in(false, 10s), 245U) << "all";
  const std::size_t served = pieces_in(true, 1s);
  EXPECT_GE(served, 15U);
  EXPECT_LE(served, 18U) << "10 ms of work, 50 ms of rest";
  EXPECT_EQ(pieces_in(true, 20s), 245U) << "none is lost";
}

TEST(CorePublish, OfferedOpsHaveABoundInMemoryAndEachPeerAShareOfIt) {
  Net net;
  SimNode b(net, "b");
  b.builder.config.core_fetch.max_offered_bytes = 5 * 128U * 40'000;  // newcomers have a fifth
  b.start();
  const auto tell = [&](Scripted& peer, std::uint32_t first, std::uint32_t count, std::size_t id_bytes) {
    std::vector<OpId> ids;
    for (std::uint32_t i = first; i < first + count; ++i) {
      std::string id = "op " + std::to_string(i);
      id.resize(id_bytes, '.');
      ids.emplace_back(as_bytes(id));
    }
    peer.send(b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, ids));
    net.world.run_for(1s);
  };
  Scripted one(net, "one"), two(net, "two"), three(net, "three");
  tell(one, 0, 100'000, 32);
  // A quarter of 40,000; what was looked up at once comes in addition.
  EXPECT_EQ(b.space->fetch().pending_ops(), 4U * 4096U);
  tell(two, 200'000, 4096, 32);
  EXPECT_EQ(b.space->fetch().pending_ops(), 5U * 4096U) << "another peer has a share of its own";
  tell(three, 300'000, 2000, 1000);
  EXPECT_EQ(b.space->fetch().pending_ops(), 5U * 4096U) << "long ids count";
  EXPECT_EQ(b.space->publish().stats().ops_refused, 100'000U - 4U * 4096U + 2000U);
  // What the application wants is another matter.
  const auto own = testing::ids_of(testing::make_ops(*make_prefix_policy(), 1'000'000, 50'000));
  EXPECT_TRUE(await<void>(net.world, [&](auto done) { b.space->fetch().request_ops(own, one.url, done); }));
  EXPECT_EQ(b.space->fetch().pending_ops(), 5U * 4096U + 50'000U);
}

/// Ids of ops that nobody holds.
std::vector<OpId> ids_from(std::uint64_t first, std::uint64_t count) {
  std::vector<OpId> ids;
  for (std::uint64_t i = first; i < first + count; ++i) {
    std::string id = "op " + std::to_string(i);
    id.resize(32, '.');
    ids.emplace_back(as_bytes(id));
  }
  return ids;
}

/// What strangers name is kept in memory and on the disk until it is given up: it took 1 GiB and 266 MiB once.
TEST(CorePublish, OffersOfStrangersHaveAFifthOfTheRoomAndAPeerThatHasSentOpsTheRest) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  b.builder.config.core_fetch.max_offered_bytes = 128U * 50'000;
  a.start();
  b.start();
  ASSERT_TRUE(publish(net, a, a.add_ops(1, 100), b.url));
  ASSERT_TRUE(net.world.run_until([&] { return b.held() == 100; }, 10s));
  std::vector<std::unique_ptr<Scripted>> strangers;
  for (std::uint64_t i = 0; i < 100; ++i) {
    strangers.push_back(std::make_unique<Scripted>(net, "stranger" + std::to_string(i)));
    strangers.back()->send(b.url, kPublishModule,
                           wire::encode_publish_ops(Dialect::v0_2, ids_from(1'000'000 * (i + 1), 500)));
    net.world.run_for(10ms);
  }
  EXPECT_LE(b.space->fetch().pending_ops(), 10'000U);
  EXPECT_GE(b.space->fetch().pending_ops(), 7'000U);
  const auto before = b.space->fetch().pending_ops();
  ASSERT_TRUE(publish(net, a, ids_from(0, 8'000), b.url));
  net.world.run_for(10ms);
  EXPECT_EQ(b.space->fetch().pending_ops(), before + 8'000);
}

TEST(CorePublish, AKnownPeerThatFillsItsShareLeavesNewcomersTheirs) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  b.builder.config.core_fetch.max_offered_bytes = 128U * 50'000;
  a.start();
  b.start();
  ASSERT_TRUE(publish(net, a, a.add_ops(1, 100), b.url));
  ASSERT_TRUE(net.world.run_until([&] { return b.held() == 100; }, 10s));
  // A quarter of all the room, which is more than the fifth that newcomers have.
  ASSERT_TRUE(publish(net, a, ids_from(0, 12'000), b.url));
  net.world.run_for(10ms);
  ASSERT_EQ(b.space->fetch().pending_ops(), 12'000U);
  Scripted stranger(net, "stranger");
  stranger.send(b.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, ids_from(1'000'000, 1)));
  net.world.run_for(10ms);
  EXPECT_EQ(b.space->fetch().pending_ops(), 12'001U);
}

/// A sender learns only that a message was passed to the network: what was lost was recorded nowhere.
TEST(CorePublish, APublishThatMayBeLostIsReported) {
  Net net;
  SimNode a(net, "a");
  a.start();
  Scripted peer(net, "peer"), later(net, "later"), nothing(net, "nothing");
  std::vector<Url> told;
  auto subscription = a.space->publish().on_unconfirmed([&](const Url& url) { told.push_back(url); });
  const auto ids = testing::ids_of(testing::make_ops(*make_prefix_policy(), 1, 3));
  const auto nobody = MemoryNetwork::url_of("nobody");
  EXPECT_FALSE(publish(net, a, ids, nobody));
  EXPECT_EQ(told, std::vector<Url>{nobody}) << "it failed";
  told.clear();
  ASSERT_TRUE(publish(net, a, ids, peer.url));
  ASSERT_TRUE(publish(net, a, ids, later.url));
  net.world.run_for(1min);
  nothing.send(a.url, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, {}));
  for (const auto& url : {peer.url, nothing.url}) net.network->cut(a.url, url, true);
  net.world.run_for(1s);
  EXPECT_EQ(told, std::vector<Url>{peer.url}) << "its connection was lost within two minutes";
  told.clear();
  net.world.run_for(1min);
  net.network->cut(a.url, later.url, true);
  net.world.run_for(1s);
  EXPECT_TRUE(told.empty()) << "after so long it has arrived";
  subscription.reset();
  EXPECT_FALSE(publish(net, a, ids, nobody));
  EXPECT_TRUE(told.empty()) << "nobody listens";
}

}  // namespace
}  // namespace kitsune2::node_test
