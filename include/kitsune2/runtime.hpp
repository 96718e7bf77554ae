// What a node runs on: time, timers, randomness and a strand, real or simulated.
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
/// `AsioRuntime` (one io_context thread), `SimRuntime` (kitsune2::testing).
///
/// *Thread rule*. Whatever says "strand only" may be called on the strand alone: from a task, a timer, a handler or
/// another callback. From another thread, `post` the call, or use `Node::run` and `Node::wait`. The shipped modules
/// check this where they are entered, in every build: a call from elsewhere ends the program with a message that names
/// it. *Rationale*: it is a data race, which would show much later and as something else; the check costs a few
/// nanoseconds. A call that *blocks* until the strand has done something (`Node::run`, `Node::stop`, …) must not be
/// made on the strand, where it would wait for itself for ever: this ends the program with a message, too.
///
/// *Exceptions*. A task, handler or callback must not throw. If one does, the program ends with a message that names
/// the callback, or the type of the task, and the exception, because nobody could handle it. A few callbacks can report
/// an error to somebody (`OpPolicy`, `KitsuneHandler::create_space`, `Signer`, the factories of `Builder`); there an
/// exception counts as an error.
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

  /// Whether the caller runs on this strand, so that it must not block until the strand has done something. Any thread.
  /// Default: no, for a runtime that cannot tell.
  virtual bool on_strand() const { return false; }
  /// Whether the caller may use what belongs to the strand: it runs there, or nothing runs there, because the strand
  /// has not started yet or has ended. Any thread. Default: yes, for a runtime that cannot tell.
  virtual bool allows_caller() const { return true; }

  TimerId schedule_after(Duration delay, Task task) { return schedule(now() + delay, std::move(task)); }
};

/// Ends the program: `call` ("Fetch::request_ops") was made off the strand. See Runtime's thread rule.
[[noreturn]] void called_off_strand(const char* call) noexcept;

/// For modules, at their entry points: the caller is on the strand of `runtime`, or the program ends with a message
/// that names `call`. Modules of an application's own may use it as well.
inline void assert_on_strand(const Runtime& runtime, const char* call) {
  if (!runtime.allows_caller()) called_off_strand(call);
}

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
