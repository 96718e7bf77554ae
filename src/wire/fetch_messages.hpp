// Messages of the module "Fetch". Described by proto/fetch.proto.
#pragma once

#include <span>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/op_policy.hpp"
#include "wire/lists.hpp"

namespace kitsune2::wire {

enum class FetchMessageType : std::int32_t { request = 1, response = 2 };

/// A decoded K2FetchMessage: one of the two lists, by `type`. The lists hold the message and allocate nothing.
struct FetchMessage {
  FetchMessageType type = FetchMessageType::request;
  IdList op_ids;  ///< request
  OpList ops;     ///< response
};

/// `data` is K2Proto.data. Errc::malformed also for a type that is neither, as in the reference.
Result<FetchMessage> decode_fetch(const Bytes& data, const WireLimits& limits = {});

// Whole K2Proto messages: one allocation, each payload copied once. For Transport::send_encoded.
Bytes encode_fetch_request(const SpaceId& space, std::span<const OpId> op_ids);
Bytes encode_fetch_response(const SpaceId& space, std::span<const MetaOp> ops);
Bytes encode_fetch_response(const SpaceId& space, std::span<const Bytes> ops);
/// The same bytes; large ops are not copied.
ByteChain encode_fetch_response_chain(const SpaceId& space, std::span<const MetaOp> ops);

// The inner message alone (K2Proto.data), for Transport::send_module.
Bytes encode_fetch_request_data(std::span<const OpId> op_ids);
Bytes encode_fetch_response_data(std::span<const MetaOp> ops);
Bytes encode_fetch_response_data(std::span<const Bytes> ops);

/// Bytes that one more id or op adds to a message: for filling messages up to a byte limit. The frame around them is at
/// most kFetchFrameBytes + space size.
constexpr std::size_t fetch_id_wire_size(std::size_t id_size) { return bytes_field_size(id_size); }
constexpr std::size_t fetch_op_wire_size(std::size_t op_size) {
  return bytes_field_size(op_size == 0 ? 0 : bytes_field_size(op_size));
}
inline constexpr std::size_t kFetchFrameBytes = 64;

}  // namespace kitsune2::wire
