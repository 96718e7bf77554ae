// Turns of disc and rings in comparing. Rules: C of gossip::ComparisonTurns.
#include "core/gossip/comparison_turns.hpp"

namespace kitsune2::gossip {

bool ComparisonTurns::is_turn_of_rings(const Url& peer, bool is_ours, const dht::CombinedHash& difference) const {
  const auto it = peers_.find(peer);
  if (it == peers_.end()) return false;
  const Turns& turns = it->second->second;
  const bool is_stuck = turns.same >= kDiscTurns && turns.difference == difference;
  return is_stuck ? turns.rings < kRingTurns : is_ours && turns.discs >= kDiscTurns;
}

void ComparisonTurns::on_rings(const Url& peer) {
  const auto it = peers_.find(peer);
  if (it == peers_.end()) return;
  ++it->second->second.rings;
  it->second->second.discs = 0;
}

void ComparisonTurns::on_disc(const Url& peer) {
  auto it = peers_.find(peer);
  if (it == peers_.end()) {
    by_touch_.emplace_front(peer, Turns{});
    it = peers_.emplace(peer, by_touch_.begin()).first;
    if (peers_.size() > kMostPeers) {
      peers_.erase(by_touch_.back().first);
      by_touch_.pop_back();
    }
  }
  by_touch_.splice(by_touch_.begin(), by_touch_, it->second);
  Turns& turns = it->second->second;
  ++turns.discs;
  turns.rings = 0;
}

void ComparisonTurns::on_disc_named(const Url& peer, const dht::CombinedHash& difference) {
  const auto it = peers_.find(peer);
  if (it == peers_.end()) return;
  Turns& turns = it->second->second;
  if (turns.same == 0 || turns.difference != difference) {
    turns.difference = difference;
    turns.same = 0;
  }
  ++turns.same;
}

void ComparisonTurns::on_same_disc(const Url& peer) {
  const auto it = peers_.find(peer);
  if (it == peers_.end()) return;
  by_touch_.erase(it->second);
  peers_.erase(it);
}

}  // namespace kitsune2::gossip
