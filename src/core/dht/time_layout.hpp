// How the DHT model divides time: full slices (the disc) and, for the recent past, rings of shrinking length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "kitsune2/time.hpp"

namespace kitsune2::dht {

inline constexpr Duration kUnit = std::chrono::minutes(15);
/// A full slice: 128 hours, aligned to 1970-01-01.
inline constexpr std::int64_t kUnitsPerSlice = 512;
/// Rings cover at least this much of the recent past.
inline constexpr std::int64_t kMinRecentUnits = kUnitsPerSlice - 1;

/// The unit that contains `t`, counted from 1970; negative before it.
std::int64_t unit_of(Timestamp t);
/// The first instant of a unit. Saturates.
Timestamp unit_start(std::int64_t unit);

/// A partial slice of 2^log2_units units.
struct Ring {
  std::int64_t first_unit = 0;
  unsigned log2_units = 0;

  std::int64_t units() const { return std::int64_t{1} << log2_units; }
  std::int64_t end_unit() const { return first_unit + units(); }
  friend bool operator==(const Ring&, const Ring&) = default;
};

/// The division of time at one instant. A function of that instant alone, so that two nodes whose clocks agree to a
/// unit have the same one. Immutable. Rust: `time.rs` of kitsune2_dht 0.2.2.
///
///     1970                                disc boundary                              now
///      |--- slice 0 ---| … |--- slice n-1 ---|- ring 0 -|- ring 1 -|-- … --|-|-|- (rest, in no ring)
///
/// *Rules*.
///  L1  There are as many full slices as end at least kMinRecentUnits before now.
///  L2  From there on come rings of 2^8, 2^7, … 2^0 units, two of a length if the rest is long enough to go on with the
///      shorter ones after them, one if it holds one, none otherwise.
///  L3  What is left over, a unit and a bit, is in no ring yet.
///  L4  The layout is due to change one unit after the end of the last ring.
class TimeLayout {
 public:
  /// A time before 1970 gives the layout of 1970, without slices and rings.
  static TimeLayout at(Timestamp now);

  std::uint64_t full_slices() const { return static_cast<std::uint64_t>(boundary_unit_ / kUnitsPerSlice); }
  /// The end of the last full slice.
  std::int64_t boundary_unit() const { return boundary_unit_; }
  Timestamp disc_boundary() const { return unit_start(boundary_unit_); }
  const std::vector<Ring>& rings() const { return rings_; }
  /// The end of the last ring.
  std::int64_t end_unit() const { return rings_.empty() ? boundary_unit_ : rings_.back().end_unit(); }
  Timestamp next_update() const { return unit_start(end_unit() + 1); }
  /// The index of the ring that contains `unit`; nullopt for a unit in the disc or after the last ring.
  std::optional<std::size_t> ring_of(std::int64_t unit) const;

  friend bool operator==(const TimeLayout&, const TimeLayout&) = default;

 private:
  std::int64_t boundary_unit_ = 0;
  std::vector<Ring> rings_;
};

}  // namespace kitsune2::dht
