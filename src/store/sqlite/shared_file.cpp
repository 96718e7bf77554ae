// Passes the calls of several connections to one open file, with the locks of each. The rules are in the header.
#include "store/sqlite/shared_file.hpp"

#include <algorithm>
#include <new>
#include <string_view>
#include <utility>

namespace kitsune2::sqlite {

// -------------------------------------------------------------- SharedFile

std::shared_ptr<SharedFile> SharedFile::open(sqlite3_vfs* parent, const char* path, int flags, int& error) {
  std::shared_ptr<SharedFile> out(new SharedFile);
  // SQLite's VFS looks for parameters behind a name, and before it.
  const std::string_view given(path);
  const bool is_wal = (flags & SQLITE_OPEN_WAL) != 0 && given.ends_with("-wal");
  const std::string database(given.substr(0, is_wal ? given.size() - 4 : given.size()));
  out->name_.reset(sqlite3_create_filename(database.c_str(), (database + "-journal").c_str(),
                                           (database + "-wal").c_str(), 0, nullptr));
  const auto bytes = static_cast<std::size_t>(parent->szOsFile);
  out->memory_.reset(new (std::nothrow) std::max_align_t[bytes / sizeof(std::max_align_t) + 1]());
  error = SQLITE_NOMEM;
  if (!out->name_ || !out->memory_) return nullptr;
  auto* const file = reinterpret_cast<sqlite3_file*>(out->memory_.get());
  const char* const name = is_wal ? sqlite3_filename_wal(out->name_.get()) : out->name_.get();
  error = parent->xOpen(parent, name, file, flags, &out->out_flags_);
  if (error != SQLITE_OK) {
    if (file->pMethods != nullptr) file->pMethods->xClose(file);
    return nullptr;
  }
  out->real_ = file;
  out->sector_size_ = file->pMethods->xSectorSize(file);
  out->characteristics_ = file->pMethods->xDeviceCharacteristics(file);
  return out;
}

SharedFile::~SharedFile() { close(); }

int SharedFile::close() {
  sqlite3_file* const file = std::exchange(real_, nullptr);
  return file != nullptr ? file->pMethods->xClose(file) : SQLITE_OK;
}

ViewLocks::View SharedFile::add_view() {
  const std::lock_guard lock(mutex_);
  const auto view = locks_.add();
  maps_index_[view] = false;
  return view;
}

void SharedFile::remove_view(ViewLocks::View view) {
  const std::lock_guard lock(mutex_);
  unmap_under_mutex(view, 0);
  unlock_under_mutex(view, SQLITE_LOCK_NONE);
  maps_index_.erase(view);
  locks_.remove(view);
}

int SharedFile::lock(ViewLocks::View view, int level) {
  const std::lock_guard lock(mutex_);
  const auto wanted = static_cast<ViewLocks::Level>(level);
  switch (locks_.lock(view, wanted)) {
    case ViewLocks::Answer::yes:
      return SQLITE_OK;
    case ViewLocks::Answer::busy:
      return SQLITE_BUSY;
    case ViewLocks::Answer::below:
      break;
  }
  const int rc = below().xLock(real_, level);
  rc == SQLITE_OK ? locks_.given(view, wanted) : locks_.refused(view, wanted);
  return rc;
}

int SharedFile::unlock_under_mutex(ViewLocks::View view, int level) {
  const auto left = locks_.unlock(view, static_cast<ViewLocks::Level>(level));
  return left ? below().xUnlock(real_, *left) : SQLITE_OK;
}

int SharedFile::unlock(ViewLocks::View view, int level) {
  const std::lock_guard lock(mutex_);
  return unlock_under_mutex(view, level);
}

int SharedFile::check_reserved(int* out) {
  const std::lock_guard lock(mutex_);
  if (!locks_.is_reserved()) return below().xCheckReservedLock(real_, out);
  *out = 1;
  return SQLITE_OK;
}

int SharedFile::control(ViewLocks::View view, int what, void* argument) {
  // A mapped file would have to be mapped for each view.
  if (what == SQLITE_FCNTL_MMAP_SIZE) return SQLITE_NOTFOUND;
  const std::lock_guard lock(mutex_);
  if (what != SQLITE_FCNTL_LOCKSTATE) return below().xFileControl(real_, what, argument);
  *static_cast<int*>(argument) = locks_.level(view);
  return SQLITE_OK;
}

int SharedFile::map_index(ViewLocks::View view, int region, int bytes, int extend, void volatile** out) {
  const std::lock_guard lock(mutex_);
  maps_index_[view] = true;
  return below().xShmMap(real_, region, bytes, extend, out);
}

int SharedFile::lock_index(ViewLocks::View view, int first, int n, int flags) {
  const std::lock_guard lock(mutex_);
  const auto from = static_cast<std::size_t>(first), count = static_cast<std::size_t>(n);
  const bool is_shared = (flags & SQLITE_SHM_SHARED) != 0;
  if ((flags & SQLITE_SHM_UNLOCK) != 0) {
    const bool asks = is_shared ? locks_.unlock_shared(view, from) : locks_.unlock_exclusive(view, from, count);
    return asks ? below().xShmLock(real_, first, n, flags) : SQLITE_OK;
  }
  const auto answer = is_shared ? locks_.lock_shared(view, from) : locks_.lock_exclusive(view, from, count);
  if (answer != ViewLocks::Answer::below) return answer == ViewLocks::Answer::yes ? SQLITE_OK : SQLITE_BUSY;
  const int rc = below().xShmLock(real_, first, n, flags);
  if (rc != SQLITE_OK) return rc;
  is_shared ? locks_.give_shared(view, from) : locks_.give_exclusive(view, from, count);
  return SQLITE_OK;
}

void SharedFile::order_index() {
  const std::lock_guard lock(mutex_);
  below().xShmBarrier(real_);
}

int SharedFile::unmap_under_mutex(ViewLocks::View view, int remove) {
  for (int slot = 0; slot < static_cast<int>(ViewLocks::kSlots); ++slot) {
    const auto at = static_cast<std::size_t>(slot);
    if (locks_.unlock_shared(view, at)) below().xShmLock(real_, slot, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED);
    if (locks_.unlock_exclusive(view, at, 1)) {
      below().xShmLock(real_, slot, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
    }
  }
  if (!std::exchange(maps_index_[view], false)) return SQLITE_OK;
  if (std::any_of(maps_index_.begin(), maps_index_.end(), [](const auto& v) { return v.second; })) return SQLITE_OK;
  return below().xShmUnmap(real_, remove);
}

int SharedFile::unmap_index(ViewLocks::View view, int remove) {
  const std::lock_guard lock(mutex_);
  return unmap_under_mutex(view, remove);
}

// ------------------------------------------------------------- SharedFiles

bool SharedFiles::can_share(sqlite3_vfs& parent) {
  // One that has no system calls to be asked for is the simulator's, whose files have no position.
  if (parent.iVersion < 3 || parent.xGetSystemCall == nullptr) return true;
  const auto has = [&](const char* call) { return parent.xGetSystemCall(&parent, call) != nullptr; };
  return (has("pread") || has("pread64")) && (has("pwrite") || has("pwrite64"));
}

std::shared_ptr<SharedFile> SharedFiles::open(sqlite3_vfs* parent, const char* path, int flags, int& error,
                                              int (*prepare)(sqlite3_file* real)) {
  const std::lock_guard lock(mutex_);
  const std::pair<std::string, int> key(path, flags);
  if (const auto it = files_.find(key); shares_ && it != files_.end()) {
    error = SQLITE_OK;
    if (auto file = it->second.lock()) return file;
  }
  auto file = SharedFile::open(parent, path, flags, error);
  if (file && prepare != nullptr) error = prepare(file->real());
  if (!file || error != SQLITE_OK) return nullptr;
  if (shares_) files_[key] = file;
  return file;
}

int SharedFiles::close(std::shared_ptr<SharedFile> file) {
  const std::lock_guard lock(mutex_);
  if (file.use_count() > 1) {
    file.reset();  // under the mutex, so that the last one knows that it is the last
    return SQLITE_OK;
  }
  std::erase_if(files_, [&](const auto& known) { return known.second.lock() == file; });
  return file->close();
}

// ------------------------------------------------------------------- views

namespace {

struct DatabaseView {
  sqlite3_file base{};
  std::shared_ptr<SharedFiles> files;
  std::shared_ptr<SharedFile> shared;
  ViewLocks::View view = 0;

  static DatabaseView& of(sqlite3_file* file) { return *reinterpret_cast<DatabaseView*>(file); }
};

/// To the file below.
template <auto Method, class... Args>
int view_pass(sqlite3_file* file, Args... args) {
  SharedFile& shared = *DatabaseView::of(file).shared;
  return (shared.below().*Method)(shared.real(), args...);
}

template <auto Method, class... Args>
auto view_call(sqlite3_file* file, Args... args) {
  const DatabaseView& v = DatabaseView::of(file);
  return (*v.shared.*Method)(v.view, args...);
}

int close_view(sqlite3_file* file) {
  DatabaseView& v = DatabaseView::of(file);
  v.shared->remove_view(v.view);
  const auto files = std::move(v.files);
  auto shared = std::move(v.shared);
  v.~DatabaseView();
  return files->close(std::move(shared));
}

/// `version` 1: without a wal-index. Pages are never mapped: that is version 3.
sqlite3_io_methods view_methods(int version) {
  using Methods = sqlite3_io_methods;
  Methods m{};
  m.iVersion = version;
  m.xClose = close_view;
  m.xRead = view_pass<&Methods::xRead, void*, int, sqlite3_int64>;
  m.xWrite = view_pass<&Methods::xWrite, const void*, int, sqlite3_int64>;
  m.xTruncate = view_pass<&Methods::xTruncate, sqlite3_int64>;
  m.xSync = view_pass<&Methods::xSync, int>;
  m.xFileSize = view_pass<&Methods::xFileSize, sqlite3_int64*>;
  m.xLock = view_call<&SharedFile::lock, int>;
  m.xUnlock = view_call<&SharedFile::unlock, int>;
  m.xCheckReservedLock = [](sqlite3_file* file, int* out) {
    return DatabaseView::of(file).shared->check_reserved(out);
  };
  m.xFileControl = view_call<&SharedFile::control, int, void*>;
  m.xSectorSize = [](sqlite3_file* file) { return DatabaseView::of(file).shared->sector_size(); };
  m.xDeviceCharacteristics = [](sqlite3_file* file) { return DatabaseView::of(file).shared->characteristics(); };
  if (version < 2) return m;
  m.xShmMap = view_call<&SharedFile::map_index, int, int, int, void volatile**>;
  m.xShmLock = view_call<&SharedFile::lock_index, int, int, int>;
  m.xShmBarrier = [](sqlite3_file* file) { DatabaseView::of(file).shared->order_index(); };
  m.xShmUnmap = view_call<&SharedFile::unmap_index, int>;
  return m;
}

}  // namespace

const int kViewBytes = sizeof(DatabaseView);

int open_view(std::shared_ptr<SharedFiles> files, sqlite3_vfs* parent, const char* path, sqlite3_file* file, int flags,
              int* out_flags) {
  static const sqlite3_io_methods kWithoutIndex = view_methods(1), kWithIndex = view_methods(2);
  file->pMethods = nullptr;
  int error = SQLITE_OK;
  auto shared = files->open(parent, path, flags, error);
  if (!shared) return error;
  if (out_flags != nullptr) *out_flags = shared->out_flags();
  auto* const view = new (file) DatabaseView;
  view->files = std::move(files);
  view->view = shared->add_view();
  view->base.pMethods = shared->below().iVersion < 2 ? &kWithoutIndex : &kWithIndex;
  view->shared = std::move(shared);
  return SQLITE_OK;
}

}  // namespace kitsune2::sqlite
