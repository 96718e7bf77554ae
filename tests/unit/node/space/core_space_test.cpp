// One space: agents that join and leave, signing, moving peers, stopping.
#include "kitsune2/space.hpp"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "kitsune2/testing/fault_store.hpp"
#include "unit/node/node_harness.hpp"
#include "wire/fetch_messages.hpp"

namespace kitsune2::node_test {
namespace {

// Reference: core_space::test::space_local_agent_join_leave.
TEST(CoreSpace, LocalAgentsJoinAndLeave) {
  Net net;
  SimNode node(net, "a");
  node.start();
  auto bob = make_agent(1), ned = make_agent(2);
  ASSERT_TRUE(node.join(bob));
  ASSERT_TRUE(node.join(ned));
  EXPECT_EQ(node.space->peer_store().get_all().size(), 2U);
  EXPECT_EQ(node.space->local_agent_store().get_all().size(), 2U);
  const auto info = node.info_of(bob);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->info().url, node.url);
  EXPECT_EQ(info->info().expires_at - info->info().created_at, 20min);

  node.leave(bob->agent());
  EXPECT_EQ(node.space->peer_store().get_all().size(), 1U);
  ASSERT_EQ(node.bootstrap->puts.size(), 3U);
  const auto& tombstone = node.bootstrap->puts.back().second->info();
  EXPECT_TRUE(tombstone.is_tombstone);
  EXPECT_EQ(tombstone.agent, bob->agent());
  EXPECT_FALSE(tombstone.url);
  EXPECT_TRUE(tombstone.storage_arc.empty());
  node.leave(bob->agent());  // has left already
  EXPECT_EQ(node.bootstrap->puts.size(), 3U);
  // It may return, even at the same instant.
  ASSERT_TRUE(node.join(bob));
  EXPECT_TRUE(node.info_of(bob));
}

// Reference: core_space::test::space_notify_send_recv.
TEST(CoreSpace, NotifySendAndReceive) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  a.start();
  b.start();
  EXPECT_EQ(a.app->urls, std::vector<Url>{a.url});
  const auto notify = [&](SimNode& from, const Url& to, const std::string& text) {
    return await<void>(net.world, [&](auto done) { from.space->send_notify(to, Bytes::copy_of(text), done); });
  };
  ASSERT_TRUE(notify(a, b.url, "hello"));
  net.world.run_ready();
  ASSERT_EQ(b.app->notifies.size(), 1U);
  EXPECT_EQ(b.app->notifies[0].from, a.url);
  EXPECT_EQ(b.app->notifies[0].space, kSpace);
  EXPECT_EQ(b.app->notifies[0].data.text(), "hello");
  ASSERT_TRUE(notify(b, a.url, "world"));
  net.world.run_ready();
  ASSERT_EQ(a.app->notifies.size(), 1U);
  EXPECT_EQ(a.app->notifies[0].data.text(), "world");
  EXPECT_EQ(notify(a, MemoryNetwork::url_of("nobody"), "x").error().code, Errc::peer_unresponsive);
}

// Reference: core_space::test::space_local_agent_periodic_re_sign_and_bootstrap.
TEST(CoreSpace, ReSignsPeriodicallyAndPutsToBootstrap) {
  Net net;
  SimNode node(net, "a");
  node.builder.config.core_space.re_sign_freq_ms = 5;
  node.builder.config.core_space.re_sign_expire_time_ms = 3'600'000;  // always about to expire
  node.start();
  ASSERT_TRUE(node.join(make_agent(1)));
  net.world.run_for(22ms);
  EXPECT_EQ(node.bootstrap->puts.size(), 5U);
}

TEST(CoreSpace, SignsAnewWhatIsTooOldForTheServer) {
  Net net;
  SimNode node(net, "a");
  node.start();
  auto bob = make_agent(1);
  ASSERT_TRUE(node.join(bob));
  ASSERT_EQ(node.bootstrap->puts.size(), 1U);
  net.world.run_for(4min);
  node.bootstrap->sign_again(make_agent(2)->agent());
  net.world.run_for(1s);
  EXPECT_EQ(node.bootstrap->puts.size(), 1U) << "no agent of this node";
  node.bootstrap->sign_again(bob->agent());
  net.world.run_for(1s);
  ASSERT_EQ(node.bootstrap->puts.size(), 2U);
  EXPECT_GE(node.bootstrap->puts[1].second->info().created_at,
            node.bootstrap->puts[0].second->info().created_at + 4min);
}

