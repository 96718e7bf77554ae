// What two nodes tell each other about their ops, in four levels of detail, and what follows from a comparison.
#pragma once

#include <cstdint>
#include <map>
#include <variant>
#include <vector>

#include "core/dht/combined_hash.hpp"
#include "core/dht/time_layout.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2::dht {

// All snapshots cover exactly the sectors that both nodes have in common. A sector or slice without an op is left out.
// Rust: `DhtSnapshot` in `dht/snapshot.rs` of kitsune2_dht 0.2.2.

/// The first snapshot of a round.
struct MinimalSnapshot {
  Timestamp disc_boundary;
  CombinedHash disc_top_hash;                 ///< over all common sectors and full slices
  std::vector<CombinedHash> ring_top_hashes;  ///< for each ring, over the common sectors
  friend bool operator==(const MinimalSnapshot&, const MinimalSnapshot&) = default;
};
/// Sent after a difference in the disc: each sector, over all its full slices.
struct DiscSectorsSnapshot {
  Timestamp disc_boundary;
  std::map<std::uint32_t, CombinedHash> sectors;
  friend bool operator==(const DiscSectorsSnapshot&, const DiscSectorsSnapshot&) = default;
};
/// Every full slice of the sectors that differ.
struct DiscSectorDetailsSnapshot {
  Timestamp disc_boundary;
  std::map<std::uint32_t, std::map<std::uint64_t, CombinedHash>> sectors;  ///< sector -> slice -> hash
  friend bool operator==(const DiscSectorDetailsSnapshot&, const DiscSectorDetailsSnapshot&) = default;
};
/// Every sector of the rings that differ.
struct RingSectorDetailsSnapshot {
  Timestamp disc_boundary;
  std::map<std::uint32_t, std::map<std::uint32_t, CombinedHash>> rings;  ///< ring -> sector -> hash
  friend bool operator==(const RingSectorDetailsSnapshot&, const RingSectorDetailsSnapshot&) = default;
};

using Snapshot =
    std::variant<MinimalSnapshot, DiscSectorsSnapshot, DiscSectorDetailsSnapshot, RingSectorDetailsSnapshot>;

/// The ops of one sector that were created in [start, end).
struct SliceRef {
  std::uint32_t sector = 0;
  Timestamp start, end;
  /// Whether it is a full slice, and not one of a ring.
  bool is_of_disc() const { return end - start == kUnitsPerSlice * kUnit; }
  friend bool operator==(const SliceRef&, const SliceRef&) = default;
};

// What follows from comparing a peer's snapshot with this node's state.

/// Nothing differs.
struct Identical {
  friend bool operator==(const Identical&, const Identical&) = default;
};
/// The two nodes divide time differently: their clocks are apart, or one of them has just moved on to the next unit.
struct CannotCompare {
  friend bool operator==(const CannotCompare&, const CannotCompare&) = default;
};
/// Send this snapshot, and compare the answer.
struct SendSnapshot {
  Snapshot snapshot;
  friend bool operator==(const SendSnapshot&, const SendSnapshot&) = default;
};
/// Send this snapshot together with the ids in `slices`, as far as the budget of the round allows.
struct SendSnapshotAndIds {
  Snapshot snapshot;
  std::vector<SliceRef> slices;
  friend bool operator==(const SendSnapshotAndIds&, const SendSnapshotAndIds&) = default;
};
/// Send the ids in `slices`. This is the last step of a comparison.
struct SendIds {
  std::vector<SliceRef> slices;
  friend bool operator==(const SendIds&, const SendIds&) = default;
};
using NextAction = std::variant<Identical, CannotCompare, SendSnapshot, SendSnapshotAndIds, SendIds>;

}  // namespace kitsune2::dht
