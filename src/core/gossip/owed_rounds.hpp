// Rounds owed to peers, by the time when they are due.
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "core/gossip/candidates.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

/// The rounds that are owed (rule D4 of RoundBook), at most one to each peer. O(log n) for each call.
class OwedRounds {
 public:
  struct Owed {
    Time since;
    Time reason_at;  ///< when the latest reason for it came up
    Time due;
  };

  OwedRounds() = default;
  OwedRounds(const OwedRounds&) = delete;
  OwedRounds& operator=(const OwedRounds&) = delete;

  /// The round that is owed to `peer`; nullptr if there is none.
  const Owed* find(const Url& peer) const;
  /// Adds a round or replaces it.
  void put(const Url& peer, const Owed& owed);
  void erase(const Url& peer);
  /// The peer that has been owed a round for the longest, whether it is due or not.
  std::optional<Url> oldest() const;
  /// The same, among the peers whose round is due.
  std::optional<Url> oldest_due(Time now);
  /// When the next round becomes due; nullopt if none is owed.
  std::optional<Time> next_due() const;
  std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    Owed owed;
    bool is_due = false;  ///< `oldest_due` has found it to be
  };
  using Set = std::set<std::pair<Time, const Url*>, ByTimeThenUrl>;
  void take_out(const Url& peer, const Entry& entry);

  std::unordered_map<Url, Entry> entries_;
  Set by_since_;  ///< all
  Set waiting_;   ///< by when they are due
  Set due_;       ///< by `since`
};

}  // namespace kitsune2::gossip
