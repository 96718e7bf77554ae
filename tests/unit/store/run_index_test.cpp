// The index of runs: against its twin, its costs, and what damage does to it.
#include "store/runs/run_index.hpp"

#include <gtest/gtest.h>

#include "model/run_index_twin.hpp"

namespace kitsune2::runs {
namespace {

using model::random_commands;
using model::RunIndexUnderTest;
using model::SlotDisk;

/// So small that there are runs of several levels.
constexpr MergeRules kSmall{.newest = 64, .fan_in = 3, .most_entries = 1'500};

TEST(RunIndexTwin, AgreesThroughCrashesFailuresAndDrops) {
  std::size_t added = 0, held = 0, manifests = 0, crashes = 0, failures = 0, replaced = 0, followed = 0, most_runs = 0;
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    RunIndexUnderTest test(kSmall, seed % 2 == 0);
    ASSERT_NO_THROW(test.run(random_commands(seed, 300))) << "seed " << seed;
    added += test.coverage.added;
    held += test.coverage.held_already;
    manifests += test.coverage.manifests;
    crashes += test.coverage.crashes;
    failures += test.coverage.failures;
    replaced += test.coverage.replaced;
    followed += test.coverage.followed;
    most_runs = std::max(most_runs, test.coverage.most_runs);
  }
  // Nothing that matters was left out.
  EXPECT_GT(added, 20'000U);
  EXPECT_GT(held, 1'000U);
  EXPECT_GT(manifests, 400U);
  EXPECT_GT(crashes, 100U);
  EXPECT_GT(failures, 10U);
  EXPECT_GT(replaced, 100U);
  EXPECT_GT(followed, 100U);
  EXPECT_GT(most_runs, 8U);
}

/// An op whose id says where it lies.
struct Op {
  std::uint32_t location, size;
  std::int64_t created_at, stored_at;
  std::array<std::uint8_t, 32> id;
  Entry entry() const { return {location, size, created_at, stored_at, id}; }
};
Op op_of(std::uint64_t number) {
  std::mt19937_64 random(number);
  Op out{0,
         static_cast<std::uint32_t>(number % 1'000),
         static_cast<std::int64_t>(random() >> 20U),
         static_cast<std::int64_t>(1'000 + number),
         {}};
  for (std::size_t i = 0; i < 32; i += 8) save(out.id.data() + i, random());
  out.location = dht_location(out.id);
  return out;
}

/// Fills an index, `batch` ops a commit; gives the most blocks that one commit wrote.
std::size_t fill(RunIndex& index, SlotDisk& disk, std::uint64_t ops, std::size_t batch) {
  std::size_t most = 0;
  for (std::uint64_t i = 0; i < ops;) {
    index.begin();
    for (std::size_t k = 0; k < batch && i < ops; ++k) index.add(op_of(i++).entry());
    const std::size_t before = disk.writes;
    EXPECT_TRUE(index.step().has_value());
    index.committed();
    most = std::max(most, disk.writes - before);
  }
  return most;
}

/// Half a million in memory that is as small as a test needs: 24 MB of blocks.
constexpr MergeRules kMiddle{.newest = 2'048, .fan_in = 8, .most_entries = 1U << 25U};

TEST(RunIndex, WorkOfACommitAndNumberOfRunsAreBounded) {
  for (const std::size_t batch : {std::size_t{1}, std::size_t{100}, std::size_t{2'000}}) {
    SlotDisk disk;
    RunIndex index(disk, kMiddle);
    Manifest empty;
    ASSERT_TRUE(index.load(empty).has_value());
    constexpr std::uint64_t kOps = 200'000;
    const std::size_t most = fill(index, disk, kOps, batch);
    // 12 entries an op, some 280 of them in a block, or a block for 256; and what waited for the least amount of work.
    EXPECT_LE(most, (batch * RunIndex::kWorkAnOp + 1'024) / 256 + 4) << batch;
    // Three levels in two orders, with seven runs each and as many in a merge.
    EXPECT_LE(index.runs(), 2U * 3U * 15U) << batch;
    EXPECT_LE(index.newest(), 2 * kMiddle.newest + batch) << batch;
    // Three to four times in each order; blocks of filters and fences besides.
    EXPECT_LT(disk.writes, kOps * 8 / 250) << batch;
    EXPECT_LT(disk.slots().size(), 5 * kOps * 2 / 250) << batch;
  }
}

TEST(RunIndex, AnIdleStoreComesToAnEndOfItsWork) {
  SlotDisk disk;
  RunIndex index(disk, kMiddle);
  ASSERT_TRUE(index.load({}).has_value());
  fill(index, disk, 70'000, 2'000);
  int steps = 0;
  for (; index.has_work() && steps < 10'000; ++steps) {
    index.begin();
    ASSERT_TRUE(index.step_idle(1'000).has_value());
    index.committed();
  }
  EXPECT_LT(steps, 10'000);
  EXPECT_LE(index.runs(), 2U * 3U * 7U);
  const std::size_t before = disk.writes;
  EXPECT_FALSE(*index.step_idle(100'000));
  EXPECT_EQ(disk.writes, before);
}

TEST(RunIndex, WhatTheWriterHasOpenAReaderDoesNotOpenAgain) {
  SlotDisk disk;
  RunIndex writer(disk, kMiddle);
  ASSERT_TRUE(writer.load({}).has_value());
  fill(writer, disk, 20'000, 500);
  const auto shelf = std::make_shared<RunShelf>();
  shelf->put(writer.take_changed_runs().value());
  EXPECT_FALSE(writer.take_changed_runs().has_value()) << "they are the same";
  RunIndex reader(disk, kMiddle, nullptr, shelf), alone(disk, kMiddle);
  const std::size_t before = disk.reads;
  ASSERT_TRUE(reader.follow(writer.manifest()).has_value());
  EXPECT_EQ(disk.reads, before);
  ASSERT_TRUE(alone.follow(writer.manifest()).has_value());
  EXPECT_GT(disk.reads, before);
  const Op op = op_of(7);
  EXPECT_EQ(reader.find(op.location, op.id)->value().stored_at, op.stored_at);
  // It reads blocks of entries itself.
  EXPECT_GT(disk.reads, before + 1);
  // A run is known by all that the manifest says of it.
  Manifest other = writer.manifest();
  ASSERT_FALSE(other.runs.empty());
  ++other.runs[0].entries;
  EXPECT_EQ(shelf->find(other.runs[0]), nullptr);
}

TEST(RunIndex, BlocksThatWereCheckedLatelyAreNotReadAgain) {
  constexpr std::uint64_t kOps = 4 * kMiddle.newest;
  SlotDisk disk;
  RunIndex writer(disk, kMiddle);
  ASSERT_TRUE(writer.load({}).has_value());
  fill(writer, disk, kOps, 500);
  const auto covered = static_cast<std::uint64_t>(writer.manifest().covered) - 1'000 + 1;
  const auto cache = std::make_shared<BlockCache>(64);
  RunIndex index(disk, kMiddle, cache);
  ASSERT_TRUE(index.load(writer.manifest()).has_value());
  const auto find_all = [&](RunIndex& in) {
    const std::size_t before = disk.reads;
    for (std::uint64_t i = 0; i < covered; ++i) {
      const Op op = op_of(i);
      const auto found = in.find(op.location, op.id);
      EXPECT_TRUE(found.has_value() && found->has_value() && (*found)->stored_at == op.stored_at) << i;
    }
    return disk.reads - before;
  };
  const std::size_t read = find_all(index);
  EXPECT_GT(read, 0U);
  EXPECT_EQ(read, cache->size());  // each of them once
  EXPECT_EQ(find_all(index), 0U);
  // What was right once is right later, whatever the disk has made of it.
  const auto good = disk.slots();
  for (auto& [slot, block] : disk.slots()) block[100] ^= 1U;
  EXPECT_EQ(find_all(index), 0U);
  // An index that is opened then takes nothing from the cache that it has not read itself.
  RunIndex other(disk, kMiddle, cache);
  EXPECT_FALSE(other.load(writer.manifest()).has_value());
  disk.slots() = good;
  ASSERT_TRUE(other.load(writer.manifest()).has_value());
  EXPECT_GT(find_all(other), 0U);
}

TEST(RunIndex, QueriesTakeBlocksFromTheCacheAndKeepOnlyTheFirst) {
  SlotDisk disk;
  RunIndex writer(disk, kMiddle);
  ASSERT_TRUE(writer.load({}).has_value());
  fill(writer, disk, 2 * kMiddle.newest, 500);
  const auto cache = std::make_shared<BlockCache>(64);
  RunIndex index(disk, kMiddle, cache);
  ASSERT_TRUE(index.load(writer.manifest()).has_value());
  const auto runs = static_cast<std::size_t>(
      std::ranges::count_if(index.manifest().runs, [](const RunInfo& run) { return run.order == Order::by_time; }));
  ASSERT_GT(runs, 0U);
  std::vector<std::int64_t> first, second;
  for (auto* out : {&first, &second}) {
    const auto cursor = index.scan(Order::by_time, {0, 0, INT64_MIN, INT64_MIN, {}});
    for (; !cursor->at_end(); cursor->next()) out->push_back(cursor->entry().stored_at);
    EXPECT_FALSE(cursor->error());
  }
  EXPECT_EQ(first, second);
  EXPECT_EQ(cache->size(), runs);
}

TEST(BlockCache, KeepsNoMoreThanItMayAndForgetsWhatIsNotAskedFor) {
  BlockCache cache(3);
  const auto block = std::make_shared<CheckedBlock>();
  const auto keep = [&](std::uint32_t number) { cache.keep({1, number}, block); };
  for (const std::uint32_t number : {0U, 1U, 2U}) keep(number);
  EXPECT_EQ(cache.size(), 3U);
  EXPECT_EQ(cache.find({1, 0}), block);
  EXPECT_EQ(cache.find({2, 0}), nullptr);  // of another run
  keep(3);                                 // in place of 1, since 0 was asked for
  EXPECT_NE(cache.find({1, 0}), nullptr);
  EXPECT_EQ(cache.find({1, 1}), nullptr);
  EXPECT_NE(cache.find({1, 3}), nullptr);
  keep(4);  // all but 2 were asked for
  EXPECT_EQ(cache.find({1, 2}), nullptr);
  EXPECT_NE(cache.find({1, 4}), nullptr);
  for (std::uint32_t number = 10; number < 100; ++number) keep(number);
  EXPECT_EQ(cache.size(), 3U);
  EXPECT_EQ(block.use_count(), 4);  // what is forgotten is freed
  BlockCache none(0);
  none.keep({1, 1}, block);
  EXPECT_EQ(none.find({1, 1}), nullptr);
}

TEST(RunIndex, ANumberIsDurableBeforeABlockHasIt) {
  SlotDisk disk;
  RunIndex index(disk, kMiddle);
  ASSERT_TRUE(index.load({}).has_value());
  index.begin();
  for (std::uint64_t i = 0; i < kMiddle.newest; ++i) index.add(op_of(i).entry());
  // The runs are far from complete, and the manifest is to be written all the same.
  const auto changed = index.step();
  ASSERT_TRUE(changed.has_value());
  EXPECT_TRUE(*changed);
  EXPECT_EQ(index.manifest().next_number, 3U);
  EXPECT_FALSE(*index.step());
}

TEST(RunIndex, UnknownIdsCostAlmostNoReads) {
  SlotDisk disk;
  RunIndex index(disk, kMiddle);
  ASSERT_TRUE(index.load({}).has_value());
  fill(index, disk, 100'000, 2'000);
  disk.reads = 0;
  for (std::uint64_t i = 0; i < 2'000; ++i) {
    const Op op = op_of(1'000'000 + i);
    const auto found = index.find(op.location, op.id);
    ASSERT_TRUE(found.has_value());
    EXPECT_FALSE(found->has_value());
  }
  EXPECT_LT(disk.reads, 400U);  // about 20 runs by place, of which each takes one id of 200 for one of its own
  for (std::uint64_t i = 0; i < 2'000; ++i) {
    const Op op = op_of(i * 50);
    const auto found = index.find(op.location, op.id);
    ASSERT_TRUE(found.has_value() && found->has_value());
    EXPECT_EQ((*found)->stored_at, op.stored_at);
  }
}

// ------------------------------------------------------------------- merging

TEST(ChooseMerge, TakesTheOldestOfTheLowestFullLevel) {
  const MergeRules rules{.newest = 10, .fan_in = 2, .most_entries = 70};
  using Numbers = std::vector<std::size_t>;
  const auto choose = [&](std::vector<std::uint64_t> sizes) { return choose_merge(sizes, rules); };
  EXPECT_EQ(level_of(0, rules), 0U);
  EXPECT_EQ(level_of(10, rules), 0U);
  EXPECT_EQ(level_of(11, rules), 1U);
  EXPECT_EQ(level_of(20, rules), 1U);
  EXPECT_EQ(level_of(21, rules), 2U);
  EXPECT_GT(level_of(UINT64_MAX, rules), 50U);
  EXPECT_EQ(choose({}), Numbers());
  EXPECT_EQ(choose({40, 20, 10}), Numbers());
  EXPECT_EQ(choose({20, 20, 10, 10}), (Numbers{2, 3}));
  EXPECT_EQ(choose({20, 20, 10}), (Numbers{0, 1}));
  EXPECT_EQ(choose({40, 40, 20, 20}), (Numbers{2, 3}));
  EXPECT_EQ(choose({40, 40}), Numbers());  // together more than a run may have
  EXPECT_EQ(choose({9, 40, 8, 7}), (Numbers{0, 2}));
}

// -------------------------------------------------------------------- damage

TEST(RunIndex, ABlockThatIsNotAsItWasWrittenIsAnErrorOrDoesNoHarm) {
  constexpr std::uint64_t kOps = 6'000;
  SlotDisk disk;
  RunIndex index(disk, kMiddle);
  ASSERT_TRUE(index.load({}).has_value());
  fill(index, disk, kOps, 2'000);
  const Manifest manifest = index.manifest();
  const std::uint64_t covered = static_cast<std::uint64_t>(manifest.covered) - 1'000 + 1;
  const auto good = disk.slots();
  std::mt19937_64 random(5);
  std::size_t refused = 0, errors = 0;
  for (int round = 0; round < 120; ++round) {
    disk.slots() = good;
    auto slot = disk.slots().begin();
    std::advance(slot, random() % good.size());
    if (round % 4 == 0) {  // another block lies there
      auto other = good.begin();
      std::advance(other, random() % good.size());
      if (other->first == slot->first) continue;
      slot->second = other->second;
    } else {
      slot->second[random() % kBlockBytes] ^= static_cast<std::uint8_t>(1U << random() % 8);
    }
    RunIndex damaged(disk, kMiddle);
    const auto loaded = damaged.load(manifest);
    if (!loaded) {
      EXPECT_EQ(loaded.error().code, Errc::corrupt);
      ++refused;
      continue;
    }
    bool failed = false;
    for (std::uint64_t i = 0; i < covered; i += 7) {
      const Op op = op_of(i);
      const auto found = damaged.find(op.location, op.id);
      if (found) {
        ASSERT_TRUE(found->has_value()) << "an op is missing and nobody is told";
        ASSERT_EQ((*found)->stored_at, op.stored_at);
      } else {
        EXPECT_EQ(found.error().code, Errc::corrupt);
        failed = true;
      }
    }
    for (const Order order : {Order::by_place, Order::by_time}) {
      const auto cursor = damaged.scan(order, {0, 0, INT64_MIN, INT64_MIN, {}});
      std::uint64_t seen = 0;
      for (; !cursor->at_end(); cursor->next()) ++seen;
      failed = failed || cursor->error();
      ASSERT_TRUE(cursor->error() || seen == covered);
    }
    errors += failed ? 1 : 0;
  }
  EXPECT_GT(refused, 5U);
  EXPECT_GT(errors, 20U);
}

TEST(Manifest, IsReadAsWrittenOrRefused) {
  Manifest manifest;
  manifest.salt = 5;
  manifest.next_number = 9;
  manifest.covered = -3;
  manifest.runs = {{7, Order::by_place, 100, 2, {{0, 3}, {8, 1}}}, {8, Order::by_time, 100, 2, {{4, 3}}}};
  const auto bytes = manifest.encode();
  const auto again = Manifest::decode(bytes, 9);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(*again, manifest);
  EXPECT_EQ(manifest.runs[0].blocks(), 4U);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    auto other = bytes;
    other[i] ^= 1;
    EXPECT_FALSE(Manifest::decode(other, 9).has_value()) << i;
    EXPECT_FALSE(Manifest::decode(ByteView(bytes).first(i), 9).has_value()) << i;
  }
  const auto refused = [&](auto change) {
    Manifest other = manifest;
    change(other);
    const auto out = Manifest::decode(other.encode(), 9);
    return !out && out.error().code == Errc::corrupt;
  };
  EXPECT_TRUE(refused([](Manifest& m) { m.runs[0].slots[1] = {9, 1}; }));  // beyond the file
  EXPECT_TRUE(refused([](Manifest& m) { m.runs[0].slots[1] = {6, 1}; }));  // named twice
  EXPECT_TRUE(refused([](Manifest& m) { m.runs[0].slots[1] = {8, 0}; }));  // nothing
  EXPECT_TRUE(refused([](Manifest& m) { m.runs[0].number = 8; }));         // a number twice
  EXPECT_TRUE(refused([](Manifest& m) { m.next_number = 8; }));            // a number that is to come
  EXPECT_TRUE(refused([](Manifest& m) { m.next_number = UINT64_MAX; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.runs[0].entry_blocks = 5; }));  // more than it has
  EXPECT_TRUE(refused([](Manifest& m) { m.runs[0].entries = 1'000'000; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.runs[0].order = Order{3}; }));
  EXPECT_FALSE(refused([](Manifest& m) { m.runs[0].slots[1] = {7, 1}; }));
}

TEST(SlotMap, GivesTheLowestFreeSlot) {
  Manifest manifest;
  manifest.runs = {{1, Order::by_place, 1, 1, {{1, 2}, {4, 1}}}};
  SlotMap slots(manifest);
  EXPECT_EQ(slots.end(), 5U);
  EXPECT_EQ(slots.take(), 0U);
  EXPECT_EQ(slots.take(), 3U);
  EXPECT_EQ(slots.take(), 5U);
  slots.give_back({{1, 1}, {4, 1}});
  EXPECT_EQ(slots.take(), 1U);
  EXPECT_EQ(slots.take(), 4U);
  EXPECT_EQ(slots.take(), 6U);
}

TEST(EntryBlock, HoldsIdsOfAnyLengthUpToTheLongest) {
  EntryBlock block;
  std::vector<std::vector<std::uint8_t>> ids;
  for (std::size_t size = 0; size <= kLongestId; size += 127) ids.emplace_back(size, static_cast<std::uint8_t>(size));
  std::vector<Entry> entries;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    entries.push_back({static_cast<std::uint32_t>(i), UINT32_MAX, INT64_MIN, INT64_MAX, ids[i]});
    ASSERT_TRUE(block.add(entries.back()));
  }
  const BlockName name{3, 4};
  const ByteView sealed = block.seal(name, Order::by_place);
  const auto view = EntryView::open(sealed, name, Order::by_place);
  ASSERT_TRUE(view.has_value());
  ASSERT_EQ(view->size(), entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ(compare(Order::by_place, (*view)[i], entries[i]), std::strong_ordering::equal);
    EXPECT_EQ((*view)[i].size, UINT32_MAX);
    EXPECT_EQ((*view)[i].created_at, INT64_MIN);
    EXPECT_EQ(view->first_from(Order::by_place, entries[i]), i);
  }
  EXPECT_FALSE(EntryView::open(sealed, {3, 5}, Order::by_place).has_value());
  EXPECT_FALSE(EntryView::open(sealed, {2, 4}, Order::by_place).has_value());
  EXPECT_FALSE(EntryView::open(sealed, name, Order::by_time).has_value());
  EXPECT_FALSE(EntryView::open(sealed.first(100), name, Order::by_place).has_value());
}

}  // namespace
}  // namespace kitsune2::runs
