// Whether a round compares the disc or the rings, where both differ.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dht/combined_hash.hpp"
#include "core/gossip/peer_notes.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

/// Remembers for each peer what the last comparisons with it were about. A round settles either the disc or the rings.
/// If the disc always came first, an old op that a peer names and cannot give would keep all recent ones from being
/// compared with it.
///
/// *Rules*.
///  C1  The disc comes first, as in the reference.
///  C2  When the last `kDiscTurns` comparisons of the disc with a peer that came to their end (C4) found the same
///      difference, comparing it brings nothing. Then up to `kRingTurns` rounds in a row compare the rings first,
///      before the disc has its next turn. Rationale: the difference is the XOR of what only one side holds, so ops
///      that come to both, or leave both, do not change it, however busy the space is.
///  C3  With a peer of ours the rings have a turn after `kDiscTurns` of the disc, whatever the difference. Rationale:
///      somewhere some old op is always on its way, and a peer can change its sum in each round. A stock node has no
///      such turn, since it takes a comparison of rings for a proof that the disc is the same.
///  C4  A turn of the rings counts when the peer is shown them, and one of the disc when the peer has shown its slices.
///      Rationale: a peer that does not answer about rings must not keep the disc from its turn, and a round in which
///      new ops are named in place of a comparison has compared nothing.
///      A comparison of the disc has come to its end when the peer's ids have come, which it names after ours.
///      Rationale: one that breaks off before does not show that our ids bring the peer nothing. A stock node that
///      lacks much of the disc would claim to store all of it after the turn of the rings that follows.
///  C5  When both discs are the same, all of this begins anew. The turns of at most `kMostPeers` peers are kept; the
///      one whose disc was compared longest ago is dropped.
class ComparisonTurns {
 public:
  static constexpr std::size_t kMostPeers = 4'096;
  static constexpr std::uint32_t kDiscTurns = 3;
  static constexpr std::uint32_t kRingTurns = 3;

  /// Whether a round in which both differ is to compare the rings. `is_ours`: the peer runs this implementation.
  /// `difference`: the XOR of the sums of both discs.
  bool is_turn_of_rings(const Url& peer, bool is_ours, const dht::CombinedHash& difference) const;
  /// `peer` is shown the rings, although the discs differ.
  void on_rings(const Url& peer);
  /// `peer` has shown its slices of the disc.
  void on_disc(const Url& peer);
  /// Then its ids have come too: the comparison has come to its end. C4.
  void on_disc_named(const Url& peer, const dht::CombinedHash& difference);
  /// The discs do not differ.
  void on_same_disc(const Url& peer);
  std::size_t size() const { return peers_.size(); }

 private:
  struct Turns {
    dht::CombinedHash difference;
    std::uint32_t same = 0;   ///< how many comparisons of the disc in a row found this difference
    std::uint32_t discs = 0;  ///< how many turns the disc has had since the last one of the rings
    std::uint32_t rings = 0;  ///< the other way round
  };
  PeerNotes<Turns, kMostPeers> peers_;
};

}  // namespace kitsune2::gossip
