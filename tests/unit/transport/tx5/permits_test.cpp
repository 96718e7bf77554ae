// The permit bank alone, by its rules, and beside its naive twin.
#include "transport/tx5/permits.hpp"

#include <gtest/gtest.h>

#include <random>

#include "model/permits_twin.hpp"

namespace kitsune2::tx5 {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Holder = PermitBank::Holder;

const Time kStart{seconds(1000)};

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

  PermitLimits limits_{.max_granted_bytes = 1'000'000};
  PermitBank bank_{limits_};
};

TEST_F(PermitBankTest, UsersComeFirstAndInTheOrderOfAsking) {
  for (const Holder holder : {1, 2, 3}) make_user(holder);
  bank_.ask(9, 1'000'000, kStart);  // holds all that there is
  ASSERT_EQ(grants(), std::vector<Holder>{9});
  bank_.ask(7, 10, kStart);  // has used none
  bank_.ask(3, 900'000, kStart);
  bank_.ask(1, 200'000, kStart);
  bank_.ask(2, 10, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{}) << "no room";
  bank_.on_used(9);
  EXPECT_EQ(grants(), std::vector<Holder>{3}) << "a large request is not overtaken";
  bank_.on_used(3);
  EXPECT_EQ(grants(), (std::vector<Holder>{1, 2, 7}));
}

TEST_F(PermitBankTest, AmongTheOthersTheSmallestComesFirst) {
  bank_.ask(9, 500'000, kStart);
  ASSERT_EQ(grants(), std::vector<Holder>{9});
  bank_.ask(1, 200, kStart);
  bank_.ask(2, 100, kStart);
  bank_.ask(3, 100, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{}) << "half of the room is all that they have";
  bank_.release(9);
  EXPECT_EQ(grants(), (std::vector<Holder>{2, 3, 1}));
}

TEST_F(PermitBankTest, WhoHasUsedNoneHasHalfOfTheRoomAtMost) {
  make_user(1);
  bank_.ask(2, 100, kStart);
  bank_.ask(3, 240'000, kStart);  // over 1/256: such have a quarter of all
  bank_.ask(4, 20'000, kStart);
  EXPECT_EQ(grants(), (std::vector<Holder>{2, 4}));
  bank_.release(4);
  EXPECT_EQ(grants(), std::vector<Holder>{3});
  for (Holder holder = 10; holder < 60; ++holder) bank_.ask(holder, 3'900, kStart);  // over 1/4096
  EXPECT_EQ(grants().size(), 34U) << "3/8 of a million less what holder 3 has";
  for (Holder holder = 100; holder < 2'000; ++holder) bank_.ask(holder, 200, kStart);
  const std::uint64_t small_room = 500'000 - bank_.granted_bytes();
  EXPECT_EQ(grants().size(), small_room / 200);
  bank_.ask(1, 500'000, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{1}) << "the other half is there for those that have used one";
}

TEST_F(PermitBankTest, OneAloneIsGrantedWhateverItsSize) {
  bank_.ask(1, 3'000'000, kStart);
  bank_.ask(2, 3'000'000, kStart);
  EXPECT_EQ(grants(), std::vector<Holder>{1});
  bank_.on_used(1);
  EXPECT_EQ(grants(), std::vector<Holder>{2});
}

TEST_F(PermitBankTest, WhoWastedWaitsUntilItHasPaid) {
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

TEST_F(PermitBankTest, AStalledPermitIsTakenAwayOnlyWhileAnotherRequestFindsNoRoom) {
  bank_.ask(1, 400'000, kStart);
  ASSERT_EQ(grants(), std::vector<Holder>{1});
  EXPECT_EQ(stalled(kStart + seconds(60)), std::nullopt) << "nobody waits";
  bank_.ask(2, 200'000, kStart);
  EXPECT_EQ(stalled(kStart + limits_.first_stall - milliseconds(1)), std::nullopt);
  EXPECT_EQ(stalled(kStart + limits_.first_stall), 1U);
  bank_.forget(1);
  EXPECT_EQ(stalled(kStart + limits_.first_stall), std::nullopt) << "now there is room";
}

TEST_F(PermitBankTest, WhoHasUsedOneHasMorePatience) {
  make_user(1);
  bank_.ask(1, 1'000'000, kStart);
  ASSERT_EQ(grants(), std::vector<Holder>{1});
  bank_.ask(2, 10, kStart);
  EXPECT_EQ(stalled(kStart + limits_.stall - milliseconds(1)), std::nullopt);
  EXPECT_EQ(stalled(kStart + limits_.stall), 1U);
}

TEST_F(PermitBankTest, APermitThatCrawlsIsTakenAwayThoughItMoves) {
  make_user(1);
  bank_.ask(1, 1'000'000, kStart);
  ASSERT_EQ(grants(), std::vector<Holder>{1});
  bank_.ask(2, 10, kStart);
  const auto look = [&](Time now, std::uint64_t received) {
    return bank_.stalled(now, [&](Holder) { return PermitBank::Progress{now, received}; });
  };
  const Time judged = kStart + 3 * limits_.stall;
  EXPECT_EQ(look(judged - milliseconds(1), 0), std::nullopt) << "too early to judge";
  EXPECT_EQ(look(judged, 30 * limits_.min_rate), std::nullopt);
  EXPECT_EQ(look(judged, 30 * limits_.min_rate - 1), 1U);
}

TEST(PermitBank, SaysWhatItsTwinSays) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    std::mt19937_64 random(seed);
    PermitLimits limits;
    limits.max_granted_bytes = std::uint64_t{1} << (12 + random() % 17);
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
