// A disk in memory as a SQLite VFS: what is written, synced, lost and damaged.
#include "sim/sim_disk.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

namespace kitsune2::sim {
namespace {

constexpr std::int64_t kSector = 512;
constexpr int kShmLocks = 8;

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27U)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31U);
}

}  // namespace

struct SimDisk::File {
  sqlite3_file base;
  SimDisk* disk;
  std::shared_ptr<Inode>* inode;  ///< owned; SQLite gives raw memory
  std::string* temporary;         ///< owned; the name to remove at the end

  static File& of(sqlite3_file* file) { return *reinterpret_cast<File*>(file); }
};

SimDisk::SimDisk(std::uint64_t seed) : random_state_(seed) {
  static std::atomic<std::uint64_t> last_name{0};
  name_ = "k2sim-" + std::to_string(++last_name);
  vfs_.iVersion = 2;
  vfs_.szOsFile = sizeof(File);
  vfs_.mxPathname = 256;
  vfs_.zName = name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = [](sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags, int* out_flags) {
    File& f = File::of(file);
    f.base.pMethods = nullptr;
    const int rc = of(vfs).open(path, f, flags);
    if (rc == SQLITE_OK && out_flags != nullptr) *out_flags = flags;
    return rc;
  };
  vfs_.xDelete = [](sqlite3_vfs* vfs, const char* path, int sync) { return of(vfs).remove(path, sync != 0); };
  vfs_.xAccess = [](sqlite3_vfs* vfs, const char* path, int flags, int* out) {
    const auto it = of(vfs).files_.find(path);
    *out = it != of(vfs).files_.end() && (flags != SQLITE_ACCESS_EXISTS || !it->second->content.empty()) ? 1 : 0;
    return SQLITE_OK;
  };
  vfs_.xFullPathname = [](sqlite3_vfs*, const char* path, int size, char* out) {
    sqlite3_snprintf(size, out, "%s", path);
    return SQLITE_OK;
  };
  vfs_.xRandomness = [](sqlite3_vfs* vfs, int size, char* out) {
    for (int i = 0; i < size; ++i) out[i] = static_cast<char>(of(vfs).random(256));
    return size;
  };
  vfs_.xSleep = [](sqlite3_vfs*, int micros) { return micros; };  // nobody else can use the disk meanwhile
  vfs_.xCurrentTime = [](sqlite3_vfs*, double* out) {
    *out = 2'461'041.5;
    return SQLITE_OK;
  };
  vfs_.xGetLastError = [](sqlite3_vfs*, int, char*) { return 0; };
  vfs_.xCurrentTimeInt64 = [](sqlite3_vfs*, sqlite3_int64* out) {
    *out = 2'461'041LL * 86'400'000LL;
    return SQLITE_OK;
  };
  K2_ASSERT(sqlite3_vfs_register(&vfs_, 0) == SQLITE_OK);
  // SQLite's own random numbers (the WAL's salt) belong to the process: restart them.
  sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, static_cast<int>(mix(seed) | 1U), nullptr);
}

SimDisk::~SimDisk() {
  K2_ASSERT(handles_ == 0);
  sqlite3_vfs_unregister(&vfs_);
}

std::uint64_t SimDisk::random(std::uint64_t below) {
  return below == 0 ? 0 : mix(random_state_ += 0x9E3779B97F4A7C15ULL) % below;
}

Duration SimDisk::draw_latency() {
  const auto most = static_cast<std::uint64_t>(faults.latency.count());
  return Duration(static_cast<std::int64_t>(most / 2 + random(most + 1)));
}

void SimDisk::make_file(const std::string& path) {
  auto& inode = files_[path];
  if (inode) return;
  inode = std::make_shared<Inode>();
  inode->name_durable = true;
}

void SimDisk::replace_file(const std::string& path) {
  for (const char* end : {"", "-wal", "-shm", "-data"}) {
    files_.erase(path + end);
    removed_.erase(path + end);
  }
  make_file(path);
}

std::uint64_t SimDisk::content_hash() const {
  std::uint64_t out = 0;
  for (const auto& [path, inode] : files_) {
    out = mix(out + inode->content.size());
    std::uint64_t sum = 0, word = 0;
    for (std::size_t at = 0; at + sizeof word <= inode->content.size(); at += sizeof word) {
      std::memcpy(&word, inode->content.data() + at, sizeof word);
      sum = (sum ^ word) * 1'099'511'628'211ULL;
    }
    out = mix(out ^ sum);
  }
  return out;
}

// ------------------------------------------------------------------- power

bool SimDisk::operation() {
  if (!power_) return false;
  if (!power_left_) return true;
  if (*power_left_ > 0) {
    --*power_left_;
    return true;
  }
  cut_power();
  return false;
}

