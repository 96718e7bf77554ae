// Stores whose files are closed while nobody needs them: few descriptors for many, and nothing is lost.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>
#include <thread>

#include "kitsune2/peer_store.hpp"
#include "sqlite_store_fixture.hpp"
#include "store/sqlite/file_lock.hpp"
#include "store/sqlite/store_pool.hpp"

namespace kitsune2::testing {
namespace {

using sqlite::StorePool;

class ClosedStoresTest : public SqliteOpStoreTest {
 protected:
  ClosedStoresTest() {
    environment_.merge_rules = kSmallRuns;
    environment_.op_pool = op_pool_;
    environment_.peer_pool = peer_pool_;
  }
  static std::shared_ptr<StorePool> make_pool(std::size_t most, const Time& now) {
    return std::make_shared<StorePool>(StorePool::Options{
        .most = [most] { return most; }, .idle = std::chrono::minutes(1), .now = [&now] { return now; }});
  }
  Result<std::shared_ptr<OpStore>> open_pooled() {
    SqliteOpStoreOptions options;
    options.index_in_runs = has_runs();
    return sqlite::open_op_store(environment_, w_.runtime(), policy_, test_space(), path_, options);
  }
  /// Has all closed that can be. A call is told before its thread has put the files down, so more than one try may be
  /// needed; those that are in vain change nothing.
  bool close_all(int tries = 60'000) {
    for (; tries > 0; --tries) {
      op_pool_->close_unused();
      while (op_pool_->is_closing()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (op_pool_->taken() == 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  static std::size_t descriptors() {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator()));
  }
  /// What a process of its own says of the lock.
  static bool another_process_can_take(const std::string& path) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(sqlite::FileLock::take(path) ? 0 : 1);
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  /// How many ops the sums for a DHT model have.
  std::uint64_t ops_in_sums(OpStore& store) {
    const auto sums = w_.wait<DhtSums>([&](auto done) { EXPECT_TRUE(store.retrieve_dht_sums(std::move(done))); });
    EXPECT_TRUE(sums);
    std::uint64_t ops = 0;
    if (sums) {
      for (const auto& cell : sums->cells) ops += cell.ops;
    }
    return ops;
  }

  const std::shared_ptr<const OpPolicy> policy_ = make_prefix_policy();
  Time now_{};
  std::shared_ptr<StorePool> op_pool_ = make_pool(1'000, now_), peer_pool_ = make_pool(1'000, now_);
  sqlite::Environment environment_ = sqlite::real_environment();
};
INSTANTIATE_TEST_SUITE_P(Versions, ClosedStoresTest, ::testing::Values(&sqlite::kTablesFormat, &sqlite::kRunsFormat),
                         name_of_format);

TEST_P(ClosedStoresTest, AClosedStoreHasNoDescriptorAndNothingIsMissing) {
  const auto store = open_pooled().value();
  std::size_t told = 0;
  const auto subscription = store->subscribe({.ops_stored = [&](const auto& ops) { told += ops.size(); }});
  std::vector<OpId> all;
  for (std::uint64_t turn = 0; turn < 6; ++turn) {
    const auto ops = make_ops(*policy_, 1 + 40 * turn, 40, turn % 2 == 0 ? 64 : 6'000);
    for (const auto& id : ids_of(ops)) all.push_back(id);
    ASSERT_TRUE(w_.process(*store, payloads_of(ops)));
    ASSERT_TRUE(w_.add_pending(*store, {OpId::from_text("wanted" + std::to_string(turn))}, peer_url(1)));
    if (turn == 2) {
      EXPECT_EQ(ops_in_sums(*store), all.size());
    }
    ASSERT_TRUE(close_all());
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      const auto target = std::filesystem::read_symlink(entry.path(), gone).string();
      EXPECT_EQ(target.find(path_), std::string::npos) << target;
    }
    EXPECT_FALSE(std::filesystem::exists(path_ + "-wal"));
    EXPECT_EQ(w_.retrieve(*store, all)->size(), all.size());
    ASSERT_TRUE(close_all());
    EXPECT_EQ(w_.stats(*store)->ops, all.size());
  }
  EXPECT_EQ(told, all.size());
  EXPECT_EQ(ops_in_sums(*store), all.size());
  EXPECT_EQ(w_.pending(*store).at(0).second.size(), 6U);
  EXPECT_EQ(w_.list_all(*store, {.limit = 50}).size(), all.size());
}

TEST_P(ClosedStoresTest, AStoreIsClosedAMinuteAfterItsLastCall) {
  const auto store = open_pooled().value();
  ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(*policy_, 1, 3))));
  EXPECT_EQ(op_pool_->taken(), sqlite::kOpStoreDescriptors);
  // The pool's clock; the thread asks it when its own pause is over, which begins with a call.
  auto quick = std::make_shared<StorePool>(StorePool::Options{
      .most = [] { return 1'000; },
      .idle = std::chrono::milliseconds(1),
      .now =
          [] {
            return Time(std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch()));
          }});
  environment_.op_pool = quick;
  path_ = dir_ / "another.db";
  const auto idle = open_pooled().value();
  ASSERT_TRUE(w_.process(*idle, payloads_of(make_ops(*policy_, 1, 3))));
  for (int i = 0; i < 60'000 && quick->taken() > 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(quick->taken(), 0U);
  EXPECT_EQ(w_.stats(*idle)->ops, 3U);
  EXPECT_EQ(op_pool_->taken(), sqlite::kOpStoreDescriptors) << "the other one's minute is not over";
}

TEST_P(ClosedStoresTest, WhoeverHasItMeanwhileIsNamedAndTheNextCallTriesAgain) {
  const auto store = open_pooled().value();
  const auto ops = make_ops(*policy_, 1, 3);
  ASSERT_TRUE(w_.process(*store, payloads_of(ops)));
  EXPECT_FALSE(another_process_can_take(path_));
  ASSERT_TRUE(close_all());
  EXPECT_TRUE(another_process_can_take(path_));
  expect_error(open_pooled(), Errc::already_exists, "in use by process " + std::to_string(::getpid()));
  int ready[2], stop[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(stop), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lock = sqlite::FileLock::take(path_);
    char c = lock ? 'y' : 'n';
    if (::write(ready[1], &c, 1) != 1) ::_exit(2);
    ::close(stop[1]);
    while (::read(stop[0], &c, 1) > 0) {
    }
    ::_exit(0);
  }
  char state = 0;
  ASSERT_EQ(::read(ready[0], &state, 1), 1);
  ASSERT_EQ(state, 'y');
  expect_error(w_.stats(*store), Errc::already_exists, "in use by process " + std::to_string(child));
  expect_error(w_.process(*store, payloads_of(make_ops(*policy_, 10, 3))), Errc::already_exists, "in use by process");
  for (const int fd : {ready[0], ready[1], stop[0], stop[1]}) ::close(fd);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(w_.stats(*store)->ops, 3U);
  ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(*policy_, 10, 3))));
  EXPECT_EQ(w_.stats(*store)->ops, 6U);
}

