// The durable op store, on SQLite.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kitsune2/op_store.hpp"

namespace kitsune2 {

struct SqliteOpStoreOptions {
  /// Most bytes (payload, ids, 64 an op) that may wait for the writer; beyond that calls get Errc::overloaded. A larger
  /// single call is taken when nothing waits. The same bound holds for the ids that wait for the reader.
  std::uint64_t max_pending_write_bytes = 256U << 20;
  /// A commit takes at most this many ops or bytes (group commit takes all that waits, up to these); the ops of one
  /// call are never split, so a single larger call is one commit.
  std::size_t max_batch_ops = 4096;
  std::uint64_t max_batch_bytes = 64U << 20;
  /// Largest database file; beyond it writes are Errc::disk_full. 0: no limit but the disk. The WAL comes on top: about
  /// 128 MiB (an eighth of this limit, 32 MiB at least) and one commit while it writes, twice that beside a slow
  /// reader, nothing when idle.
  std::uint64_t max_database_bytes = 0;
  /// Larger ops are rejected. The default builder sets it to what a message of its transport carries. A store that
  /// holds larger ones already opens all the same.
  std::uint64_t max_op_bytes = kDefaultMaxOpBytes;
  /// Most bytes of the open requests (an op id and one byte for each op and source) that are kept; beyond it
  /// `add_pending` is Errc::overloaded. The default is 16 million requests with ids of 32 bytes.
  std::uint64_t max_kept_request_bytes = 512U << 20;
  /// For `kitsune2 status` beside a running node: takes no lock, changes nothing, writes get Errc::unsupported.
  bool read_only = false;
};

/// The durable store: one SQLite database file, WAL, synchronous=FULL, a writer thread with group commit and a reader
/// thread. Creates the file (0600) and its schema. One space a file: opening with another `space` or policy is
/// Errc::already_exists naming both. A second process on the same file: Errc::already_exists ("in use by …").
/// Errors: Errc::corrupt (with the advice in docs/operations.md), Errc::io, Errc::unsupported (newer schema).
/// Errc::not_found: read_only and there is no store. Destruction waits for what was written to be committed.
Result<std::shared_ptr<OpStore>> open_sqlite_op_store(Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                                                      const SpaceId& space, const std::string& path,
                                                      const SqliteOpStoreOptions& options = {});

/// What a store's file says of itself.
struct SqliteOpStoreInfo {
  SpaceId space;
  std::string policy;
};
/// Reads it without opening the store, also beside its owner. Errc::not_found, Errc::corrupt, Errc::unsupported,
/// Errc::io.
Result<SqliteOpStoreInfo> read_sqlite_op_store_info(const std::string& path);

/// Makes the store in the file `from` the store of `space` in the file `to`, which must not exist yet
/// (Errc::already_exists). For a space whose name is only known when its ops are. No store may have `from` open
/// (Errc::already_exists, "in use by …"). After a failure or a crash `from` is still there, perhaps bound to `space`
/// already. What was in the store is durable under the new name. Blocks; any thread. Errors: as open_sqlite_op_store.
Result<void> move_sqlite_op_store(const std::string& from, const std::string& to, const SpaceId& space);

/// An op as it lies in a store.
struct SqliteStoredOp {
  OpId op_id;
  Bytes op_data;
  Timestamp stored_at;
};
/// The ops of exactly `size` bytes, those stored last first, `limit` at most. For finding ops of a known form in a
/// file; also beside its owner. Looks at every row if need be, not at the bytes of other ops. Blocks; any thread.
/// Errors: as read_sqlite_op_store_info.
Result<std::vector<SqliteStoredOp>> read_sqlite_ops_of_size(const std::string& path, std::uint64_t size,
                                                            std::size_t limit);

/// Something wrong in a store.
struct SqliteStoreFault {
  OpId op_id;           ///< as its entry says; empty: there is no entry
  Timestamp stored_at;  ///< the key of its entry
  std::uint64_t size = 0;
  bool is_lost =
      false;  ///< its bytes do not have its id; otherwise only its entry is wrong, and the op can be given out
  std::string what;
};
/// How far a check has come.
struct SqliteCheckProgress {
  std::uint64_t ops = 0, bytes = 0;              ///< looked at
  std::uint64_t total_ops = 0, total_bytes = 0;  ///< in the store when the check began
  std::uint64_t faults = 0;
};
struct SqliteCheckOptions {
  std::uint64_t bytes_per_second = 0;  ///< most bytes of ops that are read in a second; 0: no bound
  /// Called every 100 ms or so, on the caller's thread. False ends the check with Errc::cancelled. May be empty.
  std::function<bool(const SqliteCheckProgress&)> on_progress = {};
};
struct SqliteCheckReport {
  static constexpr std::size_t kMostFaults = 10'000;
  std::uint64_t ops = 0, bytes = 0;           ///< looked at
  std::uint64_t lost = 0, wrong_entries = 0;  ///< ops whose bytes are damaged; whose entries are
  bool totals_agree = true;                   ///< the store's own count of its ops and bytes
  std::vector<SqliteStoreFault> faults;       ///< the first kMostFaults
  bool is_intact() const { return lost == 0 && wrong_entries == 0 && totals_agree; }
};
/// Reads every op of the store in the file `path` and checks it by `policy`: bytes, id, size, times, place, indexes and
/// totals. Changes nothing; also beside its owner, which is not held up: it reads in short pieces, and what is stored
/// or dropped meanwhile may be seen or not. What it finds is repaired by the running store, which drops a damaged op
/// when it is asked for it (`OpStore::filter_out_intact_ops`). Blocks; any thread. Errors: as
/// read_sqlite_op_store_info; Errc::already_exists: the store has another policy; Errc::corrupt: a page of the file is
/// damaged, and how far the check came is in the message.
Result<SqliteCheckReport> check_sqlite_op_store(const std::string& path, const OpPolicy& policy,
                                                const SqliteCheckOptions& options = {});

struct SqliteRepairReport {
  std::uint64_t dropped = 0;  ///< ops whose bytes, or whose entry's id, were damaged
  std::uint64_t mended = 0;   ///< entries that were corrected, and the indexes where they were made anew
};
/// Repairs what a check has found: drops damaged ops, corrects entries, indexes and totals, removes data without an
/// entry. `faults` that are none any more do nothing; another check says whether all is repaired. The store must not be
/// open. Blocks; any thread. Errors: as check_sqlite_op_store; Errc::already_exists: it is open; what the pieces before
/// an error have repaired stays.
Result<SqliteRepairReport> repair_sqlite_op_store(const std::string& path, const OpPolicy& policy,
                                                  const std::vector<SqliteStoreFault>& faults);

}  // namespace kitsune2
