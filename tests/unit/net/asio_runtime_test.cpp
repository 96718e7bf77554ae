// The real runtime: order, timers, threads, and stopping.
#include "kitsune2/asio_runtime.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "support/sockets.hpp"

namespace kitsune2 {
namespace {

using test::Inbox;
using test::Loop;

TEST(AsioRuntime, TasksRunInOrderOfPostingOnOneThread) {
  std::vector<int> order;
  Loop loop;
  for (int i = 0; i < 1000; ++i) {
    loop.post([&, i] {
      EXPECT_TRUE(loop.on_strand());
      order.push_back(i);
    });
  }
  ASSERT_TRUE(loop.call([] {}));
  ASSERT_EQ(order.size(), 1000U);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  EXPECT_FALSE(loop.on_strand());
}

TEST(AsioRuntime, PostsOfManyThreadsAllRunAndKeepEachThreadsOrder) {
  constexpr int kThreads = 4;
  constexpr int kEach = 5000;
  std::vector<std::vector<int>> seen(kThreads);
  Loop loop;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kEach; ++i) loop.post([&, t, i] { seen[static_cast<std::size_t>(t)].push_back(i); });
      });
    }
  }
  ASSERT_TRUE(loop.call([] {}));
  for (const auto& list : seen) {
    ASSERT_EQ(list.size(), static_cast<std::size_t>(kEach));
    for (int i = 0; i < kEach; ++i) EXPECT_EQ(list[static_cast<std::size_t>(i)], i);
  }
}

TEST(AsioRuntime, APostFromATaskRunsLaterNotInside) {
  std::vector<int> order;
  Inbox<int> done;
  Loop loop;
  loop.post([&] {
    loop.post([&] {
      order.push_back(2);
      done.push(0);
    });
    order.push_back(1);
  });
  ASSERT_TRUE(done.next());
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(AsioRuntime, TimersRunInOrderOfTimeThenScheduling) {
  Inbox<int> order;
  Loop loop;
  loop.call([&] {
    const Time base = loop.now() + std::chrono::milliseconds(20);
    loop.schedule(base + std::chrono::milliseconds(2), [&] { order.push(3); });
    loop.schedule(base, [&] { order.push(1); });
    loop.schedule(base, [&] { order.push(2); });
    loop.schedule(base + std::chrono::milliseconds(4), [&] { order.push(4); });
  });
  for (int i = 1; i <= 4; ++i) EXPECT_EQ(order.next(), i);
}

TEST(AsioRuntime, ATimerInThePastRunsAtOnceButNotInsideTheCall) {
  Inbox<int> order;
  Loop loop;
  loop.call([&] {
    loop.schedule(Time::min(), [&] { order.push(2); });
    order.push(1);
  });
  EXPECT_EQ(order.next(), 1);
  EXPECT_EQ(order.next(), 2);
}

TEST(AsioRuntime, ATimerAtTheEndOfTimeDoesNoHarm) {
  Inbox<int> ran;
  Loop loop;
  loop.call([&] {
    loop.schedule(Time::max(), [&] { ran.push(0); });
    loop.schedule_after(std::chrono::milliseconds(1), [&] { ran.push(1); });
  });
  EXPECT_EQ(ran.next(), 1);
  EXPECT_EQ(ran.size(), 0U);
}

TEST(AsioRuntime, ATimerThatSchedulesAPastTimerDoesNotStarveTheLoop) {
  std::atomic<bool> stop{false};
  std::atomic<int> rounds{0};
  std::function<void()> again;  // outlives the loop that calls it
  Loop loop;
  again = [&] {
    ++rounds;
    if (!stop) loop.schedule(loop.now(), [&] { again(); });
  };
  loop.post([&] { again(); });
  EXPECT_TRUE(loop.call([] {}));  // would never have its turn
  stop = true;
  EXPECT_TRUE(loop.call([] {}));
  EXPECT_GE(rounds, 1);
}

TEST(AsioRuntime, ACancelledTimerDoesNotRunAndCancelIsForgiving) {
  Inbox<int> ran;
  Loop loop;
  loop.call([&] {
    const auto keep = loop.schedule_after(std::chrono::milliseconds(5), [&] { ran.push(1); });
    const auto gone = loop.schedule_after(std::chrono::milliseconds(1), [&] { ran.push(0); });
    EXPECT_NE(keep, 0U);
    loop.cancel(gone);
    loop.cancel(gone);
    loop.cancel(0);
    loop.cancel(123456);
  });
  EXPECT_EQ(ran.next(), 1);
  EXPECT_EQ(ran.size(), 0U);
}

TEST(AsioRuntime, ATimerCanCancelAnotherThatIsDueAtTheSameTime) {
  Inbox<int> ran;
  Loop loop;
  loop.call([&] {
    const Time at = loop.now() + std::chrono::milliseconds(2);
    auto second = std::make_shared<Runtime::TimerId>(0);
    loop.schedule(at, [&, second] {
      loop.cancel(*second);
      ran.push(1);
    });
    *second = loop.schedule(at, [&] { ran.push(2); });
    loop.schedule(at + std::chrono::milliseconds(1), [&] { ran.push(3); });
  });
  EXPECT_EQ(ran.next(), 1);
  EXPECT_EQ(ran.next(), 3);
}

TEST(AsioRuntime, ManyCancelledTimersAreSwept) {
  int ran = 0;
  Loop loop;
  loop.call([&] {
    for (int i = 0; i < 200'000; ++i) {
      loop.cancel(loop.schedule_after(std::chrono::hours(1), [&] { ++ran; }));
    }
  });
  Inbox<int> done;
  loop.call([&] { loop.schedule_after(std::chrono::milliseconds(1), [&] { done.push(1); }); });
  EXPECT_TRUE(done.next());
  EXPECT_EQ(ran, 0);
}

TEST(AsioRuntime, StopDestroysWaitingTasksAndDropsLaterOnes) {
  auto token = std::make_shared<int>(1);
  {
    AsioRuntime loop;
    loop.start();
    loop.call([&] { loop.schedule_after(std::chrono::hours(1), [token] {}); });
    EXPECT_EQ(token.use_count(), 2);
    loop.stop();
    EXPECT_EQ(token.use_count(), 1);
    loop.post([token] {});
    loop.schedule(Time{}, [token] {});
    EXPECT_EQ(token.use_count(), 1);
    EXPECT_FALSE(loop.call([] {}));
    loop.stop();
    loop.start();  // no effect, because it was stopped
    EXPECT_FALSE(loop.call([] {}));
  }
}

TEST(AsioRuntime, TasksPostedBeforeTheStartRunThen) {
  AsioRuntime loop;
  bool ran = false;
  loop.post([&] { ran = true; });
  EXPECT_FALSE(loop.call([] {}));
  loop.start();
  EXPECT_TRUE(loop.call([] {}));
  EXPECT_TRUE(ran);
}

TEST(AsioRuntime, ClocksAndRandomness) {
  Loop loop;
  loop.call([&] {
    const Time a = loop.now();
    EXPECT_LE(a, loop.now());
  });
  EXPECT_GT(loop.wall_now(), Timestamp::from_seconds(1'700'000'000));
  std::array<std::uint8_t, 32> x{};
  std::array<std::uint8_t, 32> y{};
  loop.random_bytes(x);
  loop.random_bytes(y);
  EXPECT_NE(x, y);
}

}  // namespace
}  // namespace kitsune2
