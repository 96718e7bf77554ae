// The back-off of a peer: its intervals, and what counts as a failure.
#include "core/fetch/back_off.hpp"

#include <gtest/gtest.h>

namespace kitsune2 {
namespace {

using Verdict = BackOff::Verdict;

constexpr Time kStart{Duration(1'000'000)};
Duration seconds(std::int64_t n) { return Duration(n * 1'000'000); }
BackOffPolicy policy(std::int64_t first, std::int64_t last, std::uint32_t count) {
  return {seconds(first), seconds(last), count};
}

TEST(BackOffPolicy, DoublesUpToTheLast) {
  const BackOffPolicy defaults;
  EXPECT_EQ(defaults.interval(0), seconds(20));
  EXPECT_EQ(defaults.interval(1), seconds(40));
  EXPECT_EQ(defaults.interval(2), seconds(80));
  EXPECT_EQ(defaults.interval(3), seconds(160));
  EXPECT_EQ(defaults.interval(5), seconds(600));
  EXPECT_EQ(defaults.interval(63), seconds(600));
  EXPECT_EQ(policy(30, 30, 2).interval(1), seconds(30));
  // As in the reference, only doubled intervals are cut.
  EXPECT_EQ(policy(50, 30, 2).interval(0), seconds(50));
  EXPECT_EQ(policy(50, 30, 2).interval(1), seconds(30));
}

TEST(BackOff, RunsUntilItsEnd) {
  BackOff back_off;
  EXPECT_FALSE(back_off.any());
  EXPECT_FALSE(back_off.is_running(kStart));
  EXPECT_EQ(back_off.on_failed(policy(20, 600, 4), kStart, kStart), Verdict::backed_off);
  EXPECT_TRUE(back_off.any());
  EXPECT_EQ(back_off.until(), kStart + seconds(20));
  EXPECT_TRUE(back_off.is_running(kStart));
  EXPECT_TRUE(back_off.is_running(kStart + seconds(20) - Duration(1)));
  EXPECT_FALSE(back_off.is_running(kStart + seconds(20)));
}

TEST(BackOff, FailuresOfWhatWasBegunBeforeDoNotCount) {
  BackOff back_off;
  const BackOffPolicy p = policy(20, 600, 4);
  back_off.on_failed(p, kStart, kStart);
  EXPECT_EQ(back_off.on_failed(p, kStart, kStart + seconds(1)), Verdict::ignored);
  EXPECT_EQ(back_off.on_failed(p, kStart, kStart + seconds(500)), Verdict::ignored);
  EXPECT_EQ(back_off.until(), kStart + seconds(20));
  EXPECT_EQ(back_off.failures(), 1U);
}

TEST(BackOff, GivesUpAfterTheLastInterval) {
  BackOff back_off;
  const BackOffPolicy p = policy(20, 600, 3);
  Time now = kStart;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(back_off.on_failed(p, now, now), Verdict::backed_off);
    now = back_off.until();
  }
  EXPECT_EQ(now, kStart + seconds(20 + 40 + 80));
  EXPECT_EQ(back_off.on_failed(p, now - Duration(1), now), Verdict::ignored);
  EXPECT_EQ(back_off.on_failed(p, now, now), Verdict::give_up);
  EXPECT_EQ(back_off.failures(), 3U);
}

TEST(BackOff, ASuccessStartsFromTheBeginning) {
  BackOff back_off;
  const BackOffPolicy p = policy(20, 600, 2);
  back_off.on_failed(p, kStart, kStart);
  back_off.clear();
  EXPECT_FALSE(back_off.any());
  EXPECT_FALSE(back_off.is_running(kStart));
  EXPECT_EQ(back_off.on_failed(p, kStart, kStart), Verdict::backed_off);
  EXPECT_EQ(back_off.until(), kStart + seconds(20));
}

}  // namespace
}  // namespace kitsune2
