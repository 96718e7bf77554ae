// GatherVfs on a file in memory that keeps the calls it gets.
#include "store/sqlite/gather_vfs.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace kitsune2::sqlite {
namespace {

struct Below;
Below* the_file = nullptr;

/// The VFS below: one file, whatever its name.
struct Below {
  std::string content;
  std::vector<std::pair<sqlite3_int64, std::size_t>> writes;
  int syncs = 0, closes = 0;
  int write_error = SQLITE_OK;  ///< of all writes from now on
  int sync_error = SQLITE_OK;
  int characteristics = SQLITE_IOCAP_POWERSAFE_OVERWRITE;
  std::vector<std::pair<std::string, int>> removals;  ///< path, whether the folder is to be synced
  sqlite3_vfs vfs{};

  Below() {
    the_file = this;
    const sqlite3_vfs* real = sqlite3_vfs_find(nullptr);
    vfs = *real;
    vfs.zName = "k2-gather-test";
    vfs.szOsFile = sizeof(sqlite3_file);
    vfs.pNext = nullptr;
    vfs.xOpen = [](sqlite3_vfs*, const char*, sqlite3_file* file, int, int*) {
      file->pMethods = methods();
      return SQLITE_OK;
    };
    vfs.xDelete = [](sqlite3_vfs*, const char* path, int sync_folder) {
      the_file->removals.emplace_back(path, sync_folder);
      return SQLITE_OK;
    };
    sqlite3_vfs_register(&vfs, 0);
  }
  ~Below() {
    sqlite3_vfs_unregister(&vfs);
    the_file = nullptr;
  }

  static const sqlite3_io_methods* methods() {
    static const sqlite3_io_methods all = [] {
      sqlite3_io_methods m{};
      m.iVersion = 1;
      m.xClose = [](sqlite3_file*) {
        ++the_file->closes;
        return SQLITE_OK;
      };
      m.xRead = [](sqlite3_file*, void* out, int count, sqlite3_int64 at) {
        const auto n = static_cast<std::size_t>(count), from = static_cast<std::size_t>(at);
        std::memset(out, 0, n);
        if (from >= the_file->content.size()) return SQLITE_IOERR_SHORT_READ;
        const auto have = std::min(n, the_file->content.size() - from);
        std::memcpy(out, the_file->content.data() + from, have);
        return have == n ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
      };
      m.xWrite = [](sqlite3_file*, const void* bytes, int count, sqlite3_int64 at) {
        if (the_file->write_error != SQLITE_OK) return the_file->write_error;
        const auto n = static_cast<std::size_t>(count), to = static_cast<std::size_t>(at);
        the_file->writes.emplace_back(at, n);
        if (the_file->content.size() < to + n) the_file->content.resize(to + n);
        std::memcpy(the_file->content.data() + to, bytes, n);
        return SQLITE_OK;
      };
      m.xTruncate = [](sqlite3_file*, sqlite3_int64 size) {
        the_file->content.resize(static_cast<std::size_t>(size));
        return SQLITE_OK;
      };
      m.xSync = [](sqlite3_file*, int) {
        ++the_file->syncs;
        return the_file->sync_error;
      };
      m.xFileSize = [](sqlite3_file*, sqlite3_int64* size) {
        *size = static_cast<sqlite3_int64>(the_file->content.size());
        return SQLITE_OK;
      };
      m.xLock = m.xUnlock = [](sqlite3_file*, int) { return SQLITE_OK; };
      m.xFileControl = [](sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; };
      m.xSectorSize = [](sqlite3_file*) { return 512; };
      m.xDeviceCharacteristics = [](sqlite3_file*) { return the_file->characteristics; };
      return m;
    }();
    return &all;
  }
};

class GatherVfsTest : public ::testing::Test {
 protected:
  void SetUp() override { open(SQLITE_OPEN_WAL); }
  void TearDown() override {
    if (file_ == nullptr || file_->pMethods == nullptr) return;
    EXPECT_EQ(file_->pMethods->xClose(file_), SQLITE_OK);
  }
  void open(int kind) {
    sqlite3_vfs* vfs = sqlite3_vfs_find(gather_.name());
    ASSERT_NE(vfs, nullptr);
    memory_.assign(static_cast<std::size_t>(vfs->szOsFile) / sizeof(std::max_align_t) + 1, {});
    file_ = reinterpret_cast<sqlite3_file*>(memory_.data());
    ASSERT_EQ(vfs->xOpen(vfs, "file", file_, kind | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr), SQLITE_OK);
  }
  int write(const std::string& bytes, std::size_t at) {
    return file_->pMethods->xWrite(file_, bytes.data(), static_cast<int>(bytes.size()), static_cast<sqlite3_int64>(at));
  }
  int sync() { return file_->pMethods->xSync(file_, SQLITE_SYNC_NORMAL); }