TEST_P(ClosedStoresTest, AStoreThatIsNotThereAnyMoreIsNotMadeAnew) {
  const auto store = open_pooled().value();
  ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(*policy_, 1, 3))));
  ASSERT_TRUE(close_all());
  std::filesystem::rename(path_, path_ + ".away");
  expect_error(w_.stats(*store), Errc::not_found, "not there any more");
  EXPECT_FALSE(std::filesystem::exists(path_));
  std::filesystem::rename(path_ + ".away", path_);
  EXPECT_EQ(w_.stats(*store)->ops, 3U);
}

TEST_P(ClosedStoresTest, WhatAnotherProgramChangedMeanwhileIsSaid) {
  const auto store = open_pooled().value();
  int told = 0;
  const auto subscription = store->subscribe({.ops_damaged = [&](const auto& ops) { told += ops.empty() ? 1 : 100; }});
  ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(*policy_, 1, 3))));
  ASSERT_TRUE(close_all());
  EXPECT_EQ(w_.stats(*store)->ops, 3U);
  EXPECT_EQ(told, 0);
  ASSERT_TRUE(close_all());
  sql("UPDATE slice_hash SET slice=1; DELETE FROM pending; INSERT INTO source(url) VALUES('ws://a:1/b')");
  EXPECT_EQ(w_.stats(*store)->ops, 3U);
  EXPECT_TRUE(w_.world().wait_for([&] { return told > 0; }));
  EXPECT_EQ(told, 1);
}

TEST_P(ClosedStoresTest, OneThatSomebodyReadsStaysOpenUntilThatIsDone) {
  const auto store = open_pooled().value();
  ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(*policy_, 1, 3))));
  {
    auto backup = sqlite::Connection::open(path_, sqlite::Connection::Mode::read).value();
    ASSERT_TRUE(backup.run("BEGIN"));
    ASSERT_EQ(backup.number("SELECT count(*) FROM op").value(), 3);
    ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(*policy_, 10, 3))));
    EXPECT_FALSE(close_all(4));
    EXPECT_EQ(backup.number("SELECT count(*) FROM op").value(), 3);
    EXPECT_EQ(w_.stats(*store)->ops, 6U);
  }
  EXPECT_TRUE(close_all());
  EXPECT_EQ(w_.stats(*store)->ops, 6U);
}

