// Blocks of runs that were read and checked lately: which of them stay.
#include "store/runs/block_cache.hpp"

#include <utility>

namespace kitsune2::runs {

std::size_t BlockCache::KeyHash::operator()(const Key& key) const {
  std::uint64_t out = (key.run << 32U ^ key.run >> 32U ^ key.block) * 0x9e37'79b9'7f4a'7c15U;
  out ^= out >> 32U;
  return static_cast<std::size_t>(out * 0xd6e8'feb8'6659'fd93U);
}

std::shared_ptr<const CheckedBlock> BlockCache::find(const Key& key) {
  const std::lock_guard lock(mutex_);
  const auto it = where_.find(key);
  if (it == where_.end()) return nullptr;
  Kept& kept = kept_[it->second];
  kept.is_used = true;
  return kept.block;
}

void BlockCache::keep(const Key& key, std::shared_ptr<const CheckedBlock> block) {
  if (most_ == 0) return;
  std::shared_ptr<const CheckedBlock> forgotten;  // freed without the lock
  const std::lock_guard lock(mutex_);
  if (where_.contains(key)) return;
  if (kept_.size() < most_) {
    where_.emplace(key, kept_.size());
    kept_.push_back({key, std::move(block)});
    return;
  }
  for (; kept_[hand_].is_used; hand_ = (hand_ + 1) % most_) kept_[hand_].is_used = false;
  Kept& place = kept_[hand_];
  where_.erase(place.key);
  where_.emplace(key, hand_);
  forgotten = std::exchange(place.block, std::move(block));
  place.key = key;
  hand_ = (hand_ + 1) % most_;
}

std::size_t BlockCache::size() const {
  const std::lock_guard lock(mutex_);
  return kept_.size();
}

}  // namespace kitsune2::runs
