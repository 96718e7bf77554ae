// The traps of the wire page (section 9), as far as this layer can fall into them, and what hostile peers and stock
// nodes do. Each test names its trap. Numbers 9 to 14 belong to the modules above.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "fake_relay.hpp"

namespace kitsune2::tests {
namespace {

using testing::SimWorld;
using tx5::FrameType;

class Tx5Traps : public ::testing::Test {
 protected:
  void SetUp() override {
    node_ = std::make_unique<TestNode>(world_, std::vector<FakeRelay*>{&relay_});
    ASSERT_TRUE(world_.run_until([&] { return node_->transport->url().has_value(); }, seconds(5)));
    id_ = node_id_of(node_->url());
  }
  void TearDown() override { EXPECT_EQ(node_->events.violations, 0); }

  /// Connects `peer`, which obeys.
  void connect(HandPeer& peer) {
    peer.obey();
    peer.say_hreq(id_);
    ASSERT_TRUE(world_.run_until([&] { return node_->events.messages[peer.url()].size() == 1; }, seconds(5)));
  }
  bool closed(HandPeer& peer) {
    return world_.run_until([&] { return !node_->events.connected(peer.url()); }, seconds(2));
  }

  SimWorld world_{3};
  FakeRelay relay_{world_, "ws://relay:80"};
  std::unique_ptr<TestNode> node_;
  NodeId id_{};
};

TEST_F(Tx5Traps, Trap1FreshNodeKeyForEachRelayConnection) {
  for (int i = 0; i < 5; ++i) {
    relay_.cut();
    world_.run_for(seconds(40));
    ASSERT_TRUE(node_->transport->url());
  }
  EXPECT_EQ(relay_.seen_ids.size(), 6U);
  EXPECT_EQ(node_->events.addresses.size(), 6U) << "the host hears each, to sign and publish it";
  std::set<Url> different(node_->events.addresses.begin(), node_->events.addresses.end());
  EXPECT_EQ(different.size(), 6U);
}

TEST_F(Tx5Traps, Trap2KxRoleByCurveKeysForAnyPairOfKeys) {
  for (std::uint8_t seed = 40; seed < 60; ++seed) {
    HandPeer peer(world_, relay_, seed);
    connect(peer);
    node_->send(peer.url(), "readable");
    ASSERT_TRUE(world_.run_until([&] { return peer.messages.size() == 2; }, seconds(2))) << int{seed};
    EXPECT_EQ(peer.messages[1], "readable");
  }
}

TEST_F(Tx5Traps, Trap3NoFmsgBeforeBothHresAreThrough) {
  HandPeer peer(world_, relay_, 9);
  std::vector<std::string> before;
  bool over = false;
  peer.hear = [&](const NodeId&, const Bytes& plaintext) {
    if (!over) before.push_back(plaintext.str().substr(0, 4));
    return false;
  };
  node_->send(peer.url(), "wait");
  world_.run_for(seconds(1));
  peer.say(id_, "hreq", std::array<std::uint8_t, 32>{7});
  world_.run_for(seconds(1));
  EXPECT_EQ(std::ranges::count(before, "fmsg"), 0) << "our hres is out, the peer's is not";
  EXPECT_GE(std::ranges::count(before, "hres"), 1);
  over = true;
  const std::string nonce = peer.heard.front().substr(4);
  peer.say(id_, "hres", as_bytes(nonce));
  world_.run_for(seconds(1));
  EXPECT_EQ(peer.count(std::string("fmsg\x42tx5")), 1U);
}

TEST_F(Tx5Traps, Trap4OneVersionThenThePreflightEvenIfEmpty) {
  HandPeer peer(world_, relay_, 9);
  peer.obey(false);  // handshake and version, but no preflight
  node_->send(peer.url(), "must wait");
  world_.run_for(seconds(3));
  EXPECT_EQ(peer.messages, std::vector<std::string>{"\x08\x01"});
  EXPECT_EQ(peer.count(std::string("fmsg\x42tx5")), 1U);
  EXPECT_TRUE(node_->results.empty());
  peer.say_frame(id_, FrameType::message, 2, as_bytes("\x08\x01"));
  world_.run_for(seconds(1));
  EXPECT_EQ(peer.messages, (std::vector<std::string>{"\x08\x01", "must wait"}));
  EXPECT_EQ(node_->results.size(), 1U);
}

TEST_F(Tx5Traps, Trap5OnlySilenceTellsThatAPeerIsGone) {
  HandPeer peer(world_, relay_, 9);
  connect(peer);
  relay_.detach(peer.id());
  const Time start = world_.now();
  node_->send(peer.url(), "into the void");
  world_.run_for(seconds(1));
  EXPECT_TRUE(node_->results.at(0).has_value()) << "handed over is all that a send says";
  ASSERT_TRUE(world_.run_until([&] { return !node_->events.disconnects.empty(); }, seconds(120)));
  EXPECT_NEAR(std::chrono::duration<double>(world_.now() - start).count(), 60.0, 1.0);
}

TEST_F(Tx5Traps, Trap5PeersThatKeepAliveAreKept) {
  HandPeer peer(world_, relay_, 9);
  connect(peer);
  for (int i = 0; i < 20; ++i) {
    world_.run_for(seconds(30));
    peer.say(id_, "keep");
  }
  EXPECT_TRUE(node_->events.disconnects.empty());
  EXPECT_GE(peer.count("keep"), 19U);
  EXPECT_LE(peer.count("keep"), 21U) << "every half of the timeout";
}

TEST_F(Tx5Traps, Trap6ClosedConnectionsBeginWithANewStream) {
  HandPeer peer(world_, relay_, 9);
  connect(peer);
  node_->transport->disconnect(peer.url(), {}, {});
  world_.run_for(seconds(1));
  EXPECT_TRUE(peer.closed) << "the closing frame frees a stock node, which would otherwise ignore our next hreq";
  const std::size_t streams = peer.new_streams;
  // What the peer still says on its old stream is not heard.
  peer.say_frame(id_, FrameType::message, 3, as_bytes("old"));
  world_.run_for(seconds(1));
  EXPECT_EQ(peer.stream_requests, 0U);
  EXPECT_TRUE(node_->events.live.empty());
  peer.forget(id_);
  node_->send(peer.url(), "new");
  ASSERT_TRUE(world_.run_until([&] { return peer.new_streams > streams; }, seconds(1)));
}

TEST_F(Tx5Traps, Trap6PeerThatDialsAgainUnderTheSameKeyIsLetIn) {
  HandPeer peer(world_, relay_, 9);
  connect(peer);
  // It closed without a word (its own error) and comes back before our idle limit.
  peer.forget(id_);
  peer.messages.clear();
  peer.say_hreq(id_);
  ASSERT_TRUE(world_.run_until([&] { return !peer.messages.empty(); }, seconds(2)));
  EXPECT_EQ(node_->events.connects, 2);
  EXPECT_EQ(node_->events.disconnects.size(), 1U);
  node_->send(peer.url(), "welcome back");
  ASSERT_TRUE(world_.run_until([&] { return peer.messages.size() == 2; }, seconds(2)));
}

// A stock node in its fallback phase ignores hreq, and each one renews its idle timer. The closing frame is what helps.
TEST_F(Tx5Traps, Trap6StockNodeThatHoldsADeadConnectionIsFreed) {
  HandPeer stock(world_, relay_, 9);
  bool holding = true;
  stock.hear = [&](const NodeId&, const Bytes& plaintext) {
    if (plaintext.text().substr(0, 8) == std::string_view("fmsg\0\0\0\0", 8)) {
      holding = false;
      stock.forget(id_);
    }
    return holding;
  };
  stock.obey();
  node_->send(stock.url(), "let me in");
  ASSERT_TRUE(world_.run_until([&] { return stock.messages.size() == 2; }, seconds(30)));
  EXPECT_FALSE(holding);
}

TEST_F(Tx5Traps, Trap7PacedBelowTheRelaysRate) {
  relay_.set_byte_nanos(8000);
  world_.run_for(seconds(1));
  HandPeer peer(world_, relay_, 9);
  connect(peer);
  peer.hear = [&peer](const NodeId& from, const Bytes& said) {  // it grants what it is asked for
    if (said.size() == 8 && said.text().starts_with("fmsg") && said[4] >> 5 == 5) {
      peer.say_frame(from, tx5::FrameType::permit_grant, std::uint32_t{said[6]} << 8 | said[7]);
    }
    return false;
  };
  std::uint64_t bytes = 0;
  relay_.filter = [&](const NodeId& from, const NodeId&, ByteView body) {
    if (from == id_) bytes += sbd::kHeaderBytes + body.size();
    return true;
  };
  for (int i = 0; i < 400; ++i) node_->send(peer.url(), filled(15'000));
  const Time start = world_.now();
  world_.run_for(seconds(20));
  const double rate = static_cast<double>(bytes) / std::chrono::duration<double>(world_.now() - start).count();
  EXPECT_LE(rate, 1e9 / 8000 / 1.1 * 1.02);
  EXPECT_GE(rate, 1e9 / 8000 / 1.1 * 0.95);
  relay_.set_byte_nanos(32'000);  // three more nodes behind our address
  world_.run_for(seconds(1));
  bytes = 0;
  world_.run_for(seconds(20));
  EXPECT_LE(static_cast<double>(bytes) / 20, 1e9 / 32'000 / 1.1 * 1.05);
  EXPECT_EQ(relay_.rate_violations, 0U);
  EXPECT_EQ(relay_.handshakes, 1U);
}

TEST_F(Tx5Traps, Trap7RelayKeepalivesWhileIdle) {
  world_.run_for(seconds(100));
  EXPECT_GE(relay_.keepalives, 19U);
  EXPECT_LE(relay_.keepalives, 21U);
  EXPECT_EQ(relay_.handshakes, 1U);
}

TEST_F(Tx5Traps, Trap8ChunksWaitForTheGrantAndNothingGoesInBetween) {
  HandPeer peer(world_, relay_, 9);
  connect(peer);
  node_->send(peer.url(), filled(40'000));
  node_->send(peer.url(), "after");
  world_.run_for(seconds(5));
  EXPECT_EQ(peer.count(std::string("fmsg\x80", 5)), 0U) << "not before the grant";
  EXPECT_EQ(peer.messages.size(), 1U);
  peer.say_frame(id_, FrameType::permit_grant, 40'000);
  world_.run_for(seconds(1));
  EXPECT_EQ(peer.count(std::string("fmsg\x80", 5)), 3U);
  ASSERT_EQ(peer.messages.size(), 2U);
  EXPECT_EQ(peer.messages[1], "after");
}

TEST_F(Tx5Traps, Trap8GrantsAreGivenWhileOurOwnChunksFlow) {
  relay_.set_byte_nanos(8000);
  HandPeer peer(world_, relay_, 9);
  connect(peer);
  node_->send(peer.url(), filled(1'000'000));
  world_.run_for(seconds(1));
  peer.say_frame(id_, FrameType::permit_grant, 1'000'000);
  world_.run_for(seconds(1));
  peer.say_frame(id_, FrameType::permit_request, 30'000);
  world_.run_for(seconds(1));
  EXPECT_EQ(peer.count(std::string("fmsg\xc0", 5)), 1U);
  EXPECT_TRUE(node_->results.empty()) << "the transfer is still under way";
}

// The stock client does not rely on the order of lbrt and areq; neither do we.
TEST_F(Tx5Traps, RelayHandshakeInTheOtherOrder) {
  relay_.options.areq_before_lbrt = true;
  TestNode other(world_, {&relay_});
  EXPECT_TRUE(world_.run_until([&] { return other.transport->url().has_value(); }, seconds(2)));
}

TEST_F(Tx5Traps, RelayThatBreaksTheProtocolIsLeft) {
  std::array<std::uint8_t, 32> nonce{};
  relay_.to_all(sbd::encode_auth_request(nonce));
  ASSERT_TRUE(world_.run_until([&] { return node_->events.addresses_lost == 1; }, seconds(2)));
  ASSERT_TRUE(world_.run_until([&] { return node_->transport->url().has_value(); }, seconds(2)));
  relay_.to_all(Bytes::copy_of("tiny"));
  ASSERT_TRUE(world_.run_until([&] { return node_->events.addresses_lost == 2; }, seconds(2)));
}

TEST_F(Tx5Traps, UnknownRelayCommandsAreIgnored) {
  std::vector<std::uint8_t> command(40, 0);
  std::copy_n("what", 4, command.begin() + 28);
  relay_.to_all(Bytes(std::move(command)));
  world_.run_for(seconds(1));
  EXPECT_EQ(node_->events.addresses_lost, 0);
}

// ---------------------------------------------------------------- hostile peers

TEST_F(Tx5Traps, SenderKeyIsNoProof) {
  // A stranger sends in the name of a connected peer, as a stock relay lets it.
  HandPeer peer(world_, relay_, 9);
  connect(peer);
  std::mt19937 random(1);
  for (int i = 0; i < 500; ++i) {
    std::vector<std::uint8_t> forged(random() % 80);
    for (auto& b : forged) b = static_cast<std::uint8_t>(random());
    if (!forged.empty()) forged[0] = std::array<std::uint8_t, 4>{0x11, 0x12, 0x13, 0x11}[random() % 4];
    peer.say_raw(id_, forged);
  }
  world_.run_for(seconds(2));
  EXPECT_TRUE(node_->events.disconnects.empty());
  peer.say_frame(id_, FrameType::message, 4, as_bytes("true"));
  node_->send(peer.url(), "still here");
  world_.run_for(seconds(1));
  EXPECT_EQ(node_->events.messages_from(peer.url()), std::vector<std::string>{"true"});
  EXPECT_EQ(peer.messages.back(), "still here");
  EXPECT_LE(peer.stream_requests, 3U) << "at a limited rate";
}

TEST_F(Tx5Traps, ShortMessageFrames) {
  HandPeer peer(world_, relay_, 9);
  connect(peer);
  for (std::size_t n = 0; n < 17; ++n) {
    std::vector<std::uint8_t> body(1 + n, 0x61);
    body[0] = 0x11;
    peer.say_raw(id_, body);
  }
  world_.run_for(seconds(1));
  EXPECT_TRUE(node_->events.connected(peer.url()));
}

TEST_F(Tx5Traps, StrangersWithoutAStreamCostNothing) {
  for (std::uint8_t seed = 100; seed < 120; ++seed) {
    HandPeer stranger(world_, relay_, seed);
    for (const std::uint8_t type : {0x00, 0x11, 0x12, 0x13, 0xff}) {
      std::vector<std::uint8_t> body(40, 1);
      body[0] = type;
      stranger.say_raw(id_, body);
    }
    stranger.say_raw(id_, {});
    world_.run_for(milliseconds(100));
    EXPECT_TRUE(stranger.heard.empty());
    EXPECT_EQ(stranger.new_streams + stranger.stream_requests, 0U);
  }
}

// A stock node can begin a stream and drop it in the same moment. What is sent to it meanwhile must not wait for its
// hreq.
TEST_F(Tx5Traps, PeerThatOnlyBeganAStreamIsDialled) {
  HandPeer peer(world_, relay_, 9);
  std::vector<std::uint8_t> body(1 + 24, 7);
  body[0] = 0x10;
  peer.say_raw(id_, body);
  world_.run_for(milliseconds(100));
  peer.obey();
  node_->send(peer.url(), "hello");
  ASSERT_TRUE(world_.run_until([&] { return peer.messages.size() == 2; }, seconds(2)));
  EXPECT_EQ(peer.messages.back(), "hello");
}

TEST_F(Tx5Traps, FramesThatCloseTheConnection) {
  struct Case {
    FrameType type;
    std::uint32_t value;
    std::string payload;
  };
  const std::vector<Case> cases = {
      {FrameType::version, 0x02747835, ""},    {FrameType::reserved1, 0, ""},
      {FrameType::reserved7, 1, "x"},          {FrameType::chunk, 5, "chunk"},
      {FrameType::message, 3, "four"},         {FrameType::permit_grant, 7, ""},
      {FrameType::permit_request, 0, ""},      {FrameType::permit_request, 0x1fff'ffff, ""},
      {FrameType::permit_request, 20'000, "x"}};
  std::uint8_t seed = 150;
  for (const Case& c : cases) {
    HandPeer peer(world_, relay_, seed++);
    connect(peer);
    peer.say_frame(id_, c.type, c.value, as_bytes(c.payload));
    EXPECT_TRUE(closed(peer)) << static_cast<int>(c.type) << " " << c.value;
  }
  HandPeer peer(world_, relay_, seed++);
  connect(peer);
  peer.say_frame(id_, FrameType::permit_request, 17'000);
  world_.run_for(seconds(1));
  peer.say_frame(id_, FrameType::chunk, 16'380, as_bytes(std::string(16'380, 'c')));
  peer.say_frame(id_, FrameType::chunk, 621, as_bytes(std::string(621, 'c')));
  EXPECT_TRUE(closed(peer)) << "a chunk over the permit";
  EXPECT_TRUE(node_->events.messages_from(peer.url()).empty());
}

TEST_F(Tx5Traps, PermitThatIsNeverUsedIsTakenBack) {
  HandPeer peer(world_, relay_, 9);
  connect(peer);
  peer.say_frame(id_, FrameType::permit_request, 1'000'000);
  for (int i = 0; i < 70 && node_->events.connected(peer.url()); ++i) {
    world_.run_for(seconds(1));
    peer.say(id_, "keep");
  }
  EXPECT_FALSE(node_->events.connected(peer.url()));
}

TEST_F(Tx5Traps, RandomPlaintextsAndBodiesNeverCrash) {
  std::mt19937 random(5);
  for (std::uint8_t seed = 60; seed < 90; ++seed) {
    HandPeer peer(world_, relay_, seed);
    peer.obey(random() % 2 == 0);
    peer.say_hreq(id_);
    world_.run_for(milliseconds(30));
    for (int i = 0; i < 40; ++i) {
      std::string junk(random() % 60, '\0');
      for (char& c : junk) c = static_cast<char>(random());
      switch (random() % 4) {
        case 0:
          peer.say_raw(id_, as_bytes(junk));
          break;
        case 1:
          peer.say(id_, Bytes::copy_of(junk));
          break;
        case 2:
          peer.say(id_, std::array{"hreq", "hres", "fmsg", "keep"}[random() % 4], as_bytes(junk));
          break;
        default:
          peer.say_frame(id_, static_cast<FrameType>(random() % 8), random() % 40'000, as_bytes(junk));
          break;
      }
      if (random() % 8 == 0) world_.run_for(milliseconds(random() % 500));
    }
  }
  HandPeer honest(world_, relay_, 9);
  connect(honest);
  world_.run_for(seconds(120));
  EXPECT_LE(node_->events.live.size(), 1U) << "nothing hostile stays";
}

}  // namespace
}  // namespace kitsune2::tests
