// When a server is pinged, and when it is given up.
#include "net/ping_watch.hpp"

#include <gtest/gtest.h>

namespace kitsune2::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Verdict = PingWatch::Verdict;

const Time kStart{seconds(1000)};
const WsPings kPings{.quiet = seconds(10), .answer = seconds(20)};

/// A watch and what happens to it.
class PingWatchTest : public ::testing::Test {
 protected:
  /// The first deadline at which there is something to do, and what that is. The time becomes that of the deadline.
  Verdict next() {
    while (true) {
      EXPECT_GE(watch_.next_deadline(), now_);
      now_ = watch_.next_deadline();
      const Verdict verdict = watch_.on_time(now_);
      if (verdict == Verdict::ping) queue(14);
      if (verdict != Verdict::wait) return verdict;
    }
  }
  void queue(std::size_t bytes) {
    queued_ += bytes;
    watch_.on_sent(bytes);
  }
  void take(std::size_t bytes) {
    queued_ -= bytes;
    watch_.on_taken(queued_, now_);
  }
  /// Everything is sent at once.
  void send(std::size_t bytes) {
    queue(bytes);
    take(queued_);
  }

  Time now_ = kStart;
  PingWatch watch_{kPings, kStart};
  std::size_t queued_ = 0;
};

TEST_F(PingWatchTest, AServerThatSaysNothingIsAskedAfterTenSecondsAndLeftAfterThirty) {
  ASSERT_EQ(next(), Verdict::ping);
  EXPECT_EQ(now_, kStart + seconds(10));
  take(14);
  ASSERT_EQ(next(), Verdict::deaf);
  EXPECT_EQ(now_, kStart + seconds(30));
}

TEST_F(PingWatchTest, SentKeepalivesDoNotHideThatNothingArrives) {
  ASSERT_EQ(next(), Verdict::ping);
  take(14);
  for (int i = 0; i < 3; ++i) {
    now_ += seconds(5);
    send(38);
    EXPECT_EQ(watch_.on_time(now_), Verdict::wait);
  }
  now_ += seconds(5);
  EXPECT_EQ(watch_.on_time(now_), Verdict::deaf);
}

TEST_F(PingWatchTest, AnyByteIsASignOfLife) {
  ASSERT_EQ(next(), Verdict::ping);
  take(14);
  for (int i = 0; i < 10; ++i) {
    now_ += seconds(19);
    EXPECT_EQ(watch_.on_time(now_), Verdict::wait);
    watch_.on_received(now_);
  }
  ASSERT_EQ(next(), Verdict::deaf) << "the ping is still not answered";
  EXPECT_EQ(now_, kStart + seconds(10 + 190 + 20));
}

TEST_F(PingWatchTest, AnAnswerIsFollowedByTheNextPingOnlyAfterTheQuiet) {
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(next(), Verdict::ping);
    take(14);
    now_ += seconds(2);
    watch_.on_received(now_);
    watch_.on_pong(watch_.payload());
    EXPECT_EQ(watch_.next_deadline(), now_ + seconds(10));
  }
}

TEST_F(PingWatchTest, OnlyTheAnswerToThisPingProvesAnything) {
  ASSERT_EQ(next(), Verdict::ping);
  const Bytes first = watch_.payload();
  watch_.on_pong(Bytes::copy_of("else"));
  EXPECT_EQ(watch_.next_deadline(), now_ + seconds(20)) << "still under way";
  watch_.on_pong(first);
  watch_.on_received(now_);
  ASSERT_EQ(next(), Verdict::ping);
  EXPECT_NE(watch_.payload(), first);
  watch_.on_pong(first);
  EXPECT_EQ(watch_.next_deadline(), now_ + seconds(20)) << "that one was answered before";
}

// A server that stops reading (its receivers are slow, or it limits rates) must not look deaf.
TEST_F(PingWatchTest, BytesQueuedBeforeThePingLengthenTheWait) {
  send(PingWatch::kProofBytes - 1);
  send(100'000);  // now a ping is due at once
  ASSERT_EQ(watch_.on_time(now_), Verdict::ping);
  queue(14);
  take(14);
  const Time healthy = now_ + seconds((PingWatch::kProofBytes + 100'000) / PingWatch::kSlowestRate);
  for (; now_ < healthy + seconds(19); now_ += seconds(1)) ASSERT_EQ(watch_.on_time(now_), Verdict::wait);
  ASSERT_EQ(next(), Verdict::deaf);
  EXPECT_LT(now_, healthy + seconds(21));
}

TEST_F(PingWatchTest, BytesKnownToBeReadDoNotLengthenTheWait) {
  send(PingWatch::kProofBytes);
  ASSERT_EQ(watch_.on_time(now_), Verdict::ping);
  send(14);
  now_ += seconds(1);
  watch_.on_received(now_);
  watch_.on_pong(watch_.payload());
  ASSERT_EQ(next(), Verdict::ping);
  take(14);
  const Time asked = now_;
  ASSERT_EQ(next(), Verdict::deaf);
  EXPECT_LT(now_, asked + seconds(21));
}

TEST_F(PingWatchTest, ADeafServerIsLeftWithinTwoMinutesHoweverMuchWasSent) {
  for (int i = 0; i < 1000; ++i) send(1U << 20);
  ASSERT_EQ(watch_.on_time(now_), Verdict::ping);
  send(14);
  ASSERT_EQ(next(), Verdict::deaf);
  EXPECT_EQ(now_, kStart + seconds(20) + PingWatch::kLongestExtra);
}

TEST_F(PingWatchTest, APingInTheOwnQueueIsNotCountedAgainstTheServer) {
  queue(100'000);
  ASSERT_EQ(next(), Verdict::ping);
  // A line of 2 kB/s: the ping leaves after 50 s.
  for (int i = 0; i < 50; ++i) {
    now_ += seconds(1);
    take(2'000);
    ASSERT_EQ(watch_.on_time(now_), Verdict::wait) << i;
  }
  take(14);
  const Time left = now_;
  ASSERT_EQ(next(), Verdict::deaf);
  EXPECT_GE(now_, left + seconds(20));
  EXPECT_LE(now_, left + seconds(35));
}

TEST_F(PingWatchTest, AQueueThatDoesNotMoveIsDeafToo) {
  queue(100'000);
  ASSERT_EQ(next(), Verdict::ping);
  ASSERT_EQ(next(), Verdict::deaf);
  EXPECT_LE(now_, kStart + seconds(10 + 20 + 13));
}

// The machine slept, or this process was stopped: the answer may be in the socket, unread.
TEST_F(PingWatchTest, ALateCheckPingsAgainInsteadOfDisconnecting) {
  ASSERT_EQ(next(), Verdict::ping);
  take(14);
  const Bytes before = watch_.payload();
  now_ = watch_.next_deadline() + PingWatch::kLate + milliseconds(1);
  ASSERT_EQ(watch_.on_time(now_), Verdict::ping);
  EXPECT_NE(watch_.payload(), before);
  send(14);
  const Time asked = now_;
  ASSERT_EQ(next(), Verdict::deaf);
  EXPECT_EQ(now_, asked + seconds(20));
}

TEST(PingWatch, CanBeTurnedOff) {
  PingWatch watch({.quiet = {}, .answer = seconds(20)}, kStart);
  EXPECT_FALSE(watch.on_sent(1U << 30));
  EXPECT_EQ(watch.next_deadline(), Time::max());
  EXPECT_EQ(watch.on_time(kStart + std::chrono::hours(1)), Verdict::wait);
}

}  // namespace
}  // namespace kitsune2::net
