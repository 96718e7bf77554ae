// What a bootstrap server keeps when strangers fill it.
#include "server/bootstrap_book.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "model/bootstrap_twin.hpp"

namespace kitsune2::server {
namespace {

using Outcome = BootstrapBook::Outcome;

const Timestamp kNow = Timestamp::from_seconds(1'800'000'000);
const SpaceId kSpace = SpaceId::from_text("a space");

BootstrapBook::Address address(std::uint32_t number) {
  BootstrapBook::Address out{};
  std::memcpy(out.data() + 12, &number, sizeof(number));
  return out;
}

struct World {
  explicit World(const BootstrapLimits& limits) : book(limits) {}
  BootstrapBook book;
  std::mt19937_64 random{1};

  Outcome put(const SpaceId& space, const std::string& who, std::uint32_t from) {
    BootstrapBook::Info info;
    info.agent = AgentId::from_text(who);
    info.created_at = kNow;
    info.expires_at = kNow + std::chrono::minutes(20);
    info.body = "{}";
    info.from = address(from);
    const auto out = book.put(space, info, kNow, random());
    return out;
  }
  bool has(const SpaceId& space, const std::string& who) const {
    const auto agents = book.agents(space);
    return std::ranges::find(agents, AgentId::from_text(who)) != agents.end();
  }
};

SpaceId numbered(int i) { return SpaceId::from_text("space " + std::to_string(i)); }

TEST(BootstrapBook, OneAddressThatFillsItDoesNotKeepOthersOut) {
  World w({.max_spaces = 1000});
  ASSERT_EQ(w.put(kSpace, "before", 1), Outcome::taken);
  for (int i = 0; i < 3000; ++i) w.put(numbered(i), "flood", 2);
  for (std::uint32_t i = 0; i < 400; ++i) {
    EXPECT_EQ(w.put(SpaceId::from_text("honest " + std::to_string(i)), "honest", 100 + i), Outcome::taken);
    w.put(numbered(10'000 + static_cast<int>(i)), "flood", 2);
  }
  for (std::uint32_t i = 0; i < 400; ++i) {
    EXPECT_TRUE(w.has(SpaceId::from_text("honest " + std::to_string(i)), "honest")) << i;
  }
  EXPECT_TRUE(w.has(kSpace, "before"));
  w.book.check_invariants();
}

TEST(BootstrapBook, SixtyFourAddressesThatFillItLeaveThoseThatHaveOneSpace) {
  World w({.max_spaces = 1000});
  for (int i = 0; i < 5000; ++i) w.put(numbered(i), "flood", 2 + static_cast<std::uint32_t>(i % 64));
  for (std::uint32_t i = 0; i < 500; ++i) {
    EXPECT_EQ(w.put(SpaceId::from_text("honest " + std::to_string(i)), "honest", 100 + i), Outcome::taken);
    w.put(numbered(10'000 + static_cast<int>(i)), "flood", 2 + i % 64);
  }
  for (std::uint32_t i = 0; i < 500; ++i) {
    EXPECT_TRUE(w.has(SpaceId::from_text("honest " + std::to_string(i)), "honest")) << i;
  }
}

TEST(BootstrapBook, SpacesThatOthersAskForAndOldOnesGoLast) {
  World w({.max_spaces = 4});
  // All of two addresses, so that both have their share.
  w.put(numbered(1), "a", 1);
  w.put(numbered(2), "a", 1);
  w.put(numbered(3), "b", 2);
  w.put(numbered(4), "b", 2);
  w.book.list(numbered(2), kNow, address(9));
  w.book.list(numbered(3), kNow, address(2));  // its own
  EXPECT_EQ(w.put(numbered(5), "a", 1), Outcome::taken);
  EXPECT_FALSE(w.book.has(numbered(1))) << "older than 2, but nobody asked for it";
  EXPECT_EQ(w.put(numbered(6), "b", 2), Outcome::taken);
  EXPECT_TRUE(w.book.has(numbered(3)));
  EXPECT_FALSE(w.book.has(numbered(4))) << "the youngest that nobody asked for";
}

TEST(BootstrapBook, SpacesOfSeveralAddressesGoLast) {
  World w({.max_spaces = 2});
  w.put(numbered(1), "a", 1);
  w.put(numbered(1), "b", 2);
  w.put(numbered(2), "a", 1);
  EXPECT_EQ(w.put(numbered(3), "c", 3), Outcome::taken);
  EXPECT_TRUE(w.book.has(numbered(1)));
  w.put(numbered(3), "d", 4);
  EXPECT_EQ(w.put(numbered(4), "e", 5), Outcome::taken);
  EXPECT_TRUE(w.book.has(numbered(1))) << "the younger one goes";
  w.book.check_invariants();
}

TEST(BootstrapBook, TwoAddressesThatShareSpacesKeepNobodyOut) {
  World w({.max_spaces = 100});
  for (std::uint32_t i = 0; i < 3; ++i) w.put(kSpace, "early " + std::to_string(i), 10 + i);
  for (int i = 0; i < 300; ++i) {
    w.put(numbered(i), "a", 1);
    w.put(numbered(i), "b", 2);
  }
  for (std::uint32_t i = 0; i < 60; ++i) {
    EXPECT_EQ(w.put(SpaceId::from_text("honest " + std::to_string(i)), "c", 100 + i), Outcome::taken) << i;
    w.book.list(SpaceId::from_text("honest " + std::to_string(i)), kNow, address(99));
  }
  for (std::uint32_t i = 0; i < 60; ++i)
    EXPECT_TRUE(w.book.has(SpaceId::from_text("honest " + std::to_string(i)))) << i;
  EXPECT_TRUE(w.book.has(kSpace)) << "it has three";
  w.book.check_invariants();
}

TEST(BootstrapBook, TheOnlySpaceOfAnAddressStaysIfOthersAskedForIt) {
  World w({.max_spaces = 2});
  w.put(numbered(1), "a", 1);
  w.put(numbered(2), "b", 2);
  w.book.list(numbered(1), kNow, address(9));
  w.book.list(numbered(2), kNow, address(9));
  EXPECT_EQ(w.put(numbered(3), "c", 3), Outcome::too_many_spaces);
  EXPECT_EQ(w.put(numbered(3), "b", 2), Outcome::taken) << "it replaces its own";
  EXPECT_TRUE(w.book.has(numbered(1)));
}

TEST(BootstrapBook, FreshKeysOfOneAddressDoNotPushOutNewcomersOfAKnownSpace) {
  World w({});
  for (std::uint32_t i = 0; i < 31; ++i) w.put(kSpace, "early " + std::to_string(i), 100 + i);
  w.put(kSpace, "newcomer", 1);
  for (int i = 0; i < 1000; ++i) w.put(kSpace, "flood " + std::to_string(i), 2);
  // The first one went by the rule of the reference: nobody had more than others then.
  EXPECT_TRUE(w.has(kSpace, "newcomer"));
  int early = 0, flood = 0;
  for (int i = 0; i < 31; ++i) early += w.has(kSpace, "early " + std::to_string(i)) ? 1 : 0;
  for (int i = 0; i < 1000; ++i) flood += w.has(kSpace, "flood " + std::to_string(i)) ? 1 : 0;
  EXPECT_EQ(early, 30);
  EXPECT_EQ(flood, 1);
}

TEST(BootstrapBook, BytesThatOneAddressFillsAreGivenToOthers) {
  World w({.max_spaces = 1000, .max_bytes = 50 * (2 + BootstrapBook::kEntryOverhead)});
  for (int i = 0; i < 200; ++i) w.put(numbered(i), "flood", 2);
  EXPECT_EQ(w.book.entries(), 50U);
  for (std::uint32_t i = 0; i < 40; ++i) {
    EXPECT_EQ(w.put(SpaceId::from_text("honest " + std::to_string(i)), "honest", 100 + i), Outcome::taken);
  }
  w.book.check_invariants();
}

TEST(BootstrapBook, AgreesWithItsTwinAfterEveryCommand) {
  model::BootstrapUnderTest::Coverage all;
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    std::mt19937_64 random(seed);
    const std::size_t bytes = seed % 2 == 0 ? 4000 : 64U << 20;
    const std::size_t spaces = seed % 4 == 0 ? 1 : 8;  // with one, newcomers are refused
    model::BootstrapUnderTest both({.max_entries_per_space = 1 + seed % 4, .max_spaces = spaces, .max_bytes = bytes});
    for (int i = 0; i < 1000; ++i) {
      const std::uint64_t r = random();
      both.step(static_cast<std::uint8_t>(r), static_cast<std::uint8_t>(r >> 8), static_cast<std::uint8_t>(r >> 16),
                static_cast<std::uint8_t>(r >> 24));
    }
    all.evicted += both.coverage().evicted;
    all.crowded_out += both.coverage().crowded_out;
    all.refused += both.coverage().refused;
    all.own_replaced += both.coverage().own_replaced;
    all.stale += both.coverage().stale;
    all.buried += both.coverage().buried;
  }
  EXPECT_GT(all.evicted, 500U);
  EXPECT_GT(all.crowded_out, 500U);
  EXPECT_GT(all.refused, 100U);
  EXPECT_GT(all.own_replaced, 100U);
  EXPECT_GT(all.stale, 500U);
  EXPECT_GT(all.buried, 100U);
}

}  // namespace
}  // namespace kitsune2::server
