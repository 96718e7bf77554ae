// Who gives up its place when all are taken.
#include "core/slots/slots.hpp"

#include <gtest/gtest.h>

#include <random>

#include "model/slots_twin.hpp"

namespace kitsune2::slots {
namespace {

using std::chrono::seconds;

Address v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
  return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d};
}

Slot slot_of(const Address& address, std::uint64_t useful = 0, int since = 100) {
  return {address, Time(seconds(since)), useful, false};
}

TEST(Slots, AGroupIsThe16OfIpv4AndThe32OfIpv6) {
  EXPECT_EQ(group_of(v4(10, 1, 2, 3)), v4(10, 1, 0, 0));
  const Address v6{0x20, 1, 0xd, 0xb8, 1, 2, 3, 4};
  const Address expected{0x20, 1, 0xd, 0xb8};
  EXPECT_EQ(group_of(v6), expected);
}

TEST(Slots, OneOfTheCrowdGoesAndWhoComesAloneStays) {
  std::vector<Slot> sample;
  for (int i = 0; i < 40; ++i) sample.push_back(slot_of(v4(10, 0, 0, 1)));
  for (std::uint8_t i = 0; i < 24; ++i) sample.push_back(slot_of(v4(20, i, 0, 1)));
  for (std::uint64_t random = 0; random < 200; ++random) {
    const auto gone = choose(sample, v4(30, 0, 0, 1), drawn(random, 0));
    ASSERT_TRUE(gone);
    EXPECT_LT(*gone, 40U);
  }
  EXPECT_EQ(choose(sample, v4(10, 0, 0, 1), 1), std::nullopt) << "the crowd does not replace itself";
}

TEST(Slots, UsefulAndLongConnectedPeersStay) {
  std::vector<Slot> sample;
  for (std::uint8_t i = 0; i < 64; ++i) sample.push_back(slot_of(v4(10, i, 0, 1), i < 8 ? 1000 : 0, i >= 56 ? 1 : 100));
  for (std::uint64_t random = 0; random < 500; ++random) {
    const auto gone = choose(sample, std::nullopt, drawn(random, 0));
    ASSERT_TRUE(gone);
    EXPECT_GE(*gone, 8U);
    EXPECT_LT(*gone, 56U);
  }
}

TEST(Slots, OneAddressCannotHaveAllTheProtectedPlaces) {
  std::vector<Slot> sample;
  for (int i = 0; i < 32; ++i) sample.push_back(slot_of(v4(66, 0, 0, 1), 1'000'000, 1));
  for (std::uint8_t i = 0; i < 32; ++i) sample.push_back(slot_of(v4(10, i, 0, 1), 10));
  for (std::uint64_t random = 0; random < 200; ++random) {
    const auto gone = choose(sample, v4(30, 0, 0, 1), drawn(random, 0));
    ASSERT_TRUE(gone);
    EXPECT_LT(*gone, 32U);
  }
}

/// Behind one address (NAT), or where none is known, honest peers once went as often as those that only held a place.
TEST(Slots, WhereAddressesTellNothingTheMoreUsefulHalfStays) {
  for (const bool is_known : {true, false}) {
    std::vector<Slot> sample;
    for (std::uint64_t i = 0; i < 64; ++i) sample.push_back(slot_of(v4(10, 0, 0, 1), i < 30 ? 1 + i : 0));
    for (Slot& slot : sample) {
      if (!is_known) slot.address.reset();
    }
    for (std::uint64_t random = 0; random < 500; ++random) {
      const auto gone = choose(sample, v4(30, 0, 0, 1), drawn(random, 0));
      ASSERT_TRUE(gone);
      EXPECT_GE(*gone, 30U);
    }
  }
}

TEST(Slots, OurOwnNeverGoes) {
  std::vector<Slot> sample(20, slot_of(v4(10, 0, 0, 1)));
  for (Slot& slot : sample) slot.keep = true;
  EXPECT_EQ(choose(sample, std::nullopt, 3), std::nullopt);
  sample[7].keep = false;
  EXPECT_EQ(choose(sample, std::nullopt, 3), 7U);
}

/// Behind a relay that tells no addresses: newcomers that turn out useful stay while 4,000 silent ones hold the rest.
TEST(Slots, WithoutAddressesUsefulNewcomersGainPlaces) {
  std::vector<Slot> all(4096, Slot{std::nullopt, Time(seconds(1)), 0, false});
  std::mt19937_64 random(1);
  std::size_t honest_in = 0;
  for (int i = 0; i < 400; ++i) {
    std::vector<Slot> sample;
    std::vector<std::size_t> places;
    for (std::size_t k = 0; k < kSample; ++k) {
      places.push_back(random() % all.size());
      sample.push_back(all[places.back()]);
    }
    const auto gone = choose(sample, std::nullopt, random());
    ASSERT_TRUE(gone);
    const bool attacker = i % 2 == 0;
    all[places[*gone]] = Slot{std::nullopt, Time(seconds(10 + i)), attacker ? 0 : 50'000U + random() % 1000, false};
  }
  for (const Slot& slot : all) honest_in += slot.useful_bytes > 0 ? 1U : 0U;
  EXPECT_GE(honest_in, 195U) << "of 200";
}

TEST(Slots, AgreesWithItsTwin) {
  std::mt19937_64 random(7);
  for (int run = 0; run < 5000; ++run) {
    std::vector<std::uint8_t> bytes(2 + random() % 140);
    for (auto& b : bytes) b = static_cast<std::uint8_t>(random());
    model::compare_slots(bytes);
  }
}

}  // namespace
}  // namespace kitsune2::slots
