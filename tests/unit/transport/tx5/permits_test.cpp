// The permit bank alone, by its rules, and beside its naive twin.
#include "transport/tx5/permits.hpp"

#include <gtest/gtest.h>

#include <random>

#include "model/permits_twin.hpp"
#include "unit/transport/start.hpp"

namespace kitsune2::tx5 {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Holder = PermitBank::Holder;

using tests::kStart;

class PermitBankTest : public ::testing::Test {
 protected:
  std::vector<Holder> grants(Time now = kStart) {
    std::vector<Holder> out;
    while (const auto holder = bank_.next_grant(now)) out.push_back(*holder);
    bank_.check_invariants();
    return out;
  }
  void make_user(Holder holder) {
    bank_.ask(holder, 1, kStart);
    ASSERT_EQ(grants(), std::vector<Holder>{holder});
    bank_.on_used(holder);
  }
  /// Nothing has come of any permit since its grant.
  std::optional<Holder> stalled(Time now) const {
    return bank_.stalled(now, [](Holder) { return PermitBank::Progress{kStart, 0}; });
  }

  /// Large: 12,000,000, over 62,500. Medium: 3,000,000, over 3,906. Small: 1,000,000.
  PermitLimits limits_{.max_granted_bytes = 16'000'000, .frame_bytes = 100};
  PermitBank bank_{limits_};
};

TEST_F(PermitBankTest, ThoseThatHaveUsedOneComeInTheOrderOfAsking) {
  for (const Holder holder : {1, 2, 3, 9}) make_user(holder);
  bank_.ask(9, 12'000'000, kStart);  // holds all that there is
  ASSERT_EQ(grants(), std::vector<Holder>{9});
  bank_.ask(3, 11'900'000, kStart);
  bank_.ask(1, 200'000, kStart);
  bank_.ask(2, 100'000, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{}) << "no room";
  bank_.on_used(9);
  EXPECT_EQ(grants(), std::vector<Holder>{3}) << "a large request is not overtaken";
  bank_.on_used(3);
  EXPECT_EQ(grants(), (std::vector<Holder>{1, 2}));
}

/// Sixteen publishers of 34 MB each once kept a newcomer's request of 500 bytes waiting for as long as they went on.
TEST_F(PermitBankTest, ASmallRequestOfANewcomerDoesNotWaitBehindLargeOnesOfPeersThatSendWithoutEnd) {
  for (Holder holder = 1; holder <= 16; ++holder) make_user(holder);
  for (Holder holder = 1; holder <= 16; ++holder) bank_.ask(holder, 4'000'000, kStart);
  EXPECT_EQ(grants(), (std::vector<Holder>{1, 2, 3}));
  bank_.ask(20, 500, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{20}) << "small";
  bank_.ask(21, 50'000, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{21}) << "medium";
}

TEST_F(PermitBankTest, ALargeRequestOfANewcomerHasItsTurnAmongThoseOfPeersThatSendWithoutEnd) {
  for (Holder holder = 1; holder <= 16; ++holder) make_user(holder);
  for (Holder holder = 1; holder <= 16; ++holder) bank_.ask(holder, 4'000'000, kStart);
  ASSERT_EQ(grants(), (std::vector<Holder>{1, 2, 3}));
  bank_.ask(20, 4'000'000, kStart);
  bank_.ask(21, 5'000'000, kStart);
  bank_.on_used(1);
  bank_.ask(1, 4'000'000, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{20}) << "the next one";
  bank_.on_used(2);
  EXPECT_EQ(grants(), std::vector<Holder>{4}) << "and then one of the others";
}

TEST_F(PermitBankTest, AMessageOfOneFrameIsGrantedWhateverElseIsOut) {
  bank_.ask(1, 20'000'000, kStart);
  ASSERT_EQ(grants(), std::vector<Holder>{1});
  bank_.ask(2, 2'000'000, kStart);
  for (Holder holder = 10; holder < 2'000; ++holder) bank_.ask(holder, 100, kStart);
  EXPECT_EQ(grants().size(), 1'990U);
  EXPECT_EQ(bank_.granted_bytes(), 20'000'000U);
}

TEST_F(PermitBankTest, APeerWhoseBytesWereWastedIsANewcomerUntilItUsesTheNextPermit) {
  make_user(1);
  make_user(2);
  bank_.wasted(1, 1, kStart);
  bank_.on_time(kStart + seconds(1));
  bank_.ask(1, 7'000'000, kStart + seconds(1));
  bank_.ask(2, 6'000'000, kStart + seconds(1));
  EXPECT_EQ(grants(), std::vector<Holder>{2}) << "half of the room is all that a newcomer has, or one permit alone";
  bank_.on_used(2);
  ASSERT_EQ(grants(), std::vector<Holder>{1});
  bank_.on_used(1);
  bank_.ask(2, 6'000'000, kStart + seconds(1));
  bank_.ask(1, 6'000'000, kStart + seconds(1));
  EXPECT_EQ(grants(), (std::vector<Holder>{2, 1}));
}

TEST_F(PermitBankTest, AmongNewcomersTheSmallestComesFirst) {
  bank_.ask(9, 6'000'000, kStart);
  ASSERT_EQ(grants(), std::vector<Holder>{9});
  bank_.ask(1, 200'000, kStart);
  bank_.ask(2, 100'000, kStart);
  bank_.ask(3, 100'000, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{}) << "half of the room is all that they have";
  bank_.release(9);
  EXPECT_EQ(grants(), (std::vector<Holder>{2, 3, 1}));
}

TEST_F(PermitBankTest, NewcomersHaveHalfOfEachPartAtMost) {
  make_user(1);
  for (Holder holder = 10; holder < 60; ++holder) bank_.ask(holder, 1'000'000, kStart);
  EXPECT_EQ(grants().size(), 6U);
  for (Holder holder = 100; holder < 200; ++holder) bank_.ask(holder, 50'000, kStart);
  EXPECT_EQ(grants().size(), 30U);
  for (Holder holder = 1'000; holder < 3'000; ++holder) bank_.ask(holder, 500, kStart);
  EXPECT_EQ(grants().size(), 1'000U);
  bank_.ask(1, 6'000'000, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{1}) << "the other half is there for those that have used one";
}

TEST_F(PermitBankTest, OneAloneIsGrantedWhateverItsSize) {
  bank_.ask(1, 30'000'000, kStart);
  bank_.ask(2, 30'000'000, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{1});
  bank_.on_used(1);
  EXPECT_EQ(grants(), std::vector<Holder>{2});
}

TEST_F(PermitBankTest, APeerThatWastedWaitsUntilItHasPaid) {
  bank_.wasted(1, 3U << 20, kStart);
  bank_.ask(1, 10, kStart);
  EXPECT_FALSE(bank_.is_waited_for()) << "it stands in no queue yet";
  EXPECT_EQ(bank_.next_deadline(), kStart + seconds(3));
  bank_.on_time(kStart + seconds(3) - std::chrono::microseconds(1));
  EXPECT_EQ(grants(), std::vector<Holder>{});
  bank_.on_time(kStart + seconds(3));
  EXPECT_EQ(grants(kStart + seconds(3)), std::vector<Holder>{1});
  EXPECT_EQ(bank_.next_deadline(), std::nullopt);
}

TEST_F(PermitBankTest, ManyThatWastePayAtAnEqualPartOfTheRateOfAll) {
  for (Holder holder = 1; holder <= 15; ++holder) bank_.wasted(holder, 8U << 20, kStart);
  bank_.wasted(16, 64U << 10, kStart);
  EXPECT_EQ(bank_.owes_until(16), kStart + std::chrono::microseconds(250'000)) << "64 KiB at 4 MiB/s divided by 16";
  EXPECT_EQ(bank_.owes_until(17), Time::min());
  // Those that have paid do not count.
  const Time later = kStart + limits_.longest_waste_wait;
  bank_.wasted(16, 1U << 20, later);
  EXPECT_EQ(bank_.owes_until(16), later + seconds(1));
  bank_.forget(16);
  EXPECT_EQ(bank_.owes_until(16), Time::min());
  bank_.check_invariants();
}

TEST_F(PermitBankTest, ASmallWasteCountsAsFourKibibytes) {
  for (int i = 0; i < 256; ++i) bank_.wasted(1, 1, kStart);
  EXPECT_GE(bank_.owes_until(1), kStart + milliseconds(999));
  EXPECT_LE(bank_.owes_until(1), kStart + seconds(1));
}

TEST_F(PermitBankTest, NobodyWaitsForItsWasteLongerThanTheLimit) {
  for (int i = 0; i < 100; ++i) bank_.wasted(1, 1U << 29, kStart);
  bank_.ask(1, 10, kStart);
  EXPECT_EQ(bank_.next_deadline(), kStart + limits_.longest_waste_wait);
  // More of it, while it waits, counts too.
  bank_.wasted(1, 1U << 29, kStart + seconds(4));
  EXPECT_EQ(bank_.next_deadline(), kStart + seconds(4) + limits_.longest_waste_wait);
  bank_.check_invariants();
}

TEST_F(PermitBankTest, WasteIsRememberedOverAReleaseButNotOverTheEndOfTheConnection) {
  bank_.wasted(1, 3U << 20, kStart);
  bank_.release(1);
  bank_.ask(1, 10, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{});
  bank_.forget(1);
  EXPECT_EQ(bank_.next_deadline(), std::nullopt);
  EXPECT_EQ(bank_.holders(), 0U);
  bank_.ask(1, 10, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{1}) << "another connection";
}

TEST_F(PermitBankTest, AStalledPermitIsTakenAwayOnlyWhileAnotherRequestFindsNoRoomInItsPart) {
  bank_.ask(1, 4'000'000, kStart);
  bank_.ask(2, 50'000, kStart);
  ASSERT_EQ(grants(), (std::vector<Holder>{2, 1}));
  EXPECT_EQ(stalled(kStart + seconds(60)), std::nullopt) << "nobody waits";
  bank_.ask(3, 4'000'000, kStart);
  EXPECT_EQ(stalled(kStart + limits_.first_stall - milliseconds(1)), std::nullopt);
  EXPECT_EQ(stalled(kStart + limits_.first_stall), 1U);
  bank_.forget(1);
  EXPECT_EQ(stalled(kStart + limits_.first_stall), std::nullopt)
      << "now there is room, and holder 2 is in nobody's way";
}

TEST_F(PermitBankTest, APeerThatHasUsedAPermitMayTakeLonger) {
  make_user(1);
  bank_.ask(1, 12'000'000, kStart);
  ASSERT_EQ(grants(), std::vector<Holder>{1});
  bank_.ask(2, 1'000'000, kStart);
  EXPECT_EQ(stalled(kStart + limits_.stall - milliseconds(1)), std::nullopt);
  EXPECT_EQ(stalled(kStart + limits_.stall), 1U);
}

TEST_F(PermitBankTest, APermitThatCrawlsIsTakenAwayThoughItMoves) {
  for (const bool is_large : {false, true}) {
    PermitBank bank(limits_);
    bank.ask(1, is_large ? 12'000'000 : 62'500, kStart);
    ASSERT_EQ(bank.next_grant(kStart), 1U);
    for (Holder holder = 10; holder < 100; ++holder) bank.ask(holder, is_large ? 1'000'000 : 62'500, kStart);
    while (bank.next_grant(kStart)) continue;
    const auto look = [&](Time now, std::uint64_t received) {
      return bank.stalled(now, [&](Holder) { return PermitBank::Progress{now, received}; });
    };
    const Time judged = kStart + 3 * limits_.stall;
    const std::uint64_t least = is_large ? 12'000'000 / 10 : 30 * limits_.min_rate;  // 300 s at the longest
    EXPECT_EQ(look(judged - milliseconds(1), 0), std::nullopt) << "too early to judge";
    EXPECT_EQ(look(judged, least), std::nullopt);
    EXPECT_EQ(look(judged, least - 1), 1U);
  }
}

TEST(PermitBank, SaysWhatItsTwinSays) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    std::mt19937_64 random(seed);
    PermitLimits limits;
    limits.max_granted_bytes = std::uint64_t{1} << (12 + random() % 17);
    limits.frame_bytes = static_cast<std::uint32_t>(limits.max_granted_bytes / 16384);
    model::PermitsUnderTest both(limits);
    std::size_t waited = 0;
    for (int i = 0; i < 3'000; ++i) {
      both.step(static_cast<std::uint8_t>(random()), static_cast<std::uint8_t>(random()),
                static_cast<std::uint16_t>(random()));
      waited += both.is_waited_for() ? 1 : 0;
    }
    EXPECT_GT(waited, 50U) << "seed " << seed << " shows nothing";
  }
}

}  // namespace
}  // namespace kitsune2::tx5
