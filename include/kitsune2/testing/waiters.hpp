// Waiting for events, in virtual time and in real time.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "kitsune2/testing/sim_runtime.hpp"

namespace kitsune2::testing {

/// Receives the outcome of an asynchronous call. Copies share it. Calling the handler twice is a bug (abort).
///
///     Outcome<ProcessedOps> stored;
///     store->process_incoming_ops(ops, stored.handler());
///     world.run_until(stored.has_come(), std::chrono::seconds(1));
///     ASSERT_TRUE(stored.result());
template <class T>
class Outcome {
 public:
  Handler<T> handler() const {
    return [state = state_](Result<T> result) {
      K2_ASSERT(!state->has_value());
      state->emplace(std::move(result));
    };
  }
  bool ready() const { return state_->has_value(); }
  std::function<bool()> has_come() const {
    return [state = state_] { return state->has_value(); };
  }
  /// Must not be called before `ready()`.
  const Result<T>& result() const { return state_->value(); }

 private:
  std::shared_ptr<std::optional<Result<T>>> state_ = std::make_shared<std::optional<Result<T>>>();
};

/// Makes a call and runs the world until its outcome arrives: `await<ProcessedOps>(world, [&](auto done) {
/// store->process_incoming_ops(ops, done); })`. Virtual time may pass, up to `limit`; after that Errc::timed_out.
template <class T, class F>
Result<T> await(SimWorld& world, F start, Duration limit = std::chrono::hours(1)) {
  Outcome<T> outcome;
  start(outcome.handler());
  if (!world.run_until(outcome.has_come(), limit)) return make_error(Errc::timed_out, "await: no outcome");
  return outcome.result();
}

/// The same for a call that real threads work on (a SQLite store). No virtual time passes.
template <class T, class F>
Result<T> await_real(SimWorld& world, F start, std::chrono::milliseconds limit = std::chrono::seconds(60)) {
  Outcome<T> outcome;
  start(outcome.handler());
  if (!world.wait_for(outcome.has_come(), limit)) return make_error(Errc::timed_out, "await_real: no outcome");
  return outcome.result();
}

/// For nodes on real threads: calls `done` every few milliseconds. Returns false if it is not true within `limit`. Must
/// not be called on a strand.
bool poll_until(const std::function<bool()>& done, std::chrono::milliseconds limit = std::chrono::seconds(30));

}  // namespace kitsune2::testing
