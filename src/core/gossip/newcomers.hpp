// How stock nodes learn of the ops that we stored before they met us.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/dht/sector_set.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2::gossip {

/// Remembers up to where our ops have been named to agents that do not ask for old ones, and limits what that costs.
///
/// A stock node that meets us asks for what we stored in the last 30 minutes. It expects its comparison of the DHT to
/// find the rest, which takes several rounds, 5 minutes apart. So we name the rest without being asked: a piece in each
/// round, beside what was asked for, beginning with our first op.
///
/// *Rules*.
///  N1  A newcomer is recognised by the agents that take part in the round, not by its url. If several agents take
///      part, the one that was told least decides. Rationale: a node has a new url after each loss of its relay.
///  N2  What was named counts for the sectors that were common at the time. If more sectors are common now, it begins
///      again with the first op.
///  N3  The place of an agent moves on only when the round has ended well.
///  N4  All newcomers share one allowance of ids and of payload bytes, which fills up again within a minute. One round
///      takes at most half of what is left. Rationale: it costs nothing to make up agents, but it costs reading and
///      sending to name ops, so the cost must not grow with the number of newcomers. Half, so that something is left
///      for the next one.
///  N5  At most 10,000 places are kept, in memory. Rationale: an agent whose place was dropped is named the ids again.
///      That costs a part of the allowance and nothing else, because it does not fetch again what it holds.
class Newcomers {
 public:
  static constexpr std::uint64_t kIds = 250'000;
  static constexpr Duration kFillsWithin = std::chrono::minutes(1);
  static constexpr std::size_t kMostPlaces = 10'000;
  /// At most this many agents of one peer are looked at.
  static constexpr std::size_t kMostAgents = 64;

  /// All of these agents have been named every op in `common` that we stored before the returned time. For a newcomer
  /// that is 1970; nullopt if `agents` is empty.
  std::optional<Timestamp> place(const std::vector<AgentId>& agents, const SectorSet& common) const;
  /// `agents` have been named every op in `common` that we stored before `to`.
  void on_named(const std::vector<AgentId>& agents, const SectorSet& common, Timestamp to);

  /// What one round may take of the allowance.
  struct Room {
    std::uint64_t ids = 0;
    std::uint32_t bytes = 0;
    friend bool operator==(const Room&, const Room&) = default;
  };
  /// What a round may take now. `most_bytes`: the payload bytes of a full allowance.
  Room room(Time now, std::uint32_t most_bytes);
  /// Takes what a round has used out of the allowance.
  void spend(std::uint64_t ids, std::uint64_t bytes);

 private:
  struct Place {
    Timestamp to;               ///< everything stored before this was named …
    SectorSet sectors;          ///< … in these sectors
    std::uint64_t touched = 0;  ///< `touches_` at the last use
  };
  void make_room();

  std::unordered_map<AgentId, Place> places_;
  std::uint64_t touches_ = 0;
  double ids_ = kIds;
  double bytes_ = -1;  ///< negative until the first call of `room`, which says how much a full allowance is
  Time filled_at_ = Time::min();
};

}  // namespace kitsune2::gossip
