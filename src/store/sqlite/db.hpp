// A thin layer over SQLite: connections, prepared statements, our errors, and the files' modes and lock.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::sqlite {

/// A prepared statement of a connection. Bound bytes must live until the next `reset`.
class Statement {
 public:
  Statement() = default;
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}

  Statement& bind(int at, std::int64_t value) {
    sqlite3_bind_int64(statement_.get(), at, value);
    return *this;
  }
  Statement& bind(int at, ByteView bytes) {
    if (bytes.empty()) {
      sqlite3_bind_zeroblob(statement_.get(), at, 0);
    } else {
      sqlite3_bind_blob64(statement_.get(), at, bytes.data(), bytes.size(), SQLITE_STATIC);
    }
    return *this;
  }
  Statement& bind_text(int at, std::string_view text) {
    sqlite3_bind_text64(statement_.get(), at, text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8);
    return *this;
  }
  Statement& bind_null(int at) {
    sqlite3_bind_null(statement_.get(), at);
    return *this;
  }

  /// SQLITE_ROW, SQLITE_DONE or an error.
  int step() { return sqlite3_step(statement_.get()); }
  void reset() { sqlite3_reset(statement_.get()); }

  std::int64_t int64(int column) const { return sqlite3_column_int64(statement_.get(), column); }
  /// Valid until the next step or reset.
  ByteView blob(int column) const {
    const auto* data = static_cast<const std::uint8_t*>(sqlite3_column_blob(statement_.get(), column));
    return {data, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column))};
  }
  std::string_view text(int column) const { return as_text(blob(column)); }
  bool is_null(int column) const { return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL; }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

/// Resets a statement at the end of a scope, so that it holds no lock and no borrowed bytes.
class Use {
 public:
  explicit Use(Statement& statement) : statement_(statement) {}
  ~Use() { statement_.reset(); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;
  Statement* operator->() const { return &statement_; }

 private:
  Statement& statement_;
};

/// The last failure on `db` as one of our errors, naming the file.
Error error_of(sqlite3* db, const std::string& path, int code);
/// The failure of a VFS on a file. `system_errno`: 0 if it is not known.
Error error_of_file(const std::string& path, int code, int system_errno);

/// How long to wait for a lock that another program (a backup) holds.
inline constexpr int kBusyTimeoutMs = 5'000;

/// One connection, used by one thread at a time.
class Connection {
 public:
  enum class Mode {
    write,      ///< the file must exist
    read,       ///< the same rights to the -shm file, but no statement may write
    read_only,  ///< never changes a file; for use beside the owner
  };

  /// `vfs`: null for the system's files.
  static Result<Connection> open(const std::string& path, Mode mode, const char* vfs = nullptr);

  Result<void> run(const char* sql);
  Result<Statement> prepare(std::string_view sql);
  /// Prepares and runs a query for one number. Returns 0 if there is no row.
  Result<std::int64_t> number(std::string_view sql);

  bool in_transaction() const { return sqlite3_get_autocommit(db_.get()) == 0; }
  /// Ends a transaction that failed. No effect outside a transaction.
  void roll_back();

  Error error(int code) const { return error_of(db_.get(), path_, code); }
  const std::string& path() const { return path_; }
  sqlite3* handle() const { return db_.get(); }

 private:
  struct Close {
    void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
  };
  std::unique_ptr<sqlite3, Close> db_;
  std::string path_;
};

/// Reads values of one column where they are, without a copy inside SQLite. For values of many pages: moving from row
/// to row costs as much as a small statement. Must not be used after the transaction in which the first value was
/// opened.
class BlobReader {
 public:
  /// `column` of `table` must hold blobs. The names must outlive this object.
  BlobReader(Connection& connection, const char* table, const char* column)
      : connection_(connection), table_(table), column_(column) {}
  ~BlobReader() { sqlite3_blob_close(blob_); }
  BlobReader(const BlobReader&) = delete;
  BlobReader& operator=(const BlobReader&) = delete;

  /// Returns the size of the value in `row`; nullopt: there is none, or it is not a blob.
  Result<std::optional<std::size_t>> seek(std::int64_t row);
  /// Reads the whole value; `out` must be as large as `seek` returned.
  Result<void> read(std::uint8_t* out);

 private:
  Connection& connection_;
  const char* table_;
  const char* column_;
  sqlite3_blob* blob_ = nullptr;
};

/// An exclusive lock on a database, held while the object exists: `<path>-lock`, locked with flock (so it ends with the
/// process in any case), containing the owner's process id as text. The file is never removed, because another process
/// may be about to lock it.
///
/// A lock may *rest* while the database is closed. It has no descriptor then, and another process can take it; for this
/// process it is held all the same.
class FileLock {
 public:
  /// Errc::already_exists "… in use by process N"; Errc::io.
  static Result<FileLock> take(const std::string& database_path);
  FileLock(FileLock&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), resting_(std::exchange(other.resting_, std::nullopt)) {}
  FileLock& operator=(FileLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(resting_, other.resting_);
    return *this;
  }
  ~FileLock();

  /// No effect if it rests already, or if the file cannot be told from others: then it goes on.
  void rest();
  /// The end of a rest, with the errors of `take`; then it rests on. No effect if it does not rest.
  Result<void> take_again(const std::string& database_path);

 private:
  /// The process, and a file whatever its names are.
  using FileId = std::tuple<int, std::uint64_t, std::uint64_t>;
  static std::optional<FileId> id_of(int fd);
  static Result<int> lock_file(const std::string& database_path, bool is_own);
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
  std::optional<FileId> resting_;
};

/// The state of the file before SQLite sees it.
enum class FileState { missing, empty, present };

/// Errc::corrupt: too short for a database; or empty while its WAL is not: SQLite would delete the WAL.
Result<FileState> inspect_file(const std::string& path);
/// Creates an empty file, 0600 whatever the umask; SQLite gives its -wal and -shm the same mode. Makes the name
/// durable.
Result<void> create_file(const std::string& path);

/// How a database file identifies itself.
struct Format {
  std::int32_t application_id;
  std::int32_t version;  ///< user_version
  const char* what;      ///< "op store"
  const char* schema;    ///< the statements that create it, run in one transaction
};

/// Creates the schema in a new database, or checks that an existing one is of `format` and has exactly its tables and
/// indexes (no trigger, no view: a prepared file cannot make us run its SQL). Errc::corrupt: another kind of file.
/// Errc::unsupported: a newer version. Errc::not_found: it is new and not `may_create`.
Result<void> open_format(Connection& connection, const Format& format, bool may_create);

}  // namespace kitsune2::sqlite
