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
  /// The most bytes (payload, ids, and 64 per op) that may wait for the writer; beyond that calls get Errc::overloaded.
  /// A larger single call is accepted if nothing waits. The same bound holds for ids that wait for the reader.
  std::uint64_t max_pending_write_bytes = 256U << 20;
  /// The most ops and bytes in one commit; group commit takes everything that waits, up to these. The ops of a call are
  /// never split, so a larger single call is one commit.
  std::size_t max_batch_ops = 4096;
  std::uint64_t max_batch_bytes = 64U << 20;
  /// The largest database file; beyond it writes fail with Errc::disk_full. 0: limited by the disk only. The WAL comes
  /// in addition: about 128 MiB (an eighth of this limit, at least 32 MiB) and one commit during writes, twice that
  /// beside a slow reader, nothing when idle.
  std::uint64_t max_database_bytes = 0;
  /// Larger ops are rejected. The default builder sets it to what a message of its transport can carry. A store that
  /// already holds larger ops can be opened all the same.
  std::uint64_t max_op_bytes = kDefaultMaxOpBytes;
  /// The most bytes of open requests that are kept (an op id and one byte per op and source); beyond that `add_pending`
  /// fails with Errc::overloaded. The default holds 16 million requests with ids of 32 bytes.
  std::uint64_t max_kept_request_bytes = 512U << 20;
  /// For `kitsune2 status` beside a running node: takes no lock and changes nothing; writes get Errc::unsupported.
  bool read_only = false;
};

/// The durable store: one SQLite database file, WAL, synchronous=FULL, group commit, on a few threads that all stores
/// of the process share. Creates the file (0600) and its schema. A file holds one space: opening it with another
/// `space` or policy is Errc::already_exists, naming both. Used by a second process: Errc::already_exists ("in use by
/// …"). Errors: Errc::corrupt (with the advice of docs/operations.md), Errc::io, Errc::unsupported (newer schema),
/// Errc::not_found (read_only, and there is no store). The destructor waits until everything written is committed.
Result<std::shared_ptr<OpStore>> open_sqlite_op_store(Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                                                      const SpaceId& space, const std::string& path,
                                                      const SqliteOpStoreOptions& options = {});

/// What a store's file says about itself.
struct SqliteOpStoreInfo {
  SpaceId space;
  std::string policy;
};
/// Reads it without opening the store, also while another process uses it. Errors: Errc::not_found, Errc::corrupt,
/// Errc::unsupported, Errc::io.
Result<SqliteOpStoreInfo> read_sqlite_op_store_info(const std::string& path);

/// Turns the store in the file `from` into the store of `space` in the file `to`, which must not exist
/// (Errc::already_exists). For a space whose id is known only when its ops are. No store may have `from` open
/// (Errc::already_exists, "in use by …"). After a failure or a crash `from` is still there, perhaps bound to `space`
/// already. The contents are durable under the new name. Blocks; any thread. Errors: as open_sqlite_op_store.
Result<void> move_sqlite_op_store(const std::string& from, const std::string& to, const SpaceId& space);

/// An op as it is in a store.
struct SqliteStoredOp {
  OpId op_id;
  Bytes op_data;
  Timestamp stored_at;
};
/// Returns the ops of exactly `size` bytes, those stored last first, at most `limit`. For finding ops of a known form
/// in a file, also while another process uses it. May look at every row, but not at the bytes of other ops. Blocks; any
/// thread. Errors: as read_sqlite_op_store_info.
Result<std::vector<SqliteStoredOp>> read_sqlite_ops_of_size(const std::string& path, std::uint64_t size,
                                                            std::size_t limit);

/// A fault in a store.
struct SqliteStoreFault {
  OpId op_id;           ///< as its entry says; empty: there is no entry
  Timestamp stored_at;  ///< the key of its entry
  std::uint64_t size = 0;
  bool is_lost =
      false;  ///< its bytes do not have its id; otherwise only its entry is wrong, and the op can be given out
  std::string what;
};
/// The progress of a check.
struct SqliteCheckProgress {
  std::uint64_t ops = 0, bytes = 0;              ///< looked at
  std::uint64_t total_ops = 0, total_bytes = 0;  ///< in the store when the check began
  std::uint64_t faults = 0;
};
struct SqliteCheckOptions {
  std::uint64_t bytes_per_second = 0;  ///< the most bytes of ops read per second; 0: no limit
  /// Called about every 100 ms on the caller's thread; false ends the check with Errc::cancelled. May be empty.
  std::function<bool(const SqliteCheckProgress&)> on_progress = {};
};
struct SqliteCheckReport {
  static constexpr std::size_t kMostFaults = 10'000;
  std::uint64_t ops = 0, bytes = 0;           ///< looked at
  std::uint64_t lost = 0, wrong_entries = 0;  ///< ops with damaged bytes; ops with a wrong entry
  bool totals_agree = true;                   ///< the store's totals of ops and bytes are right
  std::vector<SqliteStoreFault> faults;       ///< the first kMostFaults
  bool is_intact() const { return lost == 0 && wrong_entries == 0 && totals_agree; }
};
/// Reads every op of the store in the file `path` and checks it by `policy`: bytes, id, size, times, location, indexes
/// and totals. Changes nothing. May run while another process uses the store, which it does not delay: it reads in
/// short pieces, and may or may not see what is stored or dropped meanwhile. The running store repairs such damage: it
/// drops a damaged op when it is asked for it (`OpStore::filter_out_intact_ops`). Blocks; any thread. Errors: as
/// read_sqlite_op_store_info; Errc::already_exists: another policy; Errc::corrupt: a page is damaged; the message says
/// how far the check came.
Result<SqliteCheckReport> check_sqlite_op_store(const std::string& path, const OpPolicy& policy,
                                                const SqliteCheckOptions& options = {});

struct SqliteRepairReport {
  std::uint64_t dropped = 0;  ///< ops whose bytes, or whose entry's id, were damaged
  std::uint64_t mended = 0;   ///< entries that were corrected, and indexes that were rebuilt
};
/// Repairs the faults that a check found: drops damaged ops, corrects entries, indexes and totals, removes data without
/// an entry. Ignores `faults` that no longer exist; another check shows whether everything is repaired. The store must
/// not be open. Blocks; any thread. Errors: as check_sqlite_op_store; Errc::already_exists: it is open. Repairs made
/// before an error stay.
Result<SqliteRepairReport> repair_sqlite_op_store(const std::string& path, const OpPolicy& policy,
                                                  const std::vector<SqliteStoreFault>& faults);

}  // namespace kitsune2