TEST(CoreSpace, ReSignsFiveMinutesBeforeExpiryAtTheNextCheck) {
  Net net;
  SimNode node(net, "a");
  node.start();
  const Time made = net.world.now();  // checks every 60 s from here
  net.world.run_for(90s);
  auto agent = make_agent(1);
  ASSERT_TRUE(node.join(agent));
  // Expires at 1:30 + 20:00; 5 minutes are left at 16:30; the next check is at 17:00.
  net.world.run_until(made + 17min - 1us);
  EXPECT_EQ(node.bootstrap->puts.size(), 1U);
  net.world.run_until(made + 17min);
  ASSERT_EQ(node.bootstrap->puts.size(), 2U);
  EXPECT_EQ(node.bootstrap->puts[1].first, made + 17min);
  EXPECT_EQ(node.info_of(agent), node.bootstrap->puts[1].second);
  // And so on.
  net.world.run_for(24h);
  EXPECT_TRUE(node.info_of(agent));
  EXPECT_EQ(node.bootstrap->puts.size(), 2U + 24 * 4);
}

TEST(CoreSpace, TheCheckFollowsTheConfiguration) {
  Net net;
  SimNode node(net, "a");
  node.start();
  ASSERT_TRUE(node.join(make_agent(1)));
  ASSERT_TRUE(node.kitsune->config().update(R"({"coreSpace":{"reSignFreqMs":1000,"reSignExpireTimeMs":1199000}})"));
  net.world.run_for(1s);  // 19:59 are left
  EXPECT_EQ(node.bootstrap->puts.size(), 2U);
}

// Reference: core_space::test::broadcast_new_agent_info_on_resign.
TEST(CoreSpace, BroadcastsNewInfosOnReSign) {
  Net net;
  SimNode node(net, "a");
  node.start();
  Scripted alice(net, "alice"), carol(net, "carol");
  auto known = make_agent(7), second = make_agent(8), elsewhere = make_agent(9), leaving = make_agent(10);
  node.space->peer_store().insert({AgentInfoBuilder{.url = alice.url}.sign(*known),
                                   AgentInfoBuilder{.url = alice.url}.sign(*second),  // the same node
                                   AgentInfoBuilder{.url = carol.url}.sign(*elsewhere),
                                   AgentInfoBuilder{}.sign(*leaving)});  // no url
  auto bob = make_agent(1);
  ASSERT_TRUE(node.join(bob));
  net.world.run_ready();
  ASSERT_EQ(alice.agents.size(), 1U);
  ASSERT_EQ(carol.agents.size(), 1U);
  EXPECT_EQ(alice.agents[0]->info().agent, bob->agent());
  EXPECT_EQ(alice.agents[0]->info().url, node.url);
  bob->set_cur_storage_arc(DhtArc::of_sectors(1, 2));
  net.world.run_ready();
  ASSERT_EQ(alice.agents.size(), 2U);
  EXPECT_EQ(alice.agents[1]->info().storage_arc, DhtArc::of_sectors(1, 2));
  node.leave(bob->agent());
  net.world.run_ready();
  ASSERT_EQ(alice.agents.size(), 3U);
  EXPECT_TRUE(alice.agents[2]->info().is_tombstone);
}

TEST(CoreSpace, ANewArcSignsOnceForSeveralChanges) {
  Net net;
  SimNode node(net, "a");
  node.start();
  auto agent = make_agent(1);
  agent->set_tgt_storage_arc(DhtArc::of_sectors(0, 9));
  agent->set_cur_storage_arc(DhtArc::none());
  ASSERT_TRUE(node.join(agent));
  EXPECT_EQ(node.info_of(agent)->info().storage_arc, DhtArc::none()) << "what it holds is not known yet";
  ASSERT_EQ(node.bootstrap->puts.size(), 1U);
  const auto first = node.bootstrap->puts[0].second->info().created_at;
  agent->set_cur_storage_arc(DhtArc::full());
  agent->set_cur_storage_arc(DhtArc::of_sectors(3, 4));
  agent->set_cur_storage_arc(DhtArc::of_sectors(3, 4));
  net.world.run_ready();
  ASSERT_EQ(node.bootstrap->puts.size(), 2U);
  EXPECT_EQ(node.info_of(agent)->info().storage_arc, DhtArc::of_sectors(3, 4));
  // At the same instant, and still newer.
  EXPECT_GT(node.bootstrap->puts[1].second->info().created_at, first);
  node.leave(agent->agent());
  agent->set_cur_storage_arc(DhtArc::full());
  net.world.run_ready();
  EXPECT_EQ(node.bootstrap->puts.size(), 3U) << "an agent that has left is not signed";
}

