// What the end of a send promises (Transport::send_module), wherever the connection dies.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "fake_relay.hpp"

namespace kitsune2::tests {
namespace {

using testing::SimWorld;

/// Two nodes; `a` sends a small, a large and a small message. After `n` tasks of the world `cut` happens.
struct Sends {
  Sends(std::uint64_t n, const std::function<void(Sends&)>& cut) : world(n + 1) {
    world.run_for(seconds(1));
    const Url from = a.url(), to = b.url();
    for (const std::string& message : messages) a.send(to, message);
    const std::uint64_t begin = world.tasks_run();
    was_cut = world.run_until([&] { return world.tasks_run() >= begin + n; }, seconds(100)) && a.results.size() < 3;
    if (was_cut) cut(*this);
    world.run_for(seconds(200));
    arrived = b.events.messages_from(from);
  }

  const std::vector<std::string> messages{"first", filled(50'000), "last"};
  SimWorld world;
  FakeRelay relay{world, "ws://relay:80"};
  TestNode a{world, {&relay}}, b{world, {&relay}};
  bool was_cut = false;
  std::vector<std::string> arrived;
};

void expect_promises(const std::function<void(Sends&)>& cut) {
  std::uint64_t cuts = 0, failed = 0;
  for (std::uint64_t n = 0; n < 400; ++n) {
    Sends run(n, cut);
    if (!run.was_cut) break;
    cuts += 1;
    ASSERT_EQ(run.a.results.size(), 3U) << n << ": each send completes exactly once";
    for (std::size_t i = 0; i < run.messages.size(); ++i) {
      // Sends of equal sizes complete in order; the small ones may fail together, the large one between them.
      if (run.a.results[i].has_value()) continue;
      failed += 1;
      EXPECT_EQ(std::count(run.arrived.begin(), run.arrived.end(), run.messages[i]), 0)
          << n << ": message " << i << " failed (" << run.a.results[i].error().to_string() << "), and has arrived";
    }
    EXPECT_EQ(run.a.events.violations + run.b.events.violations, 0) << n;
  }
  EXPECT_GT(cuts, 20U);
  EXPECT_GT(failed, 20U) << "nothing was cut off, so nothing is shown";
}

TEST(Tx5Send, AMessageThatFailsBecauseTheRelayIsLostNeverArrives) {
  expect_promises([](Sends& run) { run.relay.cut(); });
}

TEST(Tx5Send, AMessageThatFailsBecauseThePeerLeavesNeverArrives) {
  expect_promises([](Sends& run) { run.b.transport->disconnect(run.a.url(), {}, {}); });
}

TEST(Tx5Send, AMessageThatFailsBecauseThisSideClosesNeverArrives) {
  expect_promises([](Sends& run) { run.a.transport->disconnect(run.b.url(), {}, {}); });
}

}  // namespace
}  // namespace kitsune2::tests
