// When an unresponsive peer is tried again, and when it is given up.
#pragma once

#include <cstdint>

#include "kitsune2/time.hpp"

namespace kitsune2 {

/// The intervals of a back-off: `first`, then doubled each time up to `last`, `count` of them in all.
struct BackOffPolicy {
  Duration first{20'000'000};
  Duration last{600'000'000};
  std::uint32_t count = 4;

  /// Interval `index`, from 0. `first` itself is not cut to `last`, as in the reference.
  Duration interval(std::uint32_t index) const;
};

/// The back-off of one peer. Pure; 16 bytes.
///
/// *Rule*: each failure begins the next interval; a failure after the last interval has passed means: give up. Failures
/// while an interval runs, or of what was sent before it began, do not count. *Rationale*: several requests to a dead
/// peer fail together, and that is one event. (kitsune2 0.2.2 counts each of them, so that five requests at once use
/// up all intervals.)
class BackOff {
 public:
  enum class Verdict { ignored, backed_off, give_up };

  /// A request that was begun at `begun` failed at `now`. `give_up` changes nothing: the caller drops the peer.
  Verdict failed(const BackOffPolicy& policy, Time begun, Time now);
  /// A success. No effect if there was no failure.
  void clear() { *this = BackOff(); }

  /// Whether the last thing heard was a failure (an interval runs or has passed).
  bool any() const { return failures_ > 0; }
  /// Whether an interval runs: until its end, not including it.
  bool running(Time now) const { return failures_ > 0 && now < until_; }
  /// End of the current or the latest interval; meaningful if any().
  Time until() const { return until_; }
  std::uint32_t failures() const { return failures_; }

 private:
  Time until_{};
  std::uint32_t failures_ = 0;
};

}  // namespace kitsune2