TEST(CoreSpace, AnAgentThatJoinsHoldsWhatItsHostSaysAsFarAsItWantsTo) {
  Net net;
  SimNode node(net, "a");
  node.start();
  const auto of = DhtArc::of_sectors;
  const std::vector<std::array<DhtArc, 3>> cases{{DhtArc::none(), of(3, 9), DhtArc::none()},
                                                 {of(3, 9), of(3, 9), of(3, 9)},
                                                 {of(4, 2), of(3, 9), of(4, 2)},
                                                 {DhtArc::full(), of(3, 9), of(3, 9)},
                                                 {of(0, 4), of(3, 9), DhtArc::none()},
                                                 {DhtArc::full(), DhtArc::none(), DhtArc::none()}};
  for (const auto& [said, target, announced] : cases) {
    auto agent = make_agent(1);
    agent->set_cur_storage_arc(said);
    agent->set_tgt_storage_arc(target);
    ASSERT_TRUE(node.join(agent));
    EXPECT_EQ(node.info_of(agent)->info().storage_arc, announced) << said.to_string() << " of " << target.to_string();
    node.leave(agent->agent());
    EXPECT_EQ(agent->cur_storage_arc(), DhtArc::none());
  }
}

TEST(CoreSpace, AnArcThatIsNotOfWholeSectorsIsRefused) {
  Net net;
  SimNode node(net, "a");
  node.start();
  auto agent = make_agent(1);
  agent->set_tgt_storage_arc(DhtArc(0, 99));
  const auto refused = node.join(agent);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::invalid_argument);
  EXPECT_NE(refused.error().message.find("the target arc [0, 99] does not begin and end where sectors do"),
            std::string::npos)
      << refused.error().message;
  EXPECT_FALSE(node.space->local_agent_store().contains(agent->agent()));
  EXPECT_TRUE(node.bootstrap->puts.empty());
  agent->set_tgt_storage_arc(DhtArc::full());
  agent->set_cur_storage_arc(DhtArc(7, UINT32_MAX));
  EXPECT_EQ(node.join(agent).error().code, Errc::invalid_argument);
  agent->set_cur_storage_arc(DhtArc::none());
  ASSERT_TRUE(node.join(agent));
  net.world.run_ready();
  const auto before = node.info_of(agent);
  agent->set_cur_storage_arc(DhtArc(7, UINT32_MAX));
  net.world.run_ready();
  EXPECT_EQ(node.info_of(agent), before) << "nobody is told of it later either";
}

TEST(CoreSpace, ANewUrlSignsAllAgentsAndPolls) {
  Net net;
  SimNode node(net, "a");
  node.start();
  auto one = make_agent(1), two = make_agent(2);
  ASSERT_TRUE(node.join(one));
  ASSERT_TRUE(node.join(two));
  const int polls = node.bootstrap->polls;
  const Url fresh = net.network->change_url(node.url, 3s);
  net.world.run_for(1s);
  EXPECT_FALSE(node.space->current_url());
  one->set_cur_storage_arc(DhtArc::of_sectors(1, 1));  // without a url nothing is signed
  net.world.run_for(1s);
  EXPECT_EQ(node.bootstrap->puts.size(), 2U);
  net.world.run_for(5s);
  EXPECT_EQ(node.space->current_url(), fresh);
  EXPECT_EQ(node.bootstrap->puts.size(), 4U);
  EXPECT_EQ(node.info_of(one)->info().url, fresh);
  EXPECT_EQ(node.info_of(two)->info().url, fresh);
  EXPECT_EQ(node.bootstrap->polls, polls + 1);
}