TEST_P(ClosedStoresTest, AClosedStoreEndsAndWritesWhatItWasGiven) {
  {
    const auto store = open_pooled().value();
    ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(*policy_, 1, 3))));
    ASSERT_TRUE(close_all());
    store->process_incoming_ops(payloads_of(make_ops(*policy_, 10, 3)), [](const auto&) {});
  }
  {
    const auto store = open_pooled().value();
    EXPECT_EQ(w_.stats(*store)->ops, 6U);
    ASSERT_TRUE(close_all());
  }
  EXPECT_EQ(w_.stats(*open_pooled().value())->ops, 6U);
}

/// Else the next start would read all that has come since the sums were asked for.
TEST_P(ClosedStoresTest, TheSumsAreKeptByStoresThatAreOpenedAgain) {
  environment_.sums_rules.at_rest = 50;
  {
    const auto store = open_pooled().value();
    EXPECT_EQ(ops_in_sums(*store), 0U);
    for (std::uint64_t i = 0; i < 6; ++i) {
      ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(*policy_, 1 + 30 * i, 30))));
      ASSERT_TRUE(close_all());
    }
  }
  auto file = sqlite::Connection::open(path_, sqlite::Connection::Mode::read).value();
  auto row = file.prepare(sqlite::kSelectSums).value();
  ASSERT_EQ(row.step(), SQLITE_ROW);
  ASSERT_EQ(row.text(0), sqlite::kSumsKey);
  const auto sums = store::DhtSumsRow::decode(row.blob(1));
  ASSERT_TRUE(sums.has_value());
  EXPECT_EQ(sums->ops, 180U);
}

/// Room for two; all of them are busy all the time.
TEST_P(ClosedStoresTest, MoreStoresThanRoomTakeTurns) {
  environment_.op_pool = op_pool_ = make_pool(2 * sqlite::kOpStoreDescriptors, now_);
  std::vector<std::shared_ptr<OpStore>> stores;
  constexpr std::uint64_t kStores = 12, kTurns = 8;
  for (std::uint64_t i = 0; i < kStores; ++i) {
    path_ = dir_ / std::to_string(i);
    stores.push_back(open_pooled().value());
    EXPECT_LE(op_pool_->taken(), 2 * sqlite::kOpStoreDescriptors);
  }
  std::size_t waiting = 0;
  for (std::uint64_t turn = 0; turn < kTurns; ++turn) {
    for (std::uint64_t i = 0; i < kStores; ++i) {
      waiting += 2;
      stores[i]->process_incoming_ops(payloads_of(make_ops(*policy_, 1 + 100 * i + 10 * turn, 10)),
                                      [&](const Result<ProcessedOps>& out) {
                                        EXPECT_TRUE(out && out->newly_stored.size() == 10);
                                        --waiting;
                                      });
      stores[i]->stats([&](const Result<OpStoreStats>& out) {
        EXPECT_TRUE(out);
        --waiting;
      });
    }
    EXPECT_TRUE(w_.world().wait_for([&] { return waiting == 0; }));
    EXPECT_LE(op_pool_->taken(), 2 * sqlite::kOpStoreDescriptors);
  }
  for (const auto& store : stores) EXPECT_EQ(w_.stats(*store)->ops, 10 * kTurns);
  for (auto& store : stores) store.reset();
  EXPECT_EQ(op_pool_->taken(), 0U);
}

