// Virtual time: one world, many nodes, one thread, repeatable.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "kitsune2/bytes.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2::testing {

class SimRuntime;

/// A world in virtual time. All nodes of a simulation (or the one node of a unit test) run in it, one task at a time.
///
/// *Rules*.
///  W1  Tasks run in the order of (time, posting), over all nodes.
///  W2  Time stands still while work is ready, and then jumps to the next deadline; it never passes one.
///  W3  The same seed and the same calls give the same run; `trace_hash()` proves it. (The order of containers keyed by
///      ids depends on the process's hash key: to repeat a run in another process, call `set_hash_seed` first in
///      `main`.)
///  W4  Work that posts itself for ever at one instant aborts with a message after ten million tasks.
///  W5  Only the thread that made the world may use it, except for `post`, `wall_now` and `random_bytes` of its
///      runtimes.
///
/// A store with threads of its own (SQLite) posts from them; their work takes real time and no virtual time. For that,
/// `wait_for` sleeps until something was posted.
///
///     SimWorld world(1);
///     auto runtime = world.make_runtime();
///     auto fetch = make_core_fetch(*runtime, …);
///     world.run_for(std::chrono::hours(1));
class SimWorld {
 public:
  explicit SimWorld(std::uint64_t seed = 1);
  /// Drops all tasks. Runtimes may outlive the world; they do nothing then.
  ~SimWorld();
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;

  /// Makes a node's runtime, with its strand, timers and random numbers.
  std::unique_ptr<SimRuntime> make_runtime();

  /// Virtual time; starts at zero.
  Time now() const;
  /// Sets the wall clock of all nodes, which then runs with virtual time. It starts at 2026-01-01.
  void set_wall_now(Timestamp now);

  /// Runs the next task, jumping to its time. Returns false if there is none.
  bool step();
  /// Runs what is due now; no time passes. Returns the number of tasks. More than ten million tasks at one instant
  /// (work that posts itself for ever) abort with a message.
  std::size_t run_ready();
  /// Runs everything due up to and including `t`; afterwards the time is `t`, unless it was later already.
  void run_until(Time t);
  void run_for(Duration d) { run_until(now() + d); }
  /// Runs until `done()` is true; it is called before the first task and after each one. Returns false if that does not
  /// happen within `limit` of virtual time, or if nothing is left that could change it.
  bool run_until(const std::function<bool()>& done, Duration limit);
  /// Runs until nothing is ready or scheduled. Returns false if still busy after `limit` of virtual time.
  bool run_until_idle(Duration limit = std::chrono::hours(24));
  /// Jumps to the next deadline and runs everything due then. Returns false if nothing is scheduled.
  bool step_to_next_deadline();
  /// For work on real threads: runs what is ready, and sleeps until something is posted, until `done()`. No virtual
  /// time passes. Returns false after `limit` of real time.
  bool wait_for(const std::function<bool()>& done, std::chrono::milliseconds limit = std::chrono::seconds(60));

  /// Sets a function that is called after each task, e.g. to check invariants. Empty: none.
  void on_step(std::function<void()> callback);
  /// A hash over (time, node, task number) of each task that ran, and over all `trace` values.
  std::uint64_t trace_hash() const;
  /// Mixes a value into the trace, such as a decision or an arrival.
  void trace(std::uint64_t value);
  void trace(ByteView value);
  std::uint64_t tasks_run() const;

  /// A number in [0, below) from the world's seed, for the scenario's own choices. 0 if `below` is 0.
  std::uint64_t random(std::uint64_t below);
  std::uint64_t seed() const;

  struct State;

 private:
  std::shared_ptr<State> state_;
};

/// One node's Runtime in a SimWorld, made by SimWorld::make_runtime.
class SimRuntime final : public Runtime {
 public:
  /// Crashes the node.
  ~SimRuntime() override;
  SimRuntime(const SimRuntime&) = delete;
  SimRuntime& operator=(const SimRuntime&) = delete;

  /// Destroys all tasks and timers of this node, and later ones as soon as they are posted or scheduled, as if the
  /// process had died: no handler is called. No effect the second time.
  void crash();
  bool crashed() const;
  /// Sets how far this node's wall clock is off. Zero at first.
  void set_wall_skew(Duration skew);
  /// 0, 1, 2, … in the order in which the runtimes were made.
  std::uint32_t index() const;

  Time now() const override;
  Timestamp wall_now() const override;
  void post(Task task) override;
  TimerId schedule(Time at, Task task) override;
  void cancel(TimerId timer) override;
  void random_bytes(std::span<std::uint8_t> out) override;
  bool allows_caller() const override;

 private:
  friend class SimWorld;
  SimRuntime(std::shared_ptr<SimWorld::State> state, std::uint32_t index, std::uint64_t seed);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kitsune2::testing
