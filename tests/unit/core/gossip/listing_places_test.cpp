// The order in which slices are listed to a peer, over several rounds.
#include "core/gossip/listing_places.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "unit/core/named.hpp"

namespace kitsune2::gossip {
namespace {

using tests::peer;

/// Slices of ten microseconds, from these times on, in sector 3 or 4.
const std::vector<dht::SliceRef> kSlices = {{3, Timestamp{20}, Timestamp{30}},
                                            {4, Timestamp{20}, Timestamp{30}},
                                            {3, Timestamp{0}, Timestamp{10}},
                                            {3, Timestamp{40}, Timestamp{50}}};

std::vector<std::int64_t> starts(const std::vector<ListingPiece>& pieces) {
  std::vector<std::int64_t> out;
  for (const ListingPiece& piece : pieces) out.push_back(piece.start.micros);
  return out;
}

TEST(ListingPlaces, SlicesOfTheSameTimeAreOnePieceAndTheFirstOneIsRandom) {
  ListingPlaces places;
  EXPECT_EQ(starts(places.order(peer(1), kSlices, 0)), (std::vector<std::int64_t>{0, 20, 40}));
  const auto from_the_second = places.order(peer(1), kSlices, 4);
  EXPECT_EQ(starts(from_the_second), (std::vector<std::int64_t>{20, 40, 0}));
  SectorSet both;
  both.set(3);
  both.set(4);
  EXPECT_EQ(from_the_second[0].sectors, both);
  EXPECT_TRUE(places.order(peer(1), {}, 7).empty());
}

TEST(ListingPlaces, AListingThatWasCutGoesOnWhereItWasCut) {
  ListingPlaces places;
  const ListingCursor cut{Timestamp{24}, Timestamp{100}};
  places.on_cut(peer(1), cut);
  const auto pieces = places.order(peer(1), kSlices, 0);
  ASSERT_EQ(starts(pieces), (std::vector<std::int64_t>{20, 40, 0, 20}));
  EXPECT_EQ(pieces[0].after, cut);
  EXPECT_EQ(pieces[0].end, Timestamp{30});
  // What lies before the place comes last.
  EXPECT_EQ(pieces[3].end, Timestamp{25});
  EXPECT_FALSE(pieces[3].after);
  EXPECT_EQ(starts(places.order(peer(2), kSlices, 0)), (std::vector<std::int64_t>{0, 20, 40})) << "another peer";
  places.on_finished(peer(1));
  EXPECT_EQ(starts(places.order(peer(1), kSlices, 0)), (std::vector<std::int64_t>{0, 20, 40}));
}

TEST(ListingPlaces, APlaceBetweenSlicesBeginsWithTheNextOneAndOneBehindAllWithTheFirst) {
  ListingPlaces places;
  places.on_cut(peer(1), {Timestamp{30}, Timestamp{0}});
  EXPECT_EQ(starts(places.order(peer(1), kSlices, 0)), (std::vector<std::int64_t>{40, 0, 20}));
  places.on_cut(peer(1), {Timestamp{99}, Timestamp{0}});
  EXPECT_EQ(starts(places.order(peer(1), kSlices, 0)), (std::vector<std::int64_t>{0, 20, 40}));
}

TEST(ListingPlaces, ThePlaceThatWasTouchedLongestAgoIsDropped) {
  ListingPlaces places;
  const int most = static_cast<int>(ListingPlaces::kMostPeers);
  for (int n = 0; n < most; ++n) places.on_cut(peer(n), {Timestamp{40}, Timestamp{0}});
  (void)places.order(peer(0), kSlices, 0);
  places.on_cut(peer(most), {Timestamp{40}, Timestamp{0}});
  EXPECT_EQ(places.size(), ListingPlaces::kMostPeers);
  EXPECT_EQ(places.order(peer(0), kSlices, 0).front().start, Timestamp{40});
  EXPECT_EQ(places.order(peer(1), kSlices, 0).front().start, Timestamp{0});
}

}  // namespace
}  // namespace kitsune2::gossip
