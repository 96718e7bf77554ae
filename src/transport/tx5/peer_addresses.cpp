// The addresses from which peers connect. The header says what they are for.
#include "transport/tx5/peer_addresses.hpp"

#include "kitsune2/ids.hpp"
#include "transport/iroh/endpoint_url.hpp"

namespace kitsune2::tx5 {

void PeerAddresses::begin(const Url& relay) {
  relay_ = relay;
  known_.clear();
  in_order_.clear();
}

void PeerAddresses::learn(const sbd::NodeId& peer, const slots::Address& address) {
  if (known_.insert_or_assign(peer, address).second) in_order_.push_back(peer);
  if (in_order_.size() <= most_) return;
  known_.erase(in_order_.front());
  in_order_.pop_front();
}

std::optional<slots::Address> PeerAddresses::of(const sbd::NodeId& peer) const {
  const auto found = known_.find(peer);
  return found == known_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::string> PeerAddresses::group_of(const Url& peer) const {
  const auto path = peer.peer_id();
  if (!path || !relay_ || peer.relay() != *relay_) return std::nullopt;
  auto id = sbd::node_id_from_path(*path);
  if (!id) id = iroh::endpoint_id(peer);
  const auto address = id ? of(*id) : std::nullopt;
  if (!address) return std::nullopt;
  const bool v4 = slots::is_v4(*address);
  return to_hex(ByteView(*address).subspan(v4 ? 12 : 0, v4 ? 4 : 7));
}

}  // namespace kitsune2::tx5
