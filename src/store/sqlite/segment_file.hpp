// The file beside an op store's database that has the bytes of large ops.
#pragma once

#include <sqlite3.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "store/sqlite/db.hpp"

namespace kitsune2::sqlite {

/// Bytes at offsets, without any structure: rows of the database say what is where. The file is reached by a VFS of
/// SQLite's, so that a simulated disk is below it wherever it is below the database. It is open only while somebody
/// uses it.
///
/// For one thread at a time. Two objects may have the same file.
class SegmentFile {
 public:
  static std::string path_of(const std::string& database_path) { return database_path + "-data"; }

  /// `vfs`: null for the system's files; otherwise it must outlive this object.
  SegmentFile(const std::string& database_path, const char* vfs);
  ~SegmentFile() { close(); }
  SegmentFile(const SegmentFile&) = delete;
  SegmentFile& operator=(const SegmentFile&) = delete;

  /// Makes an empty file, 0600, whose name is durable with the first sync at the latest. What is there under this name
  /// belongs to another database, which was moved away perhaps: it gets the name `….old`.
  Result<void> make();
  Result<bool> is_there() const;
  /// From now on a file that is not there counts as an empty one. Otherwise it is an error to read it (Errc::io).
  /// *Rationale*: who has moved it away by mistake must not lose its ops one by one.
  void may_be_missing() { may_be_missing_ = true; }

  // All open the file if it is not open. Errors: Errc::io, Errc::disk_full.
  Result<std::uint64_t> size();
  /// Returns false if the file ends before the last byte, or before the first one.
  Result<bool> read(std::uint64_t at, std::uint8_t* out, std::uint64_t bytes);
  Result<bool> has(std::uint64_t at, std::uint64_t bytes);
  Result<void> write(std::uint64_t at, ByteView bytes);
  Result<void> sync();
  Result<void> truncate(std::uint64_t size);

  /// What has been written without a sync may be lost. No effect if it is not open.
  void close();
  const std::string& path() const { return path_; }

 private:
  enum class Mode { closed, read, write };
  Result<bool> open(Mode mode);
  Error error(int code) const;

  const std::string path_;
  const char* const vfs_;
  Mode mode_ = Mode::closed;
  bool may_be_missing_ = false;
  std::unique_ptr<std::uint8_t[]> memory_;  ///< of `file_`
  sqlite3_file* file_ = nullptr;
};

/// Gives the connection the function `k2_large(at, bytes)`: the bytes in the file, or null if they are not there.
/// `file` must outlive the connection.
Result<void> add_large_function(Connection& connection, SegmentFile& file);

}  // namespace kitsune2::sqlite
