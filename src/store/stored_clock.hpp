// The clock of storing: a wall clock that never stands still and never goes back.
#pragma once

#include <algorithm>

#include "kitsune2/time.hpp"

namespace kitsune2::store {

/// Gives each op of one store its own `stored_at`, in the order of storing: the wall clock, or one microsecond after
/// the last op if the wall clock has not moved, has gone back, or several ops are stored in one microsecond.
///
/// `bookmark()`: every op stored so far is before it, and every later one at or after it, whatever the wall clock does,
/// and over restarts (the last op's time is in the store). *Rationale*: the reference's bookmark is the wall clock at
/// the time of the query; an op stored later under a clock that was set back would be skipped for good.
class StoredClock {
 public:
  StoredClock() = default;
  explicit StoredClock(Timestamp last) : last_(last) {}

  Timestamp next(Timestamp wall) {
    last_ = std::max(std::min(wall, kLatest), last_ + Duration{1});
    return last_;
  }
  Timestamp bookmark() const { return last_ + Duration{1}; }

  /// A wall clock beyond this (the year 148,000) is not believed, so that there is always room for more ops.
  static constexpr Timestamp kLatest{std::int64_t{1} << 62U};

 private:
  Timestamp last_;  ///< of the last op; 0: there is none yet
};

}  // namespace kitsune2::store
