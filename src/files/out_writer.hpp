// Writes a share's files below one folder and nowhere else.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "files/fd.hpp"
#include "files/manifest.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::files {

/// How whatever was told to stop ends.
inline Error stopped() { return make_error(Errc::cancelled, "stopped"); }

/// One output folder. Steps through a manifest and writes what it says; `fetch` supplies the ops.
///
/// *Rules*.
///  O1  Every step down is by one name and not through symbolic links. What is in the way is reported, never followed
///      and (except files, with `overwrite`) never replaced.
///  O2  A file is written under a temporary name beside its place (kTempPrefix and a hash of root and path, so that the
///      leftovers of a killed run are found and replaced), synced with its group (`syncfs`: one flush for up to
///      kGroupFiles files or kGroupBytes), then renamed.
///  O3  An existing file of the same size is read and compared by hash; if it is identical it is kept.
///  O4  Bytes have their ids: `fetch` gets them from a store, which checks them when it reads them.
///  O5  After a stop nothing is synced any more, and files without their final name are removed. Rationale: a flush of
///      a slow disk cannot be interrupted, and the ops are in the store: only the writing of one group is lost.
///  O6  An unfinished file never has more permissions than the finished one.
///  O7  Links and the modes of folders are made in a separate walk (`finish`) after the last file, so no file is
///      written through a link, and folders that their owner may not write in can be filled.
///  O8  Memory does not depend on the size of a file, whose ids are not kept.
///  O9  A file for which the disk has no room is not begun.
class OutWriter {
 public:
  static constexpr std::size_t kGroupFiles = 2048;
  static constexpr std::size_t kGroupDirs = 128;
  static constexpr std::uint64_t kGroupBytes = 128U << 20;
  /// Files of at least this size are begun only after a look at the free space.
  static constexpr std::uint64_t kLooksForRoom = 1U << 20;

  /// Returns the bytes of `ids` in order, waiting for them. Errc::not_found: one of them is not available (now).
  using Fetch = std::function<Result<std::vector<Bytes>>(const std::vector<OpId>& ids)>;
  struct Options {
    bool overwrite = false;
    bool modes = false;  ///< the share has permission bits (version 2)
    std::size_t chunk_bytes = kChunkBytes;
    std::string salt;  ///< for temporary names: the root id
    std::function<void(const PathIssue&)> issue;
    std::function<bool(std::uint64_t file)> skip;     ///< whether a file (by its number) is settled already
    std::function<void(std::uint64_t file)> settled;  ///< written, kept or failed for good
    std::function<bool()> last_pass;                  ///< what is missing now is missing for good
    /// Called before each file and each few ops of one. True: `run` ends with Errc::cancelled. Null: never.
    std::function<bool()> stopped;
    /// Called before this many more bytes are written. An error ends everything. Null: there is no limit.
    std::function<Result<void>(std::uint64_t bytes)> afford;
    /// Reports the bytes that were written, or found in place, since the last call; negative where a file must wait for
    /// its ops, or is written although it existed. A settled file has been counted in full. Null: not needed.
    std::function<void(std::int64_t)> handled;
  };
  struct Counts {
    std::uint64_t written = 0, kept = 0, failed = 0, postponed = 0;
    std::uint64_t dirs_failed = 0;
    std::uint64_t links_written = 0, links_kept = 0, links_failed = 0;
  };

  /// Errc::io, Errc::disk_full.
  static Result<Fd> open_root(const std::string& path);

  OutWriter(Fd root, Fetch fetch, Options options);
  /// Removes the files that wait for their rename.
  ~OutWriter();
  OutWriter(const OutWriter&) = delete;
  OutWriter& operator=(const OutWriter&) = delete;
  /// Walks the manifest once. Returns the errors that end everything (disk full, stopped, malformed share); all others
  /// go to `issue` and `counts`. `reader` may end with Errc::not_found: the list is incomplete.
  Result<void> run(ManifestReader& reader);
  /// Makes the links and sets the modes of folders in one more walk, and syncs everything. To be called after the last
  /// file, for shares with `modes`. Errors: as `run`.
  Result<void> finish(ManifestReader& reader);
  /// Syncs and renames the files that wait.
  Result<void> finish_group();
  /// Makes everything written and named so far durable: files get their names after the sync of their group, so the
  /// last names need one more.
  Result<void> sync();
  /// Calls `finish_group` if files have waited for a second; for pauses of the network.
  Result<void> finish_group_if_old();
  const Counts& counts() const { return counts_; }

 private:
  struct Waiting {
    std::shared_ptr<Fd> dir;
    std::string temp, name, path;
    std::uint64_t number = 0;
  };
  struct Pack {
    OpId id;
    std::uint64_t size = 0;
    std::uint64_t at = 0;
    std::optional<Bytes> bytes;
    std::optional<Error> missing;  ///< requested in vain
  };
  struct TempFile;
  struct Job;

  /// Looks at what is in a folder's place, and whether it may be entered.
  Result<void> step_down(const std::string& name, std::uint16_t mode);
  Result<void> link(const ManifestRecord& record, const std::string& path);
  Result<void> leave_folder(std::uint16_t mode);
  Result<void> dir(ManifestRecord& record, ManifestReader& reader);
  Result<void> dir_end();
  Result<void> file(ManifestRecord& record, ManifestReader& reader);
  Result<void> begin(Job& job, std::uint64_t pack_at);
  Result<void> take(Job& job, const std::vector<OpId>& ids);
  Result<void> end(Job& job);
  Result<void> compare(Job& job, const OpId* id);
  Result<void> on_difference(Job& job);
  Result<void> copy_same(Job& job, std::uint64_t bytes);
  Result<void> begin_writing(Job& job);
  Result<void> write_ops(Job& job, const std::vector<OpId>& ids);
  Result<void> on_refused(Job& job, const Error& error);
  Result<void> on_missing(Job& job, const Error& error);
  Result<void> has_room(std::uint64_t bytes) const;
  void keep_file(Job& job);
  static void put_back(Job& job);
  void fail(Job& job, PathIssue::Kind kind, std::string reason);
  Result<Bytes> packed_bytes(std::uint64_t from, std::uint64_t size);
  Result<std::vector<Bytes>> ops_of(const std::vector<OpId>& ids);
  void fail(std::uint64_t number, PathIssue::Kind kind, const std::string& path, std::string reason);
  void issue(PathIssue::Kind kind, const std::string& path, std::string reason);
  bool is_stopped() const { return options_.stopped && options_.stopped(); }
  Result<void> afford(std::uint64_t bytes) const { return options_.afford ? options_.afford(bytes) : Result<void>(); }
  /// Reports that this many bytes of the current file are done.
  void report_handled(std::uint64_t bytes);
  std::shared_ptr<Fd> shared_dir();

  DirCursor at_;
  Fd sync_;  ///< the root again, for syncfs
  Fetch fetch_;
  Options options_;
  const mode_t umask_;
  Counts counts_;
  std::size_t skip_depth_ = 0;  ///< > 0: inside a folder that could not be created
  std::optional<Pack> pack_;
  std::uint64_t number_ = 0;
  std::uint64_t handled_ = 0;  ///< of the current file
  std::vector<std::uint8_t> buffer_;
  OpId last_id_;  ///< the op that was written last, and its bytes
  Bytes last_bytes_;
  std::shared_ptr<Fd> dir_;  ///< the current folder, for the files that wait
  std::vector<Waiting> waiting_;
  std::size_t waiting_dirs_ = 0;
  std::uint64_t waiting_bytes_ = 0;
  std::chrono::steady_clock::time_point waiting_since_{};
};

}  // namespace kitsune2::files
