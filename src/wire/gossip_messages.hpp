// Messages of the module "k2gossip". Described by proto/gossip.proto; meaning in docs/protocol-wire.md.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/dialect.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "wire/lists.hpp"

namespace kitsune2::wire {

/// The types of K2GossipMessage. The alternatives of `GossipMessage` are in the same order, starting at 1.
enum class GossipMessageType : std::int32_t {
  initiate = 1,
  accept = 2,
  no_diff = 3,
  disc_sectors_diff = 4,
  disc_sector_details_diff = 5,
  disc_sector_details_diff_response = 6,
  ring_sector_details_diff = 7,
  ring_sector_details_diff_response = 8,
  hashes = 9,
  agents = 10,
  busy = 11,
  terminate = 12,
};

// Decoded byte strings are slices of the message and keep it alive.

/// The 512 sectors of the DHT as bits: sector s is bit s%32 of word s/32.
struct ArcSetWords {
  std::array<std::uint32_t, 16> words{};

  bool test(std::uint32_t sector) const { return sector < 512 && ((words[sector / 32] >> (sector % 32)) & 1U) != 0; }
  /// No effect for a sector that does not exist.
  void set(std::uint32_t sector) {
    if (sector < 512) words[sector / 32] |= 1U << (sector % 32);
  }
  friend bool operator==(const ArcSetWords&, const ArcSetWords&) = default;
};

/// Bits of `abilities`, which stock nodes ignore. The sender accepts rounds whenever there is a reason for one, reports
/// by `more_ops` that a limit cut what it announced, and starts from the beginning on its own.
inline constexpr std::uint32_t kQuickRounds = 1;

/// Rust: `AcceptResponseMessage`.
struct AcceptResponse {
  std::vector<Bytes> missing_agents;   ///< agent ids
  std::vector<Bytes> provided_agents;  ///< signed JSON
  std::vector<Bytes> new_ops;          ///< op ids
  Timestamp updated_new_since;
  friend bool operator==(const AcceptResponse&, const AcceptResponse&) = default;
};

struct SnapshotMinimal {
  Timestamp disc_boundary;
  Bytes disc_top_hash;
  std::vector<Bytes> ring_top_hashes;
  friend bool operator==(const SnapshotMinimal&, const SnapshotMinimal&) = default;
};

struct SnapshotDiscSectors {
  Timestamp disc_boundary;
  std::vector<std::uint32_t> disc_sectors;
  std::vector<Bytes> disc_sector_hashes;  ///< as many as disc_sectors
  friend bool operator==(const SnapshotDiscSectors&, const SnapshotDiscSectors&) = default;
};

struct DiscSliceHashes {
  std::vector<std::uint64_t> slice_indices;
  std::vector<Bytes> hashes;  ///< as many as slice_indices
  friend bool operator==(const DiscSliceHashes&, const DiscSliceHashes&) = default;
};

struct SnapshotDiscSectorDetails {
  Timestamp disc_boundary;
  std::vector<std::uint32_t> sector_indices;
  std::vector<DiscSliceHashes>
      disc_slice_hashes;  ///< as many as sector_indices; empty ones stand for sectors that are not held
  friend bool operator==(const SnapshotDiscSectorDetails&, const SnapshotDiscSectorDetails&) = default;
};

struct RingSectorHashes {
  std::vector<std::uint32_t> sector_indices;
  std::vector<Bytes> hashes;  ///< as many as sector_indices
  friend bool operator==(const RingSectorHashes&, const RingSectorHashes&) = default;
};

struct SnapshotRingSectorDetails {
  Timestamp disc_boundary;
  std::vector<std::uint32_t> ring_indices;
  std::vector<RingSectorHashes> ring_sector_hashes;  ///< as many as ring_indices
  friend bool operator==(const SnapshotRingSectorDetails&, const SnapshotRingSectorDetails&) = default;
};

struct GossipInitiate {
  Bytes session_id;
  std::vector<Bytes> participating_agents;
  ArcSetWords arc_set;
  std::uint32_t tie_breaker = 0;
  Timestamp new_since;
  std::uint32_t max_op_data_bytes = 0;
  std::optional<std::uint64_t> dht_op_count;  ///< where the dialect has `gossip_tells_op_count`
  std::uint32_t abilities = 0;                ///< ours
  friend bool operator==(const GossipInitiate&, const GossipInitiate&) = default;
};

struct GossipAccept {
  Bytes session_id;
  std::vector<Bytes> participating_agents;
  ArcSetWords arc_set;
  std::vector<Bytes> missing_agents;
  Timestamp new_since;
  std::uint32_t max_op_data_bytes = 0;
  std::vector<Bytes> new_ops;
  Timestamp updated_new_since;
  std::optional<std::uint64_t> dht_op_count;  ///< where the dialect has `gossip_tells_op_count`
  std::optional<SnapshotMinimal> snapshot;    ///< absent if the common arc set is empty
  std::uint32_t abilities = 0;                ///< ours
  bool more_ops = false;                      ///< ours
  friend bool operator==(const GossipAccept&, const GossipAccept&) = default;
};

struct GossipNoDiff {
  Bytes session_id;
  AcceptResponse accept_response;
  bool cannot_compare = false;
  bool more_ops = false;  ///< ours
  friend bool operator==(const GossipNoDiff&, const GossipNoDiff&) = default;
};

struct GossipDiscSectorsDiff {
  Bytes session_id;
  AcceptResponse accept_response;
  SnapshotDiscSectors snapshot;
  friend bool operator==(const GossipDiscSectorsDiff&, const GossipDiscSectorsDiff&) = default;
};

struct GossipDiscSectorDetailsDiff {
  Bytes session_id;
  std::vector<Bytes> provided_agents;
  SnapshotDiscSectorDetails snapshot;
  friend bool operator==(const GossipDiscSectorDetailsDiff&, const GossipDiscSectorDetailsDiff&) = default;
};

struct GossipDiscSectorDetailsDiffResponse {
  Bytes session_id;
  std::vector<Bytes> missing_ids;
  SnapshotDiscSectorDetails snapshot;
  friend bool operator==(const GossipDiscSectorDetailsDiffResponse&,
                         const GossipDiscSectorDetailsDiffResponse&) = default;
};

struct GossipRingSectorDetailsDiff {
  Bytes session_id;
  AcceptResponse accept_response;
  SnapshotRingSectorDetails snapshot;
  bool disc_differs = false;  ///< ours: the rings are compared although the discs differ too
  friend bool operator==(const GossipRingSectorDetailsDiff&, const GossipRingSectorDetailsDiff&) = default;
};

struct GossipRingSectorDetailsDiffResponse {
  Bytes session_id;
  std::vector<Bytes> missing_ids;
  SnapshotRingSectorDetails snapshot;
  friend bool operator==(const GossipRingSectorDetailsDiffResponse&,
                         const GossipRingSectorDetailsDiffResponse&) = default;
};

struct GossipHashes {
  Bytes session_id;
  std::vector<Bytes> missing_ids;
  friend bool operator==(const GossipHashes&, const GossipHashes&) = default;
};

struct GossipAgents {
  Bytes session_id;
  std::vector<Bytes> provided_agents;
  friend bool operator==(const GossipAgents&, const GossipAgents&) = default;
};

struct GossipBusy {
  Bytes session_id;
  std::uint32_t abilities = 0;  ///< ours
  friend bool operator==(const GossipBusy&, const GossipBusy&) = default;
};

struct GossipTerminate {
  Bytes session_id;
  Bytes reason;  ///< UTF-8
  friend bool operator==(const GossipTerminate&, const GossipTerminate&) = default;
};

using GossipMessage =
    std::variant<GossipInitiate, GossipAccept, GossipNoDiff, GossipDiscSectorsDiff, GossipDiscSectorDetailsDiff,
                 GossipDiscSectorDetailsDiffResponse, GossipRingSectorDetailsDiff, GossipRingSectorDetailsDiffResponse,
                 GossipHashes, GossipAgents, GossipBusy, GossipTerminate>;

inline GossipMessageType type_of(const GossipMessage& message) {
  return static_cast<GossipMessageType>(message.index() + 1);
}

/// `data` is K2Proto.data. Errc::malformed: whatever a protobuf decoder refuses; an unknown type; no session id; ids
/// (agents, ops) of 0 bytes; a missing arc set, accept response or (in the DIFF messages) snapshot; an arc set that
/// does not have 16 words; parallel lists of different lengths. Errc::too_large: over `limits` (agent infos:
/// max_text_bytes, ids and hashes: max_id_bytes).
Result<GossipMessage> decode_gossip(Dialect dialect, const Bytes& data, const WireLimits& limits = {});

/// A body for Transport::send_module, in one allocation. The dialects differ in what is set in `message`.
Bytes encode_gossip(const GossipMessage& message);

}  // namespace kitsune2::wire
