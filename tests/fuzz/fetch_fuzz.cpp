// Fetch messages: never crashes; limits hold; what is accepted survives being written and read again.
#include "wire/fetch_messages.hpp"

#include "fuzz/fuzz.hpp"
#include "wire/k2proto.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes message = fuzz::input(data, size);
  wire::WireLimits limits;
  limits.max_items = 100;
  limits.max_id_bytes = 64;
  const Result<wire::FetchMessage> decoded = wire::decode_fetch(message, limits);
  if (!decoded) return 0;
  const SpaceId space = SpaceId::from_text("space");
  if (decoded->type == wire::FetchMessageType::request) {
    const std::vector<OpId> ids = decoded->op_ids.ids<OpId>();
    K2_ASSERT(ids.size() == decoded->op_ids.size() && ids.size() <= limits.max_items);
    for (const OpId& id : ids) K2_ASSERT(!id.empty() && id.size() <= limits.max_id_bytes);
    const Bytes whole = wire::encode_fetch_request(space, ids);
    const Result<wire::K2ProtoView> outer = wire::decode_k2proto(whole);
    K2_ASSERT(outer.has_value() && outer->data == wire::encode_fetch_request_data(ids));
    const Result<wire::FetchMessage> second = wire::decode_fetch(outer->data, limits);
    K2_ASSERT(second.has_value() && second->op_ids.ids<OpId>() == ids);
  } else {
    const std::vector<Bytes> ops = decoded->ops.slices();
    K2_ASSERT(ops.size() == decoded->ops.size() && ops.size() <= limits.max_items);
    std::size_t total = 0;
    for (const Bytes& op : ops) {
      K2_ASSERT(fuzz::inside(message, op));
      total += op.size();
    }
    K2_ASSERT(total == decoded->ops.total_bytes());
    const Bytes whole = wire::encode_fetch_response(space, std::span<const Bytes>(ops));
    const Result<wire::K2ProtoView> outer = wire::decode_k2proto(whole);
    K2_ASSERT(outer.has_value() && outer->data == wire::encode_fetch_response_data(std::span<const Bytes>(ops)));
    const Result<wire::FetchMessage> second = wire::decode_fetch(outer->data, limits);
    K2_ASSERT(second.has_value() && second->ops.slices() == ops);
  }
  return 0;
}
