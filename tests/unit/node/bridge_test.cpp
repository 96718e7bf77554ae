// The example of a bridge: ops pass between two networks of different dialects, and each comes once.
#include "../../../examples/bridge.hpp"

#include <gtest/gtest.h>

#include "unit/node/node_harness.hpp"

namespace kitsune2::node_test {
namespace {

/// A network of a dialect, with a node of the bridge and another one.
struct Side {
  Side(std::uint64_t seed, Dialect dialect) : net(seed), bridge(net, "bridge"), other(net, "other") {
    for (SimNode* node : {&bridge, &other}) {
      node->builder.bootstrap = default_test_builder(net.network, "any", make_prefix_policy()).bootstrap;
      node->builder.config.network.dialect = dialect;
      node->start();
      EXPECT_TRUE(node->join(make_agent(seed + (node == &bridge ? 0 : 10))));
    }
    net.world.run_for(10s);
  }
  OneWay::Side end() { return {*bridge.runtime, bridge.space}; }

  Net net;
  SimNode bridge, other;
};

TEST(Bridge, OpsPassBothWaysAndNothingGoesRound) {
  Side older(1, Dialect::v0_2), newer(2, Dialect::v0_5);
  const auto run_until = [&](const std::function<bool()>& done) {
    // Two worlds, each with a clock of its own.
    for (int i = 0; i < 600 && !done(); ++i) {
      older.net.world.run_for(100ms);
      newer.net.world.run_for(100ms);
    }
    return done();
  };
  older.bridge.add_ops(1, 700);  // held before the start, several batches
  auto there = OneWay::start(older.end(), newer.end());
  auto back = OneWay::start(newer.end(), older.end());
  ASSERT_TRUE(run_until([&] { return newer.other.held() == 700; })) << newer.bridge.held() << " at the bridge";

  const auto ids = newer.other.add_ops(5000, 20);
  ASSERT_TRUE(await<void>(newer.net.world,
                          [&](auto done) { newer.other.space->publish().publish_ops(ids, newer.bridge.url, done); }));
  ASSERT_TRUE(run_until([&] { return older.other.held() == 20; })) << older.bridge.held() << " at the bridge";
  EXPECT_EQ(older.bridge.held(), 720U);
  EXPECT_EQ(newer.bridge.held(), 720U);
  EXPECT_EQ(newer.bridge.space->publish().stats().ops_sent, 700U) << "what came from there is not told back";
  EXPECT_EQ(older.bridge.space->publish().stats().ops_sent, 20U);

  there.reset();
  older.bridge.add_ops(9000, 5);
  EXPECT_FALSE(run_until([&] { return newer.bridge.held() != 720; })) << "it has ended";
  back.reset();
}

}  // namespace
}  // namespace kitsune2::node_test
