// Blocks of runs: sealing, checking, entries to bytes and back.
#include "store/runs/block.hpp"

#include <string>

#include "store/byte_sum.hpp"

namespace kitsune2::runs {
namespace {

constexpr std::uint8_t kVersion = 1;

std::uint64_t sum_of(ByteView block, BlockName name) {
  std::array<std::uint8_t, 12> where{};
  save(where.data(), name.run);
  save(where.data() + 8, name.index);
  return store::ByteSum(kVersion).add(where).add(block.subspan(8)).value();
}

Error damaged(BlockName name, const char* what) {
  return make_error(Errc::corrupt,
                    "block " + std::to_string(name.index) + " of index run " + std::to_string(name.run) + ": " + what);
}

}  // namespace

void seal_block(std::span<std::uint8_t> block, BlockName name, BlockType type, std::size_t items) {
  K2_ASSERT(block.size() == kBlockBytes && items <= UINT16_MAX);
  block[8] = static_cast<std::uint8_t>(type);
  block[9] = kVersion;
  save(block.data() + 10, static_cast<std::uint16_t>(items));
  save(block.data() + 12, std::uint32_t{0});
  save(block.data(), sum_of(block, name));
}

Result<std::size_t> open_block(ByteView block, BlockName name, BlockType type) {
  if (block.size() != kBlockBytes) return damaged(name, "it has another size");
  if (load<std::uint64_t>(block.data()) != sum_of(block, name)) return damaged(name, "its sum is wrong");
  if (block[8] != static_cast<std::uint8_t>(type) || block[9] != kVersion)
    return damaged(name, "it is of another type");
  return std::size_t{load<std::uint16_t>(block.data() + 10)};
}

bool EntryBlock::add(const Entry& entry) {
  K2_ASSERT(entry.id.size() <= kLongestId);
  const std::size_t need = kEntryHead + entry.id.size();
  if (used_ + need + 2 * (count_ + 1) > kBlockBytes) return false;
  std::uint8_t* at = bytes_.data() + used_;
  save(at, entry.location);
  save(at + 4, entry.size);
  save(at + 8, static_cast<std::uint64_t>(entry.created_at));
  save(at + 16, static_cast<std::uint64_t>(entry.stored_at));
  at[24] = static_cast<std::uint8_t>(entry.id.size());
  if (!entry.id.empty()) std::memcpy(at + kEntryHead, entry.id.data(), entry.id.size());
  ++count_;
  save(bytes_.data() + kBlockBytes - 2 * count_, static_cast<std::uint16_t>(used_));
  used_ += need;
  return true;
}

ByteView EntryBlock::seal(BlockName name, Order order) {
  // What a longer block before this one left between the entries and their places.
  std::fill(bytes_.begin() + static_cast<std::ptrdiff_t>(used_), bytes_.end() - static_cast<std::ptrdiff_t>(2 * count_),
            std::uint8_t{0});
  seal_block(bytes_, name, block_type(order), count_);
  return bytes_;
}

void EntryBlock::clear() {
  used_ = kBlockHead;
  count_ = 0;
}

Result<EntryView> EntryView::open(ByteView block, BlockName name, Order order) {
  const auto items = open_block(block, name, block_type(order));
  if (!items) return items.error();
  EntryView out;
  out.block_ = block;
  out.count_ = *items;
  if (2 * out.count_ > kBlockBody) return damaged(name, "too many entries");
  const std::size_t end = kBlockBytes - 2 * out.count_;
  for (std::size_t i = 0; i < out.count_; ++i) {
    const std::size_t at = out.place(i);
    if (at < kBlockHead || at + kHead > end || block[at + kHead - 1] > kLongestId ||
        at + kHead + block[at + kHead - 1] > end) {
      return damaged(name, "an entry reaches beyond its end");
    }
  }
  return out;
}

std::size_t EntryView::first_from(Order order, const Entry& key) const {
  std::size_t first = 0, left = count_;
  while (left > 0) {
    const std::size_t half = left / 2;
    if (compare(order, (*this)[first + half], key) < 0) {
      first += half + 1;
      left -= half + 1;
    } else {
      left = half;
    }
  }
  return first;
}

}  // namespace kitsune2::runs
