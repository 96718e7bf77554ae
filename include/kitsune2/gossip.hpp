// The gossip module: brings a space's nodes to the same ops and agent infos.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "kitsune2/arc.hpp"
#include "kitsune2/bytes.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Counters since start. Monotonic.
struct GossipStats {
  std::uint64_t initiated = 0, accepted = 0, completed = 0;  ///< rounds
  std::uint64_t discs_compared = 0, rings_compared = 0;      ///< rounds that found a difference there
  std::uint64_t busy_sent = 0, busy_received = 0;
  std::uint64_t too_soon = 0, timeouts = 0, peer_errors = 0, local_errors = 0;
  std::uint64_t ops_named = 0, ops_learned = 0;        ///< ids sent to peers; ids received (including known ones)
  std::uint64_t agents_given = 0, agents_learned = 0;  ///< learned: verified and stored
  std::uint64_t agents_refused = 0;                    ///< infos that did not verify, or whose times are not credible
};

/// How far the storage arcs of this node's agents are. A space has DhtArc::kSectors sectors.
struct GossipCoverage {
  std::uint32_t target_sectors = 0;   ///< that some agent wants to hold
  std::uint32_t storage_sectors = 0;  ///< that some agent claims to hold
  /// Of the target, those that a comparison has found in sync with some peer since the agent joined. They are part of a
  /// storage arc as soon as they are next to it, or when that arc is as long as the target.
  std::uint32_t in_sync_sectors = 0;
  friend bool operator==(const GossipCoverage&, const GossipCoverage&) = default;
};

/// A round under way. Rust: `GossipRoundStateSummary`.
struct GossipRoundSummary {
  Url session_with_peer;
  Duration age{};  ///< since it began
};

/// What gossip has noted about a peer. nullopt: nothing, or so long ago that it has expired: a time after 10 minutes, a
/// bookmark, completed rounds and timeouts after a day, other counts after an hour. Rust: `PeerMeta`.
struct GossipPeerMetaSummary {
  std::optional<Timestamp> last_gossip_timestamp;  ///< the last attempt of either side
  std::optional<Timestamp> new_ops_bookmark;       ///< by the peer's clock
  std::optional<std::uint64_t> peer_behavior_errors, local_errors, peer_busy, peer_terminated, completed_rounds,
      peer_timeouts;
  DhtArc storage_arc;  ///< that an agent there claims; of several agents, the longest
  /// The last time that a comparison with it found anything in sync, and in how many sectors. Not kept on disk.
  std::optional<Timestamp> in_sync_at;
  std::uint32_t in_sync_sectors = 0;
};

/// The sums of the DHT model over one arc. Rust: `DhtSegmentState`.
struct DhtSegmentState {
  Bytes disc_top_hash;
  Timestamp disc_boundary;
  std::vector<Bytes> ring_top_hashes;
};

struct GossipStateSummaryRequest {
  bool include_dht_summary = false;
};

/// The state of the gossip module. Rust: `GossipStateSummary`, which has one initiated round; here there may be three.
struct GossipStateSummary {
  std::vector<GossipRoundSummary> initiated_rounds, accepted_rounds;
  /// For each target arc of a local agent, if it was asked for. Empty while the model is read from the store.
  std::vector<std::pair<DhtArc, DhtSegmentState>> dht_summary;
  std::map<Url, GossipPeerMetaSummary> peer_meta;  ///< all peers of which an agent is known
  GossipCoverage coverage;
  std::uint64_t local_op_count = 0;  ///< ops in the DHT model; 0 while it is read from the store
};

/// Gossip of one space. Strand only. Names what is new and compares the rest: docs/protocol-gossip.md.
class Gossip {
 public:
  virtual ~Gossip() = default;
  /// Tells gossip that all open requests to `peer` are dropped, because the peer was given up or blocked. If the peer
  /// returns, gossip asks it for its ops from the beginning. Must be called before the store forgets the requests.
  virtual void inform_requests_dropped(const Url& peer) { static_cast<void>(peer); }
  /// Tells gossip that the agents that were at `old_url` are at `new_url` now, and that no agent is at the old one.
  virtual void peer_moved(const Url& /*old_url*/, const Url& /*new_url*/) {}
  virtual GossipStats stats() const { return {}; }
  /// Cheap.
  virtual GossipCoverage coverage() const { return {}; }
  /// Linear in the number of known agents. Rust: `get_state_summary`.
  virtual GossipStateSummary state_summary(const GossipStateSummaryRequest& /*request*/) { return {}; }
  virtual void stop() = 0;
};

}  // namespace kitsune2
