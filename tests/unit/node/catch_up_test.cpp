// Real nodes over sockets, with SQLite stores for ops and peers, at the default pace of gossip: a node that was away
// gets what it missed within seconds. Before, the time of the last round, kept on disk, delayed that by 3 to 6 minutes.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "kitsune2/node.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/waiters.hpp"

namespace kitsune2 {
namespace {

using namespace std::chrono_literals;
using testing::make_op;
using testing::poll_until;

const SpaceId kCatchUpSpace = SpaceId::from_text("catch-up");

class RealCatchUp : public ::testing::Test {
 protected:
  struct Host {
    std::unique_ptr<Node> node;
    std::shared_ptr<Ed25519LocalAgent> agent;
    std::shared_ptr<Space> space;
  };

  RealCatchUp() {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    dir_ = std::filesystem::temp_directory_path() / ("k2-catch-up-" + std::to_string(::getpid()) + '-' + info->name());
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }
  ~RealCatchUp() override { std::filesystem::remove_all(dir_); }

  Host start(const std::string& name, const std::string& relay) {
    auto node = Node::start({.data_dir = (dir_ / name).string(), .relay = relay});
    EXPECT_TRUE(node) << node.error().to_string();
    Host out{std::move(*node), nullptr, nullptr};
    EXPECT_TRUE(out.node->wait_online(60s));
    out.agent = out.node->agent().value();
    out.agent->set_tgt_storage_arc(DhtArc::full());
    out.space = out.node->space(kCatchUpSpace).value();
    EXPECT_TRUE(out.node->wait<void>([&](auto done) { out.space->local_agent_join(out.agent, done); }));
    return out;
  }
  static void store(Host& host, std::uint64_t first, std::size_t count) {
    std::vector<Bytes> ops;
    for (std::uint64_t i = first; i < first + count; ++i) ops.push_back(make_op(i, 100));
    const auto stored =
        host.node->wait<ProcessedOps>([&](auto done) { host.space->op_store().process_incoming_ops(ops, done); });
    EXPECT_TRUE(stored && stored->stored.size() == count);
  }
  static bool holds(Host& host, std::uint64_t count, std::chrono::milliseconds within = 60s) {
    return poll_until(
        [&] {
          const auto stats = host.node->wait<OpStoreStats>([&](auto done) { host.space->op_store().stats(done); });
          return stats && stats->ops == count;
        },
        within);
  }

  std::filesystem::path dir_;
};

/// At the earlier pace nothing arrived within two minutes of a restart.
TEST_F(RealCatchUp, ANodeThatRestartsHasWhatItMissed) {
  auto relay = Node::start({.listen = "127.0.0.1:0"});
  ASSERT_TRUE(relay);
  const auto addr = (*relay)->relay_url();
  // What is stored before they meet arrives with their first round; nobody publishes.
  auto a = start("a", addr);
  store(a, 1, 20);
  auto b = start("b", addr);
  ASSERT_TRUE(holds(b, 20));
  for (std::uint64_t round = 0; round < 2; ++round) {
    b.node->stop();
    b.space.reset();
    store(a, 1'000 + 100 * round, 20);
    b = start("b", addr);
    EXPECT_TRUE(holds(b, 40 + 20 * round)) << round;
  }
}

/// In dialect 0.2 both have new urls then, and each knows the other at an old one.
TEST_F(RealCatchUp, NodesWhoseRelayWasAwayHaveWhatTheyMissed) {
  auto relay = Node::start({.dialect = Dialect::v0_2, .listen = "127.0.0.1:0"});
  ASSERT_TRUE(relay);
  const auto url = (*relay)->relay_url(), addr = (*relay)->listen_addr();
  auto a = start("a", url);
  store(a, 1, 20);
  auto b = start("b", url);
  ASSERT_TRUE(holds(b, 20));
  const auto old_url = b.node->run([&] { return b.space->current_url(); });
  (*relay)->stop();
  ASSERT_TRUE(poll_until([&] { return !b.node->run([&] { return b.space->current_url(); }); }, 60s));
  store(a, 100, 20);
  store(b, 200, 20);
  relay = Node::start({.dialect = Dialect::v0_2, .listen = addr});
  ASSERT_TRUE(relay) << relay.error().to_string();
  EXPECT_TRUE(holds(a, 60) && holds(b, 60));
  EXPECT_NE(b.node->run([&] { return b.space->current_url(); }), old_url);
}

}  // namespace
}  // namespace kitsune2
