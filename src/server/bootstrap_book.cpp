// The infos that a bootstrap server keeps, and what is dropped when it is full. The rules are in the header.
#include "server/bootstrap_book.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "core/slots/slots.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::server {

bool BootstrapBook::is_stale(const Space& space, const Info& info, Timestamp now) const {
  // An info from the future was put before this clock was set back: it keeps nothing out.
  const auto newer = [&](const auto& held) {
    return held.agent == info.agent && held.created_at >= info.created_at && held.created_at <= now + kClockSkew;
  };
  return std::ranges::any_of(space.entries, newer) || std::ranges::any_of(space.tombstones, newer);
}

BootstrapBook::Outcome BootstrapBook::put(const SpaceId& id, const Info& info, Timestamp now, std::uint64_t random) {
  const std::size_t cost = info.body.size() + kEntryOverhead;
  auto found = spaces_.find(id);
  if (found == spaces_.end()) {
    if (info.is_tombstone) return Outcome::taken;  // nothing to remove
    const bool full = spaces_.size() >= limits_.max_spaces;
    const bool hoards = owned_by(info.from) >= std::max<std::size_t>(limits_.max_spaces / 2, 1);
    if ((full || hoards) && !make_room(id, info.from, random)) return Outcome::too_many_spaces;
  } else {
    prune_space(found->second, now);
    if (is_stale(found->second, info, now)) {
      settle(id, found->second);
      return Outcome::taken;
    }
    settle(id, found->second);
  }
  const auto held_bytes = [&]() -> std::size_t {
    if (found == spaces_.end()) return 0;
    const auto& entries = found->second.entries;
    const auto old = std::ranges::find_if(entries, [&](const Entry& entry) { return entry.agent == info.agent; });
    return old == entries.end() ? 0 : old->body.size() + kEntryOverhead;
  };
  const std::size_t freed = held_bytes();
  while (!info.is_tombstone && bytes_ - freed + cost > limits_.max_bytes) {
    if (!make_room(id, info.from, slots::drawn(random, bytes_))) return Outcome::too_many_entries;
    found = spaces_.find(id);  // others moved
  }
  if (found == spaces_.end()) {
    found = spaces_.try_emplace(id).first;
    found->second.number = next_number_++;
  }
  Space& space = found->second;
  const auto old = std::ranges::find_if(space.entries, [&](const Entry& entry) { return entry.agent == info.agent; });
  if (info.is_tombstone) {
    if (old != space.entries.end()) drop_entry(space, static_cast<std::size_t>(old - space.entries.begin()));
    add_tombstone(space, info);
  } else if (old != space.entries.end()) {
    bytes_ += cost - freed;
    *old = Entry{info.agent, info.created_at, info.expires_at, std::string(info.body), info.from};
  } else {
    crowd_out(space, std::max<std::size_t>(limits_.max_entries_per_space, 1) - 1, &info.from);
    space.entries.push_back({info.agent, info.created_at, info.expires_at, std::string(info.body), info.from});
    bytes_ += cost;
    ++entries_;
  }
  settle(id, space, info.from);
  return Outcome::taken;
}

/// B4 and B5: drops one space, never `spared`. Returns false if none may be dropped.
bool BootstrapBook::make_room(const SpaceId& spared, const Address& newcomer, std::uint64_t random) {
  const std::size_t most = ranks_.empty() ? 0 : ranks_.rbegin()->first.first;
  const std::size_t own = owned_by(newcomer);
  if (own > 0 && (own >= most || own >= limits_.max_spaces / 2)) {
    if (const auto id = victim(owned_.at(newcomer), spared, false, random)) {
      drop(*id);
      return true;
    }
  }
  // Of those that have as many, the next one after a random number, then all the others.
  const auto first = ranks_.lower_bound({{most, slots::drawn(random, kDraws)}, {}});
  auto it = first == ranks_.end() ? ranks_.lower_bound({{most, 0}, {}}) : first;
  for (std::size_t tries = 0; tries < kDraws && tries < ranks_.size(); ++tries) {
    const std::size_t count = it->first.first;
    if (const auto id = victim(owned_.at(it->second), spared, count == 1, random)) {
      drop(*id);
      return true;
    }
    ++it;
    if (it == ranks_.end()) it = ranks_.lower_bound({{most, 0}, {}});
  }
  const auto id = shared_victim(spared, random);
  if (id) drop(*id);
  return id.has_value();
}

