// The threads and the file system of SQLite stores outside the simulation.
#include "store/sqlite/environment.hpp"

#include <sys/statvfs.h>
#include <unistd.h>

#include <mutex>
#include <utility>

#include "store/sqlite/shared_threads.hpp"
#include "store/sqlite/store_pool.hpp"

namespace kitsune2::sqlite {
namespace {

struct Shared {
  std::weak_ptr<SharedThreads> threads;
  pid_t process = 0;  ///< a child that was forked has none of its parent's threads
};

/// Those of the process. They end with the last store.
std::shared_ptr<SharedThreads> threads_for(Duty duty) {
  static std::mutex mutex;
  static Shared shared[2];
  const std::lock_guard lock(mutex);
  Shared& known = shared[duty == Duty::write ? 0 : 1];
  if (known.process == ::getpid()) {
    if (auto threads = known.threads.lock()) return threads;
  }
  auto threads = std::make_shared<SharedThreads>(kThreadsADuty);
  known = {threads, ::getpid()};
  return threads;
}

std::shared_ptr<StorePool> make_pool(std::function<std::size_t()> most, Duration idle) {
  return std::make_shared<StorePool>(StorePool::Options{
      .most = std::move(most), .idle = idle, .now = [] {
        return Time(std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch()));
      }});
}

}  // namespace

const Environment& real_environment() {
  static const Environment environment{
      .make_worker = [](Duty duty, Worker::Turn turn) { return threads_for(duty)->make_worker(std::move(turn)); },
      .free_bytes = [](const std::string& path) -> std::optional<std::uint64_t> {
        struct statvfs disk {};
        if (::statvfs(path.c_str(), &disk) != 0) return std::nullopt;
        return std::uint64_t{disk.f_bavail} * disk.f_frsize;
      },
      .blocks = std::make_shared<runs::BlockCache>(kBlocksKept),
      .op_pool = make_pool([] { return descriptors_for_op_stores(soft_limit()); }, kOpStoreIdle),
      .peer_pool = make_pool([] { return descriptors_for_peer_stores(soft_limit()); }, kPeerStoreIdle)};
  return environment;
}

}  // namespace kitsune2::sqlite
