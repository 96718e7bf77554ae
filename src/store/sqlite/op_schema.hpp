// The op store's schema, and how its pending rows are packed. docs/store-format.md describes both.
#pragma once

#include <vector>

#include "kitsune2/ids.hpp"
#include "store/sqlite/db.hpp"

namespace kitsune2::sqlite {

/// The tables that all versions have.
#define K2_OP_STORE_TABLES                                                                                   \
  "CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"                              \
  "CREATE TABLE totals(one INTEGER PRIMARY KEY CHECK(one=1), ops INTEGER NOT NULL, bytes INTEGER NOT NULL);" \
  "INSERT INTO totals VALUES(1,0,0);"                                                                        \
  "CREATE TABLE op_data(stored_at INTEGER PRIMARY KEY, data BLOB NOT NULL);"                                 \
  "CREATE TABLE slice_hash(arc_start INTEGER, arc_end INTEGER, slice INTEGER, hash BLOB NOT NULL,"           \
  " PRIMARY KEY(arc_start, arc_end, slice)) WITHOUT ROWID;"                                                  \
  "CREATE TABLE source(number INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE);"                               \
  "CREATE TABLE pending(seq INTEGER PRIMARY KEY, source INTEGER NOT NULL, ids BLOB NOT NULL);"               \
  "CREATE INDEX pending_by_source ON pending(source);"

#define K2_OP_BY_LOC "CREATE INDEX op_by_loc ON op(loc, id, created_at, size);"
#define K2_OP_BY_TIME "CREATE INDEX op_by_time ON op(created_at, stored_at, loc, id, size);"
#define K2_OP_WITH_DATA                                                                    \
  "CREATE TABLE op(stored_at INTEGER PRIMARY KEY, loc INTEGER NOT NULL, id BLOB NOT NULL," \
  " created_at INTEGER NOT NULL, size INTEGER NOT NULL, data BLOB);"
#define K2_RUNS_TABLES                                                               \
  "CREATE TABLE slot(n INTEGER PRIMARY KEY, data BLOB NOT NULL);"                    \
  "CREATE TABLE manifest(one INTEGER PRIMARY KEY CHECK(one=1), data BLOB NOT NULL);" \
  "CREATE TABLE dropped(seq INTEGER PRIMARY KEY, stored_at INTEGER NOT NULL);"
// The index tells the end of what is named.
#define K2_LARGE_TABLES                                                                                \
  "CREATE TABLE op_place(stored_at INTEGER PRIMARY KEY, at INTEGER NOT NULL, bytes INTEGER NOT NULL);" \
  "CREATE INDEX op_place_by_at ON op_place(at);"

/// Version 1: the indexes are SQLite's.
inline constexpr Format kTablesFormat{
    0x6b326f70,  // "k2op"
    1, "op store",
    K2_OP_STORE_TABLES
    "CREATE TABLE op(stored_at INTEGER PRIMARY KEY, loc INTEGER NOT NULL, id BLOB NOT NULL,"
    " created_at INTEGER NOT NULL, size INTEGER NOT NULL);" K2_OP_BY_LOC K2_OP_BY_TIME};

/// Version 2: ops are only appended, and the indexes are runs (store/runs), whose blocks lie in `slot`. `data` is null
/// if the bytes are in op_data.
inline constexpr Format kRunsFormat{0x6b326f70, 2, "op store", K2_OP_STORE_TABLES K2_OP_WITH_DATA K2_RUNS_TABLES};

/// Version 1 on its way to version 2: the runs are being made, and SQLite's indexes answer. Its number is not 2, so
/// that no program takes it for complete.
inline constexpr Format kConvertingFormat{0x6b326f70, 3, "op store",
                                          K2_OP_STORE_TABLES K2_OP_WITH_DATA K2_OP_BY_LOC K2_OP_BY_TIME K2_RUNS_TABLES};
/// The runs answer, and one of SQLite's indexes is still to be removed.
inline constexpr Format kConvertedFormat{0x6b326f70, 4, "op store",
                                         K2_OP_STORE_TABLES K2_OP_WITH_DATA K2_OP_BY_TIME K2_RUNS_TABLES};

/// Version 2 with large ops, whose bytes are in a file beside the database: at `at` there are `bytes` of them.
inline constexpr Format kLargeFormat{0x6b326f70, 5, "op store",
                                     K2_OP_STORE_TABLES K2_OP_WITH_DATA K2_RUNS_TABLES K2_LARGE_TABLES};

/// From version 1 to 3. The bytes of the ops that are there stay in op_data.
inline constexpr const char* kStartConversion =
    "ALTER TABLE op ADD COLUMN data BLOB;" K2_RUNS_TABLES "PRAGMA user_version=3;";
/// From 3 to 4, and from 4 to 2.
inline constexpr const char* kSwitchToRuns = "DROP INDEX op_by_loc;PRAGMA user_version=4;";
inline constexpr const char* kEndConversion = "DROP INDEX op_by_time;PRAGMA user_version=2;";
/// From 2 to 5, before the first large op is stored. So stores of small ops can still be opened by programs that know
/// version 2 only.
inline constexpr const char* kStartLarge = K2_LARGE_TABLES "PRAGMA user_version=5;";

#undef K2_LARGE_TABLES
#undef K2_OP_STORE_TABLES
#undef K2_OP_BY_LOC
#undef K2_OP_BY_TIME
#undef K2_OP_WITH_DATA
#undef K2_RUNS_TABLES

inline bool has_runs(int version) { return version != kTablesFormat.version; }
/// Whether runs are complete and asked, and not SQLite's indexes.
inline bool answers_from_runs(int version) {
  return version == kRunsFormat.version || version == kConvertedFormat.version || version == kLargeFormat.version;
}
inline bool has_large(int version) { return version == kLargeFormat.version; }

/// Opens a file of any version, or makes a new one in `for_new`; null: there must be one. Returns the version.
/// Errors: as open_format.
inline Result<int> open_op_format(Connection& connection, const Format* for_new) {
  const auto version = connection.number("PRAGMA user_version");
  if (!version) return version.error();
  const bool may_create = *version == 0 && for_new != nullptr;
  // A later version is refused by the latest one, which names what is known.
  const Format* format = *version > kLargeFormat.version ? &kLargeFormat : &kTablesFormat;
  for (const Format* known : {&kRunsFormat, &kConvertingFormat, &kConvertedFormat, &kLargeFormat}) {
    if (*version == known->version) format = known;
  }
  if (may_create) format = for_new;
  if (auto ok = open_format(connection, *format, may_create); !ok) return ok.error();
  return format->version;
}

/// The bytes of an op of the table `op`: an expression. With large ops it needs the function `k2_large`.
inline const char* data_column(int version) {
  if (has_large(version)) {
    return "coalesce(data, (SELECT k2_large(at, bytes) FROM op_place WHERE op_place.stored_at=op.stored_at),"
           " (SELECT data FROM op_data WHERE op_data.stored_at=op.stored_at))";
  }
  return !has_runs(version) ? "(SELECT data FROM op_data WHERE op_data.stored_at=op.stored_at)"
                            : "coalesce(data, (SELECT data FROM op_data WHERE op_data.stored_at=op.stored_at))";
}

/// Ops of version 2 with more bytes have them in op_data. *Rationale*: a quarter of a page; they leave the scans of
/// `op`, and no row needs a page of its own beside the tree.
inline constexpr std::size_t kMostBytesInRow = 4'096;
/// Ops of version 2 or 5 with at least so many bytes have them in the file of large ops
/// (docs/decisions/0071-large-ops-once.md has the figures).
inline constexpr std::size_t kLeastLargeBytes = 16U << 10;

/// A row of `pending` holds up to this many ids, or bytes.
inline constexpr std::size_t kIdsPerPendingRow = 1024;
inline constexpr std::size_t kBytesPerPendingRow = 64U << 10;

/// Each id: its length in one byte (255: four more bytes with the length, little-endian), then its bytes.
inline void pack_id(ByteView id, std::vector<std::uint8_t>& out) {
  if (id.size() < 255) {
    out.push_back(static_cast<std::uint8_t>(id.size()));
  } else {
    out.push_back(255);
    for (unsigned shift = 0; shift < 32; shift += 8) out.push_back(static_cast<std::uint8_t>(id.size() >> shift));
  }
  out.insert(out.end(), id.begin(), id.end());
}

/// Calls `take(ByteView)` for each id. Returns false if the bytes are damaged.
template <class Take>
bool unpack_ids(ByteView bytes, Take take) {
  while (!bytes.empty()) {
    std::size_t size = bytes[0];
    std::size_t head = 1;
    if (size == 255) {
      if (bytes.size() < 5) return false;
      size = bytes[1] | bytes[2] << 8U | bytes[3] << 16U | static_cast<std::size_t>(bytes[4]) << 24U;
      head = 5;
    }
    if (bytes.size() - head < size) return false;
    take(bytes.subspan(head, size));
    bytes = bytes.subspan(head + size);
  }
  return true;
}

}  // namespace kitsune2::sqlite
