// The sums of ops for a DHT model: adding up, folding, and their bytes.
#include "store/dht_sums.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <tuple>

#include "core/dht/time_layout.hpp"
#include "store/byte_sum.hpp"
#include "store/runs/block.hpp"

namespace kitsune2::store {
namespace {

struct Op {
  std::uint32_t location;
  Timestamp created_at;
  std::string id;
};
using Map = std::map<std::tuple<std::int64_t, std::uint32_t, std::uint32_t>, std::pair<std::string, std::uint64_t>>;

constexpr std::int64_t kSlice = dht::kUnitsPerSlice;

Timestamp in_unit(std::int64_t unit) { return dht::unit_start(unit) + std::chrono::seconds(7); }

Map naive(const std::vector<Op>& ops, std::int64_t boundary) {
  Map out;
  for (const Op& op : ops) {
    std::int64_t unit = dht::unit_of(op.created_at);
    if (unit < 0) continue;
    const bool is_unit = unit >= boundary;
    if (!is_unit) unit = unit / kSlice * kSlice;
    auto& [hash, count] = out[{unit, op.location >> 23U, is_unit ? 1U : 512U}];
    hash.resize(op.id.size());
    for (std::size_t i = 0; i < hash.size(); ++i) hash[i] = static_cast<char>(hash[i] ^ op.id[i]);
    ++count;
  }
  return out;
}
Map map_of(const DhtSums& sums) {
  Map out;
  for (std::size_t i = 0; i < sums.cells.size(); ++i) {
    const auto& cell = sums.cells[i];
    out[{cell.first_unit, cell.sector, cell.units}] = {std::string(as_text(sums.hash(i))), cell.ops};
  }
  EXPECT_EQ(out.size(), sums.cells.size());
  EXPECT_EQ(sums.hashes.size(), sums.cells.size() * sums.id_bytes);
  return out;
}

class DhtSumsTest : public ::testing::Test {
 protected:
  std::vector<Op> some(std::size_t count, std::size_t id_bytes, std::int64_t units) {
    std::vector<Op> out;
    for (std::size_t i = 0; i < count; ++i) {
      std::string id(id_bytes, '\0');
      for (char& c : id) c = static_cast<char>(random_());
      const auto unit = static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(units));
      const Timestamp at = random_() % 10 == 0 ? Timestamp{-5} : in_unit(unit);
      out.push_back(
          {static_cast<std::uint32_t>(random_() % 4) << 30U | static_cast<std::uint32_t>(random_() % 9), at, id});
    }
    return out;
  }
  static void add(DhtSumCells& cells, const std::vector<Op>& ops, std::size_t first, std::size_t end) {
    for (std::size_t i = first; i < end; ++i) {
      ASSERT_TRUE(cells.add(ops[i].location, ops[i].created_at, as_bytes(ops[i].id)));
    }
  }
  static std::uint64_t before_1970(const std::vector<Op>& ops) {
    std::uint64_t out = 0;
    for (const Op& op : ops) out += op.created_at < Timestamp{} ? 1 : 0;
    return out;
  }
  std::mt19937_64 random_{11};
};

/// However they are divided into parts, and whatever the layouts of the parts.
TEST_F(DhtSumsTest, ThePartsTogetherAreTheSumsOfAll) {
  for (int round = 0; round < 300; ++round) {
    const std::size_t id_bytes = std::vector<std::size_t>{32, 36, 1, 7, 8}[random_() % 5];
    const auto ops = some(random_() % 200, id_bytes, 1 + static_cast<std::int64_t>(random_() % 4'000));
    std::int64_t boundary = 0;
    DhtSums kept;
    std::size_t at = 0;
    while (at < ops.size() || random_() % 3 == 0) {
      DhtSumCells cells;
      cells.clear(boundary);
      const std::size_t end = std::min(ops.size(), at + random_() % 90);
      add(cells, ops, at, end);
      at = end;
      boundary += static_cast<std::int64_t>(random_() % 3) * kSlice;
      auto out = cells.with(kept, boundary);
      ASSERT_TRUE(out);
      kept = std::move(*out);
      const std::vector<Op> so_far(ops.begin(), ops.begin() + static_cast<std::ptrdiff_t>(at));
      ASSERT_EQ(map_of(kept), naive(so_far, boundary));
      ASSERT_EQ(kept.apart, before_1970(so_far));
      const DhtSumsRow row{17, 23, so_far.size(), boundary, 99, 5, kept};
      const auto bytes = row.encode();
      const auto again = DhtSumsRow::decode(bytes);
      ASSERT_TRUE(again);
      ASSERT_EQ(*again, row);
    }
  }
}

TEST_F(DhtSumsTest, IdsOfAnotherLengthAreRefused) {
  DhtSumCells cells;
  cells.clear(0);
  EXPECT_FALSE(cells.add(0, {}, {}));
  EXPECT_FALSE(cells.add(0, {}, as_bytes(std::string(DhtSumCells::kMostIdBytes + 1, 'a'))));
  EXPECT_TRUE(cells.add(0, {}, as_bytes("abc")));
  EXPECT_FALSE(cells.add(0, {}, as_bytes("abcd")));
  EXPECT_EQ(cells.ops(), 1U);
  DhtSums kept;
  kept.id_bytes = 4;
  EXPECT_FALSE(cells.with(kept, 0));
}

class DhtSumsRowTest : public DhtSumsTest {
 protected:
  DhtSumsRowTest() {
    const auto ops = some(60, 32, 2 * kSlice);
    DhtSumCells cells;
    cells.clear(kSlice);
    add(cells, ops, 0, ops.size());
    row_ = {1'000, 6, ops.size(), kSlice, 7, 8, *cells.with({}, kSlice)};
  }
  DhtSumsRow row_;
};

TEST_F(DhtSumsRowTest, ADamagedRowIsNone) {
  const auto bytes = row_.encode();
  ASSERT_TRUE(DhtSumsRow::decode(bytes));
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    auto damaged = bytes;
    damaged[at] = static_cast<std::uint8_t>(damaged[at] ^ (1U << (random_() % 8)));
    EXPECT_FALSE(DhtSumsRow::decode(damaged)) << at;
    EXPECT_FALSE(DhtSumsRow::decode(ByteView(bytes).first(at)));
  }
  auto longer = bytes;
  longer.push_back(0);
  EXPECT_FALSE(DhtSumsRow::decode(longer));
}

/// With the sum that fits: what is read is what would be written, and nothing else.
TEST_F(DhtSumsRowTest, WhateverTheBytesAreTheyHaveOneMeaningOrNone) {
  const auto bytes = row_.encode();
  std::size_t read = 0;
  for (int round = 0; round < 30'000; ++round) {
    auto edited = bytes;
    for (auto n = 1 + random_() % 3; n > 0; --n) {
      // Mostly in the head and in the numbers of cells.
      const std::size_t at = 8 + random_() % (random_() % 4 == 0 ? edited.size() - 8 : 260);
      edited[at] = static_cast<std::uint8_t>(random_() % 2 == 0 ? random_() : edited[at] + 1);
    }
    if (random_() % 8 == 0) edited.resize(8 + random_() % edited.size());
    runs::save(edited.data(), ByteSum(0x6b32'6473'756d'0000U).add(ByteView(edited).subspan(8)).value());
    const auto row = DhtSumsRow::decode(edited);
    if (!row) continue;
    ++read;
    ASSERT_EQ(row->encode(), edited);
  }
  EXPECT_GT(read, 1'000U);
  EXPECT_LT(read, 25'000U);
}

TEST_F(DhtSumsRowTest, WhatIsNotCountedRightIsNone) {
  DhtSumsRow row = row_;
  ++row.ops;
  EXPECT_FALSE(DhtSumsRow::decode(row.encode()));
  row = row_;
  row.sums.cells[3].ops = 0;
  EXPECT_FALSE(DhtSumsRow::decode(row.encode()));
  row = row_;
  row.sums.hashes.pop_back();
  EXPECT_FALSE(DhtSumsRow::decode(row.encode()));
  row = row_;
  row.boundary_unit += kSlice;
  EXPECT_FALSE(DhtSumsRow::decode(row.encode())) << "units in the disc";
  row.boundary_unit = 0;
  EXPECT_FALSE(DhtSumsRow::decode(row.encode())) << "a slice after the disc";
  row.boundary_unit = kSlice + 1;
  EXPECT_FALSE(DhtSumsRow::decode(row.encode()));
  EXPECT_TRUE(DhtSumsRow::decode(DhtSumsRow{}.encode())) << "of no ops";
}

}  // namespace
}  // namespace kitsune2::store
