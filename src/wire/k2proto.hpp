// K2Proto: the outermost message, one per framed transport message. Described by proto/k2proto.proto.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "wire/lists.hpp"
#include "wire/protobuf.hpp"

namespace kitsune2::wire {

enum class K2WireType : std::int32_t { unspecified = 0, preflight = 1, notify = 2, module = 3, disconnect = 15 };

/// A decoded K2Proto; its bytes are slices of the message.
struct K2ProtoView {
  K2WireType type = K2WireType::unspecified;  ///< undefined numbers read as unspecified, as in the reference
  Bytes data;
  std::optional<Bytes> space;   ///< absent differs from empty
  std::optional<Bytes> module;  ///< UTF-8
};

/// Errc::malformed; Errc::too_large (space over max_id_bytes, module over max_name_bytes). The router checks that space
/// and module are present where the type requires them.
Result<K2ProtoView> decode_k2proto(const Bytes& message, const WireLimits& limits = {});

// Encoders of whole messages. Each makes one allocation and copies each payload once.

/// The first message of a connection. Empty data gives `08 01`.
Bytes encode_preflight(ByteView data);
Bytes encode_notify(const SpaceId& space, ByteView data);
/// The pieces of `body` stay where they are. A small body is copied into one piece together with its frame.
ByteChain encode_module(const SpaceId& space, std::string_view module, const ByteChain& body);
/// The last message before a connection is closed. `reason` is UTF-8.
Bytes encode_disconnect(std::string_view reason);

/// The two fields that every module's message has: `type = 1`, `data = 2`, the latter written by `body`.
template <class Sink, class Body>
void put_typed(Sink& sink, std::int32_t type, std::size_t data_size, const Body& body) {
  put_number(sink, 1, static_cast<std::uint64_t>(type));
  if (data_size != 0) put_sized(sink, 2, data_size, body);
}
template <class Body>
Bytes build_typed(std::int32_t type, std::size_t data_size, const Body& body) {
  return build([&](auto& sink) { put_typed(sink, type, data_size, body); });
}

/// The same two fields when read; the last of each counts.
struct TypedMessage {
  std::int32_t type = 0;
  Bytes data;
};
Result<TypedMessage> decode_typed(const Bytes& message, std::string_view name);

}  // namespace kitsune2::wire
