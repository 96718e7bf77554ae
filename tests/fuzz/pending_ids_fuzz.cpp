// Rows of the pending table: reading never crashes; a row that is read completely can be written and reads the same.
#include "fuzz/fuzz.hpp"
#include "store/sqlite/op_schema.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes row = fuzz::input(data, size);
  std::vector<std::vector<std::uint8_t>> ids;
  std::size_t total = 0;
  const auto keep = [&](ByteView id) {
    K2_ASSERT(fuzz::inside(row, id));
    ids.emplace_back(id.begin(), id.end());
    total += 1 + id.size();
  };
  const bool whole = sqlite::unpack_ids(row, keep);
  K2_ASSERT(total <= row.size());
  if (!whole) return 0;
  std::vector<std::uint8_t> written;
  for (const auto& id : ids) sqlite::pack_id(id, written);
  K2_ASSERT(written.size() <= row.size());  // a length of less than 255 in the long form is read, and written short
  std::vector<std::vector<std::uint8_t>> again;
  K2_ASSERT(sqlite::unpack_ids(written, [&](ByteView id) { again.emplace_back(id.begin(), id.end()); }));
  K2_ASSERT(again == ids);
  return 0;
}
