// Shares of the loop's time for HTTP requests.
#include "server/request_turns.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <optional>
#include <random>
#include <vector>

#include "model/request_turns_twin.hpp"

namespace kitsune2::server {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

RequestTurns::Address address(std::uint8_t number) {
  RequestTurns::Address out{};
  out[15] = number;
  return out;
}

TEST(RequestTurns, WithoutSharesNobodyWaits) {
  RequestTurns turns({});
  for (std::uint64_t i = 0; i < 1000; ++i) EXPECT_TRUE(turns.take(i, address(1), seconds(1), true, Time{}));
}

TEST(RequestTurns, OneAddressHasItsShareAndNoMore) {
  RequestTurns turns({.all_percent = 20, .address_percent = 10});
  Time now{seconds(100)};
  std::uint64_t waiter = 0, answered = 0;
  for (int i = 0; i < 5000; ++i) answered += turns.take(++waiter, address(1), milliseconds(1), true, now) ? 1U : 0U;
  EXPECT_EQ(answered, 251U) << "250 ms, the burst of all, and the one that goes over it";
  for (int i = 0; i < 10'000; ++i) {
    now += milliseconds(1);
    while (turns.next(now)) ++answered;
  }
  EXPECT_NEAR(static_cast<double>(answered), 500 + 1000, 3) << "the burst of an address, and a tenth of 10 s";
}

/// 64 addresses that always have requests waiting.
struct Crowd {
  RequestTurns turns{{.all_percent = 20, .address_percent = 20, .address_burst = seconds(10)}};
  Time now{seconds(100)};
  std::uint64_t waiter = 0;

