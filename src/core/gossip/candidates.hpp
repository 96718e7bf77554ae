// Who may be asked for a round: an index by what the choice goes by.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

/// Orders what hangs at urls by a time, then by the url itself, so that a run can be repeated.
struct ByTimeThenUrl {
  template <class T>
  bool operator()(const std::pair<T, const Url*>& a, const std::pair<T, const Url*>& b) const {
    return a.first != b.first ? a.first < b.first : *a.second < *b.second;
  }
};

/// The peers that a round may begin with, filed by what rule D6 of RoundBook goes by. A choice looks at whom it takes
/// and at those whose time has come since the last one, however many there are. Complexity: O(log n) for each call.
class Candidates {
 public:
  struct Standing {
    bool overlaps = false;               ///< its storage arc and one of ours
    bool is_silent = false;              ///< it did not answer the last time
    bool is_stranger = false;            ///< we had nothing to do with it at this own url
    std::optional<Timestamp> last = {};  ///< the last gossip with it, also in an earlier life
    Time from = Time::min();             ///< it may be asked from then on
    friend bool operator==(const Standing&, const Standing&) = default;
  };

  Candidates() = default;
  Candidates(const Candidates&) = delete;
  Candidates& operator=(const Candidates&) = delete;

  /// Adds `peer`, or files it anew.
  void file(const Url& peer, const Standing& standing);
  void erase(const Url& peer);
  void clear();
  /// nullptr: it is not here.
  const Standing* find(const Url& peer) const;
  template <class F>
  void for_each(F call) const {
    for (const auto& [peer, entry] : entries_) call(peer, entry.standing);
  }
  std::size_t size() const { return entries_.size(); }

  /// Those who may be asked from `now` on, or earlier, are found by `pick` from here on.
  void advance(Time now);
  /// Of those who may be asked: one whom there was no gossip with, by `random`, or else the one whose last gossip is
  /// the longest ago. nullptr: none.
  const Url* pick(bool silent, bool overlaps, bool strangers_only, std::uint32_t random) const;

  /// Steps that were taken until now, for tests of what a choice costs.
  std::uint64_t work() const { return work_; }

 private:
  /// Those who may be asked now, of one kind.
  struct Pile {
    std::vector<const Url*> fresh;  ///< no gossip yet
    std::set<std::pair<Timestamp, const Url*>, ByTimeThenUrl> met;
  };
  struct Entry {
    Standing standing;
    bool is_waiting = false;
    std::size_t place = 0;  ///< in `fresh`
  };
  Pile& pile_of(const Standing& standing);
  const Pile& pile_of(bool silent, bool overlaps, bool stranger) const;
  void put_in(const Url& peer, Entry& entry);
  void take_out(const Url& peer, Entry& entry);

  std::unordered_map<Url, Entry> entries_;
  std::array<Pile, 8> piles_;
  std::set<std::pair<Time, const Url*>, ByTimeThenUrl> waiting_;
  Time now_ = Time::min();
  mutable std::uint64_t work_ = 0;
};

}  // namespace kitsune2::gossip
