// ServedSample: what it says of ops that are sent again, beside a set that remembers all of them.
#include "core/fetch/served_sample.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace kitsune2 {
namespace {

ServedSample::Again take(ServedSample& sample, std::uint64_t hash, std::uint64_t size) {
  const ServedSample::Op op{hash, size};
  return sample.took(1, size, {&op, sample.covers(hash) ? 1U : 0U});
}

TEST(ServedSample, TellsEachRepetitionWhileItHoldsAll) {
  std::mt19937_64 random(1);
  std::set<std::uint64_t> all;
  ServedSample sample;
  for (int i = 0; i < 10'000 && all.size() < ServedSample::kMost; ++i) {
    const std::uint64_t hash = random() % 300 * 0x9e37'79b9'7f4a'7c15U;
    EXPECT_EQ(take(sample, hash, 100).ops, all.insert(hash).second ? 0U : 1U);
  }
}

TEST(ServedSample, EstimatesHowManyOpsAreSentAgainInBoundedMemory) {
  std::mt19937_64 random(2);
  std::vector<std::uint64_t> ops(200'000);
  for (auto& hash : ops) hash = random();
  ServedSample sample;
  const auto send_all = [&] {
    std::uint64_t again = 0;
    for (const std::uint64_t hash : ops) again += take(sample, hash, 100).ops;
    EXPECT_LE(sample.size(), ServedSample::kMost);
    return again;
  };
  EXPECT_EQ(send_all(), 0U);
  for (int pass = 0; pass < 3; ++pass) {
    const std::uint64_t again = send_all();
    EXPECT_GT(again, 150'000U);
    EXPECT_LT(again, 250'000U);
  }
}

TEST(ServedSample, OneLargeOpThatIsSentTwiceDoesNotStandForMany) {
  std::mt19937_64 random(3);
  ServedSample sample;
  for (int i = 0; i < 10'000; ++i) take(sample, random(), 100);
  ASSERT_GT(sample.weight(), 8U);
  // A large op of the sample.
  std::uint64_t large = random();
  while (large % sample.weight() != 0) large = random();
  take(sample, large, 100'000);
  const auto again = take(sample, large, 100'000);
  EXPECT_EQ(again.ops, sample.weight());
  EXPECT_GE(again.bytes, 100'000U);
  EXPECT_LT(again.bytes, 100'000U + 200 * sample.weight());
}

TEST(ServedSample, OpsOfOneSizeThatAreSentAgainCountWithAllTheirBytes) {
  std::mt19937_64 random(4);
  std::vector<std::uint64_t> ops(20'000);
  for (auto& hash : ops) hash = random();
  ServedSample sample;
  for (const std::uint64_t hash : ops) EXPECT_EQ(take(sample, hash, 1'000).bytes, 0U);
  std::uint64_t bytes = 0;
  for (const std::uint64_t hash : ops) bytes += take(sample, hash, 1'000).bytes;
  EXPECT_GT(bytes, 15'000'000U);
  EXPECT_LT(bytes, 25'000'000U);
}

TEST(ServedSample, WhatWasReadBeforeTheSampleHadToShrinkIsLookedAtAgain) {
  std::mt19937_64 random(5);
  ServedSample sample;
  std::vector<ServedSample::Op> early;
  for (int i = 0; i < 200; ++i) early.push_back({random(), 100});
  for (int i = 0; i < 10'000; ++i) take(sample, random(), 100);
  EXPECT_EQ(sample.took(early.size(), 20'000, early).ops, 0U);
  const auto again = sample.took(early.size(), 20'000, early);
  EXPECT_LT(again.ops, 1'000U) << "and not each of them as one that stands for many";
  EXPECT_LE(sample.size(), ServedSample::kMost);
}

}  // namespace
}  // namespace kitsune2
