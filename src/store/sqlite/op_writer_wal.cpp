// The writer's WAL: when it is copied into the database, and what is done when that fails.
#include <algorithm>

#include "store/sqlite/op_db.hpp"

namespace kitsune2::sqlite {
namespace {

/// In version 2 the WAL is copied when it has the bytes of this many commits, or kRunsWalBytes.
constexpr int kCommitsInWal = 2;

}  // namespace

void OpWriter::tend_wal() {
  const int frames = *wal_frames_;
  if (frames < frames_seen_) frames_seen_ = tended_at_ = 0;  // the WAL has restarted
  largest_commit_ = std::max(largest_commit_, frames - frames_seen_);
  frames_seen_ = frames;
  int most = most_frames_;
  if (largest_commit_ <= least_frames_) most = std::min(most, std::max(least_frames_, kCommitsInWal * largest_commit_));
  if (frames - tended_at_ < most) return;
  // A reader may keep the WAL from restarting. Trying again with every commit would cost a sync each time. So the next
  // attempt comes after as many frames again, and when the WAL has grown to twice its largest size, this waits for the
  // readers.
  tended_at_ = frames;
  largest_commit_ = 0;
  checkpoint(frames >= 2 * most_frames_ ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE);
}

bool OpWriter::truncate_wal() { return wal_is_empty() || clear_wal(); }

bool OpWriter::clear_wal() {
  if (!checkpoint(SQLITE_CHECKPOINT_TRUNCATE)) return false;
  frames_seen_ = tended_at_ = largest_commit_ = 0;
  *wal_frames_ = 0;
  return true;
}

bool OpWriter::checkpoint(int mode) {
  if (distrusted_ && !distrust()) return false;
  // Unlike a commit this can be postponed: it does not wait long for a reader while calls wait for it.
  sqlite3_busy_timeout(connection_.handle(), 200);
  const int rc = sqlite3_wal_checkpoint_v2(connection_.handle(), nullptr, mode, nullptr, nullptr);
  sqlite3_busy_timeout(connection_.handle(), kBusyTimeoutMs);
  if (rc == SQLITE_OK) return true;
  if ((rc & 0xff) != SQLITE_BUSY && (rc & 0xff) != SQLITE_LOCKED) distrust();
  return false;
}

/// After a failed checkpoint: makes the next one copy all of the WAL again. Returns false if that was not possible.
///
/// A checkpoint that a reader stops halfway does not sync the database, but SQLite counts its pages as copied: the sync
/// at the end of a later checkpoint is meant to include them. But a failing sync loses what was waiting for it (the
/// kernel marks the pages as clean), and the next one reports success; then the WAL restarts, and what it held is lost.
/// So nothing that was copied may count any more. The number of copied frames is the field nBackfill of the wal-index,
/// at a position that is a part of SQLite's file format (https://sqlite.org/walformat.html, 2.3.1). The holder of the
/// checkpoint lock may write it, and from then on readers take the pages from the WAL.
bool OpWriter::distrust() {
  distrusted_ = !declare_nothing_copied();
  // Closing the last connection is a checkpoint too, and removes the WAL.
  sqlite3_db_config(connection_.handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, distrusted_ ? 1 : 0, nullptr);
  return !distrusted_;
}

bool OpWriter::declare_nothing_copied() {
  constexpr int kCheckpointLock = 1;
  constexpr int kRegionBytes = 32 * 1024;
  constexpr std::size_t kBackfilled = 96;
  sqlite3_file* file = nullptr;
  if (sqlite3_file_control(connection_.handle(), "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK) return false;
  if (file == nullptr || file->pMethods == nullptr || file->pMethods->iVersion < 2) return false;
  if (file->pMethods->xShmLock(file, kCheckpointLock, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) != SQLITE_OK) {
    return false;
  }
  void volatile* region = nullptr;
  const bool there = file->pMethods->xShmMap(file, 0, kRegionBytes, 0, &region) == SQLITE_OK && region != nullptr;
  if (there) {
    auto* const copied =
        reinterpret_cast<std::uint32_t volatile*>(static_cast<std::uint8_t volatile*>(region) + kBackfilled);
    *copied = 0;
    file->pMethods->xShmBarrier(file);
  }
  file->pMethods->xShmLock(file, kCheckpointLock, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
  return there;
}

}  // namespace kitsune2::sqlite
