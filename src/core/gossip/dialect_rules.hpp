// What the dialects differ in, as far as only gossip asks: beside the predicates of kitsune2/dialect.hpp.
#pragma once

#include <cstdint>

#include "kitsune2/dialect.hpp"

namespace kitsune2::gossip {

/// Whether every version takes a burst of rounds from one peer. Otherwise there are some (to 0.2.7) that take one in 5
/// minutes and count another one against the peer.
constexpr bool takes_bursts_of_rounds(Dialect dialect) noexcept { return dialect != Dialect::v0_2; }
/// The default of `k2Gossip.initialInitiateIntervalMs`, of 0.2.2, 0.4.1 and 0.5.3.
constexpr std::uint32_t initial_initiate_interval_ms(Dialect dialect) noexcept {
  return dialect == Dialect::v0_2 ? 5'000 : 1'000;
}

}  // namespace kitsune2::gossip
