// Comparisons that are put off. Rules: O of gossip::PutOffs.
#include "core/gossip/put_offs.hpp"

namespace kitsune2::gossip {

bool PutOffs::is_due(const Url& peer) const {
  const std::uint32_t* in_a_row = in_a_row_.find(peer);
  return in_a_row != nullptr && *in_a_row >= kMostInARow;
}

bool PutOffs::on_list(const Url& peer, const NamedList& list) {
  const bool is_put_off = list.is_cut && list.ids > 0 && !list.is_by_allowance && !is_due(peer);
  if (is_put_off) {
    ++in_a_row_.touch(peer);
  } else {
    in_a_row_.erase(peer);
  }
  return is_put_off;
}

}  // namespace kitsune2::gossip
