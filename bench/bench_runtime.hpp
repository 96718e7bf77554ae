// The runtime of benchmarks of stores.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "kitsune2/runtime.hpp"

namespace kitsune2::bench {

/// A strand whose tasks and timers run on the benchmark's own thread.
class BenchRuntime final : public Runtime {
 public:
  Time now() const override {
    return Time(std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch()));
  }
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
  TimerId schedule(Time at, Task task) override {
    timers_.emplace(std::pair(at, ++last_timer_), std::move(task));
    return last_timer_;
  }
  void cancel(TimerId timer) override {
    std::erase_if(timers_, [&](const auto& entry) { return entry.first.second == timer; });
  }
  void random_bytes(std::span<std::uint8_t> out) override { std::fill(out.begin(), out.end(), 0); }

  void run_one() {
    std::unique_lock lock(mutex_);
    const auto has_task = [this] { return !tasks_.empty(); };
    if (timers_.empty()) {
      changed_.wait(lock, has_task);
    } else {
      const auto first = timers_.begin()->first.first;
      if (!changed_.wait_for(lock, std::chrono::microseconds(first - now()), has_task)) {
        lock.unlock();
        const Task task = std::move(timers_.extract(timers_.begin()).mapped());
        return task();
      }
    }
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
  std::map<std::pair<Time, TimerId>, Task> timers_;  ///< for the benchmark's thread
  TimerId last_timer_ = 0;
};

}  // namespace kitsune2::bench