void SimDisk::apply(std::vector<std::uint8_t>& to, const Write& write) {
  const auto offset = static_cast<std::size_t>(write.offset);
  if (write.truncate) {
    if (offset < to.size()) to.resize(offset);
    return;
  }
  if (offset == to.size()) {
    to.insert(to.end(), write.bytes.begin(), write.bytes.end());
    return;
  }
  if (to.size() < offset + write.bytes.size()) to.resize(offset + write.bytes.size());
  std::copy(write.bytes.begin(), write.bytes.end(), to.begin() + static_cast<std::ptrdiff_t>(offset));
}

void SimDisk::keep_some(std::vector<std::uint8_t>& to, const Write& write) {
  const auto fate = random(4);
  if (fate == 0) return apply(to, write);
  if (write.truncate || fate == 1) {
    counters_.sectors_lost += 1 + write.bytes.size() / kSector;
    return;
  }
  ++counters_.writes_torn;
  const auto size = static_cast<std::int64_t>(write.bytes.size());
  bool lost = false;
  for (std::int64_t at = 0; at < size;) {
    const std::int64_t end = std::min(size, at + kSector - (write.offset + at) % kSector);
    lost = fate == 2 ? lost || random(8) == 0 : random(2) == 0;  // a prefix, or any of them
    if (lost) {
      ++counters_.sectors_lost;
    } else {
      apply(to, {write.offset + at, {write.bytes.begin() + at, write.bytes.begin() + end}, false});
    }
    at = end;
  }
}

void SimDisk::cut_power() {
  if (!power_) return;
  power_ = false;
  power_left_.reset();
  ++counters_.power_cuts;
}

void SimDisk::kill() {
  if (!power_) return;
  if (lost_) return cut_power();
  power_ = false;
  killed_ = true;
  power_left_.reset();
}

void SimDisk::power_on() {
  K2_ASSERT(handles_ == 0);
  lost_ = false;
  if (!power_ && !std::exchange(killed_, false)) {
    for (auto& [path, inode] : removed_) {
      if (random(2) == 0) files_.emplace(path, std::move(inode));
    }
    std::erase_if(files_, [this](const auto& entry) { return !entry.second->name_durable && random(2) == 0; });
    for (auto& [path, inode] : files_) {
      for (const auto& write : std::exchange(inode->unsynced, {})) keep_some(inode->durable, write);
      inode->content = inode->durable;
      inode->name_durable = true;
    }
    removed_.clear();
  }
  for (auto& [path, inode] : files_) {
    inode->shm.clear();
    inode->locks.clear();
    inode->shm_locks.clear();
  }
  power_ = true;
}

bool SimDisk::fails(std::uint32_t one_in) {
  if (one_in == 0 || random(one_in) != 0) return false;
  ++counters_.errors;
  return true;
}

// ------------------------------------------------------------------- files

int SimDisk::open(const char* path, File& file, int flags) {
  if (!power_) return SQLITE_IOERR;
  const std::string name = path != nullptr ? path : "temporary-" + std::to_string(random(UINT64_MAX));
  auto it = files_.find(name);
  if (it == files_.end()) {
    if ((flags & SQLITE_OPEN_CREATE) == 0) return SQLITE_CANTOPEN;
    if (!operation()) return SQLITE_IOERR;
    it = files_.emplace(name, std::make_shared<Inode>()).first;
  }
  file.disk = this;
  file.inode = new std::shared_ptr<Inode>(it->second);
  file.temporary = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0 ? new std::string(name) : nullptr;
  file.base.pMethods = methods();
  ++handles_;
  return SQLITE_OK;
}

int SimDisk::remove(const char* path, bool sync_folder) {
  if (!operation()) return SQLITE_IOERR_DELETE;
  const auto it = files_.find(path);
  if (it == files_.end()) return SQLITE_IOERR_DELETE_NOENT;
  if (fails(faults.write_error)) return SQLITE_IOERR_DELETE;
  if (!sync_folder && it->second->name_durable) removed_[path] = it->second;
  if (sync_folder) removed_.erase(path);
  files_.erase(it);
  return SQLITE_OK;
}

int SimDisk::write(Inode& inode, const void* data, int size, std::int64_t offset) {
  if (!operation()) return SQLITE_IOERR_WRITE;
  ++counters_.writes;
  const bool grows = static_cast<std::size_t>(offset + size) > inode.content.size();
  if (faults.full && grows) {
    ++counters_.errors;
    return SQLITE_FULL;
  }
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  Write all{offset, {bytes, bytes + size}, false};
  const bool failed = fails(faults.write_error);
  if (failed) all.bytes.resize(random(static_cast<std::uint64_t>(size)));  // a short write
  apply(inode.content, all);
  inode.unsynced.push_back(std::move(all));
  return failed ? SQLITE_IOERR_WRITE : SQLITE_OK;
}