/// B5.
std::optional<SpaceId> BootstrapBook::shared_victim(const SpaceId& spared, std::uint64_t random) const {
  const SpaceId* best = nullptr;
  std::pair<std::size_t, std::uint64_t> best_worth{};
  const bool all = shared_.size() <= kDraws;
  for (std::size_t i = 0; i < std::min(kDraws, shared_.size()); ++i) {
    const SpaceId& id = shared_[all ? i : slots::drawn(random, i) % shared_.size()];
    if (id == spared) continue;
    const Space& space = spaces_.at(id);
    std::set<Address> from;
    for (const Entry& entry : space.entries) from.insert(entry.from);
    // The smaller this is, the sooner it is dropped.
    const std::pair worth{from.size(), ~space.number};
    if (best == nullptr || worth < best_worth) {
      best = &id;
      best_worth = worth;
    }
  }
  return best == nullptr ? std::nullopt : std::optional(*best);
}

std::optional<SpaceId> BootstrapBook::victim(const std::vector<SpaceId>& of, const SpaceId& spared, bool only_unasked,
                                             std::uint64_t random) const {
  const SpaceId* best = nullptr;
  std::pair<bool, std::uint64_t> best_worth{};
  const bool all = of.size() <= kDraws;
  for (std::size_t i = 0; i < std::min(kDraws, of.size()); ++i) {
    const SpaceId& id = of[all ? i : slots::drawn(random, i) % of.size()];
    const Space& space = spaces_.at(id);
    if (id == spared || (only_unasked && space.asked_for)) continue;
    // The larger this is, the sooner it is dropped.
    const std::pair worth{!space.asked_for, space.number};
    if (best == nullptr || worth > best_worth) {
      best = &id;
      best_worth = worth;
    }
  }
  return best == nullptr ? std::nullopt : std::optional(*best);
}

void BootstrapBook::drop(const SpaceId& id) {
  const auto it = spaces_.find(id);
  disown(it->second);
  for (const Entry& entry : it->second.entries) bytes_ -= entry.body.size() + kEntryOverhead;
  entries_ -= it->second.entries.size();
  spaces_.erase(it);
  ++evicted_;
}

void BootstrapBook::drop_entry(Space& space, std::size_t at) {
  bytes_ -= space.entries[at].body.size() + kEntryOverhead;
  --entries_;
  space.entries.erase(space.entries.begin() + static_cast<std::ptrdiff_t>(at));
}

/// B3: until at most `most` are left. `newcomer` will have one more than now.
void BootstrapBook::crowd_out(Space& space, std::size_t most, const Address* newcomer) {
  while (space.entries.size() > most) {
    std::map<Address, std::size_t> counts;
    for (const Entry& entry : space.entries) ++counts[entry.from];
    if (newcomer != nullptr && counts.contains(*newcomer)) ++counts[*newcomer];
    std::size_t largest = 1;
    for (const auto& [address, count] : counts) largest = std::max(largest, count);
    std::vector<std::size_t> pool;
    for (std::size_t i = 0; i < space.entries.size(); ++i) {
      if (counts[space.entries[i].from] == largest) pool.push_back(i);
    }
    drop_entry(space, pool[pool.size() / 2]);
  }
}

void BootstrapBook::add_tombstone(Space& space, const Info& info) {
  std::erase_if(space.tombstones, [&](const Tombstone& tombstone) { return tombstone.agent == info.agent; });
  if (space.tombstones.size() >= 4 * limits_.max_entries_per_space) space.tombstones.erase(space.tombstones.begin());
  space.tombstones.push_back({info.agent, info.created_at});
}

std::string BootstrapBook::list(const SpaceId& id, Timestamp now, const Address& reader) {
  std::string out = "[";
  if (const auto it = spaces_.find(id); it != spaces_.end()) {
    Space& space = it->second;
    if (space.owner && *space.owner != reader) space.asked_for = true;
    for (const Entry& entry : space.entries) {
      if (entry.expires_at <= now) continue;
      if (out.size() > 1) out += ',';
      out += entry.body;
    }
  }
  return out + ']';
}

void BootstrapBook::set_max_entries_per_space(std::size_t entries) {
  limits_.max_entries_per_space = entries;
  for (auto& [id, space] : spaces_) {
    crowd_out(space, entries, nullptr);
    if (space.tombstones.size() > 4 * entries) {
      space.tombstones.erase(space.tombstones.begin(),
                             space.tombstones.end() - static_cast<std::ptrdiff_t>(4 * entries));
    }
    settle(id, space);
  }
}

void BootstrapBook::prune_space(Space& space, Timestamp now) {
  std::erase_if(space.entries, [&](const Entry& entry) {
    if (entry.expires_at > now) return false;
    bytes_ -= entry.body.size() + kEntryOverhead;
    --entries_;
    return true;
  });
  // From here on, what is older than a tombstone is refused because of its created_at.
  std::erase_if(space.tombstones, [&](const Tombstone& tombstone) { return tombstone.created_at + kClockSkew < now; });
}

