// The peers with which a round may begin, indexed by the criteria of the choice.
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

/// Orders items at urls by a time, then by the url, so that a run can be repeated.
struct ByTimeThenUrl {
  template <class T>
  bool operator()(const std::pair<T, const Url*>& a, const std::pair<T, const Url*>& b) const {
    return a.first != b.first ? a.first < b.first : *a.second < *b.second;
  }
};

/// The peers with which a round may begin, filed by the criteria of rule D6 of RoundBook. However many there are, a
/// choice looks only at the peer that it takes, and at those whose time has come since the last choice. O(log n) for
/// each call.
class Candidates {
 public:
  struct Standing {
    bool overlaps = false;               ///< its storage arc overlaps one of ours
    bool is_silent = false;              ///< it did not answer our last attempt
    bool is_stranger = false;            ///< it has had no contact with us under our present url
    std::optional<Timestamp> last = {};  ///< the last gossip with it, perhaps before a restart
    Time from = Time::min();             ///< when it may be asked again
    friend bool operator==(const Standing&, const Standing&) = default;
  };

  Candidates() = default;
  Candidates(const Candidates&) = delete;
  Candidates& operator=(const Candidates&) = delete;

  /// Adds `peer`, or files it again.
  void file(const Url& peer, const Standing& standing);
  void erase(const Url& peer);
  void clear();
  /// nullptr if it is not in the index.
  const Standing* find(const Url& peer) const;
  template <class F>
  void for_each(F call) const {
    for (const auto& [peer, entry] : entries_) call(peer, entry.standing);
  }
  std::size_t size() const { return entries_.size(); }

  /// Sets the time. `pick` finds the peers that may be asked at `now` or earlier.
  void advance(Time now);
  /// One of the peers that may be asked: any without gossip so far, by `random`; if there is none, the one whose last
  /// gossip is longest ago. nullptr if no peer may be asked.
  const Url* pick(bool silent, bool overlaps, bool strangers_only, std::uint32_t random) const;

  /// The number of steps taken so far, for tests of the cost of a choice.
  std::uint64_t work() const { return work_; }

 private:
  /// The peers of one kind that may be asked now.
  struct Pile {
    std::vector<const Url*> fresh;  ///< no gossip with them yet
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
