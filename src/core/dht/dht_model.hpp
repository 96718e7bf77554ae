// What a node holds of a space, as sums that can be compared with those of a peer without listing ops.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/dht/combined_hash.hpp"
#include "core/dht/sector_cells.hpp"
#include "core/dht/sector_set.hpp"
#include "core/dht/snapshot.hpp"
#include "core/dht/time_layout.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::dht {

/// The DHT model of one space: combined hashes of the ops in each sector and slice of time.
///
/// *Rules*.
///  M1  An op lies in the sector of its location and in the slice of its created_at; a slice is closed at its start and
///      open at its end.
///  M2  An op that is newer than the last ring is in no slice yet and enters one at a later `update`; an op that was
///      created before 1970 is in none, ever, as in the reference.
///  M3  Hashes are kept for each (sector, unit) after the disc boundary and for each (sector, full slice) before it.
///      *Reason*: every slice of every layout is then a sum of what is kept, so an update and a start read no op.
///  M4  `add` is O(1), `update` is linear in the number of (sector, unit) pairs that hold an op, a snapshot in the
///      sectors and pairs that it shows. Memory is about 100 bytes for each (sector, unit) of the last 128 to 256 hours
///      and each (sector, full slice) before it that hold an op: at most 512 × 1,023 of the first kind; and 1 KiB for
///      each unit with more than eight of them.
///  M5  All ids have one length; the first one decides.
///
/// Pure: it is told the time and the ops. `handle` says which ids to list; the caller reads them from its store. Equal
/// to kitsune2_dht 0.2.2 and 0.5.3 (tests/unit/core/dht/dht_vectors_test.cpp), except that the caller may cut a list of
/// ids anywhere.
class DhtModel {
 public:
  explicit DhtModel(Timestamp now) : layout_(TimeLayout::at(now)), rings_(layout_.rings().size()) {}

  const TimeLayout& layout() const { return layout_; }
  /// The time at which `update` has work to do.
  Timestamp next_update() const { return layout_.next_update(); }
  /// Moves on to the layout of `now`. No-op before `next_update`: a clock that is set back changes nothing until it has
  /// caught up, as in the reference.
  void update(Timestamp now);

  /// Records that an op was stored. Errc::invalid_argument: its id is empty or of another length than the earlier ones.
  Result<void> add(std::uint32_t location, Timestamp created_at, ByteView id);
  /// Records that an op is gone that was added before. Errc::not_found: its cell holds no op.
  Result<void> remove(std::uint32_t location, Timestamp created_at, ByteView id);
  std::uint64_t op_count() const { return ops_; }

  using Cell = dht::Cell;
  /// Takes over a cell that a store kept for a unit or a full slice. Returns false if it took over nothing, because the
  /// full slice ends after this layout's disc boundary (the clock was set back); its ops must then be added one by one.
  /// Errc::corrupt: no such sector or unit, no op, or a hash of another length than the others.
  Result<void> load_unit(std::uint32_t sector, std::int64_t unit, const Cell& cell);
  Result<bool> load_slice(std::uint32_t sector, std::uint64_t slice, const Cell& cell);
  /// The same for ops that are in no cell (M2).
  void load_apart(std::uint64_t ops) { ops_ += ops; }

  MinimalSnapshot minimal(const SectorSet& common) const;
  /// The rings that differ from those of a peer's snapshot. nullopt: none does, or the two divide time differently.
  std::optional<RingSectorDetailsSnapshot> differing_rings(const MinimalSnapshot& theirs,
                                                           const SectorSet& common) const;

  /// Returns what to answer to a peer's snapshot. `mine` is the snapshot of the same kind that this side has sent in
  /// this round, if any; then this is the last step. Errc::peer_fault: the snapshot names a sector that is not common
  /// or a slice that is not in the disc.
  Result<NextAction> handle(const Snapshot& theirs, const std::optional<Snapshot>& mine, const SectorSet& common) const;

  /// For tests: recomputes what is derived, and aborts if it is wrong. O(cells).
  void check_invariants() const;

 private:
  static constexpr std::uint32_t kSectors = SectorSet::kCount;
  /// The cells of one sector, by full slice. The first one is kept in place: a sector whose ops all lie in one slice,
  /// as those without a time do, allocates nothing.
  class SliceCells {
   public:
    Cell& operator[](std::uint64_t slice) {
      if (first_.ops == 0 && rest_.empty()) first_slice_ = slice;
      return first_slice_ == slice ? first_ : rest_[slice];
    }
    /// Takes `id` out of a cell. Returns false if that cell holds no op.
    bool remove(std::uint64_t slice, ByteView id);
    void visit(const auto& on_cell) const {
      if (first_.ops > 0) on_cell(first_slice_, first_);
      for (const auto& [slice, cell] : rest_) on_cell(slice, cell);
    }

   private:
    std::uint64_t first_slice_ = 0;  ///< only first_ may hold ops of it, though first_ may be empty
    Cell first_;
    boost::unordered_flat_map<std::uint64_t, Cell> rest_;
  };
  struct Disc {
    SliceCells slices;
    Cell all;
  };

  Result<void> check_length(std::size_t size);
  Result<void> check_stored(std::uint32_t sector, const Cell& cell);
  /// `what`: a Cell, or the id of one op.
  template <class T>
  void put_unit(std::uint32_t sector, std::int64_t unit, const T& what);
  template <class T>
  void put_slice(std::uint32_t sector, std::uint64_t slice, const T& what);
  DiscSectorsSnapshot disc_sectors(const SectorSet& common) const;
  std::map<std::uint64_t, CombinedHash> disc_slices(std::uint32_t sector) const;
  std::map<std::uint32_t, CombinedHash> ring_sectors(std::size_t ring, const SectorSet& common) const;

  Result<NextAction> compare(const MinimalSnapshot& theirs, const Snapshot* mine, const SectorSet& common) const;
  Result<NextAction> compare(const DiscSectorsSnapshot& theirs, const Snapshot* mine, const SectorSet& common) const;
  Result<NextAction> compare(const DiscSectorDetailsSnapshot& theirs, const Snapshot* mine,
                             const SectorSet& common) const;
  Result<NextAction> compare(const RingSectorDetailsSnapshot& theirs, const Snapshot* mine,
                             const SectorSet& common) const;

  TimeLayout layout_;
  std::size_t id_size_ = 0;  ///< 0: there is no op yet
  std::uint64_t ops_ = 0;
  std::array<Disc, kSectors> disc_;
  boost::unordered_flat_map<std::int64_t, SectorCells> units_;  ///< from the disc boundary on; none is empty
  std::vector<SectorCells> rings_;                              ///< derived from units_, for each ring of the layout
};

}  // namespace kitsune2::dht
