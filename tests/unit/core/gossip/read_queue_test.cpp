// The rules of gossip::ReadQueue, by their letters.
#include "core/gossip/read_queue.hpp"

#include <gtest/gtest.h>

namespace kitsune2::gossip {
namespace {

using namespace std::chrono_literals;
using For = ReadQueue::For;

TEST(ReadQueue, OneReadForOthersAndOneForOursAtATime) {
  ReadQueue queue;
  const Time now(1h);
  const auto first = queue.add(For::theirs), second = queue.add(For::theirs);
  const auto ours = queue.add(For::ours);
  queue.add(For::ours);
  EXPECT_EQ(queue.begin(now), ours) << "what we have begun does not wait for others";
  EXPECT_EQ(queue.begin(now), first);
  EXPECT_EQ(queue.begin(now), std::nullopt);
  EXPECT_EQ(queue.next(now), std::nullopt);
  queue.on_ended(first, now, false);
  EXPECT_EQ(queue.begin(now), second) << "in the order of coming";
}

/// The queue of scans that outlived their rounds.
TEST(ReadQueue, AReadHoldsItsSlotUntilTheStoreHasAnswered) {
  ReadQueue queue;
  Time now(1h);
  const auto first = queue.add(For::theirs);
  ASSERT_EQ(queue.begin(now), first);
  EXPECT_TRUE(queue.drop(first)) << "it is to be stopped at the store";
  for (int i = 0; i < 100; ++i) queue.add(For::theirs);
  EXPECT_EQ(queue.begin(now + 1h), std::nullopt);
  EXPECT_TRUE(queue.is_full());
  queue.on_ended(first, now, false);
  EXPECT_TRUE(queue.begin(now));
}

TEST(ReadQueue, ReadsThatHaveNotBegunEndWithTheirRound) {
  ReadQueue queue;
  const auto id = queue.add(For::theirs);
  EXPECT_FALSE(queue.drop(id));
  EXPECT_EQ(queue.begin(Time(1h)), std::nullopt);
  EXPECT_FALSE(queue.drop(id));
}

TEST(ReadQueue, AfterAReadForOthersTheNextOneRestsTwiceAsLongAsItTook) {
  ReadQueue queue;
  Time now(1h);
  const auto first = queue.add(For::theirs), second = queue.add(For::theirs), third = queue.add(For::theirs);
  ASSERT_EQ(queue.begin(now), first);
  now += 300ms;
  queue.on_ended(first, now, false);
  EXPECT_EQ(queue.begin(now), std::nullopt);
  EXPECT_EQ(queue.next(now), now + 600ms);
  EXPECT_EQ(queue.begin(now + 599ms), std::nullopt);
  const auto ours = queue.add(For::ours);
  EXPECT_EQ(queue.begin(now), ours) << "without a rest";
  now += 600ms;
  ASSERT_EQ(queue.begin(now), second);
  now += 20s;
  queue.on_ended(second, now, false);
  EXPECT_EQ(queue.next(now), now + ReadQueue::kLongestRest);
  EXPECT_EQ(queue.begin(now + ReadQueue::kLongestRest), third);
}

TEST(ReadQueue, WhileOpsAreServedToPeersTheRestIsFiveTimesAsLongAsTheReadTook) {
  ReadQueue queue;
  Time now(1h);
  const auto first = queue.add(For::theirs), second = queue.add(For::theirs);
  ASSERT_EQ(queue.begin(now), first);
  now += 300ms;
  queue.on_ended(first, now, true);
  EXPECT_EQ(queue.next(now), now + 1500ms);
  EXPECT_EQ(queue.begin(now + 1499ms), std::nullopt);
  now += 1500ms;
  ASSERT_EQ(queue.begin(now), second);
  now += 1s;
  queue.add(For::theirs);
  queue.on_ended(second, now, true);
  EXPECT_EQ(queue.next(now), now + ReadQueue::kLongestRest);
}

TEST(ReadQueue, AReadThatTookNoTimeNeedsNoRest) {
  ReadQueue queue;
  const Time now(1h);
  for (int i = 0; i < 100; ++i) {
    const auto id = queue.add(For::theirs);
    EXPECT_EQ(queue.begin(now), id);
    queue.on_ended(id, now, false);
  }
}

}  // namespace
}  // namespace kitsune2::gossip
