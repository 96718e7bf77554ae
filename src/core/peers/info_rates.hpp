// How many agent infos of a peer are examined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>

#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Of the agent infos of one peer, kBurst are examined at once, then kPerSecond a second; of those of all newcomers,
/// from however many addresses, kNewcomersBurst, then kNewcomersPerSecond. An info that is not examined does not count.
/// *Reason*: verifying an info takes about 0.1 ms, and one that is accepted is written and displaces another. Publish
/// and gossip have the same rates, since who may not do harm by the one must not do it by the other.
///
/// Pure: told the time; one that goes back counts as the latest. Calls are O(1) expected. Memory: an entry for each
/// peer that is not forgotten.
class InfoRates {
 public:
  static constexpr std::int64_t kBurst = 256;
  static constexpr std::int64_t kPerSecond = 16;
  static constexpr std::int64_t kNewcomersBurst = 1024;
  static constexpr std::int64_t kNewcomersPerSecond = 64;

  /// How many of `count` infos that `peer` sends may be examined now. They count. `is_known`: it is not a newcomer.
  std::size_t take(const Url& peer, bool is_known, std::size_t count, Time now);
  /// The peer is gone.
  void forget(const Url& peer) { peers_.erase(peer); }
  std::size_t peers() const { return peers_.size(); }

 private:
  /// How much may be examined now, in millionths, so that the refill is exact.
  struct Allowance {
    std::int64_t left = 0;
    std::optional<Time> at;
    void refill(std::int64_t burst, std::int64_t per_second, Time now);
  };

  std::unordered_map<Url, Allowance> peers_;
  Allowance newcomers_;
};

}  // namespace kitsune2
