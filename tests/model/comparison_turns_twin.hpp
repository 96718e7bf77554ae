// Turns of disc and rings, written naively: all that happened is kept, and each question is answered from it. And the
// run that feeds the same commands to it and to ComparisonTurns.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/gossip/comparison_turns.hpp"
#include "kitsune2/bytes.hpp"
#include "model/commands.hpp"

namespace kitsune2::model {

class ComparisonTurnsTwin {
 public:
  bool is_turn_of_rings(const Url& peer, bool is_ours, const std::string& difference) const {
    std::vector<Event> events;
    for (const Event& event : events_) {
      if (event.peer != peer) continue;
      events.push_back(event);
      if (event.what == same) events.clear();
    }
    const auto is_of_disc = [](const Event& event) { return event.what == disc; };
    // Before the first turn of the disc nothing counts.
    events.erase(events.begin(), std::find_if(events.begin(), events.end(), is_of_disc));
    if (events.empty()) return false;
    std::vector<std::string> found;  // by the comparisons that came to their end
    for (const Event& event : events) {
      if (event.what == named) found.push_back(event.difference);
    }
    std::erase_if(events, [](const Event& event) { return event.what == named; });
    const bool is_stuck =
        found.size() >= 3 && std::all_of(found.end() - 3, found.end(), [&](const auto& d) { return d == difference; });
    const auto last_disc = std::find_if(events.rbegin(), events.rend(), is_of_disc);
    const auto last_rings = std::find_if_not(events.rbegin(), events.rend(), is_of_disc);
    if (is_stuck) return last_disc - events.rbegin() < 3;
    return is_ours && last_rings - events.rbegin() >= 3;
  }
  void on_rings(const Url& peer) { events_.push_back({peer, rings, {}}); }
  void on_disc(const Url& peer) { events_.push_back({peer, disc, {}}); }
  void on_disc_named(const Url& peer, const std::string& difference) { events_.push_back({peer, named, difference}); }
  void on_same_disc(const Url& peer) { events_.push_back({peer, same, {}}); }

 private:
  enum What { disc, named, rings, same };
  struct Event {
    Url peer;
    What what;
    std::string difference;
  };
  std::vector<Event> events_;
};

/// Feeds commands made from bytes to ComparisonTurns and to the twin. Throws std::logic_error when they differ.
class ComparisonTurnsTwinRun {
 public:
  struct Coverage {
    std::uint64_t rings = 0, discs = 0;
  };
  explicit ComparisonTurnsTwinRun(ByteView commands, Coverage* coverage = nullptr)
      : commands_(commands), coverage_(coverage) {}
  void run() {
    while (!commands_.is_empty()) step();
  }

 private:
  void step() {
    const std::uint8_t what = commands_.byte(), which = commands_.byte();
    const Url peer = Url::parse("ws://r:1/p" + std::to_string(which % 3)).value();
    const bool is_ours = which % 3 != 0;
    const std::string difference(which / 4 % 2 == 0 ? 32 : 36, which / 8 % 8 == 0 ? 'a' : 'b');
    const dht::CombinedHash hash(as_bytes(difference));
    const bool rings = turns_.is_turn_of_rings(peer, is_ours, hash);
    if (rings != twin_.is_turn_of_rings(peer, is_ours, difference))
      throw std::logic_error("ComparisonTurns and its twin differ in whose turn it is");
    if (coverage_ != nullptr) ++(rings ? coverage_->rings : coverage_->discs);
    if (what % 32 == 0) {
      turns_.on_same_disc(peer), twin_.on_same_disc(peer);
    } else if (what % 32 == 1 || rings) {
      turns_.on_rings(peer), twin_.on_rings(peer);
    } else {
      if (what % 32 != 2) turns_.on_disc(peer), twin_.on_disc(peer);
      // A comparison of the disc that breaks off.
      if (what % 32 != 3 && what % 32 != 4) turns_.on_disc_named(peer, hash), twin_.on_disc_named(peer, difference);
    }
  }

  Commands commands_;
  Coverage* coverage_;
  gossip::ComparisonTurns turns_;
  ComparisonTurnsTwin twin_;
};

}  // namespace kitsune2::model
