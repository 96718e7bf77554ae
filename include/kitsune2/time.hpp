// Two clocks that cannot be mixed up: the node's monotonic axis and wall-clock timestamps.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <limits>
#include <string>

#include "kitsune2/abi.hpp"

namespace kitsune2 {

/// The node's own monotonic axis, in microseconds. There is deliberately no `now()`: the core is told the time, by the
/// shell from a steady clock, by the simulator from its virtual one.
struct CoreClock {
  using rep = std::int64_t;
  using period = std::micro;
  using duration = std::chrono::duration<rep, period>;
  using time_point = std::chrono::time_point<CoreClock>;
  static constexpr bool is_steady = true;
};
using Time = CoreClock::time_point;
using Duration = CoreClock::duration;

/// A point of wall-clock time: microseconds since 1970-01-01 UTC, as on the wire and in agent infos. May be negative.
/// Arithmetic saturates at the ends of the range: hostile values never overflow.
struct Timestamp {
  std::int64_t micros = 0;

  static constexpr Timestamp min() { return {std::numeric_limits<std::int64_t>::min()}; }
  static constexpr Timestamp max() { return {std::numeric_limits<std::int64_t>::max()}; }
  static constexpr Timestamp from_seconds(std::int64_t s) { return {s * 1'000'000}; }

  friend constexpr auto operator<=>(Timestamp, Timestamp) = default;
  friend constexpr Timestamp operator+(Timestamp t, Duration d) {
    std::int64_t out = 0;
    if (__builtin_add_overflow(t.micros, d.count(), &out)) return d.count() > 0 ? max() : min();
    return {out};
  }
  friend constexpr Timestamp operator-(Timestamp t, Duration d) {
    std::int64_t out = 0;
    if (__builtin_sub_overflow(t.micros, d.count(), &out)) return d.count() < 0 ? max() : min();
    return {out};
  }
  friend constexpr Duration operator-(Timestamp a, Timestamp b) {
    std::int64_t out = 0;
    if (__builtin_sub_overflow(a.micros, b.micros, &out)) {
      return a.micros > b.micros ? Duration::max() : Duration::min();
    }
    return Duration{out};
  }
  /// ISO 8601 in UTC, e.g. "2026-11-24T01:47:00.000001Z".
  std::string to_string() const;
};

}  // namespace kitsune2
