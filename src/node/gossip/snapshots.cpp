// Snapshots of the DHT model, to and from their messages.
#include "node/gossip/snapshots.hpp"

#include <map>
#include <utility>
#include <vector>

#include "core/dht/sector_set.hpp"

namespace kitsune2 {
namespace {

Bytes bytes_of(const dht::CombinedHash& hash) { return Bytes::copy_of(as_text(hash.view())); }

template <class Key>
void put(const std::map<Key, dht::CombinedHash>& from, std::vector<Key>& keys, std::vector<Bytes>& hashes) {
  keys.reserve(from.size());
  hashes.reserve(from.size());
  for (const auto& [key, hash] : from) {
    keys.push_back(key);
    hashes.push_back(bytes_of(hash));
  }
}

/// How much of a snapshot may still come.
class Left {
 public:
  template <class Key>
  Result<std::map<Key, dht::CombinedHash>> take(const std::vector<Key>& keys, const std::vector<Bytes>& hashes) {
    if (keys.size() > left_) return make_error(Errc::too_large, "a snapshot of too many hashes");
    left_ -= keys.size();
    std::map<Key, dht::CombinedHash> out;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (hashes[i].empty()) continue;
      if (!out.emplace(keys[i], dht::CombinedHash(hashes[i].view())).second)
        return make_error(Errc::peer_fault, "a snapshot that has something twice");
    }
    return out;
  }

 private:
  std::size_t left_ = kMostHashesTaken;
};

/// A list of maps, each with its key.
template <class Outer, class Inner, class Lists, class Take>
Result<std::map<Outer, std::map<Inner, dht::CombinedHash>>> take_all(const std::vector<Outer>& keys, const Lists& lists,
                                                                     Outer end, Take take) {
  std::map<Outer, std::map<Inner, dht::CombinedHash>> out;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (keys[i] >= end) return make_error(Errc::peer_fault, "a snapshot of a sector or ring that does not exist");
    auto inner = take(lists[i]);
    if (!inner) return inner.error();
    if (!out.emplace(keys[i], std::move(*inner)).second)
      return make_error(Errc::peer_fault, "a snapshot that has something twice");
  }
  return out;
}

/// More than there can be.
constexpr std::uint32_t kRings = 64;

}  // namespace

wire::SnapshotMinimal to_wire(const dht::MinimalSnapshot& s) {
  wire::SnapshotMinimal out{s.disc_boundary, bytes_of(s.disc_top_hash), {}};
  for (const dht::CombinedHash& hash : s.ring_top_hashes) out.ring_top_hashes.push_back(bytes_of(hash));
  return out;
}

wire::SnapshotDiscSectors to_wire(const dht::DiscSectorsSnapshot& s) {
  wire::SnapshotDiscSectors out{s.disc_boundary, {}, {}};
  put(s.sectors, out.disc_sectors, out.disc_sector_hashes);
  return out;
}

wire::SnapshotDiscSectorDetails to_wire(const dht::DiscSectorDetailsSnapshot& s) {
  wire::SnapshotDiscSectorDetails out{s.disc_boundary, {}, {}};
  for (const auto& [sector, slices] : s.sectors) {
    out.sector_indices.push_back(sector);
    auto& inner = out.disc_slice_hashes.emplace_back();
    put(slices, inner.slice_indices, inner.hashes);
  }
  return out;
}

wire::SnapshotRingSectorDetails to_wire(const dht::RingSectorDetailsSnapshot& s) {
  wire::SnapshotRingSectorDetails out{s.disc_boundary, {}, {}};
  for (const auto& [ring, sectors] : s.rings) {
    out.ring_indices.push_back(ring);
    auto& inner = out.ring_sector_hashes.emplace_back();
    put(sectors, inner.sector_indices, inner.hashes);
  }
  return out;
}

dht::MinimalSnapshot from_wire(const wire::SnapshotMinimal& m) {
  dht::MinimalSnapshot out{m.disc_boundary, dht::CombinedHash(m.disc_top_hash.view()), {}};
  for (const Bytes& hash : m.ring_top_hashes) out.ring_top_hashes.emplace_back(hash.view());
  return out;
}

Result<dht::DiscSectorsSnapshot> from_wire(const wire::SnapshotDiscSectors& m) {
  auto sectors = Left().take(m.disc_sectors, m.disc_sector_hashes);
  if (!sectors) return sectors.error();
  return dht::DiscSectorsSnapshot{m.disc_boundary, std::move(*sectors)};
}

Result<dht::DiscSectorDetailsSnapshot> from_wire(const wire::SnapshotDiscSectorDetails& m) {
  Left left;
  auto sectors = take_all<std::uint32_t, std::uint64_t>(
      m.sector_indices, m.disc_slice_hashes, SectorSet::kCount,
      [&](const wire::DiscSliceHashes& inner) { return left.take(inner.slice_indices, inner.hashes); });
  if (!sectors) return sectors.error();
  return dht::DiscSectorDetailsSnapshot{m.disc_boundary, std::move(*sectors)};
}

Result<dht::RingSectorDetailsSnapshot> from_wire(const wire::SnapshotRingSectorDetails& m) {
  Left left;
  auto rings = take_all<std::uint32_t, std::uint32_t>(
      m.ring_indices, m.ring_sector_hashes, kRings,
      [&](const wire::RingSectorHashes& inner) { return left.take(inner.sector_indices, inner.hashes); });
  if (!rings) return rings.error();
  return dht::RingSectorDetailsSnapshot{m.disc_boundary, std::move(*rings)};
}

}  // namespace kitsune2
