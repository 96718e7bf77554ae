// The back-off of a node that has lost its relay.
#include "transport/sbd/reconnect.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "unit/transport/start.hpp"

namespace kitsune2::sbd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

using tests::kStart;
constexpr std::uint32_t kLeast = 0, kMost = UINT32_MAX;
const ReconnectLimits kLimits;

TEST(Reconnect, WaitsDoubleToEightSecondsAndNoFurther) {
  Reconnect shortest(kLimits), longest(kLimits);
  Duration whole = milliseconds(250);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(shortest.on_lost(kStart, kLeast) - kStart, whole / 2) << i;
    const Duration most = longest.on_lost(kStart, kMost) - kStart;
    EXPECT_LE(most, whole) << i;
    EXPECT_GT(most, whole - milliseconds(1)) << i;
    whole = std::min<Duration>(whole * 2, seconds(8));
  }
}

TEST(Reconnect, OnlyAConnectionThatLastedStartsTheWaitsAnew) {
  Reconnect back_off(kLimits);
  for (int i = 0; i < 10; ++i) back_off.on_lost(kStart, kMost);
  back_off.on_connected(kStart);
  EXPECT_GE(back_off.on_lost(kStart + kLimits.stable_after - milliseconds(1), kLeast) - kStart, seconds(4));
  back_off.on_connected(kStart);
  const Time later = kStart + kLimits.stable_after;
  EXPECT_LE(back_off.on_lost(later, kMost) - later, kLimits.first);
}

TEST(Reconnect, ASignCutsAWaitOnceInAWhile) {
  Reconnect back_off(kLimits);
  EXPECT_EQ(back_off.on_sign_of_life(kStart, kMost), std::nullopt) << "nothing is lost";
  for (int i = 0; i < 10; ++i) back_off.on_lost(kStart, kMost);
  const auto soon = back_off.on_sign_of_life(kStart, kMost);
  ASSERT_TRUE(soon);
  EXPECT_LE(*soon - kStart, kLimits.sign_spread);
  EXPECT_EQ(back_off.on_sign_of_life(kStart, kLeast), std::nullopt);
  EXPECT_GE(back_off.on_lost(kStart, kLeast) - kStart, seconds(4)) << "the doubling went on";
  EXPECT_EQ(back_off.on_sign_of_life(kStart, kLeast), std::nullopt)
      << "a server that answers all the time makes nobody hurry";
  const Time later = kStart + kLimits.longest;
  EXPECT_GE(back_off.on_lost(later, kLeast) - later, seconds(4));
  EXPECT_TRUE(back_off.on_sign_of_life(later, kLeast));
}

TEST(Reconnect, ASignNeverMakesAWaitLonger) {
  Reconnect back_off(kLimits);
  back_off.on_lost(kStart, kLeast);  // 125 ms
  EXPECT_EQ(back_off.on_sign_of_life(kStart, kMost), std::nullopt);
  back_off.on_connected(kStart);
  EXPECT_EQ(back_off.on_sign_of_life(kStart, kLeast), std::nullopt) << "it is connected";
}

/// When each of `nodes` that lost their relay at kStart, all at the same instant, tries for the first time at or after
/// kStart + `outage`. `sign_at`: when each gets a sign of life, in milliseconds after the return.
std::vector<Duration> returns(std::size_t nodes, Duration outage, bool with_sign) {
  std::mt19937 random(7);
  std::vector<Duration> out;
  for (std::size_t i = 0; i < nodes; ++i) {
    Reconnect back_off(kLimits);
    Time at = back_off.on_lost(kStart, static_cast<std::uint32_t>(random()));
    const Time back = kStart + outage;
    while (at < back) at = back_off.on_lost(at, static_cast<std::uint32_t>(random()));
    if (with_sign) {
      // All get it at the same instant, which is the worst case.
      if (const auto soon = back_off.on_sign_of_life(back, static_cast<std::uint32_t>(random()))) at = *soon;
    }
    out.push_back(at - back);
  }
  return out;
}

TEST(Reconnect, AThousandNodesThatLostTheirRelayAtOnceComeBackWithinEightSecondsAndNotAtOnce) {
  for (const auto outage : {milliseconds(20'000), milliseconds(60'000), milliseconds(600'000)}) {
    const auto at = returns(1000, outage, false);
    EXPECT_LE(*std::max_element(at.begin(), at.end()), seconds(8)) << outage.count();
    for (Duration from{}; from < seconds(8); from += milliseconds(100)) {
      const auto hits = std::count_if(at.begin(), at.end(),
                                      [&](Duration each) { return each >= from && each < from + milliseconds(100); });
      EXPECT_LT(hits, 60) << "of 1000 nodes in one tenth of a second, " << outage.count();
    }
  }
}

TEST(Reconnect, ASignThatAllHearAtOnceDoesNotBringThemAllAtOnce) {
  const auto at = returns(1000, seconds(60), true);
  EXPECT_LE(*std::max_element(at.begin(), at.end()), seconds(1));
  for (Duration from{}; from < seconds(1); from += milliseconds(100)) {
    const auto hits = std::count_if(at.begin(), at.end(),
                                    [&](Duration each) { return each >= from && each < from + milliseconds(100); });
    EXPECT_LT(hits, 220) << from.count();
    EXPECT_GT(hits, 30) << from.count();
  }
}

}  // namespace
}  // namespace kitsune2::sbd
