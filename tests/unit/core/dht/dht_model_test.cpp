// The DHT model by example: what the reference's own tests of kitsune2_dht show. Random cases are in
// tests/model/dht_twin_test.cpp, results of the reference in dht_vectors_test.cpp.
#include "core/dht/dht_model.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace kitsune2::dht {
namespace {

constexpr Duration kInstant{1};

std::vector<unsigned> ring_lengths(const TimeLayout& layout) {
  std::vector<unsigned> out;
  for (const Ring& ring : layout.rings()) out.push_back(ring.log2_units);
  return out;
}

/// Rings follow each other without a gap from the disc on, none is longer than the one before, and less than two units
/// are left at the end.
void expect_sound(const TimeLayout& layout, Timestamp now) {
  std::int64_t unit = layout.boundary_unit();
  unsigned length = 8;
  for (const Ring& ring : layout.rings()) {
    EXPECT_EQ(ring.first_unit, unit);
    EXPECT_LE(ring.log2_units, length);
    unit = ring.end_unit();
    length = ring.log2_units;
  }
  EXPECT_LT(unit_start(unit), now);
  EXPECT_LE(now, unit_start(unit + 2));
}

TEST(TimeLayout, In1970ThereIsNeitherASliceNorARing) {
  for (const Timestamp now : {Timestamp{}, unit_start(1)}) {
    EXPECT_EQ(TimeLayout::at(now).full_slices(), 0U);
    EXPECT_TRUE(TimeLayout::at(now).rings().empty());
  }
}

TEST(TimeLayout, AfterOneUnitThereIsARingOfOne) {
  const TimeLayout layout = TimeLayout::at(unit_start(1) + kInstant);
  EXPECT_EQ(layout.full_slices(), 0U);
  EXPECT_EQ(layout.rings(), std::vector<Ring>({{0, 0}}));
  EXPECT_EQ(layout.next_update(), unit_start(2));
}

TEST(TimeLayout, TheLeastRecentTimeIsOneRingOfEachLength) {
  const TimeLayout layout = TimeLayout::at(unit_start(kMinRecentUnits) + kInstant);
  EXPECT_EQ(layout.full_slices(), 0U);
  EXPECT_EQ(ring_lengths(layout), std::vector<unsigned>({8, 7, 6, 5, 4, 3, 2, 1, 0}));
}

TEST(TimeLayout, WhereThereIsRoomTheLongestRingComesTwice) {
  const TimeLayout layout = TimeLayout::at(unit_start(kMinRecentUnits + 256) + kInstant);
  EXPECT_EQ(ring_lengths(layout), std::vector<unsigned>({8, 8, 7, 6, 5, 4, 3, 2, 1, 0}));
}

TEST(TimeLayout, TheMostRecentTimeIsTwoRingsOfEachLength) {
  const TimeLayout layout = TimeLayout::at(unit_start(2 * kMinRecentUnits) + kInstant);
  EXPECT_EQ(layout.full_slices(), 0U);
  EXPECT_EQ(ring_lengths(layout), std::vector<unsigned>({8, 8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0}));
}

TEST(TimeLayout, WhatIsBeforeTheLeastRecentTimeIsFullSlices) {
  const TimeLayout layout = TimeLayout::at(unit_start(2 * kUnitsPerSlice + kMinRecentUnits) + kInstant);
  EXPECT_EQ(layout.full_slices(), 2U);
  EXPECT_EQ(layout.disc_boundary(), unit_start(2 * kUnitsPerSlice));
  EXPECT_EQ(ring_lengths(layout), std::vector<unsigned>({8, 7, 6, 5, 4, 3, 2, 1, 0}));
}

TEST(TimeLayout, IsSoundAtEveryUnitOfTwoSlices) {
  for (std::int64_t unit = 3; unit < 3 * kUnitsPerSlice; ++unit) {
    for (const std::int64_t off : {-1, 0, 1}) {
      const Timestamp now = unit_start(unit) + Duration(off);
      SCOPED_TRACE(now.micros);
      expect_sound(TimeLayout::at(now), now);
    }
  }
}

class DhtByExample : public testing::Test {
 protected:
  /// Three full slices, and one ring of each length.
  static constexpr std::int64_t kNowUnit = 3 * kUnitsPerSlice + kMinRecentUnits;
  static constexpr Timestamp now() { return Timestamp{kNowUnit * kUnit.count() + 1}; }

