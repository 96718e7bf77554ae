// The kinds of histories. A seed is one whole history; its kind and length follow from the seed.
#pragma once

#include <cstdint>
#include <string>

#include "kitsune2/dialect.hpp"

namespace kitsune2::sim {

/// The outcome of a history. Failures are GoogleTest's.
struct Ran {
  std::uint64_t trace = 0;  ///< SimWorld::trace_hash
  std::uint64_t steps = 0;  ///< tasks run
};

/// The transport of a history: of dialect 0.2, or of later ones.
enum class Over { tx5, iroh };

/// The fetch module of a few nodes over the memory network, with memory stores.
Ran run_fetch_history(std::uint64_t seed, bool large);
/// One SQLite op store on a SimDisk, with its indexes in tables or in runs.
Ran run_store_history(std::uint64_t seed, bool large, bool in_runs);
/// Nodes with SQLite stores over a transport, its relay and simulated sockets.
Ran run_relay_history(std::uint64_t seed, bool large, Over over);

/// Whole nodes with publish, gossip and bootstrap, over the same.
Ran run_node_history(std::uint64_t seed, bool large, Over over);

/// One node that knows an honest peer, among many strangers.
Ran run_eclipse_history(std::uint64_t seed);

enum class Kind {
  fetch_small,
  fetch_large,
  store_small,
  store_large,
  runs_small,
  runs_large,
  relay_small,
  relay_large,
  relay_iroh_small,
  relay_iroh_large,
  node_small,
  node_large,
  node_iroh_small,
  node_iroh_large,
  eclipse
};
/// docs/simulation.md has the shares of the kinds.
Kind kind_of(std::uint64_t seed);
const char* to_string(Kind kind);
/// Of a history over the memory network: half the time 0.2; otherwise 0.5 or, one time in four, 0.4. It costs no random
/// number, so a history has the same troubles in each.
Dialect dialect_of_seed(std::uint64_t seed);
Ran run(std::uint64_t seed);
Ran run(std::uint64_t seed, Kind kind);

/// The text for a failure: how to run this seed again.
std::string replay(std::uint64_t seed);

}  // namespace kitsune2::sim
