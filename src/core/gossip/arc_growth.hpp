// How the storage arcs of local agents grow to their target arcs.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "core/dht/sector_set.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2::gossip {

/// Knows which sectors this node holds as far as it has been compared with others, and makes storage arcs of them.
///
/// *Rules*.
///  A1  A sector that a comparison found in sync counts as held until no local agent wants it any more, or `forget`.
///      Rationale: as in the reference, which however forgets after each round what it could not add to an arc. Later
///      ops of a sector are published to whoever holds it, and gossip goes on in all sectors of the target.
///  A2  The storage arc of an agent becomes the run of sectors that are held, or were part of that arc before, inside
///      its target arc: the longest one that overlaps the storage arc, and for an empty storage arc the longest of all.
///      It never becomes shorter. Rationale: an arc has one start and one end.
///  A3  The first step of an agent, and the one with which it reaches its target, are taken at once; others at least
///      `kApart` after the step before. Rationale: each step is a new agent info, which is sent to all known peers; a
///      sector at a time would be 512 of them.
///
/// Pure; told the time. A call of `update` costs a walk over 512 sectors for each agent that is not at its target.
class ArcGrowth {
 public:
  static constexpr Duration kApart = std::chrono::seconds(10);

  struct Agent {
    AgentId id;
    DhtArc current, target;
  };
  struct Step {
    AgentId id;
    DhtArc arc;  ///< the new storage arc
    friend bool operator==(const Step&, const Step&) = default;
  };

  /// Both sides of a comparison hold the same in these sectors.
  void in_sync(const SectorSet& sectors) { held_ = held_.with(sectors); }
  /// Ops were lost: nothing counts as held until it is compared again. Storage arcs stay.
  void forget() { held_ = {}; }

  /// The steps to be taken now. `agents`: all local agents; who is left out has left.
  std::vector<Step> update(const std::vector<Agent>& agents, Time now);
  /// When `update` has a step to take that had to wait. A3
  std::optional<Time> due() const { return due_; }
  /// What counts as held of the sectors that some agent wants. A1
  const SectorSet& held() const { return held_; }

 private:
  SectorSet held_;
  std::map<AgentId, Time> stepped_at_;  ///< of agents that are on their way
  std::optional<Time> due_;
};

}  // namespace kitsune2::gossip