  static std::vector<std::uint8_t> id(std::uint8_t byte) { return std::vector<std::uint8_t>(32, byte); }
  static CombinedHash hash(std::uint8_t byte) { return CombinedHash(id(byte)); }
  static void store(DhtModel& model, std::uint32_t sector, std::int64_t unit, std::uint8_t byte) {
    ASSERT_TRUE(model.add(sector << SectorSet::kBits, unit_start(unit), id(byte)));
  }
  static SectorSet all() {
    SectorSet out;
    out.add(DhtArc::full());
    return out;
  }
  static SectorSet sectors(std::initializer_list<std::uint32_t> list) {
    SectorSet out;
    for (const std::uint32_t sector : list) out.set(sector);
    return out;
  }
  NextAction on(const Snapshot& theirs, const std::optional<Snapshot>& mine = {}) {
    return a.handle(theirs, mine, all()).value();
  }
  MinimalSnapshot minimal() { return a.minimal(all()); }
  /// A round in which `second` starts; returns the slices that `first` and `second` name.
  static std::pair<std::vector<SliceRef>, std::vector<SliceRef>> round(DhtModel& first, DhtModel& second,
                                                                       const SectorSet& common) {
    std::vector<SliceRef> named[2];
    std::optional<Snapshot> shown[2];
    Snapshot theirs = first.minimal(common);
    for (std::size_t turn = 0;; ++turn) {
      DhtModel& model = turn % 2 == 0 ? second : first;
      const NextAction next = model.handle(theirs, shown[turn % 2], common).value();
      if (const auto* send = std::get_if<SendSnapshot>(&next)) {
        theirs = send->snapshot;
      } else if (const auto* both = std::get_if<SendSnapshotAndIds>(&next)) {
        theirs = both->snapshot;
        named[1 - turn % 2] = both->slices;
      } else {
        if (const auto* ids = std::get_if<SendIds>(&next)) named[1 - turn % 2] = ids->slices;
        return {named[0], named[1]};
      }
      shown[turn % 2] = theirs;
    }
  }
  static SliceRef slice(std::uint32_t sector, std::int64_t index) {
    return {sector, unit_start(index * kUnitsPerSlice), unit_start((index + 1) * kUnitsPerSlice)};
  }

