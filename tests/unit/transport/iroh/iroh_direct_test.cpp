// Direct paths of whole transports, beside a relay and a UDP network in virtual time.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "log/log.hpp"
#include "support/sim_udp.hpp"
#include "unit/transport/iroh/iroh_peers.hpp"

namespace kitsune2::iroh {
namespace {

using namespace std::chrono_literals;
using tests::FakeIrohRelay;
using tests::id_of;
using tests::SimUdp;
using tests::url_of;

UdpAddress lan(std::uint8_t host) { return UdpAddress::v4(192, 168, 1, host, 5000); }
UdpAddress internet(std::uint8_t host) { return UdpAddress::v4(8, 0, 0, host, 5000); }

/// The default.
IrohTransportConfig direct_config() { return tests::iroh_config("http://relay:80/relay", true); }

class IrohDirectTest : public ::testing::Test {
 protected:
  IrohDirectTest() {
    relay_.filter = [this](const EndpointId& /*from*/, const Datagrams& datagrams) {
      // What measures the way through the relay is not what it carries.
      if (!is_probe(datagrams.content)) relayed_ += datagrams.content.size();
      return relay_passes_;
    };
  }

  struct Place {
    UdpAddress own;
    std::optional<UdpAddress> outside = {};
  };
  /// A node that counts everybody as a peer of a common space.
  std::unique_ptr<tests::IrohTestNode> node(std::uint8_t key, const Place& place,
                                            const IrohTransportConfig& config = direct_config()) {
    auto made = std::make_unique<tests::IrohTestNode>(
        world_, relay_, key, config, dialect_,
        [&](testing::SimRuntime& runtime) { return udp_->binder(runtime, place.own, place.outside); });
    made->events.shares = [this](const Url&) { return common_; };
    EXPECT_TRUE(until([&] { return made->transport->url().has_value(); }));
    return made;
  }
  bool until(const std::function<bool()>& done, Duration limit = 5min) { return world_.run_until(done, limit); }
  static bool is_direct(const tests::IrohTestNode& node, std::uint8_t peer) {
    for (const auto& connection : node.transport->stats().connections) {
      if (connection.peer == url_of(peer)) return connection.is_direct;
    }
    return false;
  }
  /// Both have said something and know where the other is.
  bool meet(tests::IrohTestNode& a, std::uint8_t a_key, tests::IrohTestNode& b, std::uint8_t b_key) {
    a.send(url_of(b_key), "hello");
    if (!until([&] { return !b.events.messages_from(url_of(a_key)).empty(); })) return false;
    b.send(url_of(a_key), "hello");
    return until([&] { return is_direct(a, b_key) && is_direct(b, a_key); }, 30s);
  }
  /// Messages of different sizes arrive, each once and in order.
  void exchange(tests::IrohTestNode& a, std::uint8_t a_key, tests::IrohTestNode& b, std::size_t count,
                const std::function<void(std::size_t)>& between) {
    const auto heard = [&] { return b.events.messages_from(url_of(a_key)); };
    const std::size_t before = heard().size();
    std::vector<std::string> sent;
    for (std::size_t i = 0; i < count; ++i) {
      sent.push_back(std::to_string(i) + std::string((i % 7) * 30'000, 'x'));
      a.send(b_url_, sent.back());
      between(i);
      world_.run_for(50ms);
    }
    // The first one is the preflight.
    EXPECT_TRUE(until([&] { return b.events.messages[url_of(a_key)].size() > before + count; }));
    world_.run_for(10s);
    const std::vector<std::string> all = heard();
    ASSERT_EQ(all.size(), before + count);
    for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(all[before + i], sent[i]) << i;
  }

  /// The last message of a node that stops as soon as it has gone out.
  void stop_after_last(tests::IrohTestNode& a, tests::IrohTestNode& b) {
    const std::size_t before = a.results.size();
    a.send(b_url_, "last");
    ASSERT_TRUE(until([&] { return a.results.size() > before; }));
    bool stopped = false;
    a.transport->stop([&] { stopped = true; });
    ASSERT_TRUE(until([&] { return stopped; }));
    ASSERT_TRUE(until([&] { return b.events.live.empty(); }));
    EXPECT_EQ(b.events.messages_from(url_of(1)).back(), "last");
    EXPECT_EQ(b.events.disconnects.back().second, "the node stops");
  }

  /// Sends what a node has sent directly to another one, again and again.
  void repeat(const Bytes& datagram, const UdpAddress& to, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      udp_->inject(internet(9), to, datagram);
      if (i % 1000 == 999) world_.run_for(5ms);
    }
    world_.run_for(5ms);
  }

  testing::SimWorld world_{1};
  FakeIrohRelay relay_{world_};
  std::shared_ptr<SimUdp> udp_ = std::make_shared<SimUdp>(world_);
  const Url b_url_ = url_of(2);
  Dialect dialect_ = Dialect::v0_5;
  bool common_ = true;
  bool relay_passes_ = true;
  std::uint64_t relayed_ = 0;
};

TEST_F(IrohDirectTest, TwoNodesOfALanLeaveTheRelay) {
  for (const Dialect dialect : {Dialect::v0_5, Dialect::v0_4}) {
    dialect_ = dialect;
    const auto a = node(1, {lan(1)});
    const auto b = node(2, {lan(2)});
    ASSERT_TRUE(meet(*a, 1, *b, 2));
    world_.run_for(1s);
    relayed_ = 0;
    exchange(*a, 1, *b, 20, [](std::size_t) {});
    EXPECT_EQ(relayed_, 0U);
    EXPECT_GT(udp_->sent_to[lan(2)].bytes, 1'000'000U);
  }
}

/// Who hears the offer of the other first pings it before its own has arrived.
TEST_F(IrohDirectTest, BothLeaveTheRelayAtAboutTheSameTime) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  a->send(url_of(2), "hello");
  b->send(url_of(1), "hello");
  ASSERT_TRUE(until([&] { return is_direct(*a, 2) || is_direct(*b, 1); }));
  EXPECT_TRUE(until([&] { return is_direct(*a, 2) && is_direct(*b, 1); }, 100ms));
}

TEST_F(IrohDirectTest, TheRelayMayGoAwayMeanwhile) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  relay_.options.accept = false;
  relay_.cut();
  exchange(*a, 1, *b, 20, [](std::size_t) {});
}

TEST_F(IrohDirectTest, WhenTheNetworkIsCutTheTransferGoesOnThroughTheRelayAndComesBack) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  bool cut = false;
  udp_->passes = [&](const UdpAddress&, const UdpAddress&) { return !cut; };
  exchange(*a, 1, *b, 100, [&](std::size_t i) { cut = i >= 20 && i < 60; });
  EXPECT_GT(relayed_, 100'000U);
  ASSERT_TRUE(until([&] { return is_direct(*a, 2) && is_direct(*b, 1); }, 1min));
}

TEST_F(IrohDirectTest, ASlowNetworkIsLeftForTheRelayUntilItIsFast) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  world_.run_for(2min);
  EXPECT_TRUE(is_direct(*a, 2) && is_direct(*b, 1));
  udp_->options.latency = 150ms;
  exchange(*a, 1, *b, 20, [](std::size_t) {});
  ASSERT_TRUE(until([&] { return !is_direct(*a, 2) && !is_direct(*b, 1); }, 2min));
  const std::uint64_t before = udp_->sent_to[lan(2)].bytes;
  exchange(*a, 1, *b, 20, [](std::size_t) {});
  EXPECT_LT(udp_->sent_to[lan(2)].bytes - before, 20'000U) << "pings";
  udp_->options.latency = 2ms;
  ASSERT_TRUE(until([&] { return is_direct(*a, 2) && is_direct(*b, 1); }, 2min));
  exchange(*a, 1, *b, 20, [](std::size_t) {});
}

TEST_F(IrohDirectTest, ASlowNetworkIsUsedAgainAtOnceWhenTheRelayGoesAway) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  udp_->options.latency = 150ms;
  ASSERT_TRUE(until([&] { return !is_direct(*a, 2) && !is_direct(*b, 1); }, 2min));
  relay_.options.accept = false;
  relay_.cut();
  world_.run_for(1s);
  EXPECT_TRUE(is_direct(*a, 2) && is_direct(*b, 1));
  exchange(*a, 1, *b, 20, [](std::size_t) {});
}

