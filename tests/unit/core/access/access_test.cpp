// Who is known in a space, and what waits of those who are not.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "core/access/known_urls.hpp"
#include "core/access/stranger_book.hpp"
#include "core/access/stranger_polls.hpp"

namespace kitsune2 {
namespace {

using namespace std::chrono_literals;

Url url(int number) {
  return Url::parse("http://relay:1/relay/" + std::to_string(number), url_form(Dialect::v0_5)).value();
}
const SpaceId kA = SpaceId::from_text("a"), kB = SpaceId::from_text("b");
Bytes text(const std::string& words) { return Bytes::copy_of(words); }

TEST(KnownUrls, AUrlIsKnownForAnHourAfterItsLastInfo) {
  KnownUrls known;
  EXPECT_FALSE(known.is_known(url(1), Time(0s)));
  EXPECT_TRUE(known.on_info(url(1), Time(0s)));
  EXPECT_TRUE(known.is_known(url(1), Time(0s)));
  EXPECT_FALSE(known.is_known(url(2), Time(0s)));
  EXPECT_FALSE(known.on_info(url(1), Time(50min))) << "it was known";
  EXPECT_TRUE(known.is_known(url(1), Time(109min)));
  EXPECT_FALSE(known.is_known(url(1), Time(110min)));
  EXPECT_TRUE(known.on_info(url(1), Time(110min))) << "it was not known any more";
  EXPECT_TRUE(known.on_info(url(2), Time(200min)));
  EXPECT_EQ(known.size(), 1U) << "what is over is dropped";
}

TEST(KnownUrls, BeyondTheirNumberTheOneRenewedLongestAgoGoes) {
  KnownUrls known(3);
  for (const int number : {1, 2, 3, 1, 4}) known.on_info(url(number), Time(1s));
  EXPECT_EQ(known.size(), 3U);
  EXPECT_FALSE(known.is_known(url(2), Time(1s)));
  for (const int number : {1, 3, 4}) EXPECT_TRUE(known.is_known(url(number), Time(1s))) << number;
}

struct StrangerBookTest : ::testing::Test {
  bool hold(int peer, const SpaceId& space, const std::string& words, Time now = Time(0s)) {
    return book.hold(url(peer), space, text(words), now, dropped);
  }
  StrangerBook book;
  std::uint64_t dropped = 0;
};

TEST_F(StrangerBookTest, GivesBackInOrderWhatWaitsInASpace) {
  EXPECT_TRUE(hold(1, kA, "first"));
  EXPECT_TRUE(hold(1, kB, "elsewhere"));
  EXPECT_TRUE(hold(1, kA, "second"));
  EXPECT_TRUE(hold(2, kA, "of another"));
  EXPECT_EQ(book.size(), 4U);
  EXPECT_EQ(book.waiting(), (std::map<SpaceId, Url>{{kA, url(1)}, {kB, url(1)}}));
  EXPECT_EQ(book.take(url(1), kA), (std::vector<Bytes>{text("first"), text("second")}));
  EXPECT_TRUE(book.take(url(1), kA).empty());
  EXPECT_TRUE(book.take(url(3), kA).empty());
  EXPECT_EQ(book.forget(kB), 1U);
  EXPECT_EQ(book.forget(kA), 1U);
  EXPECT_EQ(book.size(), 0U);
  EXPECT_TRUE(book.waiting().empty());
}

TEST_F(StrangerBookTest, NothingWaitsForLongerThanThePatience) {
  hold(1, kA, "early", Time(0s));
  hold(1, kA, "late", Time(1s));
  EXPECT_EQ(book.expire(Time(StrangerBook::kPatience) - 1us), 0U);
  EXPECT_EQ(book.expire(Time(StrangerBook::kPatience)), 1U);
  EXPECT_EQ(book.take(url(1), kA), (std::vector<Bytes>{text("late")}));
}

TEST_F(StrangerBookTest, OfOnePeerSoManyMessagesAndBytesWait) {
  for (std::size_t i = 0; i < StrangerBook::kMostMessages; ++i) EXPECT_TRUE(hold(1, kA, ""));
  EXPECT_FALSE(hold(1, kB, ""));
  EXPECT_TRUE(hold(2, kA, std::string(StrangerBook::kMostBytes - StrangerBook::kLeastBytes, 'x')));
  EXPECT_TRUE(hold(2, kA, "x"));
  EXPECT_FALSE(hold(2, kA, "x"));
  EXPECT_FALSE(hold(3, kA, std::string(StrangerBook::kMostBytes + 1, 'x')));
  EXPECT_EQ(dropped, 0U);
}

TEST_F(StrangerBookTest, WhatWaitsKeepsNoLargerBuffer) {
  const auto part = std::make_shared<std::string>(1U << 20U, 'x');
  const Bytes slice = Bytes::share(part, as_bytes(*part)).slice(10, 5);
  EXPECT_TRUE(book.hold(url(1), kA, slice, Time(0s), dropped));
  EXPECT_EQ(part.use_count(), 2) << "by the test, and by its slice";
  EXPECT_EQ(book.take(url(1), kA), (std::vector<Bytes>{text("xxxxx")}));
}

// A flood of strangers must not keep an honest one out.
TEST_F(StrangerBookTest, WhenAllIsFullThePeerOfWhichMostWaitsLosesIt) {
  const std::string large(StrangerBook::kMostBytes / 2, 'x');
  const int peers = static_cast<int>(StrangerBook::kMostBytesInAll / StrangerBook::kMostBytes);
  for (int peer = 0; peer < peers; ++peer) {
    EXPECT_TRUE(hold(peer, kA, large));
    EXPECT_TRUE(hold(peer, kA, large));
  }
  EXPECT_EQ(dropped, 0U);
  EXPECT_TRUE(hold(1000, kA, "honest"));
  EXPECT_EQ(dropped, 2U);
  EXPECT_EQ(book.size(), 2U * peers - 1);
  for (int peer = 2000; peer < 4000; ++peer) hold(peer, kA, large);
  EXPECT_EQ(book.take(url(1000), kA), (std::vector<Bytes>{text("honest")}));
}

TEST(StrangerPolls, AFloodOfUrlsCausesFew) {
  StrangerPolls polls;
  std::size_t count = 0;
  for (int i = 0; i < 1'000; ++i) count += polls.ask_for(url(i), Time(i * 1ms)) ? 1 : 0;
  EXPECT_EQ(count, StrangerPolls::kMost);
  EXPECT_FALSE(polls.ask_for(url(1), Time(999ms)));
  EXPECT_TRUE(polls.ask_for(url(1), Time(1s)));
  EXPECT_FALSE(polls.ask_for(url(2), Time(1s)));
}

TEST(StrangerPolls, NewcomersOneAfterTheOtherDoNotWait) {
  StrangerPolls polls;
  for (int i = 0; i < 100; ++i) {
    const Time now(i * 10ms);
    EXPECT_TRUE(polls.ask_for(url(i), now)) << i;
    EXPECT_FALSE(polls.ask_for(url(i), now + 1ms)) << "the first answer may be on its way";
    polls.on_known(url(i));
  }
  polls.on_known(url(1));
  std::size_t count = 0;
  for (int i = 0; i < 10; ++i) count += polls.ask_for(url(i), Time(2s)) ? 1 : 0;
  EXPECT_EQ(count, StrangerPolls::kMost) << "nothing is taken away twice";
}

TEST(StrangerPolls, SeveralPollsForOneAreTakenAwayTogether) {
  StrangerPolls polls;
  for (std::size_t i = 1; i < StrangerPolls::kMost; ++i) EXPECT_TRUE(polls.ask_for(url(1), Time((i - 1) * 200ms)));
  EXPECT_TRUE(polls.ask_for(url(3), Time(900ms)));
  EXPECT_FALSE(polls.ask_for(url(2), Time(950ms)));
  polls.on_known(url(1));
  for (std::size_t i = 1; i < StrangerPolls::kMost; ++i) EXPECT_TRUE(polls.ask_for(url(2), Time(950ms + i * 200ms)));
}

// The twin keeps all polls that were not taken away, and compares their number with the promise.
TEST(StrangerPolls, PollsThatCountKeepToTheRate) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 50; ++round) {
    StrangerPolls polls;
    std::vector<std::pair<int, Time>> spent;
    Time now(0s);
    std::size_t refused = 0;
    for (int step = 0; step < 2'000; ++step) {
      now += std::chrono::milliseconds(random() % 400);
      const int peer = static_cast<int>(random() % 8);
      if (random() % 40 == 0) {
        polls.on_known(url(peer));
        std::erase_if(spent, [&](const auto& poll) { return poll.first == peer; });
      } else if (polls.ask_for(url(peer), now)) {
        spent.emplace_back(peer, now);
      } else {
        ++refused;
      }
      for (const Duration window : {Duration(1s), Duration(7s), Duration(25s), Duration(60s)}) {
        const auto recent =
            std::count_if(spent.begin(), spent.end(), [&](const auto& poll) { return poll.second >= now - window; });
        ASSERT_LE(static_cast<std::size_t>(recent),
                  StrangerPolls::kMost + static_cast<std::size_t>(window / StrangerPolls::kEvery) + 1);
      }
    }
    ASSERT_GT(refused, 100U);
    ASSERT_LT(refused, 1'990U) << "it asks at all";
  }
}

}  // namespace
}  // namespace kitsune2
