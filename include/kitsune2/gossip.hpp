// The gossip module: brings a space's nodes to the same ops and agent infos.
#pragma once

#include <cstdint>

#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Counters since start. Monotonic.
struct GossipStats {
  std::uint64_t initiated = 0, accepted = 0, completed = 0;  ///< rounds
  std::uint64_t busy_sent = 0, busy_received = 0;
  std::uint64_t too_soon = 0, timeouts = 0, peer_errors = 0, local_errors = 0;
  std::uint64_t ops_named = 0, ops_learned = 0;        ///< ids sent to peers; ids received (including known ones)
  std::uint64_t agents_given = 0, agents_learned = 0;  ///< learned: verified and stored
  std::uint64_t agents_refused = 0;                    ///< infos that did not verify, or whose times are not credible
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
  virtual void stop() = 0;
};

}  // namespace kitsune2
