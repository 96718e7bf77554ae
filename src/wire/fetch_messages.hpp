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

/// A decoded K2FetchMessage: a request or a response, by `type`. The lists hold the message and allocate nothing.
struct FetchMessage {
  FetchMessageType type = FetchMessageType::request;
  IdList op_ids;  ///< of a request: the requested ids; of a response: those of `ops`, where the dialect has
                  ///< `op_carries_id`
  DataList ops;   ///< of a response
};

/// `data` is K2Proto.data. As in the reference, a type that is neither is also Errc::malformed.
Result<FetchMessage> decode_fetch(Dialect dialect, const Bytes& data, const WireLimits& limits = {});

// Bodies for Transport::send_module.
/// The same in each dialect. One allocation.
Bytes encode_fetch_request(std::span<const OpId> op_ids);
/// Large ops are not copied. Without one the result is a single piece, in one allocation.
ByteChain encode_fetch_response(Dialect dialect, std::span<const MetaOp> ops);

/// The bytes that one more id or op adds to a message, for filling messages up to a limit. The frame around them has at
/// most kFetchFrameBytes + the space's size.
constexpr std::size_t fetch_id_wire_size(std::size_t id_size) { return bytes_field_size(id_size); }
constexpr std::size_t fetch_op_wire_size(Dialect dialect, std::size_t id_size, std::size_t op_size) {
  return bytes_field_size((op_carries_id(dialect) ? bytes_field_size(id_size) : 0) +
                          (op_size == 0 ? 0 : bytes_field_size(op_size)));
}
inline constexpr std::size_t kFetchFrameBytes = 64;

}  // namespace kitsune2::wire
