// Publish messages: never crashes; limits hold; what is accepted survives being written and read again.
#include "wire/publish_messages.hpp"

#include "fuzz/fuzz.hpp"
#include "wire/k2proto.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes message = fuzz::input(data, size);
  wire::WireLimits limits;
  limits.max_items = 100;
  limits.max_id_bytes = 64;
  limits.max_text_bytes = 2048;
  const Result<wire::PublishMessage> decoded = wire::decode_publish(message, limits);
  if (!decoded) return 0;
  if (decoded->type == wire::PublishMessageType::ops) {
    const std::vector<OpId> ids = decoded->op_ids.ids<OpId>();
    K2_ASSERT(ids.size() == decoded->op_ids.size() && ids.size() <= limits.max_items);
    for (const OpId& id : ids) K2_ASSERT(!id.empty() && id.size() <= limits.max_id_bytes);
    const Result<wire::PublishMessage> second = wire::decode_publish(wire::encode_publish_ops_data(ids), limits);
    K2_ASSERT(second.has_value() && second->op_ids.ids<OpId>() == ids);
  } else {
    K2_ASSERT(fuzz::inside(message, decoded->agent_info) && decoded->agent_info.size() <= limits.max_text_bytes);
    K2_ASSERT(wire::is_utf8(decoded->agent_info.text()));
    const Bytes whole = wire::encode_publish_agent(SpaceId::from_text("space"), decoded->agent_info.text());
    const Result<wire::K2ProtoView> outer = wire::decode_k2proto(whole);
    K2_ASSERT(outer.has_value());
    const Result<wire::PublishMessage> second = wire::decode_publish(outer->data, limits);
    K2_ASSERT(second.has_value() && second->agent_info == decoded->agent_info);
  }
  return 0;
}
