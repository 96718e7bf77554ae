// Index runs on a damaged disk, and against their twin. The first byte chooses.
//  * Damage: two bytes choose a block (or the manifest), the rest are edits of it (see fuzz::damaged); the block gets a
//    sum that fits. Opening, finding, scanning and merging end with an answer or with Errc::corrupt.
//  * Otherwise the bytes are commands for the index and its twin.
#include "fuzz/damage.hpp"
#include "fuzz/fuzz.hpp"
#include "model/run_index_twin.hpp"
#include "store/byte_sum.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)
using namespace kitsune2::runs;

namespace {

constexpr MergeRules kSmall{.newest = 64, .fan_in = 3, .most_entries = 2'000};

struct Base {
  model::SlotDisk disk;
  Manifest manifest;
  std::vector<std::array<std::uint8_t, 8>> ids;

  Base() {
    RunIndex index(disk, kSmall);
    K2_ASSERT(index.load({}).has_value());
    for (std::uint64_t i = 0; i < 400; ++i) {
      auto& id = ids.emplace_back();
      save(id.data(), i * 0x9e37'79b9'7f4a'7c15U);
      index.begin();
      index.add({dht_location(id), 9, static_cast<std::int64_t>(i % 17), static_cast<std::int64_t>(i), id});
      K2_ASSERT(index.step().has_value());
      index.committed();
    }
    manifest = index.manifest();
    K2_ASSERT(manifest.runs.size() >= 4);
  }
};

/// Its type, index and number are those of the block that lay there; what is in it is the input's.
void seal_again(std::vector<std::uint8_t>& block, const Manifest& manifest, std::uint64_t slot) {
  block.resize(kBlockBytes);
  for (const RunInfo& run : manifest.runs) {
    std::uint32_t index = 0;
    for (const Extent& extent : run.slots) {
      if (slot >= extent.first && slot < extent.first + extent.count) {
        const std::uint32_t at = index + static_cast<std::uint32_t>(slot - extent.first);
        seal_block(block, {run.number, at}, BlockType{block[8]}, load<std::uint16_t>(block.data() + 10));
      }
      index += extent.count;
    }
  }
}

void damage(ByteView input) {
  static const Base base;
  if (input.size() < 2) return;
  model::SlotDisk disk;
  disk.slots() = const_cast<Base&>(base).disk.slots();
  Manifest manifest = base.manifest;
  const std::uint64_t end = disk.slots().rbegin()->first + 1;
  const std::size_t which = (input[0] | std::size_t{input[1]} << 8U) % (disk.slots().size() + 1);
  input = input.subspan(2);
  if (which == disk.slots().size()) {
    auto bytes = fuzz::damaged(manifest.encode(), input);
    if (bytes.size() >= 8)
      save(bytes.data(), store::ByteSum(0x6b32'7275'6e73'0001U).add(ByteView(bytes).subspan(8)).value());
    auto read = Manifest::decode(bytes, end);
    if (!read) {
      K2_ASSERT(read.error().code == Errc::corrupt);
      return;
    }
    manifest = *read;
  } else {
    auto slot = disk.slots().begin();
    std::advance(slot, which);
    slot->second = fuzz::damaged(slot->second, input);
    seal_again(slot->second, manifest, slot->first);
  }
  RunIndex index(disk, kSmall);
  const auto ok = [](const auto& result) {
    if (!result) K2_ASSERT(result.error().code == Errc::corrupt);
    return result.has_value();
  };
  if (!ok(index.load(manifest))) return;
  for (std::size_t i = 0; i < base.ids.size(); i += 9) ok(index.find(dht_location(base.ids[i]), base.ids[i]));
  for (const Order order : {Order::by_place, Order::by_time}) {
    const auto cursor = index.scan(order, {1U << 30U, 0, 5, 0, {}});
    std::size_t seen = 0;
    for (; !cursor->at_end(); cursor->next()) ++seen;
    K2_ASSERT(seen <= disk.slots().size() * kBlockBytes / EntryBlock::kEntryHead);
  }
  for (int step = 0; step < 1'000 && index.has_work(); ++step) {
    index.begin();
    if (!ok(index.step_idle(10'000))) break;
    index.committed();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Bytes input = fuzz::input(data, size);
  const ByteView rest = input.view().subspan(1);
  if (input[0] % 2 == 0) {
    damage(rest);
  } else {
    // A divergence throws: a crash here.
    model::RunIndexUnderTest(kSmall, input[0] % 4 == 1).run(rest.first(std::min<std::size_t>(rest.size(), 40)));
  }
  return 0;
}
