// Calls of a node that are made wrongly or at the wrong time: after its end, on the strand, off the strand; and code of
// the application that throws.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <future>
#include <stdexcept>
#include <thread>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/builder.hpp"
#include "kitsune2/node.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "node_harness.hpp"

namespace kitsune2 {
namespace {

using namespace std::chrono_literals;
using testing::make_op;

const SpaceId kSpace = SpaceId::from_text("calls");

std::unique_ptr<Node> offline_node(const std::string& data_dir = {}) {
  auto node = Node::start({.data_dir = data_dir});
  EXPECT_TRUE(node) << node.error().to_string();
  return std::move(*node);
}

/// A folder that is removed with the object.
struct Folder {
  Folder()
      : path(std::filesystem::temp_directory_path() /
             ("k2-calls-" + std::to_string(::getpid()) + '-' +
              ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(path);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  const std::filesystem::path path;
};

TEST(NodeCalls, RunAfterStopThrowsAndDoesNotHang) {
  auto node = offline_node();
  node->stop();
  EXPECT_THROW(node->run([] { return 1; }), std::future_error);
  EXPECT_EQ(node->wait<void>([](auto done) { done(Result<void>()); }).error().message, "the node is stopped");
}

TEST(NodeCalls, AnExceptionInRunReachesTheCaller) {
  auto node = offline_node();
  EXPECT_THROW(node->run([]() -> int { throw std::out_of_range("far"); }), std::out_of_range);
  EXPECT_EQ(node->run([] { return 2; }), 2) << "the strand goes on";
}

TEST(NodeCalls, AnExceptionInTheStartOfAWaitReachesTheCaller) {
  auto node = offline_node();
  try {
    static_cast<void>(node->wait<void>([](auto) { throw std::runtime_error("not started"); }));
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& e) {
    EXPECT_STREQ(e.what(), "not started");
  }
  EXPECT_TRUE(node->wait<void>([](auto done) { done(Result<void>()); })) << "the strand goes on";
}

TEST(NodeCalls, AnOutcomeAfterTheStarterHasThrownIsNoSecondOne) {
  auto node = offline_node();
  Handler<> kept;
  EXPECT_THROW(static_cast<void>(node->wait<void>([&](auto done) {
                 kept = done;
                 throw std::runtime_error("too late");
               })),
               std::runtime_error);
  node->run([&] { kept(Result<void>()); });
  node->run([&] { kept = nullptr; });
}

TEST(NodeCalls, ADroppedHandlerAndAStoppedNodeAreDifferentErrors) {
  auto node = offline_node();
  const auto dropped = node->wait<void>([](auto) {});
  EXPECT_EQ(dropped.error().code, Errc::cancelled);
  EXPECT_EQ(dropped.error().message, "the call's handler was dropped without having been called");
}

TEST(NodeCalls, WaitTakesValuesThatOnlyMove) {
  auto node = offline_node();
  auto value = node->wait<std::unique_ptr<int>>([](auto done) { done(std::make_unique<int>(7)); });
  ASSERT_TRUE(value);
  EXPECT_EQ(**value, 7);
}

TEST(NodeCalls, AnAgentThatSetsNoArcWantsAllOps) {
  auto node = offline_node();
  auto agent = node->agent().value();
  EXPECT_EQ(agent->tgt_storage_arc(), DhtArc::full());
  auto space = node->space(kSpace).value();
  ASSERT_TRUE(node->wait<void>([&](auto done) { space->local_agent_join(agent, done); }));
  EXPECT_EQ(node->run([&] { return agent->cur_storage_arc(); }), DhtArc::none()) << "nothing was compared";
}

TEST(NodeCalls, AnAgentThatJoinsWithoutAnArcIsWarnedOfOnceUnlessItIsMeant) {
  std::vector<std::string> warnings;
  NodeOptions options;
  options.log = {[&](const LogLine& line) { warnings.emplace_back(line.text); }, LogLevel::warn};
  auto node = Node::start(std::move(options)).value();
  auto space = node->space(kSpace).value();
  const auto agent = node->agent().value();
  const auto seen = [&] { return node->run([&] { return warnings.size(); }); };
  ASSERT_TRUE(node->join(space, agent, DhtArc::none()));
  EXPECT_EQ(seen(), 0U) << "this one is meant";
  const auto join = [&] { return node->wait<void>([&](auto done) { space->local_agent_join(agent, done); }); };
  ASSERT_TRUE(join());
  ASSERT_TRUE(join());
  ASSERT_EQ(seen(), 1U);
  EXPECT_NE(warnings[0].find(agent->agent().to_string()), std::string::npos) << warnings[0];
  EXPECT_NE(warnings[0].find("joins space " + kSpace.to_string().substr(0, 8) + "… with an empty target arc"),
            std::string::npos)
      << warnings[0];
  node->stop();
}

TEST(NodeCalls, JoinTakesAnArc) {
  auto node = offline_node();
  auto space = node->space(kSpace).value();
  auto agent = node->agent().value();
  ASSERT_TRUE(node->join(space, agent, DhtArc::none()));
  EXPECT_EQ(node->run([&] { return agent->cur_storage_arc(); }), DhtArc::none());
  ASSERT_TRUE(node->join(space, agent));
  EXPECT_EQ(node->run([&] { return agent->tgt_storage_arc(); }), DhtArc::full());
  EXPECT_EQ(node->join(space, agent, DhtArc(0, 1)).error().code, Errc::invalid_argument);
  EXPECT_EQ(node->join(nullptr, agent).error().code, Errc::invalid_argument);
  EXPECT_EQ(node->join(space, nullptr).error().code, Errc::invalid_argument);
}

// ---------------------------------------------------------------- stopping and starting again

std::uint64_t held(Node& node, Space& space) {
  return node.wait<OpStoreStats>([&](auto done) { space.op_store().stats(done); }).value().ops;
}

TEST(NodeRestart, ANodeStartsAgainAtOnceWhileTheApplicationHoldsTheOldSpace) {
  const Folder folder;
  auto node = offline_node(folder.path);
  auto old_space = node->space(kSpace).value();
  ASSERT_TRUE(node->join(old_space, node->agent().value()));
  ASSERT_TRUE(
      node->wait<ProcessedOps>([&](auto done) { old_space->op_store().process_incoming_ops({make_op(1)}, done); }));
  node->stop();

  auto again = offline_node(folder.path);
  auto space = again->space(kSpace);
  ASSERT_TRUE(space) << space.error().to_string();
  EXPECT_EQ(held(*again, **space), 1U);
  // What is left of the old node answers nothing and harms nobody.
  std::atomic<int> answers{0};
  old_space->op_store().stats([&](const Result<OpStoreStats>&) { ++answers; });
  old_space->op_store().process_incoming_ops({make_op(2)}, [&](const Result<ProcessedOps>&) { ++answers; });
  old_space->peer_store().insert({});
  EXPECT_EQ(held(*again, **space), 1U);
  EXPECT_EQ(answers, 0);
  // And the old node may be destroyed at any time.
  node.reset();
  old_space.reset();
  EXPECT_EQ(held(*again, **space), 1U);
}

TEST(NodeRestart, AStartWaitsForANodeThatStops) {
  const Folder folder;
  auto node = offline_node(folder.path);
  auto space = node->space(kSpace).value();
  // Keeps the strand busy, so that the stop takes some time.
  std::promise<void> go_on;
  node->runtime().post([&] { go_on.get_future().wait(); });
  std::thread stopper([&] { node->stop(); });
  std::thread releaser([&] {
    // Longer than a start waits for a node that does not stop.
    std::this_thread::sleep_for(1s);
    go_on.set_value();
  });
  const auto stops = [&] {
    std::string text(64, '\0');
    const auto file =
        std::unique_ptr<FILE, int (*)(FILE*)>(std::fopen((folder.path / "node.lock").c_str(), "r"), std::fclose);
    text.resize(std::fread(text.data(), 1, text.size(), file.get()));
    return text.find("stopping") != std::string::npos;
  };
  EXPECT_TRUE(testing::poll_until(stops));
  auto again = Node::start({.data_dir = folder.path});
  stopper.join();
  releaser.join();
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_TRUE((*again)->space(kSpace));
}

// ---------------------------------------------------------------- policies and handlers that throw

/// Throws for ops that begin with '!'.
class ThrowingPolicy final : public OpPolicy {
 public:
  Result<OpDescription> describe(ByteView op) const override {
    if (!op.empty() && op[0] == '!') throw std::runtime_error("cannot judge this");
    return make_sha256_policy()->describe(op);
  }
  std::string_view name() const override { return "throwing"; }
};

void throwing_policy_refuses(const std::string& data_dir) {
  auto started = Node::start({.data_dir = data_dir, .policy = std::make_shared<ThrowingPolicy>()});
  ASSERT_TRUE(started) << started.error().to_string();
  Node& node = **started;
  auto space = node.space(kSpace).value();
  const auto stored = node.wait<ProcessedOps>([&](auto done) {
    space->op_store().process_incoming_ops({Bytes::copy_of("good"), Bytes::copy_of("!bad"), Bytes::copy_of("fine")},
                                           done);
  });
  ASSERT_TRUE(stored) << stored.error().to_string();
  EXPECT_EQ(stored->stored.size(), 2U);
  EXPECT_EQ(stored->rejected, 1U);
}

TEST(ThrowingCode, APolicyThatThrowsRefusesTheOpInMemory) { throwing_policy_refuses({}); }

TEST(ThrowingCode, APolicyThatThrowsRefusesTheOpInTheDurableStore) {
  const Folder folder;
  throwing_policy_refuses(folder.path);
}

TEST(ThrowingCode, ACreateSpaceThatThrowsIsAnErrorThatNamesIt) {
  struct Refusing : KitsuneHandler {
    Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId&) override { throw std::logic_error("no room"); }
  };
  auto node = Node::start({.handler = std::make_shared<Refusing>()}).value();
  const auto space = node->space(kSpace);
  ASSERT_FALSE(space);
  EXPECT_EQ(space.error().code, Errc::internal);
  EXPECT_EQ(space.error().message, "KitsuneHandler::create_space threw std::logic_error: no room");
}

TEST(ThrowingCode, AFactoryThatThrowsIsAnErrorThatNamesIt) {
  node_test::Net net;
  node_test::SimNode node(net, "a");
  node.builder.op_store = [](const ModuleContext&) -> Result<std::shared_ptr<OpStore>> {
    throw std::runtime_error("no disk");
  };
  node.kitsune = node.builder.build(*node.runtime).value();
  ASSERT_TRUE(node.kitsune->register_handler(node.app));
  const auto space =
      testing::await<std::shared_ptr<Space>>(net.world, [&](auto done) { node.kitsune->space(kSpace, done); });
  ASSERT_FALSE(space);
  EXPECT_NE(space.error().message.find("the builder's factory for op_store threw std::runtime_error: no disk"),
            std::string::npos)
      << space.error().message;
}

TEST(ThrowingCode, AnAgentWhoseSignThrowsHasNotJoined) {
  struct BadAgent : LocalAgent {
    const AgentId& agent() const override { return id; }
    DhtArc cur_storage_arc() const override { return DhtArc::full(); }
    void set_cur_storage_arc(DhtArc) override {}
    DhtArc tgt_storage_arc() const override { return DhtArc::full(); }
    void set_tgt_storage_arc(DhtArc) override {}
    void on_changed(std::function<void()>) override {}
    Result<Bytes> sign(const AgentInfo&, ByteView) override { throw std::runtime_error("the key is locked"); }
    AgentId id = AgentId(Bytes(std::vector<std::uint8_t>(32, 1)));
  };
  node_test::Net net;
  node_test::SimNode node(net, "a");
  node.start();
  const auto joined = node.join(std::make_shared<BadAgent>());
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().message, "LocalAgent::sign threw std::runtime_error: the key is locked");
}

// ---------------------------------------------------------------- calls that end the program

class CallsDeathTest : public ::testing::Test {
 protected:
  // These start threads.
  CallsDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

/// Runs `f` on the strand. `f` should end the program; if it does not, this returns after a minute.
template <class F>
void on_strand(Node& node, F f) {
  node.runtime().post(f);
  std::this_thread::sleep_for(60s);
}

TEST_F(CallsDeathTest, RunOnTheStrand) {
  EXPECT_DEATH(
      {
        auto node = offline_node();
        on_strand(*node, [&] { node->run([] { return 1; }); });
      },
      "Node::run was called on the strand at .*node_calls_test.cpp:.*must never block");
}

TEST_F(CallsDeathTest, WaitOnTheStrand) {
  EXPECT_DEATH(
      {
        auto node = offline_node();
        on_strand(*node, [&] { static_cast<void>(node->wait<void>([](auto done) { done(Result<void>()); })); });
      },
      "Node::wait was called on the strand at .*node_calls_test.cpp:");
}

TEST_F(CallsDeathTest, OtherBlockingCallsOnTheStrand) {
  const std::pair<const char*, std::function<void(Node&)>> calls[] = {
      {"space", [](Node& node) { static_cast<void>(node.space(kSpace)); }},
      {"agent", [](Node& node) { static_cast<void>(node.agent()); }},
      {"join", [](Node& node) { static_cast<void>(node.join(nullptr, nullptr)); }},
      {"wait_online", [](Node& node) { static_cast<void>(node.wait_online(1s)); }},
      {"stop", [](Node& node) { node.stop(); }},
  };
  for (const auto& [name, call] : calls) {
    EXPECT_DEATH(
        {
          auto node = offline_node();
          on_strand(*node, [&, &f = call] { f(*node); });
        },
        "kitsune2: Node::" + std::string(name) + " was called on the strand, which must never block");
  }
}

TEST_F(CallsDeathTest, ANodeThatIsDestroyedOnItsStrand) {
  EXPECT_DEATH(
      {
        auto node = offline_node();
        on_strand(*node, [&] { node.reset(); });
      },
      "Node::~Node was called on the strand");
}

TEST_F(CallsDeathTest, AHandlerThatIsCalledTwice) {
  EXPECT_DEATH(
      {
        auto node = offline_node();
        static_cast<void>(node->wait<void>([](auto done) {
          done(Result<void>());
          done(Result<void>());
        }));
        std::this_thread::sleep_for(60s);
      },
      "the handler that Node::wait gave out at .*node_calls_test.cpp:.* was called twice");
}

TEST_F(CallsDeathTest, ModulesOffTheStrand) {
  using Call = std::function<void(Node&, Space&)>;
  const Url peer = Url::parse("ws://127.0.0.1:1/abc").value();
  const std::pair<const char*, Call> calls[] = {
      {"Space::send_notify", [&](Node&, Space& s) { s.send_notify(peer, Bytes(), {}); }},
      {"Space::local_agent_join", [](Node&, Space& s) { s.local_agent_join(testing::make_agent(1), {}); }},
      {"Space::current_url", [](Node&, Space& s) { static_cast<void>(s.current_url()); }},
      {"Fetch::request_ops", [&](Node&, Space& s) { s.fetch().request_ops({}, peer, {}); }},
      {"Fetch::stats", [](Node&, Space& s) { static_cast<void>(s.fetch().stats()); }},
      {"Publish::publish_ops", [&](Node&, Space& s) { s.publish().publish_ops({}, peer, {}); }},
      {"Gossip::stats", [](Node&, Space& s) { static_cast<void>(s.gossip().stats()); }},
      {"OpStore::process_incoming_ops", [](Node&, Space& s) { s.op_store().process_incoming_ops({make_op(1)}, {}); }},
      {"a member of OpStore", [](Node&, Space& s) { s.op_store().stats({}); }},
      {"a member of PeerStore", [](Node&, Space& s) { static_cast<void>(s.peer_store().get_all()); }},
      {"a member of PeerMetaStore", [&](Node&, Space& s) { static_cast<void>(s.peer_meta_store().get(peer, "k")); }},
      {"Kitsune::list_spaces", [](Node& n, Space&) { static_cast<void>(n.kitsune().list_spaces()); }},
      {"Transport::stats", [](Node& n, Space&) { static_cast<void>(n.kitsune().transport().stats()); }},
      {"a member of BlockList",
       [&](Node& n, Space&) { static_cast<void>(n.kitsune().blocks().is_peer_blocked(peer)); }},
  };
  for (const auto& [name, call] : calls) {
    EXPECT_DEATH(
        {
          auto node = offline_node();
          auto space = node->space(kSpace).value();
          call(*node, *space);
        },
        "kitsune2: " + std::string(name) + " was called off the strand; call it in Node::run or Node::wait");
  }
}

TEST_F(CallsDeathTest, TheDurableStoresOffTheStrand) {
  const Folder folder;
  const std::pair<const char*, std::function<void(Space&)>> calls[] = {
      {"a member of OpStore", [](Space& s) { s.op_store().process_incoming_ops({make_op(1)}, {}); }},
      {"a member of PeerStore", [](Space& s) { static_cast<void>(s.peer_store().get_all()); }},
  };
  for (const auto& [name, call] : calls) {
    EXPECT_DEATH(
        {
          auto node = offline_node(folder.path);
          auto space = node->space(kSpace).value();
          call(*space);
        },
        "kitsune2: " + std::string(name) + " was called off the strand");
  }
}

TEST_F(CallsDeathTest, ATaskThatThrowsIsNamedByItsType) {
  EXPECT_DEATH(
      {
        auto node = offline_node();
        on_strand(*node, [] { throw std::runtime_error("lost"); });
      },
      "kitsune2: a task on the strand, .*ATaskThatThrowsIsNamedByItsType.*, threw std::runtime_error: lost; a callback "
      "must not throw");
}

TEST_F(CallsDeathTest, AHandlerOfAStoreThatThrows) {
  EXPECT_DEATH(
      {
        const Folder folder;
        auto node = offline_node(folder.path);
        auto space = node->space(kSpace).value();
        on_strand(*node, [&] {
          space->op_store().stats([](const Result<OpStoreStats>&) { throw std::runtime_error("lost"); });
        });
      },
      "a handler given to the op store threw std::runtime_error: lost");
}

TEST_F(CallsDeathTest, AListenerOfFetchThatThrowsIsNamed) {
  EXPECT_DEATH(
      {
        node_test::Net net;
        node_test::SimNode a(net, "a");
        node_test::SimNode b(net, "b");
        a.start();
        b.start();
        const auto ids = a.add_ops(1, 1);
        FetchEvents events;
        events.ops_stored = [](const Url&, const std::vector<StoredOp>&, std::uint64_t) {
          throw std::runtime_error("cannot show it");
        };
        const auto token = b.space->fetch().subscribe(std::move(events));
        b.space->fetch().request_ops(ids, a.url, [](const Result<void>&) {});
        net.world.run_for(1min);
      },
      "kitsune2: a listener of FetchEvents threw std::runtime_error: cannot show it");
}

TEST_F(CallsDeathTest, ACallbackThatThrowsIsNamed) {
  struct Throwing : node_test::App {
    struct Ear : SpaceHandler {
      void recv_notify(const Url&, const SpaceId&, Bytes) override { throw std::runtime_error("cannot show it"); }
    };
    Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId&) override {
      return std::shared_ptr<SpaceHandler>(std::make_shared<Ear>());
    }
  };
  EXPECT_DEATH(
      {
        node_test::Net net;
        node_test::SimNode a(net, "a");
        node_test::SimNode b(net, "b");
        b.app = std::make_shared<Throwing>();
        a.start();
        b.start();
        a.space->send_notify(b.url, Bytes::copy_of("x"), {});
        net.world.run_for(5s);
      },
      "kitsune2: SpaceHandler::recv_notify threw std::runtime_error: cannot show it; a callback must not throw");
}

}  // namespace
}  // namespace kitsune2
