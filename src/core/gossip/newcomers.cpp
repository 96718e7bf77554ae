// How far newcomers have been told of our history, and the allowance that they share.
#include "core/gossip/newcomers.hpp"

#include <algorithm>

namespace kitsune2::gossip {

std::optional<Timestamp> Newcomers::place(const std::vector<AgentId>& agents, const SectorSet& common) const {
  std::optional<Timestamp> out;
  for (std::size_t i = 0; i < agents.size() && i < kMostAgents; ++i) {
    const auto it = places_.find(agents[i]);
    const bool known = it != places_.end() && common.is_within(it->second.sectors);
    const Timestamp at = known ? it->second.to : Timestamp{0};
    out = out ? std::min(*out, at) : at;
  }
  return out;
}

void Newcomers::on_named(const std::vector<AgentId>& agents, const SectorSet& common, Timestamp to) {
  for (std::size_t i = 0; i < agents.size() && i < kMostAgents; ++i) {
    Place& place = places_[agents[i]];
    place.touched = ++touches_;
    if (common.is_within(place.sectors)) {
      // Fewer sectors may be common than before: ops of the others were announced up to the old place only.
      if (to > place.to) place = {to, common, place.touched};
    } else {
      place = {to, common, place.touched};
    }
  }
  if (places_.size() > kMostPlaces) make_room();
}

void Newcomers::make_room() {
  std::vector<std::uint64_t> touched;
  touched.reserve(places_.size());
  for (const auto& [agent, place] : places_) touched.push_back(place.touched);
  const auto middle = touched.begin() + static_cast<std::ptrdiff_t>(touched.size() / 2);
  std::nth_element(touched.begin(), middle, touched.end());
  std::erase_if(places_, [limit = *middle](const auto& entry) { return entry.second.touched < limit; });
}

Newcomers::Room Newcomers::room(Time now, std::uint32_t most_bytes) {
  if (bytes_ < 0) {
    bytes_ = most_bytes;
  } else if (now > filled_at_) {
    const double share = std::min(1.0, std::chrono::duration<double>(now - filled_at_) / kFillsWithin);
    ids_ = std::min<double>(kIds, ids_ + share * kIds);
    bytes_ = std::min<double>(most_bytes, bytes_ + share * most_bytes);
  }
  filled_at_ = now;
  return {static_cast<std::uint64_t>(std::max(0.0, ids_) / 2), static_cast<std::uint32_t>(std::max(0.0, bytes_) / 2)};
}

void Newcomers::spend(std::uint64_t ids, std::uint64_t bytes) {
  ids_ = std::max(0.0, ids_ - static_cast<double>(ids));
  bytes_ = std::max(0.0, bytes_ - static_cast<double>(bytes));
}

}  // namespace kitsune2::gossip
