// The runtime of benchmarks of stores.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>

#include "kitsune2/runtime.hpp"

namespace kitsune2::bench {

/// A strand whose tasks run on the benchmark's own thread.
class BenchRuntime final : public Runtime {
 public:
  Time now() const override { return {}; }
  Timestamp wall_now() const override {
    return {std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
                .count()};
  }
  void post(Task task) override {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_one();
  }
  TimerId schedule(Time /*at*/, Task /*task*/) override { std::abort(); }
  void cancel(TimerId /*timer*/) override {}
  void random_bytes(std::span<std::uint8_t> out) override { std::fill(out.begin(), out.end(), 0); }

  void run_one() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !tasks_.empty(); });
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
  }
  void run_until(const bool& done) {
    while (!done) run_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
};

}  // namespace kitsune2::bench
