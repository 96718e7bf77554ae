// Files that the connections of a store share: descriptors, locks, and what other processes see of them.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "sqlite_store_fixture.hpp"
#include "store/sqlite/file_lock.hpp"
#include "store/sqlite/gather_vfs.hpp"
#include "store/sqlite/store_pool.hpp"

namespace kitsune2::testing {
namespace {

using sqlite::Connection;
using sqlite::FileLock;

/// What a process of its own says.
bool in_another_process(const std::function<bool()>& what) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(what() ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// The same of SQLite, which must not be taken along by a fork: whether the statements went well on the database.
bool sqlite_elsewhere(const std::string& path, const std::string& script) {
  const std::string head = "import sqlite3; db = sqlite3.connect(\"" + path + "\", timeout=0, isolation_level=None); ";
  return std::system(("python3 -c '" + head + script + "' 2> /dev/null").c_str()) == 0;
}

/// How many descriptors the process has of files whose names begin with `path`.
std::size_t descriptors_of(const std::string& path) {
  std::size_t out = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ec;
    if (std::filesystem::read_symlink(entry.path(), ec).string().starts_with(path)) ++out;
  }
  return out;
}

class SharedFilesTest : public SqliteOpStoreTest {};
INSTANTIATE_TEST_SUITE_P(Versions, SharedFilesTest, ::testing::Values(&sqlite::kTablesFormat, &sqlite::kRunsFormat),
                         name_of_format);

TEST_P(SharedFilesTest, AStoreInUseHasThreeDescriptors) {
  const auto store = open().value();
  ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(store->policy(), 1, 2))));
  EXPECT_EQ(descriptors_of(path_), sqlite::kOpStoreDescriptors);
}

/// SQLite's own files, built without pread, have one position for all that use them.
TEST(SharedFiles, WithoutPositionedReadsEachConnectionHasItsOwn) {
  const std::string path = ::testing::TempDir() + "k2-own-" + std::to_string(::getpid()) + ".db";
  for (const bool has_pread : {true, false}) {
    sqlite3_vfs plain = *sqlite3_vfs_find(nullptr);
    plain.zName = "k2-plain";
    plain.pNext = nullptr;
    if (!has_pread) plain.xGetSystemCall = [](sqlite3_vfs*, const char*) { return sqlite3_syscall_ptr{}; };
    ASSERT_EQ(sqlite3_vfs_register(&plain, 0), SQLITE_OK);
    {
      std::ofstream(path).flush();
      const sqlite::GatherVfs vfs("k2-plain");
      auto writer = Connection::open(path, Connection::Mode::write, vfs.name()).value();
      ASSERT_TRUE(writer.run("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(7)"));
      auto reader = Connection::open(path, Connection::Mode::read, vfs.name()).value();
      EXPECT_EQ(reader.number("SELECT a FROM t").value(), 7);
      ASSERT_TRUE(writer.run("INSERT INTO t VALUES(8)"));
      EXPECT_EQ(reader.number("SELECT max(a) FROM t").value(), 8);
      EXPECT_EQ(descriptors_of(path), has_pread ? 3U : 5U);
    }
    sqlite3_vfs_unregister(&plain);
    std::filesystem::remove(path);
  }
}

/// As `sqlite3 space.db ".backup copy.db"` beside a running node, while it writes.
TEST_P(SharedFilesTest, AnotherProcessReadsAndCopiesItMeanwhileAndDisturbsNobody) {
  const auto store = open().value();
  const std::string copy = path_ + ".copy";
  for (std::uint64_t round = 0; round < 3; ++round) {
    ASSERT_TRUE(w_.process(*store, payloads_of(make_ops(store->policy(), 1 + round, 1))));
    EXPECT_TRUE(sqlite_elsewhere(path_, "db.backup(sqlite3.connect(\"" + copy + "\"))"));
    auto connection = Connection::open(copy, Connection::Mode::write);
    ASSERT_TRUE(connection);
    EXPECT_EQ(connection->number("SELECT count(*) FROM op").value(), static_cast<std::int64_t>(round) + 1);
  }
  EXPECT_TRUE(std::filesystem::exists(path_ + "-wal")) << "the other process was not the last one to close it";
}

