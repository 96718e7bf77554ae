// docs/guide.md, "A test in virtual time".
#include "guide_node.hpp"

namespace guide {

// guide: virtual time
TEST(Guide, AnOpArrivesWhenTheLineIsBack) {
  SimWorld world(1);  // the seed: the same seed gives the same run
  auto network = MemoryNetwork::create({.link = {.latency = 20ms}});
  SimNode alice(world, default_test_builder(network, "alice"));
  SimNode bob(world, default_test_builder(network, "bob"));
  const Url to_alice = MemoryNetwork::url_of("alice");
  const Url to_bob = MemoryNetwork::url_of("bob");

  // Alice stores an op and tells Bob, whose node asks for it.
  const auto stored = await<ProcessedOps>(
      world, [&](auto done) { alice.space->op_store().process_incoming_ops({Bytes::copy_of("one")}, done); });
  await<void>(world, [&](auto done) {
    alice.space->publish().publish_ops(stored->newly_stored, to_bob, done);
  }).value();
  world.run_for(1s);
  EXPECT_EQ(ops_held(world, bob), 1U);

  // The line goes down. Bob's host asks for a second op, and Bob's node keeps trying.
  network->set_reachable(to_alice, to_bob, false);
  const auto second = await<ProcessedOps>(
      world, [&](auto done) { alice.space->op_store().process_incoming_ops({Bytes::copy_of("two")}, done); });
  await<void>(world, [&](auto done) { bob.space->fetch().request_ops(second->newly_stored, to_alice, done); }).value();
  world.run_for(1min);
  EXPECT_EQ(ops_held(world, bob), 1U);
  EXPECT_EQ(bob.space->fetch().pending_ops(), 1U);

  network->heal();
  EXPECT_TRUE(world.run_until([&] { return bob.space->fetch().pending_ops() == 0; }, 10min));
  EXPECT_EQ(ops_held(world, bob), 2U);
}
// guide: end

}  // namespace guide
