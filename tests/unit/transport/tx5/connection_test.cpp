// The connection's state machine without a network. The golden plaintexts were captured between stock nodes.
#include "connection_harness.hpp"

namespace kitsune2::tx5 {
namespace {

TEST(Connection, ARelayThatIsSlowerThanTheRetriesMakesNobodyStartOver) {
  for (const auto delay : {milliseconds(100), milliseconds(3000)}) {
    Pair p({}, false);
    struct Flight {
      Time at;
      bool to_b;
      std::vector<std::uint8_t> body;
    };
    std::deque<Flight> flights;
    for (int i = 0; i < 1200; ++i) {
      p.now += milliseconds(100);
      p.apply(p.a, p.a.connection->on_time(p.now), p.got_a);
      p.apply(p.b, p.b.connection->on_time(p.now), p.got_b);
      for (Side* side : {&p.a, &p.b}) {
        while (!side->pull(p.now).empty()) flights.push_back({p.now + delay, side == &p.a, side->bodies.back()});
      }
      while (!flights.empty() && flights.front().at <= p.now) {
        const Flight f = std::move(flights.front());
        flights.pop_front();
        Side& to = f.to_b ? p.b : p.a;
        p.apply(to, to.connection->on_body(f.body, p.now), f.to_b ? p.got_b : p.got_a);
      }
    }
    EXPECT_EQ(p.restarts, 0) << delay.count();
    EXPECT_TRUE(p.errors.empty()) << delay.count();
    EXPECT_EQ(p.a.connection->phase(), Connection::Phase::open) << delay.count();
    EXPECT_EQ(p.b.connection->phase(), Connection::Phase::open) << delay.count();
  }
}

TEST(Connection, CapturedSignalMessages) {
  // The nonces are the captured ones; everything around them must be byte for byte what a stock node sends.
  const Bytes request = hex("687265716b8364f4bc777c57be71575af3eb42544b76feef506d3791292809578fea3fcb");
  Side side(1, 2, {}, Connection::Origin::peer);
  Side peer(2, 1, {}, Connection::Origin::local);
  ASSERT_EQ(peer.pull(), "NewStream");
  side.connection->on_body(peer.bodies.back(), kStart);
  E2eSession voice(side.key_.id(), std::move(*SessionKeys::derive(peer.key_, side.key_.id())));
  StreamState::Header header{};
  const Bytes stream = voice.start_stream(header);
  side.connection->on_body(stream.view().subspan(32), kStart);
  const Bytes sealed = voice.seal({}, request);
  auto out = side.connection->on_body(sealed.view().subspan(32), kStart);
  EXPECT_FALSE(out.error);
  ASSERT_EQ(side.pull(), "NewStream");
  const std::string own = side.pull();
  EXPECT_EQ(own.substr(0, 4), "hreq");
  EXPECT_EQ(own.size(), 36U);
  EXPECT_EQ(to_hex(as_bytes(side.pull())), "687265736b8364f4bc777c57be71575af3eb42544b76feef506d3791292809578fea3fcb");
  const std::string answer = "hres" + own.substr(4);
  out = side.connection->on_body(voice.seal({}, as_bytes(answer)).view().subspan(32), kStart);
  ASSERT_TRUE(out.handshake_done);
  ASSERT_TRUE(side.connection->open_with(hex("0801"), kStart).has_value());
  EXPECT_EQ(to_hex(as_bytes(side.pull())), "666d736742747835");
  EXPECT_EQ(to_hex(as_bytes(side.pull())), "666d7367600000020801");
  // Nothing more until the peer's preflight is in.
  side.send(filled(20024));
  EXPECT_EQ(side.pull(), "");
  for (const char* frame : {"666d736742747835", "666d7367600000020801"}) {
    out = side.connection->on_body(voice.seal({}, hex(frame)).view().subspan(32), kStart);
    EXPECT_FALSE(out.error);
  }
  EXPECT_EQ(to_hex(as_bytes(side.pull())), "666d7367a0004e38");
  EXPECT_EQ(side.pull(), "");
  out = side.connection->on_body(voice.seal({}, hex("666d7367c0004e38")).view().subspan(32), kStart);
  EXPECT_FALSE(out.error);
  EXPECT_EQ(to_hex(as_bytes(side.pull().substr(0, 8))), "666d736780003ffc");
  EXPECT_EQ(to_hex(as_bytes(side.pull().substr(0, 8))), "666d736780000e3c");
  // And the other way: a request is answered with a grant, and keepalives are what they should be.
  out = side.connection->on_body(voice.seal({}, hex("666d7367a0004e38")).view().subspan(32), kStart);
  ASSERT_TRUE(out.permit_wanted);
  side.connection->grant();
  EXPECT_EQ(to_hex(as_bytes(side.pull())), "666d7367c0004e38");
  side.connection->on_time(kStart + seconds(30));
  EXPECT_EQ(to_hex(as_bytes(side.pull())), "6b656570");
}

TEST(Connection, OneSideDials) {
  Pair pair({}, false);
  pair.run();
  EXPECT_EQ(pair.a.connection->phase(), Connection::Phase::open);
  EXPECT_EQ(pair.b.connection->phase(), Connection::Phase::open);
  EXPECT_EQ(pair.got_a, std::vector<std::string>{"\x08\x01"});
  EXPECT_EQ(pair.got_b, std::vector<std::string>{"\x08\x01"});
}

TEST(Connection, BothDialAtOnce) {
  Pair pair;
  pair.run();
  EXPECT_EQ(pair.a.connection->phase(), Connection::Phase::open);
  EXPECT_EQ(pair.b.connection->phase(), Connection::Phase::open);
  EXPECT_EQ(pair.restarts, 0);
  EXPECT_TRUE(pair.errors.empty());
}

// Trap 3: before both hres are through, nothing but hreq and hres goes out.
TEST(Connection, NothingBeforeTheHandshakeIsOver) {
  Side side(1, 2, {}, Connection::Origin::local);
  side.send("early");
  const auto first = side.pull_all();
  ASSERT_EQ(first.size(), 2U);
  EXPECT_EQ(first[0], "NewStream");
  EXPECT_EQ(first[1].substr(0, 4), "hreq");
  EXPECT_FALSE(side.connection->has_data());
}

// Trap 4: one version frame, then the preflight, even if empty; all else after the peer's.
TEST(Connection, VersionThenPreflightThenTheRest) {
  Pair pair;
  pair.a.send("one");
  pair.a.send("two");
  pair.run();
  EXPECT_EQ(pair.got_b, (std::vector<std::string>{"\x08\x01", "one", "two"}));
  EXPECT_EQ(pair.a.sent, (std::vector<bool>{true, true}));
}

TEST(Connection, MessagesOfEverySizeArriveInOrder) {
  Pair pair;
  std::vector<std::string> expected{"\x08\x01"};
  for (const std::size_t size : {0U, 1U, 16379U, 16380U, 16381U, 32760U, 32761U, 5U, 200'000U, 0U, 7U}) {
    expected.push_back(filled(size));
    pair.a.send(expected.back());
  }
  pair.run();
  EXPECT_EQ(pair.got_b, expected);
  EXPECT_TRUE(pair.errors.empty());
}

// Trap 8: both directions have a large message under way at the same time.
TEST(Connection, PermitsBothWaysAtOnce) {
  Pair pair;
  pair.a.send(filled(100'000));
  pair.b.send(filled(90'000));
  pair.a.send("after");
  pair.b.send("after too");
  pair.run();
  EXPECT_EQ(pair.got_b, (std::vector<std::string>{"\x08\x01", filled(100'000), "after"}));
  EXPECT_EQ(pair.got_a, (std::vector<std::string>{"\x08\x01", filled(90'000), "after too"}));
}

// Trap 8: the rest of the queue waits behind a message that waits for its permit.
TEST(Connection, NothingOvertakesAMessageThatWaitsForItsPermit) {
  Pair pair;
  pair.grant = false;
  pair.a.send(filled(50'000));
  pair.a.send("small");
  pair.run();
  EXPECT_EQ(pair.got_b.size(), 1U);
  pair.b.connection->grant();
  pair.run();
  EXPECT_EQ(pair.got_b, (std::vector<std::string>{"\x08\x01", filled(50'000), "small"}));
}

TEST(Connection, TheRoundTripIsTheShortestWaitForAPermit) {
  Pair pair;
  pair.run();
  EXPECT_EQ(pair.a.connection->round_trip(), milliseconds(0)) << "of the handshake";
  pair.grant = false;
  const auto wait = [&pair](Duration time) {
    pair.a.send(filled(50'000));
    pair.run();
    pair.now += time;
    pair.b.connection->grant();
    pair.run();
    return pair.a.connection->round_trip();
  };
  EXPECT_EQ(wait(milliseconds(80)), milliseconds(80)) << "which says more than the handshake";
  EXPECT_EQ(wait(milliseconds(50)), milliseconds(50));
  EXPECT_EQ(wait(milliseconds(90)), milliseconds(50));
  pair.now += Connection::kTripAge;
  EXPECT_EQ(wait(milliseconds(70)), milliseconds(70)) << "the shortest is old";
}

TEST(Connection, LargePreflight) {
  Side a(1, 2, {}, Connection::Origin::local), b(2, 1, {}, Connection::Origin::local);
  const Bytes large(std::vector<std::uint8_t>(40'000, 9));
  std::vector<Bytes> got_a, got_b;
  const auto move = [&](Side& from, Side& to, std::vector<Bytes>& got) {
    if (from.pull().empty()) return false;
    auto out = to.connection->on_body(std::vector<std::uint8_t>(from.bodies.back()), kStart);
    EXPECT_FALSE(out.error);
    if (out.handshake_done) {
      EXPECT_TRUE(to.connection->open_with(large, kStart).has_value());
    }
    if (out.permit_wanted) to.connection->grant();
    if (out.message) got.push_back(*out.message);
    return true;
  };
  while (move(a, b, got_b) || move(b, a, got_a)) {
  }
  ASSERT_EQ(got_a.size(), 1U);
  EXPECT_EQ(got_a[0], large);
  EXPECT_EQ(got_b.size(), 1U);
}

TEST(Connection, QueueBounds) {
  ConnectionConfig config;
  config.message_size_max = 5000;
  config.max_queue_bytes = 10'000;
  Side side(1, 2, config, Connection::Origin::local);
  EXPECT_EQ(side.try_send(5001), Errc::too_large);
  EXPECT_EQ(side.try_send(5000), Errc::internal) << "taken";
  EXPECT_EQ(side.try_send(4000), Errc::internal) << "taken";
  EXPECT_EQ(side.try_send(1000), Errc::overloaded);
  EXPECT_EQ(side.try_send(500), Errc::internal) << "taken";
  int empty = 0;
  while (side.try_send(0) == Errc::internal) ASSERT_LT(++empty, 10'000) << "empty messages must count";
}

TEST(Connection, TheFirstMessageMayFillTheQueueAlone) {
  ConnectionConfig config;
  config.message_size_max = 50'000;
  config.max_queue_bytes = 1'000;
  Side side(1, 2, config, Connection::Origin::local);
  EXPECT_EQ(side.try_send(50'000), Errc::internal) << "taken";
  EXPECT_EQ(side.try_send(1), Errc::overloaded);
}

TEST(Connection, HandshakeLimit) {
  Side side(1, 2, {}, Connection::Origin::local);
  Time now = kStart;
  while (now < kStart + seconds(60)) {
    const Time next = side.connection->next_deadline();
    ASSERT_GT(next, now);
    now = next;
    side.pull_all(now);
    const auto out = side.connection->on_time(now);
    if (now < kStart + seconds(60)) {
      ASSERT_FALSE(out.error);
    } else {
      ASSERT_TRUE(out.error);
      EXPECT_EQ(out.error->code, Errc::peer_unresponsive);
    }
  }
  EXPECT_EQ(now, kStart + seconds(60));
}

// Trap 5: a relay drops frames to a key that is not there yet, so the handshake is tried again, on a fresh stream.
TEST(Connection, HandshakeIsTriedAgain) {
  Side side(1, 2, {}, Connection::Origin::local);
  const auto first = side.pull_all();
  ASSERT_EQ(first.size(), 2U);
  EXPECT_FALSE(side.connection->on_time(kStart + seconds(5) - microseconds(1)).error);
  EXPECT_TRUE(side.pull_all().empty());
  EXPECT_EQ(side.connection->next_deadline(), kStart + seconds(5));
  side.connection->on_time(kStart + seconds(5));
  const auto second = side.pull_all(kStart + seconds(5));
  // The closing frame first, for a peer that still holds a connection of the past; then anew.
  ASSERT_EQ(second.size(), 4U);
  EXPECT_EQ(second[0], "NewStream");
  EXPECT_EQ(to_hex(as_bytes(second[1])), "666d736700000000");
  EXPECT_EQ(second[2], "NewStream");
  EXPECT_EQ(second[3], first[1]) << "the same nonce: a late answer to the first is still good";
  EXPECT_EQ(side.connection->next_deadline(), kStart + seconds(15));
}

TEST(Connection, LostFirstRequestIsMadeUpFor) {
  Pair pair({}, false);
  while (!pair.a.pull().empty()) {
  }  // lost: nobody was there
  pair.tick(seconds(5));
  EXPECT_EQ(pair.a.connection->phase(), Connection::Phase::open);
  EXPECT_EQ(pair.b.connection->phase(), Connection::Phase::open);
}

TEST(Connection, RequestLostJustBeforeThePeerDials) {
  Pair pair;
  while (!pair.a.pull().empty()) {
  }  // lost
  pair.now += seconds(2);
  pair.run();  // b's request arrives
  EXPECT_EQ(pair.a.connection->phase(), Connection::Phase::open) << "no waiting for the next try";
  EXPECT_EQ(pair.b.connection->phase(), Connection::Phase::open);
}

// A stock node that dials in the moment in which it is called: its first connection has our hreq, and is dropped with
// its keys before it has said more than that a stream begins; the second one never hears of that hreq.
TEST(Connection, PeerThatThrewAwayOurRequestAndDialsGetsItAgain) {
  Side a(1, 2, {}, Connection::Origin::local);
  Side dropped(2, 1, {}, Connection::Origin::peer), dials(2, 1, {}, Connection::Origin::local);
  while (!a.pull().empty()) dropped.connection->on_body(a.bodies.back(), kStart);
  for (Side* side : {&dropped, &dials}) {
    ASSERT_EQ(side->pull(), "NewStream");
    a.connection->on_body(side->bodies.back(), kStart);
  }
  EXPECT_TRUE(a.pull_all().empty());
  ASSERT_TRUE(dials.pull().starts_with("hreq"));
  a.connection->on_body(dials.bodies.back(), kStart);
  std::vector<std::string> said;
  bool dials_done = false;
  for (std::string s = a.pull(); !s.empty(); s = a.pull()) {
    said.push_back(s.substr(0, 4));
    dials_done |= dials.connection->on_body(a.bodies.back(), kStart).handshake_done;
  }
  EXPECT_EQ(said, (std::vector<std::string>{"NewS", "hreq", "hres"}));
  EXPECT_TRUE(dials_done);
  ASSERT_TRUE(dials.pull().starts_with("hres"));
  EXPECT_TRUE(a.connection->on_body(dials.bodies.back(), kStart).handshake_done);
}

TEST(Connection, DialBeginsWithASilentPeerOnly) {
  Side side(1, 2, {}, Connection::Origin::peer);
  side.connection->dial(kStart);
  EXPECT_EQ(side.connection->phase(), Connection::Phase::handshake);
  EXPECT_EQ(side.pull(), "NewStream");
  EXPECT_TRUE(side.pull().starts_with("hreq"));
  side.connection->dial(kStart);
  EXPECT_TRUE(side.pull_all().empty());
}

TEST(Connection, WrongNonceIsNotAnAnswer) {
  Side side(1, 2, {}, Connection::Origin::local);
  side.pull_all();
  E2eSession voice(side.key_.id(), std::move(*SessionKeys::derive(side.peer_key_, side.key_.id())));
  side.connection->on_body(voice.start_stream({}).view().subspan(32), kStart);
  const std::string nonce(32, 'n');
  for (const std::string& text : {"hreq" + nonce, "hres" + nonce}) {
    const auto out = side.connection->on_body(voice.seal({}, as_bytes(text)).view().subspan(32), kStart);
    EXPECT_FALSE(out.error);
    EXPECT_FALSE(out.handshake_done);
  }
  EXPECT_EQ(side.connection->phase(), Connection::Phase::handshake);
}

TEST(Connection, HandshakeFloodIsNotAnswered) {
  Side side(1, 2, {}, Connection::Origin::peer);
  E2eSession voice(side.key_.id(), std::move(*SessionKeys::derive(side.peer_key_, side.key_.id())));
  side.connection->on_body(voice.start_stream({}).view().subspan(32), kStart);
  for (int i = 0; i < 1000; ++i) {
    const std::string text = "hreq" + std::string(32, static_cast<char>(i));
    EXPECT_FALSE(side.connection->on_body(voice.seal({}, as_bytes(text)).view().subspan(32), kStart).error);
  }
  EXPECT_LT(side.pull_all().size(), 4U * Connection::kMaxHandshakeRequests);
}

TEST_F(OpenConnection, WebRtcIsIgnored) {
  for (const char* text :
       {"offr{\"sdp\":\"v=0\",\"type\":\"offer\"}", "answ{}", "icem{\"candidate\":\"\"}", "abcdwhat"}) {
    const auto out = say(text);
    EXPECT_FALSE(out.error) << text;
    EXPECT_FALSE(out.message) << text;
  }
  EXPECT_TRUE(pair_.a.pull_all().empty());
}

TEST_F(OpenConnection, ProtocolErrorsCloseIt) {
  const std::vector<std::string> bad = {"",
                                        "abc",
                                        "hreq",
                                        "hreq" + std::string(31, 'x'),
                                        "hres" + std::string(33, 'x'),
                                        "fmsg",
                                        "fmsgabc",
                                        frame(FrameType::version, 0x02747835),
                                        frame(FrameType::reserved1, 0),
                                        frame(FrameType::reserved7, 5),
                                        frame(FrameType::chunk, 3, "abc"),
                                        frame(FrameType::message, 4, "abc"),
                                        frame(FrameType::permit_grant, 5),
                                        frame(FrameType::permit_request, 0),
                                        frame(FrameType::permit_request, kMaxFrameValue),
                                        frame(FrameType::message, 16381, std::string(16381, 'x'))};
  for (const std::string& text : bad) {
    Pair pair;
    pair.run();
    E2eSession voice(pair.a.key_.id(), std::move(*SessionKeys::derive(pair.b.key_, pair.a.key_.id())));
    // A stream that was asked for.
    pair.a.connection->on_body(hex("1111111111111111111111111111111111111111111111"), pair.now);
    pair.a.pull_all(pair.now);
    pair.a.connection->on_body(voice.start_stream({}).view().subspan(32), pair.now);
    const auto out = pair.a.connection->on_body(voice.seal({}, as_bytes(text)).view().subspan(32), pair.now);
    EXPECT_TRUE(out.error) << to_hex(as_bytes(text.substr(0, 20)));
  }
}

TEST_F(OpenConnection, GrantOfAnotherLengthClosesIt) {
  pair_.a.send(filled(30'000));
  pair_.a.pull_all();
  EXPECT_EQ(say(frame(FrameType::permit_grant, 29'999)).error->code, Errc::peer_fault);
}

TEST_F(OpenConnection, ChunkOverflowClosesIt) {
  ASSERT_TRUE(say(frame(FrameType::permit_request, 17'000)).permit_wanted);
  pair_.a.connection->grant();
  pair_.a.pull_all(pair_.now);
  EXPECT_EQ(say(frame(FrameType::chunk, 16380, std::string(16380, 'x'))).progress, 16380U);
  EXPECT_TRUE(say(frame(FrameType::chunk, 621, std::string(621, 'x'))).error);
}

TEST_F(OpenConnection, ChunksBeforeTheGrantHasLeftCloseIt) {
  ASSERT_TRUE(say(frame(FrameType::permit_request, 1)).permit_wanted);
  pair_.a.connection->grant();
  EXPECT_TRUE(say(frame(FrameType::chunk, 1, "x")).error) << "or it could make us queue grants without end";
}

TEST_F(OpenConnection, NothingMakesTheControlQueueGrow) {
  // Nothing is pulled: the relay takes no data.
  std::mt19937 random(2);
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    switch (random() % 4) {
      case 0:
        text = "hreq" + std::string(32, static_cast<char>(random()));
        break;
      case 1:
        text = "keep";
        break;
      case 2:
        text = "hres" + std::string(32, 'x');
        break;
      default: {
        std::vector<std::uint8_t> forged(60, 1);
        forged[0] = kMessage;
        pair_.a.connection->on_body(forged, pair_.now);
        continue;
      }
    }
    const auto out = say(text);
    ASSERT_FALSE(out.error);
    pair_.now += milliseconds(random() % 300);
    static_cast<void>(pair_.a.connection->on_time(pair_.now));
  }
  EXPECT_LT(pair_.a.pull_all(pair_.now).size(), 300U);
}

TEST_F(OpenConnection, PermitThatIsNeverUsed) {
  ASSERT_TRUE(say(frame(FrameType::permit_request, 1'000'000)).permit_wanted);
  pair_.a.connection->grant();
  pair_.a.pull_all(pair_.now);
  for (int i = 0; i < 59; ++i) {
    pair_.now += seconds(1);
    ASSERT_FALSE(say("keep").error);
    ASSERT_FALSE(pair_.a.connection->on_time(pair_.now).error);
  }
  pair_.now += seconds(1);
  ASSERT_FALSE(say("keep").error) << "it is alive, but";
  EXPECT_EQ(pair_.a.connection->on_time(pair_.now).error->code, Errc::peer_unresponsive);
}

TEST_F(OpenConnection, PermitThatNeverComes) {
  pair_.a.send(filled(30'000));
  pair_.a.pull_all(pair_.now);
  for (int i = 0; i < 60; ++i) {
    pair_.now += seconds(1);
    ASSERT_FALSE(say("keep").error);
    const auto out = pair_.a.connection->on_time(pair_.now);
    ASSERT_EQ(out.error.has_value(), i == 59) << i;
  }
}

// Trap 5: the idle timer is the failure detector.
TEST_F(OpenConnection, SilenceClosesIt) {
  EXPECT_FALSE(pair_.a.connection->on_time(pair_.now + seconds(60) - microseconds(1)).error);
  EXPECT_EQ(pair_.a.connection->on_time(pair_.now + seconds(60)).error->code, Errc::peer_unresponsive);
}

TEST_F(OpenConnection, ForgeriesDoNotKeepItAlive) {
  std::vector<std::uint8_t> forged(60, 1);
  forged[0] = kMessage;
  pair_.a.connection->on_body(forged, pair_.now + seconds(59));
  EXPECT_TRUE(pair_.a.connection->on_time(pair_.now + seconds(60)).error);
}

TEST_F(OpenConnection, UndecryptableAsksForAStreamAtALimitedRate) {
  std::vector<std::uint8_t> forged(60, 1);
  forged[0] = kMessage;
  pair_.now += Connection::kStreamRequestInterval;
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(pair_.a.connection->on_body(forged, pair_.now).error);
  EXPECT_EQ(pair_.a.pull_all(), std::vector<std::string>{"RequestNewStream"});
  pair_.a.connection->on_body(forged, pair_.now + seconds(1));
  EXPECT_EQ(pair_.a.pull_all(), std::vector<std::string>{"RequestNewStream"});
  EXPECT_FALSE(say("keep").error) << "the real peer is not disturbed";
}

TEST_F(OpenConnection, RequestNewStreamIsObeyedAndNothingIsLost) {
  pair_.a.connection->on_body(hex("12"), pair_.now);
  pair_.a.send("next");
  EXPECT_EQ(pair_.a.pull_all(), (std::vector<std::string>{"NewStream", frame(FrameType::message, 4, "next")}));
}

// Trap 6, and a peer that begins anew under the same key: it is let in.
TEST_F(OpenConnection, FreshRequestStartsOver) {
  pair_.a.send("kept");
  new_stream(1);
  const auto out = say("hreq" + std::string(32, 'n'));
  EXPECT_FALSE(out.error);
  EXPECT_TRUE(out.restarted);
  const auto pulled = pair_.a.pull_all();
  ASSERT_EQ(pulled.size(), 3U);
  EXPECT_EQ(pulled[0], "NewStream");
  EXPECT_EQ(pulled[1].substr(0, 4), "hreq");
  EXPECT_EQ(pulled[2], "hres" + std::string(32, 'n'));
  EXPECT_TRUE(say("hres" + pulled[1].substr(4)).handshake_done);
  ASSERT_TRUE(pair_.a.connection->open_with({}, pair_.now).has_value());
  EXPECT_EQ(pair_.a.pull_all().size(), 2U) << "version and preflight; the message waits";
  EXPECT_FALSE(say("fmsg\x42tx5").error);
  EXPECT_TRUE(say(frame(FrameType::message, 0)).message);
  EXPECT_EQ(pair_.a.pull_all(), std::vector<std::string>{frame(FrameType::message, 4, "kept")});
  // The same request again is a late one: it must not cost the connection.
  const auto late = say("hreq" + std::string(32, 'n'));
  EXPECT_FALSE(late.error || late.restarted);
  EXPECT_EQ(pair_.a.connection->phase(), Connection::Phase::open);
  EXPECT_TRUE(pair_.a.pull_all().empty());
}

TEST_F(OpenConnection, HalfSentMessageStartsOverToo) {
  pair_.a.send(filled(50'000));
  pair_.a.pull_all();
  ASSERT_FALSE(say(frame(FrameType::permit_grant, 50'000)).error);
  pair_.a.pull();
  EXPECT_TRUE(say("hreq" + std::string(32, 'n')).restarted);
  const auto pulled = pair_.a.pull_all();
  ASSERT_TRUE(say("hres" + pulled[1].substr(4)).handshake_done);
  ASSERT_TRUE(pair_.a.connection->open_with({}, pair_.now).has_value());
  say("fmsg\x42tx5");
  say(frame(FrameType::message, 0));
  const auto again = pair_.a.pull_all();
  EXPECT_EQ(again.back(), frame(FrameType::permit_request, 50'000));
  ASSERT_FALSE(say(frame(FrameType::permit_grant, 50'000)).error);
  EXPECT_EQ(pair_.a.pull_all().size(), 4U) << "all chunks, from the first";
  EXPECT_EQ(pair_.a.sent, std::vector<bool>{true});
}

TEST_F(OpenConnection, ClosingFrames) {
  const auto frames = pair_.a.connection->closing_frames(Bytes::copy_of("bye"));
  ASSERT_EQ(frames.size(), 2U);
  Connection& b = *pair_.b.connection;
  auto out = b.on_body(frames[0].view().subspan(32), pair_.now);
  ASSERT_TRUE(out.message);
  EXPECT_EQ(out.message->text(), "bye");
  out = b.on_body(frames[1].view().subspan(32), pair_.now);
  ASSERT_TRUE(out.error);
  EXPECT_EQ(out.error->code, Errc::disconnected);
}

TEST_F(OpenConnection, FarewellDoesNotBreakIntoALargeMessage) {
  pair_.a.send(filled(50'000));
  pair_.a.pull_all();
  const auto frames = pair_.a.connection->closing_frames(Bytes::copy_of("bye"));
  EXPECT_EQ(frames.size(), 1U) << "only the closing frame";
}

// timeoutS is each side's own: the peer's keepalives tell half of it.
TEST_F(OpenConnection, KeepalivesFollowAFasterPeer) {
  EXPECT_FALSE(say("keep").error);
  pair_.now += milliseconds(2500);
  say("keep");
  Time sent{};
  int keeps = 0;
  for (const Time end = pair_.now + seconds(25); pair_.now < end;) {
    pair_.now += milliseconds(100);
    if ((pair_.now - kStart) % milliseconds(2500) == Duration(0)) say("keep");
    pair_.a.connection->on_time(pair_.now);
    for (const std::string& text : pair_.a.pull_all(pair_.now)) {
      ASSERT_EQ(text, "keep");
      if (sent != Time{}) {
        EXPECT_LE(pair_.now - sent, milliseconds(2600));
      }
      sent = pair_.now;
      keeps += 1;
    }
  }
  EXPECT_GE(keeps, 9);
}

TEST_F(OpenConnection, JitterDoesNotShortenTheKeepalives) {
  Duration shortest = seconds(1000);
  Time last = pair_.now;
  std::mt19937 random(3);
  for (int i = 0; i < 200; ++i) {
    const Time peer_next = kStart + seconds(30) * (i + 1) + milliseconds(random() % 5000);
    while (pair_.now < peer_next) {
      pair_.now = std::min(peer_next, pair_.a.connection->next_deadline());
      ASSERT_FALSE(pair_.a.connection->on_time(pair_.now).error);
      if (!pair_.a.pull_all(pair_.now).empty()) {
        shortest = std::min<Duration>(shortest, pair_.now - last);
        last = pair_.now;
      }
    }
    say("keep");
  }
  EXPECT_GE(shortest, seconds(30));
}

TEST_F(OpenConnection, KeepaliveFloodIsNotImitated) {
  for (int i = 0; i < 1000; ++i) {
    pair_.now += microseconds(10);
    say("keep");
  }
  int keeps = 0;
  for (int i = 0; i < 100; ++i) {
    pair_.now += milliseconds(10);
    pair_.a.connection->on_time(pair_.now);
    keeps += static_cast<int>(pair_.a.pull_all(pair_.now).size());
  }
  EXPECT_LE(keeps, 3);
}

TEST(Connection, SilentStreamIsForgotten) {
  Side side(1, 2, {}, Connection::Origin::peer);
  EXPECT_EQ(side.connection->next_deadline(), kStart + Connection::kSilentLimit);
  EXPECT_FALSE(side.connection->on_time(kStart + Connection::kSilentLimit - microseconds(1)).error);
  EXPECT_TRUE(side.connection->on_time(kStart + Connection::kSilentLimit).error);
  EXPECT_TRUE(side.pull_all().empty()) << "nothing is said to a peer that has proven nothing";
}

TEST(Connection, PeerThatNeverOpensIsDropped) {
  Pair pair;
  // b's version and preflight are lost.
  while (pair.a.connection->phase() != Connection::Phase::opening ||
         pair.b.connection->phase() != Connection::Phase::opening) {
    const bool moved = pair.move_one(pair.a, pair.b, pair.got_b) || pair.move_one(pair.b, pair.a, pair.got_a);
    if (!moved) break;
  }
  Time now = kStart;
  bool ended = false;
  int restarted = 0;
  while (!ended && now < kStart + seconds(300)) {
    now = pair.a.connection->next_deadline();
    const auto out = pair.a.connection->on_time(now);
    restarted += out.restarted ? 1 : 0;
    ended = out.error.has_value();
    pair.a.pull_all(now);
  }
  EXPECT_TRUE(ended);
  EXPECT_EQ(now, kStart + seconds(60));
  EXPECT_EQ(restarted, 1);
}

TEST(Connection, RandomBodiesNeverCrash) {
  std::mt19937 random(11);
  for (int round = 0; round < 200; ++round) {
    Side side(1, 2, {}, round % 2 == 0 ? Connection::Origin::local : Connection::Origin::peer);
    E2eSession voice(side.key_.id(), std::move(*SessionKeys::derive(side.peer_key_, side.key_.id())));
    side.connection->on_body(voice.start_stream({}).view().subspan(32), kStart);
    Time now = kStart;
    for (int i = 0; i < 60; ++i) {
      static const char* const kLetters[] = {"hreq", "hres", "fmsg", "keep", "offr", "zzzz", ""};
      std::string text = kLetters[random() % 7];
      const std::size_t size = random() % 3 == 0 ? 32 : random() % 40;
      for (std::size_t n = 0; n < size; ++n) text.push_back(static_cast<char>(random()));
      Connection::Outcome out;
      if (random() % 5 == 0) {
        out = side.connection->on_body(as_bytes(text), now);
      } else {
        out = side.connection->on_body(voice.seal({}, as_bytes(text)).view().subspan(32), now);
      }
      if (out.error) break;
      if (out.handshake_done) {
        ASSERT_TRUE(side.connection->open_with({}, now).has_value());
      }
      if (out.permit_wanted) side.connection->grant();
      now += milliseconds(random() % 3000);
      if (side.connection->on_time(now).error) break;
      side.pull_all(now);
    }
  }
}

}  // namespace
}  // namespace kitsune2::tx5
