// When the comparison of a round is put off, because ops are named in its place.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/gossip/peer_notes.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

/// What a round names to the peer, besides a comparison.
struct NamedList {
  std::uint64_t ids = 0;
  bool is_cut = false;           ///< there is more that the peer asked for
  bool is_by_allowance = false;  ///< what cut it off is the allowance that newcomers share
};

/// Decides whether a round compares although its list of new ops was cut off.
///
/// *Rules*.
///  O1  A list that was cut off puts off the comparison of its round. Rationale: the peer lacks what was not named yet,
///      so a comparison would find that lacking, and name it twice.
///  O2  A list that names nothing, or that the allowance of newcomers has cut off, puts off nothing. Rationale: others
///      use up the allowance, as often as they like, so the list may get on by a few ids in a round, or by none.
///  O3  After `kMostInARow` such rounds with a peer one after the other, the next one compares, and leaves half of what
///      it may name to the comparison. Rationale: where more is stored than rounds may name, each list is cut off, and
///      what was lost on the way would never be found.
///  O4  The counts of at most `kMostPeers` peers are kept; the one that was touched longest ago is dropped.
class PutOffs {
 public:
  static constexpr std::uint32_t kMostInARow = 3;
  static constexpr std::size_t kMostPeers = 4'096;

  /// Whether the next list for `peer` is to leave half of the round to the comparison. O3
  bool is_due(const Url& peer) const;
  /// A round in which both could compare has this list for `peer`. Returns whether its comparison is put off.
  bool on_list(const Url& peer, const NamedList& list);
  std::size_t size() const { return in_a_row_.size(); }

 private:
  PeerNotes<std::uint32_t, kMostPeers> in_a_row_;  ///< how many were put off
};

}  // namespace kitsune2::gossip
