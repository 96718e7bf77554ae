// In which order the ids of slices are listed to a peer.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/dht/sector_set.hpp"
#include "core/dht/snapshot.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

/// A place in a store's order of ops: that of creation, and of storing where that is the same.
struct ListingCursor {
  Timestamp created_at;
  Timestamp stored_at;
  friend auto operator<=>(const ListingCursor&, const ListingCursor&) = default;
};

/// Ops of these sectors that were created in [start, end), from a cursor on.
struct ListingPiece {
  Timestamp start, end;
  SectorSet sectors;
  std::optional<ListingCursor> after = {};
  friend bool operator==(const ListingPiece&, const ListingPiece&) = default;
};

/// Where the listing of ids to each peer was cut, so that the next one goes on there.
///
/// *Rules*. P1: slices of the same time are listed together, in order of time of creation. P2: a listing begins where
/// the last one for that peer was cut, and comes to what lies before in the end; if none was cut, with any slice, by
/// `random`. P3: of at most `kMostPeers` peers the place is kept, in memory; the one that was touched longest ago goes.
/// *Rationale*: P1, the store finds ops by time; slices of many sectors cost one walk. P2, the two sides find the same
/// slices different until all of what is lacking has been fetched. What was named is perhaps on its way, so it comes
/// last; and what nobody can serve must not hide the rest. So a slice of any size gets over in pieces.
class ListingPlaces {
 public:
  static constexpr std::size_t kMostPeers = 4'096;

  std::vector<ListingPiece> order(const Url& peer, const std::vector<dht::SliceRef>& slices, std::uint32_t random);
  /// The listing for `peer` was cut: what comes after `at` was not listed.
  void on_cut(const Url& peer, const ListingCursor& at);
  /// All was listed.
  void on_finished(const Url& peer);
  std::size_t size() const { return places_.size(); }

 private:
  using Order = std::list<std::pair<Url, ListingCursor>>;
  Order by_touch_;  ///< the latest first
  std::unordered_map<Url, Order::iterator> places_;
};

}  // namespace kitsune2::gossip
