// The durable op store, on SQLite.
#pragma once

#include <cstddef>
#include <cstdint>
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

}  // namespace kitsune2
