// Messages of the module "Publish". Described by proto/publish.proto.
#pragma once

#include <span>
#include <string_view>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "wire/lists.hpp"

namespace kitsune2::wire {

enum class PublishMessageType : std::int32_t { ops = 1, agent = 2 };

/// A decoded K2PublishMessage: by `type` one of the two.
struct PublishMessage {
  PublishMessageType type = PublishMessageType::ops;
  IdList op_ids;     ///< ops
  Bytes agent_info;  ///< agent: the signed JSON, UTF-8, a slice of the message; not verified yet
};

/// `data` is K2Proto.data. Errc::malformed also for a type that is neither, as in the reference; Errc::too_large.
Result<PublishMessage> decode_publish(const Bytes& data, const WireLimits& limits = {});

// Whole K2Proto messages: one allocation, each payload copied once. For Transport::send_encoded.
Bytes encode_publish_ops(const SpaceId& space, std::span<const OpId> op_ids);
/// `signed_json`: AgentInfoSigned::encode().
Bytes encode_publish_agent(const SpaceId& space, std::string_view signed_json);

// The inner message alone (K2Proto.data), for Transport::send_module.
Bytes encode_publish_ops_data(std::span<const OpId> op_ids);
Bytes encode_publish_agent_data(std::string_view signed_json);

}  // namespace kitsune2::wire
