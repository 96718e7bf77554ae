// The cells of a DHT model that lie in one stretch of time: one for each sector that holds an op of it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/dht/combined_hash.hpp"
#include "core/dht/sector_set.hpp"

namespace kitsune2::dht {

/// Hash and number of the ops of one sector and stretch of time.
struct Cell {
  CombinedHash hash;
  std::uint64_t ops = 0;

  void combine(const Cell& other) {
    hash.combine(other.hash);
    ops += other.ops;
  }
  /// Takes in one op.
  void combine(ByteView id) {
    hash.combine(id);
    ++ops;
  }
  friend bool operator==(const Cell&, const Cell&) = default;
};

/// Cells by sector, one after the other as they came. *Rationale*: a start puts in some 300,000 of them in order, and a
/// hash table of all would spread them over memory that is touched for the first time. A few are looked through; when
/// there are more, a table of 1 KiB tells where each is. So a stretch with one op, of which there may be any number,
/// takes 90 bytes, and one with all sectors 90 for each.
class SectorCells {
 public:
  Cell& operator[](std::uint32_t sector) {
    const std::size_t at = place_of(sector);
    return at < items_.size() ? items_[at].cell : add(sector);
  }
  /// Takes `id` out of a cell. Returns false if that cell holds no op.
  bool remove(std::uint32_t sector, ByteView id) {
    const std::size_t at = place_of(sector);
    if (at >= items_.size() || items_[at].cell.ops == 0) return false;
    Cell& cell = items_[at].cell;
    cell.hash.combine(id);
    if (--cell.ops == 0) cell = {};
    return true;
  }
  /// Has `on_cell(sector, cell)` called for each that holds an op, in no particular order.
  void visit(const auto& on_cell) const {
    for (const Item& item : items_) {
      if (item.cell.ops > 0) on_cell(std::uint32_t{item.sector}, item.cell);
    }
  }
  bool empty() const {
    for (const Item& item : items_) {
      if (item.cell.ops > 0) return false;
    }
    return true;
  }
  /// The same sectors hold the same ops.
  friend bool operator==(const SectorCells& a, const SectorCells& b) { return a.is_in(b) && b.is_in(a); }

 private:
  struct Item {
    Cell cell;
    std::uint16_t sector;
  };
  /// So many are looked through.
  static constexpr std::size_t kFew = 8;
  /// Where the cell of each sector is, plus 1; 0: nowhere.
  using Places = std::array<std::uint16_t, SectorSet::kCount>;
  static_assert(SectorSet::kCount < UINT16_MAX);

  /// `items_.size()` or more: there is none.
  std::size_t place_of(std::uint32_t sector) const {
    if (places_) return static_cast<std::size_t>((*places_)[sector]) - 1;
    std::size_t at = 0;
    while (at < items_.size() && items_[at].sector != sector) ++at;
    return at;
  }
  Cell& add(std::uint32_t sector) {
    if (!places_ && items_.size() == kFew) {
      places_ = std::make_unique<Places>();
      for (std::size_t i = 0; i < items_.size(); ++i) (*places_)[items_[i].sector] = static_cast<std::uint16_t>(i + 1);
    }
    items_.push_back({{}, static_cast<std::uint16_t>(sector)});
    if (places_) (*places_)[sector] = static_cast<std::uint16_t>(items_.size());
    return items_.back().cell;
  }
  bool is_in(const SectorCells& other) const {
    bool out = true;
    visit([&](std::uint32_t sector, const Cell& cell) {
      const std::size_t at = other.place_of(sector);
      out = out && at < other.items_.size() && other.items_[at].cell == cell;
    });
    return out;
  }

  std::vector<Item> items_;
  std::unique_ptr<Places> places_;  ///< null: there are a few
};

}  // namespace kitsune2::dht
