// Offers, pings and pongs: what stock nodes skip, and what cannot be forged.
#include "transport/iroh/direct_packets.hpp"

#include <gtest/gtest.h>

#include "unit/transport/hex.hpp"
#include "wire/k2proto.hpp"

namespace kitsune2::iroh {
namespace {

DirectOffer offer_with(std::size_t addresses) {
  DirectOffer out;
  out.name.fill(1);
  out.key.fill(2);
  for (std::size_t i = 0; i < addresses; ++i)
    out.addresses.push_back(UdpAddress::v4(10, 0, 0, static_cast<std::uint8_t>(i + 1), 7000));
  return out;
}

TEST(DirectOffer, IsReadAsItWasWritten) {
  for (const std::size_t count : {0U, 1U, 8U}) {
    const DirectOffer offer = offer_with(count);
    const Bytes message = encode_offer(offer);
    EXPECT_TRUE(is_direct_offer(message));
    const auto read = decode_offer(message);
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->name, offer.name);
    EXPECT_EQ(read->key, offer.key);
    EXPECT_EQ(read->addresses, offer.addresses);
  }
}

TEST(DirectOffer, OfTooManyAddressesTheFirstAreSent) {
  EXPECT_EQ(decode_offer(encode_offer(offer_with(9)))->addresses, offer_with(8).addresses);
}

TEST(DirectOffer, ForAStockNodeItIsAMessageWithoutATypeAndThePreflightIsAsBefore) {
  const auto read = wire::decode_k2proto(encode_offer(offer_with(8)));
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->type, wire::K2WireType::unspecified);
  const Bytes preflight = wire::encode_preflight(Bytes::copy_of("host").view());
  EXPECT_FALSE(has_direct_mark(preflight));
  const Bytes marked = with_direct_mark(preflight);
  EXPECT_TRUE(has_direct_mark(marked));
  EXPECT_FALSE(is_direct_offer(marked));
  const auto stock = wire::decode_k2proto(marked);
  ASSERT_TRUE(stock.has_value());
  EXPECT_EQ(stock->type, wire::K2WireType::preflight);
  EXPECT_EQ(stock->data.str(), "host");
}

TEST(DirectOffer, NoMessageOfKitsune2IsTakenForOne) {
  const SpaceId space(Bytes::copy_of("space"));
  EXPECT_FALSE(is_direct_offer(wire::encode_preflight({})));
  EXPECT_FALSE(is_direct_offer(wire::encode_notify(space, Bytes::copy_of("x").view())));
  EXPECT_FALSE(is_direct_offer(wire::encode_module(space, "m", ByteChain(Bytes::copy_of("x"))).joined()));
  EXPECT_FALSE(is_direct_offer(wire::encode_disconnect("bye")));
}

TEST(DirectOffer, AMessageThatHasMoreThanTheFieldIsNotTakenForOne) {
  const Bytes offer = encode_offer(offer_with(2));
  const Bytes notify = wire::encode_notify(SpaceId(Bytes::copy_of("space")), Bytes::copy_of("x").view());
  const auto joined = [](const Bytes& a, const Bytes& b) { return Bytes::copy_of(a.str() + b.str()); };
  EXPECT_FALSE(is_direct_offer(joined(offer, notify)));
  EXPECT_FALSE(is_direct_offer(joined(notify, offer)));
  EXPECT_FALSE(is_direct_offer(joined(offer, offer)));
  EXPECT_FALSE(is_direct_offer(offer.slice(0, offer.size() - 1)));
  EXPECT_FALSE(is_direct_offer(joined(offer, Bytes::copy_of("x"))));
}

