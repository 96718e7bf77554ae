// Comparisons that are put off. Rules: O of gossip::PutOffs.
#include "core/gossip/put_offs.hpp"

namespace kitsune2::gossip {

bool PutOffs::is_due(const Url& peer) const {
  const auto it = peers_.find(peer);
  return it != peers_.end() && it->second->second >= kMostInARow;
}

bool PutOffs::on_list(const Url& peer, const NamedList& list) {
  const bool is_put_off = list.is_cut && list.ids > 0 && !list.is_by_allowance && !is_due(peer);
  auto it = peers_.find(peer);
  if (!is_put_off) {
    if (it == peers_.end()) return false;
    by_touch_.erase(it->second);
    peers_.erase(it);
    return false;
  }
  if (it == peers_.end()) {
    by_touch_.emplace_front(peer, 0);
    it = peers_.emplace(peer, by_touch_.begin()).first;
    if (peers_.size() > kMostPeers) {
      peers_.erase(by_touch_.back().first);
      by_touch_.pop_back();
    }
  }
  by_touch_.splice(by_touch_.begin(), by_touch_, it->second);
  ++it->second->second;
  return true;
}

}  // namespace kitsune2::gossip