/// A transaction of another process on the file below is seen, and in its way.
TEST_P(SharedFilesTest, TheLocksOfBothConnectionsAreThoseOfTheFileForOthers) {
  fill(1, 3);
  const auto vfs = std::make_shared<sqlite::GatherVfs>(nullptr);
  auto one = Connection::open(path_, Connection::Mode::write, vfs->name());
  auto two = Connection::open(path_, Connection::Mode::read, vfs->name());
  ASSERT_TRUE(one && two);
  EXPECT_EQ(descriptors_of(path_), 3U);
  ASSERT_TRUE(one->run("BEGIN IMMEDIATE"));
  ASSERT_TRUE(two->run("BEGIN"));
  EXPECT_EQ(two->number("SELECT ops FROM totals").value(), 3);
  const auto can_write = [&](const std::string& sql) {
    return sqlite_elsewhere(path_, "[db.execute(sql) for sql in \"" + sql + "\".split(\";\")]");
  };
  EXPECT_FALSE(can_write("BEGIN IMMEDIATE")) << "one writes";
  ASSERT_TRUE(one->run("UPDATE totals SET ops=7; COMMIT"));
  EXPECT_EQ(two->number("SELECT ops FROM totals").value(), 3) << "it reads what was there when it began";
  EXPECT_TRUE(can_write("BEGIN IMMEDIATE; ROLLBACK"));
  EXPECT_FALSE(can_write("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=DELETE")) << "both have it open";
  int frames = 0, copied = 0;
  EXPECT_EQ(sqlite3_wal_checkpoint_v2(one->handle(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &frames, &copied), SQLITE_OK);
  EXPECT_EQ(two->number("SELECT ops FROM totals").value(), 3) << "nor is it written over";
  ASSERT_TRUE(two->run("COMMIT"));
  EXPECT_EQ(two->number("SELECT ops FROM totals").value(), 7);
  // The one that came first goes first: what it has opened stays.
  one = Connection::open(path_, Connection::Mode::write, vfs->name());
  ASSERT_TRUE(one);
  EXPECT_EQ(two->number("SELECT ops FROM totals").value(), 7);
  two = Connection::open(path_, Connection::Mode::read, vfs->name());
  ASSERT_TRUE(one->run("UPDATE totals SET ops=0"));
  EXPECT_EQ(two->number("SELECT ops FROM totals").value(), 0);
}

class FileLockTest : public ::testing::Test {
 protected:
  TempDir dir_;
  const std::string path_ = dir_ / "space.db";
};

TEST_F(FileLockTest, ItTakesNoDescriptorAndKeepsOthersOut) {
  auto lock = FileLock::take(path_);
  ASSERT_TRUE(lock);
  EXPECT_EQ(lock->descriptors(), 0U);
  EXPECT_EQ(descriptors_of(path_), 0U);
  // As programs before this one take it.
  const auto can_lock = [&] {
    const int fd = ::open((path_ + "-lock").c_str(), O_RDWR | O_CLOEXEC);
    const bool locked = ::flock(fd, LOCK_EX | LOCK_NB) == 0;
    ::close(fd);
    return locked;
  };
  EXPECT_FALSE(can_lock());
  EXPECT_FALSE(in_another_process(can_lock));
  EXPECT_FALSE(FileLock::take(path_)) << "nor within the process";
  FileLock moved = std::move(*lock);
  EXPECT_FALSE(in_another_process(can_lock));
  moved.rest();
  EXPECT_TRUE(in_another_process(can_lock));
  EXPECT_FALSE(FileLock::take(path_));
  ASSERT_TRUE(moved.take_again(path_));
  EXPECT_FALSE(in_another_process(can_lock));
}

TEST_F(FileLockTest, ItEndsWithItsProcessThoughAChildGoesOn) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t owner = ::fork();
  if (owner == 0) {
    auto lock = FileLock::take(path_);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(ends[1]);
      char byte = 0;
      ::_exit(::read(ends[0], &byte, 1) == 0 ? 0 : 1);  // until the test is done
    }
    ::_exit(lock ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(owner, &status, 0), owner);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_TRUE(FileLock::take(path_));
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace kitsune2::testing
