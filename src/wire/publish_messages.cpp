// Reads and writes the messages of the module "Publish".
#include "wire/publish_messages.hpp"

#include "wire/k2proto.hpp"

namespace kitsune2::wire {

namespace {

std::size_t entry_size(const OpId& op_id, ByteView metadata) {
  return bytes_field_size(op_id.size()) + (metadata.empty() ? 0 : bytes_field_size(metadata.size()));
}

struct OpsBody {
  Dialect dialect;
  std::span<const OpId> op_ids;
  std::span<const Bytes> metadata;

  ByteView metadata_of(std::size_t i) const { return metadata.empty() ? ByteView() : metadata[i].view(); }
  std::size_t size() const {
    std::size_t out = 0;
    for (std::size_t i = 0; i < op_ids.size(); ++i) out += publish_entry_bytes(dialect, op_ids[i], metadata_of(i));
    return out;
  }
  template <class Sink>
  void operator()(Sink& sink) const {
    if (!publish_carries_metadata(dialect)) return put_items(sink, 1, op_ids);
    for (std::size_t i = 0; i < op_ids.size(); ++i) {
      put_sized(sink, 1, entry_size(op_ids[i], metadata_of(i)), [&](auto& s) {
        put_item(s, 1, op_ids[i]);
        put_bytes(s, 2, metadata_of(i));
      });
    }
  }
};

struct AgentBody {
  std::string_view json;

  std::size_t size() const { return json.empty() ? 0 : bytes_field_size(json.size()); }
  template <class Sink>
  void operator()(Sink& sink) const {
    put_bytes(sink, 1, as_bytes(json));
  }
};

constexpr auto kOps = static_cast<std::int32_t>(PublishMessageType::ops);
constexpr auto kAgent = static_cast<std::int32_t>(PublishMessageType::agent);

Result<PublishMessage> decode_ops(Dialect dialect, Bytes data, const WireLimits& limits) {
  PublishMessage out;
  out.type = PublishMessageType::ops;
  if (publish_carries_metadata(dialect)) {
    Result<OpLists> ops = check_op_lists(std::move(data), OpForm::id_and_data, limits, "PublishOps");
    if (!ops) return ops.error();
    out.op_ids = std::move(ops->ids);
    out.metadata = std::move(ops->data);
  } else {
    Result<IdList> ids = check_id_list(std::move(data), limits, "PublishOps");
    if (!ids) return ids.error();
    out.op_ids = std::move(*ids);
  }
  return out;
}

Result<PublishMessage> decode_agent(const Bytes& data, const WireLimits& limits) {
  ProtoReader reader(data.view());
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
  PublishMessage out;
  out.type = PublishMessageType::agent;
  out.agent_info = slice_of(data, as_bytes(json));
  return out;
}

}  // namespace

Result<PublishMessage> decode_publish(Dialect dialect, const Bytes& data, const WireLimits& limits) {
  Result<TypedMessage> typed = decode_typed(data, "K2PublishMessage");
  if (!typed) return typed.error();
  switch (typed->type) {
    case kOps:
      return decode_ops(dialect, std::move(typed->data), limits);
    case kAgent:
      return decode_agent(typed->data, limits);
    default:
      return make_error(Errc::malformed, "K2PublishMessage: unknown type " + std::to_string(typed->type));
  }
}

std::uint64_t publish_entry_bytes(Dialect dialect, const OpId& op_id, ByteView metadata) {
  return bytes_field_size(publish_carries_metadata(dialect) ? entry_size(op_id, metadata) : op_id.size());
}

Bytes encode_publish_ops(Dialect dialect, std::span<const OpId> op_ids, std::span<const Bytes> metadata) {
  K2_ASSERT(metadata.empty() || metadata.size() == op_ids.size());
  const OpsBody body{dialect, op_ids, metadata};
  return build_typed(kOps, body.size(), body);
}

Bytes encode_publish_agent(std::string_view signed_json) {
  const AgentBody body{signed_json};
  return build_typed(kAgent, body.size(), body);
}

}  // namespace kitsune2::wire