int SimDisk::truncate(Inode& inode, std::int64_t size) {
  if (!operation()) return SQLITE_IOERR_TRUNCATE;
  if (fails(faults.write_error)) return SQLITE_IOERR_TRUNCATE;
  inode.unsynced.push_back({size, {}, true});
  apply(inode.content, inode.unsynced.back());
  return SQLITE_OK;
}

int SimDisk::sync(Inode& inode) {
  if (!operation()) return SQLITE_IOERR_FSYNC;
  ++counters_.syncs;
  if (fails(faults.sync_error)) {
    if (random(2) == 0 && !inode.unsynced.empty()) {
      inode.unsynced.clear();
      lost_ = true;
    }
    return SQLITE_IOERR_FSYNC;
  }
  for (const auto& write : inode.unsynced) apply(inode.durable, write);
  inode.unsynced.clear();
  // SQLite syncs the folder with the first sync of a file that it created.
  if (!std::exchange(inode.name_durable, true)) removed_.clear();
  return SQLITE_OK;
}

// ------------------------------------------------------------------- locks

int SimDisk::lock(Inode& inode, const void* who, int level) {
  const int own = inode.locks[who];
  if (own >= level) return SQLITE_OK;
  for (const auto& [other, held] : inode.locks) {
    if (other == who || held == SQLITE_LOCK_NONE) continue;
    if (level == SQLITE_LOCK_SHARED && held < SQLITE_LOCK_PENDING) continue;
    if (level == SQLITE_LOCK_RESERVED && held < SQLITE_LOCK_RESERVED) continue;
    if (level == SQLITE_LOCK_EXCLUSIVE && held < SQLITE_LOCK_RESERVED) inode.locks[who] = SQLITE_LOCK_PENDING;
    return SQLITE_BUSY;
  }
  inode.locks[who] = level;
  return SQLITE_OK;
}

int SimDisk::shm_lock(Inode& inode, const void* who, int offset, int n, int flags) {
  const auto mask = ((1U << static_cast<unsigned>(n)) - 1U) << static_cast<unsigned>(offset);
  auto& own = inode.shm_locks[who];
  if ((flags & SQLITE_SHM_UNLOCK) != 0) {
    own.first &= ~mask;
    own.second &= ~mask;
    return SQLITE_OK;
  }
  const bool shared = (flags & SQLITE_SHM_SHARED) != 0;
  for (const auto& [other, held] : inode.shm_locks) {
    if (other == who) continue;
    if ((held.second & mask) != 0 || (!shared && (held.first & mask) != 0)) return SQLITE_BUSY;
  }
  (shared ? own.first : own.second) |= mask;
  return SQLITE_OK;
}

const sqlite3_io_methods* SimDisk::methods() {
  static const sqlite3_io_methods all = [] {
    sqlite3_io_methods m{};
    m.iVersion = 2;
    m.xClose = [](sqlite3_file* file) {
      File& f = File::of(file);
      (*f.inode)->locks.erase(file);
      (*f.inode)->shm_locks.erase(file);
      if (f.temporary != nullptr && f.disk->power_) f.disk->files_.erase(*f.temporary);
      delete f.inode;
      delete f.temporary;
      --f.disk->handles_;
      return SQLITE_OK;
    };
    m.xRead = [](sqlite3_file* file, void* out, int size, sqlite3_int64 offset) {
      File& f = File::of(file);
      if (!f.disk->power_ || f.disk->fails(f.disk->faults.read_error)) return SQLITE_IOERR_READ;
      const auto& content = (*f.inode)->content;
      const auto at = std::min<std::size_t>(static_cast<std::size_t>(offset), content.size());
      const auto n = std::min<std::size_t>(static_cast<std::size_t>(size), content.size() - at);
      if (n > 0) std::memcpy(out, content.data() + at, n);
      if (n == static_cast<std::size_t>(size)) return SQLITE_OK;
      std::memset(static_cast<char*>(out) + n, 0, static_cast<std::size_t>(size) - n);
      return SQLITE_IOERR_SHORT_READ;
    };
    m.xWrite = [](sqlite3_file* file, const void* data, int size, sqlite3_int64 offset) {
      File& f = File::of(file);
      return f.disk->write(**f.inode, data, size, offset);
    };
    m.xTruncate = [](sqlite3_file* file, sqlite3_int64 size) {
      File& f = File::of(file);
      return f.disk->truncate(**f.inode, size);
    };
    m.xSync = [](sqlite3_file* file, int) {
      File& f = File::of(file);
      return f.disk->sync(**f.inode);
    };
    m.xFileSize = [](sqlite3_file* file, sqlite3_int64* out) {
      File& f = File::of(file);
      *out = static_cast<sqlite3_int64>((*f.inode)->content.size());
      return f.disk->power_ ? SQLITE_OK : SQLITE_IOERR_FSTAT;
    };
    m.xLock = [](sqlite3_file* file, int level) { return lock(**File::of(file).inode, file, level); };
    m.xUnlock = [](sqlite3_file* file, int level) {
      auto& own = (*File::of(file).inode)->locks[file];
      own = std::min(own, level);
      return SQLITE_OK;
    };
    m.xCheckReservedLock = [](sqlite3_file* file, int* out) {
      const auto& locks = (*File::of(file).inode)->locks;
      *out = std::any_of(locks.begin(), locks.end(), [](const auto& l) { return l.second >= SQLITE_LOCK_RESERVED; });
      return SQLITE_OK;
    };
    m.xFileControl = [](sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; };
    m.xSectorSize = [](sqlite3_file*) { return static_cast<int>(kSector); };
    // SQLite's assumption about real disks: a write never harms bytes beside it.
    m.xDeviceCharacteristics = [](sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; };
    m.xShmMap = [](sqlite3_file* file, int index, int size, int extend, void volatile** out) {
      auto& shm = (*File::of(file).inode)->shm;
      const auto at = static_cast<std::size_t>(index);
      *out = nullptr;
      while (shm.size() <= at) {
        if (extend == 0) return SQLITE_OK;
        shm.push_back(std::make_unique<std::uint8_t[]>(static_cast<std::size_t>(size)));
      }
      *out = shm[at].get();
      return SQLITE_OK;
    };
    m.xShmLock = [](sqlite3_file* file, int offset, int n, int flags) {
      K2_ASSERT(offset >= 0 && n > 0 && offset + n <= kShmLocks);
      return shm_lock(**File::of(file).inode, file, offset, n, flags);
    };
    m.xShmBarrier = [](sqlite3_file*) {};
    m.xShmUnmap = [](sqlite3_file* file, int remove) {
      auto& inode = **File::of(file).inode;
      inode.shm_locks.erase(file);
      if (remove != 0) inode.shm.clear();
      return SQLITE_OK;
    };
    return m;
  }();
  return &all;
}

