// The agent infos of one space in memory; the rules are in the header.
#include "store/memory/peer_table.hpp"

#include <algorithm>
#include <string_view>

#include "core/peers/peer_eviction.hpp"

namespace kitsune2::store {
namespace {

/// An info that is ahead of our clock by more than this would not be taken from a peer; if one is held the clock was
/// set back, and then it must not keep its agent's newer ones out for as long as the clock was wrong.
constexpr Duration kMaxAhead = std::chrono::minutes(3);

}  // namespace

// --------------------------------------------------------------- PeerTable

PeerTable::PeerTable(SpaceId space, std::size_t max_agents, Random random)
    : space_(std::move(space)), max_agents_(max_agents), random_(std::move(random)) {}

PeerTable::Changes PeerTable::insert(const std::vector<AgentInfoPtr>& infos, const std::string& bringer,
                                     Timestamp now) {
  prune(now);
  Changes out;
  for (const AgentInfoPtr& info : infos) {
    if (!info || info->is_expired(now) || kept_until(info->info()) <= now || info->info().space != space_) continue;
    const AgentInfo& fresh = info->info();
    Entry entry{info, bringer, now};
    if (const auto held = agents_.find(fresh.agent); held != agents_.end()) {
      const Timestamp held_at = held->second.info->info().created_at;
      if (held_at >= fresh.created_at && held_at <= now + kMaxAhead) continue;
      entry.since = held->second.since;
      const bool comes_itself = fresh.url && fresh.url->str() == bringer;
      if (!comes_itself) entry.bringer = held->second.bringer;
      erase(held);
    }
    by_expiry_.emplace(kept_until(fresh), fresh.agent);
    if (fresh.url && !fresh.is_tombstone) by_url_.emplace(*fresh.url, fresh.agent);
    agents_.emplace(fresh.agent, std::move(entry));
    out.kept.push_back(info);
  }
  // Some more than must go, so that not each of many that come makes all be looked at.
  if (agents_.size() > max_agents_) evict(agents_.size() - max_agents_ + max_agents_ / 64, out.gone);
  // An info may have been replaced by a later one of the same call, or have had to go at once.
  std::erase_if(out.kept, [this](const AgentInfoPtr& info) {
    const auto it = agents_.find(info->info().agent);
    return it == agents_.end() || it->second.info != info;
  });
  return out;
}

void PeerTable::evict(std::size_t count, std::vector<AgentId>& gone) {
  std::vector<PeerCandidate> candidates;
  std::vector<ByAgent::iterator> entries;
  candidates.reserve(agents_.size());
  entries.reserve(agents_.size());
  std::map<std::string_view, std::uint32_t> bringers;
  std::map<std::string, std::uint32_t> groups;
  // What was done at a url counts for the agent that has been known there longest: others may only claim to be there.
  std::map<std::string_view, ByAgent::const_iterator> first_at;
  for (auto it = agents_.cbegin(); it != agents_.cend(); ++it) {
    const auto& url = it->second.info->info().url;
    if (!url) continue;
    const auto [first, is_new] = first_at.try_emplace(url->str(), it);
    if (!is_new && it->second.since < first->second->second.since) first->second = it;
  }
  for (auto it = agents_.begin(); it != agents_.end(); ++it) {
    const AgentInfo& info = it->second.info->info();
    PeerCandidate candidate;
    candidate.known_since = it->second.since.micros;
    candidate.bringer =
        bringers.try_emplace(it->second.bringer, static_cast<std::uint32_t>(bringers.size())).first->second;
    if (use_) {
      PeerUse use = use_(info);
      const bool is_first = info.url && first_at.at(info.url->str())->first == it->first;
      candidate.is_own = use.is_own;
      candidate.in_use = use.in_use && is_first;
      candidate.usefulness = is_first ? use.usefulness : 0;
      if (use.address_group) {
        candidate.group =
            groups.try_emplace(std::move(*use.address_group), static_cast<std::uint32_t>(groups.size())).first->second;
      }
    }
    candidates.push_back(candidate);
    entries.push_back(it);
  }
  for (const std::size_t i : choose_peers_to_evict(candidates, count, random_)) {
    gone.push_back(entries[i]->first);
    erase(entries[i]);
  }
}

bool PeerTable::remove(const AgentId& agent) {
  const auto it = agents_.find(agent);
  if (it == agents_.end()) return false;
  erase(it);
  return true;
}

void PeerTable::erase(ByAgent::iterator it) {
  const AgentInfo& info = it->second.info->info();
  by_expiry_.erase({kept_until(info), info.agent});
  if (info.url) by_url_.erase({*info.url, info.agent});
  agents_.erase(it);
}

void PeerTable::prune(Timestamp now) {
  while (!by_expiry_.empty() && by_expiry_.begin()->first <= now) {
    const AgentId agent = by_expiry_.begin()->second;
    erase(agents_.find(agent));
  }
}

template <class Wanted>
std::vector<AgentInfoPtr> PeerTable::select(Timestamp now, Wanted wanted) {
  prune(now);
  std::vector<AgentInfoPtr> out;
  for (const auto& [agent, entry] : agents_) {
    const AgentInfo& info = entry.info->info();
    if (!info.is_tombstone && wanted(info)) out.push_back(entry.info);
  }
  return out;
}

AgentInfoPtr PeerTable::get(const AgentId& agent, Timestamp now) {
  prune(now);
  const auto it = agents_.find(agent);
  return it == agents_.end() || it->second.info->info().is_tombstone ? nullptr : it->second.info;
}

std::vector<AgentInfoPtr> PeerTable::get_all(Timestamp now) {
  return select(now, [](const AgentInfo&) { return true; });
}

std::vector<AgentInfoPtr> PeerTable::get_by_overlapping_storage_arc(const DhtArc& arc, Timestamp now) {
  return select(now, [&](const AgentInfo& info) { return arc.overlaps(info.storage_arc); });
}

std::vector<AgentInfoPtr> PeerTable::get_near_location(std::uint32_t loc, std::size_t limit, Timestamp now) {
  const auto candidates = select(now, [](const AgentInfo& info) { return !info.storage_arc.empty(); });
  struct Near {
    std::uint32_t distance;
    std::uint32_t turn;
    std::size_t candidate;
    bool operator<(const Near& other) const {
      return distance != other.distance ? distance < other.distance : turn < other.turn;
    }
  };
  // Many agents store everything: which of those comes first depends on the location, so that they share the load.
  const std::uint32_t mixed = loc * 0x9e37'79b1U;
  std::vector<Near> order;
  order.reserve(candidates.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const AgentInfo& info = candidates[i]->info();
    const auto turn = (static_cast<std::uint32_t>(keyed_hash(info.agent.view())) ^ mixed) * 0x85eb'ca77U;
    order.push_back({info.storage_arc.dist(loc), turn, i});
  }
  limit = std::min(limit, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(limit), order.end());
  std::vector<AgentInfoPtr> out;
  out.reserve(limit);
  for (std::size_t i = 0; i < limit; ++i) out.push_back(candidates[order[i].candidate]);
  return out;
}

std::vector<AgentInfoPtr> PeerTable::get_by_url(const Url& url, Timestamp now) {
  prune(now);
  std::vector<AgentInfoPtr> out;
  for (auto it = by_url_.lower_bound({url, AgentId()}); it != by_url_.end() && it->first == url; ++it) {
    out.push_back(agents_.at(it->second).info);
  }
  return out;
}

bool PeerTable::is_at_url(const Url& url, Timestamp now) {
  prune(now);
  const auto it = by_url_.lower_bound({url, AgentId()});
  return it != by_url_.end() && it->first == url;
}

std::vector<AgentInfoPtr> PeerTable::everything() const {
  std::vector<AgentInfoPtr> out;
  out.reserve(agents_.size());
  for (const auto& [agent, entry] : agents_) out.push_back(entry.info);
  return out;
}

// ------------------------------------------------------------- PeerUpdates

// --------------------------------------------------------------- PeerNotes

Result<void> PeerNotes::check_put(const Url& peer, const std::string& key, const Bytes& value, Timestamp now) {
  if (key.size() > kMaxKeyBytes) return make_error(Errc::too_large, "peer note: key over 256 bytes");
  if (value.size() > kMaxValueBytes) return make_error(Errc::too_large, "peer note: value over 1 MiB");
  if (const auto of_key = by_key_.find(key); of_key != by_key_.end() && of_key->second.contains(peer)) return {};
  if (entries_ < max_entries_) return {};
  while (!by_expiry_.empty() && std::get<Timestamp>(*by_expiry_.begin()) <= now) {
    const auto [expiry, expired_key, expired_peer] = *by_expiry_.begin();
    remove(expired_peer, expired_key);
  }
  if (entries_ < max_entries_) return {};
  return make_error(Errc::overloaded, "peer notes: " + std::to_string(max_entries_) + " entries are held");
}

void PeerNotes::put(const Url& peer, const std::string& key, Note note) {
  remove(peer, key);
  if (note.expiry) by_expiry_.emplace(*note.expiry, key, peer);
  by_key_[key].emplace(peer, std::move(note));
  ++entries_;
}

std::optional<Bytes> PeerNotes::get(const Url& peer, const std::string& key, Timestamp now) const {
  const Note* note = find(peer, key);
  if (note == nullptr || !note->is_live(now)) return std::nullopt;
  return note->value;
}

const PeerNotes::Note* PeerNotes::find(const Url& peer, const std::string& key) const {
  const auto of_key = by_key_.find(key);
  if (of_key == by_key_.end()) return nullptr;
  const auto it = of_key->second.find(peer);
  return it == of_key->second.end() ? nullptr : &it->second;
}

bool PeerNotes::remove(const Url& peer, const std::string& key) {
  const auto of_key = by_key_.find(key);
  if (of_key == by_key_.end()) return false;
  const auto note = of_key->second.find(peer);
  if (note == of_key->second.end()) return false;
  if (note->second.expiry) by_expiry_.erase({*note->second.expiry, key, peer});
  of_key->second.erase(note);
  --entries_;
  if (of_key->second.empty()) by_key_.erase(of_key);
  return true;
}

std::vector<std::pair<Url, Bytes>> PeerNotes::get_all_by_key(const std::string& key, Timestamp now) const {
  std::vector<std::pair<Url, Bytes>> out;
  if (const auto of_key = by_key_.find(key); of_key != by_key_.end()) {
    for (const auto& [peer, note] : of_key->second) {
      if (note.is_live(now)) out.emplace_back(peer, note.value);
    }
  }
  return out;
}

}  // namespace kitsune2::store
