// The real runtime: one thread, real clocks, real randomness, and the loop that sockets run on.
#pragma once

#include <memory>

#include "kitsune2/log.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2 {

/// A Runtime over one io_context thread. The strand is that thread. A program that links it has its keyed hash
/// (`set_hash_seed`) seeded from the system's randomness before main.
///
/// *Rules*. R1: tasks run in the order of posting, whoever posted them; timers that are due run in the order of
/// (time, scheduling). R2: posting is cheap (one uncontended lock; the loop is woken once for a batch, not once a
/// task). R3: I/O is not starved by posted tasks: a task that posts again runs after the sockets have had a turn.
/// R4: after `stop()` nothing runs any more; what was posted or scheduled is destroyed by the thread that stops, and
/// later calls of `post` and `schedule` drop their task. *Lifetime*: it outlives every object that was made with it
/// (connections, servers, clients). A task that throws ends the program with a message that names its type and the
/// exception.
class AsioRuntime : public Runtime {
 public:
  /// `log`: who gets the lines that are written on the strand. Without a callback: the log of the runtime on whose
  /// strand it is made, or the process's (`set_process_log`).
  explicit AsioRuntime(LogOptions log = {});
  /// Stops.
  ~AsioRuntime() override;
  AsioRuntime(const AsioRuntime&) = delete;
  AsioRuntime& operator=(const AsioRuntime&) = delete;

  /// Starts the thread. No effect when it runs or has been stopped.
  void start();
  /// Ends the thread and joins it. Any thread but the strand; no effect the second time.
  void stop();
  bool on_strand() const override;
  bool allows_caller() const override;
  /// Runs `task` on the strand and waits for it; on the strand it simply runs. False: the runtime is not running, or
  /// was stopped before the task had its turn; the task did not run.
  bool call(const Task& task);

  Time now() const override;
  Timestamp wall_now() const override;
  void post(Task task) override;
  TimerId schedule(Time at, Task task) override;
  void cancel(TimerId timer) override;
  void random_bytes(std::span<std::uint8_t> out) override;

  struct Impl;
  /// For src/net only: the loop itself.
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace kitsune2