TEST(CoreSpace, JoiningWithoutAUrlWaitsForOne) {
  Net net;
  SimNode node(net, "a");
  node.start();
  net.network->change_url(node.url, 10s);
  net.world.run_for(1s);
  auto agent = make_agent(1);
  ASSERT_TRUE(node.join(agent));
  EXPECT_TRUE(node.bootstrap->puts.empty());
  net.world.run_for(10s);
  EXPECT_EQ(node.bootstrap->puts.size(), 1U);
  EXPECT_TRUE(node.info_of(agent));
}

TEST(CoreSpace, AClockThatGoesBackALittleStillMakesNewerInfos) {
  Net net;
  SimNode node(net, "a");
  node.start();
  auto agent = make_agent(1);
  ASSERT_TRUE(node.join(agent));
  const auto first = node.info_of(agent)->info().created_at;
  node.runtime->set_wall_skew(-60s);
  agent->set_cur_storage_arc(DhtArc::of_sectors(1, 2));
  net.world.run_ready();
  EXPECT_EQ(node.info_of(agent)->info().storage_arc, DhtArc::of_sectors(1, 2));
  EXPECT_EQ(node.info_of(agent)->info().created_at, first + Duration(1));
}

/// An info of the agent at another url: an earlier one, or as somebody else knows it.
AgentInfoPtr info_elsewhere(SimNode& node, LocalAgent& agent, Timestamp created_at) {
  AgentInfo info;
  info.agent = agent.agent();
  info.space = node.space->id();
  info.created_at = created_at;
  info.expires_at = created_at + 20min;
  info.url = Url::parse("ws://relay:1/elsewhere").value();
  return AgentInfoSigned::sign(agent, info).value();
}

TEST(CoreSpace, ANodeThatRestartsAfterItsClockWentBackALittleStillMakesNewerInfos) {
  Net net;
  SimNode node(net, "a");
  node.start();
  // What the node signed before it was stopped is in its peer store, and in those of others.
  auto agent = make_agent(1);
  const Timestamp before = node.runtime->wall_now() + 60s;
  node.space->peer_store().insert({info_elsewhere(node, *agent, before)});
  ASSERT_TRUE(node.join(agent));
  EXPECT_EQ(node.info_of(agent)->info().url, node.url);
  const auto created_at = node.info_of(agent)->info().created_at;
  EXPECT_GT(created_at, before);
  EXPECT_LE(created_at, before + 1s);
  agent->set_cur_storage_arc(DhtArc::of_sectors(1, 2));
  net.world.run_ready();
  EXPECT_EQ(node.info_of(agent)->info().created_at, created_at + Duration(1));
}

TEST(CoreSpace, ARunThatDoesNotKnowWhatTheOneBeforeSignedSignsNewerInfosStill) {
  // Both know the same info of an earlier run, which their clocks have not come to: the power failed in between.
  std::optional<Timestamp> last, signed_before;
  for (const Duration started_after : {Duration(0), Duration(20ms), Duration(1s), Duration(59s)}) {
    Net net;
    SimNode node(net, "a");
    net.world.run_for(started_after);
    node.start();
    auto agent = make_agent(1);
    if (!last) last = node.runtime->wall_now() + 90s;
    node.space->peer_store().insert({info_elsewhere(node, *agent, *last)});
    ASSERT_TRUE(node.join(agent));
    EXPECT_GT(node.info_of(agent)->info().created_at, signed_before.value_or(*last));
    signed_before = node.info_of(agent)->info().created_at;
  }
}

TEST(CoreSpace, WhenOthersKnowANewerInfoOfAnAgentANewerOneIsSigned) {
  Net net;
  SimNode node(net, "a");
  node.start();
  auto agent = make_agent(1);
  ASSERT_TRUE(node.join(agent));
  const auto first = node.info_of(agent)->info().created_at;
  // The clock was set back, and what was signed before is lost with the power.
  node.space->peer_store().insert_from({info_elsewhere(node, *agent, first + 60s)}, "http://server");
  net.world.run_ready();
  EXPECT_EQ(node.info_of(agent)->info().url, node.url);
  EXPECT_GT(node.info_of(agent)->info().created_at, first + 60s);
  EXPECT_EQ(node.bootstrap->puts.size(), 2U);
  node.space->peer_store().insert_from({info_elsewhere(node, *agent, first + 30s)}, "http://server");
  net.world.run_ready();
  EXPECT_EQ(node.bootstrap->puts.size(), 2U) << "an older one";
}

