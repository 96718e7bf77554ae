// FloodGuard's rules, and a naive twin.
#include "transport/iroh/flood_guard.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace kitsune2::iroh {
namespace {

using namespace std::chrono_literals;

TEST(FloodGuard, AFewDatagramsForNobodyChangeNothing) {
  FloodGuard guard;
  Time now{1h};
  for (int i = 0; i < 100'000; ++i) {
    EXPECT_FALSE(guard.on_for_nobody(1, now += FloodGuard::kForNobodyEach));
    EXPECT_FALSE(guard.is_strict(now));
  }
  EXPECT_FALSE(guard.on_for_nobody(FloodGuard::kMostForNobody - 1, now));
}

TEST(FloodGuard, AFloodMakesItStrictForLongerEachTimeThatItComesAgain) {
  FloodGuard guard;
  Time now{1h};
  for (const Duration wanted :
       {Duration(1min), Duration(2min), Duration(4min), Duration(8min), Duration(16min), Duration(16min)}) {
    EXPECT_TRUE(guard.on_for_nobody(FloodGuard::kMostForNobody + 1, now));
    EXPECT_EQ(guard.period(), wanted);
    EXPECT_FALSE(guard.on_for_nobody(FloodGuard::kMostForNobody + 1, now)) << "it is strict already";
    EXPECT_TRUE(guard.is_strict(now + wanted - 1ms));
    EXPECT_FALSE(guard.is_strict(now + wanted));
    now += wanted + 1min;
  }
  now += FloodGuard::kCalm;
  EXPECT_TRUE(guard.on_for_nobody(FloodGuard::kMostForNobody + 1, now));
  EXPECT_EQ(guard.period(), FloodGuard::kLeastPeriod);
}

TEST(FloodGuard, AStrictFilterIsMadeAnewForWhatItLetsInInVainButNotForEach) {
  FloodGuard guard;
  Time now{1h};
  EXPECT_FALSE(guard.is_stale(1, now)) << "it is not strict";
  ASSERT_TRUE(guard.on_for_nobody(FloodGuard::kMostForNobody + 1, now));
  EXPECT_FALSE(guard.is_stale(0, now));
  unsigned made = 0;
  for (int i = 0; i < 10'000; ++i) made += guard.is_stale(1, now += 1ms) ? 1U : 0U;
  EXPECT_NEAR(made, FloodGuard::kMostRenewals + 80U, 1U);
}

TEST(FloodGuard, APeerIsIgnoredOnceAndForGood) {
  FloodGuard::Peer flooding, other;
  Time now{1h};
  EXPECT_FALSE(FloodGuard::on_datagrams(flooding, FloodGuard::kMostUseless, 0, now));
  EXPECT_FALSE(flooding.is_ignored());
  EXPECT_TRUE(FloodGuard::on_datagrams(flooding, 1, 0, now));
  EXPECT_FALSE(FloodGuard::on_datagrams(flooding, FloodGuard::kMostUseless, 0, now += 1h));
  EXPECT_TRUE(flooding.is_ignored());
  for (int i = 0; i < 100'000; ++i) {
    EXPECT_FALSE(FloodGuard::on_datagrams(other, 1, 0, now += FloodGuard::kUselessEach));
  }
}

/// After a loss a window of datagrams brings nothing, and then one brings all of it.
TEST(FloodGuard, WhatIsBroughtLateIsNotUseless) {
  FloodGuard::Peer peer;
  const Time now{1h};
  for (int i = 0; i < 1000; ++i) {
    EXPECT_FALSE(FloodGuard::on_datagrams(peer, 14'000, 0, now));
    EXPECT_FALSE(FloodGuard::on_datagrams(peer, 14'000, 0, now)) << "and each twice";
    EXPECT_FALSE(FloodGuard::on_datagrams(peer, 0, 14'000 * 1200, now));
  }
}

/// The same by counting all that has come.
TEST(FloodGuard, AgreesWithItsTwinAfterEveryCommand) {
  for (unsigned seed = 0; seed < 100; ++seed) {
    std::mt19937_64 random(seed);
    FloodGuard guard;
    FloodGuard::Peer peer;
    Time now{1h};
    struct Bucket {
      std::uint64_t most, left = most;
      Time full_at{};  ///< pays back one each millisecond since
      bool take(Time at, std::uint64_t count) {
        const auto back = static_cast<std::uint64_t>((at - full_at) / 1ms);
        if (left == most) {
          full_at = at;
        } else {
          left = std::min(most, left + back);
          full_at += back * 1ms;
        }
        const bool enough = left >= count;
        left = enough ? left - count : 0;
        return enough;
      }
    };
    Bucket for_nobody{FloodGuard::kMostForNobody};
    std::uint64_t useless = 0;
    Time forgiven{};
    Time strict_until{};
    Duration period{};
    bool ignored = false;
    for (int i = 0; i < 400; ++i) {
      now += std::chrono::milliseconds(random() % (random() % 50 == 0 ? 2'000'000 : 1'500));
      const std::size_t count = random() % 4'000;
      if (random() % 2 == 0) {
        bool begins = false;
        if (count > 0 && now >= strict_until && !for_nobody.take(now, count)) {
          begins = true;
          period = period > 0s && now < strict_until + 20min ? std::min<Duration>(period * 2, 16min) : Duration(1min);
          strict_until = now + period;
        }
        ASSERT_EQ(guard.on_for_nobody(count, now), begins) << seed;
      } else {
        const std::uint64_t brought = random() % 3 == 0 ? random() % 1'000'000 : 0;
        bool begins = false;
        if (!ignored) {
          for (; useless > 0 && forgiven + 1ms <= now; forgiven += 1ms) --useless;
          forgiven += (now - forgiven) / 1ms * 1ms;
          useless += count;
          for (std::uint64_t bytes = 512; bytes <= brought; bytes += 512) useless -= useless > 0 ? 1 : 0;
          begins = useless > FloodGuard::kMostUseless;
          ignored = begins;
        }
        ASSERT_EQ(FloodGuard::on_datagrams(peer, count, brought, now), begins) << seed;
      }
      ASSERT_EQ(guard.is_strict(now), now < strict_until) << seed;
      ASSERT_EQ(peer.is_ignored(), ignored) << seed;
    }
  }
}

}  // namespace
}  // namespace kitsune2::iroh
