// Reads and writes K2Proto, the outermost message.
#include "wire/k2proto.hpp"

namespace kitsune2::wire {

namespace {

K2WireType known_type(std::int32_t number) {
  switch (static_cast<K2WireType>(number)) {
    case K2WireType::preflight:
    case K2WireType::notify:
    case K2WireType::module:
    case K2WireType::disconnect:
      return static_cast<K2WireType>(number);
    default:
      return K2WireType::unspecified;
  }
}

Bytes encode_plain(K2WireType type, ByteView data) {
  return build([&](auto& sink) {
    put_number(sink, 1, static_cast<std::uint64_t>(type));
    put_bytes(sink, 2, data);
  });
}

/// A smaller body is copied, which costs less than separate pieces for the few bytes of its frame.
constexpr std::size_t kPiecesFrom = 4096;

/// Writes a whole K2Proto whose data of exactly `size` bytes is written by `body(sink)`.
template <class Sink, class Body>
void put_module(Sink& sink, ByteView space, std::string_view module, std::size_t size, const Body& body) {
  put_number(sink, 1, static_cast<std::uint64_t>(K2WireType::module));
  if (size != 0) put_sized(sink, 2, size, body);
  put_item(sink, 3, space);
  put_item(sink, 4, as_bytes(module));
}

}  // namespace

Result<K2ProtoView> decode_k2proto(const Bytes& message, const WireLimits& limits) {
  ProtoReader reader(message.view());
  std::int32_t type = 0;
  ByteView data;
  std::optional<ByteView> space;
  std::optional<std::string_view> module;
  while (reader.next()) {
    switch (reader.field()) {
      case 1:
        type = reader.int32();
        break;
      case 2:
        data = reader.bytes();
        break;
      case 3:
        space = reader.bytes();
        if (space->size() > limits.max_id_bytes) reader.fail("a space id over the limit", Errc::too_large);
        break;
      case 4:
        if (reader.bytes().size() > limits.max_name_bytes) {
          reader.fail("a module name over the limit", Errc::too_large);
        } else {
          module = reader.text();
        }
        break;
      default:
        break;
    }
  }
  if (!reader.ok()) return reader.error("K2Proto");
  const std::size_t known = data.size() + (space ? space->size() : 0) + (module ? module->size() : 0);
  if (is_padded(message.size(), known, 4, 11, limits)) return padded("K2Proto");
  K2ProtoView out;
  out.type = known_type(type);
  out.data = slice_of(message, data);
  if (space) out.space = slice_of(message, *space);
  if (module) out.module = slice_of(message, as_bytes(*module));
  return out;
}

Bytes encode_preflight(ByteView data) { return encode_plain(K2WireType::preflight, data); }

Bytes encode_disconnect(std::string_view reason) { return encode_plain(K2WireType::disconnect, as_bytes(reason)); }

Bytes encode_notify(const SpaceId& space, ByteView data) {
  return build([&](auto& sink) {
    put_number(sink, 1, static_cast<std::uint64_t>(K2WireType::notify));
    put_bytes(sink, 2, data);
    put_item(sink, 3, space);
  });
}

ByteChain encode_module(const SpaceId& space, std::string_view module, const ByteChain& body) {
  if (body.size() < kPiecesFrom) {
    return build([&](auto& sink) {
      put_module(sink, space, module, body.size(), [&](auto& s) {
        for (const Bytes& piece : body.pieces()) s.raw(piece);
      });
    });
  }
  ChainSink sink;
  put_module(sink, space, module, body.size(), [&](ChainSink& s) {
    for (const Bytes& piece : body.pieces()) s.share(piece);
  });
  return sink.finish();
}

Result<TypedMessage> decode_typed(const Bytes& message, std::string_view name) {
  ProtoReader reader(message.view());
  std::int32_t type = 0;
  ByteView data;
  while (reader.next()) {
    if (reader.field() == 1) {
      type = reader.int32();
    } else if (reader.field() == 2) {
      data = reader.bytes();
    }
  }
  if (!reader.ok()) return reader.error(name);
  if (is_padded(message.size(), data.size(), 2, 11, {})) return padded(name);
  return TypedMessage{type, slice_of(message, data)};
}

}  // namespace kitsune2::wire
