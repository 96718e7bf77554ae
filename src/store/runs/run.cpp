// Runs: opening, searching, reading in order, writing.
#include "store/runs/run.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

namespace kitsune2::runs {
namespace {

std::size_t blocks_for(std::size_t items, std::size_t per_block) { return (items + per_block - 1) / per_block; }

std::uint64_t next_key() {
  static std::atomic<std::uint64_t> last = 0;
  return ++last;
}

void write_fence(std::uint8_t* to, const Fence& fence) {
  save(to, fence.major);
  save(to + 8, fence.minor);
}

/// Adds the items of a block, which are words of the machine as ByteSum takes them: little-endian.
template <class Item>
void append(std::vector<Item>& to, const BlockBytes& block, std::size_t items) {
  static_assert(std::endian::native == std::endian::little && std::is_trivially_copyable_v<Item>);
  const std::size_t before = to.size();
  to.resize(before + items);
  if (items > 0) std::memcpy(to.data() + before, block.data() + kBlockHead, items * sizeof(Item));
}

}  // namespace

std::uint32_t RunInfo::blocks() const {
  std::uint32_t out = 0;
  for (const Extent& extent : slots) out += extent.count;
  return out;
}

// ---------------------------------------------------------------------- Run

Run::Run(RunInfo info, std::vector<Fence> fences, Filter filter)
    : info_(std::move(info)), key_(next_key()), fences_(std::move(fences)), filter_(std::move(filter)) {
  std::uint32_t blocks = 0;
  for (const Extent& extent : info_.slots) {
    first_of_extent_.push_back(blocks);
    blocks += extent.count;
  }
}

Result<std::shared_ptr<const Run>> Run::open(RunInfo info, BlockFile& file) {
  const auto out = std::make_shared<Run>(std::move(info), std::vector<Fence>(), Filter());
  const RunInfo& i = out->info_;
  const std::uint32_t blocks = i.blocks();
  const std::size_t fence_blocks = blocks_for(i.entry_blocks, kFencesPerBlock);
  if (i.entry_blocks == 0 || blocks < i.entry_blocks + fence_blocks) {
    return make_error(Errc::corrupt, "index run " + std::to_string(i.number) + " has too few blocks");
  }
  BlockBytes bytes(kBlockBytes);
  out->fences_.reserve(i.entry_blocks);
  std::vector<Filter::Line> lines;
  // Of 5 M ids at once: what the manifest says of more is believed when it has been read.
  lines.reserve(std::min(std::size_t{1} << 18U, (blocks - i.entry_blocks - fence_blocks) * kLinesPerBlock));
  for (std::uint32_t index = i.entry_blocks; index < blocks; ++index) {
    const bool is_fence = index < i.entry_blocks + fence_blocks;
    if (auto ok = file.read(out->slot_of(index), bytes); !ok) return ok.error();
    const auto items = open_block(bytes, {i.number, index}, is_fence ? BlockType::fences : BlockType::filter);
    if (!items) return items.error();
    if (*items > (is_fence ? kFencesPerBlock : kLinesPerBlock)) {
      return make_error(Errc::corrupt, "index run " + std::to_string(i.number) + " has a block with too many items");
    }
    is_fence ? append(out->fences_, bytes, *items) : append(lines, bytes, *items);
  }
  if (out->fences_.size() != i.entry_blocks) {
    return make_error(Errc::corrupt, "index run " + std::to_string(i.number) + " does not have a fence for each block");
  }
  out->filter_ = Filter(std::move(lines));
  return std::shared_ptr<const Run>(out);
}

std::uint32_t Run::block_of(const Fence& key) const {
  const auto next = std::lower_bound(fences_.begin(), fences_.end(), key);
  return next == fences_.begin() ? 0 : static_cast<std::uint32_t>(next - fences_.begin() - 1);
}

std::uint64_t Run::slot_of(std::uint32_t index) const {
  const auto after = std::upper_bound(first_of_extent_.begin(), first_of_extent_.end(), index);
  const auto extent = static_cast<std::size_t>(after - first_of_extent_.begin() - 1);
  return info_.slots[extent].first + (index - first_of_extent_[extent]);
}

Result<EntryView> Run::read(BlockFile& file, std::uint32_t index, std::span<std::uint8_t> out) const {
  if (auto ok = file.read(slot_of(index), out); !ok) return ok.error();
  return EntryView::open(out, {info_.number, index}, info_.order);
}

// ---------------------------------------------------------------- RunCursor

RunCursor::RunCursor(std::shared_ptr<const Run> run, BlockFile& file, BlockCache* cache)
    : run_(std::move(run)), file_(file), cache_(cache) {}

bool RunCursor::read(std::uint32_t block, bool keeps) {
  if (block_ == block) return true;
  block_.reset();
  const BlockCache::Key key{run_->key(), block};
  shared_ = cache_ != nullptr ? cache_->find(key) : nullptr;
  if (shared_) {
    view_ = shared_->view;
    block_ = block;
    return true;
  }
  if (!own_) own_ = std::make_shared<CheckedBlock>();
  auto view = run_->read(file_, block, own_->bytes);
  if (!view) {
    error_ = view.error();
    view_ = EntryView();
    return false;
  }
  view_ = own_->view = *view;
  block_ = block;
  if (cache_ == nullptr || !keeps) return true;
  shared_ = std::exchange(own_, nullptr);  // it does not change any more
  cache_->keep(key, shared_);
  return true;
}

/// To the first entry of `block`, or of the next one that has any.
void RunCursor::go_to(std::uint32_t block) {
  at_ = 0;
  for (; block < run_->info().entry_blocks; ++block) {
    if (!read(block, false)) return;
    if (view_.size() == 0) continue;
    entry_ = view_[0];
    return;
  }
  view_ = EntryView();
  block_.reset();
}

void RunCursor::seek(const Entry& key) {
  const Order order = run_->info().order;
  const std::uint32_t block = run_->block_of(fence_of(order, key));
  at_ = 0;
  if (!read(block, true)) return;
  at_ = view_.first_from(order, key);
  if (at_ == view_.size()) return go_to(block + 1);
  entry_ = view_[at_];
}

void RunCursor::next() {
  if (++at_ >= view_.size()) return go_to(*block_ + 1);
  entry_ = view_[at_];
}

// --------------------------------------------------------------- RunBuilder

RunBuilder::RunBuilder(std::uint64_t number, Order order, std::uint64_t most_entries, std::uint64_t salt,
                       BlockFile& file, TakeSlot take_slot)
    : most_entries_(most_entries), salt_(salt), file_(file), take_slot_(std::move(take_slot)) {
  info_.number = number;
  info_.order = order;
  // Ids are looked up by place; an index by time needs no filter.
  if (order == Order::by_place) filter_ = Filter(std::vector<Filter::Line>(Filter::lines_for(most_entries)));
}

Result<void> RunBuilder::write(ByteView block) {
  const std::uint64_t slot = take_slot_();
  if (!info_.slots.empty() && info_.slots.back().first + info_.slots.back().count == slot) {
    ++info_.slots.back().count;
  } else {
    info_.slots.push_back({slot, 1});
  }
  return file_.write(slot, block);
}

Result<void> RunBuilder::seal_entries() {
  const ByteView sealed = block_.seal({info_.number, info_.entry_blocks}, info_.order);
  ++info_.entry_blocks;
  auto ok = write(sealed);
  block_.clear();
  return ok;
}

Result<void> RunBuilder::add(const Entry& entry) {
  if (info_.entries >= most_entries_) {
    return make_error(Errc::corrupt, "the runs merged into run " + std::to_string(info_.number) +
                                         " of the index have more entries than its manifest says");
  }
  if (!block_.add(entry)) {
    if (auto ok = seal_entries(); !ok) return ok;
    K2_ASSERT(block_.add(entry));
  }
  if (block_.size() == 1) fences_.push_back(fence_of(info_.order, entry));
  if (info_.order == Order::by_place) add_to_filter(filter_hash(salt_, entry.id));
  ++info_.entries;
  return {};
}

void RunBuilder::add_to_filter(std::uint64_t hash) {
  std::uint64_t& place = on_their_way_.at(hashes_ % on_their_way_.size());
  if (hashes_ >= on_their_way_.size()) filter_.add(place);
  place = hash;
  ++hashes_;
  filter_.prefetch_for_add(hash);
}

void RunBuilder::add_rest_to_filter() {
  const std::size_t count = std::min(hashes_, on_their_way_.size());
  for (std::size_t i = 0; i < count; ++i) filter_.add(on_their_way_.at(i));
  hashes_ = 0;
}

Result<bool> RunBuilder::finish(std::size_t& most_blocks) {
  if (block_.size() > 0) {
    if (auto ok = seal_entries(); !ok) return ok.error();
  }
  add_rest_to_filter();
  tail_.resize(kBlockBytes);
  for (; most_blocks > 0; --most_blocks) {
    const bool is_fence = fences_written_ < fences_.size();
    if (!is_fence && lines_written_ >= filter_.lines().size()) break;
    std::fill(tail_.begin(), tail_.end(), std::uint8_t{0});
    std::uint8_t* at = tail_.data() + kBlockHead;
    std::size_t items = 0;
    if (is_fence) {
      for (; items < kFencesPerBlock && fences_written_ < fences_.size(); ++items, at += 16) {
        write_fence(at, fences_[fences_written_++]);
      }
    } else {
      for (; items < kLinesPerBlock && lines_written_ < filter_.lines().size(); ++items) {
        for (const std::uint32_t word : filter_.lines()[lines_written_]) {
          save(at, word);
          at += 4;
        }
        ++lines_written_;
      }
    }
    seal_block(tail_, {info_.number, info_.blocks()}, is_fence ? BlockType::fences : BlockType::filter, items);
    if (auto ok = write(tail_); !ok) return ok.error();
  }
  return fences_written_ == fences_.size() && lines_written_ == filter_.lines().size();
}

std::shared_ptr<const Run> RunBuilder::take_run() {
  return std::make_shared<const Run>(std::move(info_), std::move(fences_), std::move(filter_));
}

}  // namespace kitsune2::runs