  Below below_;
  GatherVfs gather_{"k2-gather-test"};
  std::vector<std::max_align_t> memory_;
  sqlite3_file* file_ = nullptr;
};

TEST_F(GatherVfsTest, AStretchArrivesInOnePieceBeforeTheSync) {
  for (std::size_t i = 0; i < 20; ++i) {
    ASSERT_EQ(write("head", 104 * i), SQLITE_OK);
    ASSERT_EQ(write(std::string(100, 'p'), 104 * i + 4), SQLITE_OK);
  }
  EXPECT_TRUE(below_.writes.empty());
  ASSERT_EQ(sync(), SQLITE_OK);
  ASSERT_EQ(below_.writes.size(), 1U);
  EXPECT_EQ(below_.writes[0], (std::pair<sqlite3_int64, std::size_t>(0, 2080)));
  EXPECT_EQ(below_.syncs, 1);
}

TEST_F(GatherVfsTest, AWriteAtAnotherPlaceBeginsAnotherPiece) {
  ASSERT_EQ(write("aaaa", 0), SQLITE_OK);
  ASSERT_EQ(write("bbbb", 8), SQLITE_OK);
  ASSERT_EQ(write("cccc", 0), SQLITE_OK);
  ASSERT_EQ(sync(), SQLITE_OK);
  EXPECT_EQ(below_.writes.size(), 3U);
  EXPECT_EQ(below_.content, std::string("cccc\0\0\0\0bbbb", 12));
}

TEST_F(GatherVfsTest, PiecesAreBoundedAndNeverAMultipleOf128KiB) {
  const std::string page(64U << 10, 'x');
  for (std::size_t i = 0; i < 64; ++i) ASSERT_EQ(write(page, i * page.size()), SQLITE_OK);
  ASSERT_EQ(sync(), SQLITE_OK);
  EXPECT_EQ(below_.content.size(), 64 * page.size());
  for (const auto& [at, size] : below_.writes) {
    EXPECT_LE(size, GatherVfs::kGatherBytes);
    EXPECT_NE(size % (128U << 10), 0U);
  }
}

TEST_F(GatherVfsTest, CallsThatCouldTellTheDifferenceWriteFirst) {
  const auto held = [&](auto call) {
    below_.writes.clear();
    EXPECT_EQ(write("aaaa", 0), SQLITE_OK);
    call();
    return below_.writes.empty();
  };
  const auto* m = file_->pMethods;
  char four[4];
  sqlite3_int64 size = 0;
  EXPECT_FALSE(held([&] { m->xRead(file_, four, 4, 2); }));
  EXPECT_FALSE(held([&] { m->xFileSize(file_, &size); }));
  EXPECT_FALSE(held([&] { m->xTruncate(file_, 4); }));
  EXPECT_FALSE(held([&] { m->xFileControl(file_, SQLITE_FCNTL_SYNC, nullptr); }));
}

TEST_F(GatherVfsTest, AWriteThatFailsLateIsTheErrorOfTheSyncAndOfNoOther) {
  ASSERT_EQ(write("aaaa", 0), SQLITE_OK);
  below_.write_error = SQLITE_FULL;
  EXPECT_EQ(sync(), SQLITE_FULL);
  EXPECT_EQ(below_.syncs, 0);
  below_.write_error = SQLITE_OK;
  ASSERT_EQ(write("bbbb", 0), SQLITE_OK);
  EXPECT_EQ(sync(), SQLITE_OK);
  EXPECT_EQ(below_.content, "bbbb");
}

TEST_F(GatherVfsTest, ClosingWritesTheRest) {
  ASSERT_EQ(write("aaaa", 0), SQLITE_OK);
  ASSERT_EQ(file_->pMethods->xClose(file_), SQLITE_OK);
  file_ = nullptr;
  EXPECT_EQ(below_.content, "aaaa");
  EXPECT_EQ(below_.closes, 1);
}

TEST_F(GatherVfsTest, OtherFilesAndOtherDisksAreWrittenAtOnce) {
  ASSERT_EQ(file_->pMethods->xClose(file_), SQLITE_OK);
  open(SQLITE_OPEN_MAIN_DB);
  ASSERT_EQ(write("aaaa", 0), SQLITE_OK);
  EXPECT_EQ(below_.content, "aaaa") << "a checkpoint tells of its pages without a sync";
  ASSERT_EQ(file_->pMethods->xClose(file_), SQLITE_OK);
  below_.characteristics = 0;
  open(SQLITE_OPEN_WAL);
  ASSERT_EQ(write("bbbb", 0), SQLITE_OK);
  EXPECT_EQ(below_.content, "bbbb") << "SQLite pads there, behind the sync";
}

TEST_F(GatherVfsTest, ReadsAsAFileWouldWhateverTheOrder) {
  std::mt19937 random(7);
  const auto up_to = [&](std::size_t n) { return static_cast<std::size_t>(random() % (n + 1)); };
  std::string twin;
  std::size_t last_end = 0;
  for (int step = 0; step < 20'000; ++step) {
    switch (up_to(9)) {
      case 0:
        ASSERT_EQ(sync(), SQLITE_OK);
        ASSERT_EQ(below_.content, twin);
        break;
      case 1: {
        const std::size_t size = up_to(twin.size());
        twin.resize(size);
        ASSERT_EQ(file_->pMethods->xTruncate(file_, static_cast<sqlite3_int64>(size)), SQLITE_OK);
        break;
      }
      case 2:
      case 3: {
        const std::size_t at = up_to(twin.size() + 10), n = 1 + up_to(300);
        std::string got(n, '?'), expected(n, '\0');
        if (at < twin.size()) twin.copy(expected.data(), n, at);
        const int rc = file_->pMethods->xRead(file_, got.data(), static_cast<int>(n), static_cast<sqlite3_int64>(at));
        ASSERT_EQ(rc, at + n <= twin.size() ? SQLITE_OK : SQLITE_IOERR_SHORT_READ);
        ASSERT_EQ(got, expected);
        break;
      }
      default: {
        const std::size_t at = up_to(3) > 0 ? last_end : up_to(twin.size());
        const std::string bytes(1 + up_to(200), static_cast<char>('a' + up_to(25)));
        ASSERT_EQ(write(bytes, at), SQLITE_OK);
        if (twin.size() < at + bytes.size()) twin.resize(at + bytes.size());
        twin.replace(at, bytes.size(), bytes);
        last_end = at + bytes.size() > 5000 ? 0 : at + bytes.size();
      }
    }
  }
}

/// G5: a journal that comes back after a power failure would undo what was stored since.
TEST_F(GatherVfsTest, TheRemovalOfAJournalIsDurableAndThatOfAWalNeedNotBe) {
  sqlite3_vfs* vfs = sqlite3_vfs_find(gather_.name());
  EXPECT_EQ(vfs->xDelete(vfs, "/a/space.db-journal", 0), SQLITE_OK);
  EXPECT_EQ(vfs->xDelete(vfs, "/a/space.db-wal", 0), SQLITE_OK);
  EXPECT_EQ(vfs->xDelete(vfs, "/a/other", 1), SQLITE_OK);
  const std::vector<std::pair<std::string, int>> expected{
      {"/a/space.db-journal", 1}, {"/a/space.db-wal", 0}, {"/a/other", 1}};
  EXPECT_EQ(below_.removals, expected);
}

/// G6: what a killed process has written is not trusted before it is on the disk.
TEST_F(GatherVfsTest, WhatAWalHasWhenItIsOpenedIsSyncedFirst) {
  EXPECT_EQ(below_.syncs, 0) << "it was empty";
  ASSERT_EQ(write(std::string(100, 'x'), 0), SQLITE_OK);
  ASSERT_EQ(file_->pMethods->xClose(file_), SQLITE_OK);
  open(SQLITE_OPEN_WAL);
  EXPECT_EQ(below_.syncs, 1);
  ASSERT_EQ(file_->pMethods->xClose(file_), SQLITE_OK);
  open(SQLITE_OPEN_MAIN_DB);
  EXPECT_EQ(below_.syncs, 1);
  ASSERT_EQ(file_->pMethods->xClose(file_), SQLITE_OK);

  below_.sync_error = SQLITE_IOERR_FSYNC;
  sqlite3_vfs* vfs = sqlite3_vfs_find(gather_.name());
  const int closes = below_.closes;
  EXPECT_EQ(vfs->xOpen(vfs, "file", file_, SQLITE_OPEN_WAL | SQLITE_OPEN_READWRITE, nullptr), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(file_->pMethods, nullptr) << "there is nothing to close";
  EXPECT_EQ(below_.closes, closes + 1);
}

TEST(GatherVfs, WithoutAParentNothingOpens) {
  const GatherVfs vfs("no such vfs");
  sqlite3* db = nullptr;
  EXPECT_NE(sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE, vfs.name()), SQLITE_OK);
  sqlite3_close(db);
}

}  // namespace
}  // namespace kitsune2::sqlite
