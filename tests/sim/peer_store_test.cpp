// The SQLite peer stores when the power fails.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "sim/relay_peers.hpp"
#include "sim/sim_disk.hpp"

namespace kitsune2::sim {
namespace {

const std::string kPeersPath = "peers.db";
const Url kPeer = Url::parse("ws://relay:1/peer").value();

class PeerStoresOnABadDisk {
 public:
  explicit PeerStoresOnABadDisk(std::uint64_t seed) : world_(seed), disk_(seed), runtime_(world_.make_runtime()) {
    disk_.make_file(kPeersPath);
    open();
  }
  PeerMetaStore& notes() { return *stores_.meta; }
  PeerStore& peers() { return *stores_.peers; }
  testing::SimRuntime& runtime() { return *runtime_; }
  testing::SimWorld& world() { return world_; }
  SimDisk& disk() { return disk_; }
  void lose_power() {
    disk_.cut_power();
    stores_ = {};
    disk_.power_on();
    open();
  }

 private:
  void open() {
    auto opened = sqlite::open_peer_stores(sim_environment(disk_, *runtime_), *runtime_, kSimSpace, kPeersPath,
                                           ed25519_verifier());
    ASSERT_TRUE(opened.has_value()) << opened.error().to_string();
    stores_ = std::move(*opened);
  }

  testing::SimWorld world_;
  SimDisk disk_;
  std::unique_ptr<testing::SimRuntime> runtime_;
  SqlitePeerStores stores_;
};

TEST(SimPeerStores, ANoteThatWasRemovedDoesNotComeBackWithALossOfPower) {
  std::size_t lost = 0;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    PeerStoresOnABadDisk node(seed);
    ASSERT_TRUE(node.notes().put(kPeer, "early", Bytes::copy_of("1"), std::nullopt));
    ASSERT_TRUE(node.notes().put(kPeer, "bookmark", Bytes::copy_of("77"), std::nullopt));
    node.notes().remove(kPeer, "bookmark");
    ASSERT_TRUE(node.notes().put(kPeer, "late", Bytes::copy_of("2"), std::nullopt));
    node.lose_power();
    EXPECT_FALSE(node.notes().get(kPeer, "bookmark")) << seed;
    EXPECT_TRUE(node.notes().get(kPeer, "early")) << seed << ": what was written before is durable, too";
    lost += node.notes().get(kPeer, "late") ? 0 : 1;
  }
  EXPECT_GT(lost, 0U) << "else this disk loses nothing and the test shows nothing";
}

/// Any number of messages of peers cost one transaction per minute.
TEST(SimPeerStores, NotesThatMayWaitAreWrittenTogetherWithinAMinute) {
  PeerStoresOnABadDisk node(1);
  const auto writes = [&] { return node.disk().counters().writes; };
  const auto before = writes();
  for (int i = 0; i < 10'000; ++i)
    ASSERT_TRUE(node.notes().put_soon(kPeer, "count", Bytes::copy_of(std::to_string(i)), std::nullopt));
  EXPECT_EQ(writes(), before);
  node.world().run_for(std::chrono::seconds(59));
  EXPECT_EQ(writes(), before);
  node.world().run_for(std::chrono::seconds(1));
  EXPECT_GT(writes(), before);
  EXPECT_LT(writes(), before + 10);
  const auto after = writes();
  node.world().run_for(std::chrono::minutes(10));
  EXPECT_EQ(writes(), after) << "nothing is left";
}

TEST(SimPeerStores, ALossOfPowerTakesTheLastInfosAndNothingElse) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    PeerStoresOnABadDisk node(seed);
    std::size_t before = 0;
    for (std::uint64_t i = 1; i <= 6; ++i) {
      testing::AgentInfoBuilder builder{.space = kSimSpace, .created_at = node.runtime().wall_now(), .url = kPeer};
      node.peers().insert({builder.sign(*testing::make_agent(i))});
      if (i % 3 != 0) continue;
      node.lose_power();
      const auto left = node.peers().get_all();
      EXPECT_LE(left.size(), i);
      EXPECT_GE(left.size(), before) << "what a start has found stays";
      before = left.size();
    }
  }
}

}  // namespace
}  // namespace kitsune2::sim
