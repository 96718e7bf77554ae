// The ops that are in no run yet.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "store/memory/id_table.hpp"
#include "store/runs/run.hpp"

namespace kitsune2::runs {

/// Entries in memory, in the order of storing: some 90 bytes each. Found by the hash of their id.
class Newest {
 public:
  std::size_t size() const { return places_.size(); }
  Entry operator[](std::size_t i) const;
  /// `hash`: of its id.
  void add(const Entry& entry, std::uint64_t hash);
  /// The first one with this id for which `is_held(stored_at)`.
  template <class IsHeld>
  std::optional<Entry> find(ByteView id, std::uint64_t hash, IsHeld is_held) const {
    const auto found = table_.find(hash, [&](std::uint32_t i) {
      const Entry entry = (*this)[i];
      return compare(entry.id, id) == 0 && is_held(entry.stored_at);
    });
    return found ? std::optional((*this)[*found]) : std::nullopt;
  }
  /// Forgets all but the first `size`.
  void cut(std::size_t size);
  /// The numbers of the entries in order.
  const std::vector<std::uint32_t>& in(Order order) const;

 private:
  struct Place {
    std::uint32_t location, size;
    std::int64_t created_at, stored_at;
    std::uint64_t hash;
    std::size_t id_at;
    std::uint8_t id_size;
  };
  std::vector<Place> places_;
  std::vector<std::uint8_t> ids_;
  store::IdTable table_;
  mutable std::vector<std::uint32_t> by_place_, by_time_;  ///< brought up to date when they are asked for
};

/// Through entries in memory, which stay as they are meanwhile.
class NewestCursor final : public Cursor {
 public:
  NewestCursor(std::shared_ptr<const Newest> newest, Order order) : newest_(std::move(newest)), order_(order) {
    load();
  }
  void seek(const Entry& key);
  bool at_end() const override { return at_ >= newest_->size(); }
  const Entry& entry() const override { return entry_; }
  void next() override {
    ++at_;
    load();
  }
  const std::optional<Error>& error() const override { return error_; }

 private:
  void load() {
    if (!at_end()) entry_ = (*newest_)[newest_->in(order_)[at_]];
  }
  std::shared_ptr<const Newest> newest_;
  Order order_;
  std::size_t at_ = 0;
  Entry entry_;
  std::optional<Error> error_;
};

}  // namespace kitsune2::runs
