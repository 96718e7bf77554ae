// Ops and agents for tests.
#include "kitsune2/testing/builders.hpp"

#include <algorithm>
#include <array>
#include <string>

namespace kitsune2::testing {
namespace {

std::uint64_t mix(std::uint64_t z) {
  z += 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

void fill(std::span<std::uint8_t> out, std::uint64_t state) {
  for (std::size_t i = 0; i < out.size(); i += 8) {
    state = mix(state);
    for (std::size_t k = 0; k < 8 && i + k < out.size(); ++k) out[i + k] = static_cast<std::uint8_t>(state >> (8 * k));
  }
}

std::vector<std::uint8_t> op_bytes(std::uint64_t number, std::size_t size) {
  std::vector<std::uint8_t> out(std::max<std::size_t>(size, 32));
  fill(out, number);
  // The id contains the number itself, so that no two are equal.
  for (std::size_t k = 0; k < 8; ++k) out[k] = static_cast<std::uint8_t>(number >> (8 * k));
  return out;
}

}  // namespace

Bytes make_op(std::uint64_t number, std::size_t size) { return Bytes(op_bytes(number, size)); }

Bytes make_memory_op(std::uint64_t number, std::size_t size, Timestamp created_at) {
  std::string out = "{\"created_at\":" + std::to_string(created_at.micros) + ",\"op_data\":[";
  const char* separator = "";
  for (const auto byte : op_bytes(number, size)) {
    out += separator + std::to_string(byte);
    separator = ",";
  }
  return Bytes(out + "]}");
}

std::vector<MetaOp> make_ops(const OpPolicy& policy, std::uint64_t first, std::size_t count, std::size_t size) {
  std::vector<MetaOp> out;
  out.reserve(count);
  const bool json = policy.name() == "memory-op";
  for (std::uint64_t number = first; number < first + count; ++number) {
    auto data = json ? make_memory_op(number, size) : make_op(number, size);
    auto description = policy.describe(data);
    K2_ASSERT(description.has_value());
    out.push_back({std::move(description->op_id), std::move(data)});
  }
  return out;
}

std::vector<OpId> ids_of(const std::vector<MetaOp>& ops) {
  std::vector<OpId> out;
  out.reserve(ops.size());
  for (const auto& op : ops) out.push_back(op.op_id);
  return out;
}

std::vector<Bytes> payloads_of(const std::vector<MetaOp>& ops) {
  std::vector<Bytes> out;
  out.reserve(ops.size());
  for (const auto& op : ops) out.push_back(op.op_data);
  return out;
}

std::shared_ptr<Ed25519LocalAgent> make_agent(std::uint64_t number) {
  std::array<std::uint8_t, 32> seed{};
  fill(seed, mix(number) ^ 0xa9e27);
  auto agent = Ed25519LocalAgent::from_seed(seed);
  K2_ASSERT(agent.has_value());
  (*agent)->set_cur_storage_arc(DhtArc::full());
  (*agent)->set_tgt_storage_arc(DhtArc::full());
  return *agent;
}

AgentInfoPtr AgentInfoBuilder::sign(LocalAgent& agent) const {
  AgentInfo info;
  info.agent = agent.agent();
  info.space = space;
  info.created_at = created_at;
  info.expires_at = created_at + lifetime;
  info.is_tombstone = is_tombstone;
  info.url = url;
  info.storage_arc = storage_arc;
  auto out = AgentInfoSigned::sign(agent, info);
  K2_ASSERT(out.has_value());
  return *out;
}

}  // namespace kitsune2::testing
