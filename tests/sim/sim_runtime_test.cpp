// The world in virtual time obeys its rules.
#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"
#include "kitsune2/testing/waiters.hpp"

namespace kitsune2 {
namespace {

using namespace std::chrono_literals;
using testing::SimWorld;

TEST(SimWorld, TasksRunByTimeAndThenByOrderOfPosting) {
  SimWorld world;
  auto a = world.make_runtime(), b = world.make_runtime();
  std::vector<int> order;
  a->schedule_after(2s, [&] { order.push_back(5); });
  b->schedule_after(1s, [&] { order.push_back(3); });
  a->schedule_after(1s, [&] {
    order.push_back(4);
    b->post([&] { order.push_back(40); });
  });
  b->post([&] { order.push_back(1); });
  a->schedule(Time(-5s), [&] { order.push_back(2); });
  EXPECT_TRUE(order.empty());
  EXPECT_TRUE(world.run_until_idle());
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3, 4, 40, 5}));
  EXPECT_EQ(world.now(), Time(2s));
}

TEST(SimWorld, TimeJumpsToDeadlinesAndNeverPastOne) {
  SimWorld world;
  auto runtime = world.make_runtime();
  std::vector<Duration> times;
  for (const auto d : {1h, 2h, 3h}) {
    runtime->schedule_after(d, [&] { times.push_back(world.now().time_since_epoch()); });
  }
  EXPECT_EQ(world.run_ready(), 0U);
  EXPECT_TRUE(world.step_to_next_deadline());
  EXPECT_EQ(times, (std::vector<Duration>{1h}));
  world.run_until(Time(2h - 1us));
  EXPECT_EQ(times.size(), 1U);
  world.run_for(1us);
  EXPECT_EQ(times.size(), 2U);
  EXPECT_FALSE(world.run_until([] { return false; }, 30min));
  EXPECT_EQ(times.size(), 2U);
  EXPECT_TRUE(world.run_until([&] { return times.size() == 3; }, 2h));
  EXPECT_FALSE(world.step_to_next_deadline());
}

TEST(SimWorld, CancelledTimersDoNotRun) {
  SimWorld world;
  auto runtime = world.make_runtime();
  int ran = 0;
  const auto timer = runtime->schedule_after(1s, [&] { ++ran; });
  const auto other = runtime->schedule_after(1s, [&] { ++ran; });
  runtime->cancel(timer);
  runtime->cancel(timer);
  runtime->cancel(0);
  world.run_for(1min);
  runtime->cancel(other);
  EXPECT_EQ(ran, 1);
}

TEST(SimWorld, ACrashedNodeDoesNothingMore) {
  SimWorld world;
  auto node = world.make_runtime(), other = world.make_runtime();
  int ran = 0;
  const auto held = std::make_shared<int>(0);
  node->post([&, held] { ++ran; });
  node->schedule_after(1s, [&, held] { ++ran; });
  other->post([&] { node->crash(); });
  other->schedule_after(2s, [&] { ran += 100; });
  // The node's task is older than the crash, and runs.
  world.run_ready();
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(held.use_count(), 1) << "what its tasks held is gone";
  EXPECT_TRUE(node->crashed());
  node->post([&, held] { ++ran; });
  node->schedule_after(1s, [&] { ++ran; });
  EXPECT_EQ(held.use_count(), 1);
  world.run_for(1min);
  EXPECT_EQ(ran, 101);
}

TEST(SimWorld, SameSeedSameTrace) {
  const auto run = [](std::uint64_t seed) {
    SimWorld world(seed);
    auto a = world.make_runtime(), b = world.make_runtime();
    std::function<void(int)> next = [&](int left) {
      if (left == 0) return;
      std::array<std::uint8_t, 3> bytes{};
      (world.random(2) == 0 ? a : b)->random_bytes(bytes);
      world.trace(bytes);
      a->schedule_after(Duration(1 + bytes[0]), [&, left] { next(left - 1); });
    };
    next(100);
    world.run_until_idle();
    return world.trace_hash();
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

TEST(SimWorld, WallClocksMayBeSetAndMayDiffer) {
  SimWorld world;
  auto a = world.make_runtime(), b = world.make_runtime();
  EXPECT_EQ(a->wall_now().to_string().substr(0, 10), "2026-01-01");
  world.run_for(1h);
  world.set_wall_now(Timestamp::from_seconds(1000));
  b->set_wall_skew(-3s);
  world.run_for(2s);
  EXPECT_EQ(a->wall_now(), Timestamp::from_seconds(1002));
  EXPECT_EQ(b->wall_now(), Timestamp::from_seconds(999));
}

TEST(SimWorld, WaitsForPostsOfRealThreads) {
  SimWorld world;
  auto runtime = world.make_runtime();
  bool timer_ran = false, posted = false;
  runtime->schedule_after(1us, [&] { timer_ran = true; });
  std::thread thread([&] { runtime->post([&] { posted = true; }); });
  EXPECT_TRUE(world.wait_for([&] { return posted; }));
  thread.join();
  EXPECT_FALSE(timer_ran) << "no virtual time passes";
  EXPECT_FALSE(world.wait_for([] { return false; }, 1ms));
}

}  // namespace
}  // namespace kitsune2
