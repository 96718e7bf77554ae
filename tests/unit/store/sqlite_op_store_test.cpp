// What only the durable op store promises: reopening, kills, full disks, damaged and foreign files, two openers.
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <set>
#include <thread>

#include "kitsune2/sqlite_store.hpp"
#include "sqlite_store_fixture.hpp"
#include "store/sqlite/environment.hpp"
#include "store/sqlite/op_db.hpp"

namespace kitsune2::testing {
namespace {

namespace fs = std::filesystem;

INSTANTIATE_TEST_SUITE_P(Versions, SqliteOpStoreTest,
                         ::testing::Values(&sqlite::kTablesFormat, &sqlite::kRunsFormat, &sqlite::kLargeFormat),
                         name_of_format);

// ---------------------------------------------------------------------- threads

TEST_P(SqliteOpStoreTest, ManyStoresShareAFewThreads) {
  const auto threads = [] {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator()));
  };
  const std::size_t before = threads();
  std::vector<std::shared_ptr<OpStore>> stores;
  std::size_t waiting = 0;
  for (std::uint64_t i = 0; i < 40; ++i) {
    path_ = (dir_ / "space.db") + std::to_string(i);
    stores.push_back(open().value());
    ++waiting;
    stores.back()->process_incoming_ops(payloads_of(make_ops(stores.back()->policy(), i, 5, 64)),
                                        [&](const Result<ProcessedOps>& out) {
                                          EXPECT_TRUE(out && out->newly_stored.size() == 5);
                                          --waiting;
                                        });
  }
  EXPECT_LE(threads(), before + 2 * sqlite::kThreadsADuty);
  EXPECT_TRUE(w_.world().wait_for([&] { return waiting == 0; }));
  for (const auto& store : stores) EXPECT_EQ(w_.stats(*store)->ops, 5U);
  EXPECT_EQ(waiting, 0U);
  // A sanitizer's own thread may have come meanwhile.
  stores.clear();
  EXPECT_LE(threads(), before + 1);
}

// -------------------------------------------------------------------- reopening

