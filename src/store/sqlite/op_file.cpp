// Operations on an op store's file as a whole, while no store has it open: moving it, looking into it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "kitsune2/sqlite_store.hpp"
#include "store/sqlite/file_lock.hpp"
#include "store/sqlite/op_schema.hpp"
#include "store/sqlite/segment_file.hpp"

namespace kitsune2 {
namespace {

using sqlite::Connection;
using sqlite::FileLock;

Error file_error(const std::string& path) {
  const bool full = errno == ENOSPC || errno == EDQUOT;
  return make_error(full ? Errc::disk_full : Errc::io, path + ": " + std::strerror(errno));
}

/// Sets the space in the file to `space`, and copies all of the WAL into the database file.
Result<void> rebind(const std::string& path, const SpaceId& space) {
  auto connection = Connection::open(path, Connection::Mode::write);
  if (!connection) return connection.error();
  if (auto version = sqlite::open_op_format(*connection, nullptr); !version) return version.error();
  if (auto ok = connection->run("PRAGMA synchronous=FULL"); !ok) return ok;
  {
    auto update = connection->prepare("UPDATE meta SET value=?1 WHERE key='space'");
    if (!update) return update.error();
    const int rc = update->bind(1, space.view()).step();
    if (rc != SQLITE_DONE) return connection->error(rc);
  }
  auto busy = connection->number("PRAGMA wal_checkpoint(TRUNCATE)");
  if (!busy) return busy.error();
  if (*busy != 0) return make_error(Errc::io, path + ": another program has it open");
  return {};
}

Result<void> sync_folder_of(const std::string& path) {
  const auto parent = std::filesystem::path(path).parent_path().string();
  const int dir = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return file_error(parent);
  const bool synced = ::fsync(dir) == 0;
  const auto fault = file_error(parent);
  ::close(dir);
  if (!synced) return fault;
  return {};
}

/// Errc::already_exists: there is a file `to`.
Result<void> rename_new(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return {};
  if (errno == EEXIST) return make_error(Errc::already_exists, to + ": there is a store already");
  if (errno != EINVAL && errno != ENOSYS) return file_error(to);
  // The file system cannot do it in one step. Both names belong to this process alone, by their locks.
  if (::access(to.c_str(), F_OK) == 0) return make_error(Errc::already_exists, to + ": there is a store already");
  if (::rename(from.c_str(), to.c_str()) != 0) return file_error(to);
  return {};
}

}  // namespace

Result<void> move_sqlite_op_store(const std::string& from, const std::string& to, const SpaceId& space) {
  auto own = FileLock::take(from);
  if (!own) return own.error();
  auto other = FileLock::take(to);
  if (!other) return other.error();
  if (auto ok = rebind(from, space); !ok) return ok;
  struct stat wal {};
  if (::stat((from + "-wal").c_str(), &wal) == 0 && wal.st_size > 0) {
    return make_error(Errc::io, from + ": another program has it open");
  }
  // The large ops first: a database never gets its last name without them. What has their new name without a database
  // is of a move that a crash has cut off.
  if (::access(to.c_str(), F_OK) == 0) return make_error(Errc::already_exists, to + ": there is a store already");
  const std::string large_from = sqlite::SegmentFile::path_of(from), large_to = sqlite::SegmentFile::path_of(to);
  const bool has_large = ::access(large_from.c_str(), F_OK) == 0;
  if (has_large) {
    if (::rename(large_from.c_str(), large_to.c_str()) != 0) return file_error(large_to);
    if (auto ok = sync_folder_of(to); !ok) return ok;
  }
  if (auto ok = rename_new(from, to); !ok) {
    if (has_large) static_cast<void>(::rename(large_to.c_str(), large_from.c_str()));
    return ok;
  }
  ::unlink((from + "-wal").c_str());
  ::unlink((from + "-shm").c_str());
  return sync_folder_of(to);
}

Result<std::vector<SqliteStoredOp>> read_sqlite_ops_of_size(const std::string& path, std::uint64_t size,
                                                            std::size_t limit) {
  const auto state = sqlite::inspect_file(path);
  if (!state) return state.error();
  if (*state != sqlite::FileState::present) return make_error(Errc::not_found, path + ": there is no op store");
  auto connection = Connection::open(path, Connection::Mode::read_only);
  if (!connection) return connection.error();
  const auto version = sqlite::open_op_format(*connection, nullptr);
  if (!version) return version.error();
  sqlite::SegmentFile large(path, nullptr);
  if (auto ok = sqlite::add_large_function(*connection, large); !ok) return ok.error();
  const std::string data = sqlite::data_column(*version);
  auto find =
      connection->prepare("SELECT stored_at, id, " + data + " AS bytes FROM op WHERE size=?1 AND bytes NOT NULL" +
                          " ORDER BY stored_at DESC LIMIT ?2");
  if (!find) return find.error();
  find->bind(1, static_cast<std::int64_t>(size)).bind(2, static_cast<std::int64_t>(limit));
  std::vector<SqliteStoredOp> out;
  int rc = 0;
  while ((rc = find->step()) == SQLITE_ROW) {
    out.push_back(SqliteStoredOp{OpId(find->blob(1)), Bytes::copy_of(find->blob(2)), Timestamp{find->int64(0)}});
  }
  if (rc != SQLITE_DONE) return connection->error(rc);
  return out;
}

}  // namespace kitsune2
