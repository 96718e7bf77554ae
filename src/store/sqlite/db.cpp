// Opens SQLite files with their modes, runs statements, and translates SQLite's errors.
#include "store/sqlite/db.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>

namespace kitsune2::sqlite {
namespace {

Errc errc_of(int code, int system_errno) {
  switch (code & 0xff) {
    case SQLITE_FULL:
      return Errc::disk_full;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Errc::corrupt;
    case SQLITE_TOOBIG:
      return Errc::too_large;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
      return system_errno == ENOSPC || system_errno == EDQUOT ? Errc::disk_full : Errc::io;
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
    case SQLITE_ERROR:
    case SQLITE_CONSTRAINT:
      return Errc::internal;
    default:  // BUSY, LOCKED, PERM, READONLY, NOMEM, …: the machine, not the data
      return Errc::io;
  }
}

}  // namespace

Error io_error(const std::string& path, int number) {
  const bool full = number == ENOSPC || number == EDQUOT;
  return make_error(full ? Errc::disk_full : Errc::io, path + ": " + std::strerror(number));
}

Result<Connection> Connection::open(const std::string& path, Mode mode, const char* vfs) {
  Connection out;
  out.path_ = path;
  const auto open_as = [&](const std::string& name, int flags) {
    sqlite3* db = nullptr;
    const int rc = sqlite3_open_v2(name.c_str(), &db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, vfs);
    out.db_.reset(db);
    if (rc != SQLITE_OK) return rc;
    sqlite3_busy_timeout(db, kBusyTimeoutMs);
    // The file is input like any other: its schema must not call functions with side effects, nor be written as a
    // table.
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    return sqlite3_exec(db, "SELECT 1 FROM sqlite_schema LIMIT 1", nullptr, nullptr, nullptr);
  };
  int rc = open_as(path, mode == Mode::read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
  if (mode == Mode::read_only && rc != SQLITE_OK && (rc & 0xff) != SQLITE_CORRUPT && (rc & 0xff) != SQLITE_NOTADB) {
    // On a read-only medium SQLite cannot create the -shm file. Without a WAL the file alone is complete.
    std::error_code ec;
    const auto wal_size = std::filesystem::file_size(path + "-wal", ec);
    if (ec || wal_size == 0) {
      std::string uri = "file:";
      for (const char c : path) {
        if (c == '%' || c == '?' || c == '#') {
          uri += '%';
          uri += to_hex(as_bytes({&c, 1}));
        } else {
          uri += c;
        }
      }
      rc = open_as(uri + "?immutable=1", SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
    }
  }
  if (rc != SQLITE_OK) return out.error(rc);
  if (mode == Mode::read) {
    if (auto ok = out.run("PRAGMA query_only=ON"); !ok) return ok.error();
  }
  return out;
}

Result<void> Connection::run(const char* sql) {
  const int rc = sqlite3_exec(db_.get(), sql, nullptr, nullptr, nullptr);
  if (rc != SQLITE_OK) return error(rc);
  return {};
}

Result<Statement> Connection::prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int rc = sqlite3_prepare_v3(db_.get(), sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                                    &statement, nullptr);
  if (rc != SQLITE_OK) return error(rc);
  return Statement(statement);
}

Result<void> Connection::set_cache(Cache size) {
  switch (size) {
    case Cache::small:
      return run("PRAGMA cache_spill=-16384; PRAGMA cache_size=2");
    case Cache::usual:
      return run("PRAGMA cache_size=-16384");
    case Cache::large:
      break;
  }
  return run("PRAGMA cache_size=-65536");
}

void Connection::let_pages_go() {
  static_cast<void>(set_cache(Cache::small));
  sqlite3_db_release_memory(db_.get());
}

bool Statement::prepare() {
  if (sql_ == nullptr) return false;
  sqlite3_stmt* statement = nullptr;
  failed_ = sqlite3_prepare_v3(db_, sql_, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  statement_.reset(statement);
  return statement != nullptr;
}

Result<std::int64_t> Connection::number(std::string_view sql) {
  auto statement = prepare(sql);
  if (!statement) return statement.error();
  const int rc = statement->step();
  if (rc == SQLITE_ROW) return statement->int64(0);
  if (rc == SQLITE_DONE) return std::int64_t{0};
  return error(rc);
}

Result<std::optional<std::size_t>> BlobReader::seek(std::int64_t row) {
  const int rc = blob_ != nullptr ? sqlite3_blob_reopen(blob_, row)
                                  : sqlite3_blob_open(connection_.handle(), "main", table_, column_, row, 0, &blob_);
  if (rc == SQLITE_OK) return std::optional(static_cast<std::size_t>(sqlite3_blob_bytes(blob_)));
  const Error failed = connection_.error(rc);
  sqlite3_blob_close(std::exchange(blob_, nullptr));            // it can no longer be moved
  if (rc == SQLITE_ERROR) return std::optional<std::size_t>();  // SQLite reports both in this way
  return failed;
}

Result<void> BlobReader::read(std::uint8_t* out) {
  const int rc = sqlite3_blob_read(blob_, out, sqlite3_blob_bytes(blob_), 0);
  if (rc != SQLITE_OK) return connection_.error(rc);
  return {};
}

void Connection::roll_back() {
  if (in_transaction()) sqlite3_exec(db_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
}

Error error_of(sqlite3* db, const std::string& path, int code) {
  const int system_errno = db == nullptr ? 0 : sqlite3_system_errno(db);
  std::string message = path + ": ";
  message += db != nullptr && sqlite3_extended_errcode(db) == code ? sqlite3_errmsg(db) : sqlite3_errstr(code);
  const bool names_errno = (code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_CANTOPEN;
  if (names_errno && system_errno != 0) message += std::string(" (") + std::strerror(system_errno) + ")";
  if ((code & 0xff) == SQLITE_CORRUPT) message += "; the file is damaged: docs/operations.md says what can be done";
  return make_error(errc_of(code, system_errno), std::move(message));
}

Error error_of_file(const std::string& path, int code, int system_errno) {
  std::string message = path + ": " + sqlite3_errstr(code);
  if (system_errno != 0) message += std::string(" (") + std::strerror(system_errno) + ")";
  return make_error(errc_of(code, system_errno), std::move(message));
}

// ------------------------------------------------------------------- files

Result<FileState> inspect_file(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno != ENOENT) return io_error(path, errno);
    info.st_size = -1;
  } else if (!S_ISREG(info.st_mode)) {
    return make_error(Errc::io, path + ": not a regular file");
  }
  // Smaller than the smallest page; SQLite would take a file of one byte for a new database.
  if (info.st_size > 0 && info.st_size < 512) return make_error(Errc::corrupt, path + ": file is not a database");
  if (info.st_size > 0) return FileState::present;
  struct stat wal {};
  if (::stat((path + "-wal").c_str(), &wal) == 0 && wal.st_size > 0) {
    return make_error(Errc::corrupt, path + ": the database file is empty or missing, but its WAL (" + path +
                                         "-wal) is not; restore the file from a backup, or move the WAL away");
  }
  return info.st_size < 0 ? FileState::missing : FileState::empty;
}

Result<void> create_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return io_error(path, errno);
  const int failed = ::fchmod(fd, 0600) != 0 || ::fsync(fd) != 0 ? errno : 0;
  ::close(fd);
  if (failed != 0) return io_error(path, failed);
  const auto parent = std::filesystem::path(path).parent_path();
  const int dir = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return io_error(parent.string(), errno);
  const int sync_failed = ::fsync(dir) != 0 ? errno : 0;
  ::close(dir);
  if (sync_failed != 0) return io_error(parent.string(), sync_failed);
  return {};
}

// ------------------------------------------------------------------ format

namespace {

using Objects = std::map<std::string, std::string>;  // name -> the statement that created it

Result<Objects> objects_of(Connection& connection) {
  auto statement =
      connection.prepare("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'");
  if (!statement) return statement.error();
  Objects out;
  int rc = 0;
  while ((rc = statement->step()) == SQLITE_ROW) {
    out.emplace(std::string(statement->text(0)), std::string(statement->text(1)));
  }
  if (rc != SQLITE_DONE) return connection.error(rc);
  return out;
}

/// The schema as SQLite keeps it, in the text of its statements: a scratch database shows it. To make one takes as long
/// as the rest of opening a file, so each schema is remembered.
Result<Objects> expected_objects(const Format& format) {
  static std::mutex mutex;
  static std::map<std::string, Objects> known;
  const std::lock_guard guard(mutex);
  if (const auto it = known.find(format.schema); it != known.end()) return it->second;
  auto scratch = Connection::open(":memory:", Connection::Mode::write);
  if (!scratch) return scratch.error();
  // Without a journal SQLite draws no random number, so the next ones do not depend on whether the schema was known.
  sqlite3_db_config(scratch->handle(), SQLITE_DBCONFIG_DEFENSIVE, 0, nullptr);
  if (auto ok = scratch->run("PRAGMA journal_mode=OFF"); !ok) return ok.error();
  if (auto ok = scratch->run(format.schema); !ok) return ok.error();
  auto objects = objects_of(*scratch);
  if (objects) known.emplace(format.schema, *objects);
  return objects;
}

}  // namespace

Result<void> open_format(Connection& connection, const Format& format, bool may_create) {
  const auto application_id = connection.number("PRAGMA application_id");
  if (!application_id) return application_id.error();
  const auto version = connection.number("PRAGMA user_version");
  if (!version) return version.error();
  const auto objects = objects_of(connection);
  if (!objects) return objects.error();

  if (*application_id == 0 && *version == 0 && objects->empty()) {
    // It is new, or a crash came before the first commit.
    if (!may_create) return make_error(Errc::not_found, connection.path() + ": the database is empty");
    const std::string sql = "BEGIN IMMEDIATE;" + std::string(format.schema) +
                            "PRAGMA application_id=" + std::to_string(format.application_id) +
                            ";PRAGMA user_version=" + std::to_string(format.version) + ";COMMIT";
    auto made = connection.run(sql.c_str());
    if (!made) connection.roll_back();
    return made;
  }
  if (*application_id != format.application_id) {
    return make_error(Errc::corrupt,
                      connection.path() + ": this is a SQLite database, but not a kitsune2 " + format.what);
  }
  if (*version > format.version) {
    return make_error(Errc::unsupported, connection.path() + ": " + format.what + " of format version " +
                                             std::to_string(*version) + ", this program knows up to " +
                                             std::to_string(format.version));
  }
  const auto expected = expected_objects(format);
  if (!expected) return expected.error();
  if (*version != format.version || *objects != *expected) {
    return make_error(Errc::corrupt, connection.path() + ": the tables are not those of a kitsune2 " + format.what);
  }
  return {};
}

}  // namespace kitsune2::sqlite
