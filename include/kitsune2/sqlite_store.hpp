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
  /// The largest size of the database and of the file of large ops beside it, together; beyond it writes fail
  /// with Errc::disk_full. 0: limited by the disk only. The WAL comes in addition: 8 to 16 MiB while commits
  /// are small, otherwise about 128 MiB (an eighth of this limit, at least 32 MiB) and one commit; twice that
  /// beside a slow reader, nothing when idle.
  std::uint64_t max_database_bytes = 0;
  /// Larger ops are rejected. The default builder sets it to what a message of its transport can carry. A store that
  /// already holds larger ops can be opened all the same.
  std::uint64_t max_op_bytes = kDefaultMaxOpBytes;
  /// The most bytes of open requests that are kept (an op id and one byte per op and source); beyond that `add_pending`
  /// fails with Errc::overloaded. The default holds 16 million requests with ids of 32 bytes.
  std::uint64_t max_kept_request_bytes = 512U << 20;
  /// A new file keeps its indexes in sorted runs (version 2 of the schema, docs/store-format.md), so that what storing
  /// an op costs does not grow with what the store holds; and a file of version 1 is converted while it is used.
  /// Programs that know version 1 only refuse a file of version 2. False: a new file has version 1, and no conversion
  /// begins, so that such a program can still open it. A file of version 2 stays one.
  bool index_in_runs = true;
  /// For `kitsune2 status` beside a running node: takes no lock and changes nothing; writes get Errc::unsupported.
  bool read_only = false;
};

/// Opens a durable store, and creates its file (mode 0600) and schema if there is none. The store is one SQLite
/// database, in WAL mode with synchronous=FULL and group commit, and `<path>-data`, which has the bytes of ops
/// of 16 KiB or more. Programs that do not know this file refuse a database as soon as it has such ops. All
/// stores of the process share a few threads. The destructor waits until everything that was written is
/// committed.
///
/// A process may open any number of stores; their files need not all be open. Together with the peer stores they have
/// half of the descriptors that the soft limit of the process allows (RLIMIT_NOFILE, which is asked when a file is to
/// be opened). A store that was not called for a minute closes its files, and where there is no room, the one that was
/// used longest ago does so at once; the next call opens them again. This call waits until there is room. *Reason*: at
/// the limit not only a store would fail, but every socket. It shows in these cases:
///  * While the files are closed, another process can open the store. As long as it has it, calls fail with
///    Errc::already_exists. If it has changed the file, listeners are told (`OpStoreEvents::ops_damaged` with an empty
///    list).
///  * If they cannot be opened again (no descriptor, a full disk, a file that is gone or damaged), the calls that wait
///    fail with the error of that. What was stored before is safe, and the next call tries again.
///
/// A file holds the ops of one space and one policy. Errors:
///  * Errc::already_exists: the file belongs to another space or policy (both are named), or another process has it
///  open.
///  * Errc::corrupt: the file is damaged; the message repeats the advice of docs/operations.md.
///  * Errc::unsupported: a newer version of this library has written it.
///  * Errc::not_found: with `read_only`, there is no store.
///  * Errc::io: the system has refused something.
Result<std::shared_ptr<OpStore>> open_sqlite_op_store(Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                                                      const SpaceId& space, const std::string& path,
                                                      const SqliteOpStoreOptions& options = {});

/// What a store's file says about itself.
struct SqliteOpStoreInfo {
  SpaceId space;
  std::string policy;
};
/// Reads the space and policy of a store without opening it; another process may be using it. Errors: Errc::not_found,
/// Errc::corrupt, Errc::unsupported, Errc::io.
Result<SqliteOpStoreInfo> read_sqlite_op_store_info(const std::string& path);

/// Makes the store in the file `from` the store of `space`, and renames the file to `to`. This is for a space
/// whose id depends on its ops, so that it is known only when they are stored. When the call returns, the store
/// is durable under its new name. After an error or a crash `from` still exists, perhaps bound to `space`
/// already; after a crash the bytes of its large ops may have the new name already, and then it is refused.
///
/// The file `to` must not exist, and no store may have `from` open; both are Errc::already_exists. Otherwise the errors
/// are those of open_sqlite_op_store. Blocks; any thread.
Result<void> move_sqlite_op_store(const std::string& from, const std::string& to, const SpaceId& space);

