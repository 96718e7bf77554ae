// Publish messages: decoding never crashes; limits hold; what is accepted is the same after being written and read
// again.
#include "wire/publish_messages.hpp"

#include "fuzz/fuzz.hpp"
#include "support/whole_messages.hpp"
#include "wire/k2proto.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

void try_publish(Dialect dialect, const Bytes& message) {
  wire::WireLimits limits;
  limits.max_items = 100;
  limits.max_id_bytes = 64;
  limits.max_text_bytes = 2048;
  const Result<wire::PublishMessage> decoded = wire::decode_publish(dialect, message, limits);
  if (!decoded) return;
  if (decoded->type == wire::PublishMessageType::ops) {
    const std::vector<OpId> ids = decoded->op_ids.ids<OpId>();
    K2_ASSERT(ids.size() == decoded->op_ids.size() && ids.size() <= limits.max_items);
    for (const OpId& id : ids) K2_ASSERT(!id.empty() && id.size() <= limits.max_id_bytes);
    K2_ASSERT(decoded->metadata.size() == (publish_carries_metadata(dialect) ? ids.size() : 0));
    for (const Bytes& metadata : decoded->metadata.slices()) K2_ASSERT(fuzz::inside(message, metadata));
    const std::vector<Bytes> metadata = decoded->metadata.slices();
    const auto second = wire::decode_publish(dialect, wire::encode_publish_ops(dialect, ids, metadata), limits);
    K2_ASSERT(second.has_value() && second->op_ids.ids<OpId>() == ids && second->metadata.slices() == metadata);
    return;
  }
  K2_ASSERT(fuzz::inside(message, decoded->agent_info) && decoded->agent_info.size() <= limits.max_text_bytes);
  K2_ASSERT(wire::is_utf8(decoded->agent_info.text()));
  const Bytes whole = wire::whole_publish_agent(SpaceId::from_text("space"), decoded->agent_info.text());
  const Result<wire::K2ProtoView> outer = wire::decode_k2proto(whole);
  K2_ASSERT(outer.has_value());
  const Result<wire::PublishMessage> second = wire::decode_publish(dialect, outer->data, limits);
  K2_ASSERT(second.has_value() && second->agent_info == decoded->agent_info);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes message = fuzz::input(data, size);
  try_publish(Dialect::v0_2, message);
  try_publish(Dialect::v0_5, message);
  return 0;
}
