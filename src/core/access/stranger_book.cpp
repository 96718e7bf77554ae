// Messages of strangers: their bounds, and who gives way when everything is full.
#include "core/access/stranger_book.hpp"

#include <algorithm>

namespace kitsune2 {

template <class Gone>
std::vector<Bytes> StrangerBook::remove(Peers::iterator peer, Gone gone) {
  std::vector<Bytes> out;
  std::deque<Item> kept;
  for (Item& item : peer->second.items) {
    if (!gone(item)) {
      kept.push_back(std::move(item));
      continue;
    }
    peer->second.bytes -= cost_of(item.message);
    bytes_ -= cost_of(item.message);
    messages_ -= 1;
    out.push_back(std::move(item.message));
  }
  peer->second.items = std::move(kept);
  if (peer->second.items.empty()) peers_.erase(peer);
  return out;
}

bool StrangerBook::hold(const Url& peer, const SpaceId& space, const Bytes& message, Time now, std::uint64_t& dropped) {
  const std::size_t cost = cost_of(message);
  const auto own = peers_.find(peer);
  const std::size_t held = own == peers_.end() ? 0 : own->second.bytes;
  if (held + cost > kMostBytes || (own != peers_.end() && own->second.items.size() >= kMostMessages)) return false;
  while (bytes_ + cost > kMostBytesInAll) {
    const auto largest = std::max_element(peers_.begin(), peers_.end(),
                                          [](const auto& a, const auto& b) { return a.second.bytes < b.second.bytes; });
    if (largest->first == peer || largest->second.bytes <= held + cost) return false;
    dropped += remove(largest, [](const Item&) { return true; }).size();
  }
  Peer& entry = peers_[peer];
  // A slice would keep the whole buffer that it came in, which may be a hundred times as large.
  entry.items.push_back({space, message.compact(), now + kPatience});
  entry.bytes += cost;
  bytes_ += cost;
  messages_ += 1;
  return true;
}

std::vector<Bytes> StrangerBook::take(const Url& peer, const SpaceId& space) {
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return {};
  return remove(found, [&](const Item& item) { return item.space == space; });
}

std::uint64_t StrangerBook::forget(const SpaceId& space) {
  std::uint64_t count = 0;
  for (auto peer = peers_.begin(); peer != peers_.end();)
    count += remove(peer++, [&](const Item& item) { return item.space == space; }).size();
  return count;
}

std::uint64_t StrangerBook::expire(Time now) {
  std::uint64_t count = 0;
  for (auto peer = peers_.begin(); peer != peers_.end();)
    count += remove(peer++, [&](const Item& item) { return item.until <= now; }).size();
  return count;
}

std::map<SpaceId, Url> StrangerBook::waiting() const {
  std::map<SpaceId, Url> out;
  for (const auto& [url, peer] : peers_) {
    for (const Item& item : peer.items) out.try_emplace(item.space, url);
  }
  return out;
}

}  // namespace kitsune2
