// The order in which the ids of slices are listed to a peer, over as many rounds as that takes.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/dht/sector_set.hpp"
#include "core/dht/snapshot.hpp"
#include "core/gossip/peer_notes.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

/// A place in the order of a store's ops: by time of creation, and by time of storing among equals.
struct ListingCursor {
  Timestamp created_at;
  Timestamp stored_at;
  friend auto operator<=>(const ListingCursor&, const ListingCursor&) = default;
};

/// The ops of some sectors that were created in [start, end); only those after the cursor, if there is one.
struct ListingPiece {
  Timestamp start, end;
  SectorSet sectors;
  std::optional<ListingCursor> after = {};
  friend bool operator==(const ListingPiece&, const ListingPiece&) = default;
};

/// Remembers for each peer where the listing of ids to it was cut off, so that the next listing continues there.
///
/// *Rules*.
///  P1  Slices of the same time are listed together, in order of creation. Rationale: the store finds ops by time, so
///      the slices of many sectors cost one walk.
///  P2  A listing begins where the last one for that peer was cut off, and returns to what lies before that at its end.
///      If none was cut off, it begins with any slice, by `random`. Rationale: the two sides find the same slices
///      different until everything has been fetched. What was named is perhaps on its way, so it comes last. And ops
///      that nobody can serve must not hide the others. In this way a slice of any size is listed, piece by piece.
///  P3  The places of at most `kMostPeers` peers are kept, in memory; the one touched longest ago is dropped.
///  P4  One object is for slices of the disc, and another one for those of rings. Rationale: they are compared in turn
///      (`ComparisonTurns`), and a place in the rings comes after the whole disc, which would then begin anew each
///      time.
class ListingPlaces {
 public:
  static constexpr std::size_t kMostPeers = 4'096;

  /// What to list to `peer`, in this order, so that all of `slices` is named.
  std::vector<ListingPiece> order(const Url& peer, const std::vector<dht::SliceRef>& slices, std::uint32_t random);
  /// The listing for `peer` was cut off: what comes after `at` was not listed.
  void on_cut(const Url& peer, const ListingCursor& at);
  /// The listing for `peer` was not cut off.
  void on_finished(const Url& peer);
  std::size_t size() const { return places_.size(); }

 private:
  PeerNotes<ListingCursor, kMostPeers> places_;
};

}  // namespace kitsune2::gossip
