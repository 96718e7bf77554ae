// Arcs on the DHT's ring: distance, overlap, text.
#include "kitsune2/arc.hpp"

#include <algorithm>

namespace kitsune2 {

std::uint32_t DhtArc::span() const { return empty_ ? 0 : end_ - start_; }

std::uint32_t DhtArc::dist(std::uint32_t loc) const {
  if (empty_) return UINT32_MAX;
  // Unsigned arithmetic walks around the ring: how far past the start, against how long the arc is.
  if (loc - start_ <= span()) return 0;
  return std::min(start_ - loc, loc - end_);
}

bool DhtArc::overlaps(const DhtArc& other) const {
  if (empty_ || other.empty_) return false;
  // Two arcs meet exactly if one starts inside the other.
  return contains(other.start_) || other.contains(start_);
}

std::string DhtArc::to_string() const {
  if (empty_) return "empty";
  return "[" + std::to_string(start_) + ", " + std::to_string(end_) + "]";
}

}  // namespace kitsune2
