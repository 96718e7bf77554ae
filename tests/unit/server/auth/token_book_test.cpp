// Tokens of clients: which are good, for how long, and what becomes of the keys that their holders named.
#include "server/auth/token_book.hpp"

#include <gtest/gtest.h>

#include <random>

#include "model/token_book_twin.hpp"

namespace kitsune2::server {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using Access = TokenBook::Access;
using As = TokenBook::As;

constexpr TokenBook::Secret kSecret{1, 2, 3};
const Time kStart{std::chrono::hours(1)};

TokenBook::Address address(std::uint8_t net, std::uint8_t host = 1) {
  TokenBook::Address out{};
  out[10] = out[11] = 0xff;
  out[12] = net;
  out[15] = host;
  return out;
}

TokenBook::Key key(std::uint8_t number) {
  TokenBook::Key out{};
  out[0] = number;
  return out;
}

TEST(TokenBook, WithoutAHookServerNoTokenIsNeededButAWrongOneIsRefused) {
  const TokenBook::Secret other{9};
  TokenBook book(false, kSecret), restarted(false, other);
  EXPECT_TRUE(book.check(std::nullopt, kStart));
  const std::string token = book.issue({5, 6, 7});
  EXPECT_EQ(token.size(), 43U);
  EXPECT_TRUE(book.check(token, kStart));
  EXPECT_TRUE(book.check(token, kStart + std::chrono::hours(100))) << "nothing is remembered, so nothing ends";
  EXPECT_FALSE(restarted.check(token, kStart));
  EXPECT_FALSE(book.check("", kStart));
  EXPECT_FALSE(book.check("any-token", kStart));
  for (std::size_t i = 0; i + 1 < token.size(); ++i) {
    std::string changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(book.check(changed, kStart)) << i;
  }
  EXPECT_EQ(book.open(std::nullopt, kStart).access, Access::good);
  EXPECT_EQ(book.tokens(), 0U);
}

TEST(TokenBook, WithAHookServerOnlyItsTokensAreGood) {
  TokenBook book(true, kSecret);
  EXPECT_FALSE(book.check(std::nullopt, kStart));
  EXPECT_FALSE(book.check(book.issue({1}), kStart)) << "nobody gave it to a client";
  ASSERT_TRUE(book.admit("good", address(1), kStart, 1));
  EXPECT_TRUE(book.check("good", kStart));
  EXPECT_FALSE(book.check("goo", kStart));
  EXPECT_FALSE(book.check("good ", kStart));
  EXPECT_FALSE(book.admit("", address(1), kStart, 1));
  EXPECT_FALSE(book.admit(std::string(TokenBook::kMaxTokenBytes + 1, 'x'), address(1), kStart, 1));
}

TEST(TokenBook, ATokenEndsFiveMinutesAfterItsLastUse) {
  TokenBook book(true, kSecret);
  ASSERT_TRUE(book.admit("good", address(1), kStart, 1));
  Time now = kStart;
  for (int i = 0; i < 5; ++i) {
    now += minutes(5) - seconds(1);
    EXPECT_TRUE(book.check("good", now));
  }
  EXPECT_FALSE(book.check("good", now + minutes(5)));
  EXPECT_FALSE(book.check("good", now)) << "it is forgotten";
  EXPECT_TRUE(book.admit("good", address(1), now, 1)) << "the hook server gives it again";
  EXPECT_TRUE(book.check("good", now));
}

TEST(TokenBook, HowLongATokenIsGoodCanBeSet) {
  TokenBook book(true, kSecret, {.idle = seconds(2)});
  ASSERT_TRUE(book.admit("good", address(1), kStart, 1));
  EXPECT_TRUE(book.check("good", kStart + std::chrono::milliseconds(1999)));
  EXPECT_FALSE(book.check("good", kStart + seconds(4)));
}

TEST(TokenBook, AConnectionToTheRelayKeepsItsToken) {
  TokenBook book(true, kSecret);
  ASSERT_TRUE(book.admit("live", address(1), kStart, 1) && book.admit("idle", address(1), kStart, 1));
  const auto opened = book.open("live", kStart);
  ASSERT_TRUE(opened.token.has_value());
  const Time later = kStart + std::chrono::hours(3);
  book.prune(later);
  EXPECT_EQ(book.tokens(), 1U);
  EXPECT_TRUE(book.check("live", later));
  EXPECT_FALSE(book.check("idle", later));
  book.closed(*opened.token, later);
  EXPECT_TRUE(book.check("live", later + minutes(4)));
  EXPECT_FALSE(book.check("live", later + minutes(10)));
  book.closed(*opened.token, later);  // it is gone
}

TEST(TokenBook, AKeyIsListedAsLongAsTheTokenThatNamedItLast) {
  TokenBook book(true, kSecret);
  ASSERT_TRUE(book.admit("first", address(1), kStart, 1));
  EXPECT_FALSE(book.list(key(1), As::kept_alive, "wrong", address(1), kStart, 1));
  EXPECT_TRUE(book.list(key(1), As::kept_alive, "first", address(1), kStart, 1));
  EXPECT_TRUE(book.is_listed(key(1), kStart));
  EXPECT_FALSE(book.is_listed(key(2), kStart));
  const Time later = kStart + minutes(4);
  ASSERT_TRUE(book.admit("second", address(1), later, 1));
  EXPECT_TRUE(book.list(key(1), As::kept_alive, "second", address(1), later, 1));
  EXPECT_TRUE(book.is_listed(key(1), kStart + minutes(8)));
  EXPECT_FALSE(book.is_listed(key(1), later + minutes(5)));
  book.prune(later + minutes(5));
  EXPECT_EQ(book.keys(), 0U);
}

TEST(TokenBook, ARegisteredKeyOpensTheRelayWithoutAToken) {
  TokenBook book(true, kSecret);
  ASSERT_TRUE(book.admit("good", address(1), kStart, 1));
  EXPECT_FALSE(book.list(key(1), As::registered, "wrong", address(1), kStart, 1));
  EXPECT_EQ(book.open(std::nullopt, kStart).access, Access::none) << "no key is registered";
  EXPECT_TRUE(book.list(key(1), As::registered, "good", address(1), kStart, 1));
  EXPECT_TRUE(book.list(key(2), As::kept_alive, "good", address(1), kStart, 1));
  const auto opened = book.open(std::nullopt, kStart);
  EXPECT_EQ(opened.access, Access::by_key);
  EXPECT_FALSE(opened.token.has_value());
  EXPECT_TRUE(book.is_registered(key(1), kStart));
  EXPECT_TRUE(book.is_listed(key(1), kStart)) << "it may also present a token that has ended";
  EXPECT_FALSE(book.is_registered(key(2), kStart)) << "a node of 0.5 has a token to present";
  EXPECT_FALSE(book.is_registered(key(3), kStart));
}

TEST(TokenBook, ARegistrationEndsWithItsTokenAndANewOneMovesIt) {
  TokenBook book(true, kSecret);
  ASSERT_TRUE(book.admit("first", address(1), kStart, 1));
  ASSERT_TRUE(book.list(key(1), As::registered, "first", address(1), kStart, 1));
  ASSERT_TRUE(book.list(key(2), As::registered, "first", address(1), kStart, 1));
  const Time later = kStart + minutes(4);
  ASSERT_TRUE(book.admit("second", address(1), later, 1));
  EXPECT_TRUE(book.list(key(1), As::registered, "second", address(1), later, 1));
  EXPECT_TRUE(book.is_registered(key(1), kStart + minutes(8)));
  EXPECT_FALSE(book.is_registered(key(2), kStart + minutes(5)));
  EXPECT_FALSE(book.is_registered(key(1), later + minutes(5)));
  book.prune(later + minutes(5));
  EXPECT_EQ(book.registered_keys(), 0U);
  EXPECT_EQ(book.open(std::nullopt, later + minutes(5)).access, Access::none);
}

TEST(TokenBook, NobodyEndsTheRegistrationOfAnother) {
  TokenBook book(true, kSecret, {.keys_of_token = 2});
  for (const char* token : {"honest", "other", "ended"}) ASSERT_TRUE(book.admit(token, address(1), kStart, 1));
  ASSERT_TRUE(book.list(key(1), As::registered, "honest", address(1), kStart, 1));
  EXPECT_TRUE(book.list(key(1), As::kept_alive, "honest", address(1), kStart, 1));
  EXPECT_TRUE(book.is_registered(key(1), kStart)) << "by the same token, named otherwise";
  EXPECT_TRUE(book.list(key(1), As::kept_alive, "other", address(2), kStart, 1));
  EXPECT_TRUE(book.is_registered(key(1), kStart)) << "by another one";
  ASSERT_TRUE(book.list(key(2), As::kept_alive, "honest", address(1), kStart, 1));
  ASSERT_TRUE(book.list(key(2), As::registered, "other", address(2), kStart, 1));
  EXPECT_TRUE(book.is_registered(key(2), kStart)) << "one that was kept alive before";
  ASSERT_TRUE(book.list(key(3), As::registered, "ended", address(1), kStart, 1));
  const Time later = kStart + minutes(5);
  ASSERT_TRUE(book.admit("good", address(1), later, 1));
  EXPECT_TRUE(book.list(key(3), As::kept_alive, "good", address(1), later, 1));
  EXPECT_FALSE(book.is_registered(key(3), later)) << "that has ended already";
  book.check_invariants();
}

TEST(TokenBook, ATokenThatNamesKeysWithoutEndFromManyAddressesTakesNobodysPlace) {
  TokenBook book(true, kSecret, {.keys = 64, .keys_of_token = 16});
  ASSERT_TRUE(book.admit("honest", address(1), kStart, 1) && book.admit("greedy", address(2), kStart, 1));
  for (std::uint8_t i = 0; i < 16; ++i)
    ASSERT_TRUE(book.list(key(i), As::registered, "honest", address(1, i), kStart, i));
  TokenBook::Key many = key(200);
  for (std::size_t i = 0; i < 1000; ++i) {
    many[1] = static_cast<std::uint8_t>(i);
    many[2] = static_cast<std::uint8_t>(i / 256);
    const auto from = address(static_cast<std::uint8_t>(3 + i % 200), static_cast<std::uint8_t>(i));
    book.list(many, As::registered, "greedy", from, kStart, i);
  }
  EXPECT_EQ(book.keys(), 32U);
  for (std::uint8_t i = 0; i < 16; ++i) EXPECT_TRUE(book.is_registered(key(i), kStart));
  book.check_invariants();
}

TEST(TokenBook, AConnectionWithAStaleTokenIsToldFromOneWithout) {
  TokenBook book(true, kSecret);
  EXPECT_EQ(book.open("stale", kStart).access, Access::stale);
  EXPECT_EQ(book.open(std::nullopt, kStart).access, Access::none);
  EXPECT_FALSE(book.open("stale", kStart).token.has_value());
}

TEST(TokenBook, AnAddressThatAsksWithoutEndTakesNobodysPlace) {
  TokenBook book(true, kSecret, {.tokens = 64, .keys = 64});
  for (std::uint8_t i = 0; i < 8; ++i) {
    const std::string token = "honest-" + std::to_string(i);
    ASSERT_TRUE(book.admit(token, address(i + 10), kStart, i));
    ASSERT_TRUE(book.list(key(i), As::kept_alive, token, address(i + 10), kStart, i));
  }
  std::size_t refused = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string token = "greedy-" + std::to_string(i);
    const bool admitted = book.admit(token, address(1), kStart, static_cast<std::uint64_t>(i));
    refused += admitted ? 0U : 1U;
  }
  EXPECT_GT(refused, 0U);
  for (int i = 0; i < 200; ++i) {
    TokenBook::Key many = key(200);
    many[1] = static_cast<std::uint8_t>(i);
    book.list(many, As::kept_alive, "greedy-0", address(1), kStart, static_cast<std::uint64_t>(i));
  }
  for (std::uint8_t i = 0; i < 8; ++i) {
    EXPECT_TRUE(book.check("honest-" + std::to_string(i), kStart));
    EXPECT_TRUE(book.is_listed(key(i), kStart));
  }
  EXPECT_TRUE(book.admit("newcomer", address(30), kStart, 1)) << "the crowd makes room";
  EXPECT_EQ(book.tokens(), 64U);
  book.check_invariants();
}

TEST(TokenBook, DoesWhatItsTwinDoes) {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    std::mt19937 rng(seed);
    model::TokensUnderTest both(seed % 2 == 0);
    for (int i = 0; i < 2000; ++i) {
      const auto command = static_cast<std::uint8_t>(rng()), what = static_cast<std::uint8_t>(rng());
      both.step(command, what, static_cast<std::uint8_t>(rng()));
    }
    both.end();
  }
}

}  // namespace
}  // namespace kitsune2::server
