// When an unresponsive peer is tried again, and when it is given up.
#pragma once

#include <cstdint>

#include "kitsune2/time.hpp"

namespace kitsune2 {

/// The intervals of a back-off: `first`, then doubling up to `last`; `count` intervals in total.
struct BackOffPolicy {
  Duration first{20'000'000};
  Duration last{600'000'000};
  std::uint32_t count = 4;

  /// Interval number `index`, from 0. As in the reference, `first` itself is not cut to `last`.
  Duration interval(std::uint32_t index) const;
};

/// The back-off of one peer. Pure; 16 bytes.
///
/// *Rule*: each failure begins the next interval; a failure after the last interval has passed means: give up. Failures
/// during an interval, or of what was sent before it began, do not count. *Rationale*: several requests to a dead peer
/// fail together, and that is one event. (kitsune2 0.2.2 counts each of them, so that five requests at once use up all
/// intervals.)
class BackOff {
 public:
  enum class Verdict { ignored, backed_off, give_up };

  /// Records at `now` that a request begun at `begun` failed. `give_up` changes nothing: the caller drops the peer.
  Verdict on_failed(const BackOffPolicy& policy, Time begun, Time now);
  /// Records a success. No effect if there was no failure.
  void clear() { *this = BackOff(); }

  /// Whether the last event was a failure (an interval runs or has passed).
  bool any() const { return failures_ > 0; }
  /// Whether an interval runs. Its end is exclusive.
  bool is_running(Time now) const { return failures_ > 0 && now < until_; }
  /// The end of the current or the latest interval. Meaningful only if any().
  Time until() const { return until_; }
  std::uint32_t failures() const { return failures_; }

 private:
  Time until_{};
  std::uint32_t failures_ = 0;
};

}  // namespace kitsune2
