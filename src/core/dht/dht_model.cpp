// The DHT model: sums of op ids by sector and slice, and their comparison. The rules are in the header.
#include "core/dht/dht_model.hpp"

#include <set>
#include <string>
#include <utility>

namespace kitsune2::dht {
namespace {

Error peer_fault(const std::string& what) { return make_error(Errc::peer_fault, what); }

Result<void> check_common(std::uint32_t sector, const SectorSet& common) {
  if (common.test(sector)) return {};
  return peer_fault("its snapshot names sector " + std::to_string(sector) + ", which is not common to both sides");
}

/// Returns the keys at which the two maps differ, in order.
template <class Map>
std::set<typename Map::key_type> differences(const Map& a, const Map& b) {
  std::set<typename Map::key_type> out;
  for (const auto& [key, value] : a) {
    const auto it = b.find(key);
    if (it == b.end() || it->second != value) out.insert(key);
  }
  for (const auto& [key, value] : b) {
    if (!a.contains(key)) out.insert(key);
  }
  return out;
}

/// Returns the ids alone if this side has sent its snapshot before, or else the snapshot with the ids.
template <class S>
NextAction with_ids(const S& ours, bool is_shown, std::vector<SliceRef> slices) {
  if (is_shown) return SendIds{std::move(slices)};
  return SendSnapshotAndIds{ours, std::move(slices)};
}

/// Takes `id` out of the cell of `key`. Returns false if there is no such cell.
bool take(auto& cells, const auto& key, ByteView id) {
  const auto it = cells.find(key);
  if (it == cells.end()) return false;
  it->second.hash.combine(id);
  if (--it->second.ops == 0) cells.erase(it);
  return true;
}

}  // namespace

Result<void> DhtModel::check_length(std::size_t size) {
  if (size == 0) return make_error(Errc::invalid_argument, "an op id of no bytes");
  if (id_size_ == 0) id_size_ = size;
  if (size == id_size_) return {};
  return make_error(Errc::invalid_argument, "an op id of " + std::to_string(size) +
                                                " bytes in a space whose op ids have " + std::to_string(id_size_));
}

bool DhtModel::SliceCells::remove(std::uint64_t slice, ByteView id) {
  if (first_slice_ != slice) return take(rest_, slice, id);
  if (first_.ops == 0) return false;
  first_.hash.combine(id);
  if (--first_.ops == 0) first_ = {};
  return true;
}

template <class T>
void DhtModel::put_slice(std::uint32_t sector, std::uint64_t slice, const T& what) {
  Disc& disc = disc_[sector];
  disc.slices[slice].combine(what);
  disc.all.combine(what);
}

template <class T>
void DhtModel::put_unit(std::uint32_t sector, std::int64_t unit, const T& what) {
  if (unit < layout_.boundary_unit()) {
    put_slice(sector, static_cast<std::uint64_t>(unit / kUnitsPerSlice), what);
    return;
  }
  units_[unit][sector].combine(what);
  if (const auto ring = layout_.ring_of(unit)) rings_[*ring][sector].combine(what);
}

Result<void> DhtModel::add(std::uint32_t location, Timestamp created_at, ByteView id) {
  if (id_size_ == 0 || id.size() != id_size_) {
    if (auto ok = check_length(id.size()); !ok) return ok;
  }
  ++ops_;
  const std::int64_t unit = unit_of(created_at);
  if (unit >= 0) put_unit(SectorSet::sector_of(location), unit, id);
  return {};
}

Result<void> DhtModel::remove(std::uint32_t location, Timestamp created_at, ByteView id) {
  const auto absent = [] { return make_error(Errc::not_found, "no op is known in this sector and slice"); };
  if (ops_ == 0 || id.size() != id_size_) return absent();
  const std::int64_t unit = unit_of(created_at);
  const std::uint32_t sector = SectorSet::sector_of(location);
  if (unit < 0) {
    --ops_;
    return {};
  }
  if (unit < layout_.boundary_unit()) {
    Disc& disc = disc_[sector];
    if (!disc.slices.remove(static_cast<std::uint64_t>(unit / kUnitsPerSlice), id)) return absent();
    disc.all.hash.combine(id);
    if (--disc.all.ops == 0) disc.all = {};
  } else {
    const auto it = units_.find(unit);
    if (it == units_.end() || !it->second.remove(sector, id)) return absent();
    if (it->second.empty()) units_.erase(it);
    if (const auto ring = layout_.ring_of(unit)) rings_[*ring].remove(sector, id);
  }
  --ops_;
  return {};
}

Result<void> DhtModel::check_stored(std::uint32_t sector, const Cell& cell) {
  if (sector >= kSectors || cell.ops == 0)
    return make_error(Errc::corrupt,
                      "a stored DHT hash of " + std::to_string(cell.ops) + " ops in sector " + std::to_string(sector));
  if (auto ok = check_length(cell.hash.size()); !ok)
    return make_error(Errc::corrupt, "a stored DHT hash: " + ok.error().message);
  return {};
}

Result<bool> DhtModel::load_slice(std::uint32_t sector, std::uint64_t slice, const Cell& cell) {
  if (auto ok = check_stored(sector, cell); !ok) return ok.error();
  if (slice >= layout_.full_slices()) return false;
  ops_ += cell.ops;
  put_slice(sector, slice, cell);
  return true;
}

Result<void> DhtModel::load_unit(std::uint32_t sector, std::int64_t unit, const Cell& cell) {
  if (auto ok = check_stored(sector, cell); !ok) return ok;
  if (unit < 0) return make_error(Errc::corrupt, "a stored DHT hash of a time before 1970");
  ops_ += cell.ops;
  put_unit(sector, unit, cell);
  return {};
}

void DhtModel::update(Timestamp now) {
  if (now < next_update()) return;
  layout_ = TimeLayout::at(now);
  rings_.clear();
  rings_.resize(layout_.rings().size());
  for (auto it = units_.begin(); it != units_.end();) {
    const std::int64_t unit = it->first;
    const auto ring = layout_.ring_of(unit);
    const bool in_disc = unit < layout_.boundary_unit();
    it->second.visit([&](std::uint32_t sector, const Cell& cell) {
      if (in_disc) {
        put_slice(sector, static_cast<std::uint64_t>(unit / kUnitsPerSlice), cell);
      } else if (ring) {
        rings_[*ring][sector].combine(cell);
      }
    });
    in_disc ? static_cast<void>(units_.erase(it++)) : static_cast<void>(++it);
  }
}

MinimalSnapshot DhtModel::minimal(const SectorSet& common) const {
  MinimalSnapshot out;
  out.disc_boundary = layout_.disc_boundary();
  for (std::uint32_t sector = 0; sector < kSectors; ++sector) {
    if (common.test(sector)) out.disc_top_hash.combine(disc_[sector].all.hash);
  }
  for (const SectorCells& ring : rings_) {
    CombinedHash& top = out.ring_top_hashes.emplace_back();
    ring.visit([&](std::uint32_t sector, const Cell& cell) {
      if (common.test(sector)) top.combine(cell.hash);
    });
  }
  return out;
}

std::optional<RingSectorDetailsSnapshot> DhtModel::differing_rings(const MinimalSnapshot& theirs,
                                                                   const SectorSet& common) const {
  const MinimalSnapshot ours = minimal(common);
  if (ours.disc_boundary != theirs.disc_boundary || ours.ring_top_hashes.size() != theirs.ring_top_hashes.size())
    return std::nullopt;
  RingSectorDetailsSnapshot out{ours.disc_boundary, {}};
  for (std::size_t ring = 0; ring < ours.ring_top_hashes.size(); ++ring) {
    if (ours.ring_top_hashes[ring] != theirs.ring_top_hashes[ring])
      out.rings.emplace(static_cast<std::uint32_t>(ring), ring_sectors(ring, common));
  }
  if (out.rings.empty()) return std::nullopt;
  return out;
}

DiscSectorsSnapshot DhtModel::disc_sectors(const SectorSet& common) const {
  DiscSectorsSnapshot out{layout_.disc_boundary(), {}};
  for (std::uint32_t sector = 0; sector < kSectors; ++sector) {
    if (common.test(sector) && disc_[sector].all.ops > 0) out.sectors.emplace(sector, disc_[sector].all.hash);
  }
  return out;
}

std::map<std::uint64_t, CombinedHash> DhtModel::disc_slices(std::uint32_t sector) const {
  std::map<std::uint64_t, CombinedHash> out;
  disc_[sector].slices.visit([&](std::uint64_t slice, const Cell& cell) { out.emplace(slice, cell.hash); });
  return out;
}

std::map<std::uint32_t, CombinedHash> DhtModel::ring_sectors(std::size_t ring, const SectorSet& common) const {
  std::map<std::uint32_t, CombinedHash> out;
  rings_[ring].visit([&](std::uint32_t sector, const Cell& cell) {
    if (common.test(sector)) out.emplace(sector, cell.hash);
  });
  return out;
}

Result<NextAction> DhtModel::handle(const Snapshot& theirs, const std::optional<Snapshot>& mine,
                                    const SectorSet& common) const {
  return std::visit([&](const auto& s) { return compare(s, mine ? &*mine : nullptr, common); }, theirs);
}

Result<NextAction> DhtModel::compare(const MinimalSnapshot& theirs, const Snapshot*, const SectorSet& common) const {
  const MinimalSnapshot ours = minimal(common);
  if (ours == theirs) return NextAction(Identical{});
  if (ours.disc_boundary != theirs.disc_boundary) return NextAction(CannotCompare{});
  if (ours.disc_top_hash != theirs.disc_top_hash) return NextAction(SendSnapshot{disc_sectors(common)});
  auto rings = differing_rings(theirs, common);
  if (!rings) return NextAction(CannotCompare{});
  return NextAction(SendSnapshot{std::move(*rings)});
}

Result<NextAction> DhtModel::compare(const DiscSectorsSnapshot& theirs, const Snapshot*,
                                     const SectorSet& common) const {
  for (const auto& [sector, hash] : theirs.sectors) {
    if (auto ok = check_common(sector, common); !ok) return ok.error();
  }
  const DiscSectorsSnapshot ours = disc_sectors(common);
  if (ours == theirs) return NextAction(Identical{});
  if (ours.disc_boundary != theirs.disc_boundary) return NextAction(CannotCompare{});
  DiscSectorDetailsSnapshot details{ours.disc_boundary, {}};
  for (const std::uint32_t sector : differences(ours.sectors, theirs.sectors))
    details.sectors.emplace(sector, disc_slices(sector));
  return NextAction(SendSnapshot{std::move(details)});
}

Result<NextAction> DhtModel::compare(const DiscSectorDetailsSnapshot& theirs, const Snapshot* mine,
                                     const SectorSet& common) const {
  for (const auto& [sector, slices] : theirs.sectors) {
    if (auto ok = check_common(sector, common); !ok) return ok.error();
    if (!slices.empty() && theirs.disc_boundary == layout_.disc_boundary() &&
        slices.rbegin()->first >= layout_.full_slices()) {
      return peer_fault("its snapshot names slice " + std::to_string(slices.rbegin()->first) +
                        ", which ends after the disc boundary");
    }
  }
  const auto* shown = mine != nullptr ? std::get_if<DiscSectorDetailsSnapshot>(mine) : nullptr;
  DiscSectorDetailsSnapshot made{layout_.disc_boundary(), {}};
  if (shown == nullptr) {
    for (const auto& [sector, slices] : theirs.sectors) made.sectors.emplace(sector, disc_slices(sector));
  }
  const DiscSectorDetailsSnapshot& ours = shown != nullptr ? *shown : made;
  if (ours == theirs) return NextAction(Identical{});
  if (ours.disc_boundary != theirs.disc_boundary) return NextAction(CannotCompare{});
  std::vector<SliceRef> slices;
  static const std::map<std::uint64_t, CombinedHash> kNone;
  for (const std::uint32_t sector : differences(ours.sectors, theirs.sectors)) {
    const auto own = ours.sectors.find(sector);
    const auto other = theirs.sectors.find(sector);
    for (const std::uint64_t slice : differences(own != ours.sectors.end() ? own->second : kNone,
                                                 other != theirs.sectors.end() ? other->second : kNone)) {
      const std::int64_t first = static_cast<std::int64_t>(slice) * kUnitsPerSlice;
      slices.push_back({sector, unit_start(first), unit_start(first + kUnitsPerSlice)});
    }
  }
  return with_ids(ours, shown != nullptr, std::move(slices));
}

Result<NextAction> DhtModel::compare(const RingSectorDetailsSnapshot& theirs, const Snapshot* mine,
                                     const SectorSet& common) const {
  for (const auto& [ring, sectors] : theirs.rings) {
    for (const auto& [sector, hash] : sectors) {
      if (auto ok = check_common(sector, common); !ok) return ok.error();
    }
    // One side may have moved on to the next unit during the round.
    if (ring >= rings_.size()) return NextAction(CannotCompare{});
  }
  const auto* shown = mine != nullptr ? std::get_if<RingSectorDetailsSnapshot>(mine) : nullptr;
  RingSectorDetailsSnapshot made{layout_.disc_boundary(), {}};
  if (shown == nullptr) {
    for (const auto& [ring, sectors] : theirs.rings) made.rings.emplace(ring, ring_sectors(ring, common));
  }
  const RingSectorDetailsSnapshot& ours = shown != nullptr ? *shown : made;
  if (ours == theirs) return NextAction(Identical{});
  if (ours.disc_boundary != theirs.disc_boundary) return NextAction(CannotCompare{});
  std::vector<SliceRef> slices;
  for (const auto& [ring, sectors] : ours.rings) {
    const auto other = theirs.rings.find(ring);
    if (other == theirs.rings.end() || ours.rings.size() != theirs.rings.size() || ring >= rings_.size())
      return NextAction(CannotCompare{});
    const Ring& span = layout_.rings()[ring];
    for (const std::uint32_t sector : differences(sectors, other->second))
      slices.push_back({sector, unit_start(span.first_unit), unit_start(span.end_unit())});
  }
  return with_ids(ours, shown != nullptr, std::move(slices));
}

void DhtModel::check_invariants() const {
  std::uint64_t ops = 0;
  for (const Disc& disc : disc_) {
    Cell all;
    disc.slices.visit([&](std::uint64_t slice, const Cell& cell) {
      K2_ASSERT(slice < layout_.full_slices() && cell.ops > 0 && cell.hash.size() == id_size_);
      all.combine(cell);
    });
    K2_ASSERT(all == disc.all);
    ops += all.ops;
  }
  std::vector<SectorCells> rings(layout_.rings().size());
  for (const auto& [unit, cells] : units_) {
    K2_ASSERT(unit >= layout_.boundary_unit() && !cells.empty());
    const auto ring = layout_.ring_of(unit);
    cells.visit([&](std::uint32_t sector, const Cell& cell) {
      K2_ASSERT(cell.hash.size() == id_size_);
      if (ring) rings[*ring][sector].combine(cell);
      ops += cell.ops;
    });
  }
  K2_ASSERT(rings == rings_);
  K2_ASSERT(ops <= ops_);  // ops from before 1970 are in no slice
}

}  // namespace kitsune2::dht
