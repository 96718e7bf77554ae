// Whole K2Proto messages of modules in dialect 0.2, as a transport gets them: for tests that speak below the router.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "wire/fetch_messages.hpp"
#include "wire/gossip_messages.hpp"
#include "wire/k2proto.hpp"
#include "wire/publish_messages.hpp"

namespace kitsune2::wire {

inline Bytes whole_module(const SpaceId& space, std::string_view module, ByteView body) {
  return encode_module(space, module, Bytes::copy_of(body)).joined();
}
inline Bytes whole_fetch_request(const SpaceId& space, std::span<const OpId> op_ids) {
  return whole_module(space, kFetchModule, encode_fetch_request(op_ids));
}
/// Answers of 0.2 have no ids.
inline Bytes fetch_response_body(std::span<const Bytes> ops) {
  std::vector<MetaOp> with_ids;
  for (const Bytes& op : ops) with_ids.push_back({OpId(), op});
  return encode_fetch_response(Dialect::v0_2, with_ids).joined();
}
inline Bytes fetch_response_body(std::span<const MetaOp> ops) {
  return encode_fetch_response(Dialect::v0_2, ops).joined();
}
inline Bytes whole_fetch_response(const SpaceId& space, std::span<const Bytes> ops) {
  return whole_module(space, kFetchModule, fetch_response_body(ops));
}
inline Bytes whole_fetch_response(const SpaceId& space, std::span<const MetaOp> ops) {
  return whole_module(space, kFetchModule, fetch_response_body(ops));
}
inline Bytes whole_publish_ops(const SpaceId& space, std::span<const OpId> op_ids) {
  return whole_module(space, kPublishModule, encode_publish_ops(Dialect::v0_2, op_ids));
}
inline Bytes whole_publish_agent(const SpaceId& space, std::string_view signed_json) {
  return whole_module(space, kPublishModule, encode_publish_agent(signed_json));
}

}  // namespace kitsune2::wire