void BootstrapBook::prune(Timestamp now) {
  std::vector<SpaceId> empty;
  for (auto& [id, space] : spaces_) {
    prune_space(space, now);
    settle(id, space);
    if (space.entries.empty() && space.tombstones.empty()) empty.push_back(id);
  }
  for (const SpaceId& id : empty) {
    const auto it = spaces_.find(id);
    disown(it->second);
    spaces_.erase(it);
  }
}

/// The entries have changed: finds the owner (B4). `maker` has just put something into the space.
void BootstrapBook::settle(const SpaceId& id, Space& space, const std::optional<Address>& maker) {
  std::optional<Address> owner;
  if (space.entries.empty()) {
    owner = space.owner ? space.owner : maker;  // only tombstones are in it
  } else if (std::ranges::all_of(space.entries,
                                 [&](const Entry& entry) { return entry.from == space.entries.front().from; })) {
    owner = space.entries.front().from;
  }
  if (owner == space.owner && (owner || space.is_shared)) return;
  disown(space);
  if (owner) return own(id, space, *owner);
  space.is_shared = true;
  space.place = shared_.size();
  shared_.push_back(id);
}

void BootstrapBook::own(const SpaceId& id, Space& space, const Address& owner) {
  auto& list = owned_[owner];
  ranks_.erase({{list.size(), keyed_hash(owner)}, owner});
  space.owner = owner;
  space.place = list.size();
  list.push_back(id);
  ranks_.insert({{list.size(), keyed_hash(owner)}, owner});
}

void BootstrapBook::take_out(std::vector<SpaceId>& list, std::size_t place) {
  if (place + 1 != list.size()) {
    list[place] = list.back();
    spaces_.at(list[place]).place = place;
  }
  list.pop_back();
}

/// The space belongs to nobody, nor to several addresses.
void BootstrapBook::disown(Space& space) {
  if (std::exchange(space.is_shared, false)) take_out(shared_, space.place);
  if (!space.owner) return;
  const Address owner = *space.owner;
  auto& list = owned_.at(owner);
  ranks_.erase({{list.size(), keyed_hash(owner)}, owner});
  take_out(list, space.place);
  space.owner.reset();
  if (list.empty()) {
    owned_.erase(owner);
  } else {
    ranks_.insert({{list.size(), keyed_hash(owner)}, owner});
  }
}

std::vector<AgentId> BootstrapBook::agents(const SpaceId& id) const {
  std::vector<AgentId> out;
  if (const auto it = spaces_.find(id); it != spaces_.end()) {
    for (const Entry& entry : it->second.entries) out.push_back(entry.agent);
  }
  return out;
}

std::size_t BootstrapBook::owned_by(const Address& address) const {
  const auto it = owned_.find(address);
  return it == owned_.end() ? 0 : it->second.size();
}

void BootstrapBook::check_invariants() const {
  std::size_t bytes = 0, entries = 0, owned = 0, shared = 0;
  for (const auto& [id, space] : spaces_) {
    K2_ASSERT(space.entries.size() <= limits_.max_entries_per_space);
    K2_ASSERT(space.tombstones.size() <= 4 * limits_.max_entries_per_space);
    entries += space.entries.size();
    std::set<Address> from;
    for (const Entry& entry : space.entries) {
      bytes += entry.body.size() + kEntryOverhead;
      from.insert(entry.from);
    }
    K2_ASSERT(from.empty() || space.owner.has_value() == (from.size() == 1));
    K2_ASSERT(space.owner.has_value() != space.is_shared);
    if (space.is_shared) K2_ASSERT(shared_.at(space.place) == id);
    shared += space.is_shared ? 1 : 0;
    if (!space.owner) continue;
    owned += 1;
    K2_ASSERT(from.empty() || *from.begin() == *space.owner);
    K2_ASSERT(owned_.at(*space.owner)[space.place] == id);
  }
  for (const auto& [address, list] : owned_) {
    owned -= list.size();
    K2_ASSERT(!list.empty() && ranks_.contains({{list.size(), keyed_hash(address)}, address}));
  }
  K2_ASSERT(owned == 0 && ranks_.size() == owned_.size() && shared == shared_.size());
  K2_ASSERT(spaces_.size() <= std::max<std::size_t>(limits_.max_spaces, 1));
  K2_ASSERT(bytes == bytes_ && entries == entries_ && bytes_ <= limits_.max_bytes);
}

}  // namespace kitsune2::server
