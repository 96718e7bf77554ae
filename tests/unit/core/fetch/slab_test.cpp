// The slab: growing, freeing chunks, and reusing slots.
#include "core/fetch/slab.hpp"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>

namespace kitsune2 {
namespace {

struct Counted {
  std::shared_ptr<int> alive;
  std::uint64_t value;
};

TEST(Slab, SlotsAreStableAndReused) {
  Slab<Counted, 4> slab;
  const auto token = std::make_shared<int>(0);
  std::map<std::uint32_t, std::uint64_t> expected;
  std::mt19937 random(7);
  for (std::uint64_t i = 0; i < 20'000; ++i) {
    // Grows to about a hundred records and shrinks to none, repeatedly.
    const bool grow = i / 200 % 2 == 0;
    if (expected.empty() || random() % 4 < (grow ? 3U : 1U)) {
      const std::uint32_t slot = slab.emplace(token, i);
      ASSERT_FALSE(expected.contains(slot));
      expected[slot] = i;
    } else {
      auto it = expected.lower_bound(static_cast<std::uint32_t>(random() % 200));
      if (it == expected.end()) it = expected.begin();
      slab.erase(it->first);
      ASSERT_FALSE(slab.holds(it->first));
      expected.erase(it);
    }
    ASSERT_EQ(slab.size(), expected.size());
    ASSERT_EQ(token.use_count(), static_cast<long>(expected.size()) + 1);
  }
  auto it = expected.begin();
  slab.for_each([&](std::uint32_t slot, const Counted& record) {
    ASSERT_NE(it, expected.end());
    EXPECT_EQ(slot, it->first);
    EXPECT_EQ(record.value, it->second);
    EXPECT_TRUE(slab.holds(slot));
    ++it;
  });
  EXPECT_EQ(it, expected.end());
  slab.clear();
  EXPECT_EQ(slab.size(), 0U);
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_FALSE(slab.holds(0));
  slab.emplace(token, 1U);
  EXPECT_EQ(token.use_count(), 2);
}

TEST(Slab, SlotsStayDenseUnderChurn) {
  // First in, first out, ten records at a time: the slots must not grow without end.
  Slab<std::uint64_t, 4> slab;
  std::vector<std::uint32_t> queue;
  std::uint32_t highest = 0;
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    queue.push_back(slab.emplace(i));
    highest = std::max(highest, queue.back());
    if (queue.size() < 10) continue;
    slab.erase(queue.front());
    queue.erase(queue.begin());
  }
  EXPECT_LT(highest, 64U);
}

}  // namespace
}  // namespace kitsune2