/// With the pools of the process, at a limit that a tenth of them would reach.
TEST_P(ClosedStoresTest, ManySpacesAreUsedBelowALowLimitOfDescriptors) {
  if (!has_runs()) GTEST_SKIP() << "it takes long, and does not depend on the format";
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  struct rlimit low = before;
  low.rlim_cur = 128;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  constexpr std::uint64_t kSpaces = 200;
  struct Space {
    SqlitePeerStores peers;
    std::shared_ptr<OpStore> ops;
    std::uint64_t stored = 0, notes = 0;
  };
  const auto note = [](std::uint64_t number) { return "note" + std::to_string(number); };
  {
    std::vector<Space> spaces;
    for (std::uint64_t i = 0; i < kSpaces; ++i) {
      const SpaceId id = SpaceId::from_text("space" + std::to_string(i));
      const std::string path = dir_ / std::to_string(i);
      auto peers = open_sqlite_peer_stores(w_.runtime(), id, path + ".peers.db");
      ASSERT_TRUE(peers) << peers.error().to_string();
      SqliteOpStoreOptions options;
      options.index_in_runs = has_runs();
      auto ops = open_sqlite_op_store(w_.runtime(), policy_, id, path + ".db", options);
      ASSERT_TRUE(ops) << ops.error().to_string();
      spaces.push_back({std::move(*peers), std::move(*ops)});
    }
    std::mt19937 random(7);
    std::size_t waiting = 0;
    for (int call = 0; call < 800; ++call) {
      Space& space = spaces[random() % kSpaces];
      ++waiting;
      switch (random() % 3) {
        case 0:
          space.ops->process_incoming_ops(payloads_of(make_ops(*policy_, 1 + space.stored, 2)),
                                          [&](const Result<ProcessedOps>& out) {
                                            EXPECT_TRUE(out) << out.error().to_string();
                                            --waiting;
                                          });
          space.stored += 2;
          break;
        case 1:
          space.ops->stats([&](const Result<OpStoreStats>& out) {
            EXPECT_TRUE(out) << out.error().to_string();
            --waiting;
          });
          break;
        case 2:
          EXPECT_TRUE(space.peers.meta->put(peer_url(1), note(space.notes++), Bytes::copy_of("x"), std::nullopt));
          --waiting;
          break;
      }
      if (call % 100 == 0) {
        EXPECT_LE(descriptors(), 128U);
      }
    }
    EXPECT_TRUE(w_.world().wait_for([&] { return waiting == 0; }));
    for (const Space& space : spaces) {
      const auto stats = w_.stats(*space.ops);
      EXPECT_TRUE(stats && stats->ops == space.stored);
    }
    for (Space& space : spaces) {
      space.ops.reset();
      space.peers = {};
      const auto i = static_cast<std::size_t>(&space - spaces.data());
      if (i % 10 != 0) continue;
      const SpaceId id = SpaceId::from_text("space" + std::to_string(i));
      const std::string path = dir_ / std::to_string(i);
      space.peers = open_sqlite_peer_stores(w_.runtime(), id, path + ".peers.db").value();
      for (std::uint64_t n = 0; n < space.notes; ++n) EXPECT_TRUE(space.peers.meta->get(peer_url(1), note(n)));
      const auto report = check_sqlite_op_store(path + ".db", *policy_);
      EXPECT_TRUE(report && report->is_intact() && report->ops == space.stored);
    }
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST_P(ClosedStoresTest, ClosedPeerStoresAreReadFromMemoryAndWrittenByOpeningThem) {
  if (has_runs()) GTEST_SKIP() << "there is one format";
  const auto open_peers = [&] {
    return sqlite::open_peer_stores(environment_, w_.runtime(), test_space(), path_, ed25519_verifier()).value();
  };
  {
    const auto stores = open_peers();
    const auto before = descriptors();
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(stores.meta->put(peer_url(i), "note", Bytes::copy_of("x"), std::nullopt));
      peer_pool_->close_unused();
      EXPECT_EQ(peer_pool_->taken(), 0U);
      EXPECT_EQ(descriptors() + sqlite::kPeerStoreDescriptors, before);
      EXPECT_TRUE(stores.meta->get(peer_url(i), "note"));
    }
    stores.meta->remove(peer_url(3), "note");
    EXPECT_EQ(peer_pool_->taken(), sqlite::kPeerStoreDescriptors);
    // The timer of the first use has come; the time has not.
    w_.world().run_for(std::chrono::minutes(2));
    EXPECT_EQ(peer_pool_->taken(), sqlite::kPeerStoreDescriptors);
    now_ += std::chrono::minutes(2);
    w_.world().run_for(std::chrono::minutes(2));
    EXPECT_EQ(peer_pool_->taken(), 0U);
    // Without the file the note is refused, and with it taken.
    std::filesystem::rename(path_, path_ + ".away");
    expect_error(stores.meta->put(peer_url(7), "note", Bytes::copy_of("x"), std::nullopt), Errc::corrupt,
                 "is empty or missing, but its WAL");
    std::filesystem::rename(path_ + ".away", path_);
    EXPECT_TRUE(stores.meta->put(peer_url(7), "note", Bytes::copy_of("x"), std::nullopt));
    peer_pool_->close_unused();
  }
  const auto stores = open_peers();
  for (const int i : {0, 1, 2, 4, 7}) EXPECT_TRUE(stores.meta->get(peer_url(i), "note")) << i;
  EXPECT_FALSE(stores.meta->get(peer_url(3), "note"));
}

}  // namespace
}  // namespace kitsune2::testing
