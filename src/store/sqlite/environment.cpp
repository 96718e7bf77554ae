// The threads and the file system of SQLite stores outside the simulation.
#include "store/sqlite/environment.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

namespace kitsune2::sqlite {
namespace {

class ThreadWorker final : public Worker {
 public:
  explicit ThreadWorker(Turn turn) : turn_(std::move(turn)), thread_([this] { run(); }) {}
  ~ThreadWorker() override { thread_.join(); }

  void wake() override {
    {
      const std::lock_guard lock(mutex_);
      woken_ = true;
    }
    changed_.notify_one();
  }

 private:
  void run() {
    bool idle = false;
    for (;;) {
      const Pause pause = turn_(std::exchange(idle, false));
      if (pause.wait == Wait::end) return;
      if (pause.wait == Wait::nothing) continue;
      std::unique_lock lock(mutex_);
      const auto is_woken = [this] { return woken_; };
      if (pause.wait == Wait::wake) {
        changed_.wait(lock, is_woken);
      } else {
        idle = !changed_.wait_for(lock, pause.idle, is_woken);
      }
      woken_ = false;
    }
  }

  const Turn turn_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
  std::thread thread_;  // last, because it uses the others
};

}  // namespace

const Environment& real_environment() {
  static const Environment environment{
      [](Worker::Turn turn) { return std::make_unique<ThreadWorker>(std::move(turn)); }, nullptr};
  return environment;
}

}  // namespace kitsune2::sqlite
