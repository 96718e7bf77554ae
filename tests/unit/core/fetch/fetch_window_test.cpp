// The window of a source, rule by rule.
#include "core/fetch/window.hpp"

#include <gtest/gtest.h>

namespace kitsune2 {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class FetchWindowTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kMost = 64U << 20;

  /// A request that was sent alone and is answered with `bytes` after `trip`.
  void round(std::uint64_t bytes, Duration trip) {
    auto mark = window_.on_sent(true, window_.bytes(kMost), kMost, now_);
    now_ += trip;
    window_.on_delivered(mark, bytes, now_);
  }

  FetchWindow window_;
  Time now_{seconds(1000)};
};

TEST_F(FetchWindowTest, NothingIsKnownAtFirst) {
  EXPECT_FALSE(window_.is_long());
  EXPECT_FALSE(window_.round_trip());
  EXPECT_EQ(window_.rate(), 0U);
  EXPECT_EQ(window_.bytes(kMost), FetchWindow::kFirstBytes);
  EXPECT_EQ(window_.bytes(1000), 1000U);
}

TEST_F(FetchWindowTest, TheSmallestRoundTripCounts) {
  round(1000, milliseconds(50));
  EXPECT_TRUE(window_.is_long());
  round(1000, milliseconds(80));
  EXPECT_EQ(window_.round_trip(), milliseconds(50));
  round(1000, milliseconds(2));
  EXPECT_FALSE(window_.is_long());
  // One that is old gives way, but only to one that did not wait behind others.
  now_ += seconds(11);
  auto mark = window_.on_sent(false, 0, kMost, now_);
  now_ += milliseconds(70);
  window_.on_heard(mark, now_);
  EXPECT_EQ(window_.round_trip(), milliseconds(2));
  round(1000, milliseconds(70));
  EXPECT_EQ(window_.round_trip(), milliseconds(70));
}

TEST_F(FetchWindowTest, FourTimesTheProductAtFirstThenTwice) {
  round(1'000'000, milliseconds(50));
  EXPECT_EQ(window_.rate(), 20'000'000U);
  EXPECT_EQ(window_.bytes(kMost), 4'000'000U);
  for (int i = 0; i < FetchWindow::kStaleRounds; ++i) round(1'000'000, milliseconds(50));
  EXPECT_EQ(window_.bytes(kMost), 2'000'000U);
  now_ += FetchWindow::kTripAge + milliseconds(1);
  round(1'000'000, milliseconds(50));
  EXPECT_EQ(window_.bytes(kMost), 4'000'000U) << "after a long rest it begins anew";
}

TEST_F(FetchWindowTest, AnUnsolicitedOpSaysNothingOfTheLine) {
  round(1'000'000, milliseconds(50));
  for (int i = 0; i < 10; ++i) {
    auto mark = window_.on_sent(true, 1000, kMost, now_);
    now_ += milliseconds(50);
    window_.on_delivered(mark, 1000, now_);
  }
  EXPECT_EQ(window_.bytes(kMost) % 4, 0U);
  round(4'000'000, milliseconds(50));
  EXPECT_EQ(window_.bytes(kMost), 16'000'000U) << "still four times";
}

TEST_F(FetchWindowTest, ARateThatFellIsForgotten) {
  round(1'000'000, milliseconds(50));
  for (int i = 0; i < 40; ++i) round(10'000, milliseconds(50));
  EXPECT_EQ(window_.rate(), 200'000U);
  EXPECT_EQ(window_.bytes(kMost), FetchWindow::kLeastBytes);
}

TEST_F(FetchWindowTest, ALossHalvesItOnceARoundTrip) {
  round(1'000'000, milliseconds(50));
  window_.on_lost(kMost, now_);
  EXPECT_EQ(window_.bytes(kMost), 2'000'000U);
  window_.on_lost(kMost, now_ + milliseconds(49));
  EXPECT_EQ(window_.bytes(kMost), 2'000'000U);
  window_.on_lost(kMost, now_ + milliseconds(50));
  EXPECT_EQ(window_.bytes(kMost), 1'000'000U);
  round(1'000'000, milliseconds(50));
  EXPECT_EQ(window_.bytes(kMost), 1'250'000U) << "a quarter comes back each round";
}

TEST_F(FetchWindowTest, AnswersCloseTogetherSayHowFastTheLineIs) {
  // Five answers of 15 KB, 1.2 ms apart: 12.5 MB/s. A round trip of them is what one question alone would not show.
  auto mark = window_.on_sent(true, 75'000, kMost, now_);
  now_ += milliseconds(50);
  window_.on_delivered(mark, 15'000, now_);
  EXPECT_EQ(window_.bytes(kMost), FetchWindow::kFirstBytes);
  for (int i = 0; i < 4; ++i) {
    now_ += std::chrono::microseconds(1200);
    window_.on_delivered(mark, 15'000, now_);
  }
  EXPECT_EQ(window_.bytes(kMost), 1'250'000U) << "what comes in 100 ms";
  // A train that has not brought much does not make it less.
  now_ += milliseconds(50);
  window_.on_delivered(mark, 1'000, now_);
  now_ += milliseconds(5);
  window_.on_delivered(mark, 1'000, now_);
  EXPECT_EQ(window_.bytes(kMost), 1'250'000U);
}

TEST_F(FetchWindowTest, ATrainThatWasHeldOnTheWayIsNotBelievedWithoutABound) {
  auto mark = window_.on_sent(true, 2000, kMost, now_);
  now_ += milliseconds(50);
  for (int i = 0; i < 100; ++i) window_.on_delivered(mark, 1'000, now_);
  EXPECT_EQ(window_.rate(), 2'000'000U);
  EXPECT_EQ(window_.bytes(kMost), 64 * 100'000U) << "and not the 9.9 MB of 99 MB/s in 100 ms";
  for (int i = 0; i <= FetchWindow::kStaleRounds; ++i) round(100'000, milliseconds(50));
  EXPECT_EQ(window_.bytes(kMost), 200'000U) << "it counts at first only";
}

}  // namespace
}  // namespace kitsune2
