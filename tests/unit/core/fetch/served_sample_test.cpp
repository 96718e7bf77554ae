// ServedSample: what it says of ops that are sent again, beside a set that remembers all of them.
#include "core/fetch/served_sample.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace kitsune2 {
namespace {

TEST(ServedSample, TellsEachRepetitionWhileItHoldsAll) {
  std::mt19937_64 random(1);
  std::set<std::uint64_t> all;
  ServedSample sample;
  for (int i = 0; i < 10'000 && all.size() < ServedSample::kMost; ++i) {
    const std::uint64_t hash = random() % 300 * 0x9e37'79b9'7f4a'7c15U;
    EXPECT_EQ(sample.note(hash), all.insert(hash).second ? 0U : 1U);
  }
}

TEST(ServedSample, EstimatesHowManyOpsAreSentAgainInBoundedMemory) {
  std::mt19937_64 random(2);
  std::vector<std::uint64_t> ops(200'000);
  for (auto& hash : ops) hash = random();
  ServedSample sample;
  const auto send_all = [&] {
    std::uint64_t again = 0;
    for (const std::uint64_t hash : ops) again += sample.note(hash);
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

}  // namespace
}  // namespace kitsune2
