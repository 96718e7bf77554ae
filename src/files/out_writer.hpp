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

namespace kitsune2::files {

/// One output folder. Steps through a manifest as it is told; ops come from `fetch`.
///
/// *Rules*. O1: every step down is by one name and not through symbolic links; what is in the way is reported, never
/// followed and, but for files with `overwrite`, never replaced. O2: a file is written under a temporary name beside
/// its place (kTempPrefix and a hash of root and path, so that a killed run's leftovers are found and replaced), synced
/// with its group (`syncfs`: one flush for up to kGroupFiles files or kGroupBytes), then renamed. O3: an existing file
/// of the same size is read and compared by hash; identical: kept. O4: bytes have their ids: `fetch` has them from a
/// store, which checks them as it reads them. O5: when stopped, nothing is synced any more, and what has no name yet is
/// removed. *Rationale*: a flush of a slow disk cannot be cut short, and the ops are in the store: all that is lost is
/// the writing of one group. O6: an unfinished file never has more permissions than the finished one. O7: links and the
/// modes of folders come in a walk of their own (`finish`) behind the last file, so no file is ever written through a
/// link, and folders that their owner may not write in can be filled. O8: memory does not depend on the size of a file:
/// its ids pass by. O9: a file that the disk has no room for is not begun.
class OutWriter {
 public:
  static constexpr std::size_t kGroupFiles = 2048;
  static constexpr std::size_t kGroupDirs = 128;
  static constexpr std::uint64_t kGroupBytes = 128U << 20;
  /// Files from this size on are not begun without a look at the free space.
  static constexpr std::uint64_t kLooksForRoom = 1U << 20;

  /// Gives the bytes of `ids`, in order, waiting for them. Errc::not_found: one of them is not to be had (now).
  using Fetch = std::function<Result<std::vector<Bytes>>(const std::vector<OpId>& ids)>;
  struct Options {
    bool overwrite = false;
    bool modes = false;  ///< the share says permission bits (version 2)
    std::size_t chunk_bytes = kChunkBytes;
    std::string salt;  ///< for temporary names: the root id
    std::function<void(const PathIssue&)> issue;
    std::function<bool(std::uint64_t file)> skip;     ///< whether a file (by its number) is settled already
    std::function<void(std::uint64_t file)> settled;  ///< written, kept or failed for good
    std::function<bool()> last_pass;                  ///< missing now is missing for good
    /// Looked at before each file and each few ops of one. True: `run` ends with Errc::cancelled. Null: never.
    std::function<bool()> stopped;
    /// Asked before so many more bytes are written. An error ends everything. Null: there is no limit.
    std::function<Result<void>(std::uint64_t bytes)> afford;
    /// Bytes that were written, or found in place, since the last call; negative where a file has to wait for its ops,
    /// or is written although it was there. What is settled has counted in full. Null: nobody wants to know.
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
  /// Removes what waits for its rename.
  ~OutWriter();
  OutWriter(const OutWriter&) = delete;
  OutWriter& operator=(const OutWriter&) = delete;
  /// Walks the manifest once. Errors are those that end everything (disk full, stopped, malformed share); the rest goes
  /// to `issue` and `counts`. `reader` may end with Errc::not_found: the list is not whole.
  Result<void> run(ManifestReader& reader);
  /// Makes the links and gives folders their modes, in one more walk, and syncs all. When no file is to be written any
  /// more; for shares with `modes`. Errors as `run`.
  Result<void> finish(ManifestReader& reader);
  /// Syncs and renames what waits.
  Result<void> finish_group();
  /// Makes durable what was written and named so far: files get their names behind the sync of their group, so the
  /// last names need one more.
  Result<void> sync();
  /// `finish_group` if files have waited for a second: for pauses of the network.
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
    std::optional<Error> missing;  ///< asked for in vain
  };
  struct TempFile;
  struct Job;

  /// Looks at what is at a folder's place: whether it may be stepped into.
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
  Result<void> differs(Job& job);
  Result<void> copy_same(Job& job, std::uint64_t bytes);
  Result<void> begin_writing(Job& job);
  Result<void> write_ops(Job& job, const std::vector<OpId>& ids);
  Result<void> refused(Job& job, const Error& error);
  Result<void> missing(Job& job, const Error& error);
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
  /// So many bytes of the current file are done.
  void handled(std::uint64_t bytes);
  std::shared_ptr<Fd> shared_dir();

  DirCursor at_;
  Fd sync_;  ///< the root again, for syncfs
  Fetch fetch_;
  Options options_;
  const mode_t umask_;
  Counts counts_;
  std::size_t skip_depth_ = 0;  ///< > 0: inside a folder that could not be made
  std::optional<Pack> pack_;
  std::uint64_t number_ = 0;
  std::uint64_t handled_ = 0;  ///< of the current file
  std::vector<std::uint8_t> buffer_;
  OpId last_id_;  ///< of the op that was written last, and its bytes
  Bytes last_bytes_;
  std::shared_ptr<Fd> dir_;  ///< the current folder, for files that wait
  std::vector<Waiting> waiting_;
  std::size_t waiting_dirs_ = 0;
  std::uint64_t waiting_bytes_ = 0;
  std::chrono::steady_clock::time_point waiting_since_{};
};

}  // namespace kitsune2::files
