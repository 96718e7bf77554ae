// Reads and writes the messages of the module "Publish".
#include "wire/publish_messages.hpp"

#include "wire/k2proto.hpp"

namespace kitsune2::wire {

namespace {

struct OpsBody {
  static constexpr PublishMessageType kType = PublishMessageType::ops;
  std::span<const OpId> op_ids;

  std::size_t size() const {
    std::size_t out = 0;
    for (const OpId& id : op_ids) out += bytes_field_size(id.size());
    return out;
  }
  template <class Sink>
  void operator()(Sink& sink) const {
    put_items(sink, 1, op_ids);
  }
};

struct AgentBody {
  static constexpr PublishMessageType kType = PublishMessageType::agent;
  std::string_view json;

  std::size_t size() const { return json.empty() ? 0 : bytes_field_size(json.size()); }
  template <class Sink>
  void operator()(Sink& sink) const {
    put_bytes(sink, 1, as_bytes(json));
  }
};

template <class Body>
Bytes whole(const SpaceId& space, const Body& body) {
  const std::size_t size = body.size();
  return build_module_message(space, kPublishModule, typed_size(size),
                              [&](auto& sink) { put_typed(sink, static_cast<std::int32_t>(Body::kType), size, body); });
}

template <class Body>
Bytes inner(const Body& body) {
  const std::size_t size = body.size();
  return build([&](auto& sink) { put_typed(sink, static_cast<std::int32_t>(Body::kType), size, body); });
}

}  // namespace

Result<PublishMessage> decode_publish(const Bytes& data, const WireLimits& limits) {
  Result<TypedMessage> typed = decode_typed(data, "K2PublishMessage");
  if (!typed) return typed.error();
  PublishMessage out;
  switch (typed->type) {
    case static_cast<std::int32_t>(PublishMessageType::ops): {
      Result<IdList> ids = check_id_list(std::move(typed->data), limits, "PublishOps");
      if (!ids) return ids.error();
      out.type = PublishMessageType::ops;
      out.op_ids = std::move(*ids);
      return out;
    }
    case static_cast<std::int32_t>(PublishMessageType::agent): {
      ProtoReader reader(typed->data.view());
      std::string_view json;
      while (reader.next()) {
        if (reader.field() != 1) continue;
        if (reader.bytes().size() > limits.max_text_bytes) {
          reader.fail("an agent info over the limit", Errc::too_large);
        } else {
          json = reader.text();
        }
      }
      if (!reader.ok()) return reader.error("PublishAgent");
      out.type = PublishMessageType::agent;
      out.agent_info = slice_of(typed->data, as_bytes(json));
      return out;
    }
    default:
      return make_error(Errc::malformed, "K2PublishMessage: unknown type " + std::to_string(typed->type));
  }
}

Bytes encode_publish_ops(const SpaceId& space, std::span<const OpId> op_ids) { return whole(space, OpsBody{op_ids}); }
Bytes encode_publish_agent(const SpaceId& space, std::string_view signed_json) {
  return whole(space, AgentBody{signed_json});
}
Bytes encode_publish_ops_data(std::span<const OpId> op_ids) { return inner(OpsBody{op_ids}); }
Bytes encode_publish_agent_data(std::string_view signed_json) { return inner(AgentBody{signed_json}); }

}  // namespace kitsune2::wire
