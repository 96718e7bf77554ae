// A few threads that run the turns of many workers.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "store/sqlite/environment.hpp"

namespace kitsune2::sqlite {

/// Threads for workers that mostly wait.
///
/// *Rules*.
///  T1  The turns of a worker come one after the other, on whatever thread.
///  T2  A turn that is due waits for a thread only when all `most` of them are in turns; then those that are due take
///      turns, each behind all that were due before.
///  T3  Threads are started as they are needed, and end when no worker is left, before its destructor returns.
///
/// A worker may be destroyed on any thread but these.
class SharedThreads : public std::enable_shared_from_this<SharedThreads> {
 public:
  explicit SharedThreads(std::size_t most) : most_(most) {}
  ~SharedThreads();
  SharedThreads(const SharedThreads&) = delete;
  SharedThreads& operator=(const SharedThreads&) = delete;

  /// It keeps the threads alive.
  std::unique_ptr<Worker> make_worker(Worker::Turn turn);
  /// Started so far.
  std::size_t threads() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Job;
  class SharedWorker;

  void run();
  void start_thread();
  void make_due(const std::shared_ptr<Job>& job, bool idle);
  void wake(const std::shared_ptr<Job>& job);
  void finish_turn(const std::shared_ptr<Job>& job, Worker::Pause pause);

  const std::size_t most_;
  mutable std::mutex mutex_;
  std::condition_variable due_;    ///< there is something in `ready_`, or a timer is due earlier, or it is the end
  std::condition_variable ended_;  ///< a job has ended
  std::deque<std::shared_ptr<Job>> ready_;
  std::multimap<Clock::time_point, std::shared_ptr<Job>> timers_;
  std::vector<std::thread> threads_;
  std::size_t waiting_ = 0;  ///< threads without a turn
  bool stopping_ = false;
};

}  // namespace kitsune2::sqlite