TEST(CoreSpace, TwoNodesOfOneAgentDoNotOvertakeEachOtherForEver) {
  Net net;
  SimNode node(net, "a");
  node.start();
  auto agent = make_agent(1);
  ASSERT_TRUE(node.join(agent));
  for (int i = 0; i < 100; ++i) {
    node.space->peer_store().insert_from(
        {info_elsewhere(node, *agent, node.info_of(agent)->info().created_at + Duration(1))}, "http://server");
    net.world.run_ready();
  }
  EXPECT_EQ(node.bootstrap->puts.size(), 17U);
}

TEST(CoreSpace, AnInfoFromTheFutureIsSignedAgainWhenTheClockIsSetBack) {
  Net net;
  SimNode node(net, "a");
  node.start();
  auto agent = make_agent(1);
  node.runtime->set_wall_skew(24h);
  ASSERT_TRUE(node.join(agent));  // for a day, nobody whose clock is right believes this one
  node.runtime->set_wall_skew(0s);
  net.world.run_for(60s);
  ASSERT_EQ(node.bootstrap->puts.size(), 2U);
  const auto right = node.bootstrap->puts[1].second;
  EXPECT_EQ(right->info().created_at, node.runtime->wall_now());
  EXPECT_EQ(node.info_of(agent), right);
  // From here on as usual: the next one when five minutes are left.
  net.world.run_for(14min);
  EXPECT_EQ(node.bootstrap->puts.size(), 2U);
  net.world.run_for(1min);
  EXPECT_EQ(node.bootstrap->puts.size(), 3U);
}

struct BrokenAgent : LocalAgent {
  const AgentId& agent() const override { return id; }
  DhtArc cur_storage_arc() const override { return {}; }
  void set_cur_storage_arc(DhtArc) override {}
  DhtArc tgt_storage_arc() const override { return {}; }
  void set_tgt_storage_arc(DhtArc) override {}
  void on_changed(std::function<void()>) override {}
  Result<Bytes> sign(const AgentInfo&, ByteView) override { return make_error(Errc::io, "the key store is locked"); }
  AgentId id = make_agent(99)->agent();
};

TEST(CoreSpace, AnAgentThatCannotSignDoesNotJoin) {
  Net net;
  SimNode node(net, "a");
  node.start();
  const auto joined = node.join(std::make_shared<BrokenAgent>());
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, Errc::io);
  EXPECT_NE(joined.error().message.find("the key store is locked"), std::string::npos);
  EXPECT_TRUE(node.space->local_agent_store().get_all().empty());
  EXPECT_EQ(node.join(nullptr).error().code, Errc::invalid_argument);
}

TEST(CoreSpace, ExpiredPeersAreNotGivenOut) {
  Net net;
  SimNode node(net, "a");
  node.start();
  auto peer = make_agent(5);
  node.space->peer_store().insert({AgentInfoBuilder{.url = MemoryNetwork::url_of("x")}.sign(*peer)});
  net.world.run_for(20min - 1us);
  EXPECT_EQ(node.space->peer_store().get_all().size(), 1U);
  net.world.run_for(1us);
  EXPECT_TRUE(node.space->peer_store().get_all().empty());
}

TEST(CoreSpace, StopLeavesWithTombstonesAndEndsAllModules) {
  Net net;
  SimNode node(net, "a");
  node.start();
  Scripted peer(net, "peer");
  auto other = make_agent(5), own = make_agent(1);
  node.space->peer_store().insert({AgentInfoBuilder{.url = peer.url}.sign(*other)});
  ASSERT_TRUE(node.join(own));
  net.world.run_ready();
  ASSERT_TRUE(node.stop());
  net.world.run_ready();
  ASSERT_EQ(peer.agents.size(), 2U);
  EXPECT_TRUE(peer.agents[1]->info().is_tombstone);
  EXPECT_TRUE(node.bootstrap->puts.back().second->info().is_tombstone);
  EXPECT_TRUE(node.bootstrap->stopped);
  EXPECT_EQ(node.join(own).error().code, Errc::cancelled);
  const auto sent = await<void>(net.world, [&](auto done) { node.space->send_notify(peer.url, Bytes(), done); });
  EXPECT_EQ(sent.error().code, Errc::cancelled);
  ASSERT_TRUE(node.stop());  // again
  // Nothing of it is left to run.
  node.space.reset();
  node.kitsune.reset();
  peer.transport->stop([] {});
  EXPECT_TRUE(net.world.run_until_idle(1min));
}