TEST_F(IrohDirectTest, ARelayThatPassesNothingOnIsLeftForASlowNetwork) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  udp_->options.latency = 150ms;
  ASSERT_TRUE(until([&] { return !is_direct(*a, 2) && !is_direct(*b, 1); }, 2min));
  relay_passes_ = false;
  exchange(*a, 1, *b, 20, [](std::size_t) {});
  EXPECT_TRUE(is_direct(*a, 2) && is_direct(*b, 1));
}

TEST_F(IrohDirectTest, ADirectionThatIsCutIsNoticed) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  udp_->passes = [&](const UdpAddress&, const UdpAddress& to) { return to != lan(2); };
  exchange(*a, 1, *b, 50, [](std::size_t) {});
  EXPECT_FALSE(is_direct(*a, 2));
}

TEST_F(IrohDirectTest, LossReorderingAndDuplicationLoseAndRepeatNothing) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  udp_->options.loss = 5;
  udp_->options.duplication = 5;
  udp_->options.reorder = 10;
  exchange(*a, 1, *b, 60, [](std::size_t) {});
}

TEST_F(IrohDirectTest, ANetworkThatIsTooSmallForQuicIsNotUsed) {
  udp_->options.largest = 1199;
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  EXPECT_FALSE(meet(*a, 1, *b, 2));
  exchange(*a, 1, *b, 10, [](std::size_t) {});
}

