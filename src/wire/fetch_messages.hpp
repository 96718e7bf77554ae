// Messages of the module "Fetch". Described by proto/fetch.proto.
#pragma once

#include <span>

#include "kitsune2/bytes.hpp"
#include "kitsune2/dialect.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/op_policy.hpp"
#include "wire/lists.hpp"

namespace kitsune2::wire {

enum class FetchMessageType : std::int32_t { request = 1, response = 2 };

/// A decoded K2FetchMessage: one of the two, by `type`. The lists hold the message and allocate nothing.
struct FetchMessage {
  FetchMessageType type = FetchMessageType::request;
  IdList op_ids;  ///< request: what is asked for. Response: the ids of `ops` where the dialect has `op_carries_id`
  DataList ops;   ///< response
};

/// `data` is K2Proto.data. Errc::malformed also for a type that is neither, as in the reference.
Result<FetchMessage> decode_fetch(Dialect dialect, const Bytes& data, const WireLimits& limits = {});

// Bodies for Transport::send_module.
/// The same in each dialect. One allocation.
Bytes encode_fetch_request(std::span<const OpId> op_ids);
/// Large ops are not copied; without one it is a single piece, of one allocation.
ByteChain encode_fetch_response(Dialect dialect, std::span<const MetaOp> ops);

/// Bytes that one more id or op adds to a message: for filling messages up to a byte limit. The frame around them is at
/// most kFetchFrameBytes + space size.
constexpr std::size_t fetch_id_wire_size(std::size_t id_size) { return bytes_field_size(id_size); }
constexpr std::size_t fetch_op_wire_size(Dialect dialect, std::size_t id_size, std::size_t op_size) {
  return bytes_field_size((op_carries_id(dialect) ? bytes_field_size(id_size) : 0) +
                          (op_size == 0 ? 0 : bytes_field_size(op_size)));
}
inline constexpr std::size_t kFetchFrameBytes = 64;

}  // namespace kitsune2::wire
