// The iroh backend beside a relay in virtual time, and peers that are played by hand.
#include "transport/iroh/iroh_transport.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "unit/transport/iroh/iroh_peers.hpp"

namespace kitsune2::iroh {
namespace {

using namespace std::chrono_literals;
using tests::FakeIrohRelay;
using tests::filled;
using tests::id_of;
using tests::iroh_config;
using tests::plain_iroh_config;
using tests::url_of;
using HandPeer = tests::IrohHandPeer;
using TestNode = tests::IrohTestNode;

class IrohTransportTest : public ::testing::Test {
 protected:
  std::unique_ptr<TestNode> node(std::uint8_t key, const IrohTransportConfig& config = plain_iroh_config()) {
    auto made = std::make_unique<TestNode>(world_, relay_, key, config);
    EXPECT_TRUE(until([&] { return made->transport->url().has_value(); }));
    return made;
  }
  bool until(const std::function<bool()>& done, Duration limit = 5min) { return world_.run_until(done, limit); }
  void settle(Duration time = 2s) { world_.run_for(time); }
  /// A hand-made peer that has dialled `to` and may send.
  HandPeer::Id connected(HandPeer& peer, std::uint8_t own, std::uint8_t to) {
    const HandPeer::Id id = peer.dial(to);
    EXPECT_TRUE(until([&] { return peer.opened(id); }));
    peer.send_preflight(id, url_of(own));
    EXPECT_TRUE(until([&] { return !peer.heard[id].empty(); }));
    return id;
  }

