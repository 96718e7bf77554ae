// Entries that are in no run yet: kept, found, put in order.
#include "store/runs/newest.hpp"

#include <numeric>

namespace kitsune2::runs {

Entry Newest::operator[](std::size_t i) const {
  const Place& p = places_[i];
  return {p.location, p.size, p.created_at, p.stored_at, ByteView(ids_).subspan(p.id_at, p.id_size)};
}

void Newest::add(const Entry& entry, std::uint64_t hash) {
  K2_ASSERT(entry.id.size() <= kLongestId);
  table_.insert(hash, static_cast<std::uint32_t>(places_.size()));
  places_.push_back({entry.location, entry.size, entry.created_at, entry.stored_at, hash, ids_.size(),
                     static_cast<std::uint8_t>(entry.id.size())});
  ids_.insert(ids_.end(), entry.id.begin(), entry.id.end());
}

void Newest::cut(std::size_t size) {
  if (size >= places_.size()) return;
  ids_.resize(places_[size].id_at);
  places_.resize(size);
  table_ = store::IdTable();
  for (std::size_t i = 0; i < size; ++i) table_.insert(places_[i].hash, static_cast<std::uint32_t>(i));
  by_place_.clear();
  by_time_.clear();
}

const std::vector<std::uint32_t>& Newest::in(Order order) const {
  auto& sorted = order == Order::by_place ? by_place_ : by_time_;
  if (sorted.size() == places_.size()) return sorted;
  struct Item {
    Fence fence;
    std::uint32_t number;
  };
  const auto less = [&](const Item& a, const Item& b) {
    if (a.fence != b.fence) return a.fence < b.fence;
    return compare(order, (*this)[a.number], (*this)[b.number]) < 0;
  };
  std::vector<Item> items;
  items.reserve(places_.size());
  for (const std::uint32_t i : sorted) items.push_back({fence_of(order, (*this)[i]), i});
  const auto known = static_cast<std::ptrdiff_t>(sorted.size());
  for (std::size_t i = sorted.size(); i < places_.size(); ++i) {
    items.push_back({fence_of(order, (*this)[i]), static_cast<std::uint32_t>(i)});
  }
  std::sort(items.begin() + known, items.end(), less);
  std::inplace_merge(items.begin(), items.begin() + known, items.end(), less);
  sorted.resize(items.size());
  std::transform(items.begin(), items.end(), sorted.begin(), [](const Item& item) { return item.number; });
  return sorted;
}

void NewestCursor::seek(const Entry& key) {
  const auto& sorted = newest_->in(order_);
  const auto it = std::partition_point(sorted.begin(), sorted.end(),
                                       [&](std::uint32_t i) { return compare(order_, (*newest_)[i], key) < 0; });
  at_ = static_cast<std::size_t>(it - sorted.begin());
  load();
}

}  // namespace kitsune2::runs
