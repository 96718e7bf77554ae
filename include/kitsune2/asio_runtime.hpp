// The real runtime: one thread, real clocks, real randomness, and the loop that sockets run on.
#pragma once

#include <memory>

#include "kitsune2/log.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2 {

/// A Runtime over one io_context thread, which is the strand. A program that links it gets its keyed hash
/// (`set_hash_seed`) seeded from the system's randomness before main.
///
/// *Rules*.
///  R1  Tasks run in the order in which they were posted, by any thread; due timers run in the order of (time,
///      scheduling).
///  R2  Posting is cheap: one uncontended lock, and one wake-up of the loop per batch, not per task.
///  R3  Posted tasks do not starve I/O: a task that is posted by another task runs after the sockets had a turn.
///  R4  Nothing runs after `stop()`; the thread that calls it destroys what was posted or scheduled, and later calls of
///      `post` and `schedule` drop their task.
///
/// *Lifetime*: the runtime must outlive every object made with it (connections, servers, clients). A task that throws
/// ends the program with a message that names the task's type and the exception.
class AsioRuntime : public Runtime {
 public:
  /// `log` receives the lines that are written on the strand. Without a callback they go to the log of the runtime on
  /// whose strand this one is made, or else to the process's log (`set_process_log`).
  explicit AsioRuntime(LogOptions log = {});
  /// Stops.
  ~AsioRuntime() override;
  AsioRuntime(const AsioRuntime&) = delete;
  AsioRuntime& operator=(const AsioRuntime&) = delete;

  /// Starts the thread. No effect if it is running or has been stopped.
  void start();
  /// Ends the thread and joins it. Must not be called on the strand. No effect the second time.
  void stop();
  bool on_strand() const override;
  bool allows_caller() const override;
  /// Runs `task` on the strand and waits for it; on the strand, runs it directly. Returns false if the task did not
  /// run, because the runtime was not running or was stopped before the task's turn.
  bool call(const Task& task);

  Time now() const override;
  Timestamp wall_now() const override;
  void post(Task task) override;
  TimerId schedule(Time at, Task task) override;
  void cancel(TimerId timer) override;
  void random_bytes(std::span<std::uint8_t> out) override;

  struct Impl;
  /// The loop itself; for src/net only.
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace kitsune2