TEST(CoreSpace, StopDoesNotWaitForPeersThatDoNotAnswer) {
  Net net;
  SimNode node(net, "a");
  node.start();
  auto other = make_agent(5);
  Scripted peer(net, "peer");
  node.space->peer_store().insert({AgentInfoBuilder{.url = peer.url}.sign(*other)});
  net.network->set_links_to(peer.url, {.fail_sends = true, .fail_after = 1h});
  ASSERT_TRUE(node.join(make_agent(1)));
  const Time from = net.world.now();
  ASSERT_TRUE(node.stop());
  EXPECT_LE(net.world.now() - from, 2s);
}

// Requests of an earlier run continue on their own: subscribing only once the space is returned may be too late.
TEST(CoreSpace, AHandlerSubscribesBeforeOpsOfAnEarlierRunCanArrive) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  a.start();
  const auto ids = a.add_ops(1, 10, 100);
  struct Listener : SpaceHandler {
    void on_space_created(Space& space) override {
      ++created;
      pending_at_creation = space.fetch().pending_ops();
      FetchEvents events;
      events.ops_stored = [this](const Url&, const std::vector<StoredOp>& ops, std::uint64_t) { heard += ops.size(); };
      subscription = space.fetch().subscribe(std::move(events));
    }
    std::shared_ptr<void> subscription;
    std::uint64_t heard = 0, pending_at_creation = 0;
    int created = 0;
  };
  struct Host : KitsuneHandler {
    Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId&) override { return listener; }
    std::shared_ptr<Listener> listener = std::make_shared<Listener>();
  };
  // The disk of the earlier run.
  const auto disk_runtime = net.world.make_runtime();
  const auto disk = make_memory_op_store(*disk_runtime, make_prefix_policy());
  ASSERT_TRUE(await<void>(net.world, [&](auto done) { disk->add_pending(ids, a.url, done); }));
  b.builder.op_store = [&](const ModuleContext& c) {
    return Result<std::shared_ptr<OpStore>>(std::make_shared<testing::FaultStore>(*c.runtime, disk));
  };
  const auto host = std::make_shared<Host>();
  b.kitsune = b.builder.build(*b.runtime).value();
  ASSERT_TRUE(b.kitsune->register_handler(host));
  b.kitsune->space(kSpace, [](const Result<std::shared_ptr<Space>>& made) { EXPECT_TRUE(made); });
  EXPECT_EQ(host->listener->created, 1) << "before the space is handed out";
  ASSERT_TRUE(net.world.run_until([&] { return host->listener->heard == 10; }, 10s));
  EXPECT_EQ(host->listener->pending_at_creation, 0U);
  b.kitsune->space(kSpace, [](const Result<std::shared_ptr<Space>>&) {});
  net.world.run_ready();
  EXPECT_EQ(host->listener->created, 1) << "once";
  EXPECT_TRUE(b.stop());
}

// Whatever module a peer uses to offer ops, the application is asked whether it wants them.
TEST(CoreSpace, TheHandlerDecidesAboutOffersOfPublishAndGossip) {
  struct Chooser : SpaceHandler {
    bool accept_offered_ops(const Url&, const SpaceId&) override {
      ++asked;
      return wanted;
    }
    bool wanted = false;
    int asked = 0;
  };
  struct Host : KitsuneHandler {
    Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId&) override { return chooser; }
    std::shared_ptr<Chooser> chooser = std::make_shared<Chooser>();
  };
  for (const bool wanted : {false, true}) {
    Net net;
    SimNode a(net, "a"), b(net, "b");
    a.builder.gossip = b.builder.gossip = make_k2_gossip;
    a.start();
    const auto host = std::make_shared<Host>();
    host->chooser->wanted = wanted;
    b.kitsune = b.builder.build(*b.runtime).value();
    ASSERT_TRUE(b.kitsune->register_handler(host));
    b.space = await<std::shared_ptr<Space>>(net.world, [&](auto done) { b.kitsune->space(kSpace, done); }).value();
    const auto ids = a.add_ops(1, 10, 100);
    ASSERT_TRUE(await<void>(net.world, [&](auto done) { a.space->publish().publish_ops(ids, b.url, done); }));
    net.world.run_for(1s);
    EXPECT_EQ(host->chooser->asked, 1) << "by publish";
    EXPECT_EQ(b.held(), wanted ? 10U : 0U);

    a.add_ops(100, 10, 100);
    ASSERT_TRUE(a.join(make_agent(1)));
    ASSERT_TRUE(b.join(make_agent(2)));
    a.space->peer_store().insert({b.info_of(make_agent(2))});
    b.space->peer_store().insert({a.info_of(make_agent(1))});
    net.world.run_for(10min);
    EXPECT_GE(host->chooser->asked, 2) << "by gossip";
    EXPECT_GE(b.space->gossip().stats().ops_learned, 10U);
    EXPECT_EQ(b.held(), wanted ? 20U : 0U);
    EXPECT_TRUE(a.stop());
    EXPECT_TRUE(b.stop());
  }
}

