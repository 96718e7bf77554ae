// Whose question a slow hook server is asked next.
#include "server/auth/hook_turns.hpp"

#include <gtest/gtest.h>

#include <random>

#include "model/hook_turns_twin.hpp"

namespace kitsune2::server {
namespace {

using std::chrono::seconds;

HookTurns::Address address(std::uint8_t number) {
  HookTurns::Address out{};
  out[15] = number;
  return out;
}

TEST(HookTurns, OneAddressLeavesCallsForOthers) {
  HookTurns turns;
  const Time now{seconds(100)};
  for (HookTurns::Question i = 0; i < 60; ++i) turns.ask(i, address(1), now);
  std::size_t calls = 0;
  while (turns.next()) ++calls;
  EXPECT_EQ(calls, 8U);
  turns.ask(1000, address(2), now);
  EXPECT_EQ(turns.next(), 1000U);
}

TEST(HookTurns, AddressesTakeTurns) {
  HookTurns turns({.calls = 1});
  const Time now{seconds(100)};
  for (HookTurns::Question i = 0; i < 20; ++i) turns.ask(i, address(1), now);
  ASSERT_EQ(turns.next(), 0U);
  turns.ask(100, address(2), now);
  EXPECT_EQ(turns.next(), std::nullopt);
  turns.ended(address(1));
  EXPECT_EQ(turns.next(), 1U);
  turns.ended(address(1));
  EXPECT_EQ(turns.next(), 100U);
}

TEST(HookTurns, ACrowdOfQuestionsMakesRoomForAnotherAddress) {
  HookTurns turns({.calls = 0, .waiting = 10, .address_waiting = 10});
  const Time now{seconds(100)};
  for (HookTurns::Question i = 0; i < 10; ++i) turns.ask(i, address(1), now);
  turns.ask(10, address(1), now);
  EXPECT_EQ(turns.given_up(now), std::vector<HookTurns::Question>{10}) << "it has its share";
  turns.ask(11, address(2), now);
  EXPECT_EQ(turns.given_up(now), std::vector<HookTurns::Question>{9}) << "the newest of the crowd";
}

TEST(HookTurns, AQuestionIsGivenUpWhenItHasWaitedTooLong) {
  HookTurns turns({.calls = 0});
  Time now{seconds(100)};
  turns.ask(1, address(1), now);
  EXPECT_EQ(turns.next_deadline(), now + seconds(10));
  EXPECT_TRUE(turns.given_up(now + seconds(9)).empty());
  EXPECT_EQ(turns.given_up(now + seconds(10)), std::vector<HookTurns::Question>{1});
  EXPECT_EQ(turns.waiting(), 0U);
  EXPECT_EQ(turns.next_deadline(), std::nullopt);
}

TEST(HookTurns, DoesWhatItsTwinDoes) {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    std::mt19937 rng(seed);
    model::HookTurnsUnderTest both({.calls = 4, .address_calls = 2, .waiting = 12, .address_waiting = 5});
    for (int i = 0; i < 2000; ++i) {
      const auto command = static_cast<std::uint8_t>(rng()), who = static_cast<std::uint8_t>(rng());
      both.step(command, who, static_cast<std::uint8_t>(rng()));
    }
    both.end();
  }
}

}  // namespace
}  // namespace kitsune2::server
