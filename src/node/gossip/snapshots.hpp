// Snapshots of the DHT model, as messages and as the model has them.
#pragma once

#include "core/dht/snapshot.hpp"
#include "kitsune2/error.hpp"
#include "wire/gossip_messages.hpp"

namespace kitsune2 {

/// Hashes of one snapshot that are looked at.
inline constexpr std::size_t kMostHashesTaken = 262'144;

wire::SnapshotMinimal to_wire(const dht::MinimalSnapshot& s);
wire::SnapshotDiscSectors to_wire(const dht::DiscSectorsSnapshot& s);
wire::SnapshotDiscSectorDetails to_wire(const dht::DiscSectorDetailsSnapshot& s);
wire::SnapshotRingSectorDetails to_wire(const dht::RingSectorDetailsSnapshot& s);

// Errc::peer_fault: a sector that does not exist, or something twice. Errc::too_large: more than kMostHashesTaken.
// An empty hash stands for no op, as if it were not there.

dht::MinimalSnapshot from_wire(const wire::SnapshotMinimal& m);
Result<dht::DiscSectorsSnapshot> from_wire(const wire::SnapshotDiscSectors& m);
Result<dht::DiscSectorDetailsSnapshot> from_wire(const wire::SnapshotDiscSectorDetails& m);
Result<dht::RingSectorDetailsSnapshot> from_wire(const wire::SnapshotRingSectorDetails& m);

}  // namespace kitsune2
