// What a relay may do with the streams of a connection, and how much is under way to a peer.
#include "connection_harness.hpp"

namespace kitsune2::tx5 {
namespace {

TEST_F(OpenConnection, AStreamThatWasNotAskedForIsNotHeardAndItBeginsAnew) {
  new_stream(1);
  const auto out = say(frame(FrameType::message, 5, "later"));
  EXPECT_FALSE(out.error);
  EXPECT_FALSE(out.message);
  EXPECT_TRUE(out.restarted);
  EXPECT_EQ(pair_.a.connection->phase(), Connection::Phase::handshake);
  const auto pulled = pair_.a.pull_all(pair_.now);
  ASSERT_EQ(pulled.size(), 4U);
  EXPECT_EQ(pulled[1], frame(FrameType::reserved0, 0)) << "a peer that still has its connection hears no request";
  EXPECT_EQ(pulled[3].substr(0, 4), "hreq");
}

TEST_F(OpenConnection, AStreamThatWasAskedForIsHeardThoughMoreOfTheOldOneComes) {
  ask_for_stream();
  new_stream(1);
  EXPECT_EQ(say(frame(FrameType::message, 1, "v")).message->str(), "v");
  ask_for_stream();
  EXPECT_EQ(say(frame(FrameType::message, 1, "w")).message->str(), "w");
  new_stream(2);
  const auto out = say(frame(FrameType::message, 1, "x"));
  ASSERT_TRUE(out.message);
  EXPECT_EQ(out.message->str(), "x");
}

TEST_F(OpenConnection, AStreamThatWasAskedForIsHeardOnce) {
  ask_for_stream();
  new_stream(1);
  EXPECT_EQ(say(frame(FrameType::message, 1, "x")).message->str(), "x");
  new_stream(2);
  EXPECT_TRUE(say(frame(FrameType::message, 1, "y")).restarted);
}

TEST_F(OpenConnection, AStreamInTheMiddleOfAMessageBeginsAnewThoughItWasAskedFor) {
  ASSERT_TRUE(say(frame(FrameType::permit_request, 30'000)).permit_wanted);
  pair_.a.connection->grant();
  pair_.a.pull_all(pair_.now);
  EXPECT_EQ(say(frame(FrameType::chunk, 10'000, filled(10'000))).progress, 10'000U);
  // In the middle of a message it is asked for only when nothing decrypts for a second.
  std::vector<std::uint8_t> forged(60, 1);
  forged[0] = kMessage;
  pair_.now += Connection::kStreamRequestInterval;
  pair_.a.connection->on_body(forged, pair_.now);
  EXPECT_TRUE(pair_.a.pull_all(pair_.now).empty());
  ask_for_stream();
  new_stream(1);
  EXPECT_TRUE(say(frame(FrameType::chunk, 10'000, filled(10'000))).restarted);
}

TEST_F(OpenConnection, AForgedStreamDoesNotCostTheRealPeerItsOwn) {
  StreamState::Header nobodys{};
  nobodys.fill(77);
  std::vector<std::uint8_t> body{kNewStream};
  body.insert(body.end(), nobodys.begin(), nobodys.end());
  for (int i = 0; i < 10; ++i) pair_.a.connection->on_body(body, pair_.now);
  EXPECT_EQ(say(frame(FrameType::message, 1, "x")).message->str(), "x");
  EXPECT_TRUE(pair_.a.pull_all(pair_.now).empty()) << "nothing is asked for";
}

TEST_F(OpenConnection, ClosingFrameOnAFreshStreamIsObeyed) {
  new_stream(1);
  EXPECT_EQ(say(frame(FrameType::reserved0, 0)).error->code, Errc::disconnected);
}

/// What a relay sees of a conversation, to play it again as it likes.
class Replay : public OpenConnection {
 protected:
  void SetUp() override { pair_.run(); }
  /// Everything that A has sent to B so far, in order, and new things from here on.
  std::vector<std::vector<std::uint8_t>> record(const std::string& message) {
    const std::size_t before = pair_.a.bodies.size();
    pair_.a.send(message);
    pair_.run();
    return {pair_.a.bodies.begin() + static_cast<std::ptrdiff_t>(before), pair_.a.bodies.end()};
  }
  void play(const std::vector<std::uint8_t>& body) {
    pair_.apply(pair_.b, pair_.b.connection->on_body(body, pair_.now), pair_.got_b);
  }
  /// The relay makes A begin a new stream.
  void provoke() { pair_.a.connection->on_body(hex("12"), pair_.now); }
};

TEST_F(Replay, OneNotifyIsHeardOnce) {
  // B asks for a stream, as it does when a forgery has come.
  std::vector<std::uint8_t> forged(60, 1);
  forged[0] = kMessage;
  pair_.b.connection->on_body(forged, pair_.now);
  pair_.run();
  const auto bodies = record("once");
  ASSERT_EQ(bodies.size(), 2U) << "NewStream and the message";
  for (int i = 0; i < 3; ++i) {
    pair_.now += Connection::kStreamRequestInterval;
    pair_.b.connection->on_body(forged, pair_.now);  // so that a stream is asked for
    pair_.b.pull_all(pair_.now);                     // the request is lost
    for (const auto& body : bodies) play(body);
  }
  EXPECT_EQ(std::ranges::count(pair_.got_b, "once"), 1);
}

TEST_F(Replay, AStreamOfAnEarlierConnectionIsNotTakenAgain) {
  std::vector<std::uint8_t> forged(60, 1);
  forged[0] = kMessage;
  pair_.b.connection->on_body(forged, pair_.now);
  pair_.run();
  const auto bodies = record("once");
  // B forgets the connection, but not the streams, and opens another one under the same keys.
  const auto memory = pair_.b.connection->streams();
  Side& b = pair_.b;
  b.connection.emplace(b.peer_key_.id(), std::move(*SessionKeys::derive(b.key_, b.peer_key_.id())), b.config_,
                       b.entropy_, Connection::Origin::local, pair_.now);
  b.connection->remember_streams(memory);
  pair_.run();
  ASSERT_EQ(b.connection->phase(), Connection::Phase::open);
  b.connection->on_body(forged, pair_.now);
  b.pull_all(pair_.now);
  for (const auto& body : bodies) play(body);
  EXPECT_EQ(std::ranges::count(pair_.got_b, "once"), 1);
  EXPECT_EQ(b.connection->phase(), Connection::Phase::open);
}

TEST_F(Replay, OrderIsKept) {
  provoke();
  const std::size_t before = pair_.a.bodies.size();
  pair_.a.send("first");
  pair_.a.pull_all(pair_.now);
  provoke();
  pair_.a.send("second");
  pair_.a.pull_all(pair_.now);
  ASSERT_EQ(pair_.a.bodies.size(), before + 4);
  for (const std::size_t i : {2U, 3U, 0U, 1U}) play(pair_.a.bodies[before + i]);
  const auto first = std::ranges::find(pair_.got_b, "first"), second = std::ranges::find(pair_.got_b, "second");
  EXPECT_TRUE(second == pair_.got_b.end() || first == pair_.got_b.end() || first < second);
}

TEST_F(Replay, AMessageIsNotPutTogetherFromPieces) {
  const auto piece = [](char c) { return std::string(kMaxChunkBytes, c); };
  const std::string whole = piece('A') + piece('B') + piece('C');
  pair_.a.send(whole);
  // The permit.
  ASSERT_EQ(pair_.a.pull(pair_.now), frame(FrameType::permit_request, static_cast<std::uint32_t>(whole.size())));
  play(pair_.a.bodies.back());
  ASSERT_EQ(pair_.b.pull(pair_.now), frame(FrameType::permit_grant, static_cast<std::uint32_t>(whole.size())));
  pair_.a.connection->on_body(pair_.b.bodies.back(), pair_.now);
  // Each chunk in a stream of its own, since the relay asks for one before each.
  const std::size_t before = pair_.a.bodies.size();
  for (int i = 0; i < 3; ++i) {
    provoke();
    pair_.a.pull(pair_.now);
    pair_.a.pull(pair_.now);
  }
  ASSERT_EQ(pair_.a.bodies.size(), before + 6);
  for (const std::size_t i : {0U, 1U, 0U, 1U, 4U, 5U}) play(pair_.a.bodies[before + i]);
  for (const std::string& message : pair_.got_b) EXPECT_LT(message.size(), 100U);
  EXPECT_GE(pair_.restarts, 1);
}

ConnectionConfig small_credit() {
  ConnectionConfig config;
  config.credit = {.first = 20'000, .most = 100'000, .in_process = 40'000};
  return config;
}

TEST(ConnectionCredit, SmallMessagesGoByAPermitWhenNothingShowsThatThePeerReads) {
  Pair pair(small_credit());
  pair.run();
  pair.grant = false;
  for (int i = 0; i < 100; ++i) pair.a.send(filled(1000));
  pair.run();
  const std::size_t got = pair.got_b.size();
  EXPECT_LT(got, 25U) << "the rest waits for a permit";
  EXPECT_GT(got, 10U);
  EXPECT_LE(pair.a.connection->credit().under_way(), 20'000U + 2000U);
  pair.grant = true;
  pair.b.connection->grant();
  pair.run();
  EXPECT_EQ(pair.got_b.size(), 101U);
  for (std::size_t i = 1; i < pair.got_b.size(); ++i) EXPECT_EQ(pair.got_b[i], filled(1000));
  EXPECT_TRUE(pair.errors.empty());
}

TEST(ConnectionCredit, TheWindowGrowsWithWhatThePeerHasRead) {
  Pair pair(small_credit());
  pair.run();
  std::size_t asked = 0;
  for (int i = 0; i < 2000; ++i) {
    pair.a.send(filled(1000));
    while (true) {
      const std::string said = pair.a.pull(pair.now);
      if (said.empty()) break;
      asked += said.starts_with("fmsg\xa0") ? 1U : 0U;
      const std::vector<std::uint8_t> body = pair.a.bodies.back();
      pair.apply(pair.b, pair.b.connection->on_body(body, pair.now), pair.got_b);
      while (pair.move_one(pair.b, pair.a, pair.got_a)) {
      }
    }
  }
  EXPECT_EQ(pair.got_b.size(), 2001U);
  EXPECT_GT(asked, 15U);
  EXPECT_LT(asked, 30U) << "2 MB at 100 kB, and a few for the beginning";
}

TEST(ConnectionCredit, WhoShowsWhatItHasReadNeedsNoPermits) {
  Pair pair(small_credit());
  pair.run();
  pair.grant = false;
  std::vector<std::uint64_t> marks;
  for (int i = 0; i < 100; ++i) {
    marks.push_back(pair.a.connection->next_position());
    pair.a.send(filled(1000));
  }
  EXPECT_GT(marks[0], 0U);
  for (std::size_t i = 1; i < marks.size(); ++i) EXPECT_EQ(marks[i], marks[i - 1] + 1000) << "behind what waits";
  pair.a.connection->on_read(marks[0], pair.now);
  pair.run();
  const std::size_t got = pair.got_b.size();
  EXPECT_LT(got, 30U);
  EXPECT_FALSE(pair.a.connection->has_data()) << "it does not ask yet";
  EXPECT_EQ(pair.a.connection->next_deadline(), pair.now + Connection::kAskAfter);
  // Each answer lets some more go.
  for (std::size_t i = got / 2; i < marks.size(); ++i) {
    pair.a.connection->on_read(marks[i], pair.now);
    pair.run();
  }
  EXPECT_EQ(pair.got_b.size(), 101U);
  EXPECT_TRUE(pair.errors.empty());
}

TEST(ConnectionCredit, WhoShowsNothingForATimeIsAskedForAPermit) {
  Pair pair(small_credit());
  pair.run();
  pair.a.connection->on_read(1, pair.now);
  for (int i = 0; i < 100; ++i) pair.a.send(filled(1000));
  pair.run();
  EXPECT_LT(pair.got_b.size(), 30U);
  pair.now += Connection::kAskAfter - Duration(1);
  pair.a.connection->on_time(pair.now);
  EXPECT_FALSE(pair.a.connection->has_data());
  pair.now += Duration(1);
  pair.a.connection->on_time(pair.now);
  EXPECT_TRUE(pair.a.connection->has_data());
  pair.run();
  EXPECT_EQ(pair.got_b.size(), 101U) << "permits show that the peer reads";
  EXPECT_TRUE(pair.errors.empty());
}

TEST(ConnectionCredit, AMessageThatWasGrantedIsSentToItsEnd) {
  Pair pair(small_credit());
  pair.a.send(filled(500'000));
  pair.a.send("after");
  pair.run();
  EXPECT_EQ(pair.got_b, (std::vector<std::string>{"\x08\x01", filled(500'000), "after"}));
}

TEST(ConnectionCredit, TheRelayInsideTellsWhatWasTaken) {
  const auto config = small_credit();
  Side a(1, 2, config, Connection::Origin::local), b(2, 1, config, Connection::Origin::local);
  a.connection.emplace(a.peer_key_.id(), std::move(*SessionKeys::derive(a.key_, a.peer_key_.id())), a.config_,
                       a.entropy_, Connection::Origin::local, kStart, Duration{}, SendCredit::Source::relay);
  std::size_t got = 0;
  const auto move = [&](Side& from, Side& to) {
    if (from.pull().empty()) return false;
    auto out = to.connection->on_body(std::vector<std::uint8_t>(from.bodies.back()), kStart);
    EXPECT_FALSE(out.error);
    if (out.handshake_done) {
      EXPECT_TRUE(to.connection->open_with(Bytes::copy_of("\x08\x01"), kStart).has_value());
    }
    if (out.permit_wanted) to.connection->grant();
    if (out.message && &to == &b) ++got;
    return true;
  };
  const auto run = [&] {
    while (move(a, b) || move(b, a)) {
    }
  };
  for (int i = 0; i < 100; ++i) a.send(filled(1000));
  run();
  EXPECT_LT(got, 45U);
  EXPECT_LE(a.connection->credit().under_way(), 40'000U + 1100U);
  EXPECT_FALSE(a.connection->has_data());
  // Nothing that the peer says brings credit, only the relay does.
  b.send("I read all of it");
  run();
  EXPECT_FALSE(a.connection->has_data());
  a.connection->on_credit_returned(30'000, kStart);
  EXPECT_TRUE(a.connection->has_data());
  run();
  EXPECT_GT(got, 60U);
  a.connection->on_credit_returned(1'000'000, kStart);
  run();
  EXPECT_LE(a.connection->credit().under_way(), 40'000U + 1100U);
  a.connection->on_credit_returned(1'000'000, kStart);
  run();
  EXPECT_EQ(got, 101U);
}

TEST(ConnectionCredit, AReaderThatTakesNothingIsLeftInTheEnd) {
  const auto config = small_credit();
  Side a(1, 2, config, Connection::Origin::local), b(2, 1, config, Connection::Origin::local);
  a.connection.emplace(a.peer_key_.id(), std::move(*SessionKeys::derive(a.key_, a.peer_key_.id())), a.config_,
                       a.entropy_, Connection::Origin::local, kStart, Duration{}, SendCredit::Source::relay);
  Time now = kStart;
  std::optional<Error> error;
  for (int i = 0; i < 60; ++i) a.send(filled(1000));
  for (int second = 0; second < 200 && !error; ++second) {
    for (bool moved = true; moved;) {
      moved = false;
      for (const auto& [from, to] : {std::pair(&a, &b), std::pair(&b, &a)}) {
        if (from->pull(now).empty()) continue;
        moved = true;
        auto out = to->connection->on_body(std::vector<std::uint8_t>(from->bodies.back()), now);
        if (out.handshake_done) {
          EXPECT_TRUE(to->connection->open_with(Bytes::copy_of("\x08\x01"), now).has_value());
        }
      }
    }
    now += seconds(1);
    error = a.connection->on_time(now).error;
    b.connection->on_time(now);
  }
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, Errc::peer_unresponsive);
  EXPECT_NE(error->message.find("takes nothing"), std::string::npos);
  EXPECT_GE(now, kStart + seconds(60));
}

}  // namespace
}  // namespace kitsune2::tx5
