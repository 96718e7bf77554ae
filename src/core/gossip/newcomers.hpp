// What stock nodes are named of our history.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/dht/sector_set.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2::gossip {

/// How far our ops have been named to agents that do not ask for old ones, and how much of that there is room for.
///
/// A stock node that meets us asks for what we stored in the last 30 minutes, and expects its comparison of the DHT to
/// find the rest, in several rounds that are 5 minutes apart. We name the rest unasked: from our first op on, a piece
/// in each round, beside what was asked for.
///
/// *Rules*. N1: who is new is seen by the agents that take part in the round, not by the url; a peer is as far as the
/// least far of them. N2: what was named counts for the sectors that were common then; when more are common it begins
/// anew. N3: a place moves on only when the round has ended well. N4: all newcomers share one allowance of ids and
/// payload bytes, which fills up again within a minute; one round takes at most half of what is there. N5: places of at
/// most 10'000 agents are kept, in memory. *Rationale*: N1, a url is new after each loss of a relay. N4, agents cost
/// nothing, and to name ops costs reading and sending: however many newcomers there are, they cost this much. Half, so
/// that one does not leave the next without any. N5, who is forgotten is named the ids again, which costs that
/// allowance and nothing else; what it holds it does not fetch again.
class Newcomers {
 public:
  static constexpr std::uint64_t kIds = 250'000;
  static constexpr Duration kFillsWithin = std::chrono::minutes(1);
  static constexpr std::size_t kMostPlaces = 10'000;
  /// Agents of one peer that are looked at.
  static constexpr std::size_t kMostAgents = 64;

  /// Up to where (by the time of storing) all of these agents have been named what lies in `common`; nullopt if there
  /// are none. 1970 for a newcomer.
  std::optional<Timestamp> place(const std::vector<AgentId>& agents, const SectorSet& common) const;
  /// `agents` have been named what lies in `common` and was stored before `to`.
  void on_named(const std::vector<AgentId>& agents, const SectorSet& common, Timestamp to);

  struct Room {
    std::uint64_t ids = 0;
    std::uint32_t bytes = 0;
    friend bool operator==(const Room&, const Room&) = default;
  };
  /// What one round may take now. `most_bytes`: the allowance when it is full.
  Room room(Time now, std::uint32_t most_bytes);
  void spend(std::uint64_t ids, std::uint64_t bytes);

 private:
  struct Place {
    Timestamp to;
    SectorSet sectors;
    std::uint64_t touched = 0;
  };
  void make_room();

  std::unordered_map<AgentId, Place> places_;
  std::uint64_t touches_ = 0;
  double ids_ = kIds;
  double bytes_ = -1;  ///< below 0: not asked for yet
  Time filled_at_ = Time::min();
};

}  // namespace kitsune2::gossip
