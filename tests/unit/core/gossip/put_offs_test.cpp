#include "core/gossip/put_offs.hpp"

#include <gtest/gtest.h>

#include <string>

#include "unit/core/named.hpp"

namespace kitsune2::gossip {
namespace {

using tests::url;
constexpr NamedList kCut{1'000, true, false};

TEST(PutOffs, AListThatWasCutOffPutsOffTheComparison) {
  PutOffs p;
  EXPECT_TRUE(p.on_list(url(1), kCut));
  EXPECT_FALSE(p.on_list(url(1), {1'000, false, false})) << "it has its end";
}

TEST(PutOffs, WhatNamesNothingOrIsCutByTheAllowancePutsOffNothing) {
  PutOffs p;
  EXPECT_FALSE(p.on_list(url(1), {0, true, false}));
  EXPECT_FALSE(p.on_list(url(1), {0, true, true}));
  EXPECT_FALSE(p.on_list(url(1), {3, true, true})) << "the next list may name as little, and the one after it";
}

TEST(PutOffs, AfterThreeInARowTheNextRoundCompares) {
  PutOffs p;
  for (int turn = 0; turn < 3; ++turn) {
    for (std::uint32_t i = 0; i < PutOffs::kMostInARow; ++i) {
      EXPECT_FALSE(p.is_due(url(1)));
      EXPECT_TRUE(p.on_list(url(1), kCut)) << i;
    }
    EXPECT_TRUE(p.is_due(url(1)));
    EXPECT_FALSE(p.is_due(url(2))) << "each peer for itself";
    EXPECT_FALSE(p.on_list(url(1), kCut));
  }
}

TEST(PutOffs, PeersAreBoundedAndTheLatestAreKept) {
  PutOffs p;
  const auto put_off = [&](int number) {
    for (std::uint32_t i = 0; i < PutOffs::kMostInARow; ++i) p.on_list(url(number), kCut);
  };
  put_off(-1);
  for (int i = 0; i < 5'000; ++i) put_off(i);
  EXPECT_EQ(p.size(), PutOffs::kMostPeers);
  EXPECT_FALSE(p.is_due(url(-1)));
  EXPECT_TRUE(p.is_due(url(4'999)));
}

}  // namespace
}  // namespace kitsune2::gossip