  testing::SimWorld world_{1};
  FakeIrohRelay relay_{world_};
};

// --- the relay

TEST_F(IrohTransportTest, TheUrlIsRelayAndKeyAndStaysTheSame) {
  const auto a = node(1);
  EXPECT_EQ(a->transport->url()->str(),
            "http://relay:80/relay/8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c");
  EXPECT_EQ(relay_.urls, (std::vector<std::string>{"ws://relay:80/relay"}));
  EXPECT_EQ(relay_.offered, (std::vector<std::string>{"iroh-relay-v2, iroh-relay-v1"}));
  const Url before = *a->transport->url();
  settle(15s);
  relay_.cut();
  ASSERT_TRUE(until([&] { return !a->transport->url(); }));
  EXPECT_TRUE(a->transport->failure());
  ASSERT_TRUE(until([&] { return a->transport->url().has_value(); }));
  EXPECT_EQ(a->transport->url(), before);
  EXPECT_FALSE(a->transport->failure());
  settle(0s);
  EXPECT_EQ(a->events.addresses, (std::vector<Url>{before, before})) << "so that agent infos are put again";
  EXPECT_EQ(a->events.addresses_lost, 1);
}

TEST_F(IrohTransportTest, TheRelayMayChooseTheOlderVersionOrNone) {
  for (const char* protocol : {"iroh-relay-v1", ""}) {
    relay_.options.protocol = protocol;
    const auto a = node(1);
    relay_.to_all(Health{"a word that version 2 does not have"});
    settle();
    EXPECT_TRUE(a->transport->url()) << protocol;
  }
}

TEST_F(IrohTransportTest, ARelayThatDoesNotAnswerIsLeftAndTriedAgain) {
  const auto a = node(1);
  settle(1s);
  EXPECT_EQ(relay_.pings, 1U);
  relay_.options.answer = false;
  ASSERT_TRUE(until([&] { return !a->transport->url(); }));
  EXPECT_LE(world_.now(), Time(30s));
  settle(1min);
  relay_.options.answer = true;
  ASSERT_TRUE(until([&] { return a->transport->url().has_value(); }, 30s));
}

TEST_F(IrohTransportTest, ARelayThatKeepsNobodyIsNotAskedInALoop) {
  const auto a = node(1);
  relay_.connect_times.clear();
  const Time begin = world_.now();
  while (world_.now() < begin + 60s) {
    settle(40ms);
    relay_.cut();
  }
  EXPECT_LE(relay_.connect_times.size(), 25U);
  EXPECT_GE(relay_.connect_times.size(), 5U);
}

TEST_F(IrohTransportTest, AServerThatAnswersShortensTheWaitForTheRelay) {
  const auto a = node(1);
  relay_.options.accept = false;
  relay_.cut();
  settle(1min);
  relay_.options.accept = true;
  relay_.connect_times.clear();
  a->transport->on_server_answered();
  settle(1s);
  EXPECT_EQ(relay_.connect_times.size(), 1U);
}

TEST_F(IrohTransportTest, APingThatAFullSocketCannotAnswerYetIsAnsweredLater) {
  const auto a = node(1);
  const auto b = node(2);
  a->send(url_of(2), "hello");
  ASSERT_TRUE(until([&] { return b->events.messages_from(url_of(1)).size() == 1; }));
  relay_.options.bytes_per_second = 100'000;
  a->send(url_of(2), std::string(2'000'000, 'x'));
  settle(1s);
  for (int i = 0; i < 3; ++i) relay_.to_all(Ping{});
  ASSERT_TRUE(until([&] { return b->events.messages_from(url_of(1)).size() == 2; }));
  EXPECT_GE(relay_.pongs, 4U) << "three by the idle node, and the newest by the busy one";
  EXPECT_EQ(a->events.addresses_lost, 0);
}

// --- sending

TEST_F(IrohTransportTest, ARefusedSendSaysWhy) {
  const auto a = node(1);
  const auto error_of = [&](const char* url) {
    a->results.clear();
    a->send(Url::parse(url, url_form(Dialect::v0_5)).value(), "x");
    settle(0s);
    return a->results.size() == 1 && a->results[0].has_error() ? a->results[0].error().code : Errc::internal;
  };
  EXPECT_EQ(error_of("http://relay:80/relay"), Errc::invalid_argument);
  EXPECT_EQ(error_of("http://relay:80/relay/8A88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"),
            Errc::invalid_argument);
  EXPECT_EQ(error_of(std::string(url_of(1).str()).c_str()), Errc::invalid_argument) << "this node";
  for (const char* other : {"http://relay:80/", "http://other:80/relay/", "https://relay:80/relay/"}) {
    EXPECT_EQ(error_of((std::string(other) + to_hex(id_of(2))).c_str()), Errc::peer_unresponsive) << other;
  }
  relay_.options.accept = false;
  relay_.cut();
  settle();
  EXPECT_EQ(error_of(std::string(url_of(2).str()).c_str()), Errc::disconnected);
}

TEST_F(IrohTransportTest, AConnectionOutlivesAnInterruptionOfTheRelay) {
  const auto a = node(1), b = node(2);
  a->send(url_of(2), "before");
  ASSERT_TRUE(until([&] { return b->events.messages_from(url_of(1)).size() == 1; }));
  relay_.options.accept = false;
  relay_.cut();
  settle(5s);
  a->send(url_of(2), "meanwhile");
  settle(5s);
  relay_.options.accept = true;
  ASSERT_TRUE(until([&] { return b->events.messages_from(url_of(1)).size() == 2; }));
  EXPECT_EQ(b->events.connects, 1);
  EXPECT_EQ(a->events.connects, 1);
}

TEST_F(IrohTransportTest, ARelayThatStaysAwayEndsTheConnectionAsDisconnected) {
  const auto a = node(1), b = node(2);
  a->send(url_of(2), "before");
  ASSERT_TRUE(until([&] { return b->events.messages_from(url_of(1)).size() == 1; }));
  a->results.clear();
  relay_.options.accept = false;
  relay_.cut();
  settle();
  a->send(url_of(2), filled(8U << 20));
  ASSERT_TRUE(until([&] { return !a->results.empty(); }));
  EXPECT_EQ(a->results[0].error().code, Errc::disconnected);
  EXPECT_FALSE(a->events.connected(url_of(2)));
}

TEST_F(IrohTransportTest, ASlowRelayLosesNothingAndALargeMessageDoesNotHoldUpAnotherPeer) {
  relay_.options.bytes_per_second = 1'000'000;
  const auto a = node(1), b = node(2), c = node(3);
  a->send(url_of(3), "to connect");
  ASSERT_TRUE(until([&] { return c->events.messages_from(url_of(1)).size() == 1; }));
  const std::string large = filled(8U << 20);
  a->send(url_of(2), large);
  settle(2s);
  const Time begin = world_.now();
  a->send(url_of(3), "small");
  ASSERT_TRUE(until([&] { return c->events.messages_from(url_of(1)).size() == 2; }));
  EXPECT_LE(world_.now() - begin, 1s);
  EXPECT_TRUE(b->events.messages_from(url_of(1)).empty());
  ASSERT_TRUE(until([&] { return b->events.messages_from(url_of(1)).size() == 1; }));
  EXPECT_TRUE(b->events.messages_from(url_of(1))[0] == large);
  EXPECT_GT(b->events.progress[url_of(1)], 7U << 20);
  EXPECT_TRUE(a->transport->round_trip(url_of(2)));
}

// --- peers

TEST_F(IrohTransportTest, FramesAreTheReferences) {
  const auto a = node(1);
  HandPeer peer(world_, relay_, 2);
  a->send(url_of(2), "K2Proto");
  ASSERT_TRUE(until([&] { return !peer.incoming.empty() && peer.heard[peer.incoming[0]].size() == 2; }));
  const std::vector<std::string>& heard = peer.heard[peer.incoming[0]];
  const Preflight preflight = decode_preflight(Bytes::copy_of(heard[0])).value();
  EXPECT_EQ(preflight.url.text(), url_of(1).str());
  EXPECT_EQ(preflight.k2proto, a->events.preflight);
  EXPECT_EQ(heard[1], "K2Proto");
  EXPECT_TRUE(a->events.connected(url_of(2)));
}

// T3.
TEST_F(IrohTransportTest, APreflightMustClaimTheUrlOfItsKeyOnOurRelay) {
  const auto a = node(1);
  const std::string id = to_hex(id_of(2));
  for (const std::string& claimed :
       {std::string(url_of(3).str()), "http://relay:80/" + id, "http://other:80/relay/" + id, id, std::string()}) {
    HandPeer peer(world_, relay_, 2);
    const HandPeer::Id connection = peer.dial(1);
    ASSERT_TRUE(until([&] { return peer.opened(connection); }));
    peer.send(connection, ByteChain(encode_preflight(claimed, as_bytes("\x08\x01"))));
    ASSERT_TRUE(until([&] { return peer.closed(connection) != nullptr; })) << claimed;
    EXPECT_TRUE(peer.closed(connection)->application);
    EXPECT_EQ(peer.closed(connection)->code, close_code::kFailure);
    EXPECT_EQ(a->events.connects, 0) << claimed;
  }
}

TEST_F(IrohTransportTest, DataBeforeThePreflightAndNoPreflightEndTheConnection) {
  const auto a = node(1);
  HandPeer peer(world_, relay_, 2);
  const HandPeer::Id early = peer.dial(1);
  ASSERT_TRUE(until([&] { return peer.opened(early); }));
  peer.send_data(early, "too early");
  ASSERT_TRUE(until([&] { return peer.closed(early) != nullptr; }));
  EXPECT_EQ(peer.closed(early)->code, close_code::kFailure);
  const HandPeer::Id silent = peer.dial(1);
  ASSERT_TRUE(until([&] { return peer.opened(silent); }));
  const Time begin = world_.now();
  ASSERT_TRUE(until([&] { return peer.closed(silent) != nullptr; }));
  EXPECT_GE(world_.now() - begin, 9s);
  EXPECT_LE(world_.now() - begin, 11s);
  EXPECT_EQ(a->events.connects, 0);
}

TEST_F(IrohTransportTest, APeerThatDoesNotAnswerThePreflightIsUnresponsive) {
  const auto a = node(1);
  HandPeer peer(world_, relay_, 2);
  peer.answers = false;
  a->send(url_of(2), "hello");
  ASSERT_TRUE(until([&] { return !a->results.empty(); }));
  EXPECT_EQ(a->results[0].error().code, Errc::peer_unresponsive);
  EXPECT_EQ(peer.heard[peer.incoming[0]].size(), 1U) << "no message before the answer";
  EXPECT_FALSE(a->events.connected(url_of(2)));
}

TEST_F(IrohTransportTest, ABadFrameEndsItsStreamOnly) {
  IrohTransportConfig config = plain_iroh_config();
  config.max_frame_bytes = 100'000;
  const auto a = node(1, config);
  HandPeer peer(world_, relay_, 2);
  const HandPeer::Id id = connected(peer, 2, 1);
  peer.send_data(id, "first");
  const Bytes unknown = Bytes::copy_of(std::string("\x02\x00\x00\x00\x01z", 6));
  for (const ByteChain& bad : {ByteChain(unknown), encode_data(ByteChain(Bytes::copy_of(filled(100'000)))),
                               ByteChain(encode_preflight(url_of(2).str(), {}))}) {
    peer.send(id, bad);
    settle();
    peer.send_data(id, "next");
    settle();
  }
  EXPECT_EQ(peer.closed(id), nullptr);
  const std::vector<std::string> heard = a->events.messages_from(url_of(2));
  ASSERT_GE(heard.size(), 2U);
  EXPECT_EQ(heard.front(), "first");
  EXPECT_EQ(heard.back(), "next");
  EXPECT_EQ(a->events.connects, 1);
}

TEST_F(IrohTransportTest, ASecondConnectionOfThePeerTakesThePlaceOfTheFirst) {
  const auto a = node(1);
  HandPeer peer(world_, relay_, 2);
  const HandPeer::Id first = connected(peer, 2, 1);
  const HandPeer::Id second = connected(peer, 2, 1);
  ASSERT_TRUE(until([&] { return peer.closed(first) != nullptr; }));
  EXPECT_EQ(peer.closed(first)->code, close_code::kSuperseded);
  peer.send_data(second, "heard");
  settle();
  EXPECT_EQ(a->events.messages_from(url_of(2)), (std::vector<std::string>{"heard"}));
  EXPECT_EQ(a->events.connects, 2);
  EXPECT_EQ(a->events.disconnects.size(), 1U);
}

// T4.
TEST_F(IrohTransportTest, UnsentMessagesOfASupersededConnectionGoOnTheNextOne) {
  const auto a = node(1);
  HandPeer peer(world_, relay_, 2);
  const HandPeer::Id first = connected(peer, 2, 1);
  relay_.options.latency = 100ms;  // more than a window is under way for a while
  const std::string large = filled(20U << 20);
  a->send(url_of(2), large);
  settle(50ms);
  EXPECT_TRUE(a->results.empty());
  peer.close(first, close_code::kSuperseded);
  ASSERT_TRUE(until([&] { return !a->results.empty(); }));
  EXPECT_TRUE(a->results[0].has_value());
  ASSERT_EQ(peer.incoming.size(), 1U) << "the node dials, because there is no other connection";
  ASSERT_TRUE(until([&] { return peer.heard[peer.incoming[0]].size() == 2; }));
  EXPECT_TRUE(peer.heard[peer.incoming[0]][1] == large);
}

TEST_F(IrohTransportTest, AClosedConnectionFailsWhatItDidNotSend) {
  const auto a = node(1);
  HandPeer peer(world_, relay_, 2);
  const HandPeer::Id id = connected(peer, 2, 1);
  a->send(url_of(2), filled(20U << 20));
  settle(20ms);
  peer.close(id, close_code::kOnPurpose);
  ASSERT_TRUE(until([&] { return !a->results.empty(); }));
  EXPECT_EQ(a->results[0].error().code, Errc::peer_unresponsive);
  ASSERT_EQ(a->events.disconnects.size(), 1U);
  EXPECT_EQ(a->events.disconnects[0].second, "by hand");
}

TEST_F(IrohTransportTest, ClosesSayWhetherTheyAreFailures) {
  const auto a = node(1);
  HandPeer peer(world_, relay_, 2);
  const auto closed_with = [&](const std::function<void()>& act) {
    const HandPeer::Id id = connected(peer, 2, 1);
    act();
    EXPECT_TRUE(until([&] { return peer.closed(id) != nullptr; }));
    return std::pair(peer.closed(id)->code, peer.closed(id)->reason);
  };
  EXPECT_EQ(closed_with([&] {
              a->transport->disconnect(url_of(2), {CloseCode::on_purpose, "bye"}, {});
            }),
            (std::pair<std::uint64_t, std::string>(1, "bye")));
  EXPECT_EQ(closed_with([&] {
              a->transport->disconnect(url_of(2), {CloseCode::failure, "no"}, {});
            }),
            (std::pair<std::uint64_t, std::string>(0, "no")));
  EXPECT_EQ(closed_with([&] { a->transport->stop([] {}); }),
            (std::pair<std::uint64_t, std::string>(1, "the node stops")));
}

// T5.
TEST_F(IrohTransportTest, BothMayDialAtOnceAndNothingIsLost) {
  for (const auto& [first, second] : {std::pair<std::uint8_t, std::uint8_t>{1, 2}, {2, 1}, {3, 4}, {4, 3}}) {
    const auto a = node(first), b = node(second);
    a->send(url_of(second), "from a");
    settle(Duration(second * 1ms));
    b->send(url_of(first), "from b");
    ASSERT_TRUE(until([&] { return a->results.size() == 1 && b->results.size() == 1; }));
    settle(1s);
    EXPECT_EQ(a->events.messages_from(url_of(second)), (std::vector<std::string>{"from b"}));
    EXPECT_EQ(b->events.messages_from(url_of(first)), (std::vector<std::string>{"from a"}));
    EXPECT_EQ(a->transport->stats().connections.size(), 1U);
    EXPECT_EQ(b->transport->stats().connections.size(), 1U);
  }
}

/// T5: some of the pauses end while our own handshake is still under way and the other one has become active.
TEST_F(IrohTransportTest, AMessageToAPeerThatIsDiallingIsNotLostWheneverItIsSent) {
  for (std::uint8_t pause = 0; pause <= 40; ++pause) {
    const auto first = static_cast<std::uint8_t>(10 + 2 * pause), second = static_cast<std::uint8_t>(first + 1);
    const auto a = node(first), b = node(second);
    a->send(url_of(second), "from a");
    settle(pause * 1ms);
    b->send(url_of(first), "from b");
    ASSERT_TRUE(until([&] { return a->results.size() == 1 && b->results.size() == 1; }));
    settle(1s);
    EXPECT_EQ(a->events.messages_from(url_of(second)), (std::vector<std::string>{"from b"})) << int{pause};
    EXPECT_EQ(b->events.messages_from(url_of(first)), (std::vector<std::string>{"from a"})) << int{pause};
  }
}

TEST_F(IrohTransportTest, DatagramsOfOlderNodesBesideQuicAreDropped) {
  const auto a = node(1);
  HandPeer peer(world_, relay_, 2);
  const HandPeer::Id id = connected(peer, 2, 1);
  relay_.forward(id_of(2), Datagrams{id_of(1), 0, 0, Bytes::copy_of("TS\xf0\x9f\x92\xac" + filled(90))});
  relay_.forward(id_of(2), Datagrams{id_of(1), 0, 7, Bytes::copy_of(filled(90))});
  settle();
  EXPECT_EQ(peer.closed(id), nullptr);
  peer.send_data(id, "still here");
  settle();
  EXPECT_EQ(a->events.messages_from(url_of(2)), (std::vector<std::string>{"still here"}));
}

// T7.
TEST_F(IrohTransportTest, LargeMessagesThatStallDoNotKeepOutOthersAndAreClosed) {
  const auto a = node(1);
  std::vector<std::unique_ptr<HandPeer>> stalled;
  std::vector<HandPeer::Id> ids;
  for (std::uint8_t key = 2; key < 8; ++key) {
    stalled.push_back(std::make_unique<HandPeer>(world_, relay_, key));
    ids.push_back(connected(*stalled.back(), key, 1));
    // The header of 100 MB, and a little of it.
    stalled.back()->send(ids.back(),
                         ByteChain(Bytes::copy_of(std::string("\x01\x05\xf5\xe1\x00", 5) + filled(100'000))));
  }
  settle(1s);
  HandPeer honest(world_, relay_, 9);
  const HandPeer::Id id = connected(honest, 9, 1);
  const std::string large = filled(1'000'000);
  honest.send_data(id, large);
  ASSERT_TRUE(until([&] { return a->events.messages_from(url_of(9)).size() == 1; }, 8s));
  EXPECT_TRUE(a->events.messages_from(url_of(9))[0] == large);
  // The first permit of each is taken away after five seconds, one after the other; the last one may keep it.
  settle(1min);
  std::size_t closed = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) closed += stalled[i]->closed(ids[i]) != nullptr ? 1 : 0;
  EXPECT_EQ(closed, ids.size() - 1);
}

TEST_F(IrohTransportTest, OfAPeerWhoseMessagesWereRefusedNothingIsReadUntilItHasPaid) {
  const auto a = node(1);
  HandPeer wasteful(world_, relay_, 2), honest(world_, relay_, 3);
  const HandPeer::Id id = connected(wasteful, 2, 1), other = connected(honest, 3, 1);
  const auto heard = [&](std::uint8_t key) { return a->events.messages_from(url_of(key)).size(); };
  wasteful.send_data(id, "small");
  ASSERT_TRUE(until([&] { return heard(2) == 1; }));
  a->transport->wasted(url_of(2), 2U << 20);
  for (int i = 0; i < 100; ++i) wasteful.send_data(id, "small");
  honest.send_data(other, "small");
  settle(1900ms);
  EXPECT_EQ(heard(2), 1U);
  EXPECT_EQ(heard(3), 1U) << "others are read";
  ASSERT_TRUE(until([&] { return heard(2) == 101; }, 300ms)) << "nothing is lost";
  EXPECT_EQ(wasteful.closed(id), nullptr);

  // A connection that ends while it owes leaves nothing behind.
  a->transport->wasted(url_of(2), 2U << 20);
  wasteful.send_data(id, "late");
  settle(500ms);
  wasteful.close(id, 0);
  settle(5s);
  EXPECT_EQ(heard(2), 101U);
}

TEST_F(IrohTransportTest, AMessageWithAPermitIsReadToItsEndByOneThatOwes) {
  const auto a = node(1);
  HandPeer peer(world_, relay_, 2);
  const HandPeer::Id id = connected(peer, 2, 1);
  const std::string large = filled(200'000);
  const Bytes frame = iroh::encode_data(ByteChain(Bytes::copy_of(large))).joined();
  peer.send(id, ByteChain(frame.slice(0, 100'000)));
  settle(100ms);
  a->transport->wasted(url_of(2), 20U << 20);
  peer.send(id, ByteChain(frame.slice(100'000, frame.size() - 100'000)));
  EXPECT_TRUE(until([&] { return a->events.messages_from(url_of(2)).size() == 1; }, 1s));
}

TEST_F(IrohTransportTest, LargeMessagesOfManyPeersAllArrive) {
  const auto a = node(1);
  std::vector<std::unique_ptr<TestNode>> others;
  const std::string large = filled(20U << 20);
  for (std::uint8_t key = 2; key < 8; ++key) {
    others.push_back(node(key));
    others.back()->send(url_of(1), large);
  }
  ASSERT_TRUE(until([&] {
    for (std::uint8_t key = 2; key < 8; ++key) {
      if (a->events.messages[url_of(key)].size() != 2) return false;
    }
    return true;
  }));
  for (std::uint8_t key = 2; key < 8; ++key) EXPECT_TRUE(a->events.messages_from(url_of(key))[0] == large);
}

// T8.
TEST_F(IrohTransportTest, HoweverManyConnectAtOnceThereAreAsManyAsThereMayBe) {
  IrohTransportConfig config = plain_iroh_config();
  config.max_peers = 3;
  const auto a = node(1, config);
  std::vector<std::unique_ptr<HandPeer>> peers;
  for (std::uint8_t key = 2; key < 12; ++key) peers.push_back(std::make_unique<HandPeer>(world_, relay_, key));
  for (const auto& peer : peers) peer->dial(1);
  settle(5s);
  const auto is_connected = [](const auto& peer) { return peer->closed(peer->ids[0]) == nullptr; };
  EXPECT_EQ(std::ranges::count_if(peers, is_connected), 3);
}

// T8.
TEST_F(IrohTransportTest, ANewcomerGetsThePlaceOfAnotherOne) {
  IrohTransportConfig config = plain_iroh_config();
  config.max_peers = 3;
  const auto a = node(1, config);
  std::vector<std::unique_ptr<HandPeer>> peers;
  std::vector<HandPeer::Id> ids;
  for (std::uint8_t key = 2; key < 12; ++key) {
    peers.push_back(std::make_unique<HandPeer>(world_, relay_, key));
    ids.push_back(peers.back()->dial(1));
    ASSERT_TRUE(until([&] { return peers.back()->opened(ids.back()); }));
    settle(100ms);
    if (peers.back()->closed(ids.back()) != nullptr) continue;
    peers.back()->send_preflight(ids.back(), url_of(key));
    settle(100ms);
    EXPECT_LE(a->transport->stats().connections.size(), 3U);
  }
  const auto b = node(20);
  a->send(url_of(20), "dialled");
  ASSERT_TRUE(until([&] { return b->events.messages_from(url_of(1)).size() == 1; }));
  EXPECT_LE(a->transport->stats().connections.size(), 3U);
}

// --- configuration

// --- dialect 0.4

struct IrohTransport04Test : ::testing::Test {
  IrohTransport04Test() { relay.options.protocol = "iroh-relay-v1"; }
  std::unique_ptr<TestNode> node(std::uint8_t key) {
    auto made = std::make_unique<TestNode>(world, relay, key, plain_iroh_config(), Dialect::v0_4);
    EXPECT_TRUE(world.run_until([&] { return made->transport->url().has_value(); }, 5min));
    return made;
  }
  testing::SimWorld world{1};
  FakeIrohRelay relay{world};
};

TEST_F(IrohTransport04Test, TheRelayIsOfferedVersion1Only) {
  const auto a = node(1);
  EXPECT_EQ(relay.offered, (std::vector<std::string>{"iroh-relay-v1"}));
}

// A second connection in the same direction, which in 0.5 would end the first.
TEST_F(IrohTransport04Test, AllConnectionsOfAPeerAreReadAndTheLastIsWrittenTo) {
  const auto a = node(1);
  HandPeer peer(world, relay, 2);
  const auto dial = [&] {
    const HandPeer::Id id = peer.dial(1);
    EXPECT_TRUE(world.run_until([&] { return peer.opened(id); }, 1min));
    peer.send_preflight(id, url_of(2));
    EXPECT_TRUE(world.run_until([&] { return !peer.heard[id].empty(); }, 1min));
    return id;
  };
  const HandPeer::Id first = dial(), second = dial();
  peer.send_data(first, "on the first");
  peer.send_data(second, "on the second");
  a->send(url_of(2), "answer");
  world.run_for(2s);
  EXPECT_EQ(peer.closed(first), nullptr) << "a close would cost us the peer's trust";
  EXPECT_EQ(peer.closed(second), nullptr);
  auto messages = a->events.messages_from(url_of(2));
  std::ranges::sort(messages);
  EXPECT_EQ(messages, (std::vector<std::string>{"on the first", "on the second"}));
  EXPECT_EQ(peer.heard[second].size(), 2U);
  EXPECT_EQ(peer.heard[first].size(), 1U);
  EXPECT_EQ(a->events.connects, 2) << "and one disconnect between them";
  const std::size_t disconnects = a->events.disconnects.size();

  peer.close(second, 0);
  world.run_for(2s);
  EXPECT_TRUE(a->events.connected(url_of(2))) << "the first one is still there";
  EXPECT_EQ(a->events.disconnects.size(), disconnects);
  a->send(url_of(2), "another answer");
  world.run_for(2s);
  EXPECT_EQ(peer.heard[first].size(), 2U);
  peer.close(first, 0);
  world.run_for(2s);
  EXPECT_FALSE(a->events.connected(url_of(2)));
}

TEST_F(IrohTransport04Test, SimultaneousOpensLoseNothing) {
  const auto a = node(1), b = node(2);
  a->send(url_of(2), "from a");
  b->send(url_of(1), "from b");
  world.run_for(2s);
  for (int i = 0; i < 3; ++i) {
    a->send(url_of(2), "more from a");
    b->send(url_of(1), "more from b");
    world.run_for(1s);
  }
  EXPECT_EQ(a->results.size() + b->results.size(), 8U);
  for (const auto* one : {&a->results, &b->results}) {
    for (const Result<void>& result : *one) EXPECT_TRUE(result) << result.error().to_string();
  }
  EXPECT_TRUE(a->events.connected(url_of(2)));
  EXPECT_TRUE(b->events.connected(url_of(1)));
}

TEST_F(IrohTransport04Test, EveryCloseHasCode0) {
  const auto a = node(1);
  HandPeer peer(world, relay, 2);
  const HandPeer::Id id = peer.dial(1);
  ASSERT_TRUE(world.run_until([&] { return peer.opened(id); }, 1min));
  peer.send_preflight(id, url_of(2));
  ASSERT_TRUE(world.run_until([&] { return a->events.connected(url_of(2)); }, 1min));
  a->transport->disconnect(url_of(2), {CloseCode::on_purpose, "enough"}, {});
  ASSERT_TRUE(world.run_until([&] { return peer.closed(id) != nullptr; }, 1min));
  EXPECT_EQ(peer.closed(id)->code, 0U);
  EXPECT_EQ(peer.closed(id)->reason, "enough");
}

TEST(IrohRelayOf, NamesTheKeyAndSaysWhatIsWrong) {
  const auto fault = [](const IrohTransportConfig& config) {
    const auto relay = relay_of(config);
    return relay ? std::string() : relay.error().to_string();
  };
  EXPECT_NE(fault({}).find("irohTransport.relayUrl: is not set"), std::string::npos) << fault({});
  EXPECT_NE(fault(iroh_config("nonsense", false)).find("irohTransport.relayUrl: must be"), std::string::npos);
  EXPECT_NE(fault(iroh_config("http://relay:80/relay", false)).find("relayAllowPlainText"), std::string::npos);
  EXPECT_EQ(fault(iroh_config("https://relay/relay", false)), "");
  EXPECT_EQ(relay_of(iroh_config("https://relay/relay", false)).value().str(), "https://relay:443/relay/");
}

TEST(IrohEndpointUrl, IsReadBack) {
  EXPECT_EQ(endpoint_id(url_of(7)), id_of(7));
  const Url bare = relay_of(iroh_config("https://relay", false)).value();
  EXPECT_EQ(endpoint_url(bare, id_of(7)).relay(), bare);
}

}  // namespace
}  // namespace kitsune2::iroh
