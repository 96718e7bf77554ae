// Ops and agents for tests: numbered, so that a test can refer to them, and the same in every run.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kitsune2/agent.hpp"
#include "kitsune2/op_store.hpp"

namespace kitsune2::testing {

/// The payload of op `number`: `size` bytes (at least 32) that differ from those of every other number and look random.
/// Suitable for the SHA-256 policy and the prefix policy (whose id is the first 32 bytes).
Bytes make_op(std::uint64_t number, std::size_t size = 64);

/// Op `number` in the JSON form of kitsune2_core's memory op store, for the memory-op policy. `size` is that of its
/// op_data, at least 32.
Bytes make_memory_op(std::uint64_t number, std::size_t size = 64, Timestamp created_at = {});

/// The ops `first`, `first + 1`, … with the ids that `policy` computes.
std::vector<MetaOp> make_ops(const OpPolicy& policy, std::uint64_t first, std::size_t count, std::size_t size = 64);

std::vector<OpId> ids_of(const std::vector<MetaOp>& ops);
std::vector<Bytes> payloads_of(const std::vector<MetaOp>& ops);

/// Agent `number`, with a key that is the same in every run. `Ed25519LocalAgent::generate()` makes a random one. Its
/// arcs are full.
std::shared_ptr<Ed25519LocalAgent> make_agent(std::uint64_t number);

/// Makes a signed info from its members, all of which have usable defaults.
///
///     auto info = AgentInfoBuilder{.space = space, .url = url}.sign(*make_agent(1));
struct AgentInfoBuilder {
  SpaceId space = SpaceId::from_text("test-space");
  Timestamp created_at = Timestamp::from_seconds(1'767'225'600);  ///< 2026-01-01, the start of a SimWorld
  std::chrono::seconds lifetime{20 * 60};
  std::optional<Url> url;
  DhtArc storage_arc = DhtArc::full();
  bool is_tombstone = false;

  AgentInfoPtr sign(LocalAgent& agent) const;
};

}  // namespace kitsune2::testing
