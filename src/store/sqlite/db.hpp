// A thin layer over SQLite: connections, prepared statements, our errors, and the files' modes.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::sqlite {

/// A prepared statement of a connection. Bound bytes must live until the next `reset`.
///
/// One that is made with its text is prepared when it is used first. *Rationale*: a store has some eighty, of which a
/// few are used; to prepare all of them took most of opening it, and their programs most of its memory. What is wrong
/// then is the outcome of `step`.
class Statement {
 public:
  Statement() = default;
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}
  /// `sql` must outlive it.
  Statement(sqlite3* db, const char* sql) : db_(db), sql_(sql) {}

  Statement& bind(int at, std::int64_t value) {
    if (is_ready()) sqlite3_bind_int64(statement_.get(), at, value);
    return *this;
  }
  Statement& bind(int at, ByteView bytes) {
    if (!is_ready()) return *this;
    if (bytes.empty()) {
      sqlite3_bind_zeroblob(statement_.get(), at, 0);
    } else {
      sqlite3_bind_blob64(statement_.get(), at, bytes.data(), bytes.size(), SQLITE_STATIC);
    }
    return *this;
  }
  Statement& bind_text(int at, std::string_view text) {
    if (is_ready()) sqlite3_bind_text64(statement_.get(), at, text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8);
    return *this;
  }
  Statement& bind_null(int at) {
    if (is_ready()) sqlite3_bind_null(statement_.get(), at);
    return *this;
  }

  /// SQLITE_ROW, SQLITE_DONE or an error.
  int step() { return is_ready() ? sqlite3_step(statement_.get()) : failed_; }
  void reset() {
    if (statement_) sqlite3_reset(statement_.get());
  }
  /// Its memory is given back until it is used again. No effect without a text. Not while it is in use.
  void let_go() {
    if (sql_ != nullptr) statement_.reset();
  }

  std::int64_t int64(int column) const { return sqlite3_column_int64(statement_.get(), column); }
  /// Valid until the next step or reset.
  ByteView blob(int column) const {
    const auto* data = static_cast<const std::uint8_t*>(sqlite3_column_blob(statement_.get(), column));
    return {data, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column))};
  }
  std::string_view text(int column) const { return as_text(blob(column)); }
  bool is_null(int column) const { return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL; }

 private:
  bool is_ready() { return statement_ != nullptr || prepare(); }
  bool prepare();

  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  sqlite3* db_ = nullptr;
  const char* sql_ = nullptr;
  int failed_ = SQLITE_MISUSE;
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

/// What the system says of a file, by its `errno`.
Error io_error(const std::string& path, int number);
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
  /// One that is prepared when it is used; `sql` must outlive it.
  Statement later(const char* sql) const { return {db_.get(), sql}; }
  /// Prepares and runs a query for one number. Returns 0 if there is no row.
  Result<std::int64_t> number(std::string_view sql);

  /// How much of the file it keeps in memory. A new one is large by SQLite's measure.
  ///  * `small`: two pages, and those of a transaction, which go to the disk early from 16 MiB on, as in the next one.
  ///    From fewer than three pages on SQLite does not take room for twenty at once (with pages of 16 KiB, 330 KiB).
  ///  * `usual`: 16 MiB.
  ///  * `large`: 64 MiB.
  enum class Cache { small, usual, large };
  /// Between transactions, or in one.
  Result<void> set_cache(Cache size);
  /// Gives back the memory of all pages, and has a small cache from now on. Between transactions. *Rationale*: one of
  /// many stores that are used now and then has a few kilobytes.
  void let_pages_go();

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
