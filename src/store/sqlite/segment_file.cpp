// Reads and writes the file of large ops by a VFS of SQLite's.
#include "store/sqlite/segment_file.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <limits>

#include "log/log.hpp"
#include "store/sqlite/gather_vfs.hpp"

namespace kitsune2::sqlite {
namespace {

/// SQLite's own VFS for Unix takes no more than this at once.
constexpr std::uint64_t kMostAtOnce = GatherVfs::kGatherBytes;
/// No op is larger, so what says so is damaged; and offsets are the system's.
constexpr std::uint64_t kMostLargeBytes = 1U << 30U;
constexpr std::uint64_t kLastOffset = std::uint64_t{1} << 62U;

}  // namespace

SegmentFile::SegmentFile(const std::string& database_path, const char* vfs)
    : path_(path_of(database_path)), vfs_(vfs) {}

Error SegmentFile::error(int code) const { return error_of_file(path_, code, vfs_ == nullptr ? errno : 0); }

Result<bool> SegmentFile::is_there() const {
  if (vfs_ == nullptr) {
    struct stat info {};
    errno = 0;
    if (::stat(path_.c_str(), &info) == 0) return true;
    if (errno != ENOENT) return error(SQLITE_IOERR);
    return false;
  }
  int there = 0;
  sqlite3_vfs* const vfs = sqlite3_vfs_find(vfs_);
  const int rc = vfs->xAccess(vfs, path_.c_str(), SQLITE_ACCESS_EXISTS, &there);
  if (rc != SQLITE_OK) return error(rc);
  return there != 0;
}

Result<void> SegmentFile::make() {
  close();
  sqlite3_vfs* const vfs = sqlite3_vfs_find(vfs_);
  if (vfs_ != nullptr) {
    const int rc = vfs->xDelete(vfs, path_.c_str(), 1);
    if (rc != SQLITE_OK && rc != SQLITE_IOERR_DELETE_NOENT) return error(rc);
    const auto opened = open(Mode::write);
    return opened ? Result<void>() : opened.error();
  }
  struct stat info {};
  if (::stat(path_.c_str(), &info) == 0) {
    const bool is_empty = info.st_size == 0;
    const std::string old = path_ + ".old";
    if ((is_empty ? ::unlink(path_.c_str()) : ::rename(path_.c_str(), old.c_str())) != 0) return error(SQLITE_IOERR);
    if (!is_empty) log::warn("store", path_ + ": it is of another database, and is renamed to " + old);
  }
  return create_file(path_);
}

/// Returns false if it is not there.
Result<bool> SegmentFile::open(Mode mode) {
  if (mode_ == mode || mode_ == Mode::write) return true;
  close();
  sqlite3_vfs* const vfs = sqlite3_vfs_find(vfs_);
  if (vfs == nullptr) return make_error(Errc::internal, path_ + ": there is no such file system");
  memory_ = std::make_unique<std::uint8_t[]>(static_cast<std::size_t>(vfs->szOsFile));
  auto* const file = reinterpret_cast<sqlite3_file*>(memory_.get());
  int flags = SQLITE_OPEN_WAL | (mode == Mode::write ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY);
  if (mode == Mode::write && vfs_ != nullptr) flags |= SQLITE_OPEN_CREATE;
  int got = flags;
  errno = 0;
  const int rc = vfs->xOpen(vfs, path_.c_str(), file, flags, &got);
  if (rc != SQLITE_OK) {
    const auto failed = error(rc);
    if (file->pMethods != nullptr) file->pMethods->xClose(file);
    const auto there = is_there();
    if (rc == SQLITE_CANTOPEN && there && !*there) return false;
    return failed;
  }
  file_ = file;
  mode_ = mode;
  if (mode == Mode::write && (got & SQLITE_OPEN_READONLY) != 0) {
    close();
    return make_error(Errc::io, path_ + ": it cannot be written");
  }
  return true;
}

void SegmentFile::close() {
  if (file_ != nullptr) file_->pMethods->xClose(file_);
  file_ = nullptr;
  mode_ = Mode::closed;
}

Result<std::uint64_t> SegmentFile::size() {
  const auto there = open(Mode::read);
  if (!there) return there.error();
  if (!*there) {
    if (may_be_missing_) return std::uint64_t{0};
    return make_error(Errc::io, path_ + ": it is not there, and has large ops; put it back");
  }
  sqlite3_int64 size = 0;
  errno = 0;
  if (const int rc = file_->pMethods->xFileSize(file_, &size); rc != SQLITE_OK) return error(rc);
  return static_cast<std::uint64_t>(size);
}

Result<bool> SegmentFile::has(std::uint64_t at, std::uint64_t bytes) {
  const auto there = size();
  if (!there) return there.error();
  return bytes <= kMostLargeBytes && at <= *there && bytes <= *there - at;
}

Result<bool> SegmentFile::read(std::uint64_t at, std::uint8_t* out, std::uint64_t bytes) {
  if (at > kLastOffset) return false;
  const auto there = open(Mode::read);
  if (!there) return there.error();
  if (!*there) return has(at, bytes);
  while (bytes > 0) {
    const auto piece = std::min(bytes, kMostAtOnce);
    errno = 0;
    const int rc = file_->pMethods->xRead(file_, out, static_cast<int>(piece), static_cast<sqlite3_int64>(at));
    if (rc == SQLITE_IOERR_SHORT_READ) return false;
    if (rc != SQLITE_OK) return error(rc);
    at += piece;
    out += piece;
    bytes -= piece;
  }
  return true;
}

Result<void> SegmentFile::write(std::uint64_t at, ByteView bytes) {
  const auto there = open(Mode::write);
  if (!there) return there.error();
  if (!*there) return make_error(Errc::io, path_ + ": it is not there any more");
  while (!bytes.empty()) {
    const auto piece = std::min<std::size_t>(bytes.size(), kMostAtOnce);
    errno = 0;
    const int rc =
        file_->pMethods->xWrite(file_, bytes.data(), static_cast<int>(piece), static_cast<sqlite3_int64>(at));
    if (rc != SQLITE_OK) return error(rc);
    at += piece;
    bytes = bytes.subspan(piece);
  }
  return {};
}

Result<void> SegmentFile::sync() {
  if (mode_ != Mode::write) return make_error(Errc::internal, path_ + ": nothing was written");
  errno = 0;
  if (const int rc = file_->pMethods->xSync(file_, SQLITE_SYNC_NORMAL); rc != SQLITE_OK) return error(rc);
  return {};
}

Result<void> SegmentFile::truncate(std::uint64_t size) {
  const auto there = open(Mode::write);
  if (!there) return there.error();
  if (!*there) return make_error(Errc::io, path_ + ": it is not there any more");
  errno = 0;
  const int rc = file_->pMethods->xTruncate(file_, static_cast<sqlite3_int64>(size));
  if (rc != SQLITE_OK) return error(rc);
  return {};
}

// ---------------------------------------------------------------- k2_large

namespace {

void large_function(sqlite3_context* context, int /*count*/, sqlite3_value** values) {
  auto& file = *static_cast<SegmentFile*>(sqlite3_user_data(context));
  const sqlite3_int64 at = sqlite3_value_int64(values[0]), bytes = sqlite3_value_int64(values[1]);
  if (at < 0 || bytes <= 0) return;
  const auto fail = [&](const Error& error) {
    sqlite3_result_error(context, error.message.c_str(), -1);
    sqlite3_result_error_code(context, SQLITE_IOERR_READ);
  };
  // Before there is memory for it: what the row says may be damaged.
  const auto there = file.has(static_cast<std::uint64_t>(at), static_cast<std::uint64_t>(bytes));
  if (!there) return fail(there.error());
  if (!*there) return;
  auto* const out = static_cast<std::uint8_t*>(sqlite3_malloc64(static_cast<sqlite3_uint64>(bytes)));
  if (out == nullptr) return sqlite3_result_error_nomem(context);
  const auto read = file.read(static_cast<std::uint64_t>(at), out, static_cast<std::uint64_t>(bytes));
  if (read && *read) return sqlite3_result_blob64(context, out, static_cast<sqlite3_uint64>(bytes), sqlite3_free);
  sqlite3_free(out);
  if (!read) fail(read.error());
}

}  // namespace

Result<void> add_large_function(Connection& connection, SegmentFile& file) {
  const int rc = sqlite3_create_function_v2(connection.handle(), "k2_large", 2, SQLITE_UTF8 | SQLITE_DIRECTONLY, &file,
                                            large_function, nullptr, nullptr, nullptr);
  if (rc != SQLITE_OK) return connection.error(rc);
  return {};
}

}  // namespace kitsune2::sqlite
