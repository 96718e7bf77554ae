// Large ops, whose bytes are in a file beside the database: what of that file is trusted, and when it is not right.
#include <algorithm>
#include <set>

#include "sqlite_store_fixture.hpp"
#include "store/sqlite/segment_space.hpp"

namespace kitsune2::testing {
namespace {

namespace fs = std::filesystem;

// ---------------------------------------------------------------------- places

/// Remembers each byte: which may be named by a row after a crash, and which are not to be written any more.
struct NaiveSpace {
  std::set<std::uint64_t> named, used, mine;

  std::uint64_t first_free() const { return std::max({after(named), after(used), after(mine)}); }
  std::uint64_t take(std::uint64_t bytes) {
    std::uint64_t at = first_free();
    while (mine.empty() && at % SegmentSpace::kBlock != 0) ++at;
    for (std::uint64_t i = 0; i < bytes; ++i) mine.insert(at + i);
    return at;
  }
  static std::uint64_t after(const std::set<std::uint64_t>& bytes) { return bytes.empty() ? 0 : *bytes.rbegin() + 1; }
  using SegmentSpace = sqlite::SegmentSpace;
};

TEST(LargeOpsSpace, AgreesWithANaiveOne) {
  std::uint64_t state = 7;
  const auto pick = [&](std::uint64_t below) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (state >> 33U) % below;
  };
  for (int round = 0; round < 40; ++round) {
    sqlite::SegmentSpace space;
    NaiveSpace naive;
    for (int step = 0; step < 30; ++step) {
      for (auto n = pick(4); n > 0; --n) {
        const auto bytes = 1 + pick(pick(2) == 0 ? 100 : 6'000);
        ASSERT_EQ(space.take(bytes), naive.take(bytes));
      }
      ASSERT_EQ(space.is_in_use(), !naive.mine.empty());
      const auto reached = pick(4);  // 0: fails before the sync; 1: in it; 2: in the commit; 3: is committed
      if (naive.mine.empty()) continue;
      if (reached >= 1) {
        space.on_sync();
        naive.used.insert(naive.mine.begin(), naive.mine.end());
      }
      if (reached >= 2) {
        space.on_commit();
        naive.named.insert(naive.mine.begin(), naive.mine.end());
      }
      naive.mine.clear();
      if (reached == 3) {
        space.on_committed();
      } else {
        ASSERT_EQ(space.on_roll_back(), NaiveSpace::after(naive.named));
      }
    }
  }
}

TEST(LargeOpsSpace, OnlyWhatNoRowNamesIsCutOffAtOpening) {
  EXPECT_EQ(sqlite::SegmentSpace(10'000, 10'000).cut_at_opening(), std::nullopt);
  EXPECT_EQ(sqlite::SegmentSpace(10'000, 9'000).cut_at_opening(), 9'000U);
  EXPECT_EQ(sqlite::SegmentSpace(10'000, 0).cut_at_opening(), 0U);
  EXPECT_EQ(sqlite::SegmentSpace(9'000, 10'000).cut_at_opening(), std::nullopt);
  auto damaged = sqlite::SegmentSpace(9'000, 1'000'000);
  EXPECT_EQ(damaged.take(5), 12'288U) << "after the end of the file, and not after what a damaged row says";
}

// ---------------------------------------------------------------------- the file

class LargeOpsTest : public SqliteOpStoreTest {
 protected:
  int version() {
    return static_cast<int>(
        sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only)->number("PRAGMA user_version").value());
  }
  std::uint64_t count(const char* of) {
    auto db = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only);
    return static_cast<std::uint64_t>(db->number(of).value());
  }
  std::vector<MetaOp> put(std::uint64_t first, std::size_t count, std::size_t size = 70'000) {
    const auto store = open_as(make_sha256_policy()).value();
    auto ops = make_ops(store->policy(), first, count, size);
    EXPECT_EQ(w_.process(*store, payloads_of(ops))->newly_stored, ids_of(ops));
    return ops;
  }
  std::vector<MetaOp> held(const std::vector<MetaOp>& ops) {
    return w_.retrieve(*open_as(make_sha256_policy()).value(), ids_of(ops)).value();
  }
  SqliteCheckReport check() { return check_sqlite_op_store(path_, *make_sha256_policy()).value(); }
  std::string data_path() const { return path_ + "-data"; }
};

INSTANTIATE_TEST_SUITE_P(Versions, LargeOpsTest, ::testing::Values(&sqlite::kLargeFormat), name_of_format);

TEST_P(LargeOpsTest, TheFirstLargeOpChangesTheVersion) {
  const auto small = put(1, 10, 4'096);
  EXPECT_EQ(version(), 2);
  EXPECT_FALSE(fs::exists(data_path()));
  const auto large = put(100, 10, 4'097);
  EXPECT_EQ(version(), 5);
  EXPECT_EQ(fs::file_size(data_path()), 40'970U) << "those of one call lie together";
  EXPECT_EQ(count("SELECT count(*) FROM op_data"), 0U);
  put(200, 1);
  EXPECT_EQ(fs::file_size(data_path()), 40'970U / 4'096 * 4'096 + 4'096 + 70'000);
  EXPECT_EQ(held(small), small);
  EXPECT_EQ(held(large), large);
  EXPECT_TRUE(check().is_intact());
}

TEST_P(LargeOpsTest, OpsOfBeforeStayInTheDatabase) {
  const auto policy = make_sha256_policy();
  const auto before = make_ops(*policy, 1, 5, 70'000);
  {
    auto environment = sqlite::real_environment();
    environment.least_large_bytes = SIZE_MAX;
    const auto store =
        sqlite::open_op_store(environment, w_.runtime(), policy, test_space(), path_, SqliteOpStoreOptions{}).value();
    ASSERT_TRUE(w_.process(*store, payloads_of(before)));
  }
  EXPECT_EQ(version(), 2);
  auto all = put(100, 5);
  EXPECT_EQ(count("SELECT count(*) FROM op_data"), 5U);
  EXPECT_EQ(count("SELECT count(*) FROM op_place"), 5U);
  all.insert(all.begin(), before.begin(), before.end());
  EXPECT_EQ(held(all), all);
  EXPECT_TRUE(check().is_intact());
}

TEST_P(LargeOpsTest, AReaderFollowsTheFirstLargeOp) {
  const auto store = open_as(make_sha256_policy()).value();
  const auto small = make_ops(store->policy(), 1, 3, 64), large = make_ops(store->policy(), 10, 3, 70'000);
  ASSERT_TRUE(w_.process(*store, payloads_of(small)));
  EXPECT_EQ(w_.retrieve(*store, ids_of(small)).value(), small);
  ASSERT_TRUE(w_.process(*store, payloads_of(large)));
  EXPECT_EQ(w_.retrieve(*store, ids_of(large)).value(), large);
  EXPECT_TRUE(w_.filter_intact(*store, ids_of(large))->empty());
}

TEST_P(LargeOpsTest, WhatACrashLeftAfterTheLastOpIsCutOff) {
  const auto ops = put(1, 3);
  const auto size = fs::file_size(data_path());
  std::ofstream(data_path(), std::ios::app) << std::string(100'000, 'g');
  EXPECT_EQ(held(ops), ops);
  EXPECT_EQ(fs::file_size(data_path()), size);
}

TEST_P(LargeOpsTest, WithoutItsFileAStoreIsRefusedAndCanBeRepaired) {
  const auto ops = put(1, 3), small = put(10, 3, 64);
  fs::rename(data_path(), data_path() + ".away");
  expect_error(open_as(make_sha256_policy()), Errc::corrupt, data_path());
  fs::rename(data_path() + ".away", data_path());
  EXPECT_EQ(held(ops), ops);
  fs::remove(data_path());
  const auto found = check();
  EXPECT_EQ(found.lost, 3U);
  EXPECT_FALSE(fs::exists(data_path()));
  const auto repaired = repair_sqlite_op_store(path_, *make_sha256_policy(), found.faults);
  ASSERT_TRUE(repaired) << repaired.error().to_string();
  EXPECT_EQ(repaired->dropped, 3U);
  EXPECT_TRUE(check().is_intact());
  EXPECT_EQ(put(1, 3), ops) << "they are new";
  EXPECT_EQ(held(ops), ops);
  EXPECT_EQ(held(small), small);
}

TEST_P(LargeOpsTest, AFileThatIsTakenAwayMeanwhileFailsCallsAndDropsNothing) {
  const auto ops = put(1, 3);
  const auto store = open_as(make_sha256_policy()).value();
  fs::rename(data_path(), data_path() + ".away");
  expect_error(w_.retrieve(*store, ids_of(ops)), Errc::io, data_path());
  expect_error(w_.process(*store, {make_op(77, 70'000)}), Errc::io, data_path());
  fs::rename(data_path() + ".away", data_path());
  EXPECT_EQ(w_.retrieve(*store, ids_of(ops)).value(), ops);
  EXPECT_EQ(w_.stats(*store)->damaged, 0U);
}

TEST_P(LargeOpsTest, AFileThatIsTooShortLosesWhatIsNotThere) {
  const auto ops = put(1, 3);
  fs::resize_file(data_path(), 100'000);
  EXPECT_EQ(check().lost, 2U);
  EXPECT_EQ(held(ops), std::vector<MetaOp>{ops[0]});
  EXPECT_EQ(held(ops), std::vector<MetaOp>{ops[0]});
  const std::vector<MetaOp> lost{ops[1], ops[2]};
  {
    const auto store = open_as(make_sha256_policy()).value();
    EXPECT_EQ(w_.process(*store, payloads_of(lost))->newly_stored, ids_of(lost));
  }
  EXPECT_EQ(held(ops), ops);
  EXPECT_TRUE(check().is_intact());
}

TEST_P(LargeOpsTest, TheFileOfAnotherDatabaseIsPutAside) {
  put(1, 3);
  const std::string before = read_file(data_path());
  fs::remove(path_);
  const auto ops = put(10, 2);
  EXPECT_EQ(held(ops), ops);
  EXPECT_TRUE(read_file(data_path() + ".old") == before);
}

TEST_P(LargeOpsTest, TheLargestSizeIsThatOfBothFiles) {
  SqliteOpStoreOptions options;
  options.max_database_bytes = 1'000'000;
  const auto store = open_as(make_sha256_policy(), options).value();
  std::size_t stored = 0;
  while (stored < 100 && w_.process(*store, {make_op(stored, 70'000)})) ++stored;
  EXPECT_GT(stored, 8U);
  EXPECT_LE(fs::file_size(data_path()) + fs::file_size(path_), 1'000'000U);
  expect_error(w_.process(*store, {make_op(1'000, 70'000)}), Errc::disk_full, path_);
  EXPECT_LE(fs::file_size(data_path()) + fs::file_size(path_), 1'000'000U);
}

TEST_P(LargeOpsTest, ACopyOfTheDatabaseAndThenOfTheFileIsABackup) {
  const auto store = open_as(make_sha256_policy()).value();
  const auto ops = make_ops(store->policy(), 1, 4, 70'000), later = make_ops(store->policy(), 50, 4, 70'000);
  ASSERT_TRUE(w_.process(*store, payloads_of(ops)));
  const std::string copy = dir_ / "copy.db";
  sql("VACUUM INTO '" + copy + "'");
  ASSERT_TRUE(w_.process(*store, payloads_of(later)));
  fs::copy_file(data_path(), copy + "-data");
  path_ = copy;
  EXPECT_TRUE(check().is_intact());
  EXPECT_EQ(held(ops), ops);
  EXPECT_EQ(put(50, 4), later) << "they are new in it";
}

TEST_P(LargeOpsTest, TheyMoveWithTheirStore) {
  const auto ops = put(1, 3);
  std::ofstream(dir_ / "to.db-data") << "left by a move that was cut off";
  ASSERT_TRUE(move_sqlite_op_store(path_, dir_ / "to.db", test_space()));
  EXPECT_FALSE(fs::exists(data_path()));
  path_ = dir_ / "to.db";
  EXPECT_EQ(held(ops), ops);
  const auto found = read_sqlite_ops_of_size(path_, 70'000, 10);
  ASSERT_TRUE(found) << found.error().to_string();
  ASSERT_EQ(found->size(), 3U);
  EXPECT_EQ(found->back().op_data, ops[0].op_data);
}

TEST_P(LargeOpsTest, TheyCanBeReadBesideTheOwner) {
  const auto store = open_as(make_sha256_policy()).value();
  const auto ops = make_ops(store->policy(), 1, 4, 70'000);
  ASSERT_TRUE(w_.process(*store, payloads_of(ops)));
  SqliteOpStoreOptions options;
  options.read_only = true;
  const auto reader = open_as(make_sha256_policy(), options).value();
  EXPECT_EQ(w_.retrieve(*reader, ids_of(ops)).value(), ops);
  EXPECT_TRUE(check().is_intact());
}

}  // namespace
}  // namespace kitsune2::testing
