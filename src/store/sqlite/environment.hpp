// The threads and the file system of a SQLite store: the real ones, or those of the simulation.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "kitsune2/peer_store.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "store/runs/block_cache.hpp"
#include "store/runs/merge.hpp"
#include "store/sqlite/kept_sums.hpp"
#include "store/sqlite/op_schema.hpp"

namespace kitsune2::sqlite {

/// What looks like a thread to a store. The store supplies the work of one turn; the worker decides when the turn
/// comes.
class Worker {
 public:
  /// What the next turn waits for.
  enum class Wait {
    nothing,
    wake,          ///< for a call of `wake`
    wake_or_idle,  ///< for a call of `wake`, at most for `idle`
    end,           ///< no more turns
  };
  struct Pause {
    Pause(Wait what, std::chrono::milliseconds how_long = {}) : wait(what), idle(how_long) {}
    Wait wait;
    std::chrono::milliseconds idle;
  };
  /// `idle`: the last pause has passed without a `wake`.
  using Turn = std::function<Pause(bool idle)>;

  /// Waits for Wait::end.
  virtual ~Worker() = default;
  /// Any thread. A call during a turn is not lost.
  virtual void wake() = 0;
};

/// What a worker is for.
enum class Duty { write, read };

class StorePool;

struct Environment {
  std::function<std::unique_ptr<Worker>(Duty, Worker::Turn)> make_worker;
  /// The SQLite VFS. Null: the system's files, which are locked by us, and created if missing. Otherwise the file must
  /// exist (it may be empty), and nobody else may use it.
  const char* vfs = nullptr;
  /// How many bytes are free where the file lies; nullopt: not known. Empty: it is not asked.
  std::function<std::optional<std::uint64_t>(const std::string& path)> free_bytes = {};
  /// Of the indexes of op stores that have them in runs.
  runs::MergeRules merge_rules = {};
  /// Blocks of these that the stores keep. Null: none.
  std::shared_ptr<runs::BlockCache> blocks = nullptr;
  /// Ops with at least so many bytes are large.
  std::size_t least_large_bytes = kLeastLargeBytes;
  /// When op stores write their sums for a DHT model.
  SumsRules sums_rules = {};
  /// Those that share room for open files. Null: such stores have them open until they end.
  std::shared_ptr<StorePool> op_pool = nullptr, peer_pool = nullptr;
};

/// Threads and files of the system. All stores of the process share kThreadsADuty threads for each duty, which are
/// started as they are needed. *Rationale*: a process with a thousand spaces, of which most wait, needs a few. Two
/// duties: a read must not wait behind the flushes of other stores.
inline constexpr std::size_t kThreadsADuty = 8;
/// Blocks of indexes that they keep together: 8 MiB. *Rationale*: all that look-ups need of a store of 100,000 ops with
/// ids of 32 bytes.
inline constexpr std::size_t kBlocksKept = 512;
/// An op store that was not called for so long has its files closed.
inline constexpr auto kOpStoreIdle = std::chrono::minutes(1);
/// The same for peer stores. *Rationale*: they are opened for one transaction, every now and then, which takes less
/// than a millisecond; so only what is written together shares an opening.
inline constexpr auto kPeerStoreIdle = std::chrono::milliseconds(100);
const Environment& real_environment();

/// open_sqlite_op_store in another environment.
Result<std::shared_ptr<OpStore>> open_op_store(const Environment& environment, Runtime& runtime,
                                               std::shared_ptr<const OpPolicy> policy, const SpaceId& space,
                                               const std::string& path, const SqliteOpStoreOptions& options);

/// open_sqlite_peer_stores in another environment. It has no thread: `make_worker` is not used.
Result<SqlitePeerStores> open_peer_stores(const Environment& environment, Runtime& runtime, const SpaceId& space,
                                          const std::string& path, const Verifier& verifier,
                                          std::size_t max_agents = 10'000, std::size_t max_entries = 100'000);

}  // namespace kitsune2::sqlite
