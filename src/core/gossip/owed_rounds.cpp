// Rounds owed to peers: found by peer, by age and by the time when they are due.
#include "core/gossip/owed_rounds.hpp"

#include <algorithm>

namespace kitsune2::gossip {

const OwedRounds::Owed* OwedRounds::find(const Url& peer) const {
  const auto it = entries_.find(peer);
  return it == entries_.end() ? nullptr : &it->second.owed;
}

void OwedRounds::put(const Url& peer, const Owed& owed) {
  const auto [it, is_new] = entries_.try_emplace(peer);
  if (!is_new) take_out(it->first, it->second);
  it->second = {owed, false};
  by_since_.emplace(owed.since, &it->first);
  waiting_.emplace(owed.due, &it->first);
}

void OwedRounds::erase(const Url& peer) {
  const auto it = entries_.find(peer);
  if (it == entries_.end()) return;
  take_out(it->first, it->second);
  entries_.erase(it);
}

void OwedRounds::take_out(const Url& peer, const Entry& entry) {
  by_since_.erase({entry.owed.since, &peer});
  if (entry.is_due) {
    due_.erase({entry.owed.since, &peer});
  } else {
    waiting_.erase({entry.owed.due, &peer});
  }
}

std::optional<Url> OwedRounds::oldest() const {
  if (by_since_.empty()) return std::nullopt;
  return *by_since_.begin()->second;
}

std::optional<Url> OwedRounds::oldest_due(Time now) {
  while (!waiting_.empty() && waiting_.begin()->first <= now) {
    const Url* peer = waiting_.begin()->second;
    waiting_.erase(waiting_.begin());
    Entry& entry = entries_.at(*peer);
    entry.is_due = true;
    due_.emplace(entry.owed.since, peer);
  }
  if (due_.empty()) return std::nullopt;
  return *due_.begin()->second;
}

std::optional<Time> OwedRounds::next_due() const {
  // What was found due has been due for some time.
  if (!due_.empty()) return Time::min();
  if (waiting_.empty()) return std::nullopt;
  return waiting_.begin()->first;
}

}  // namespace kitsune2::gossip
