// What a SQLite store stands on: its threads and its file system. The real ones, or those of the simulator.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "kitsune2/peer_store.hpp"
#include "kitsune2/sqlite_store.hpp"

namespace kitsune2::sqlite {

/// A thread of a store. The store gives it what one turn of work is; the worker decides when the turn comes.
class Worker {
 public:
  /// What the next turn waits for.
  enum class Wait {
    nothing,
    wake,          ///< until `wake` is called
    wake_or_idle,  ///< the same, or for `idle`
    end,           ///< no turn comes any more
  };
  struct Pause {
    Pause(Wait what, std::chrono::milliseconds how_long = {}) : wait(what), idle(how_long) {}
    Wait wait;
    std::chrono::milliseconds idle;
  };
  /// `idle`: the time of the last pause has passed without a `wake`.
  using Turn = std::function<Pause(bool idle)>;

  /// Waits for Wait::end.
  virtual ~Worker() = default;
  /// Any thread. One that comes while a turn runs is not lost.
  virtual void wake() = 0;
};

struct Environment {
  std::function<std::unique_ptr<Worker>(Worker::Turn)> make_worker;
  /// The SQLite VFS. Null: the system's files, with a lock of ours on them, made if they are missing. Else the file is
  /// there (it may be empty) and is nobody else's.
  const char* vfs = nullptr;
};

/// Threads and files of the system.
const Environment& real_environment();

/// open_sqlite_op_store on something else than the system.
Result<std::shared_ptr<OpStore>> open_op_store(const Environment& environment, Runtime& runtime,
                                               std::shared_ptr<const OpPolicy> policy, const SpaceId& space,
                                               const std::string& path, const SqliteOpStoreOptions& options);

/// open_sqlite_peer_stores on something else than the system. They have no thread: `make_worker` is not used.
Result<SqlitePeerStores> open_peer_stores(const Environment& environment, Runtime& runtime, const SpaceId& space,
                                          const std::string& path, const Verifier& verifier,
                                          std::size_t max_agents = 10'000, std::size_t max_entries = 100'000);

}  // namespace kitsune2::sqlite
