// The addresses from which peers connect. The header says what they are for.
#include "transport/tx5/peer_addresses.hpp"

#include <algorithm>
#include <iterator>

#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "transport/iroh/endpoint_url.hpp"

namespace kitsune2::tx5 {
namespace {

constexpr std::size_t kGroupBytes = 7;  // of an IPv6 address

/// What is equal for all addresses of a group.
slots::Address in_group(slots::Address address) {
  if (!slots::is_v4(address)) std::fill(address.begin() + kGroupBytes, address.end(), std::uint8_t{0});
  return address;
}

}  // namespace

PeerAddresses::Rank PeerAddresses::rank_of(const Groups::value_type& group) {
  const auto& [address, peers] = group;
  return {peers.size(), UINT64_MAX - peers.front().first, address};
}

void PeerAddresses::begin(const Url& relay) {
  relay_ = relay;
  known_.clear();
  groups_.clear();
  ranks_.clear();
}

void PeerAddresses::learn(const sbd::NodeId& peer, const slots::Address& address) {
  if (const auto before = known_.find(peer); before != known_.end()) {
    if (before->second.address == address) return;
    forget(peer);
  }
  const auto group = groups_.try_emplace(in_group(address)).first;
  if (!group->second.empty()) ranks_.erase(rank_of(*group));
  known_[peer] = {address, group->second.emplace(group->second.end(), ++last_, peer)};
  ranks_.insert(rank_of(*group));
  if (known_.size() > most_) forget(sbd::NodeId(groups_.at(std::prev(ranks_.end())->group).front().second));
}

void PeerAddresses::forget(const sbd::NodeId& peer) {
  const auto found = known_.find(peer);
  if (found == known_.end()) return;
  const auto group = groups_.find(in_group(found->second.address));
  ranks_.erase(rank_of(*group));
  group->second.erase(found->second.place);
  known_.erase(found);
  if (group->second.empty()) {
    groups_.erase(group);
  } else {
    ranks_.insert(rank_of(*group));
  }
}

std::optional<slots::Address> PeerAddresses::of(const sbd::NodeId& peer) const {
  const auto found = known_.find(peer);
  return found == known_.end() ? std::nullopt : std::optional(found->second.address);
}

std::optional<std::string> PeerAddresses::group_of(const Url& peer) const {
  const auto path = peer.peer_id();
  if (!path || !relay_ || peer.relay() != *relay_) return std::nullopt;
  auto id = sbd::node_id_from_path(*path);
  if (!id) id = iroh::endpoint_id(peer);
  const auto address = id ? of(*id) : std::nullopt;
  if (!address) return std::nullopt;
  const auto group = in_group(*address);
  return to_hex(slots::is_v4(group) ? ByteView(group).subspan(12) : ByteView(group).first(kGroupBytes));
}

void PeerAddresses::check_invariants() const {
  std::size_t count = 0;
  for (const auto& group : groups_) {
    count += group.second.size();
    K2_ASSERT(!group.second.empty() && ranks_.contains(rank_of(group)));
    for (const auto& [number, peer] : group.second) K2_ASSERT(in_group(known_.at(peer).address) == group.first);
  }
  K2_ASSERT(count == known_.size() && ranks_.size() == groups_.size() && count <= most_);
}

}  // namespace kitsune2::tx5
