// The world a node runs in: time, timers, randomness, a strand. Real or simulated.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "kitsune2/error.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2 {

using Task = std::function<void()>;

/// Receives the outcome of an asynchronous call: exactly once, on the runtime's strand, never from inside the call
/// itself. *Rationale*: a caller may hold its own state half-changed while it calls; re-entry would be a trap.
template <class T = void>
using Handler = std::function<void(Result<T>)>;

/// Time, timers, randomness and the strand that every module of one node runs on.
///
/// All modules (fetch, publish, space, stores' completions, transports' callbacks) run on this strand, one at a time.
/// The shipped objects take a Runtime, so the simulator runs the same object code in virtual time. Implementations:
/// `AsioRuntime` (src/node, one io_context thread), `SimRuntime` (kitsune2::testing).
class Runtime {
 public:
  using TimerId = std::uint64_t;  ///< 0 is never a timer

  virtual ~Runtime() = default;

  /// Monotonic time. Strand only.
  virtual Time now() const = 0;
  /// Wall-clock time; may jump. Any thread.
  virtual Timestamp wall_now() const = 0;
  /// Runs `task` later on the strand, in order of posting. Any thread.
  virtual void post(Task task) = 0;
  /// Runs `task` on the strand at `at` (at once, but not inside this call, if that has passed). Strand only.
  virtual TimerId schedule(Time at, Task task) = 0;
  /// Forgets a timer; its task does not run. No effect on 0, on one that ran or on one that was cancelled. Strand only.
  virtual void cancel(TimerId timer) = 0;
  /// Fills `out`: cryptographically strong in the real runtime, seeded in the simulator. Any thread.
  virtual void random_bytes(std::span<std::uint8_t> out) = 0;

  TimerId schedule_after(Duration delay, Task task) { return schedule(now() + delay, std::move(task)); }
};

/// Lets callbacks outlive their owner: a callback holds `weak()` and does nothing once the owner is gone.
class Lifetime {
 public:
  std::weak_ptr<void> weak() const { return alive_; }
  /// Wraps `f` so that it is a no-op after this object's end. Strand only.
  template <class F>
  auto guard(F f) const {
    return [alive = std::weak_ptr<void>(alive_), f = std::move(f)](auto&&... args) mutable {
      if (auto hold = alive.lock()) f(std::forward<decltype(args)>(args)...);
    };
  }
  void end() { alive_.reset(); }

 private:
  std::shared_ptr<void> alive_ = std::make_shared<char>();
};

}  // namespace kitsune2
