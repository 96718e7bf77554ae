// Shares of the loop's time for HTTP requests.
#include "server/request_turns.hpp"

#include <gtest/gtest.h>

#include <random>

#include "model/request_turns_twin.hpp"

namespace kitsune2::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

RequestTurns::Address address(std::uint8_t number) {
  RequestTurns::Address out{};
  out[15] = number;
  return out;
}

TEST(RequestTurns, WithoutSharesNobodyWaits) {
  RequestTurns turns({});
  for (std::uint64_t i = 0; i < 1000; ++i) EXPECT_TRUE(turns.take(i, address(1), seconds(1), Time{}));
}

TEST(RequestTurns, OneAddressHasItsShareAndNoMore) {
  RequestTurns turns({.all_percent = 20, .address_percent = 10});
  Time now{seconds(100)};
  std::uint64_t waiter = 0, answered = 0;
  for (int i = 0; i < 5000; ++i) answered += turns.take(++waiter, address(1), milliseconds(1), now) ? 1U : 0U;
  EXPECT_EQ(answered, 251U) << "250 ms, the burst of all, and the one that goes over it";
  for (int i = 0; i < 10'000; ++i) {
    now += milliseconds(1);
    while (turns.next(now)) ++answered;
  }
  EXPECT_NEAR(static_cast<double>(answered), 500 + 1000, 3) << "the burst of an address, and a tenth of 10 s";
}

TEST(RequestTurns, ASingleRequestWaitsForOneOfEachOtherAddress) {
  RequestTurns turns({.all_percent = 20, .address_percent = 20, .address_burst = seconds(10)});
  Time now{seconds(100)};
  std::uint64_t waiter = 0;
  for (int i = 0; i < 1000; ++i) {
    for (std::uint8_t a = 1; a <= 64; ++a) turns.take(++waiter, address(a), milliseconds(1), now);
  }
  EXPECT_FALSE(turns.take(1'000'000, address(100), milliseconds(1), now));
  std::size_t before = 0;
  while (true) {
    now += milliseconds(1);
    const auto next = turns.next(now);
    if (next == 1'000'000U) break;
    before += next ? 1U : 0U;
    ASSERT_LE(before, 64U);
  }
}

TEST(RequestTurns, WaitingRequestsAreAnsweredAtOnceWhenTheLimitIsRemoved) {
  RequestTurns turns({.all_percent = 20, .address_percent = 10});
  Time now{seconds(100)};
  EXPECT_TRUE(turns.take(1, address(1), seconds(2), now));
  EXPECT_FALSE(turns.take(2, address(2), milliseconds(1), now));
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
  EXPECT_TRUE(turns.take(1, address(201), milliseconds(1), now));
  EXPECT_FALSE(turns.take(2, address(202), milliseconds(1), now));
  for (int i = 0; i < 5; ++i) {
    now += milliseconds(1);
    for (std::uint8_t a = 1; a <= 200; ++a) turns.charge(address(a), milliseconds(1), now);
  }
  EXPECT_EQ(turns.next(now), 2U) << "1 ms of work at a fifth of the time";
}

TEST(RequestTurns, AddressesThatAreQuietAreForgotten) {
  RequestTurns turns({.all_percent = 20, .address_percent = 10});
  Time now{seconds(100)};
  for (std::uint8_t i = 0; i < 200; ++i) turns.take(i, address(i), milliseconds(1), now);
  EXPECT_EQ(turns.addresses(), 200U);
  now += seconds(60);
  turns.take(1000, address(1), milliseconds(1), now);
  EXPECT_EQ(turns.addresses(), 1U);
}

TEST(RequestTurns, AgreesWithItsTwinAfterEveryCommand) {
  std::size_t later = 0;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    std::mt19937_64 random(seed);
    model::TurnsUnderTest both({.all_percent = 20, .address_percent = seed % 2 == 0 ? 10U : 20U});
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
