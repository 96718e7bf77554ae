// The open files of an op store: its lock, the connection that writes and the one that reads.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "store/sqlite/environment.hpp"
#include "store/sqlite/file_lock.hpp"
#include "store/sqlite/op_db.hpp"

namespace kitsune2::sqlite {

/// The files of a store, which may be closed while nobody needs them, and opened again.
///
/// *Rules*.
///  F1  They are closed for a while only when the whole WAL is in the database, by a checkpoint that reported no error,
///      and the file of the WAL has no byte left. *Reason*: a commit whose sync failed leaves frames there. SQLite
///      writes over them as long as it is open, but would take them for a commit when it opens the file again; and the
///      disk may not have them, though the system shows them (docs/decisions/0024).
///  F2  Opening again makes nothing: without its file, or with that of another space, the store is not opened.
///      *Reason*: who moved the file away did not ask for an empty store.
///  F3  Every opening reads what there is, and nothing of the objects before it is used again but hints that are
///      checked. *Reason*: another process may have taken the lock meanwhile.
///
/// For one thread at a time.
class OpFiles {
 public:
  /// `policy` and `environment.vfs` must outlive this object.
  OpFiles(const Environment& environment, const OpPolicy& policy, const SpaceId& space, std::string path,
          const SqliteOpStoreOptions& options);

  /// The first time; makes the file if there is none.
  Result<void> open();
  /// After `close_for_now`. An error leaves them closed. No effect if they are open.
  Result<void> open_again();
  /// Returns false if they stay open, by F1.
  bool close_for_now();
  void close();

  bool is_open() const { return reader_.has_value(); }
  bool has_writer() const { return writer_.has_value(); }
  OpWriter& writer() { return *writer_; }
  const OpWriter& writer() const { return *writer_; }
  OpReader& reader() { return *reader_; }
  /// Whether the file was not the same any more when it was opened again, since the last time this was asked.
  bool was_changed_meanwhile() { return std::exchange(changed_, false); }

 private:
  /// What tells whether a file was written.
  struct Mark {
    std::uint64_t file = 0;
    std::int64_t size = 0, seconds = 0, nanoseconds = 0;
    bool operator==(const Mark&) const = default;
  };
  Mark mark() const;
  Result<void> check_owner(const SqliteOpStoreInfo& info) const;
  Result<void> open_connections(const Format* for_new);
  bool is_ours() const { return vfs_ == nullptr && !options_.read_only; }

  const char* const vfs_;
  const runs::MergeRules merge_rules_;
  const std::shared_ptr<runs::BlockCache> blocks_;
  const SumsRules sums_rules_;
  const std::size_t least_large_bytes_;
  const OpPolicy& policy_;
  const SpaceId space_;
  const std::string path_;
  const SqliteOpStoreOptions options_;
  std::optional<FileLock> lock_;           ///< released last
  std::shared_ptr<GatherVfs> shared_vfs_;  ///< of both connections
  std::optional<OpWriter> writer_;
  std::optional<OpReader> reader_;
  Mark mark_;
  bool changed_ = false;
};

}  // namespace kitsune2::sqlite
