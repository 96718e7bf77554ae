// The bootstrap modules: through a server, and in memory.
#include <gtest/gtest.h>

#include "unit/node/node_harness.hpp"

namespace kitsune2::node_test {
namespace {

/// A bootstrap module with its peer store, over a fake server.
struct Client {
  Client(Net& n, FakeServer& server, Config config = {}) : net(n), runtime(n.world.make_runtime()) {
    if (config.core_bootstrap.server_url.starts_with('<')) config.core_bootstrap.server_url = "http://boot:80/ignored";
    context.runtime = runtime.get();
    context.config = std::make_shared<RuntimeConfig>(config);
    context.verifier = &ed25519_verifier();
    context.space = kSpace;
    context.peer_store = make_memory_peer_store(*runtime, kSpace);
    boot = make_core_bootstrap(context, server.client(*runtime)).value();
  }
  bool knows(const std::shared_ptr<LocalAgent>& agent) { return context.peer_store->get(agent->agent()) != nullptr; }
  Duration stop() {
    const Time from = net.world.now();
    const auto stopped = await<void>(net.world, [&](auto done) { boot->stop([done] { done(Result<void>()); }); });
    EXPECT_TRUE(stopped);
    return net.world.now() - from;
  }

  Net& net;
  std::unique_ptr<SimRuntime> runtime;
  ModuleContext context;
  std::shared_ptr<Bootstrap> boot;
};

AgentInfoPtr info(Net& net, const std::shared_ptr<LocalAgent>& agent, std::uint64_t version = 0) {
  AgentInfoBuilder b{.url = MemoryNetwork::url_of("somewhere")};
  b.created_at = b.created_at + (net.world.now() - Time()) + Duration(version);
  return b.sign(*agent);
}

std::vector<Time> at(std::initializer_list<Duration> times) {
  std::vector<Time> out;
  for (const auto t : times) out.push_back(Time(t));
  return out;
}

/// A transport that only counts the reports about servers.
class CountingBackend final : public TransportBackend {
 public:
  explicit CountingBackend(int& answers) : answers_(answers) {}
  void start(TransportEvents&) override {}
  std::optional<Url> url() const override { return std::nullopt; }
  void send(const Url&, ByteChain, Handler<>) override {}
  void disconnect(const Url&, const CloseReason&, Bytes) override {}
  void on_server_answered() override { ++answers_; }
  TransportStats stats() const override { return {}; }
  void stop(std::function<void()>) override {}

