// Turns of disc and rings in comparing. Rules: C of gossip::ComparisonTurns.
#include "core/gossip/comparison_turns.hpp"

namespace kitsune2::gossip {

bool ComparisonTurns::is_turn_of_rings(const Url& peer, bool is_ours, const dht::CombinedHash& difference) const {
  const Turns* turns = peers_.find(peer);
  if (turns == nullptr) return false;
  const bool is_stuck = turns->same >= kDiscTurns && turns->difference == difference;
  return is_stuck ? turns->rings < kRingTurns : is_ours && turns->discs >= kDiscTurns;
}

void ComparisonTurns::on_rings(const Url& peer) {
  Turns* turns = peers_.find(peer);
  if (turns == nullptr) return;
  ++turns->rings;
  turns->discs = 0;
}

void ComparisonTurns::on_disc(const Url& peer) {
  Turns& turns = peers_.touch(peer);
  ++turns.discs;
  turns.rings = 0;
}

void ComparisonTurns::on_disc_named(const Url& peer, const dht::CombinedHash& difference) {
  Turns* turns = peers_.find(peer);
  if (turns == nullptr) return;
  if (turns->same == 0 || turns->difference != difference) {
    turns->difference = difference;
    turns->same = 0;
  }
  ++turns->same;
}

void ComparisonTurns::on_same_disc(const Url& peer) { peers_.erase(peer); }

}  // namespace kitsune2::gossip
