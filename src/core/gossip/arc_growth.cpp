// How the storage arcs of local agents grow to their target arcs.
#include "core/gossip/arc_growth.hpp"

#include <algorithm>
#include <utility>

namespace kitsune2::gossip {
namespace {

SectorSet sectors_of(const DhtArc& arc) {
  SectorSet out;
  out.add(arc);
  return out;
}

/// What the storage arc of the agent may become. A2
DhtArc grown(const ArcGrowth::Agent& agent, const SectorSet& held) {
  const SectorSet target = sectors_of(agent.target), current = sectors_of(agent.current);
  std::uint32_t longest = current.count();
  // The host has made the target smaller, and the storage arc not.
  if (longest > target.count()) return agent.current;
  const SectorSet all = held.with(current).common(target);
  if (all == target) return agent.target;
  DhtArc out = agent.current;
  for (const DhtArc& run : all.runs()) {
    const std::uint32_t length = (run.span() >> SectorSet::kBits) + 1;
    if (length <= longest || (!agent.current.empty() && !run.overlaps(agent.current))) continue;
    out = run;
    longest = length;
  }
  return out;
}

}  // namespace

std::vector<ArcGrowth::Step> ArcGrowth::update(const std::vector<Agent>& agents, Time now) {
  SectorSet wanted;
  for (const Agent& agent : agents) wanted.add(agent.target);
  held_ = held_.common(wanted);
  due_.reset();
  std::vector<Step> out;
  std::map<AgentId, Time> on_their_way;
  for (const Agent& agent : agents) {
    if (agent.target.empty() || agent.current == agent.target) continue;
    const auto known = stepped_at_.find(agent.id);
    if (known != stepped_at_.end()) on_their_way.insert(*known);
    const DhtArc arc = grown(agent, held_);
    if (arc == agent.current) continue;
    const bool at_once = arc == agent.target || known == stepped_at_.end();
    if (!at_once && now < known->second + kApart) {
      const Time then = known->second + kApart;
      due_ = due_ ? std::min(*due_, then) : then;
      continue;
    }
    on_their_way[agent.id] = now;
    out.push_back({agent.id, arc});
  }
  stepped_at_ = std::move(on_their_way);
  return out;
}

}  // namespace kitsune2::gossip
