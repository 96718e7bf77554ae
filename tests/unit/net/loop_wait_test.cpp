// LoopWait.
#include "net/loop_wait.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include <sched.h>
#include <unistd.h>

namespace kitsune2::net {
namespace {

TEST(LoopWait, GrowsWhileAnotherThreadHasTheProcessor) {
  if (::access("/proc/thread-self/schedstat", R_OK) != 0) GTEST_SKIP() << "this kernel keeps no such figure";
  cpu_set_t before, one;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &before)) continue;
    CPU_SET(cpu, &one);
    break;
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);  // the other thread inherits it
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
  ::sched_setaffinity(0, sizeof before, &before);
  EXPECT_GE(last, first + std::chrono::milliseconds(20));
}

}  // namespace
}  // namespace kitsune2::net