  static constexpr std::int64_t kFirstRing = 3 * kUnitsPerSlice;
  DhtModel a{now()}, b{now()};
};

// ---------------------------------------------------------------- what is held

TEST_F(DhtByExample, WithoutOpsThereAreNoHashes) {
  EXPECT_EQ(minimal(), (MinimalSnapshot{unit_start(kFirstRing), {}, std::vector<CombinedHash>(9)}));
  EXPECT_EQ(on(b.minimal(all())), NextAction(Identical{}));
  EXPECT_EQ(a.op_count(), 0U);
}

TEST_F(DhtByExample, TheHashOfASliceIsTheXorOfItsIds) {
  store(a, 5, 0, 7);
  store(a, 5, kUnitsPerSlice - 1, 23);  // the last unit of the same slice
  store(a, 5, kFirstRing, 11);
  store(a, 5, kFirstRing + 255, 29);  // the last unit of the same ring
  EXPECT_EQ(minimal().disc_top_hash, hash(7 ^ 23));
  EXPECT_EQ(minimal().ring_top_hashes[0], hash(11 ^ 29));
  EXPECT_EQ(a.op_count(), 4U);
}

TEST_F(DhtByExample, SlicesAndSectorsAreAddedUp) {
  store(a, 0, 0, 1);
  store(a, 0, 2 * kUnitsPerSlice, 2);
  store(a, 511, kUnitsPerSlice, 4);
  store(a, 0, kFirstRing, 8);
  store(a, 511, kFirstRing, 16);
  store(a, 511, kNowUnit - 1, 32);
  EXPECT_EQ(minimal().disc_top_hash, hash(1 ^ 2 ^ 4));
  EXPECT_EQ(minimal().ring_top_hashes[0], hash(8 ^ 16));
  EXPECT_EQ(minimal().ring_top_hashes[8], hash(32));
  EXPECT_EQ(a.minimal(sectors({511})).disc_top_hash, hash(4));
  EXPECT_EQ(a.minimal(sectors({511})).ring_top_hashes[0], hash(16));
}

TEST_F(DhtByExample, OpsThatComeLaterJoinTheHashOfTheirSlice) {
  for (const std::int64_t unit : {std::int64_t{0}, kFirstRing}) {
    store(a, 1, unit, 7);   // the first one of the slice
    store(a, 1, unit, 23);  // beside another one
  }
  EXPECT_EQ(minimal().disc_top_hash, hash(7 ^ 23));
  EXPECT_EQ(minimal().ring_top_hashes[0], hash(7 ^ 23));
}

TEST_F(DhtByExample, AnUpdateBeforeItsTimeChangesNothing) {
  store(a, 1, 0, 7);
  store(a, 1, kNowUnit - 1, 11);
  const MinimalSnapshot before = minimal();
  for (int i = 1; i < 10; ++i) {
    a.update(now() + i * (kUnit / 100));
    EXPECT_EQ(minimal(), before);
    EXPECT_EQ(a.layout(), b.layout());
  }
}

TEST_F(DhtByExample, AnOpThatIsTooNewForARingEntersOneAtTheNextUpdate) {
  store(a, 1, kNowUnit - 1, 7);
  store(a, 1, kNowUnit, 13);
  EXPECT_EQ(minimal().ring_top_hashes.back(), hash(7));
  a.update(a.next_update());  // one instant too early
  EXPECT_EQ(minimal().ring_top_hashes.size(), 9U);
  a.update(a.next_update() + kInstant);
  ASSERT_EQ(minimal().ring_top_hashes.size(), 10U);
  EXPECT_EQ(minimal().ring_top_hashes[8], hash(7));
  EXPECT_EQ(minimal().ring_top_hashes[9], hash(13));
}

TEST_F(DhtByExample, RingsThatHaveBecomeOldAreOneFullSlice) {
  store(a, 1, kFirstRing, 7);
  store(a, 1, kFirstRing + 300, 23);  // of the second ring
  store(a, 1, kFirstRing + kUnitsPerSlice, 64);
  EXPECT_TRUE(minimal().disc_top_hash.empty());
  a.update(now() + kUnitsPerSlice * kUnit);
  EXPECT_EQ(a.layout().full_slices(), 4U);
  EXPECT_EQ(minimal().disc_top_hash, hash(7 ^ 23));
  EXPECT_EQ(minimal().ring_top_hashes[0], hash(64));
  a.check_invariants();
}

TEST_F(DhtByExample, AfterALongPauseManySlicesAreMadeAtOnce) {
  store(a, 1, kFirstRing, 7);
  store(a, 1, kNowUnit - 1, 23);
  store(a, 1, kNowUnit, 64);
  a.update(now() + 20 * kUnitsPerSlice * kUnit);
  EXPECT_EQ(a.layout().full_slices(), 23U);
  EXPECT_EQ(minimal().disc_top_hash, hash(7 ^ 23 ^ 64));
  EXPECT_EQ(minimal().ring_top_hashes, std::vector<CombinedHash>(9));
  a.check_invariants();
}

TEST_F(DhtByExample, AllSectorsAreUpdatedTogether) {
  for (std::uint32_t sector = 0; sector < SectorSet::kCount; ++sector) store(a, sector, kFirstRing, 7);
  store(a, 0, kFirstRing, 23);
  a.update(now() + kUnitsPerSlice * kUnit);
  EXPECT_EQ(on(b.minimal(all())), NextAction(CannotCompare{})) << "the other one was not updated";
  b.update(now() + kUnitsPerSlice * kUnit);
  DiscSectorsSnapshot expected{a.layout().disc_boundary(), {}};
  for (std::uint32_t sector = 0; sector < SectorSet::kCount; ++sector) expected.sectors[sector] = hash(7);
  expected.sectors[0] = hash(7 ^ 23);
  EXPECT_EQ(on(b.minimal(all())), NextAction(SendSnapshot{expected}));
}

// ---------------------------------------------------------------- a snapshot beside another one

TEST_F(DhtByExample, OfTheTopHashesTheDiscCountsFirst) {
  store(a, 1, 0, 7);
  store(a, 1, kFirstRing, 11);
  MinimalSnapshot theirs = minimal();
  EXPECT_EQ(on(theirs), NextAction(Identical{}));
  theirs.ring_top_hashes[0] = hash(99);
  EXPECT_EQ(on(theirs),
            NextAction(SendSnapshot{RingSectorDetailsSnapshot{theirs.disc_boundary, {{0, {{1, hash(11)}}}}}}));
  theirs.disc_top_hash = hash(98);
  const NextAction discs = SendSnapshot{DiscSectorsSnapshot{theirs.disc_boundary, {{1, hash(7)}}}};
  EXPECT_EQ(on(theirs), discs);
  theirs.ring_top_hashes[0] = hash(11);
  EXPECT_EQ(on(theirs), discs);
}

TEST_F(DhtByExample, AnotherBoundaryOrAnotherNumberOfRingsCannotBeCompared) {
  store(a, 1, 0, 7);
  MinimalSnapshot theirs = minimal();
  theirs.ring_top_hashes.emplace_back();
  EXPECT_EQ(on(theirs), NextAction(CannotCompare{}));
  const Timestamp other = unit_start(2 * kUnitsPerSlice);
  EXPECT_EQ(on(MinimalSnapshot{other, hash(7), minimal().ring_top_hashes}), NextAction(CannotCompare{}));
  EXPECT_EQ(on(DiscSectorsSnapshot{other, {{1, hash(7)}}}), NextAction(CannotCompare{}));
  EXPECT_EQ(on(DiscSectorDetailsSnapshot{other, {{1, {{0, hash(7)}}}}}), NextAction(CannotCompare{}));
  EXPECT_EQ(on(RingSectorDetailsSnapshot{other, {{0, {{1, hash(7)}}}}}), NextAction(CannotCompare{}));
}

TEST_F(DhtByExample, SectorsThatOneSideLacksDiffer) {
  store(a, 1, 0, 7);
  store(a, 2, 0, 8);
  const Timestamp boundary = a.layout().disc_boundary();
  // Theirs has 2 with another hash and 3, which is unknown here; 1 is only known here.
  const DiscSectorsSnapshot theirs{boundary, {{2, hash(9)}, {3, hash(10)}}};
  EXPECT_EQ(on(theirs), NextAction(SendSnapshot{
                            DiscSectorDetailsSnapshot{boundary, {{1, {{0, hash(7)}}}, {2, {{0, hash(8)}}}, {3, {}}}}}));
  EXPECT_EQ(on(DiscSectorsSnapshot{boundary, {{1, hash(7)}, {2, hash(9)}}}),
            NextAction(SendSnapshot{DiscSectorDetailsSnapshot{boundary, {{2, {{0, hash(8)}}}}}}));
}

TEST_F(DhtByExample, SlicesThatOneSideLacksDiffer) {
  store(a, 1, 0, 7);
  store(a, 1, kUnitsPerSlice, 8);
  store(a, 2, 0, 9);
  const Timestamp boundary = a.layout().disc_boundary();
  const auto named = [&](const DiscSectorDetailsSnapshot& theirs) {
    return std::get<SendSnapshotAndIds>(on(theirs)).slices;
  };
  EXPECT_EQ(named({boundary, {{1, {{0, hash(7)}, {1, hash(99)}}}}}), std::vector({slice(1, 1)}));
  EXPECT_EQ(named({boundary, {{1, {{0, hash(7)}}}}}), std::vector({slice(1, 1)})) << "they lack it";
  EXPECT_EQ(named({boundary, {{1, {{0, hash(7)}, {1, hash(8)}, {2, hash(9)}}}}}), std::vector({slice(1, 2)}));
  // A sector of which only one side has shown slices: all of them.
  const DiscSectorDetailsSnapshot mine{boundary, {{1, {{0, hash(7)}, {1, hash(8)}}}}};
  EXPECT_EQ(on(DiscSectorDetailsSnapshot{boundary, {{2, {{0, hash(9)}}}}}, mine),
            NextAction(SendIds{{slice(1, 0), slice(1, 1), slice(2, 0)}}));
}

TEST_F(DhtByExample, OtherRingsThanThoseShownCannotBeCompared) {
  store(a, 1, kFirstRing, 7);
  const Timestamp boundary = a.layout().disc_boundary();
  const RingSectorDetailsSnapshot mine{boundary, {{0, {{1, hash(7)}}}}};
  EXPECT_EQ(on(RingSectorDetailsSnapshot{boundary, {{1, {{1, hash(7)}}}}}, mine), NextAction(CannotCompare{}));
  EXPECT_EQ(on(RingSectorDetailsSnapshot{boundary, {{0, {{1, hash(7)}}}, {1, {}}}}, mine), NextAction(CannotCompare{}));
}

TEST_F(DhtByExample, SectorsOfARingThatDifferAreNamed) {
  store(a, 1, kFirstRing, 7);
  store(a, 2, kFirstRing, 8);
  const Timestamp boundary = a.layout().disc_boundary();
  const auto ring = [](std::uint32_t sector) {
    return SliceRef{sector, unit_start(kFirstRing), unit_start(kFirstRing + 256)};
  };
  const RingSectorDetailsSnapshot theirs{boundary, {{0, {{1, hash(7)}, {2, hash(99)}, {3, hash(10)}}}}};
  EXPECT_EQ(std::get<SendSnapshotAndIds>(on(theirs)).slices, std::vector({ring(2), ring(3)}));
  EXPECT_EQ(on(theirs, RingSectorDetailsSnapshot{boundary, {{0, {{1, hash(7)}, {2, hash(8)}}}}}),
            NextAction(SendIds{{ring(2), ring(3)}}));
}

// ---------------------------------------------------------------- whole rounds

TEST_F(DhtByExample, ARoundNamesTheSameWhoeverStartsIt) {
  store(a, 1, 0, 7);
  store(b, 1, 0, 13);
  store(a, 2, kFirstRing, 11);
  store(b, 2, kFirstRing, 17);
  const std::vector disc{slice(1, 0)};
  EXPECT_EQ(round(a, b, all()), std::pair(disc, disc));
  EXPECT_EQ(round(b, a, all()), std::pair(disc, disc));
  store(a, 1, 0, 13);
  store(b, 1, 0, 7);
  const std::vector ring{SliceRef{2, unit_start(kFirstRing), unit_start(kFirstRing + 256)}};
  EXPECT_EQ(round(a, b, all()), std::pair(ring, ring));
  EXPECT_EQ(round(b, a, all()), std::pair(ring, ring));
  store(a, 2, kFirstRing, 17);
  store(b, 2, kFirstRing, 11);
  EXPECT_EQ(on(b.minimal(all())), NextAction(Identical{}));
}

TEST_F(DhtByExample, ARoundFindsWhatOneSideLacksWhoeverStartsIt) {
  for (const std::int64_t unit : {std::int64_t{0}, kFirstRing}) {
    SCOPED_TRACE(unit);
    DhtModel full{now()}, empty{now()};
    store(full, 41, unit, 41);
    for (auto* first : {&full, &empty}) {
      auto& second = first == &full ? empty : full;
      const auto named = round(*first, second, all());
      EXPECT_EQ(named.first.size(), 1U);
      EXPECT_EQ(named.first, named.second);
    }
  }
}

TEST_F(DhtByExample, WhatIsNotCommonMakesNoDifference) {
  const SectorSet common = sectors({2});
  for (const std::int64_t unit : {std::int64_t{0}, kFirstRing}) {
    store(a, 1, unit, 1);
    store(b, 3, unit, 3);
  }
  EXPECT_EQ(a.handle(b.minimal(common), {}, common).value(), NextAction(Identical{}));
  store(a, 2, 0, 21);
  store(b, 2, kUnitsPerSlice, 22);
  EXPECT_EQ(round(a, b, common).first, std::vector({slice(2, 0), slice(2, 1)}));
}

}  // namespace
}  // namespace kitsune2::dht
