// The index of peers with which a round may begin.
#include "core/gossip/candidates.hpp"

#include <algorithm>

namespace kitsune2::gossip {
namespace {

std::size_t index_of(bool silent, bool overlaps, bool stranger) {
  return (silent ? 4U : 0U) + (overlaps ? 2U : 0U) + (stranger ? 1U : 0U);
}

}  // namespace

void Candidates::file(const Url& peer, const Standing& standing) {
  ++work_;
  const auto [it, is_new] = entries_.try_emplace(peer);
  Entry& entry = it->second;
  if (!is_new) {
    if (entry.standing == standing) return;
    take_out(it->first, entry);
  }
  entry.standing = standing;
  put_in(it->first, entry);
}

void Candidates::erase(const Url& peer) {
  ++work_;
  const auto it = entries_.find(peer);
  if (it == entries_.end()) return;
  take_out(it->first, it->second);
  entries_.erase(it);
}

void Candidates::clear() {
  work_ += entries_.size();
  for (Pile& pile : piles_) pile = {};
  waiting_.clear();
  entries_.clear();
}

const Candidates::Standing* Candidates::find(const Url& peer) const {
  const auto it = entries_.find(peer);
  return it == entries_.end() ? nullptr : &it->second.standing;
}

void Candidates::advance(Time now) {
  now_ = std::max(now_, now);
  while (!waiting_.empty() && waiting_.begin()->first <= now_) {
    ++work_;
    const Url& peer = *waiting_.begin()->second;
    Entry& entry = entries_.at(peer);
    take_out(peer, entry);
    put_in(peer, entry);
  }
}

const Url* Candidates::pick(bool silent, bool overlaps, bool strangers_only, std::uint32_t random) const {
  ++work_;
  const Pile& strangers = pile_of(silent, overlaps, true);
  const Pile& others = pile_of(silent, overlaps, false);
  const std::size_t fresh = strangers.fresh.size() + (strangers_only ? 0 : others.fresh.size());
  if (fresh > 0) {
    const std::size_t i = random % fresh;
    return i < strangers.fresh.size() ? strangers.fresh[i] : others.fresh[i - strangers.fresh.size()];
  }
  const bool has_others = !strangers_only && !others.met.empty();
  if (strangers.met.empty()) return has_others ? others.met.begin()->second : nullptr;
  if (!has_others || ByTimeThenUrl()(*strangers.met.begin(), *others.met.begin())) return strangers.met.begin()->second;
  return others.met.begin()->second;
}

Candidates::Pile& Candidates::pile_of(const Standing& standing) {
  return piles_[index_of(standing.is_silent, standing.overlaps, standing.is_stranger)];
}

const Candidates::Pile& Candidates::pile_of(bool silent, bool overlaps, bool stranger) const {
  return piles_[index_of(silent, overlaps, stranger)];
}

void Candidates::put_in(const Url& peer, Entry& entry) {
  const Standing& standing = entry.standing;
  entry.is_waiting = standing.from > now_;
  if (entry.is_waiting) {
    waiting_.emplace(standing.from, &peer);
  } else if (Pile& pile = pile_of(standing); standing.last) {
    pile.met.emplace(*standing.last, &peer);
  } else {
    entry.place = pile.fresh.size();
    pile.fresh.push_back(&peer);
  }
}

void Candidates::take_out(const Url& peer, Entry& entry) {
  const Standing& standing = entry.standing;
  if (entry.is_waiting) {
    waiting_.erase({standing.from, &peer});
  } else if (Pile& pile = pile_of(standing); standing.last) {
    pile.met.erase({*standing.last, &peer});
  } else {
    // The last one takes the free place.
    pile.fresh[entry.place] = pile.fresh.back();
    entries_.at(*pile.fresh.back()).place = entry.place;
    pile.fresh.pop_back();
  }
}

}  // namespace kitsune2::gossip
