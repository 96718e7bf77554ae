// The division of time into slices and rings; the rules are in the header.
#include "core/dht/time_layout.hpp"

#include <algorithm>

namespace kitsune2::dht {

std::int64_t unit_of(Timestamp t) {
  const std::int64_t quotient = t.micros / kUnit.count();
  return t.micros % kUnit.count() < 0 ? quotient - 1 : quotient;
}

Timestamp unit_start(std::int64_t unit) {
  std::int64_t micros = 0;
  if (__builtin_mul_overflow(unit, kUnit.count(), &micros)) return unit < 0 ? Timestamp::min() : Timestamp::max();
  return {micros};
}

TimeLayout TimeLayout::at(Timestamp now) {
  TimeLayout out;
  const Timestamp settled = now - kMinRecentUnits * kUnit;
  const std::int64_t slices = settled.micros <= 0 ? 0 : unit_of(settled) / kUnitsPerSlice;
  out.boundary_unit_ = slices * kUnitsPerSlice;

  // How much of the time after the boundary no ring covers yet. The comparison is strict: a ring exists only once its
  // end is in the past.
  Duration rest = std::max(now, Timestamp{}) - out.disc_boundary();
  std::int64_t unit = out.boundary_unit_;
  for (unsigned log2_units = 9; log2_units-- > 0;) {
    const std::int64_t units = std::int64_t{1} << log2_units;
    const std::int64_t with_all_shorter =
        (2 * units - 1) + units;  // one of each length up to this one, and this one again
    const int count = rest > with_all_shorter * kUnit ? 2 : rest > units * kUnit ? 1 : 0;
    for (int i = 0; i < count; ++i) {
      out.rings_.push_back({unit, log2_units});
      unit += units;
      rest -= units * kUnit;
    }
  }
  return out;
}

std::optional<std::size_t> TimeLayout::ring_of(std::int64_t unit) const {
  if (unit < boundary_unit_ || unit >= end_unit()) return std::nullopt;
  const auto after = std::upper_bound(rings_.begin(), rings_.end(), unit,
                                      [](std::int64_t u, const Ring& ring) { return u < ring.first_unit; });
  return static_cast<std::size_t>(after - rings_.begin()) - 1;
}

}  // namespace kitsune2::dht