/// An op as it is in a store.
struct SqliteStoredOp {
  OpId op_id;
  Bytes op_data;
  Timestamp stored_at;
};
/// Returns the ops of exactly `size` bytes, at most `limit` of them, the most recently stored first. It finds ops of a
/// known form in a file, even one that another process is using. It may look at each row, but does not read the bytes
/// of other ops. Blocks; any thread. Errors: those of read_sqlite_op_store_info.
Result<std::vector<SqliteStoredOp>> read_sqlite_ops_of_size(const std::string& path, std::uint64_t size,
                                                            std::size_t limit);

/// A fault in a store.
struct SqliteStoreFault {
  OpId op_id;           ///< as the op's entry, or an index, gives it; empty if there is no entry
  Timestamp stored_at;  ///< the key of the entry
  std::uint64_t size = 0;
  /// The op is lost, because its bytes do not have its id. False: only its entry is wrong, and the op can be served.
  bool is_lost = false;
  std::string what;  ///< the fault in words
  /// Whether the index as a whole has to be made anew, which is not a fault of an op. Faults of ops may follow that say
  /// where it is wrong.
  bool is_of_index() const { return op_id.empty() && stored_at.micros == INT64_MIN; }
  /// Whether it is of the sums that are kept for the DHT model of gossip.
  bool is_of_sums() const { return op_id.empty() && stored_at.micros == INT64_MIN + 1; }
};
/// The progress of a check.
struct SqliteCheckProgress {
  std::uint64_t ops = 0, bytes = 0;              ///< checked so far
  std::uint64_t total_ops = 0, total_bytes = 0;  ///< what the store held when the check began
  std::uint64_t faults = 0;
};
struct SqliteCheckOptions {
  std::uint64_t bytes_per_second = 0;  ///< the most bytes of ops read per second; 0: no limit
  /// Called about every 100 ms on the caller's thread; false ends the check with Errc::cancelled. May be empty.
  std::function<bool(const SqliteCheckProgress&)> on_progress = {};
};
struct SqliteCheckReport {
  static constexpr std::size_t kMostFaults = 10'000;
  std::uint64_t ops = 0, bytes = 0;  ///< what was checked
  /// How many ops have damaged bytes, and how many a wrong entry, or one in an index without an op; an index as a whole
  /// counts as one, and so do the sums for a DHT model.
  std::uint64_t lost = 0, wrong_entries = 0;
  bool totals_agree = true;  ///< the store's totals of ops and bytes are right
  /// False: it cannot be read, which is a fault, or it is being made from the ops; so only the ops were checked.
  bool index_was_compared = true;
  bool sums_agree = true;                ///< the sums for a DHT model are those of the ops, if there are any
  bool sums_were_compared = false;       ///< there are sums, and they did not become others meanwhile
  std::vector<SqliteStoreFault> faults;  ///< the first kMostFaults
  bool is_intact() const { return lost == 0 && wrong_entries == 0 && totals_agree; }
};
/// Reads every op of the store in the file `path`, and checks its bytes, id, size, times and location by `policy`; then
/// the indexes and the totals. It changes nothing.
///
/// Another process may be using the store. It is not delayed, because the check reads in short pieces; so ops that are
/// stored or dropped meanwhile may or may not be seen. (A running store repairs damage by itself when it comes upon it:
/// see `OpStore::filter_out_intact_ops`.)
///
/// Blocks; any thread. Errors: those of read_sqlite_op_store_info; Errc::already_exists if the store has another
/// policy; Errc::corrupt if a page cannot be read, with a message that says how far the check came.
Result<SqliteCheckReport> check_sqlite_op_store(const std::string& path, const OpPolicy& policy,
                                                const SqliteCheckOptions& options = {});

struct SqliteRepairReport {
  std::uint64_t dropped = 0;  ///< ops whose bytes, or whose entry's id, were damaged
  std::uint64_t mended = 0;   ///< entries that were corrected or put back, and indexes that were rebuilt
};
/// Repairs the faults that a check has found: it drops damaged ops, and corrects entries, indexes and totals. Data
/// without an entry gets one back if it is an op by `policy` that the store does not have otherwise, and is removed if
/// it is not. Faults that no longer exist are ignored. Another check shows whether everything is repaired.
///
/// The store must not be open (Errc::already_exists). Otherwise the errors are those of check_sqlite_op_store; what was
/// repaired before an error stays repaired. Blocks; any thread.
Result<SqliteRepairReport> repair_sqlite_op_store(const std::string& path, const OpPolicy& policy,
                                                  const std::vector<SqliteStoreFault>& faults);

}  // namespace kitsune2