TEST(CoreSpace, TheApplicationsFetchEventsAndTheReportBothHear) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  a.start();
  b.start();
  const auto ids = a.add_ops(1, 10, 100);
  std::uint64_t heard = 0;
  FetchEvents events;
  events.ops_stored = [&](const Url&, const std::vector<StoredOp>& ops, std::uint64_t) { heard += ops.size(); };
  const auto subscription = b.space->fetch().subscribe(events);
  ASSERT_TRUE(await<void>(net.world, [&](auto done) { b.space->fetch().request_ops(ids, a.url, done); }));
  ASSERT_TRUE(net.world.run_until([&] { return b.held() == 10; }, 10s));
  net.world.run_ready();
  EXPECT_EQ(heard, 10U);
  const auto report = b.kitsune->report().snapshot();
  ASSERT_EQ(report.size(), 1U);
  EXPECT_EQ(report[0].first, kSpace);
  EXPECT_EQ(report[0].second.total.ops_fetched, 10U);
  EXPECT_EQ(report[0].second.total.bytes_fetched, 1000U);
  EXPECT_EQ(report[0].second.peers.at(a.url).ops_fetched, 10U);
  EXPECT_EQ(a.kitsune->report().snapshot().at(0).second.peers.at(b.url).ops_served, 10U);
}

TEST(CoreSpace, AStoreThatRefusesIsRememberedForAMinute) {
  Net net;
  SimNode a(net, "a"), b(net, "b");
  std::shared_ptr<testing::FaultStore> disk;
  b.builder.op_store = [&](const ModuleContext& c) {
    disk = std::make_shared<testing::FaultStore>(*c.runtime, make_memory_op_store(*c.runtime, make_prefix_policy()));
    return Result<std::shared_ptr<OpStore>>(disk);
  };
  a.start();
  b.start();
  EXPECT_FALSE(b.space->recent_store_failure());
  const auto ids = a.add_ops(1, 1);
  ASSERT_TRUE(await<void>(net.world, [&](auto done) { b.space->fetch().request_ops(ids, a.url, done); }));
  disk->fail_writes(make_error(Errc::disk_full, "no space"));
  net.world.run_for(5s);
  ASSERT_TRUE(b.space->recent_store_failure());
  EXPECT_EQ(b.space->recent_store_failure()->code, Errc::disk_full);
  disk->fail_writes(std::nullopt);
  net.world.run_for(2min);
  EXPECT_FALSE(b.space->recent_store_failure());
  EXPECT_EQ(b.held(), 1U);
}

/// The op ids that were requested from `peer`.
std::size_t ids_asked(const Scripted& peer) {
  std::size_t count = 0;
  for (const Bytes& data : peer.fetch_messages) count += wire::decode_fetch(Dialect::v0_2, data).value().op_ids.size();
  return count;
}

TEST(CoreSpace, PendingRequestsFollowAPeerToItsNewUrl) {
  Net net;
  SimNode node(net, "a");
  Scripted before(net, "before"), after(net, "after");
  node.start();
  const auto agent = make_agent(1);
  const auto now = node.runtime->wall_now();
  node.space->peer_store().insert({AgentInfoBuilder{.created_at = now, .url = before.url}.sign(*agent)});
  const auto ids = testing::ids_of(testing::make_ops(*make_prefix_policy(), 0, 10));
  ASSERT_TRUE(await<void>(net.world, [&](auto done) { node.space->fetch().request_ops(ids, before.url, done); }));
  net.world.run_for(100ms);
  EXPECT_EQ(ids_asked(before), 10U);
  node.space->peer_store().insert({AgentInfoBuilder{.created_at = now + 1s, .url = after.url}.sign(*agent)});
  net.world.run_for(100ms);
  EXPECT_EQ(ids_asked(after), 10U);
  EXPECT_EQ(node.space->fetch().state_summary().pending_requests.at(ids[0]), std::vector<Url>{after.url});
  // An older info changes nothing.
  node.space->peer_store().insert({AgentInfoBuilder{.created_at = now, .url = before.url}.sign(*agent)});
  EXPECT_EQ(node.space->fetch().state_summary().pending_requests.at(ids[0]), std::vector<Url>{after.url});
}

