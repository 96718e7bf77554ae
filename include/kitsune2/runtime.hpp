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

/// Receives the outcome of an asynchronous call: exactly once, on the runtime's strand, never from within the call
/// itself. *Rationale*: a caller may be in the middle of changing its own state when it calls.
template <class T = void>
using Handler = std::function<void(Result<T>)>;

/// Time, timers, randomness, and the strand on which every module of a node runs.
///
/// All modules (fetch, publish, space, completions of stores, callbacks of transports) run on this strand, one at a
/// time. The shipped objects take a Runtime, so the simulator runs the same object code in virtual time.
/// Implementations: `AsioRuntime` (one io_context thread) and `SimRuntime` (kitsune2::testing).
///
/// *Thread rule*. Whatever says "strand only" may only be called on the strand: from a task, a timer, a handler or
/// another callback. From another thread, `post` the call, or use `Node::run` and `Node::wait`. The shipped modules
/// check this at their entry points, in every build: a call from elsewhere ends the program with a message that names
/// it. *Rationale*: such a call is a data race, whose damage would show much later; the check costs a few nanoseconds.
/// A call that *blocks* until the strand has done something (`Node::run`, `Node::stop`, …) must not be made on the
/// strand, where it would wait for itself for ever; that ends the program with a message, too.
///
/// *Exceptions*. A task, handler or callback must not throw. If one does, the program ends with a message that names
/// the callback (or the type of the task) and the exception, because nobody could handle it. Only where an error can be
/// reported to somebody (`OpPolicy`, `KitsuneHandler::create_space`, `Signer`, the factories of `Builder`) does an
/// exception count as an error.
class Runtime {
 public:
  using TimerId = std::uint64_t;  ///< 0 is never a timer

  virtual ~Runtime() = default;

  /// Monotonic time. Strand only.
  virtual Time now() const = 0;
  /// Wall-clock time. May jump. Any thread.
  virtual Timestamp wall_now() const = 0;
  /// Runs `task` later on the strand, in the order of posting. Any thread.
  virtual void post(Task task) = 0;
  /// Runs `task` on the strand at `at`, or soon after this call if that time has passed. Strand only.
  virtual TimerId schedule(Time at, Task task) = 0;
  /// Cancels a timer; its task does not run. No effect on 0 and on timers that ran or were cancelled. Strand only.
  virtual void cancel(TimerId timer) = 0;
  /// Fills `out`: cryptographically strong in the real runtime, seeded in the simulator. Any thread.
  virtual void random_bytes(std::span<std::uint8_t> out) = 0;

  /// Whether the caller is on this strand and so must not block until the strand has done something. Any thread.
  /// Default: false, for a runtime that cannot tell.
  virtual bool on_strand() const { return false; }
  /// Whether the caller may use what belongs to the strand: it is on the strand, or nothing runs there, because the
  /// strand has not started yet or has ended. Any thread. Default: true, for a runtime that cannot tell.
  virtual bool allows_caller() const { return true; }

  TimerId schedule_after(Duration delay, Task task) { return schedule(now() + delay, std::move(task)); }
};

/// Ends the program, because `call` ("Fetch::request_ops") was made off the strand. See Runtime's thread rule.
[[noreturn]] void called_off_strand(const char* call) noexcept;

/// For the entry points of modules: ends the program with a message that names `call`, unless the caller is on the
/// strand of `runtime`. An application's own modules may use it as well.
inline void assert_on_strand(const Runtime& runtime, const char* call) {
  if (!runtime.allows_caller()) called_off_strand(call);
}

/// Lets callbacks outlive their owner: a callback holds `weak()` and does nothing once the owner is gone.
class Lifetime {
 public:
  std::weak_ptr<void> weak() const { return alive_; }
  /// Wraps `f` so that it has no effect after the end of this object. Strand only.
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
