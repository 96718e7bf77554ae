// Messages of the module "Publish". Described by proto/publish.proto.
#pragma once

#include <span>
#include <string_view>

#include "kitsune2/bytes.hpp"
#include "kitsune2/dialect.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "wire/lists.hpp"

namespace kitsune2::wire {

enum class PublishMessageType : std::int32_t { ops = 1, agent = 2 };

/// A decoded K2PublishMessage: ops or an agent, by `type`.
struct PublishMessage {
  PublishMessageType type = PublishMessageType::ops;
  IdList op_ids;      ///< ops
  DataList metadata;  ///< ops: of each of op_ids, where the dialect has `publish_carries_metadata`; empty ones stand
                      ///< for none
  Bytes agent_info;   ///< agent: the signed JSON, UTF-8, a slice of the message; not verified yet
};

/// `data` is K2Proto.data. As in the reference, a type that is neither is also Errc::malformed; Errc::too_large.
Result<PublishMessage> decode_publish(Dialect dialect, const Bytes& data, const WireLimits& limits = {});

/// What the entry of one op takes in the body of `encode_publish_ops`.
std::uint64_t publish_entry_bytes(Dialect dialect, const OpId& op_id, ByteView metadata);

// Bodies for Transport::send_module, in one allocation; each payload is copied once.
/// `metadata`: of each of `op_ids`, empty ones for none; or nothing at all, and always nothing in a dialect whose
/// messages carry none.
Bytes encode_publish_ops(Dialect dialect, std::span<const OpId> op_ids, std::span<const Bytes> metadata = {});
/// `signed_json`: AgentInfoSigned::encode(). The same in each dialect.
Bytes encode_publish_agent(std::string_view signed_json);

}  // namespace kitsune2::wire
