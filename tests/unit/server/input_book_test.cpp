// What a server keeps of its clients' input, and who goes when it is too much.
#include "server/input_book.hpp"

#include <gtest/gtest.h>

#include "model/input_book_twin.hpp"

namespace kitsune2::server {
namespace {

using std::chrono::seconds;

constexpr InputBook::Address kCrowd{1}, kOther{2};
const Time kStart{seconds(1000)};

TEST(InputBook, OfACrowdTheOneThatHasWaitedForLongestGoes) {
  InputBook book;
  book.set(1, kOther, 5000, kStart);
  for (InputBook::Id id = 10; id < 20; ++id) book.set(id, kCrowd, 1000, kStart + seconds(id));
  EXPECT_EQ(book.choose(15'000, 1, kStart + seconds(20)), std::nullopt);
  EXPECT_EQ(book.choose(14'999, 1, kStart + seconds(20)), 10U)
      << "of whom the address keeps twice as much, for half as long, and before the others of it";
  book.set(10, kCrowd, 0, {});
  EXPECT_EQ(book.bytes(), 14'000U);
  EXPECT_EQ(book.bytes_of(10), 0U);
}

TEST(InputBook, WhatTheNodeOfThisProcessKeepsDoesNotCount) {
  InputBook book;
  book.set(1, {}, 1'000'000, kStart);
  EXPECT_EQ(book.bytes(), 0U);
  EXPECT_EQ(book.choose(0, 1, kStart), std::nullopt);
}

TEST(InputBook, AgreesWithItsTwinAfterEveryCommand) {
  std::size_t chosen = 0;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    model::InputBookUnderTest both;
    const auto bytes = model::random_commands(seed, 4000);
    model::Commands in{ByteView(bytes)};
    while (!in.is_empty()) both.step(in);
    chosen += both.chosen();
  }
  EXPECT_GT(chosen, 1000U);
}

}  // namespace
}  // namespace kitsune2::server
