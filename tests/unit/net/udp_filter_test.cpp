// DatagramFilter, and the program with which the system does the same.
#include "net/udp_filter.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "support/bpf.hpp"
#include "transport/iroh/direct_packets.hpp"

namespace kitsune2 {
namespace {

using Datagram = std::vector<std::uint8_t>;

class UdpFilter : public ::testing::Test {
 protected:
  void fill(std::span<std::uint8_t> out) {
    for (std::uint8_t& byte : out) byte = static_cast<std::uint8_t>(random_());
  }
  DatagramFilter make() {
    return {iroh::direct_shapes(), [this](std::span<std::uint8_t> out) { fill(out); }};
  }
  /// A datagram of the shape, with a name of the filter.
  Datagram wanted(const DatagramFilter& filter, const DatagramFilter::Shape& shape, std::size_t size) {
    Datagram out(std::max<std::size_t>(size, shape.least));
    fill(out);
    for (std::size_t i = 0; i < 4; ++i) {
      const auto shift = static_cast<unsigned>(24 - 8 * i);
      const auto mask = static_cast<std::uint8_t>(shape.mask >> shift);
      out[i] = static_cast<std::uint8_t>((out[i] & ~mask) | (shape.first >> shift & mask));
    }
    if (shape.fifth != DatagramFilter::kAny) out[4] = static_cast<std::uint8_t>(shape.fifth);
    fill(std::span(out).subspan(shape.name_at, DatagramFilter::kNameBytes));
    filter.mark(std::span(out).subspan(shape.name_at).first<DatagramFilter::kNameBytes>());
    return out;
  }

