// Turns of workers on shared threads: who is due, and who waits for a time.
#include "store/sqlite/shared_threads.hpp"

#include <system_error>
#include <utility>

namespace kitsune2::sqlite {

/// All but `turn` is guarded by the mutex.
struct SharedThreads::Job {
  explicit Job(Worker::Turn what) : turn(std::move(what)) {}

  enum class State { waits, due, runs, ended };
  const Worker::Turn turn;
  State state = State::waits;
  bool woken = false;  ///< during the turn
  bool idle = false;   ///< what the next turn is told
  std::multimap<Clock::time_point, std::shared_ptr<Job>>::iterator timer{};
  bool has_timer = false;
};

class SharedThreads::SharedWorker final : public Worker {
 public:
  SharedWorker(std::shared_ptr<SharedThreads> threads, std::shared_ptr<Job> job)
      : threads_(std::move(threads)), job_(std::move(job)) {}
  ~SharedWorker() override {
    std::unique_lock lock(threads_->mutex_);
    threads_->ended_.wait(lock, [this] { return job_->state == Job::State::ended; });
  }
  void wake() override { threads_->wake(job_); }

 private:
  const std::shared_ptr<SharedThreads> threads_;
  const std::shared_ptr<Job> job_;
};

SharedThreads::~SharedThreads() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  due_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::size_t SharedThreads::threads() const {
  const std::lock_guard lock(mutex_);
  return threads_.size();
}

std::unique_ptr<Worker> SharedThreads::make_worker(Worker::Turn turn) {
  auto job = std::make_shared<Job>(std::move(turn));
  auto out = std::make_unique<SharedWorker>(shared_from_this(), job);
  const std::lock_guard lock(mutex_);
  try {
    make_due(job, false);
  } catch (...) {
    // There is not a single thread: its destructor must not wait for a turn.
    std::erase(ready_, job);
    job->state = Job::State::ended;
    throw;
  }
  return out;
}

/// Under the mutex. If there are threads already, they do without another one.
void SharedThreads::start_thread() {
  try {
    threads_.emplace_back([this] { run(); });
  } catch (const std::system_error&) {
    if (threads_.empty()) throw;
  }
}

/// Under the mutex.
void SharedThreads::make_due(const std::shared_ptr<Job>& job, bool idle) {
  if (job->has_timer) timers_.erase(job->timer);
  job->has_timer = false;
  job->state = Job::State::due;
  job->idle = idle;
  ready_.push_back(job);
  if (ready_.size() > waiting_ && threads_.size() < most_) start_thread();
  due_.notify_one();
}

void SharedThreads::wake(const std::shared_ptr<Job>& job) {
  const std::lock_guard lock(mutex_);
  if (job->state == Job::State::waits) {
    make_due(job, false);
  } else {
    job->woken = job->state == Job::State::runs;
    job->idle = false;
  }
}

/// Under the mutex.
void SharedThreads::finish_turn(const std::shared_ptr<Job>& job, Worker::Pause pause) {
  const bool woken = std::exchange(job->woken, false);
  if (pause.wait == Worker::Wait::end) {
    job->state = Job::State::ended;
    ended_.notify_all();
  } else if (woken || pause.wait == Worker::Wait::nothing) {
    make_due(job, false);
  } else {
    job->state = Job::State::waits;
    if (pause.wait != Worker::Wait::wake_or_idle) return;
    job->timer = timers_.emplace(Clock::now() + pause.idle, job);
    job->has_timer = true;
    // Some thread that waits must know of it.
    if (job->timer == timers_.begin()) due_.notify_one();
  }
}

void SharedThreads::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    while (!timers_.empty() && timers_.begin()->first <= Clock::now()) {
      const auto job = timers_.begin()->second;
      make_due(job, true);
    }
    if (!ready_.empty()) {
      const auto job = std::move(ready_.front());
      ready_.pop_front();
      // This thread may have been the only one that waited for the next timer.
      if (waiting_ > 0 && !timers_.empty()) due_.notify_one();
      job->state = Job::State::runs;
      const bool idle = std::exchange(job->idle, false);
      lock.unlock();
      const Worker::Pause pause = job->turn(idle);
      lock.lock();
      finish_turn(job, pause);
      continue;
    }
    if (stopping_) return;
    ++waiting_;
    if (timers_.empty()) {
      due_.wait(lock);
    } else {
      const auto next = timers_.begin()->first;  // a copy: the entry may go meanwhile
      due_.wait_until(lock, next);
    }
    --waiting_;
  }
}

}  // namespace kitsune2::sqlite
