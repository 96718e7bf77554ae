// Arcs: inclusive ranges on the DHT's ring of 2^32 locations.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kitsune2/abi.hpp"

namespace kitsune2 {

/// A range of locations that an agent stores: empty, or inclusive `[start, end]`, which wraps if start > end. The
/// arithmetic is that of `DhtArc` in kitsune2_api 0.2.2. See docs/protocol-wire.md, "Locations".
class DhtArc {
 public:
  constexpr DhtArc() = default;  ///< empty
  constexpr DhtArc(std::uint32_t start, std::uint32_t end) : start_(start), end_(end), empty_(false) {}

  static constexpr DhtArc none() { return {}; }
  static constexpr DhtArc full() { return {0, UINT32_MAX}; }
  /// The ring has 512 sectors of 2^23 locations, which are the smallest part that gossip compares.
  static constexpr std::uint32_t kSectors = 512;
  /// The arc of `count` sectors from number `first` on, around the ring. Empty for no sector, full for all of them.
  static constexpr DhtArc of_sectors(std::uint32_t first, std::uint32_t count) {
    if (count == 0) return none();
    if (count >= kSectors) return full();
    return {first % kSectors << kSectorBits, ((first + count) % kSectors << kSectorBits) - 1};
  }

  constexpr bool empty() const { return empty_; }
  constexpr bool is_full() const { return !empty_ && start_ == 0 && end_ == UINT32_MAX; }
  constexpr std::uint32_t start() const { return start_; }  ///< meaningless when empty
  constexpr std::uint32_t end() const { return end_; }      ///< meaningless when empty

  /// Whether the arc begins and ends where sectors do. An agent can only store such an arc: an info with another one
  /// keeps stock nodes from gossiping. True for an empty arc.
  constexpr bool is_of_whole_sectors() const {
    constexpr std::uint32_t kRest = (1U << kSectorBits) - 1;
    return empty_ || ((start_ & kRest) == 0 && (end_ & kRest) == kRest);
  }

  /// Steps from `loc` to the nearest point of the arc: 0 if it is inside, UINT32_MAX for the empty arc.
  std::uint32_t dist(std::uint32_t loc) const;
  bool contains(std::uint32_t loc) const { return !empty_ && dist(loc) == 0; }
  /// Whether the arcs share a location. False if either is empty.
  bool overlaps(const DhtArc& other) const;
  /// end - start around the ring. UINT32_MAX for a full arc, 0 for an empty one.
  std::uint32_t span() const;
  /// "empty" or "[start, end]".
  std::string to_string() const;

  friend constexpr bool operator==(const DhtArc& a, const DhtArc& b) {
    return a.empty_ == b.empty_ && (a.empty_ || (a.start_ == b.start_ && a.end_ == b.end_));
  }

 private:
  static constexpr std::uint32_t kSectorBits = 23;
  std::uint32_t start_ = 0;
  std::uint32_t end_ = 0;
  bool empty_ = true;
};

}  // namespace kitsune2
