// The rules of gossip::Faults, by their letters.
#include "core/gossip/faults.hpp"

#include <gtest/gtest.h>

#include <string>

#include "unit/core/named.hpp"

namespace kitsune2::gossip {
namespace {

using namespace std::chrono_literals;

using tests::url;

TEST(Faults, AreEnoughAtSixtyFour) {
  Faults faults;
  const Time now(1h);
  for (int i = 0; i < 63; ++i) EXPECT_FALSE(faults.add(url("a"), 1, now)) << i;
  EXPECT_FALSE(faults.add(url("b"), 1, now)) << "each for itself";
  EXPECT_TRUE(faults.add(url("a"), 1, now));
  EXPECT_TRUE(faults.add(url("a"), 1, now + 9s)) << "it has come back";
}

TEST(Faults, OneIsForgivenInTenSeconds) {
  Faults faults;
  Time now(1h);
  for (int i = 0; i < 10'000; ++i, now += 10s) EXPECT_FALSE(faults.add(url("a"), 1, now)) << i;
  for (int i = 0; i < 500; ++i) faults.add(url("a"), 1, now);
  EXPECT_FALSE(faults.add(url("a"), 1, now + 11min)) << "however many there were";
}

TEST(Faults, ThePeerWithTheFewestIsForgotten) {
  Faults faults;
  const Time now(1h);
  for (int i = 0; i < 63; ++i) faults.add(url("worst"), 1, now);
  for (std::size_t i = 0; i < 3 * Faults::kMostPeers; ++i) faults.add(url("p" + std::to_string(i)), 1, now);
  EXPECT_LE(faults.size(), Faults::kMostPeers);
  EXPECT_TRUE(faults.add(url("worst"), 1, now));
}

}  // namespace
}  // namespace kitsune2::gossip
