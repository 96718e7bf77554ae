// Reads and writes the messages of the module "Fetch".
#include "wire/fetch_messages.hpp"

#include <algorithm>
#include <type_traits>

#include "wire/k2proto.hpp"

namespace kitsune2::wire {

namespace {

/// Ops of at least this size are pieces of their own: a frame of the transport is usually inside one piece.
constexpr std::size_t kSharedFrom = 64U << 10;

template <class Sink>
void put_data(Sink& sink, std::uint32_t field, const Bytes& data) {
  if constexpr (std::is_same_v<Sink, ChainSink>) {
    if (data.size() >= kSharedFrom) {
      put_tag(sink, field, WireType::bytes);
      sink.varint(data.size());
      return sink.share(data);
    }
  }
  put_bytes(sink, field, data);
}

/// The list in a request or response: its size, and how to write it.
struct RequestBody {
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

struct ResponseBody {
  Dialect dialect;
  std::span<const MetaOp> ops;

  std::size_t size() const {
    std::size_t out = 0;
    for (const MetaOp& op : ops) out += fetch_op_wire_size(dialect, op.op_id.size(), op.op_data.size());
    return out;
  }
  template <class Sink>
  void operator()(Sink& sink) const {
    const bool with_id = op_carries_id(dialect);
    for (const MetaOp& op : ops) {
      const std::size_t id_bytes = with_id ? bytes_field_size(op.op_id.size()) : 0;
      const std::size_t data_bytes = op.op_data.empty() ? 0 : bytes_field_size(op.op_data.size());
      put_sized(sink, 1, id_bytes + data_bytes, [&](auto& s) {
        if (with_id) put_item(s, 1, op.op_id);
        put_data(s, with_id ? 2 : 1, op.op_data);
      });
    }
  }
};

constexpr auto kRequest = static_cast<std::int32_t>(FetchMessageType::request);
constexpr auto kResponse = static_cast<std::int32_t>(FetchMessageType::response);

}  // namespace

Result<FetchMessage> decode_fetch(Dialect dialect, const Bytes& data, const WireLimits& limits) {
  Result<TypedMessage> typed = decode_typed(data, "K2FetchMessage");
  if (!typed) return typed.error();
  FetchMessage out;
  switch (typed->type) {
    case kRequest: {
      Result<IdList> ids = check_id_list(std::move(typed->data), limits, "FetchRequest");
      if (!ids) return ids.error();
      out.type = FetchMessageType::request;
      out.op_ids = std::move(*ids);
      return out;
    }
    case kResponse: {
      const OpForm form = op_carries_id(dialect) ? OpForm::id_and_data : OpForm::data;
      Result<OpLists> ops = check_op_lists(std::move(typed->data), form, limits, "FetchResponse");
      if (!ops) return ops.error();
      out.type = FetchMessageType::response;
      out.op_ids = std::move(ops->ids);
      out.ops = std::move(ops->data);
      return out;
    }
    default:
      return make_error(Errc::malformed, "K2FetchMessage: unknown type " + std::to_string(typed->type));
  }
}

Bytes encode_fetch_request(std::span<const OpId> op_ids) {
  const RequestBody body{op_ids};
  return build_typed(kRequest, body.size(), body);
}

ByteChain encode_fetch_response(Dialect dialect, std::span<const MetaOp> ops) {
  const ResponseBody body{dialect, ops};
  const auto is_large = [](const MetaOp& op) { return op.op_data.size() >= kSharedFrom; };
  if (std::none_of(ops.begin(), ops.end(), is_large)) return build_typed(kResponse, body.size(), body);
  ChainSink sink;
  put_typed(sink, kResponse, body.size(), body);
  return sink.finish();
}

}  // namespace kitsune2::wire