TEST_F(IrohDirectTest, ALineWithASmallMtuIsUsedWithTheLargestDatagramsThatItCarries) {
  for (const std::size_t mtu : {1280U, 1420U}) {
    for (const std::size_t headers : {28U, 48U}) {
      SCOPED_TRACE(std::to_string(mtu) + " " + std::to_string(headers));
      udp_->options.largest = mtu - headers;
      const auto a = node(1, {lan(1)});
      const auto b = node(2, {lan(2)});
      ASSERT_TRUE(meet(*a, 1, *b, 2));
      world_.run_for(15s);
      relayed_ = 0;
      udp_->sent_to.clear();
      exchange(*a, 1, *b, 20, [](std::size_t) {});
      EXPECT_EQ(relayed_, 0U);
      EXPECT_EQ(udp_->sent_to[lan(2)].longest, mtu - headers);
    }
  }
}

TEST_F(IrohDirectTest, ALargeMessagePassesALineWithASmallMtu) {
  udp_->options.largest = 1252;
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  relayed_ = 0;
  a->send(url_of(2), std::string(5'000'000, 'x'));
  ASSERT_TRUE(until([&] { return b->events.messages[url_of(1)].back().size() == 5'000'000U; }, 30s));
  EXPECT_EQ(relayed_, 0U);
}

