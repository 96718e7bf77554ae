// The order of listing ids to peers. Rules: P of gossip::ListingPlaces.
#include "core/gossip/listing_places.hpp"

#include <algorithm>
#include <map>

namespace kitsune2::gossip {

std::vector<ListingPiece> ListingPlaces::order(const Url& peer, const std::vector<dht::SliceRef>& slices,
                                               std::uint32_t random) {
  std::map<std::pair<Timestamp, Timestamp>, SectorSet> spans;
  for (const dht::SliceRef& slice : slices) spans[{slice.start, slice.end}].set(slice.sector);
  std::vector<ListingPiece> out;
  out.reserve(spans.size() + 1);
  for (const auto& [time, sectors] : spans) out.push_back({time.first, time.second, sectors});
  if (out.empty()) return out;

  if (places_.find(peer) == nullptr) {
    std::rotate(out.begin(), out.begin() + random % static_cast<std::uint32_t>(out.size()), out.end());
    return out;
  }
  const ListingCursor at = places_.touch(peer);
  const auto first =
      std::find_if(out.begin(), out.end(), [&](const ListingPiece& piece) { return piece.end > at.created_at; });
  std::rotate(out.begin(), first, out.end());
  ListingPiece& front = out.front();
  if (front.start <= at.created_at && at.created_at < front.end) {
    // What lies before the cursor comes last. Some of the same microsecond may come twice.
    ListingPiece rest = front;
    rest.end = at.created_at + Duration{1};
    front.after = at;
    out.push_back(rest);
  }
  return out;
}

void ListingPlaces::on_cut(const Url& peer, const ListingCursor& at) { places_.touch(peer) = at; }

void ListingPlaces::on_finished(const Url& peer) { places_.erase(peer); }

}  // namespace kitsune2::gossip
