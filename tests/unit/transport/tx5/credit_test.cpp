// How much may be under way to one peer.
#include "transport/tx5/credit.hpp"

#include <gtest/gtest.h>

#include <random>

#include "model/credit_twin.hpp"

namespace kitsune2::tx5 {
namespace {

using Source = SendCredit::Source;

TEST(SendCredit, TheRelayInsideBringsItBackAndNothingElse) {
  SendCredit credit({.in_process = 1000}, Source::relay);
  credit.on_sent(999);
  EXPECT_TRUE(credit.may_send());
  EXPECT_FALSE(credit.must_ask(1'000'000));
  credit.on_sent(1);
  EXPECT_FALSE(credit.may_send());
  credit.on_asked();
  credit.on_granted();
  EXPECT_FALSE(credit.may_send()) << "a grant says nothing of the socket";
  credit.on_returned(1);
  EXPECT_TRUE(credit.may_send());
  credit.on_returned(1'000'000);
  EXPECT_EQ(credit.under_way(), 0U) << "never more than was sent";
}

TEST(SendCredit, AGrantShowsThatAllBeforeItsRequestWasRead) {
  SendCredit credit({.first = 1000, .most = 10'000}, Source::permits);
  credit.on_returned(1'000'000);
  credit.on_sent(900);
  EXPECT_FALSE(credit.must_ask(100));
  EXPECT_TRUE(credit.must_ask(101));
  credit.on_sent(70);
  credit.on_asked();
  credit.on_sent(500);  // control frames that came after it
  EXPECT_EQ(credit.under_way(), 1470U);
  credit.on_granted();
  EXPECT_EQ(credit.under_way(), 500U);
  EXPECT_EQ(credit.window(), 1000U + 2 * 970);
  credit.on_granted();
  EXPECT_EQ(credit.under_way(), 500U) << "a second grant answers nothing";
}

TEST(SendCredit, WhatOnlyAReaderCanSendShowsWhatWasRead) {
  SendCredit credit({.first = 1000, .most = 10'000}, Source::permits);
  credit.on_sent(900);
  credit.on_read(400);
  EXPECT_EQ(credit.under_way(), 500U);
  EXPECT_EQ(credit.window(), 1000U + 2 * 400);
  credit.on_read(300);
  EXPECT_EQ(credit.under_way(), 500U) << "what was shown is not taken back";
  credit.on_read(1'000'000);
  EXPECT_EQ(credit.under_way(), 0U) << "never more than was sent";
  SendCredit inside({.in_process = 1000}, Source::relay);
  inside.on_sent(900);
  inside.on_read(900);
  EXPECT_EQ(inside.under_way(), 900U) << "the relay knows better";
  EXPECT_FALSE(inside.counts_reading());
}

TEST(SendCredit, TheWindowHasABound) {
  SendCredit credit({.first = 1000, .most = 10'000}, Source::permits);
  for (int i = 0; i < 100; ++i) {
    credit.on_sent(5000);
    credit.on_asked();
    credit.on_granted();
  }
  EXPECT_EQ(credit.window(), 10'000U);
}

TEST(SendCredit, AFarPeerMayHaveItsWindowUnderWay) {
  const CreditLimits limits;
  EXPECT_GE(limits.most, 500'000'000 / 8 / 5) << "500 Mbit/s over 200 ms";
}

TEST(SendCredit, AgreesWithItsTwin) {
  std::mt19937_64 random(5);
  for (int run = 0; run < 400; ++run) {
    model::CreditUnderTest both({.first = 50'000, .most = 400'000, .in_process = 100'000},
                                run % 2 == 0 ? Source::permits : Source::relay);
    for (int i = 0; i < 500; ++i) {
      const std::uint64_t r = random();
      both.step(static_cast<std::uint8_t>(r), static_cast<std::uint16_t>(r >> 8));
    }
  }
}

}  // namespace
}  // namespace kitsune2::tx5