TEST_F(IrohDirectTest, EachDirectionHasASizeOfItsOwn) {
  udp_->largest_between = [](const UdpAddress& from, const UdpAddress&) { return from == lan(1) ? 1252U : 1500U; };
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  world_.run_for(15s);
  relayed_ = 0;
  udp_->sent_to.clear();
  exchange(*a, 1, *b, 10, [&](std::size_t) { b->send(url_of(1), std::string(10'000, 'y')); });
  EXPECT_EQ(relayed_, 0U);
  EXPECT_EQ(udp_->sent_to[lan(2)].longest, 1252U);
  EXPECT_EQ(udp_->sent_to[lan(1)].longest, 1452U);
}

TEST_F(IrohDirectTest, APathThatGetsTooSmallForItsDatagramsIsUsedWithSmallerOnes) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  std::uint64_t relayed = 0;
  exchange(*a, 1, *b, 120, [&](std::size_t i) {
    udp_->options.largest = i < 10 ? 1500 : 1392;
    // 5 s later.
    if (i == 110) relayed = relayed_;
  });
  EXPECT_TRUE(is_direct(*a, 2) && is_direct(*b, 1));
  EXPECT_EQ(relayed_, relayed);
  EXPECT_LT(relayed, 3'000'000U) << "of 11 MB";
}

/// What goes through the relay does not get smaller for a path that was.
TEST_F(IrohDirectTest, DatagramsThroughTheRelayHaveTheirFullSizeAfterASmallPath) {
  udp_->options.largest = 1252;
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  bool cut = false;
  std::size_t longest = 0;
  udp_->passes = [&](const UdpAddress&, const UdpAddress&) { return !cut; };
  relay_.filter = [&](const EndpointId&, const Datagrams& datagrams) {
    const std::size_t size = datagrams.content.size();
    longest =
        std::max(longest, datagrams.segment_size == 0 ? size : std::min<std::size_t>(datagrams.segment_size, size));
    return true;
  };
  exchange(*a, 1, *b, 40, [&](std::size_t i) { cut = i > 5; });
  EXPECT_EQ(longest, 1452U);
}

TEST_F(IrohDirectTest, ANodeBehindANatReachesOneThatIsNot) {
  const auto a = node(1, {lan(1), internet(50)});
  const auto b = node(2, {internet(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  relayed_ = 0;
  exchange(*a, 1, *b, 20, [](std::size_t) {});
  EXPECT_EQ(relayed_, 0U);
}

TEST_F(IrohDirectTest, ANatThatForgetsCostsNoMessage) {
  const auto a = node(1, {lan(1), internet(50)});
  const auto b = node(2, {internet(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  exchange(*a, 1, *b, 60, [&](std::size_t i) {
    if (i % 20 == 10) udp_->forget_nats();
  });
  ASSERT_TRUE(until([&] { return is_direct(*a, 2) && is_direct(*b, 1); }, 3min));
}

TEST_F(IrohDirectTest, WhoHasNotBeenHeardInACommonSpaceIsToldNothing) {
  common_ = false;
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  EXPECT_FALSE(meet(*a, 1, *b, 2));
  EXPECT_TRUE(udp_->sent_to.empty());
  common_ = true;
  EXPECT_TRUE(meet(*a, 1, *b, 2)) << "the next message is enough";
}

TEST_F(IrohDirectTest, WhereItIsOffNoSocketIsOpenedAndThePeerIsToldNothing) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)}, tests::plain_iroh_config());
  EXPECT_FALSE(meet(*a, 1, *b, 2));
  EXPECT_TRUE(udp_->sent_to.empty());
  EXPECT_EQ(b->events.messages[url_of(1)].size(), 2U) << "a preflight and a message";
}

TEST_F(IrohDirectTest, WhoCouldNotBeToldBecauseTooMuchWaitedIsToldLater) {
  common_ = false;
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  EXPECT_FALSE(meet(*a, 1, *b, 2));
  // Nothing of this node arrives, and its queue gets full to the last byte.
  bool stuck = true;
  relay_.filter = [&](const EndpointId& from, const Datagrams&) { return !stuck || from != id_of(1); };
  const auto fill = [&](std::size_t size) {
    const std::size_t before = a->results.size();
    const auto is_full = [&] {
      return std::any_of(a->results.begin() + static_cast<std::ptrdiff_t>(before), a->results.end(),
                         [](const Result<void>& one) { return !one && one.error().code == Errc::overloaded; });
    };
    for (int i = 0; i < 100'000 && !is_full(); ++i) {
      a->send(url_of(2), std::string(size, 'x'));
      world_.run_for(0ms);
    }
    EXPECT_TRUE(is_full());
  };
  fill(1'000'000);
  world_.run_for(2s);
  for (const std::size_t size : {1'000'000U, 10'000U, 100U, 1U}) fill(size);
  common_ = true;
  const std::size_t heard = a->events.messages_from(url_of(2)).size();
  b->send(url_of(1), "hello");
  ASSERT_TRUE(until([&] { return a->events.messages_from(url_of(2)).size() > heard; }, 10s));
  stuck = false;
  EXPECT_TRUE(until([&] { return is_direct(*a, 2) && is_direct(*b, 1); }, 1min));
}

TEST_F(IrohDirectTest, AStockPeerIsToldNothing) {
  const auto a = node(1, {lan(1)});
  tests::IrohHandPeer peer(world_, relay_, 5);
  a->send(url_of(5), "hello");
  ASSERT_TRUE(until([&] { return peer.incoming.size() == 1; }));
  const auto id = peer.incoming[0];
  ASSERT_TRUE(until([&] { return peer.heard[id].size() == 2; }));
  peer.send_data(id, "answer");
  ASSERT_TRUE(until([&] { return a->events.messages_from(url_of(5)).size() == 1; }));
  world_.run_for(1min);
  EXPECT_EQ(peer.heard[id].size(), 2U);
  EXPECT_TRUE(udp_->sent_to.empty());
}

TEST_F(IrohDirectTest, OnlyOffersOfPeersThatKnowDirectPathsAreKeptFromTheOwner) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)}, tests::plain_iroh_config());
  // Another field before those of a message, which only a node that has never seen it skips.
  const Bytes offer = encode_offer({});
  const std::string longer = offer.str() + "\x08\x02";
  const auto heard = [&](tests::IrohTestNode& by, std::uint8_t by_key, std::uint8_t key, bool knows) {
    tests::IrohHandPeer peer(world_, relay_, key);
    const auto id = peer.dial(by_key);
    EXPECT_TRUE(until([&] { return peer.opened(id); }));
    const Bytes preflight = Bytes::copy_of("\x08\x01");
    peer.send(id, ByteChain(encode_preflight(url_of(key).str(), knows ? with_direct_mark(preflight) : preflight)));
    for (const std::string& text : {offer.str(), longer, std::string("last")}) peer.send_data(id, text);
    EXPECT_TRUE(until([&] {
      const auto& messages = by.events.messages[url_of(key)];
      return !messages.empty() && messages.back().str() == "last";
    }));
    std::vector<std::string> out;
    for (const Bytes& message : by.events.messages[url_of(key)]) out.push_back(message.str());
    out.erase(out.begin());  // the preflight
    return out;
  };
  EXPECT_EQ(heard(*a, 1, 5, true), (std::vector<std::string>{longer, "last"}));
  EXPECT_EQ(heard(*a, 1, 6, false), (std::vector<std::string>{offer.str(), longer, "last"}));
  EXPECT_EQ(heard(*b, 2, 7, true), (std::vector<std::string>{offer.str(), longer, "last"}));
}

TEST_F(IrohDirectTest, AFloodWithNamesThatAreNotInUseIsKeptOutAndPathsGoOn) {
  Bytes of_quic, ping;
  udp_->on_sent = [&](const UdpAddress& from, const UdpAddress& to, const Bytes& datagram) {
    if (from == lan(3) && to == lan(1)) (is_probe(datagram) ? ping : of_quic) = datagram;
  };
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  auto c = node(3, {lan(3)});
  ASSERT_TRUE(meet(*a, 1, *c, 3));
  c->send(url_of(1), "something, so that a name is told");
  world_.run_for(1s);
  bool stopped = false;
  c->transport->stop([&] { stopped = true; });
  ASSERT_TRUE(until([&] { return stopped && a->events.live.size() == 1; }));
  world_.run_for(1min);
  for (const Bytes& datagram : {of_quic, ping}) {
    ASSERT_FALSE(datagram.empty());
    repeat(datagram, lan(1), FloodGuard::kMostForNobody + 2000);
    ASSERT_TRUE(udp_->filters.at(lan(1)).names());
    udp_->kept_out.clear();
    repeat(datagram, lan(1), 5000);
    EXPECT_EQ(udp_->kept_out[lan(1)], 5000U);
    relayed_ = 0;
    exchange(*a, 1, *b, 100, [&](std::size_t) { b->send(url_of(1), std::string(5'000, 'y')); });
    EXPECT_EQ(relayed_, 0U);
    ASSERT_TRUE(until([&] { return !udp_->filters.at(lan(1)).names(); }, 3min));
    EXPECT_TRUE(is_direct(*a, 2) && is_direct(*b, 1));
  }
}

TEST_F(IrohDirectTest, DuringAFloodANewPeerGetsADirectPathToo) {
  Bytes of_quic;
  udp_->on_sent = [&](const UdpAddress& from, const UdpAddress&, const Bytes& datagram) {
    if (from == lan(3) && !is_probe(datagram)) of_quic = datagram;
  };
  const auto a = node(1, {lan(1)});
  auto c = node(3, {lan(3)});
  ASSERT_TRUE(meet(*a, 1, *c, 3));
  c->send(url_of(1), "something, so that a name is told");
  world_.run_for(1s);
  c->transport->stop([] {});
  ASSERT_TRUE(until([&] { return a->events.live.empty(); }));
  world_.run_for(30s);
  ASSERT_FALSE(of_quic.empty());
  repeat(of_quic, lan(1), FloodGuard::kMostForNobody + 2000);
  ASSERT_TRUE(udp_->filters.at(lan(1)).names());
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  EXPECT_TRUE(udp_->filters.at(lan(1)).names()) << "the flood may go on";
}

TEST_F(IrohDirectTest, APeerUnderWhoseNameAFloodComesIsReachedByTheRelayAndOthersAreNot) {
  for (const bool by_pings : {false, true}) {
    SCOPED_TRACE(by_pings);
    Bytes repeated;
    udp_->on_sent = [&](const UdpAddress& from, const UdpAddress& to, const Bytes& datagram) {
      if (from == lan(2) && to == lan(1) && is_probe(datagram) == by_pings) repeated = datagram;
    };
    const auto a = node(1, {lan(1)});
    const auto b = node(2, {lan(2)});
    const auto c = node(3, {lan(3)});
    ASSERT_TRUE(meet(*a, 1, *c, 3));
    ASSERT_TRUE(meet(*a, 1, *b, 2));
    b->send(url_of(1), "something, so that a name is told");
    world_.run_for(500ms);
    std::uint64_t pongs = udp_->sent_to[internet(9)].packets;
    repeat(repeated, lan(1), FloodGuard::kMostUseless + 2000);
    EXPECT_FALSE(is_direct(*a, 2));
    EXPECT_LE(udp_->sent_to[internet(9)].packets - pongs, by_pings ? 100U : 0U);
    ASSERT_TRUE(until([&] { return !is_direct(*b, 1); }, 10s));
    exchange(*a, 1, *b, 20, [&](std::size_t i) { b->send(url_of(1), std::to_string(i)); });
    EXPECT_EQ(b->events.disconnects.size(), 0U);
    EXPECT_FALSE(is_direct(*a, 2)) << "as long as the connection lives";
    // What goes on coming has a name that is not in use any more.
    repeat(repeated, lan(1), FloodGuard::kMostForNobody + 2000);
    EXPECT_TRUE(udp_->filters.at(lan(1)).names());
    udp_->kept_out.clear();
    repeat(repeated, lan(1), 1000);
    EXPECT_EQ(udp_->kept_out[lan(1)], 1000U);
    EXPECT_TRUE(is_direct(*a, 3) && is_direct(*c, 1));
  }
}

TEST_F(IrohDirectTest, MuchThatIsLostRepeatedAndOutOfOrderIsNoFlood) {
  udp_->options.loss = 3;
  udp_->options.duplication = 20;
  udp_->options.reorder = 20;
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  for (int i = 0; i < 10; ++i) {
    a->send(url_of(2), std::string(5'000'000, 'x'));
    b->send(url_of(1), std::string(5'000'000, 'y'));
    ASSERT_TRUE(until([&] {
      return b->events.messages[url_of(1)].size() == 3U + static_cast<std::size_t>(i) &&
             a->events.messages[url_of(2)].size() == 3U + static_cast<std::size_t>(i);
    }));
  }
  // A lost ping may have made them leave the path for a moment; a flood would have for good.
  udp_->options.loss = 0;
  EXPECT_TRUE(until([&] { return is_direct(*a, 2) && is_direct(*b, 1); }, 2min));
  EXPECT_FALSE(udp_->filters.at(lan(1)).names() || udp_->filters.at(lan(2)).names());
}

TEST_F(IrohDirectTest, AnotherPortIsNotTakenAndTheRelayCarriesEverything) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(1)});
  EXPECT_FALSE(meet(*a, 1, *b, 2));
}

/// It is on in every node, also where there is no UDP: who has not asked for a socket is not warned.
TEST_F(IrohDirectTest, ASocketThatCannotBeOpenedIsAWarningIfItsAddressWasNamed) {
  const auto severity = [this](const IrohTransportConfig& config) {
    LogLevel out = LogLevel::off;
    const log::Scope scope(std::make_shared<log::Logger>(LogOptions{[&](const LogLine& line) {
                                                                      if (line.text.find("no direct paths") == 0)
                                                                        out = line.level;
                                                                    },
                                                                    LogLevel::trace}));
    const auto a = node(1, {lan(1)}, config);
    const auto b = node(2, {lan(1)}, config);
    return out;
  };
  EXPECT_EQ(severity(direct_config()), LogLevel::info);
  IrohTransportConfig named = direct_config();
  named.direct_bind_address = "192.168.1.1:6000";
  EXPECT_EQ(severity(named), LogLevel::warn);
}

TEST_F(IrohDirectTest, AnExternalAddressIsToldFirst) {
  IrohTransportConfig config = direct_config();
  config.direct_external_address = "8.0.0.9:6000";
  const auto a = node(1, {lan(1)}, config);
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  EXPECT_GE(udp_->sent_to[UdpAddress::v4(8, 0, 0, 9, 6000)].packets, 1U);
}

TEST_F(IrohDirectTest, WhatStrangersSendToTheSocketIsDropped) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  const std::size_t connections = a->transport->stats().connections.size();
  for (std::uint64_t i = 0; i < 2000; ++i) {
    std::vector<std::uint8_t> junk(1 + world_.random(1500));
    for (std::uint8_t& byte : junk) byte = static_cast<std::uint8_t>(world_.random(256));
    udp_->inject(internet(9), lan(1), Bytes(std::move(junk)));
    if (i % 100 == 0) world_.run_for(10ms);
  }
  // One that opens a connection, too: a key that the relay has not proven opens none.
  quic::Endpoint stranger(quic::Identity::create(tests::seed_of(9)).value(), {}, [this](std::span<std::uint8_t> out) {
    for (std::uint8_t& byte : out) byte = static_cast<std::uint8_t>(world_.random(256));
  });
  ASSERT_TRUE(stranger.dial(id_of(1), world_.now()).has_value());
  while (const auto out = stranger.produce(world_.now())) udp_->inject(internet(9), lan(1), out->batch.content);
  exchange(*a, 1, *b, 10, [](std::size_t) {});
  EXPECT_EQ(a->transport->stats().connections.size(), connections);
  EXPECT_FALSE(udp_->sent_to.contains(internet(9)));
}

TEST_F(IrohDirectTest, AClosedConnectionLeavesNoPath) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  a->transport->disconnect(url_of(2), {.text = "bye"}, {});
  ASSERT_TRUE(until([&] { return b->events.live.empty(); }));
  EXPECT_EQ(b->events.disconnects.back().second, "bye");
  world_.run_for(10s);
  udp_->sent_to.clear();
  world_.run_for(10min);
  EXPECT_TRUE(udp_->sent_to.empty());
  ASSERT_TRUE(meet(*a, 1, *b, 2));
}

/// T12. The close goes through the relay, once the path is given up.
TEST_F(IrohDirectTest, WhatIsUnderWayOnASlowPathWhenTheNodeStopsArrives) {
  for (const Dialect dialect : {Dialect::v0_5, Dialect::v0_4}) {
    dialect_ = dialect;
    udp_->options.latency = 2ms;
    const auto a = node(1, {lan(1)});
    const auto b = node(2, {lan(2)});
    ASSERT_TRUE(meet(*a, 1, *b, 2));
    udp_->options.latency = 100ms;
    stop_after_last(*a, *b);
  }
}

TEST_F(IrohDirectTest, WhatWasLostJustBeforeAStopIsSentAgain) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  unsigned lost = 0;
  udp_->passes = [&](const UdpAddress&, const UdpAddress& to) { return to != lan(2) || ++lost > 2; };
  stop_after_last(*a, *b);
  EXPECT_GT(lost, 2U);
}

TEST_F(IrohDirectTest, AStopWaitsForSilentPeersForHalfASecondAndTakesNothingMore) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  const auto c = node(3, {lan(3)});
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  udp_->passes = [](const UdpAddress&, const UdpAddress&) { return false; };
  relay_passes_ = false;
  a->send(url_of(2), "nobody hears this");
  world_.run_for(1ms);
  const Time begin = world_.now();
  bool stopped = false, again = false;
  a->transport->stop([&] { stopped = true; });
  a->transport->stop([&] { again = true; });
  const std::size_t before = a->results.size();
  a->send(url_of(2), "too late");
  world_.run_for(1ms);
  EXPECT_TRUE(again) << "the second has nothing to wait for";
  ASSERT_EQ(a->results.size(), before + 1);
  EXPECT_EQ(a->results.back().error().code, Errc::disconnected);
  relay_passes_ = true;
  // Whoever connects meanwhile is sent away.
  c->send(url_of(1), "hello");
  ASSERT_TRUE(until([&] { return stopped; }));
  EXPECT_EQ(world_.now() - begin, 500ms);
  EXPECT_TRUE(a->events.messages[url_of(3)].empty());
}

TEST_F(IrohDirectTest, AFullSocketOfTheRelayDoesNotHoldUpDirectPeers) {
  const auto a = node(1, {lan(1)});
  const auto b = node(2, {lan(2)});
  const auto c = node(3, {lan(3)}, tests::plain_iroh_config());
  ASSERT_TRUE(meet(*a, 1, *b, 2));
  relay_.options.bytes_per_second = 1000;
  for (int i = 0; i < 50; ++i) a->send(url_of(3), std::string(100'000, 'y'));
  world_.run_for(5s);
  exchange(*a, 1, *b, 20, [](std::size_t) {});
  EXPECT_TRUE(c->events.messages_from(url_of(1)).empty());
}

}  // namespace
}  // namespace kitsune2::iroh
