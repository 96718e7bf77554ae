// Turns of many workers on few threads.
#include "store/sqlite/shared_threads.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace kitsune2::sqlite {
namespace {

using std::chrono::milliseconds;

/// A worker that counts what it is asked to do, and finds turns that overlap.
struct Counter {
  explicit Counter(SharedThreads& threads) : worker(threads.make_worker([this](bool) { return turn(); })) {}
  ~Counter() {
    ends = true;
    worker->wake();
    worker.reset();
  }
  Worker::Pause turn() {
    EXPECT_EQ(inside.fetch_add(1), 0);
    plain += asked.exchange(0);
    const bool end = ends && asked == 0;
    EXPECT_EQ(inside.fetch_sub(1), 1);
    return end ? Worker::Wait::end : Worker::Wait::wake;
  }
  std::atomic<int> asked = 0, inside = 0;
  std::atomic<bool> ends = false;
  int plain = 0;  ///< of the turns: nothing but their order guards it
  std::unique_ptr<Worker> worker;
};

TEST(SharedThreads, NoWakeIsLostAndTurnsOfAWorkerDoNotOverlap) {
  const auto threads = std::make_shared<SharedThreads>(4);
  constexpr int kAsked = 2'000;
  std::vector<std::unique_ptr<Counter>> workers;
  for (int i = 0; i < 50; ++i) workers.push_back(std::make_unique<Counter>(*threads));
  std::vector<std::thread> askers;
  for (int a = 0; a < 3; ++a) {
    askers.emplace_back([&, a] {
      for (int i = 0; i < kAsked; ++i) {
        Counter& counter = *workers[static_cast<std::size_t>(i * 7 + a) % workers.size()];
        ++counter.asked;
        counter.worker->wake();
      }
    });
  }
  for (std::thread& asker : askers) asker.join();
  int done = 0;
  for (auto& counter : workers) {
    counter->ends = true;
    counter->worker->wake();
    counter->worker.reset();  // waits for the end
    done += counter->plain;
    counter->worker = threads->make_worker([](bool) { return Worker::Wait::end; });
  }
  EXPECT_EQ(done, 3 * kAsked);
  EXPECT_LE(threads->threads(), 4U);
  EXPECT_GE(threads->threads(), 1U);
}

TEST(SharedThreads, ATurnThatBlocksHoldsUpNoOtherWorker) {
  const auto threads = std::make_shared<SharedThreads>(2);
  std::promise<void> go;
  auto slow = threads->make_worker([&, first = true](bool) mutable -> Worker::Pause {
    if (std::exchange(first, false)) go.get_future().wait();
    return Worker::Wait::end;
  });
  std::promise<void> done;
  auto quick = threads->make_worker([&](bool) -> Worker::Pause {
    done.set_value();
    return Worker::Wait::end;
  });
  done.get_future().wait();
  go.set_value();
}

TEST(SharedThreads, AWorkerThatIsAlwaysDueTakesTurnsWithOthers) {
  const auto threads = std::make_shared<SharedThreads>(1);
  std::atomic<bool> stop = false;
  auto busy =
      threads->make_worker([&](bool) -> Worker::Pause { return stop ? Worker::Wait::end : Worker::Wait::nothing; });
  {
    Counter other(*threads);
    ++other.asked;
    other.worker->wake();
  }
  stop = true;
}

TEST(SharedThreads, AWorkerThatWaitsForATimeIsWokenBeforeIt) {
  const auto threads = std::make_shared<SharedThreads>(2);
  std::promise<void> begun;
  std::promise<bool> told;
  auto worker = threads->make_worker([&, turn = 0](bool idle) mutable -> Worker::Pause {
    if (turn++ == 0) {
      begun.set_value();
      return {Worker::Wait::wake_or_idle, std::chrono::hours(1)};
    }
    told.set_value(idle);
    return Worker::Wait::end;
  });
  begun.get_future().wait();
  worker->wake();  // during the turn, or after it
  EXPECT_FALSE(told.get_future().get());
}

TEST(SharedThreads, TimePassesWithoutAWake) {
  const auto threads = std::make_shared<SharedThreads>(1);
  std::promise<bool> told;
  auto worker = threads->make_worker([&, turn = 0](bool idle) mutable -> Worker::Pause {
    if (turn++ == 0) return {Worker::Wait::wake_or_idle, milliseconds(1)};
    told.set_value(idle);
    return Worker::Wait::end;
  });
  EXPECT_TRUE(told.get_future().get());
}

TEST(SharedThreads, EndWithTheLastWorker) {
  std::weak_ptr<SharedThreads> known;
  {
    const auto threads = std::make_shared<SharedThreads>(2);
    known = threads;
    const auto first = std::make_shared<Counter>(*threads);
    const Counter second(*threads);
  }
  EXPECT_TRUE(known.expired());
}

}  // namespace
}  // namespace kitsune2::sqlite
