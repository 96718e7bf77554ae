// The back-off of a peer: its intervals, and what counts as a failure.
#include "core/fetch/back_off.hpp"

#include <gtest/gtest.h>

namespace kitsune2 {
namespace {

using Verdict = BackOff::Verdict;

constexpr Time kStart{Duration(1'000'000)};
Duration of_seconds(std::int64_t n) { return Duration(n * 1'000'000); }
BackOffPolicy policy(std::int64_t first, std::int64_t last, std::uint32_t count) {
  return {of_seconds(first), of_seconds(last), count};
}

TEST(BackOffPolicy, DoublesUpToTheLast) {
  const BackOffPolicy defaults;
  EXPECT_EQ(defaults.interval(0), of_seconds(20));
  EXPECT_EQ(defaults.interval(1), of_seconds(40));
  EXPECT_EQ(defaults.interval(2), of_seconds(80));
  EXPECT_EQ(defaults.interval(3), of_seconds(160));
  EXPECT_EQ(defaults.interval(5), of_seconds(600));
  EXPECT_EQ(defaults.interval(63), of_seconds(600));
  EXPECT_EQ(policy(30, 30, 2).interval(1), of_seconds(30));
  // As in the reference, only doubled intervals are cut.
  EXPECT_EQ(policy(50, 30, 2).interval(0), of_seconds(50));
  EXPECT_EQ(policy(50, 30, 2).interval(1), of_seconds(30));
}

TEST(BackOff, RunsUntilItsEnd) {
  BackOff back_off;
  EXPECT_FALSE(back_off.any());
  EXPECT_FALSE(back_off.is_running(kStart));
  EXPECT_EQ(back_off.on_failed(policy(20, 600, 4), kStart, kStart), Verdict::backed_off);
  EXPECT_TRUE(back_off.any());
  EXPECT_EQ(back_off.until(), kStart + of_seconds(20));
  EXPECT_TRUE(back_off.is_running(kStart));
  EXPECT_TRUE(back_off.is_running(kStart + of_seconds(20) - Duration(1)));
  EXPECT_FALSE(back_off.is_running(kStart + of_seconds(20)));
}

TEST(BackOff, FailuresOfWhatWasBegunBeforeDoNotCount) {
  BackOff back_off;
  const BackOffPolicy p = policy(20, 600, 4);
  back_off.on_failed(p, kStart, kStart);
  EXPECT_EQ(back_off.on_failed(p, kStart, kStart + of_seconds(1)), Verdict::ignored);
  EXPECT_EQ(back_off.on_failed(p, kStart, kStart + of_seconds(500)), Verdict::ignored);
  EXPECT_EQ(back_off.until(), kStart + of_seconds(20));
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
  EXPECT_EQ(now, kStart + of_seconds(20 + 40 + 80));
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
  EXPECT_EQ(back_off.until(), kStart + of_seconds(20));
}

}  // namespace
}  // namespace kitsune2
