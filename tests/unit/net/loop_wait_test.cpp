// LoopWait.
#include "net/loop_wait.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <thread>

#include <sched.h>

namespace kitsune2::net {
namespace {

/// While it lives, this thread, and threads that it starts, have one processor.
class OneProcessor {
 public:
  OneProcessor() {
    if (::sched_getaffinity(0, sizeof before_, &before_) != 0) return;
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &before_)) continue;
      CPU_SET(cpu, &one);
      break;
    }
    is_set_ = ::sched_setaffinity(0, sizeof one, &one) == 0;
  }
  ~OneProcessor() {
    if (is_set_) ::sched_setaffinity(0, sizeof before_, &before_);
  }
  OneProcessor(const OneProcessor&) = delete;
  OneProcessor& operator=(const OneProcessor&) = delete;
  bool is_set() const { return is_set_; }

 private:
  cpu_set_t before_{};
  bool is_set_ = false;
};

/// The file may be there and say nothing: its first two figures, the times of running and of waiting, stay 0.
bool kernel_counts() {
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    std::ifstream file("/proc/thread-self/schedstat");
    std::uint64_t ran = 0, waited = 0;
    if (!(file >> ran >> waited)) return false;
    if (ran > 0 || waited > 0) return true;
  }
  return false;
}

TEST(LoopWait, GrowsWhileAnotherThreadHasTheProcessor) {
  if (!kernel_counts()) GTEST_SKIP() << "this kernel keeps no such figure";
  const OneProcessor one;
  if (!one.is_set()) GTEST_SKIP() << "the threads cannot be put on one processor";
  LoopWait wait;
  const Duration first = wait.total();
  EXPECT_GE(first, Duration(0));
  std::atomic<bool> over = false;
  std::thread other([&] {
    while (!over) {
    }
  });
  // Each works as long as it may; so one waits while the other one runs.
  Duration last = first;
  for (std::uint64_t i = 0; last < first + std::chrono::milliseconds(20) && i < 1'000'000'000; ++i) {
    if (i % 1'000 == 0) last = wait.total();
  }
  over = true;
  other.join();
  EXPECT_GE(last, first + std::chrono::milliseconds(20));
}

}  // namespace
}  // namespace kitsune2::net
