// What an op store's file says of its ops by id, place and time, whichever way it keeps that. docs/store-format.md.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kitsune2/op_store.hpp"
#include "store/sqlite/db.hpp"

namespace kitsune2::sqlite {

/// The time of storing of a fault that is no op's: a part of the index itself is wrong.
inline constexpr std::int64_t kWholeIndex = INT64_MIN;
/// The same for the sums that are kept for a DHT model.
inline constexpr std::int64_t kSums = INT64_MIN + 1;

/// An op according to an index.
struct IndexedOp {
  std::uint32_t location = 0;
  std::int64_t size = 0;  ///< of its bytes; in a damaged file any number
  std::int64_t created_at = 0;
  std::int64_t stored_at = 0;
  ByteView id = {};  ///< borrowed
};

/// Whether a column can be the size of an op. *Reason*: no blob of SQLite's has 2 GiB, and in a damaged file there is
/// any number.
inline bool is_size(std::int64_t number) { return number >= 0 && number <= INT32_MAX; }

/// Which ops of a range of locations.
struct PlaceQuery {
  std::uint32_t first = 0, last = UINT32_MAX;
  std::int64_t first_created = INT64_MIN, last_created = INT64_MAX;
  std::int64_t first_stored = INT64_MIN;
};

/// The indexes of a file, through one connection, for one thread. Every call but `location` comes in a transaction,
/// after `refresh`. Errors: Errc::corrupt, Errc::io.
class OpIndex {
 public:
  struct Found {
    std::int64_t stored_at;
    Timestamp created_at;
    std::uint64_t size;
  };
  /// False: no more. The op is valid during the call.
  using Row = std::function<bool(const IndexedOp&)>;

  virtual ~OpIndex() = default;
  OpIndex(const OpIndex&) = delete;
  OpIndex& operator=(const OpIndex&) = delete;

  /// Where an op with this id lies.
  std::uint32_t location(ByteView op_id) const {
    return policy_ != nullptr ? policy_->location(op_id) : dht_location(op_id);
  }

  /// Whether an entry can be right. *Reason*: a place that is not that of the id tells of a damaged entry, since any
  /// bit of the id changes it. Such an op is left out of every answer.
  bool is_plausible(const IndexedOp& op) const { return is_size(op.size) && op.location == location(op.id); }

  /// For a connection that reads: learns what others have committed.
  virtual Result<void> refresh() = 0;
  /// These will be looked for in this transaction. No effect where each is found by itself just as fast.
  virtual Result<void> expect(const std::vector<OpId>& /*op_ids*/) { return {}; }
  /// nullopt: not held.
  virtual Result<std::optional<Found>> find(ByteView op_id) = 0;
  /// At most `most` ops that were created in [start, end) and come after the cursor, in the order of cursors.
  virtual Result<void> by_time(Timestamp start, Timestamp end, const std::optional<OpCursor>& after, std::size_t most,
                               const Row& row) = 0;
  /// How many were created in [start, end), counted up to `most`.
  virtual Result<std::uint64_t> count_in_time(Timestamp start, Timestamp end, std::uint64_t most) = 0;
  virtual Result<void> by_place(const PlaceQuery& query, const Row& row) = 0;
  /// Whether the index by time has the op as it is said here.
  virtual Result<bool> has_in_time(const IndexedOp& op) = 0;
  /// The memory of its statements is given back until they are used again. Between transactions.
  virtual void let_go() = 0;
  /// Whether a part of the index cannot be read, as far as calls have met it.
  virtual bool is_damaged() const { return false; }
  /// Whether look-ups that were not expected go through rows one by one.
  virtual bool is_behind() const { return false; }

 protected:
  /// `policy` tells the location of ids; null: as in the reference. It must outlive this object.
  OpIndex(const Connection& connection, const OpPolicy* policy)
      : policy_(policy), db_(connection.handle()), path_(connection.path()) {}
  Error error(int code) const { return error_of(db_, path_, code); }
  const std::string& path() const { return path_; }

 private:
  const OpPolicy* policy_;
  sqlite3* db_;
  std::string path_;
};

/// The indexes of version 1 of the schema: SQLite's own.
std::unique_ptr<OpIndex> make_table_index(const Connection& connection, const OpPolicy* policy);

}  // namespace kitsune2::sqlite