TEST(CoreSpace, AUrlOfSeveralAgentsKeepsItsPendingRequestsUntilAllHaveMoved) {
  Net net;
  SimNode node(net, "a");
  Scripted before(net, "before"), after(net, "after");
  node.start();
  const auto one = make_agent(1), two = make_agent(2);
  const auto now = node.runtime->wall_now();
  node.space->peer_store().insert({AgentInfoBuilder{.created_at = now, .url = before.url}.sign(*one),
                                   AgentInfoBuilder{.created_at = now, .url = before.url}.sign(*two)});
  const auto ids = testing::ids_of(testing::make_ops(*make_prefix_policy(), 0, 10));
  ASSERT_TRUE(await<void>(net.world, [&](auto done) { node.space->fetch().request_ops(ids, before.url, done); }));
  node.space->peer_store().insert({AgentInfoBuilder{.created_at = now + 1s, .url = after.url}.sign(*one)});
  EXPECT_EQ(node.space->fetch().state_summary().pending_requests.at(ids[0]), std::vector<Url>{before.url});
  node.space->peer_store().insert({AgentInfoBuilder{.created_at = now + 1s, .url = after.url}.sign(*two)});
  EXPECT_EQ(node.space->fetch().state_summary().pending_requests.at(ids[0]), std::vector<Url>{after.url});
}

// Found by the simulator (eclipse): what the attacker had offered was requested from the honest peer, which did not
// have it.
TEST(CoreSpace, AClaimedUrlIsNotAskedForTheClaimantsOps) {
  Net net;
  SimNode node(net, "a");
  Scripted bad(net, "bad"), honest(net, "honest");
  node.start();
  const auto now = node.runtime->wall_now();
  node.space->peer_store().insert({AgentInfoBuilder{.created_at = now, .url = honest.url}.sign(*make_agent(1)),
                                   AgentInfoBuilder{.created_at = now, .url = bad.url}.sign(*make_agent(2))});
  const auto ids = testing::ids_of(testing::make_ops(*make_prefix_policy(), 0, 10));
  ASSERT_TRUE(await<void>(net.world, [&](auto done) { node.space->fetch().request_ops(ids, bad.url, done); }));
  node.space->peer_store().insert({AgentInfoBuilder{.created_at = now + 1s, .url = honest.url}.sign(*make_agent(2))});
  EXPECT_EQ(node.space->fetch().state_summary().pending_requests.at(ids[0]), std::vector<Url>{bad.url});
}

// The peer's info has expired before it returns: its old url is still known.
TEST(CoreSpace, APeerThatReturnsLaterIsFollowedToo) {
  Net net;
  SimNode node(net, "a");
  Scripted before(net, "before"), after(net, "after");
  node.builder.config.core_fetch.first_back_off_interval_ms = 3'600'000;
  node.builder.config.core_fetch.last_back_off_interval_ms = 3'600'000;
  node.start();
  const auto agent = make_agent(1);
  node.space->peer_store().insert(
      {AgentInfoBuilder{.created_at = node.runtime->wall_now(), .url = before.url}.sign(*agent)});
  const auto ids = testing::ids_of(testing::make_ops(*make_prefix_policy(), 0, 10));
  ASSERT_TRUE(await<void>(net.world, [&](auto done) { node.space->fetch().request_ops(ids, before.url, done); }));
  net.world.run_for(21min);
  EXPECT_FALSE(node.info_of(agent));
  node.space->peer_store().insert(
      {AgentInfoBuilder{.created_at = node.runtime->wall_now(), .url = after.url}.sign(*agent)});
  net.world.run_for(100ms);
  EXPECT_EQ(ids_asked(after), 10U);
}

}  // namespace
}  // namespace kitsune2::node_test
