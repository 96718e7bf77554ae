// A hash table from ids to the index of their record; the ids themselves are in the records.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace kitsune2::store {

/// Finds record numbers by the hash of their id. Open addressing, 8 bytes per slot: the upper half is a part of the
/// hash, so that a wrong slot is skipped, and the table grown, without looking at a record (a cache miss each). Nothing
/// is ever removed. At most 2^32 - 2 records.
class IdTable {
 public:
  static constexpr std::uint32_t kMaxRecords = UINT32_MAX - 1;

  /// How many look-ups ahead of one a table is told of it, so that the slot has come from memory by then.
  static constexpr std::size_t kAhead = 8;

  /// A look-up of this hash follows soon. Without effect on what it finds.
  void expect(std::uint64_t hash) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[(hash >> 32U) & mask_]);
  }

  /// Returns the record with this hash for which `is_same(record)` holds.
  template <class IsSame>
  std::optional<std::uint32_t> find(std::uint64_t hash, IsSame is_same) const {
    if (slots_.empty()) return std::nullopt;
    const std::uint64_t tag = hash >> 32U;
    for (std::size_t at = tag & mask_;; at = (at + 1) & mask_) {
      const std::uint64_t slot = slots_[at];
      if (slot == 0) return std::nullopt;
      if (slot >> 32U != tag) continue;
      const auto record = static_cast<std::uint32_t>(slot) - 1;
      if (is_same(record)) return record;
    }
  }

  /// The same, but if there is none, adds `record`.
  template <class IsSame>
  std::optional<std::uint32_t> find_or_insert(std::uint64_t hash, std::uint32_t record, IsSame is_same) {
    make_room();
    const std::uint64_t tag = hash >> 32U;
    std::size_t at = tag & mask_;
    for (; slots_[at] != 0; at = (at + 1) & mask_) {
      const std::uint64_t slot = slots_[at];
      if (slot >> 32U != tag) continue;
      const auto held = static_cast<std::uint32_t>(slot) - 1;
      if (is_same(held)) return held;
    }
    slots_[at] = slot_of(hash, record);
    ++count_;
    return std::nullopt;
  }

  /// Adds a record whose id is not in the table.
  void insert(std::uint64_t hash, std::uint32_t record) {
    make_room();
    place(slot_of(hash, record));
    ++count_;
  }

 private:
  static std::uint64_t slot_of(std::uint64_t hash, std::uint32_t record) {
    return (hash >> 32U << 32U) | (std::uint64_t{record} + 1);
  }
  void make_room() {
    if ((count_ + 1) * 10 > slots_.size() * 7) grow();
  }
  void place(std::uint64_t slot) {
    std::size_t at = (slot >> 32U) & mask_;
    while (slots_[at] != 0) at = (at + 1) & mask_;
    slots_[at] = slot;
  }
  void grow() {
    std::vector<std::uint64_t> old(slots_.empty() ? 64 : slots_.size() * 2, 0);
    old.swap(slots_);
    mask_ = slots_.size() - 1;
    for (const std::uint64_t slot : old) {
      if (slot != 0) place(slot);
    }
  }

  std::vector<std::uint64_t> slots_;
  std::size_t mask_ = 0;
  std::size_t count_ = 0;
};

}  // namespace kitsune2::store