  std::mt19937_64 random_{7};
};

TEST_F(UdpFilter, LetsInWhatRepeatsAMarkedNameAtThePlaceOfItsShape) {
  const DatagramFilter filter = make();
  for (const DatagramFilter::Shape& shape : filter.shapes()) {
    for (std::size_t size = 0; size < 1500; size += 97) EXPECT_TRUE(filter.lets_in(wanted(filter, shape, size)));
    const Datagram whole = wanted(filter, shape, shape.least);
    for (std::size_t size = 0; size < shape.least; ++size)
      EXPECT_FALSE(filter.lets_in(ByteView(whole).first(size))) << size;
    Datagram other = whole;
    other[shape.name_at + 7U] ^= 1U;
    EXPECT_FALSE(filter.lets_in(other));
  }
}

TEST_F(UdpFilter, LetsInHardlyAnythingOfWhoWasToldNoName) {
  const DatagramFilter filter = make(), another = make();
  std::size_t let_in = 0;
  for (int i = 0; i < 200'000; ++i) {
    Datagram datagram(static_cast<std::size_t>(i) % 60);
    fill(datagram);
    let_in += filter.lets_in(datagram) ? 1U : 0U;
    let_in += filter.lets_in(wanted(another, filter.shapes().at(static_cast<std::size_t>(i) % 3), 0)) ? 1U : 0U;
  }
  EXPECT_LT(let_in, 30U);  // of 300,000 with a shape, one in 65,536
}

TEST_F(UdpFilter, HandshakesAndPingsOfTheRelayAreNotLetIn) {
  const DatagramFilter filter = make();
  Datagram quic = wanted(filter, filter.shapes()[0], 1200);
  quic[0] |= 0x80U;
  EXPECT_FALSE(filter.lets_in(quic));
  Datagram ping = wanted(filter, filter.shapes()[1], 37);
  ping[4] = static_cast<std::uint8_t>(iroh::DirectProbe::Kind::relay_ping);
  EXPECT_FALSE(filter.lets_in(ping));
}

TEST_F(UdpFilter, MarksDifferAsMuchAsNames) {
  const DatagramFilter filter = make();
  std::set<std::pair<std::uint8_t, std::uint8_t>> marks;
  for (std::uint8_t i = 0; i < 250; ++i) {
    std::array<std::uint8_t, DatagramFilter::kNameBytes> name{0, 0, 0, i};
    filter.mark(name);
    marks.emplace(name[6], name[7]);
  }
  EXPECT_GT(marks.size(), 240U);
}

TEST_F(UdpFilter, AStrictOneLetsInTheNamesOfItsListAtThePlaceOfTheirShape) {
  const DatagramFilter all = make();
  DatagramFilter::Names names;
  std::vector<Datagram> listed, others;
  for (std::size_t i = 0; i < 300; ++i) {
    const DatagramFilter::Shape& shape = all.shapes().at(i % 3);
    const Datagram datagram = wanted(all, shape, 60);
    if (i % 2 == 0) {
      std::copy_n(datagram.begin() + shape.name_at, DatagramFilter::kNameBytes, names.at(i % 3).emplace_back().begin());
      listed.push_back(datagram);
    } else {
      others.push_back(datagram);
    }
  }
  const DatagramFilter strict = all.only(names);
  for (const Datagram& one : listed) EXPECT_TRUE(strict.lets_in(one));
  for (const Datagram& one : others) EXPECT_TRUE(all.lets_in(one) && strict.all().lets_in(one) && !strict.lets_in(one));
  std::swap(names[1], names[2]);
  std::size_t let_in = 0;
  for (const Datagram& one : listed) let_in += all.only(names).lets_in(one) ? 1U : 0U;
  EXPECT_EQ(let_in, 50U) << "those of the first shape";
}

TEST_F(UdpFilter, TheProgramOfTheSystemFitsAndAgreesForAnyNumberOfNames) {
  for (const std::size_t count : {0U, 1U, 4U, 5U, 17U, 1000U, 1024U, 3000U}) {
    const DatagramFilter all = make();
    DatagramFilter::Names names;
    std::vector<Datagram> listed;
    for (std::size_t i = 0; i < count; ++i) {
      const DatagramFilter::Shape& shape = all.shapes().at(i % 3);
      listed.push_back(wanted(all, shape, 0));
      std::copy_n(listed.back().begin() + shape.name_at, DatagramFilter::kNameBytes,
                  names.at(i % 3).emplace_back().begin());
    }
    const DatagramFilter strict = all.only(std::move(names));
    const auto program = net::program_of(strict);
    EXPECT_LE(program.size(), 4096U) << "BPF_MAXINSNS";
    std::size_t let_in = 0;
    for (std::size_t i = 0; i < 1000 + count; ++i) {
      Datagram datagram = i < count ? listed[i] : wanted(all, all.shapes().at(i % 3), i % 50);
      EXPECT_EQ(test::runs_to_accept(program, datagram), strict.lets_in(datagram));
      let_in += strict.lets_in(datagram) ? 1U : 0U;
      datagram[random_() % datagram.size()] ^= 1U;
      EXPECT_TRUE(!strict.lets_in(datagram) || test::runs_to_accept(program, datagram));
    }
    EXPECT_EQ(let_in, std::min(count, DatagramFilter::kMostNames));
  }
}

TEST_F(UdpFilter, TheProgramOfTheSystemAgrees) {
  std::size_t let_in = 0;
  for (int round = 0; round < 20; ++round) {
    const DatagramFilter filter = make();
    const auto program = net::program_of(filter);
    for (std::size_t i = 0; i < 2'000; ++i) {
      Datagram datagram = wanted(filter, filter.shapes().at(i % 3), i % 50);
      if (i % 2 == 0) datagram[random_() % datagram.size()] ^= static_cast<std::uint8_t>(1U << random_() % 8);
      if (i % 5 == 0) datagram.resize(random_() % (datagram.size() + 1));
      EXPECT_EQ(test::runs_to_accept(program, datagram), filter.lets_in(datagram));
      let_in += filter.lets_in(datagram) ? 1U : 0U;
    }
  }
  EXPECT_GT(let_in, 10'000U);
}

}  // namespace
}  // namespace kitsune2