  Crowd() {
    for (int i = 0; i < 1000; ++i) {
      for (std::uint8_t a = 1; a <= 64; ++a) turns.take(++waiter, address(a), milliseconds(1), false, now);
    }
    for (int i = 0; i < 64 * 8; ++i) turns_until({});  // nobody of them is new any more
  }
  /// How many turns others get until this request has its own. 0: the next turn, of anybody.
  std::size_t turns_until(std::optional<RequestTurns::Waiter> mine) {
    for (std::size_t others = 0;;) {
      now += milliseconds(1);
      const auto next = turns.next(now);
      if (next && (!mine || next == mine)) return others;
      others += next ? 1U : 0U;
      if (others > 1000) return others;
    }
  }
  std::size_t ask(std::uint8_t from, bool is_first) {
    const std::uint64_t mine = 1'000'000 + ++waiter;
    return turns.take(mine, address(from), milliseconds(1), is_first, now) ? 0 : turns_until(mine);
  }
};

TEST(RequestTurns, FirstRequestsOfAnAddressStandBeforeThoseThatAlwaysWait) {
  Crowd crowd;
  for (std::uint32_t i = 0; i < RequestTurns::kFirst; ++i) EXPECT_LE(crowd.ask(100, true), 1U) << i;
  EXPECT_GE(crowd.ask(100, true), 60U) << "it is one of them now";
  for (int i = 0; i < 70; ++i) crowd.turns_until({});
  EXPECT_LE(crowd.ask(100, true), 1U) << "each of them has had a turn";
}

TEST(RequestTurns, WhoAlwaysWaitsHasEverySecondTurnHoweverManyNewAddressesThereAre) {
  Crowd crowd;
  std::size_t of_crowd = 0;
  for (int i = 0; i < 300; ++i) {
    for (int k = 0; k < 2; ++k) {
      RequestTurns::Address unique = address(100);
      unique[0] = static_cast<std::uint8_t>(i);
      unique[1] = static_cast<std::uint8_t>(i / 256 + 2 * k);
      crowd.turns.take(2'000'000 + ++crowd.waiter, unique, milliseconds(1), true, crowd.now);
    }
    crowd.now += milliseconds(5);
    const auto next = crowd.turns.next(crowd.now);
    ASSERT_TRUE(next);
    of_crowd += *next < 1'000'000 ? 1U : 0U;
  }
  EXPECT_EQ(of_crowd, 150U);
}

TEST(RequestTurns, WhoHasBrokenARuleStandsBehindAllOthersForAMinute) {
  RequestTurns turns{{.all_percent = 20, .address_percent = 20}};
  Time now{seconds(100)};
  turns.blame(address(1), now);
  turns.blame(address(2), now);
  EXPECT_TRUE(turns.take(1, address(9), milliseconds(300), true, now));
  const auto ask = [&](std::uint64_t waiter, std::uint8_t from) {
    EXPECT_FALSE(turns.take(waiter, address(from), milliseconds(1), true, now));
  };
  for (std::uint64_t i = 10; i < 13; ++i) ask(i, 1), ask(i + 10, 2);
  for (std::uint64_t i = 30; i < 33; ++i) ask(i, 3);
  now += seconds(10);
  std::vector<std::uint64_t> order;
  while (const auto next = turns.next(now)) order.push_back(*next);
  EXPECT_EQ(order, (std::vector<std::uint64_t>{30, 10, 31, 20, 32, 11, 21, 12, 22})) << "they take turns";
  now += RequestTurns::kBlamed;
  EXPECT_TRUE(turns.take(2, address(9), milliseconds(300), true, now));
  ask(40, 1), ask(41, 3);
  now += seconds(10);
  EXPECT_EQ(turns.next(now), 40U);
}

/// Accounts of which nothing waits are dropped from time to time.
TEST(RequestTurns, WhoHasBrokenARuleIsNotForgottenWhileItAsksForNothing) {
  RequestTurns turns{{.all_percent = 20, .address_percent = 20}};
  Time now{seconds(100)};
  turns.blame(address(1), now);
  for (std::uint64_t i = 1; i <= 3; ++i) {
    now += seconds(10);
    EXPECT_TRUE(turns.take(i, address(9), milliseconds(1), true, now));
  }
  EXPECT_TRUE(turns.take(4, address(9), milliseconds(300), true, now));
  EXPECT_FALSE(turns.take(10, address(1), milliseconds(1), true, now));
  EXPECT_FALSE(turns.take(11, address(3), milliseconds(1), true, now));
  now += seconds(10);
  EXPECT_EQ(turns.next(now), 11U);
  EXPECT_EQ(turns.next(now), 10U);
}

/// Clients of 64 addresses that connect, break a rule, are sent away and come again: their addresses have nothing
/// waiting in between.
TEST(RequestTurns, ANewcomerDoesNotWaitForThoseThatAreSentAwayAgainAndAgain) {
  RequestTurns turns{{.all_percent = 20, .address_percent = 20, .address_burst = seconds(10)}};
  Time now{seconds(100)};
  std::uint64_t waiter = 0;
  std::uint64_t mine = 0;  // 0: nothing waits
  std::size_t since = 0, most = 0;
  EXPECT_TRUE(turns.take(++waiter, address(200), milliseconds(300), true, now));
  for (std::uint8_t a = 1; a <= 64; ++a) turns.take(1000 + a, address(a), milliseconds(1), true, now);
  for (int i = 0; i < 2000; ++i) {
    now += milliseconds(5);
    const auto next = turns.next(now);
    if (i > 300 && mine == 0) {
      mine = 1'000'000 + ++waiter;
      since = 0;
      if (turns.take(mine, address(100), milliseconds(1), true, now)) mine = 0;
    }
    if (!next) continue;
    ++since;
    if (*next == mine) {
      most = std::max(most, since);
      mine = 0;
    } else if (*next < 1'000'000) {
      const auto a = static_cast<std::uint8_t>(*next % 1000);
      turns.blame(address(a), now);
      turns.take(*next, address(a), milliseconds(1), true, now);
    }
  }
  EXPECT_LE(most, 3U);
}

TEST(RequestTurns, FirstRequestsOfAConnectionStandBeforeThoseOfOthersOfItsAddress) {
  RequestTurns turns{{.all_percent = 20, .address_percent = 10}};
  Time now{seconds(100)};
  EXPECT_TRUE(turns.take(1, address(1), seconds(20), true, now));
  for (std::uint64_t i = 2; i < 100; ++i) EXPECT_FALSE(turns.take(i, address(1), milliseconds(1), false, now));
  for (std::uint64_t i = 100; i < 103; ++i) EXPECT_FALSE(turns.take(i, address(1), milliseconds(1), true, now));
  now += seconds(300);
  const std::array<std::uint64_t, 7> order{100, 2, 101, 3, 102, 4, 5};
  for (const std::uint64_t expected : order) EXPECT_EQ(turns.next(now), expected);
}

TEST(RequestTurns, WaitingRequestsAreAnsweredAtOnceWhenTheLimitIsRemoved) {
  RequestTurns turns({.all_percent = 20, .address_percent = 10});
  Time now{seconds(100)};
  EXPECT_TRUE(turns.take(1, address(1), seconds(2), true, now));
  EXPECT_FALSE(turns.take(2, address(2), milliseconds(1), true, now));
  turns.set_shares({.all_percent = 0});
  EXPECT_EQ(turns.next(now), 2U);
  EXPECT_FALSE(turns.next(now));
}

TEST(RequestTurns, ConnectionsOfManyAddressesDoNotDelayRequestsForEver) {
  RequestTurns turns({.all_percent = 20, .address_percent = 10});
  Time now{seconds(100)};
  for (std::uint8_t a = 1; a <= 200; ++a) {
    for (int i = 0; i < 100; ++i) turns.charge(address(a), milliseconds(1), now);
  }
  EXPECT_TRUE(turns.take(1, address(201), milliseconds(1), true, now));
  EXPECT_FALSE(turns.take(2, address(202), milliseconds(1), true, now));
  for (int i = 0; i < 5; ++i) {
    now += milliseconds(1);
    for (std::uint8_t a = 1; a <= 200; ++a) turns.charge(address(a), milliseconds(1), now);
  }
  EXPECT_EQ(turns.next(now), 2U) << "1 ms of work at a fifth of the time";
}

TEST(RequestTurns, RequestsThatWaitAreAnsweredTogether) {
  RequestTurns turns({.all_percent = 20, .address_percent = 20, .together = milliseconds(5)});
  Time now{seconds(100)};
  EXPECT_TRUE(turns.take(1, address(1), milliseconds(300), true, now)) << "more than the burst of all";
  for (std::uint64_t i = 0; i < 2000; ++i) {
    EXPECT_FALSE(turns.take(10 + i, address(static_cast<std::uint8_t>(2 + i % 64)), microseconds(250), true, now));
  }
  now = *turns.next_deadline();
  std::size_t answered = 0, wake_ups = 0;
  for (const Time end = now + seconds(1); now < end; now = *turns.next_deadline()) {
    const std::size_t before = answered;
    while (turns.next(now)) ++answered;
    EXPECT_GT(answered, before) << "no turn is in vain";
    EXPECT_GE(*turns.next_deadline(), now + milliseconds(5));
    EXPECT_FALSE(turns.next(now + milliseconds(4)));
    ++wake_ups;
  }
  EXPECT_NEAR(static_cast<double>(answered), 800, 8) << "a fifth of the time";
  EXPECT_LE(wake_ups, 200U);
}

TEST(RequestTurns, AddressesThatAreQuietAreForgotten) {
  RequestTurns turns({.all_percent = 20, .address_percent = 10});
  Time now{seconds(100)};
  for (std::uint8_t i = 0; i < 200; ++i) turns.take(i, address(i), milliseconds(1), true, now);
  EXPECT_EQ(turns.addresses(), 200U);
  now += seconds(60);
  turns.take(1000, address(1), milliseconds(1), true, now);
  EXPECT_EQ(turns.addresses(), 1U);
}

TEST(RequestTurns, AgreesWithItsTwinAfterEveryCommand) {
  std::size_t later = 0;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    std::mt19937_64 random(seed);
    model::TurnsUnderTest both({.all_percent = 20,
                                .address_percent = seed % 2 == 0 ? 10U : 20U,
                                .together = seed % 3 == 0 ? Duration() : milliseconds(seed % 3 == 1 ? 5 : 60)});
    for (int i = 0; i < 2000; ++i) {
      const std::uint64_t r = random();
      both.step(static_cast<std::uint8_t>(r), static_cast<std::uint8_t>(r >> 8), static_cast<std::uint8_t>(r >> 16));
    }
    both.end();
    later += both.answered_later();
  }
  EXPECT_GT(later, 10'000U);
}

}  // namespace
}  // namespace kitsune2::server
