// A disk in memory below the real SQLite: errors, a full disk, latency, and power that fails between any two
// operations.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"
#include "store/sqlite/environment.hpp"
#include "store/sqlite/store_pool.hpp"

namespace kitsune2::sim {

/// The files of one node, as a SQLite VFS.
///
/// *Model*.
///  D1  What was written is visible to later reads at once, and durable once its file was synced.
///  D2  When the power fails, each unsynced write is kept, lost, or kept in part: a prefix or any subset of its sectors
///      of 512 bytes. The same holds for truncations, and for files created or removed without a sync of their folder.
///  D3  A failing sync may lose for good what it should have written, while reads still see it (as with page caches).
///      After that, only a power failure ends the process. *Rationale*: the next process would build on what is not
///      there, and no program can know.
///  D4  Without power every operation fails and nothing changes.
///  D5  Shared memory and locks belong to one process and end with it.
///
/// All choices come from the seed. One thread.
class SimDisk {
 public:
  struct Faults {
    // One in this many operations fails; 0: none.
    std::uint32_t write_error = 0, sync_error = 0, read_error = 0;
    bool full = false;   ///< no file can grow
    Duration latency{};  ///< of a turn of a store's thread; varies from half of it to one and a half
  };
  struct Counters {
    std::uint64_t writes = 0, syncs = 0, errors = 0, power_cuts = 0, sectors_lost = 0, writes_torn = 0;
  };

  explicit SimDisk(std::uint64_t seed);
  ~SimDisk();
  SimDisk(const SimDisk&) = delete;
  SimDisk& operator=(const SimDisk&) = delete;

  /// Creates an empty, durable file. No effect if it exists.
  void make_file(const std::string& path);
  /// Instead of the file and its WAL there is an empty file.
  void replace_file(const std::string& path);
  const char* vfs() const { return name_.c_str(); }

  Faults faults;
  /// Cuts the power before the write, sync, truncation or removal that follows `operations` others.
  void cut_power_after(std::uint64_t operations) { power_left_ = operations; }
  void keep_power() { power_left_.reset(); }
  bool has_power() const { return power_; }
  void cut_power();
  /// Ends the process but not the machine: nothing written is lost.
  void kill();
  /// Whether D3 has happened since the power came.
  bool lost_writes() const { return lost_; }
  /// Makes what is left of the files available again. All that had them open must be destroyed.
  void power_on();

  /// A random number below `below`, from the disk's own seed.
  std::uint64_t random(std::uint64_t below);
  Duration draw_latency();
  const Counters& counters() const { return counters_; }
  /// A hash over the present contents of all files.
  std::uint64_t content_hash() const;

 private:
  struct Write {
    std::int64_t offset = 0;
    std::vector<std::uint8_t> bytes;
    bool truncate = false;  ///< to `offset`
  };
  struct Inode {
    std::vector<std::uint8_t> content;  ///< what reads see
    std::vector<std::uint8_t> durable;
    std::vector<Write> unsynced;
    bool name_durable = false;
    // The locks of the file and of its shared memory, by handle.
    std::map<const void*, int> locks;
    std::vector<std::unique_ptr<std::uint8_t[]>> shm;
    std::map<const void*, std::pair<std::uint32_t, std::uint32_t>> shm_locks;  ///< shared, exclusive
    std::size_t open = 0;
    bool delete_on_close = false;
  };
  struct File;

  static SimDisk& of(sqlite3_vfs* vfs) { return *static_cast<SimDisk*>(vfs->pAppData); }
  static const sqlite3_io_methods* methods();
  bool operation();  ///< false: there is no power
  bool fails(std::uint32_t one_in);
  static void apply(std::vector<std::uint8_t>& to, const Write& write);
  void keep_some(std::vector<std::uint8_t>& to, const Write& write);

  int open(const char* path, File& file, int flags);
  int remove(const char* path, bool sync_folder);
  int write(Inode& inode, const void* data, int size, std::int64_t offset);
  int truncate(Inode& inode, std::int64_t size);
  int sync(Inode& inode);
  static int lock(Inode& inode, const void* who, int level);
  static int shm_lock(Inode& inode, const void* who, int offset, int n, int flags);

  std::uint64_t random_state_;
  std::string name_;
  sqlite3_vfs vfs_{};
  std::map<std::string, std::shared_ptr<Inode>> files_;
  /// Removed, but the folder is not synced: they may come back.
  std::map<std::string, std::shared_ptr<Inode>> removed_;
  bool power_ = true;
  bool killed_ = false;
  bool lost_ = false;
  std::optional<std::uint64_t> power_left_;
  std::size_t handles_ = 0;
  Counters counters_;
};

/// The environment of a store on `disk` whose threads' turns are tasks of `runtime`: same seed, same run. A store that
/// is destroyed after the runtime has crashed does nothing more. Both must outlive the stores.
sqlite::Environment sim_environment(SimDisk& disk, testing::SimRuntime& runtime);
/// The pool of such an environment, whose stores are closed after `idle`.
std::shared_ptr<sqlite::StorePool> sim_pool(testing::SimRuntime& runtime, Duration idle);

}  // namespace kitsune2::sim
