// Sums of what is kept, and the choice by weight. The rules are in the header.
#include "server/input_book.hpp"

#include <algorithm>
#include <utility>

#include "kitsune2/error.hpp"

namespace kitsune2::server {

void InputBook::set(Id id, const Address& address, std::size_t bytes, Time since) {
  if (address == Address{}) return;
  const auto found = entries_.find(id);
  const std::size_t before = found == entries_.end() ? 0 : found->second.bytes;
  if (before == 0 && bytes == 0) return;
  bytes_ = bytes_ - before + bytes;
  std::size_t& of_address = of_address_[address];
  of_address = of_address - before + bytes;
  if (of_address == 0) of_address_.erase(address);
  if (bytes == 0) {
    const std::size_t place = found->second.place;
    entries_.at(order_.back()).place = place;
    order_[place] = order_.back();
    order_.pop_back();
    entries_.erase(id);
    return;
  }
  if (before != 0) {
    K2_ASSERT(found->second.address == address);
    found->second.bytes = bytes;
    found->second.since = since;
    return;
  }
  entries_.emplace(id, Entry{address, bytes, since, order_.size()});
  order_.push_back(id);
}

std::optional<InputBook::Id> InputBook::choose(std::size_t most, std::uint64_t random, Time now) const {
  if (bytes_ <= most) return std::nullopt;
  std::optional<Id> chosen;
  std::uint64_t heaviest = 0;
  const bool all = order_.size() <= slots::kSample;
  for (std::size_t i = 0; i < std::min(order_.size(), slots::kSample); ++i) {
    const Id id = order_[all ? i : slots::drawn(random, i) % order_.size()];
    const Entry& entry = entries_.at(id);
    const auto waited = std::max<std::int64_t>((now - entry.since) / std::chrono::milliseconds(1), 0);
    const std::uint64_t weight = of_address_.at(entry.address) * (static_cast<std::uint64_t>(waited) + 1);
    if (weight > heaviest) chosen = id, heaviest = weight;
  }
  return chosen;
}

std::size_t InputBook::bytes_of(Id id) const {
  const auto found = entries_.find(id);
  return found == entries_.end() ? 0 : found->second.bytes;
}

void InputBook::check_invariants() const {
  std::size_t bytes = 0, of_addresses = 0;
  for (const auto& [id, entry] : entries_) {
    K2_ASSERT(entry.bytes > 0 && order_.at(entry.place) == id && of_address_.contains(entry.address));
    bytes += entry.bytes;
  }
  for (const auto& [address, sum] : of_address_) {
    K2_ASSERT(sum > 0);
    of_addresses += sum;
  }
  K2_ASSERT(bytes == bytes_ && of_addresses == bytes_ && order_.size() == entries_.size());
}

}  // namespace kitsune2::server
