// Walks through lists of byte strings inside a received message.
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
  return IdList(std::move(message), 0, count, total);
}

Result<OpLists> check_op_lists(Bytes message, OpForm form, const WireLimits& limits, std::string_view name) {
  const bool with_id = form == OpForm::id_and_data;
  const std::uint32_t data_field = with_id ? 2 : 1;
  ProtoReader reader(message.view());
  std::size_t count = 0;
  std::size_t ids = 0;
  std::size_t data = 0;
  while (reader.next()) {
    if (reader.field() != 1) continue;
    ProtoReader op(reader.bytes());
    ByteView id;
    std::size_t size = 0;
    while (op.next()) {
      if (op.field() == data_field) {
        size = op.bytes().size();
      } else if (with_id && op.field() == 1) {
        id = op.bytes();
      }
    }
    if (with_id && op.ok() && id.empty()) op.fail("an id of 0 bytes");
    if (id.size() > limits.max_id_bytes) op.fail("an id over the limit", Errc::too_large);
    if (!op.ok()) return op.error(std::string(name) + ": Op");
    if (reader.ok() && ++count > limits.max_items) reader.fail("too many ops", Errc::too_large);
    ids += id.size();
    data += size;
  }
  if (!reader.ok()) return reader.error(name);
  if (is_padded(message.size(), ids + data, count, with_id ? 20 : 16, limits)) return padded(name);
  OpLists out;
  if (with_id) out.ids = IdList(message, 1, count, ids);
  out.data = DataList(std::move(message), data_field, count, data);
  return out;
}

}  // namespace kitsune2::wire
