// Files of SQLite that the connections of one store share, so that a file has one descriptor however many use it.
#pragma once

#include <sqlite3.h>

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "store/sqlite/view_locks.hpp"

namespace kitsune2::sqlite {

/// A database or a WAL that is open in the VFS below, once. Whoever opens it gets a view.
///
/// *Rules*.
///  S1  Reads, writes, syncs, sizes and truncations of a view go to the one file at once, from any thread. *Rationale*:
///      they name their position, and SQLite's locks keep apart what must not meet, as between two descriptors.
///  S2  The locks of a view are its own (ViewLocks). They, the wal-index and file controls are behind a mutex.
///  S3  The name below lives as long as the file. *Reason*: SQLite's VFS keeps the pointer, and would have that of the
///      connection that came first, which may go first.
///
/// *Thread rule*: any thread.
class SharedFile {
 public:
  /// `path` and `flags` as xOpen gets them. Null: see `error`.
  static std::shared_ptr<SharedFile> open(sqlite3_vfs* parent, const char* path, int flags, int& error);
  /// Closes it. It must have no view.
  ~SharedFile();
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;

  /// Of the file below, for S1.
  sqlite3_file* real() const { return real_; }
  const sqlite3_io_methods& below() const { return *real_->pMethods; }
  int out_flags() const { return out_flags_; }
  int sector_size() const { return sector_size_; }
  int characteristics() const { return characteristics_; }
  /// Closes it now. Returns what the VFS below says, once.
  int close();

  // For views of a database.
  ViewLocks::View add_view();
  /// Gives back all that it has.
  void remove_view(ViewLocks::View view);
  int lock(ViewLocks::View view, int level);
  int unlock(ViewLocks::View view, int level);
  int check_reserved(int* out);
  int control(ViewLocks::View view, int what, void* argument);
  int map_index(ViewLocks::View view, int region, int bytes, int extend, void volatile** out);
  int lock_index(ViewLocks::View view, int first, int n, int flags);
  void order_index();
  /// `remove`: with the last view that has it mapped, the file goes.
  int unmap_index(ViewLocks::View view, int remove);

 private:
  struct FreeName {
    // SQLite takes it as one or the other, by its version.
    void operator()(const char* name) const { sqlite3_free_filename(const_cast<char*>(name)); }
  };
  SharedFile() = default;
  int unlock_under_mutex(ViewLocks::View view, int level);
  int unmap_under_mutex(ViewLocks::View view, int remove);

  std::unique_ptr<const char, FreeName> name_;
  std::unique_ptr<std::max_align_t[]> memory_;
  sqlite3_file* real_ = nullptr;
  int out_flags_ = 0, sector_size_ = 0, characteristics_ = 0;
  std::mutex mutex_;
  ViewLocks locks_;
  std::map<ViewLocks::View, bool> maps_index_;
};

/// The files that are open in the VFS below, by path. *Thread rule*: any thread.
class SharedFiles {
 public:
  /// Whether connections may have one open file of this VFS. *Rationale*: SQLite's own, built for a system without
  /// `pread` and `pwrite`, moves the position that all of them would have.
  static bool can_share(sqlite3_vfs& parent);
  /// False: each has a file of its own, as without views.
  void set_sharing(bool shares) { shares_ = shares; }

  /// One that is open with the same flags is shared. `prepare` gets one that was not, before anybody else does, and it
  /// is not opened if that fails. Null: see `error`.
  std::shared_ptr<SharedFile> open(sqlite3_vfs* parent, const char* path, int flags, int& error,
                                   int (*prepare)(sqlite3_file* real) = nullptr);
  /// What `open` gave. Returns what closing says if nobody else has it.
  int close(std::shared_ptr<SharedFile> file);

 private:
  bool shares_ = true;
  std::mutex mutex_;
  std::map<std::pair<std::string, int>, std::weak_ptr<SharedFile>> files_;
};

/// The memory that `open_view` fills, at most.
extern const int kViewBytes;
/// A database as SQLite sees it: a view of a file of `files`, which it keeps alive.
int open_view(std::shared_ptr<SharedFiles> files, sqlite3_vfs* parent, const char* path, sqlite3_file* file, int flags,
              int* out_flags);

}  // namespace kitsune2::sqlite