// ------------------------------------------------------------------ threads

namespace {

class SimWorker final : public sqlite::Worker {
 public:
  SimWorker(SimDisk& disk, testing::SimRuntime& runtime, Turn turn)
      : disk_(disk), runtime_(runtime), turn_(std::move(turn)) {
    schedule(disk_.draw_latency(), false);
  }
  ~SimWorker() override {
    runtime_.cancel(timer_);
    if (runtime_.crashed()) return;
    while (!ended_) take_turn(false);
  }

  void wake() override {
    woken_ = true;
    if (!waits_ || ended_) return;
    waits_ = false;
    runtime_.cancel(timer_);
    schedule(disk_.draw_latency(), false);
  }

 private:
  void schedule(Duration after, bool idle) {
    timer_ = runtime_.schedule_after(after, lifetime_.guard([this, idle] {
      timer_ = 0;
      waits_ = false;
      take_turn(idle);
      if (ended_) return;
      if (!waits_) return schedule(disk_.draw_latency(), false);
      if (idles_) schedule(idle_, true);
    }));
  }
  void take_turn(bool idle) {
    woken_ = false;
    const Pause pause = turn_(idle);
    ended_ = pause.wait == Wait::end;
    waits_ = !woken_ && (pause.wait == Wait::wake || pause.wait == Wait::wake_or_idle);
    idles_ = pause.wait == Wait::wake_or_idle;
    idle_ = pause.idle;
  }

  SimDisk& disk_;
  testing::SimRuntime& runtime_;
  const Turn turn_;
  Runtime::TimerId timer_ = 0;
  bool woken_ = false, waits_ = false, idles_ = false, ended_ = false;
  Duration idle_{};
  Lifetime lifetime_;
};

}  // namespace

sqlite::Environment sim_environment(SimDisk& disk, testing::SimRuntime& runtime) {
  return {.make_worker =
              [&disk, &runtime](sqlite::Duty /*duty*/, sqlite::Worker::Turn turn) {
                return std::make_unique<SimWorker>(disk, runtime, std::move(turn));
              },
          .vfs = disk.vfs(),
          .op_pool = sim_pool(runtime, sqlite::kOpStoreIdle),
          .peer_pool = sim_pool(runtime, sqlite::kPeerStoreIdle)};
}

std::shared_ptr<sqlite::StorePool> sim_pool(testing::SimRuntime& runtime, Duration idle) {
  // With room for all: nobody can wait for it where there is one thread.
  return std::make_shared<sqlite::StorePool>(sqlite::StorePool::Options{
      .most = [] { return std::size_t{10'000}; }, .idle = idle, .now = [&runtime] { return runtime.now(); }});
}

}  // namespace kitsune2::sim
