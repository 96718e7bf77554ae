// A file system for SQLite that combines small writes into a few large ones. The rules are in the header.
#include "store/sqlite/gather_vfs.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

#include "store/sqlite/shared_file.hpp"

namespace kitsune2::sqlite {
namespace {

constexpr std::size_t kGatherBytes = GatherVfs::kGatherBytes;

/// Memory for what is gathered, of all stores. *Rationale*: it is needed from a write to the next sync, and to ask the
/// system for it each time costs more than a small commit.
class Buffers {
 public:
  using Buffer = std::unique_ptr<std::uint8_t[]>;
  Buffer take() {
    {
      const std::lock_guard lock(mutex_);
      if (!kept_.empty()) {
        Buffer out = std::move(kept_.back());
        kept_.pop_back();
        return out;
      }
    }
    return Buffer(new (std::nothrow) std::uint8_t[kGatherBytes]);
  }
  void give_back(Buffer buffer) {
    const std::lock_guard lock(mutex_);
    if (kept_.size() < kMost) kept_.push_back(std::move(buffer));
  }
  static Buffers& all() {
    static auto* const buffers = new Buffers;  // never destroyed: stores may live longer than static objects
    return *buffers;
  }

 private:
  static constexpr std::size_t kMost = 4;
  std::mutex mutex_;
  std::vector<Buffer> kept_;
};

/// A WAL as one connection sees it. SQLite allocates the memory.
struct GatherFile {
  sqlite3_file base{};
  std::shared_ptr<SharedFiles> files;
  std::shared_ptr<SharedFile> shared;
  sqlite3_file* real = nullptr;  ///< of `shared`
  bool gathers = false;
  std::unique_ptr<std::uint8_t[]> held;
  sqlite3_int64 at = 0;  ///< where `held` belongs
  std::size_t size = 0;

  static GatherFile& of(sqlite3_file* file) { return *reinterpret_cast<GatherFile*>(file); }

  int flush() {
    if (size == 0) return SQLITE_OK;
    const int rc = real->pMethods->xWrite(real, held.get(), static_cast<int>(std::exchange(size, 0)), at);
    Buffers::all().give_back(std::move(held));
    return rc;
  }

  int write(const void* bytes, int count, sqlite3_int64 offset) {
    const auto n = static_cast<std::size_t>(count);
    const bool goes_on = size > 0 && offset == at + static_cast<sqlite3_int64>(size);
    if (!goes_on || size + n > kGatherBytes) {
      if (const int rc = flush(); rc != SQLITE_OK) return rc;
    }
    if (!gathers || n > kGatherBytes) return real->pMethods->xWrite(real, bytes, count, offset);
    if (!held) held = Buffers::all().take();
    if (!held) return real->pMethods->xWrite(real, bytes, count, offset);
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
  const auto files = std::move(f.files);
  auto shared = std::move(f.shared);
  f.~GatherFile();
  const int closed = files->close(std::move(shared));
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

/// Of the VFS above: what its calls need.
struct Above {
  const char* given = nullptr;  ///< the name of the parent; null: the default one
  sqlite3_vfs* parent = nullptr;
  SharedFiles files;
  std::weak_ptr<void> self;  ///< what this is a part of

  /// Whoever has a file open keeps all of it: SQLite may close a connection later than it was asked to.
  std::shared_ptr<SharedFiles> shared() { return {self.lock(), &files}; }
};
Above& above(sqlite3_vfs* vfs) { return *static_cast<Above*>(vfs->pAppData); }
sqlite3_vfs* parent_of(sqlite3_vfs* vfs) { return above(vfs).parent; }

/// G6.
int sync_what_is_there(sqlite3_file* wal) {
  sqlite3_int64 size = 0;
  const int rc = wal->pMethods->xFileSize(wal, &size);
  return rc != SQLITE_OK || size == 0 ? rc : wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL);
}

int open_wal(Above& vfs, const char* path, sqlite3_file* file, int flags, int* out_flags) {
  file->pMethods = nullptr;
  int rc = SQLITE_OK;
  // Of one that is open already, this was done; what its connection has written since is its own to sync.
  auto shared = vfs.files.open(vfs.parent, path, flags, rc, sync_what_is_there);
  if (!shared) return rc;
  if (out_flags != nullptr) *out_flags = shared->out_flags();
  auto* const f = new (file) GatherFile;
  f->files = vfs.shared();
  f->real = shared->real();
  f->gathers = (shared->characteristics() & SQLITE_IOCAP_POWERSAFE_OVERWRITE) != 0;
  f->shared = std::move(shared);
  f->base.pMethods = wal_methods();
  return SQLITE_OK;
}

int open_file(sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags, int* out_flags) {
  Above& it = above(vfs);
  constexpr int kKinds = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL;
  // A name with parameters may mean another file system, or other locks.
  const bool is_shared = path != nullptr && (flags & kKinds) != 0 && (flags & SQLITE_OPEN_URI) == 0;
  if (!is_shared) return it.parent->xOpen(it.parent, path, file, flags, out_flags);
  if ((flags & SQLITE_OPEN_WAL) != 0) return open_wal(it, path, file, flags, out_flags);
  return open_view(it.shared(), it.parent, path, file, flags, out_flags);
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

void fill(sqlite3_vfs& v, const char* name, Above& it) {
  using Vfs = sqlite3_vfs;
  sqlite3_vfs* const parent = it.parent;
  v.iVersion = std::min(parent->iVersion, 2);
  v.szOsFile = std::max({static_cast<int>(sizeof(GatherFile)), kViewBytes, parent->szOsFile});
  v.mxPathname = parent->mxPathname;
  v.zName = name;
  v.pAppData = &it;
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

class GatherVfs::Files {
 public:
  Above above;
  std::string name = new_name();
  sqlite3_vfs vfs{};
};

GatherVfs::GatherVfs(const char* parent) : files_(std::make_shared<Files>()) {
  files_->above.self = files_;
  files_->above.given = parent;
  files_->above.parent = sqlite3_vfs_find(parent);
  if (files_->above.parent == nullptr) return;
  files_->above.files.set_sharing(SharedFiles::can_share(*files_->above.parent));
  fill(files_->vfs, name(), files_->above);
  sqlite3_vfs_register(&files_->vfs, 0);
}

const char* GatherVfs::below(const char* vfs) {
  sqlite3_vfs* const found = vfs == nullptr ? nullptr : sqlite3_vfs_find(vfs);
  return found != nullptr && found->xOpen == open_file ? above(found).given : vfs;
}

const char* GatherVfs::name() const { return files_->name.c_str(); }

GatherVfs::~GatherVfs() { sqlite3_vfs_unregister(&files_->vfs); }

}  // namespace kitsune2::sqlite