TEST(DirectOffer, ADamagedOneIsRefused) {
  const Bytes whole = encode_offer(offer_with(2));
  for (std::size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(decode_offer(whole.slice(0, size)).has_value());
  std::vector<std::uint8_t> other(whole.begin(), whole.end());
  other[3] = 2;
  EXPECT_EQ(decode_offer(Bytes(std::move(other))).error().code, Errc::unsupported);
}

TEST(DirectProbe, OnlyWhoKnowsTheKeyMakesOneAndOnlyForOnePair) {
  std::array<std::uint8_t, 32> key{}, other{};
  key.fill(7);
  ProbeEnds ends;
  ends.pinger.fill(8);
  ends.pinged.fill(9);
  DirectProbe probe;
  probe.kind = DirectProbe::Kind::pong;
  probe.name.fill(3);
  probe.nonce.fill(4);
  for (const std::size_t size : {std::size_t{0}, DirectProbe::kBytes, std::size_t{1452}}) {
    const Bytes datagram = encode_probe(probe, ends, key, size);
    EXPECT_EQ(datagram.size(), std::max(size, DirectProbe::kBytes));
    const auto read = decode_probe(datagram);
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->kind, probe.kind);
    EXPECT_EQ(read->name, probe.name);
    EXPECT_EQ(read->nonce, probe.nonce);
    EXPECT_TRUE(is_authentic(datagram, ends, key));
    EXPECT_FALSE(is_authentic(datagram, ends, other));
    EXPECT_FALSE(is_authentic(datagram, {.pinger = ends.pinged, .pinged = ends.pinger}, key));
    EXPECT_FALSE(is_authentic(datagram, {.pinger = ends.pinger, .pinged = ends.pinger}, key));
    EXPECT_FALSE(is_authentic(datagram, {.pinger = ends.pinged, .pinged = ends.pinged}, key));
    for (std::size_t at = 0; at < datagram.size(); ++at) {
      std::vector<std::uint8_t> changed(datagram.begin(), datagram.end());
      changed[at] ^= 1U;
      EXPECT_FALSE(is_authentic(Bytes(std::move(changed)), ends, key)) << at;
    }
    EXPECT_FALSE(is_authentic(datagram.slice(0, datagram.size() - 1), ends, key));
  }
}

TEST(DirectProbe, NoQuicPacketIsTakenForOne) {
  std::array<std::uint8_t, 32> key{};
  EXPECT_EQ(encode_probe({}, {}, key, 0).view()[0] & 0xc0U, 0U) << "the fixed bit and the long form's are missing";
  EXPECT_FALSE(is_probe(Bytes::copy_of("\x40k2d").view()));
}

TEST(UdpAddress, TextsAreReadAndWritten) {
  for (const char* text : {"1.2.3.4:5", "0.0.0.0:0", "[::1]:65535", "[2001:db8::1]:7"}) {
    const auto read = UdpAddress::parse(text);
    ASSERT_TRUE(read.has_value()) << text;
    EXPECT_EQ(read->to_string(), text);
  }
  EXPECT_TRUE(UdpAddress::parse("1.2.3.4:5")->is_v4());
  for (const char* text : {"", ":", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:x", "name:5", "::1:5", "[::1]"}) {
    EXPECT_FALSE(UdpAddress::parse(text).has_value()) << text;
    EXPECT_NE(fault_of_address(text), "") << text;
  }
}

TEST(UdpAddress, EachIsGoodForSomethingOrForNothing) {
  const auto scope = [](const char* text) { return scope_of(UdpAddress::parse(text).value()); };
  for (const char* text : {"1.2.3.4:0", "0.0.0.0:5000", "255.255.255.255:5000", "224.0.0.1:5000", "240.0.0.1:5000",
                           "169.254.1.1:5000", "192.0.2.1:5000", "[::]:5000", "[ff02::1]:5000", "[fe80::1]:5000",
                           "[2001:db8::1]:5000", "[2002:a00::1]:5000", "[::1.2.3.4]:5000", "[64:ff9b::1]:5000"})
    EXPECT_EQ(scope(text), AddressScope::nonsense) << text;
  for (const char* text : {"127.0.0.1:5000", "[::1]:5000", "[::ffff:127.0.0.1]:5000"})
    EXPECT_EQ(scope(text), AddressScope::loopback) << text;
  for (const char* text : {"10.1.2.3:5000", "172.16.0.1:5000", "192.168.1.1:5000", "100.64.0.1:5000", "[fd00::1]:5000"})
    EXPECT_EQ(scope(text), AddressScope::local) << text;
  for (const char* text : {"8.8.8.8:5000", "172.32.0.1:5000", "[2a00::1]:5000"})
    EXPECT_EQ(scope(text), AddressScope::global) << text;
}

}  // namespace
}  // namespace kitsune2::iroh
