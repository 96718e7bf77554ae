// A file system for SQLite that combines small writes into a few large ones. The rules are in the header.
#include "store/sqlite/gather_vfs.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

namespace kitsune2::sqlite {
namespace {

constexpr std::size_t kGatherBytes = GatherVfs::kGatherBytes;

/// A WAL. SQLite allocates the memory: this object, and the parent's file behind it.
struct GatherFile {
  sqlite3_file base{};
  sqlite3_file* real = nullptr;
  std::unique_ptr<std::uint8_t[]> held;
  sqlite3_int64 at = 0;  ///< where `held` belongs
  std::size_t size = 0;

  static GatherFile& of(sqlite3_file* file) { return *reinterpret_cast<GatherFile*>(file); }

  int flush() {
    if (size == 0) return SQLITE_OK;
    return real->pMethods->xWrite(real, held.get(), static_cast<int>(std::exchange(size, 0)), at);
  }

  int write(const void* bytes, int count, sqlite3_int64 offset) {
    const auto n = static_cast<std::size_t>(count);
    const bool goes_on = size > 0 && offset == at + static_cast<sqlite3_int64>(size);
    if (!goes_on || size + n > kGatherBytes) {
      if (const int rc = flush(); rc != SQLITE_OK) return rc;
    }
    if (!held) held.reset(new (std::nothrow) std::uint8_t[kGatherBytes]);
    if (!held || n > kGatherBytes) return real->pMethods->xWrite(real, bytes, count, offset);
    if (size == 0) at = offset;
    std::memcpy(held.get() + size, bytes, n);
    size += n;
    return SQLITE_OK;
  }
};

/// Flushes, then calls the parent's method.
template <auto Method, class... Args>
int after_flush(sqlite3_file* file, Args... args) {
  GatherFile& f = GatherFile::of(file);
  if (const int rc = f.flush(); rc != SQLITE_OK) return rc;
  return (f.real->pMethods->*Method)(f.real, args...);
}

template <auto Method, class... Args>
auto pass(sqlite3_file* file, Args... args) {
  GatherFile& f = GatherFile::of(file);
  return (f.real->pMethods->*Method)(f.real, args...);
}

int close_file(sqlite3_file* file) {
  GatherFile& f = GatherFile::of(file);
  const int flushed = f.flush();
  const int closed = f.real->pMethods->xClose(f.real);
  f.~GatherFile();
  return flushed != SQLITE_OK ? flushed : closed;
}

/// Shared memory and mapped pages are used for databases and never for WALs, so version 1 has all that a WAL needs.
const sqlite3_io_methods* wal_methods() {
  using Methods = sqlite3_io_methods;
  static const Methods all = [] {
    Methods m{};
    m.iVersion = 1;
    m.xClose = close_file;
    m.xRead = after_flush<&Methods::xRead, void*, int, sqlite3_int64>;
    m.xWrite = [](sqlite3_file* file, const void* bytes, int count, sqlite3_int64 offset) {
      return GatherFile::of(file).write(bytes, count, offset);
    };
    m.xTruncate = after_flush<&Methods::xTruncate, sqlite3_int64>;
    m.xSync = after_flush<&Methods::xSync, int>;
    m.xFileSize = after_flush<&Methods::xFileSize, sqlite3_int64*>;
    m.xLock = after_flush<&Methods::xLock, int>;
    m.xUnlock = after_flush<&Methods::xUnlock, int>;
    m.xCheckReservedLock = pass<&Methods::xCheckReservedLock, int*>;
    m.xFileControl = after_flush<&Methods::xFileControl, int, void*>;
    m.xSectorSize = pass<&Methods::xSectorSize>;
    m.xDeviceCharacteristics = pass<&Methods::xDeviceCharacteristics>;
    return m;
  }();
  return &all;
}

constexpr int kFileBytes = (sizeof(GatherFile) + 15) / 16 * 16;

sqlite3_vfs* parent_of(sqlite3_vfs* vfs) { return static_cast<sqlite3_vfs*>(vfs->pAppData); }

/// G6.
int sync_what_is_there(sqlite3_file* wal) {
  sqlite3_int64 size = 0;
  const int rc = wal->pMethods->xFileSize(wal, &size);
  return rc != SQLITE_OK || size == 0 ? rc : wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL);
}

int open_file(sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags, int* out_flags) {
  sqlite3_vfs* parent = parent_of(vfs);
  if ((flags & SQLITE_OPEN_WAL) == 0) return parent->xOpen(parent, path, file, flags, out_flags);
  file->pMethods = nullptr;
  auto* const real = reinterpret_cast<sqlite3_file*>(reinterpret_cast<std::uint8_t*>(file) + kFileBytes);
  real->pMethods = nullptr;
  const int rc = parent->xOpen(parent, path, real, flags, out_flags);
  if (rc != SQLITE_OK) {
    if (real->pMethods != nullptr) real->pMethods->xClose(real);
    return rc;
  }
  if (const int synced = sync_what_is_there(real); synced != SQLITE_OK) {
    real->pMethods->xClose(real);
    return synced;
  }
  if ((real->pMethods->xDeviceCharacteristics(real) & SQLITE_IOCAP_POWERSAFE_OVERWRITE) == 0) {
    real->pMethods->xClose(real);
    return parent->xOpen(parent, path, file, flags, out_flags);
  }
  auto* const f = new (file) GatherFile;
  f->real = real;
  f->base.pMethods = wal_methods();
  return rc;
}

template <auto Method, class... Args>
auto vfs_pass(sqlite3_vfs* vfs, Args... args) {
  sqlite3_vfs* parent = parent_of(vfs);
  return (parent->*Method)(parent, args...);
}

/// G5.
int remove_file(sqlite3_vfs* vfs, const char* path, int sync_folder) {
  sqlite3_vfs* parent = parent_of(vfs);
  return parent->xDelete(parent, path, std::string_view(path).ends_with("-journal") ? 1 : sync_folder);
}

std::string new_name() {
  static std::atomic<std::uint64_t> last{0};
  return "k2gather-" + std::to_string(++last);
}

void fill(sqlite3_vfs& v, const char* name, sqlite3_vfs* parent) {
  using Vfs = sqlite3_vfs;
  v.iVersion = std::min(parent->iVersion, 2);
  v.szOsFile = kFileBytes + parent->szOsFile;
  v.mxPathname = parent->mxPathname;
  v.zName = name;
  v.pAppData = parent;
  v.xOpen = open_file;
  v.xDelete = remove_file;
  v.xAccess = vfs_pass<&Vfs::xAccess, const char*, int, int*>;
  v.xFullPathname = vfs_pass<&Vfs::xFullPathname, const char*, int, char*>;
  v.xDlOpen = vfs_pass<&Vfs::xDlOpen, const char*>;
  v.xDlError = vfs_pass<&Vfs::xDlError, int, char*>;
  v.xDlSym = [](sqlite3_vfs* vfs, void* library, const char* symbol) {
    return parent_of(vfs)->xDlSym(parent_of(vfs), library, symbol);
  };
  v.xDlClose = vfs_pass<&Vfs::xDlClose, void*>;
  v.xRandomness = vfs_pass<&Vfs::xRandomness, int, char*>;
  v.xSleep = vfs_pass<&Vfs::xSleep, int>;
  v.xCurrentTime = vfs_pass<&Vfs::xCurrentTime, double*>;
  v.xGetLastError = vfs_pass<&Vfs::xGetLastError, int, char*>;
  if (v.iVersion >= 2 && parent->xCurrentTimeInt64 != nullptr) {
    v.xCurrentTimeInt64 = vfs_pass<&Vfs::xCurrentTimeInt64, sqlite3_int64*>;
  }
}

}  // namespace

GatherVfs::GatherVfs(const char* parent) : name_(new_name()), vfs_(std::make_unique<sqlite3_vfs>()) {
  sqlite3_vfs* const below = sqlite3_vfs_find(parent);
  if (below == nullptr) return;
  fill(*vfs_, name_.c_str(), below);
  sqlite3_vfs_register(vfs_.get(), 0);
}

GatherVfs::~GatherVfs() { sqlite3_vfs_unregister(vfs_.get()); }

}  // namespace kitsune2::sqlite