 private:
  int& answers_;
};

// Reference: core_bootstrap::test::validate_bad_server_url.
TEST(CoreBootstrap, ABadServerUrlIsRefused) {
  Net net;
  SimNode node(net, "a");
  node.builder.config.core_bootstrap.server_url = "<bad-url>";
  EXPECT_EQ(node.builder.build(*node.runtime).error().code, Errc::invalid_config);

  ModuleContext context;
  context.runtime = node.runtime.get();
  context.config = std::make_shared<RuntimeConfig>();
  const auto unset = make_core_bootstrap(context, nullptr);
  ASSERT_FALSE(unset);
  EXPECT_EQ(unset.error().message, "coreBootstrap.serverUrl: is not set");
}

// Reference: core_bootstrap::test::bootstrap_delayed_online.
TEST(CoreBootstrap, PutsAndPollsGoOnUntilTheServerWorks) {
  Net net;
  FakeServer server(net.world);
  server.halted = true;
  Config quick;
  quick.core_bootstrap.backoff_min_ms = quick.core_bootstrap.backoff_max_ms = 10;
  Client one(net, server, quick), two(net, server, quick);
  auto a = make_agent(1), b = make_agent(2);
  one.boot->put(info(net, a));
  two.boot->put(info(net, b));
  net.world.run_for(500ms);
  EXPECT_FALSE(one.knows(b));
  EXPECT_FALSE(two.knows(a));
  server.halted = false;
  net.world.run_for(50ms);
  EXPECT_TRUE(one.knows(b));
  EXPECT_TRUE(two.knows(a));
  const auto puts = server.times(HttpMethod::kPut).size();
  net.world.run_for(10s);
  EXPECT_EQ(server.times(HttpMethod::kPut).size(), puts) << "what was taken is not put again";
}

// A node that lost its relay learns from an answer that the network works again, long before its own back-off ends.
TEST(CoreBootstrap, EveryAnswerOfTheServerIsTheTransportsSignThatTheLineIsUp) {
  Net net;
  FakeServer server(net.world);
  int answers = 0;
  Client client(net, server);
  client.context.transport = make_transport(*client.runtime, std::make_unique<CountingBackend>(answers), nullptr);
  server.unreachable = true;
  const auto boot = make_core_bootstrap(client.context, server.client(*client.runtime)).value();
  boot->put(info(net, make_agent(1)));
  net.world.run_for(1min);
  EXPECT_EQ(answers, 0) << "nothing has answered";
  server.unreachable = false;
  server.halted = true;  // an error is an answer too
  boot->poll_now();
  net.world.run_for(1s);
  EXPECT_EQ(answers, 1);
  server.halted = false;
  boot->put(info(net, make_agent(1), 1));
  net.world.run_for(1s);
  EXPECT_EQ(answers, 2);
  boot->stop([] {});
}

TEST(CoreBootstrap, SpeaksTheServersPaths) {
  Net net;
  FakeServer server(net.world);
  Client client(net, server);
  auto agent = make_agent(1);
  const auto own = info(net, agent);
  client.boot->put(own);
  net.world.run_for(1s);
  ASSERT_EQ(server.requests.size(), 2U);
  const std::string base = "http://boot:80/bootstrap/" + kSpace.to_string();
  for (const auto& [when, request] : server.requests) {
    if (request.method == HttpMethod::kPut) {
      EXPECT_EQ(request.url, base + '/' + agent->agent().to_string());
      EXPECT_EQ(request.body, own->encode());
    } else {
      EXPECT_EQ(request.url, base);
    }
  }
}

TEST(CoreBootstrap, TheReasonOfASilentServerIsKnownUntilItAnswers) {
  Net net;
  FakeServer server(net.world);
  server.unreachable = true;
  Client client(net, server);
  EXPECT_FALSE(client.boot->status().has_answered);
  EXPECT_FALSE(client.boot->status().failure) << "it has not been asked yet";
  net.world.run_for(1s);
  EXPECT_FALSE(client.boot->status().has_answered);
  ASSERT_TRUE(client.boot->status().failure);
  EXPECT_FALSE(client.boot->status().failure->message.empty());
  server.unreachable = false;
  client.boot->poll_now();
  net.world.run_for(1s);
  EXPECT_TRUE(client.boot->status().has_answered);
  EXPECT_FALSE(client.boot->status().failure);
  server.unreachable = true;
  client.boot->poll_now();
  net.world.run_for(1s);
  EXPECT_TRUE(client.boot->status().has_answered) << "it has, once";
  EXPECT_TRUE(client.boot->status().failure);
}

TEST(CoreBootstrap, SaysThatTheServerAsksForAuthentication) {
  Net net;
  FakeServer server(net.world);
  server.unauthorized = true;
  Client client(net, server);
  net.world.run_for(1s);
  ASSERT_TRUE(client.boot->status().failure);
  EXPECT_EQ(client.boot->status().failure->message,
            "http://boot:80 asks for authentication (coreBootstrap.authMaterialBase64)");
  Config with_material;
  with_material.core_bootstrap.auth_material_base64 = "bWF0ZXJpYWw=";
  Client other(net, server, with_material);
  net.world.run_for(1s);
  ASSERT_TRUE(other.boot->status().failure);
  EXPECT_EQ(other.boot->status().failure->message, "http://boot:80 refuses the token that it has given");
}

TEST(CoreBootstrap, SaysWhomTheLastAnswerLists) {
  Net net;
  FakeServer server(net.world);
  Client client(net, server);
  const auto listed = [&] {
    client.boot->poll_now();
    net.world.run_for(1s);
    return client.boot->status().listed;
  };
  EXPECT_FALSE(client.boot->status().listed);
  ASSERT_TRUE(listed());
  EXPECT_FALSE(listed()->has_own) << "an empty list says nothing: our own info is not there yet";
  const auto own = make_agent(1), other = make_agent(2);
  client.boot->put(info(net, own));
  EXPECT_TRUE(listed()->has_own);
  EXPECT_EQ(listed()->others, 0U);
  server.rejected = own->agent();
  client.boot->put(info(net, own, 1));
  EXPECT_FALSE(listed()->has_own) << "an earlier info";
  EXPECT_EQ(listed()->others, 0U);
  server.rejected.reset();
  client.boot->put(info(net, own, 2));
  // Nobody believes it, but somebody is there: our clock may be wrong.
  AgentInfoBuilder stale{.url = MemoryNetwork::url_of("elsewhere")};
  stale.created_at = stale.created_at - 24h;
  server.infos[other->agent()] = stale.sign(*other);
  EXPECT_TRUE(listed()->has_own);
  EXPECT_EQ(listed()->others, 1U);
  EXPECT_FALSE(client.knows(other));
  server.unreachable = true;
  EXPECT_FALSE(listed()) << "no answer says nothing";
}

TEST(CoreBootstrap, AStopWaitsForTheServerAsLongAsTheConfigurationSays) {
  Net net;
  FakeServer server(net.world);
  Config hasty;
  hasty.core_bootstrap.stop_patience_ms = 300;
  Client client(net, server, hasty);
  net.world.run_for(1s);
  server.latency = 1h;
  client.boot->put(info(net, make_agent(1)));
  EXPECT_EQ(client.stop(), 300ms);
}

TEST(CoreBootstrap, PollIntervalsGrowFromFiveSecondsToFiveMinutes) {
  Net net;
  FakeServer server(net.world);
  server.latency = 0ms;
  Client client(net, server);
  net.world.run_for(20min);
  EXPECT_EQ(server.times(HttpMethod::kGet), at({0s, 5s, 15s, 35s, 75s, 155s, 315s, 615s, 915s}));
  client.boot->poll_now();
  client.boot->poll_now();
  net.world.run_for(15s);
  const auto polls = server.times(HttpMethod::kGet);
  ASSERT_EQ(polls.size(), 12U);
  EXPECT_EQ(polls[9], Time(20min)) << "at once, once";
  EXPECT_EQ(polls[10], Time(20min + 5s)) << "and from the shortest interval on";
}

TEST(CoreBootstrap, AnInfoThatTheServerDoesNotListAnyMoreIsPutAgain) {
  Net net;
  FakeServer server(net.world);
  server.latency = 0ms;
  Client client(net, server);
  const auto agent = make_agent(1);
  client.boot->put(info(net, agent));
  net.world.run_for(6s);
  EXPECT_EQ(server.times(HttpMethod::kPut), at({0s})) << "it is listed";
  server.infos.clear();  // others have displaced it
  net.world.run_for(10s);
  EXPECT_EQ(server.times(HttpMethod::kPut), at({0s, 15s}));
  EXPECT_TRUE(server.infos.contains(agent->agent()));
  net.world.run_for(1h);
  EXPECT_EQ(server.times(HttpMethod::kPut).size(), 2U);
}

/// A server that was restarted has lost all infos, and takes those of the last three minutes only.
TEST(CoreBootstrap, AnInfoThatIsTooOldForTheServerIsSignedAnew) {
  Net net;
  FakeServer server(net.world);
  server.latency = 0ms;
  Client client(net, server);
  std::vector<AgentId> asked;
  client.boot->on_outdated([&](const AgentId& agent) { asked.push_back(agent); });
  const auto agent = make_agent(1);
  client.boot->put(info(net, agent));
  net.world.run_for(4min);
  server.infos.clear();
  net.world.run_for(5min);
  EXPECT_EQ(asked, std::vector<AgentId>{agent->agent()});
  EXPECT_EQ(server.times(HttpMethod::kPut), at({0s})) << "the old one is not put again";
  client.boot->put(info(net, agent));
  net.world.run_for(10min);
  EXPECT_TRUE(server.infos.contains(agent->agent()));
  EXPECT_EQ(server.times(HttpMethod::kPut).size(), 2U);
  EXPECT_EQ(asked.size(), 1U);
}

TEST(CoreBootstrap, AnInfoThatIsRefusedWhenItIsOldIsSignedAnewAndNotTooOften) {
  Net net;
  FakeServer server(net.world);
  server.latency = 0ms;
  server.unreachable = true;
  Client client(net, server);
  std::vector<Time> asked;
  const auto agent = make_agent(1);
  client.boot->on_outdated([&](const AgentId&) {
    asked.push_back(net.world.now());
    client.boot->put(info(net, agent));
  });
  client.boot->put(info(net, agent));
  net.world.run_for(10min);
  EXPECT_TRUE(asked.empty()) << "nobody has refused it";
  server.unreachable = false;
  server.rejected = agent->agent();
  net.world.run_for(20min);
  EXPECT_GE(asked.size(), 2U);
  for (std::size_t i = 1; i < asked.size(); ++i) EXPECT_GE(asked[i] - asked[i - 1], 5min);
}

TEST(CoreBootstrap, WhoIsNeverListedPutsOneInfoForEachAnswerAndAsksLessAndLess) {
  Net net;
  FakeServer server(net.world);
  server.latency = 0ms;
  server.body = "[]";
  Client client(net, server);
  for (std::uint64_t i = 1; i <= 3; ++i) client.boot->put(info(net, make_agent(i)));
  net.world.run_for(10min);
  EXPECT_EQ(server.times(HttpMethod::kGet),
            at({0s, 5s, 10s, 15s, 20s, 25s, 30s, 35s, 40s, 45s, 55s, 75s, 115s, 195s, 355s}));
  EXPECT_EQ(server.times(HttpMethod::kPut).size(), 3U + 14U);
}

/// The answer was made before the server had the info.
TEST(CoreBootstrap, AnAnswerThatWasAskedForBeforeThePutSaysNothingAboutIt) {
  Net net;
  FakeServer server(net.world);
  server.latency = 1s;
  server.body = "[]";
  Client client(net, server);
  client.boot->put(info(net, make_agent(1)));
  net.world.run_for(5s);
  EXPECT_EQ(server.times(HttpMethod::kPut), at({0s}));
}

TEST(CoreBootstrap, PollNowDuringAPollAsksAgainAfterIt) {
  Net net;
  FakeServer server(net.world);
  server.latency = 2s;
  Client client(net, server);
  net.world.run_for(1s);
  client.boot->poll_now();
  net.world.run_for(1500ms);
  EXPECT_EQ(server.times(HttpMethod::kGet), at({0s, 2s}));
}

TEST(CoreBootstrap, FailedPutsBackOffAndANewerInfoDoesNotWait) {
  Net net;
  FakeServer server(net.world);
  server.latency = 0ms;
  server.unreachable = true;
  Client client(net, server);
  auto agent = make_agent(1);
  client.boot->put(info(net, agent));
  net.world.run_for(40s);
  EXPECT_EQ(server.times(HttpMethod::kPut), at({0s, 5s, 15s, 35s}));
  const auto newer = info(net, agent, 1);
  client.boot->put(newer);
  net.world.run_for(10s);
  EXPECT_EQ(server.times(HttpMethod::kPut), at({0s, 5s, 15s, 35s, 40s, 45s}));
  server.unreachable = false;
  net.world.run_for(10s);
  EXPECT_EQ(server.times(HttpMethod::kPut).size(), 7U);
  EXPECT_EQ(server.infos.at(agent->agent())->encode(), newer->encode());
}

TEST(CoreBootstrap, AnInfoThatExpiresIsNotPutAnyMore) {
  Net net;
  FakeServer server(net.world);
  server.unreachable = true;
  Client client(net, server);
  client.boot->put(info(net, make_agent(1)));
  net.world.run_for(21min);
  const auto puts = server.times(HttpMethod::kPut).size();
  EXPECT_GT(puts, 5U);
  net.world.run_for(1h);
  EXPECT_EQ(server.times(HttpMethod::kPut).size(), puts);
}

TEST(CoreBootstrap, ARefusedInfoDoesNotDelayOthers) {
  Net net;
  FakeServer server(net.world);
  auto bad = make_agent(1), good = make_agent(2);
  server.rejected = bad->agent();
  Client client(net, server);
  client.boot->put(info(net, bad));
  client.boot->put(info(net, good));
  net.world.run_for(1s);
  EXPECT_TRUE(server.infos.contains(good->agent()));
  server.rejected.reset();
  net.world.run_for(5s);
  EXPECT_TRUE(server.infos.contains(bad->agent())) << "and it is tried again";
}

TEST(CoreBootstrap, APutWhileTheSameAgentsPutIsOnItsWayFollows) {
  Net net;
  FakeServer server(net.world);
  server.latency = 1s;
  Client client(net, server);
  auto agent = make_agent(1);
  client.boot->put(info(net, agent, 0));
  client.boot->put(info(net, agent, 1));
  client.boot->put(info(net, agent, 2));
  net.world.run_for(5s);
  EXPECT_EQ(server.times(HttpMethod::kPut), at({0s, 1s}));
  EXPECT_EQ(server.infos.at(agent->agent())->info().created_at, AgentInfoBuilder{}.created_at + Duration(2));
}

TEST(CoreBootstrap, OnlyBelievableInfosAreTaken) {
  Net net;
  FakeServer server(net.world);
  auto good = make_agent(1), forged = make_agent(2), foreign = make_agent(3), future = make_agent(4),
       old = make_agent(5);
  std::string bad = info(net, forged)->encode();
  const auto signature = bad.rfind("\"signature\":\"") + 13;
  bad[signature] = bad[signature] == 'A' ? 'B' : 'A';
  AgentInfoBuilder f;
  f.created_at = f.created_at + 4min;
  AgentInfoBuilder o;
  o.created_at = o.created_at - 21min;
  server.body = '[' + bad + ",{}," +
                AgentInfoBuilder{.space = SpaceId::from_text("x"), .url = std::nullopt}.sign(*foreign)->encode() + ',' +
                f.sign(*future)->encode() + ',' + o.sign(*old)->encode() + ',' + info(net, good)->encode() + ']';
  Client client(net, server);
  net.world.run_for(1s);
  EXPECT_TRUE(client.knows(good));
  EXPECT_EQ(client.context.peer_store->get_all().size(), 1U);
  server.body = "[[[";
  client.boot->poll_now();
  net.world.run_for(1s);
  server.body = "null";
  client.boot->poll_now();
  net.world.run_for(1s);
  EXPECT_EQ(client.context.peer_store->get_all().size(), 1U);
}

TEST(CoreBootstrap, OwnInfosOfOtherSpacesAreNotPut) {
  Net net;
  FakeServer server(net.world);
  Client client(net, server);
  client.boot->put(AgentInfoBuilder{.space = SpaceId::from_text("x"), .url = std::nullopt}.sign(*make_agent(1)));
  client.boot->put(nullptr);
  net.world.run_for(1min);
  EXPECT_TRUE(server.times(HttpMethod::kPut).empty());
}

TEST(CoreBootstrap, IntervalsFollowTheConfiguration) {
  Net net;
  FakeServer server(net.world);
  server.latency = 0ms;
  Client client(net, server);
  net.world.run_for(10min + 16s);  // the next one would be at 915 s
  const auto polls = server.times(HttpMethod::kGet).size();
  ASSERT_TRUE(client.context.config->update(R"({"coreBootstrap":{"backoffMinMs":1000,"backoffMaxMs":1000}})"));
  net.world.run_for(3s);
  EXPECT_EQ(server.times(HttpMethod::kGet).size(), polls + 4);
}

TEST(CoreBootstrap, StopGivesALastTombstoneItsChanceAndNotMore) {
  Net net;
  FakeServer server(net.world);
  server.latency = 500ms;
  Client client(net, server);
  net.world.run_for(1s);
  auto a = make_agent(1), b = make_agent(2);
  client.boot->put(info(net, a));
  client.boot->put(info(net, b));
  EXPECT_EQ(client.stop(), 1s);
  EXPECT_EQ(server.infos.size(), 2U);

  Client slow(net, server);
  net.world.run_for(1s);
  server.latency = 1h;
  slow.boot->put(info(net, a, 1));
  EXPECT_EQ(slow.stop(), 2s);

  server.latency = 0ms;
  server.unreachable = true;
  Client failing(net, server);
  failing.boot->put(info(net, a, 2));
  net.world.run_for(1s);  // it is on back-off now
  EXPECT_EQ(failing.stop(), 0s);
  const auto requests = server.requests.size();
  failing.boot->put(info(net, a, 3));
  failing.boot->poll_now();
  net.world.run_for(1h);
  EXPECT_EQ(server.requests.size(), requests) << "nothing after the end";
}

// Reference: mem_bootstrap::test::mem_bootstrap_sanity.
TEST(MemBootstrap, NodesOfOneTestIdFindEachOther) {
  Net net;
  const auto with = [&](SimNode& node, const std::string& id) {
    node.builder.bootstrap = [](const ModuleContext& c) { return make_mem_bootstrap(c); };
    node.builder.config.mem_bootstrap.test_id = id;
    node.start();
  };
  SimNode a(net, "a"), b(net, "b"), stranger(net, "c");
  with(a, "MemBootstrap.1");
  with(b, "MemBootstrap.1");
  with(stranger, "MemBootstrap.2");
  auto alice = make_agent(1), bob = make_agent(2);
  ASSERT_TRUE(a.join(alice));
  ASSERT_TRUE(b.join(bob));
  net.world.run_for(5s);
  EXPECT_TRUE(a.info_of(bob));
  EXPECT_TRUE(b.info_of(alice));
  EXPECT_TRUE(stranger.space->peer_store().get_all().empty());
  a.leave(alice->agent());
  net.world.run_for(5s);
  EXPECT_FALSE(b.info_of(alice)) << "the tombstone came by publish";
  SimNode late(net, "d");
  with(late, "MemBootstrap.1");
  late.space->bootstrap().poll_now();
  net.world.run_ready();
  EXPECT_EQ(late.space->peer_store().get_all().size(), 1U);
  EXPECT_TRUE(b.stop());
}

TEST(MemBootstrap, NodesOfTwoNetworksOfOneProcessDoNotMeet) {
  // One world, so that the times of both networks advance together.
  SimWorld world;
  const auto one = MemoryNetwork::create(), other = MemoryNetwork::create();
  struct Plain {
    Plain(SimWorld& world, const std::shared_ptr<MemoryNetwork>& network, const std::string& name,
          const std::shared_ptr<LocalAgent>& agent)
        : runtime(world.make_runtime()) {
      kitsune = default_test_builder(network, name).build(*runtime).value();
      kitsune->register_handler(std::make_shared<App>()).value();
      world.run_ready();
      space = await<std::shared_ptr<Space>>(world, [&](auto done) { kitsune->space(kSpace, done); }).value();
      await<void>(world, [&](auto done) { space->local_agent_join(agent, done); }).value();
    }
    std::unique_ptr<SimRuntime> runtime;
    std::shared_ptr<Kitsune> kitsune;
    std::shared_ptr<Space> space;
  };
  const auto alice = make_agent(1), bob = make_agent(2), carol = make_agent(3);
  Plain a(world, one, "a", alice), b(world, one, "b", bob), c(world, other, "c", carol);
  world.run_for(1min);
  EXPECT_TRUE(a.space->peer_store().get(bob->agent()));
  EXPECT_TRUE(b.space->peer_store().get(alice->agent()));
  EXPECT_FALSE(a.space->peer_store().get(carol->agent()));
  EXPECT_EQ(c.space->peer_store().get_all().size(), 1U) << "its own info alone";
}

TEST(MemBootstrap, ANetworkThatIsGoneIsForgotten) {
  for (int round = 0; round < 2; ++round) {
    Net net;
    SimNode node(net, "a");
    node.builder = default_test_builder(net.network, "a", make_prefix_policy());
    node.start();
    ASSERT_TRUE(node.join(make_agent(static_cast<std::uint64_t>(round))));
    net.world.run_for(1min);
    EXPECT_EQ(node.space->peer_store().get_all().size(), 1U) << "round " << round;
  }
}

TEST(MemBootstrap, KeepsThirtyTwoInfos) {
  Net net;
  SimNode node(net, "a");
  node.builder.bootstrap = [](const ModuleContext& c) { return make_mem_bootstrap(c); };
  node.builder.config.mem_bootstrap.test_id = "MemBootstrap.3";
  node.start();
  for (std::uint64_t i = 0; i < 40; ++i) node.space->bootstrap().put(info(net, make_agent(i)));
  net.world.run_for(5s);
  EXPECT_EQ(node.space->peer_store().get_all().size(), 32U);
  EXPECT_TRUE(node.info_of(make_agent(0)));
  EXPECT_TRUE(node.info_of(make_agent(39)));
}

}  // namespace
}  // namespace kitsune2::node_test
