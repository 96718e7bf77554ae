// Where the peers of a relay inside this process connect from.
#include "transport/tx5/peer_addresses.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <utility>

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

TEST(PeerAddresses, ManyKeysOfOneGroupDoNotMakeItForgetOthers) {
  PeerAddresses addresses(10);
  addresses.begin(*Url::parse("ws://relay:80"));
  const slots::Address honest = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3};
  addresses.learn(key(200), honest);
  for (std::uint8_t i = 1; i <= 100; ++i) addresses.learn(key(i), {0x20, 1, 0xd, 0xb8, 0, 1, 2, i});
  EXPECT_EQ(addresses.of(key(200)), honest);
  EXPECT_TRUE(addresses.of(key(100)));
  EXPECT_EQ(addresses.of(key(1)), std::nullopt);
}

TEST(PeerAddresses, WhoHasLeftTheRelayIsForgotten) {
  PeerAddresses addresses(10);
  addresses.begin(*Url::parse("ws://relay:80"));
  addresses.learn(key(1), {1});
  addresses.forget(key(2));
  EXPECT_TRUE(addresses.of(key(1)));
  addresses.forget(key(1));
  EXPECT_EQ(addresses.of(key(1)), std::nullopt);
  EXPECT_EQ(addresses.size(), 0U);
}

/// The same, with one list that is searched.
class AddressesTwin {
 public:
  explicit AddressesTwin(std::size_t most) : most_(most) {}
  void learn(std::uint8_t peer, const slots::Address& address) {
    if (of(peer) == address) return;
    forget(peer);
    known_.emplace_back(peer, address);
    if (known_.size() <= most_) return;
    std::map<slots::Address, std::size_t> counts;
    for (const auto& [each, where] : known_) ++counts[group(where)];
    std::size_t most = 0;
    for (const auto& [where, count] : counts) most = std::max(most, count);
    const auto first =
        std::find_if(known_.begin(), known_.end(), [&](const auto& k) { return counts[group(k.second)] == most; });
    known_.erase(first);
  }
  void forget(std::uint8_t peer) {
    std::erase_if(known_, [&](const auto& k) { return k.first == peer; });
  }
  std::optional<slots::Address> of(std::uint8_t peer) const {
    const auto found = std::find_if(known_.begin(), known_.end(), [&](const auto& k) { return k.first == peer; });
    return found == known_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  static slots::Address group(slots::Address address) {
    if (!slots::is_v4(address)) std::fill(address.begin() + 7, address.end(), std::uint8_t{0});
    return address;
  }
  std::size_t most_;
  std::deque<std::pair<std::uint8_t, slots::Address>> known_;
};

TEST(PeerAddresses, AgreeWithTheirTwin) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    PeerAddresses addresses(8);
    addresses.begin(*Url::parse("ws://relay:80"));
    AddressesTwin twin(8);
    for (int i = 0; i < 200; ++i) {
      const auto peer = static_cast<std::uint8_t>(1 + random() % 20);
      if (random() % 4 == 0) {
        addresses.forget(key(peer));
        twin.forget(peer);
      } else {
        slots::Address at{};
        if (random() % 2 == 0) at[10] = at[11] = 0xff;
        at[0] = at[10] == 0 ? 0x20 : 0;
        at[6 + random() % 2 * 9] = static_cast<std::uint8_t>(random() % 3);
        addresses.learn(key(peer), at);
        twin.learn(peer, at);
      }
      addresses.check_invariants();
      for (std::uint8_t each = 1; each <= 20; ++each) ASSERT_EQ(addresses.of(key(each)), twin.of(each)) << seed;
    }
  }
}

}  // namespace
}  // namespace kitsune2::tx5
