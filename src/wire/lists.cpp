// Walks lists of byte strings inside a received message.
#include "wire/lists.hpp"

namespace kitsune2::wire {

Result<IdList> check_id_list(Bytes message, const WireLimits& limits, std::string_view name) {
  ProtoReader reader(message.view());
  std::size_t count = 0;
  std::size_t total = 0;
  while (reader.next()) {
    if (reader.field() != 1) continue;
    const ByteView id = reader.bytes();
    if (!reader.ok()) break;
    if (id.empty()) {
      reader.fail("an id of 0 bytes");
    } else if (id.size() > limits.max_id_bytes) {
      reader.fail("an id over the limit", Errc::too_large);
    } else if (++count > limits.max_items) {
      reader.fail("too many ids", Errc::too_large);
    }
    total += id.size();
  }
  if (!reader.ok()) return reader.error(name);
  if (is_padded(message.size(), total, count, 4, limits)) return padded(name);
  return IdList(std::move(message), count, total);
}

Result<OpList> check_op_list(Bytes message, const WireLimits& limits) {
  ProtoReader reader(message.view());
  std::size_t count = 0;
  std::size_t total = 0;
  while (reader.next()) {
    if (reader.field() != 1) continue;
    ProtoReader op(reader.bytes());
    std::size_t size = 0;
    while (op.next()) {
      if (op.field() == 1) size = op.bytes().size();
    }
    if (!op.ok()) return op.error("FetchResponse: Op");
    if (reader.ok() && ++count > limits.max_items) reader.fail("too many ops", Errc::too_large);
    total += size;
  }
  if (!reader.ok()) return reader.error("FetchResponse");
  if (is_padded(message.size(), total, count, 16, limits)) return padded("FetchResponse");
  return OpList(std::move(message), count, total);
}

}  // namespace kitsune2::wire
