// Where the peers of a relay inside this process connect from.
#include "transport/tx5/peer_addresses.hpp"

#include <gtest/gtest.h>

namespace kitsune2::tx5 {
namespace {

sbd::NodeId key(std::uint8_t fill) {
  sbd::NodeId out;
  out.fill(fill);
  return out;
}

Url at(const std::string& relay, std::uint8_t fill) { return *Url::parse(relay + "/" + sbd::to_path(key(fill))); }

TEST(PeerAddresses, GroupsAreIpv4AddressesAndThe56OfIpv6) {
  PeerAddresses addresses;
  addresses.begin(*Url::parse("ws://relay:80"));
  addresses.learn(key(1), {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3});
  addresses.learn(key(2), {0x20, 1, 0xd, 0xb8, 0, 1, 2, 3});
  EXPECT_EQ(addresses.group_of(at("ws://relay:80", 1)), "0a010203");
  EXPECT_EQ(addresses.group_of(at("ws://relay:80", 2)), "20010db8000102");
  EXPECT_EQ(addresses.group_of(at("ws://relay:80", 3)), std::nullopt);
  EXPECT_EQ(addresses.group_of(at("ws://another:80", 1)), std::nullopt) << "the same key at another relay";
  EXPECT_EQ(addresses.group_of(*Url::parse("ws://relay:80")), std::nullopt);
}

TEST(PeerAddresses, AreBoundedAndGoWithTheConnection) {
  PeerAddresses addresses(10);
  addresses.begin(*Url::parse("ws://relay:80"));
  for (std::uint8_t i = 1; i <= 12; ++i) addresses.learn(key(i), {i});
  EXPECT_EQ(addresses.of(key(2)), std::nullopt);
  EXPECT_TRUE(addresses.of(key(3)));
  EXPECT_TRUE(addresses.of(key(12)));
  addresses.begin(*Url::parse("ws://relay:80"));
  EXPECT_EQ(addresses.of(key(12)), std::nullopt);
}

}  // namespace
}  // namespace kitsune2::tx5
