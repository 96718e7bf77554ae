// Storage arcs that grow, written naively: every arc that is possible is tried. And the run that feeds the
// same commands to it and to ArcGrowth.
#pragma once

#include <algorithm>
#include <bitset>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/gossip/arc_growth.hpp"
#include "kitsune2/bytes.hpp"
#include "model/commands.hpp"

namespace kitsune2::model {

class ArcGrowthTwin {
 public:
  using Sectors = std::bitset<512>;
  using Agent = gossip::ArcGrowth::Agent;
  using Step = gossip::ArcGrowth::Step;

  static Sectors sectors_of(const DhtArc& arc) {
    Sectors out;
    for (std::uint32_t s = 0; s < 512 && !arc.empty(); ++s) {
      if (arc.contains(s << 23U)) out.set(s);
    }
    return out;
  }
  void in_sync(const Sectors& sectors) { held_ |= sectors; }
  void forget() { held_.reset(); }

  std::vector<Step> update(const std::vector<Agent>& agents, Time now) {
    Sectors wanted;
    for (const Agent& agent : agents) wanted |= sectors_of(agent.target);
    held_ &= wanted;
    due.reset();
    std::vector<Step> out;
    std::set<AgentId> seen;
    for (const Agent& agent : agents) {
      if (agent.target.empty() || agent.current == agent.target) continue;
      seen.insert(agent.id);
      const DhtArc best = grown(agent);
      if (best == agent.current) continue;
      const auto last = last_.find(agent.id);
      if (best != agent.target && last != last_.end() && now < last->second + std::chrono::seconds(10)) {
        const Time then = last->second + std::chrono::seconds(10);
        if (!due || then < *due) due = then;
        continue;
      }
      last_[agent.id] = now;
      out.push_back({agent.id, best});
    }
    std::erase_if(last_, [&](const auto& entry) { return !seen.contains(entry.first); });
    return out;
  }

  const Sectors& held() const { return held_; }
  std::optional<Time> due;

 private:
  DhtArc grown(const Agent& agent) const {
    const Sectors target = sectors_of(agent.target), current = sectors_of(agent.current);
    if (current.count() > target.count()) return agent.current;
    const Sectors all = (held_ | current) & target;
    if (all == target) return agent.target;
    DhtArc best = agent.current;
    std::size_t longest = current.count();
    // Every place to begin, as far as it goes.
    for (std::uint32_t first = 0; first < 512; ++first) {
      std::uint32_t count = 0;
      bool meets = current.none();
      for (; count < 512 && all.test((first + count) % 512); ++count) meets |= current.test((first + count) % 512);
      if (meets && count > longest) best = DhtArc::of_sectors(first, count), longest = count;
    }
    return best;
  }

  Sectors held_;
  std::map<AgentId, Time> last_;
};

/// Feeds commands made from bytes to ArcGrowth and to the twin. Throws std::logic_error when they differ.
class ArcGrowthTwinRun {
 public:
  struct Coverage {
    std::uint64_t steps = 0, to_target = 0, waits = 0;
  };
  explicit ArcGrowthTwinRun(ByteView commands, Coverage* coverage = nullptr)
      : commands_(commands), coverage_(coverage) {}
  void run() {
    while (!commands_.is_empty()) step();
  }

 private:
  std::uint8_t byte() { return commands_.byte(); }
  DhtArc arc() {
    const std::uint32_t first = 2U * byte() + byte() % 2, size = byte();
    return DhtArc::of_sectors(first, size < 250 ? size / 4 + (size % 4 == 0 ? 200 : 0) : 512);
  }
  static void check(bool same, const char* what) {
    if (!same) throw std::logic_error(std::string("ArcGrowth and its twin differ in ") + what);
  }

  void step() {
    const std::uint8_t what = byte();
    const auto number = what / 16U % 3U;
    const AgentId id(Bytes::copy_of("agent " + std::to_string(number)));
    const auto it = std::find_if(agents_.begin(), agents_.end(), [&](const auto& a) { return a.id == id; });
    switch (what % 8) {
      case 0:
      case 1:
      case 2: {
        const DhtArc synced = arc();
        SectorSet set;
        set.add(synced);
        // Often with holes.
        if (what % 8 == 2) {
          const std::uint32_t word = byte() % 16U;
          auto words = set.words();
          words[word] &= 0x01010101U * byte();
          set = SectorSet(words);
        }
        growth_.in_sync(set);
        ArcGrowthTwin::Sectors same;
        for (std::uint32_t s = 0; s < 512; ++s) {
          if (set.test(s)) same.set(s);
        }
        twin_.in_sync(same);
        break;
      }
      case 3:
        if (it == agents_.end()) {
          agents_.push_back({id, byte() % 8 == 0 ? arc() : DhtArc::none(), arc()});
        } else if (byte() % 4 == 0) {
          agents_.erase(it);
        } else {
          it->target = arc();
        }
        break;
      case 4:
        if (byte() % 8 == 0) growth_.forget(), twin_.forget();
        break;
      default:
        now_ += std::chrono::milliseconds(byte() * 50);
    }
    const auto steps = growth_.update(agents_, now_);
    check(steps == twin_.update(agents_, now_), "the steps");
    check(growth_.due() == twin_.due, "what waits");
    for (std::uint32_t s = 0; s < 512; ++s) check(growth_.held().test(s) == twin_.held().test(s), "what is held");
    for (const auto& step : steps) {
      auto& agent = *std::find_if(agents_.begin(), agents_.end(), [&](const auto& a) { return a.id == step.id; });
      check(step.arc.is_of_whole_sectors(), "borders");
      agent.current = step.arc;
      if (coverage_ != nullptr) ++(step.arc == agent.target ? coverage_->to_target : coverage_->steps);
    }
    if (coverage_ != nullptr && growth_.due()) ++coverage_->waits;
  }

  Commands commands_;
  Coverage* coverage_;
  gossip::ArcGrowth growth_;
  ArcGrowthTwin twin_;
  std::vector<gossip::ArcGrowth::Agent> agents_;
  Time now_ = Time(std::chrono::hours(1));
};

}  // namespace kitsune2::model
