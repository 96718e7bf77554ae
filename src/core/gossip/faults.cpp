// Counts and forgives the faults of gossip's peers.
#include "core/gossip/faults.hpp"

#include <algorithm>
#include <vector>

namespace kitsune2::gossip {

double Faults::at(const Count& count, Time now) {
  if (count.at == Time::min() || now <= count.at) return count.faults;
  return std::max(0.0, count.faults - std::chrono::duration<double>(now - count.at) / kForgivenIn);
}

bool Faults::add(const Url& peer, double weight, Time now) {
  if (peers_.size() >= kMostPeers && !peers_.contains(peer)) make_room(now);
  Count& count = peers_[peer];
  const double faults = at(count, now) + weight;
  count = {std::min(faults, kMost), std::max(count.at, now)};
  return faults >= kMost;
}

void Faults::make_room(Time now) {
  std::vector<double> faults;
  faults.reserve(peers_.size());
  for (const auto& [peer, count] : peers_) faults.push_back(at(count, now));
  const auto middle = faults.begin() + static_cast<std::ptrdiff_t>(faults.size() / 2);
  std::nth_element(faults.begin(), middle, faults.end());
  std::size_t left = peers_.size() / 2;
  std::erase_if(peers_, [&](const auto& entry) {
    if (left == 0 || at(entry.second, now) > *middle) return false;
    --left;
    return true;
  });
}

}  // namespace kitsune2::gossip
