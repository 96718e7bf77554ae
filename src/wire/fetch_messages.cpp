// Reads and writes the messages of the module "Fetch".
#include "wire/fetch_messages.hpp"

#include <algorithm>
#include <type_traits>

#include "wire/k2proto.hpp"

namespace kitsune2::wire {

namespace {

/// Ops of as many bytes are pieces of their own: a frame of the transport usually lies inside of one.
constexpr std::size_t kSharedFrom = 64U << 10;

const Bytes& payload(const MetaOp& op) { return op.op_data; }
const Bytes& payload(const Bytes& op) { return op; }

template <class Sink>
void put_payload(Sink& sink, const Bytes& data) {
  if constexpr (std::is_same_v<Sink, ChainSink>) {
    if (data.size() >= kSharedFrom) {
      put_tag(sink, 1, WireType::bytes);
      sink.varint(data.size());
      return sink.share(data);
    }
  }
  put_bytes(sink, 1, data);
}

/// The list inside of a request or response: its size, and how to write it.
struct RequestBody {
  static constexpr FetchMessageType kType = FetchMessageType::request;
  std::span<const OpId> op_ids;

  std::size_t size() const {
    std::size_t out = 0;
    for (const OpId& id : op_ids) out += fetch_id_wire_size(id.size());
    return out;
  }
  template <class Sink>
  void operator()(Sink& sink) const {
    put_items(sink, 1, op_ids);
  }
};

template <class Op>
struct ResponseBody {
  static constexpr FetchMessageType kType = FetchMessageType::response;
  std::span<const Op> ops;

  std::size_t size() const {
    std::size_t out = 0;
    for (const Op& op : ops) out += fetch_op_wire_size(payload(op).size());
    return out;
  }
  template <class Sink>
  void operator()(Sink& sink) const {
    for (const Op& op : ops) {
      const Bytes& data = payload(op);
      put_sized(sink, 1, data.empty() ? 0 : bytes_field_size(data.size()), [&](auto& s) { put_payload(s, data); });
    }
  }
};

template <class Body>
Bytes whole(const SpaceId& space, const Body& body) {
  const std::size_t size = body.size();
  return build_module_message(space, kFetchModule, typed_size(size),
                              [&](auto& sink) { put_typed(sink, static_cast<std::int32_t>(Body::kType), size, body); });
}

template <class Body>
Bytes inner(const Body& body) {
  const std::size_t size = body.size();
  return build([&](auto& sink) { put_typed(sink, static_cast<std::int32_t>(Body::kType), size, body); });
}

}  // namespace

Result<FetchMessage> decode_fetch(const Bytes& data, const WireLimits& limits) {
  Result<TypedMessage> typed = decode_typed(data, "K2FetchMessage");
  if (!typed) return typed.error();
  FetchMessage out;
  switch (typed->type) {
    case static_cast<std::int32_t>(FetchMessageType::request): {
      Result<IdList> ids = check_id_list(std::move(typed->data), limits, "FetchRequest");
      if (!ids) return ids.error();
      out.type = FetchMessageType::request;
      out.op_ids = std::move(*ids);
      return out;
    }
    case static_cast<std::int32_t>(FetchMessageType::response): {
      Result<OpList> ops = check_op_list(std::move(typed->data), limits);
      if (!ops) return ops.error();
      out.type = FetchMessageType::response;
      out.ops = std::move(*ops);
      return out;
    }
    default:
      return make_error(Errc::malformed, "K2FetchMessage: unknown type " + std::to_string(typed->type));
  }
}

Bytes encode_fetch_request(const SpaceId& space, std::span<const OpId> op_ids) {
  return whole(space, RequestBody{op_ids});
}
Bytes encode_fetch_response(const SpaceId& space, std::span<const MetaOp> ops) {
  return whole(space, ResponseBody<MetaOp>{ops});
}
Bytes encode_fetch_response(const SpaceId& space, std::span<const Bytes> ops) {
  return whole(space, ResponseBody<Bytes>{ops});
}

ByteChain encode_fetch_response_chain(const SpaceId& space, std::span<const MetaOp> ops) {
  const auto is_large = [](const MetaOp& op) { return op.op_data.size() >= kSharedFrom; };
  if (std::none_of(ops.begin(), ops.end(), is_large)) return encode_fetch_response(space, ops);
  const ResponseBody<MetaOp> body{ops};
  const std::size_t size = body.size();
  ChainSink sink;
  put_module_message(sink, space, kFetchModule, typed_size(size),
                     [&](auto& s) { put_typed(s, static_cast<std::int32_t>(FetchMessageType::response), size, body); });
  return sink.finish();
}

Bytes encode_fetch_request_data(std::span<const OpId> op_ids) { return inner(RequestBody{op_ids}); }
Bytes encode_fetch_response_data(std::span<const MetaOp> ops) { return inner(ResponseBody<MetaOp>{ops}); }
Bytes encode_fetch_response_data(std::span<const Bytes> ops) { return inner(ResponseBody<Bytes>{ops}); }

}  // namespace kitsune2::wire
