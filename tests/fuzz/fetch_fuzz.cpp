// Fetch messages: decoding never crashes; limits hold; what is accepted is the same after being written and read again.
#include "wire/fetch_messages.hpp"

#include "fuzz/fuzz.hpp"
#include "support/whole_messages.hpp"
#include "wire/k2proto.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

namespace {

void try_fetch(Dialect dialect, const Bytes& message) {
  wire::WireLimits limits;
  limits.max_items = 100;
  limits.max_id_bytes = 64;
  const Result<wire::FetchMessage> decoded = wire::decode_fetch(dialect, message, limits);
  if (!decoded) return;
  const std::vector<OpId> ids = decoded->op_ids.ids<OpId>();
  K2_ASSERT(ids.size() == decoded->op_ids.size() && ids.size() <= limits.max_items);
  for (const OpId& id : ids) K2_ASSERT(!id.empty() && id.size() <= limits.max_id_bytes);
  if (decoded->type == wire::FetchMessageType::request) {
    const Result<wire::FetchMessage> second = wire::decode_fetch(dialect, wire::encode_fetch_request(ids), limits);
    K2_ASSERT(second.has_value() && second->op_ids.ids<OpId>() == ids);
    return;
  }
  const std::vector<Bytes> ops = decoded->ops.slices();
  K2_ASSERT(ops.size() == decoded->ops.size() && ops.size() <= limits.max_items);
  K2_ASSERT(ids.size() == (op_carries_id(dialect) ? ops.size() : 0));
  std::size_t total = 0;
  std::vector<MetaOp> with_ids;
  for (const Bytes& op : ops) {
    K2_ASSERT(fuzz::inside(message, op));
    total += op.size();
    with_ids.push_back({ids.empty() ? OpId() : ids[with_ids.size()], op});
  }
  K2_ASSERT(total == decoded->ops.total_bytes());
  const Bytes body = wire::encode_fetch_response(dialect, with_ids).joined();
  const Result<wire::K2ProtoView> outer =
      wire::decode_k2proto(wire::whole_module(SpaceId::from_text("space"), kFetchModule, body));
  K2_ASSERT(outer.has_value() && outer->data == body);
  const Result<wire::FetchMessage> second = wire::decode_fetch(dialect, outer->data, limits);
  K2_ASSERT(second.has_value() && second->ops.slices() == ops && second->op_ids.ids<OpId>() == ids);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes message = fuzz::input(data, size);
  try_fetch(Dialect::v0_2, message);
  try_fetch(Dialect::v0_5, message);
  return 0;
}