TEST_P(SqliteOpStoreTest, EverythingIsThereAfterReopening) {
  const auto ops = make_ops(*make_prefix_policy(), 1, 100, 5'000);
  Timestamp bookmark;
  {
    const auto store = open().value();
    ASSERT_TRUE(w_.process(*store, payloads_of(ops)));
    ASSERT_TRUE(w_.put_slice_hash(*store, DhtArc(1, 2), 3, "hash"));
    ASSERT_TRUE(w_.add_pending(*store, {OpId::from_text("wanted")}, peer_url(1)));
    bookmark = w_.bounded(*store, DhtArc::full(), Timestamp{0})->next;
  }
  const auto store = open().value();
  const auto back = w_.retrieve(*store, ids_of(ops)).value();
  ASSERT_EQ(back.size(), ops.size());
  for (std::size_t i = 0; i < ops.size(); ++i) EXPECT_EQ(back[i], ops[i]);
  EXPECT_EQ(w_.stats(*store)->ops, 100U);
  EXPECT_EQ(w_.stats(*store)->bytes, 500'000U);
  EXPECT_EQ(w_.slice_hash(*store, DhtArc(1, 2), 3).value(), Bytes::copy_of("hash"));
  EXPECT_EQ(w_.pending(*store), (StoreWorld::Pending{{peer_url(1), {OpId::from_text("wanted")}}}));
  EXPECT_TRUE(w_.bounded(*store, DhtArc::full(), bookmark)->op_ids.empty());
}

TEST_P(SqliteOpStoreTest, ABookmarkSkipsNothingOverARestartWithAnOlderClock) {
  w_.set_now(Timestamp::from_seconds(2'000'000'000));
  fill(1, 3);
  Timestamp bookmark;
  {
    const auto store = open().value();
    bookmark = w_.bounded(*store, DhtArc::full(), Timestamp{0})->next;
  }
  w_.set_now(Timestamp::from_seconds(1'000'000'000));
  fill(10, 2);
  const auto store = open().value();
  EXPECT_EQ(w_.bounded(*store, DhtArc::full(), bookmark)->op_ids.size(), 2U);
}

TEST_P(SqliteOpStoreTest, DestructionCommitsWhatWasCalled) {
  const auto ops = make_ops(*make_prefix_policy(), 1, 500);
  {
    const auto store = open().value();
    for (const auto& op : ops) store->process_incoming_ops({op.op_data}, [](auto) {});
  }
  const auto store = open().value();
  EXPECT_EQ(w_.stats(*store)->ops, 500U);
}

TEST_P(SqliteOpStoreTest, AClosedStoreHasCommittedWhatWasCalledAndLetsGoOfItsFile) {
  const auto ops = make_ops(*make_prefix_policy(), 1, 500);
  const auto closed = open().value();
  std::size_t written = 0;
  for (const auto& op : ops) {
    closed->process_incoming_ops({op.op_data}, [&](const Result<ProcessedOps>& out) { written += out.has_value(); });
  }
  closed->close();
  closed->close();
  // Its holder may keep it for as long as it likes.
  const auto store = open().value();
  EXPECT_EQ(w_.stats(*store)->ops, 500U);
  EXPECT_EQ(written, 500U);
  expect_error(w_.stats(*closed), Errc::cancelled, "space.db: the store is closed");
  expect_error(w_.process(*closed, {make_op(1000)}), Errc::cancelled, "the store is closed");
  EXPECT_EQ(w_.stats(*store)->ops, 500U);
}

TEST_P(SqliteOpStoreTest, ClosingAnswersEveryReadThatWaits) {
  fill(1, 10);
  const auto store = open().value();
  std::size_t answered = 0;
  for (int i = 0; i < 1000; ++i) {
    store->stats([&](const Result<OpStoreStats>& out) {
      ++answered;
      if (out) {
        EXPECT_EQ(out->ops, 10U);
      } else {
        EXPECT_EQ(out.error().code, Errc::cancelled);
      }
    });
  }
  store->close();
  EXPECT_TRUE(w_.world().wait_for([&] { return answered == 1000; }));
}

TEST_P(SqliteOpStoreTest, ClosingLeavesOneFileAndItsLock) {
  fill(1, 10);
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir_.str())) names.insert(entry.path().filename());
  EXPECT_EQ(names, (std::set<std::string>{"space.db", "space.db-lock"}));
}

TEST_P(SqliteOpStoreTest, FilesAreForTheOwnerOnlyWhateverTheUmask) {
  for (const mode_t mask : {mode_t{0}, mode_t{0777}}) {
    path_ = dir_ / ("mask" + std::to_string(mask));
    const mode_t before = ::umask(mask);
    const auto store = open();
    ASSERT_TRUE(store);
    ASSERT_TRUE(w_.process(**store, {make_op(1, 5'000)}));
    ::umask(before);
    for (const char* suffix : {"", "-wal", "-shm"}) EXPECT_EQ(mode_of(path_ + suffix), 0600U) << suffix;
    if (has_large()) {
      EXPECT_EQ(mode_of(path_ + "-data"), 0600U);
    }
    EXPECT_EQ(mode_of(path_ + "-lock") & 077U, 0U);
  }
}

// ------------------------------------------------------------------ what is refused

TEST_P(SqliteOpStoreTest, AnotherSpaceIsRefusedNamingBoth) {
  fill(1, 1);
  const SpaceId other = SpaceId::from_text("other");
  const auto out = open_sqlite_op_store(w_.runtime(), make_prefix_policy(), other, path_);
  expect_error(out, Errc::already_exists, test_space().to_string());
  expect_error(out, Errc::already_exists, other.to_string());
  expect_error(out, Errc::already_exists, path_);
}

TEST_P(SqliteOpStoreTest, AnotherPolicyIsRefusedNamingBoth) {
  fill(1, 1);
  const auto out = open_sqlite_op_store(w_.runtime(), make_sha256_policy(), test_space(), path_);
  expect_error(out, Errc::already_exists, "prefix");
  expect_error(out, Errc::already_exists, "sha256");
}

TEST_P(SqliteOpStoreTest, ASecondOpenerIsToldWhoHasIt) {
  const auto first = open().value();
  expect_error(open(), Errc::already_exists, "in use by process " + std::to_string(::getpid()));
}

TEST_P(SqliteOpStoreTest, ASecondProcessIsToldWhoHasIt) {
  int ready[2];
  int stop[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(stop), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto store = open();
    const char state = store ? 'y' : 'n';
    if (::write(ready[1], &state, 1) != 1) ::_exit(2);
    char c = 0;
    ::close(stop[1]);
    while (::read(stop[0], &c, 1) > 0) {
    }
    ::_exit(0);
  }
  char state = 0;
  ASSERT_EQ(::read(ready[0], &state, 1), 1);
  EXPECT_EQ(state, 'y');
  expect_error(open(), Errc::already_exists, "in use by process " + std::to_string(child));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(open());  // the lock went with the process
  for (const int fd : {ready[0], ready[1], stop[0], stop[1]}) ::close(fd);
}

TEST_P(SqliteOpStoreTest, ANewerFormatIsRefusedAndLeftAlone) {
  fill(1, 1);
  sql("PRAGMA user_version=6");
  const std::string before = read_file(path_);
  expect_error(open(), Errc::unsupported, "version 6, this program knows up to 5");
  EXPECT_TRUE(read_file(path_) == before);
}

TEST_P(SqliteOpStoreTest, AnotherProgramSDatabaseIsRefusedAndLeftAlone) {
  sql("CREATE TABLE mine(x); INSERT INTO mine VALUES(1)");
  const std::string before = read_file(path_);
  expect_error(open(), Errc::corrupt, "not a kitsune2 op store");
  EXPECT_TRUE(read_file(path_) == before);
}

TEST_P(SqliteOpStoreTest, ASchemaWithSomethingAddedIsRefused) {
  fill(1, 1);
  sql("CREATE TRIGGER sneaky AFTER INSERT ON op BEGIN DELETE FROM op_data; END");
  expect_error(open(), Errc::corrupt, "not those of a kitsune2 op store");
  sql(std::string("DROP TRIGGER sneaky; ") + (has_runs() ? "DROP TABLE dropped" : "DROP INDEX op_by_time"));
  expect_error(open(), Errc::corrupt, path_);
}

// ------------------------------------------------------------------- damaged files

TEST_P(SqliteOpStoreTest, GarbageIsCorruptAndLeftAlone) {
  for (const std::size_t size : {1U, 99U, 100U, 511U, 512U, 4'096U, 100'000U}) {
    std::string junk(size, '\0');
    for (std::size_t i = 0; i < size; ++i) junk[i] = static_cast<char>(i * 7 + 1);
    write_file(path_, junk);
    expect_error(open(), Errc::corrupt, path_);
    EXPECT_TRUE(read_file(path_) == junk);
  }
}

TEST_P(SqliteOpStoreTest, ATruncatedDatabaseIsCorruptAndLeftAlone) {
  fill(1, 200, 1'000);
  const std::string whole = read_file(path_);
  for (const std::size_t size : {whole.size() / 2, std::size_t{8'192}, std::size_t{4'096}, std::size_t{1'000}}) {
    write_file(path_, std::string_view(whole).substr(0, size));
    expect_error(open(), Errc::corrupt, path_);
    EXPECT_EQ(read_file(path_).size(), size);
  }
}

TEST_P(SqliteOpStoreTest, AnEmptyDatabaseBesideAFullWalIsCorruptAndTheWalIsKept) {
  fill(1, 1);
  write_file(path_, "");
  write_file(path_ + "-wal", std::string(5'000, 'w'));
  expect_error(open(), Errc::corrupt, path_ + "-wal");
  EXPECT_EQ(read_file(path_ + "-wal").size(), 5'000U);
  fs::remove(path_);
  expect_error(open(), Errc::corrupt, path_ + "-wal");
  EXPECT_EQ(read_file(path_ + "-wal").size(), 5'000U);
}

TEST_P(SqliteOpStoreTest, AnEmptyWalOrDatabaseAloneIsNoHarm) {
  write_file(path_, "");
  write_file(path_ + "-wal", "");
  fill(1, 5);
  write_file(path_ + "-wal", "");
  EXPECT_EQ(w_.stats(*open().value())->ops, 5U);
}

TEST_P(SqliteOpStoreTest, AWalOfGarbageIsIgnored) {
  fill(1, 5);
  write_file(path_ + "-wal", std::string(50'000, 'w'));
  EXPECT_EQ(w_.stats(*open().value())->ops, 5U);
}

TEST_P(SqliteOpStoreTest, DamageThatShowsLaterIsAnErrorOfTheCall) {
  fill(1, 2'000, 1'000);
  std::string file = read_file(path_);
  // Everything but the first page, which says where the tables begin, and the pages of the schema.
  for (std::size_t i = 16 * 4'096; i < file.size(); ++i) file[i] = static_cast<char>(i * 31);
  write_file(path_, file);
  const auto store = open();
  if (!store) {
    EXPECT_EQ(store.error().code, Errc::corrupt) << store.error().to_string();
    return;
  }
  const auto ops = make_ops((*store)->policy(), 1, 2'000, 1'000);
  const auto out = w_.retrieve(**store, ids_of(ops));
  expect_error(out, Errc::corrupt, path_);
  expect_error(w_.process(**store, payloads_of(make_ops((*store)->policy(), 5'000, 500))), Errc::corrupt, path_);
}

// ------------------------------------------------------------------------ the disk

TEST_P(SqliteOpStoreTest, AMissingFolderIsAnIoError) {
  path_ = dir_ / "no/such/folder/x.db";
  expect_error(open(), Errc::io, "No such file");
}

TEST_P(SqliteOpStoreTest, AFolderInPlaceOfTheFileIsAnIoError) {
  fs::create_directory(path_);
  expect_error(open(), Errc::io, path_);
}

TEST_P(SqliteOpStoreTest, AReadOnlyFolderIsAnIoError) {
  const std::string folder = dir_ / "locked";
  fs::create_directory(folder);
  fs::permissions(dir_.str(), fs::perms(0755));
  fs::permissions(folder, fs::perms(0555));
  path_ = folder + "/x.db";
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && ::seteuid(65'534) != 0) ::_exit(3);  // root may write anywhere
    const auto store = open();
    ::_exit(!store && store.error().code == Errc::io ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_P(SqliteOpStoreTest, AtTheSizeLimitCallsFailWholeAndOthersGoOn) {
  const auto store = open({.max_database_bytes = 1U << 20}).value();
  std::uint64_t held = 0;
  std::uint64_t number = 1;
  Result<ProcessedOps> out = make_error(Errc::internal, "");
  for (;;) {
    const auto ops = make_ops(store->policy(), number, 50, 1'000);
    out = w_.process(*store, payloads_of(ops));
    if (!out) break;
    held += 50;
    number += 50;
    ASSERT_LT(held, 5'000U);
  }
  expect_error(out, Errc::disk_full, path_);
  EXPECT_EQ(w_.stats(*store)->ops, held);
  EXPECT_EQ(w_.filter(*store, ids_of(make_ops(store->policy(), number, 50, 1'000)))->size(), 50U);  // none of that call
  // Large ones and small ones in one group: the small ones get through as long as there is a page.
  std::size_t failed = 0;
  std::size_t stored = 0;
  for (int i = 0; i < 10; ++i) {
    store->process_incoming_ops({make_op(9'000 + static_cast<std::uint64_t>(i), i % 2 == 0 ? 500'000 : 40)},
                                [&](auto o) { o ? ++stored : ++failed; });
  }
  ASSERT_TRUE(w_.world().wait_for([&] { return failed + stored == 10; }));
  EXPECT_GE(failed, 5U);
  EXPECT_EQ(w_.stats(*store)->ops, held + stored);
}

TEST_P(SqliteOpStoreTest, ARaisedLimitMakesTheStoreUsableAgain) {
  {
    const auto store = open({.max_database_bytes = 200'000}).value();
    expect_error(w_.process(*store, {make_op(1, 500'000)}), Errc::disk_full, path_);
    ASSERT_TRUE(w_.process(*store, {make_op(2)}));
  }
  const auto store = open().value();
  ASSERT_TRUE(w_.process(*store, {make_op(1, 500'000)}));
  EXPECT_EQ(w_.stats(*store)->ops, 2U);
}

TEST_P(SqliteOpStoreTest, AFullDiskLosesNothingAndHealsWhenThereIsRoom) {
  const std::string mount_point = dir_ / "small";
  fs::create_directory(mount_point);
  if (::mount("tmpfs", mount_point.c_str(), "tmpfs", 0, "size=3m") != 0) {
    GTEST_SKIP() << "may not mount a tmpfs here; the size limit is tested above";
  }
  path_ = mount_point + "/full.db";
  std::vector<OpId> held;
  {
    const auto store = open().value();
    Result<ProcessedOps> out = make_error(Errc::internal, "");
    std::uint64_t number = 1;
    for (; number < 10'000; number += 20) {
      out = w_.process(*store, payloads_of(make_ops(store->policy(), number, 20, 3'000)));
      if (!out) break;
      held.insert(held.end(), out->newly_stored.begin(), out->newly_stored.end());
    }
    expect_error(out, Errc::disk_full, path_);
    EXPECT_GT(held.size(), 20U);
    EXPECT_TRUE(w_.filter(*store, held)->empty());
    EXPECT_EQ(::mount("tmpfs", mount_point.c_str(), "tmpfs", MS_REMOUNT, "size=64m"), 0);
    out = w_.process(*store, payloads_of(make_ops(store->policy(), number, 20, 3'000)));
    EXPECT_TRUE(out) << (out ? "" : out.error().to_string());
    EXPECT_TRUE(w_.filter(*store, held)->empty());
  }
  {
    const auto store = open().value();
    EXPECT_TRUE(w_.filter(*store, held)->empty());
    EXPECT_EQ(w_.stats(*store)->ops, held.size() + 20);
  }
  EXPECT_EQ(::umount(mount_point.c_str()), 0);
}

// ----------------------------------------------------------------------- read only

TEST_P(SqliteOpStoreTest, ReadOnlyReadsBesideTheOwnerAndNeverWrites) {
  const auto owner = open().value();
  ASSERT_TRUE(w_.process(*owner, {make_op(1), make_op(2)}));
  ASSERT_TRUE(w_.add_pending(*owner, {OpId::from_text("x")}, peer_url(1)));
  const auto reader = open({.read_only = true}).value();
  EXPECT_EQ(w_.stats(*reader)->ops, 2U);
  EXPECT_EQ(w_.pending(*reader).size(), 1U);
  expect_error(w_.process(*reader, {make_op(3)}), Errc::unsupported, "reading only");
  expect_error(w_.add_pending(*reader, {OpId::from_text("y")}, peer_url(1)), Errc::unsupported, path_);
  expect_error(w_.remove_source(*reader, peer_url(1)), Errc::unsupported, path_);
  expect_error(w_.put_slice_hash(*reader, DhtArc::full(), 1, "x"), Errc::unsupported, path_);
  ASSERT_TRUE(w_.process(*owner, {make_op(3)}));
  EXPECT_EQ(w_.stats(*reader)->ops, 3U);
}

TEST_P(SqliteOpStoreTest, ReadOnlyOfWhatIsNotThere) {
  expect_error(open({.read_only = true}), Errc::not_found, path_);
  EXPECT_FALSE(fs::exists(path_));
  expect_error(read_sqlite_op_store_info(path_), Errc::not_found, path_);
  write_file(path_, "");
  expect_error(open({.read_only = true}), Errc::not_found, path_);
}

TEST_P(SqliteOpStoreTest, InfoNamesSpaceAndPolicy) {
  fill(1, 1);
  const auto info = read_sqlite_op_store_info(path_).value();
  EXPECT_EQ(info.space, test_space());
  EXPECT_EQ(info.policy, "prefix");
  const auto owner = open().value();
  EXPECT_EQ(read_sqlite_op_store_info(path_)->space, test_space());
  const auto wrong = open_sqlite_op_store(w_.runtime(), make_sha256_policy(), test_space(), path_, {.read_only = true});
  expect_error(wrong, Errc::already_exists, "sha256");
}

TEST_P(SqliteOpStoreTest, ReadOnlyWorksOnAClosedStoreInAReadOnlyFolder) {
  fill(1, 4);
  fs::permissions(path_, fs::perms(0444));
  fs::permissions(dir_.str(), fs::perms(0555));
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && ::seteuid(65'534) != 0) ::_exit(3);
    const auto store = open({.read_only = true});
    ::_exit(store && w_.stats(**store)->ops == 4 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  fs::permissions(dir_.str(), fs::perms(0755));
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// ------------------------------------------------------------------------- bounds

/// Stands in the writer's way: holds SQLite's write lock as another program would.
class WriteLock {
 public:
  explicit WriteLock(const std::string& path) {
    EXPECT_EQ(sqlite3_open(path.c_str(), &db_), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db_, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  }
  ~WriteLock() { release(); }
  void release() {
    if (db_ == nullptr) return;
    sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
    sqlite3_close(std::exchange(db_, nullptr));
  }

 private:
  sqlite3* db_ = nullptr;
};

TEST_P(SqliteOpStoreTest, CallsThatWaitForTheWriterAreBounded) {
  const auto store = open({.max_pending_write_bytes = 10'000}).value();
  WriteLock lock(path_);
  int stored = 0;
  int refused = 0;
  for (std::uint64_t i = 0; i < 20; ++i) {
    store->process_incoming_ops({make_op(i, 1'000)}, [&](Result<ProcessedOps> out) {
      if (out) {
        ++stored;
      } else {
        EXPECT_EQ(out.error().code, Errc::overloaded);
        ++refused;
      }
    });
  }
  ASSERT_TRUE(w_.world().wait_for([&] { return refused == 12; }));  // 8 × (1,000 + 128) fit
  EXPECT_EQ(stored, 0);
  lock.release();
  ASSERT_TRUE(w_.world().wait_for([&] { return stored == 8; }));
  EXPECT_TRUE(w_.process(*store, {make_op(100, 50'000)}));  // larger than the bound, but nothing waits
}

TEST_P(SqliteOpStoreTest, WaitingCallsAreCommittedInGroups) {
  const auto store = open({.max_batch_ops = 10}).value();
  WriteLock lock(path_);
  int stored = 0;
  for (std::uint64_t i = 0; i < 100; ++i) {
    store->process_incoming_ops({make_op(i)}, [&](auto out) { stored += out ? 1 : 0; });
  }
  store->process_incoming_ops(payloads_of(make_ops(store->policy(), 1'000, 50)),
                              [&](auto out) { stored += out ? 1 : 0; });
  lock.release();
  ASSERT_TRUE(w_.world().wait_for([&] { return stored == 101; }));
  EXPECT_EQ(w_.stats(*store)->ops, 150U);
}

TEST_P(SqliteOpStoreTest, TheWalStaysBoundedWhileWritingAndGoesWhenIdle) {
  const auto store = open().value();
  std::uintmax_t largest = 0;
  for (std::uint64_t i = 0; i < 60; ++i) {
    ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(store->policy(), 1 + i * 1'000, 1'000, 5'000))));
    largest = std::max(largest, fs::file_size(path_ + "-wal"));
  }
  EXPECT_LT(largest, 160U << 20);
  // The writer empties it by itself when it has nothing to do; readers do not keep it from that.
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (fs::file_size(path_ + "-wal") > 0 && std::chrono::steady_clock::now() < give_up) {
    ASSERT_TRUE(w_.bounded(*store, DhtArc::full(), Timestamp{0}));
  }
  EXPECT_EQ(fs::file_size(path_ + "-wal"), 0U);
  EXPECT_EQ(w_.stats(*store)->ops, 60'000U);
}

TEST_P(SqliteOpStoreTest, TheWalGoesWhenIdleAlthoughAReaderWasInTheWay) {
  const auto store = open().value();
  ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(store->policy(), 1, 100, 1'000))));
  sqlite3* reader = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &reader), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM sqlite_master", nullptr, nullptr, nullptr), SQLITE_OK);
  ASSERT_TRUE(w_.process(*store, {make_op(1'000)}));
  std::this_thread::sleep_for(std::chrono::milliseconds(1'500));  // longer than the writer's first try
  EXPECT_GT(fs::file_size(path_ + "-wal"), 0U);
  EXPECT_EQ(sqlite3_exec(reader, "ROLLBACK", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(reader);
  // No commit comes any more.
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (fs::file_size(path_ + "-wal") > 0 && std::chrono::steady_clock::now() < give_up) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(fs::file_size(path_ + "-wal"), 0U);
}

// ------------------------------------------------------------- the file, by itself

TEST_P(SqliteOpStoreTest, CompactionDropsPendingIdsThatAreStored) {
  using sqlite::OpReader;
  ASSERT_TRUE(sqlite::create_file(path_));
  auto db = open_writer().value();
  std::vector<OpId> ids;
  for (std::uint32_t i = 0; i < 30'000; ++i) ids.push_back(id_at(i * 100'000, i));
  ASSERT_TRUE(db.begin());
  ASSERT_TRUE(db.add_pending(ids, peer_url(1)));
  ASSERT_TRUE(db.add_pending({ids[0], ids[29'999]}, peer_url(2)));
  ASSERT_TRUE(db.commit());
  EXPECT_FALSE(db.wants_compaction());
  ASSERT_TRUE(db.begin());
  ProcessedOps out;
  std::vector<OpRecord> records;
  for (std::uint32_t i = 0; i < 29'999; ++i) {
    ASSERT_TRUE(db.store({ids[i], Timestamp{1}}, ByteView(), Timestamp{5}, out, records));
  }
  ASSERT_TRUE(db.commit());
  auto reader = OpReader::open(path_, true).value();
  const auto before = reader.pending().value();
  int steps = 0;
  while (db.wants_compaction()) {
    ASSERT_TRUE(db.compact_pending());
    ASSERT_LT(++steps, 100);
  }
  EXPECT_GT(steps, 1);
  EXPECT_EQ(reader.pending().value(), before);
  EXPECT_EQ(before.size(), 2U);
  auto connection = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only).value();
  EXPECT_EQ(connection.number("SELECT count(*) FROM pending").value(), 2);
  EXPECT_EQ(connection.number("SELECT sum(length(ids)) FROM pending").value(), 2 * 33);
  EXPECT_EQ(connection.number("SELECT count(*) FROM source").value(), 2);
  ASSERT_TRUE(db.begin());
  ASSERT_TRUE(db.store({ids[29'999], Timestamp{1}}, ByteView(), Timestamp{5}, out, records));
  ASSERT_TRUE(db.commit());
  while (db.wants_compaction()) ASSERT_TRUE(db.compact_pending());
  EXPECT_EQ(connection.number("SELECT count(*) FROM pending").value(), 0);
  EXPECT_EQ(connection.number("SELECT count(*) FROM source").value(), 0);
}

TEST_P(SqliteOpStoreTest, ARolledBackTransactionLeavesNoTrace) {
  ASSERT_TRUE(sqlite::create_file(path_));
  auto db = open_writer().value();
  ProcessedOps out;
  std::vector<OpRecord> records;
  ASSERT_TRUE(db.begin());
  ASSERT_TRUE(db.store({id_at(1), Timestamp{1}}, as_bytes("abc"), Timestamp{5}, out, records));
  ASSERT_TRUE(db.add_pending({id_at(2)}, peer_url(1)));
  db.roll_back();
  ASSERT_TRUE(db.begin());
  ASSERT_TRUE(db.add_pending({id_at(3)}, peer_url(1)));  // the source was rolled back too
  ASSERT_TRUE(db.store({id_at(4), Timestamp{1}}, as_bytes("abcd"), Timestamp{5}, out, records));
  ASSERT_TRUE(db.commit());
  auto reader = sqlite::OpReader::open(path_, true).value();
  EXPECT_EQ(reader.stats()->ops, 1U);
  EXPECT_EQ(reader.stats()->bytes, 4U);
  EXPECT_EQ(reader.pending().value(), (StoreWorld::Pending{{peer_url(1), {id_at(3)}}}));
}

// --------------------------------------------------------------------------- kills

/// Writes for ever: single ops, batches, pending ids; tells the number of each op on `fd` once it is stored.
[[noreturn]] void write_until_killed(StoreWorld& w, const Result<std::shared_ptr<OpStore>>& opened, std::uint64_t first,
                                     int fd) {
  if (!opened) ::_exit(9);
  const auto store = *opened;
  std::uint64_t next = first;
  std::size_t waiting = 0;
  for (;;) {
    while (waiting < 20) {
      const std::uint64_t count = 1 + next % 40;
      std::vector<Bytes> ops;
      for (std::uint64_t i = 0; i < count; ++i) ops.push_back(make_op(next + i, 40 + (next + i) % 9'000));
      ++waiting;
      store->process_incoming_ops(std::move(ops), [&, from = next, count](Result<ProcessedOps> out) {
        --waiting;
        if (!out || out->newly_stored.size() != count) ::_exit(8);
        for (std::uint64_t i = 0; i < count; ++i) {
          const std::uint64_t number = from + i;
          if (::write(fd, &number, sizeof number) != sizeof number) ::_exit(7);
        }
      });
      store->add_pending({OpId::from_text("pending " + std::to_string(next))}, peer_url(static_cast<int>(next % 5)),
                         [](auto) {});
      next += count;
    }
    if (!w.world().wait_for([&] { return waiting < 20; })) ::_exit(6);
  }
}

TEST_P(SqliteOpStoreTest, EveryOpThatWasAcknowledgedSurvivesSigkill) {
  std::vector<std::uint64_t> acknowledged;
  std::uint64_t first = 1;
  for (int round = 0; round < 24; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(fds[0]);
      write_until_killed(w_, open(), first, fds[1]);
    }
    ::close(fds[1]);
    // Killed after a number of acknowledgements that differs from round to round: at any point of a commit.
    const std::size_t enough = acknowledged.size() + 1 + static_cast<std::size_t>(round) * 37;
    std::uint64_t number = 0;
    bool killed = false;
    while (::read(fds[0], &number, sizeof number) == static_cast<ssize_t>(sizeof number)) {
      acknowledged.push_back(number);
      if (!killed && acknowledged.size() >= enough) {
        ::kill(child, SIGKILL);
        killed = true;
      }
    }
    ::close(fds[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << WEXITSTATUS(status);
    first = acknowledged.back() + 100'000;

    const auto store = open();
    ASSERT_TRUE(store) << store.error().to_string();
    std::vector<OpId> ids;
    for (const std::uint64_t n : acknowledged) {
      ids.push_back((*store)->policy().describe(make_op(n, 40 + n % 9'000))->op_id);
    }
    EXPECT_TRUE(w_.filter(**store, ids)->empty());
    // Whole, not only named; and the counts agree with what is there.
    const auto back = w_.retrieve(**store, ids).value();
    ASSERT_EQ(back.size(), ids.size());
    for (std::size_t i = back.size() - std::min<std::size_t>(back.size(), 200); i < back.size(); ++i) {
      EXPECT_EQ(back[i].op_data, make_op(acknowledged[i], 40 + acknowledged[i] % 9'000));
    }
    const auto all = w_.slice(**store, DhtArc::full(), Timestamp::min(), Timestamp::max()).value();
    EXPECT_EQ(w_.stats(**store)->ops, all.op_ids.size());
    EXPECT_EQ(w_.stats(**store)->bytes, all.bytes);
    EXPECT_GE(all.op_ids.size(), ids.size());
  }
  auto connection = sqlite::Connection::open(path_, sqlite::Connection::Mode::read_only).value();
  auto check = connection.prepare("PRAGMA integrity_check").value();
  ASSERT_EQ(check.step(), SQLITE_ROW);
  EXPECT_EQ(check.text(0), "ok");
}

/// A copy of the WAL delays the next call, so it is made in small pieces where a long WAL saves nothing.
TEST_P(SqliteOpStoreTest, WithRunsTheWalOfSmallCommitsStaysShort) {
  if (!has_runs()) GTEST_SKIP();
  const auto store = open().value();
  std::uintmax_t longest = 0;
  for (std::uint64_t call = 0; call < 80; ++call) {
    ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(store->policy(), 1 + 100 * call, 100, 4'000))));
    longest = std::max(longest, std::filesystem::file_size(path_ + "-wal"));
  }
  EXPECT_LT(longest, 12U << 20U) << "of 32 MB that were stored";
}

}  // namespace
}  // namespace kitsune2::testing
