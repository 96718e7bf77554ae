// A QUIC connection over a simulated network: handshake and keys, messages, faults, back-pressure, timeouts, the end.
#include "transport/quic/connection.hpp"

#include <gtest/gtest.h>

#include "unit/transport/quic/sim_network.hpp"

namespace kitsune2::quic {
namespace {

using namespace std::chrono_literals;
using tests::Faults;
using tests::identity;
using tests::Pair;
using tests::pattern;

ByteChain text(const std::string& words) { return Bytes::copy_of(words); }

/// Sends `messages` from one end, reads them at the other. What was read.
std::vector<std::uint8_t> transfer(Pair& pair, Connection& from, Connection& to, const std::vector<Bytes>& messages,
                                   Duration limit = 600s) {
  std::size_t size = 0;
  for (const Bytes& message : messages) {
    EXPECT_TRUE(from.send(message));
    size += message.size();
  }
  std::vector<std::uint8_t> out;
  EXPECT_TRUE(pair.run(limit,
                       [&] {
                         pair.read_all(to, out);
                         return out.size() >= size;
                       }))
      << out.size() << " of " << size;
  return out;
}

TEST(QuicConnection, EveryNameThatAPeerIsToldIsMarked) {
  Config config;
  config.mark_name = [](std::span<std::uint8_t, kOwnNameBytes> name) { name[7] = 0x5a; };
  Pair pair(1, config, config);
  std::size_t names = 0, others = 0;
  const auto look = [&](Connection& connection) {
    for (const auto& change : connection.take_name_changes()) {
      // A dialler makes up one that the peer is to have at first, and that is longer.
      if (change.name.view().size() != kOwnNameBytes) continue;
      (change.name.view()[7] == 0x5a ? names : others) += 1;
    }
  };
  ASSERT_TRUE(pair.open());
  transfer(pair, pair.client(), pair.server(), {pattern(100'000, 1)});
  look(pair.client());
  look(pair.server());
  EXPECT_GT(names, 4U) << "spare ones, too";
  EXPECT_EQ(others, 0U);
}

TEST(QuicConnection, BothSidesProveTheirKeys) {
  Pair pair(1);
  ASSERT_TRUE(pair.open());
  EXPECT_EQ(pair.client().peer(), identity(2)->key());
  EXPECT_EQ(pair.server().peer(), identity(1)->key());
  EXPECT_TRUE(pair.client().is_dialled());
  EXPECT_FALSE(pair.server().is_dialled());
  pair.run(1s);
  ASSERT_TRUE(pair.client().round_trip());
  EXPECT_GE(*pair.client().round_trip(), 20ms);
  EXPECT_LE(*pair.client().round_trip(), 40ms);
}

// Without a round trip to go by, the library would pause for 26 ms after the first datagram.
TEST(QuicConnection, OnAShortLineAHandshakeAndAMessageTakeTwoRoundTrips) {
  Pair pair(21);
  pair.faults.latency = 1ms;
  const Time begin = pair.now_;
  ASSERT_TRUE(pair.client().send(text("at once")));
  std::vector<std::uint8_t> out;
  ASSERT_TRUE(pair.run(1s, [&] {
    if (pair.has_server()) pair.read_all(pair.server(), out);
    return out.size() == 7;
  }));
  EXPECT_LE(pair.now_ - begin, 4ms);
}

TEST(QuicConnection, AWrongKeyOfWhoIsDialledIsRefused) {
  Pair pair(2, identity(3)->key());
  EXPECT_FALSE(pair.open());
  ASSERT_TRUE(pair.client().closed());
  EXPECT_EQ(pair.client().closed()->by, Closed::By::us);
  EXPECT_EQ(pair.client().closed()->error.code, Errc::peer_fault);
  EXPECT_FALSE(pair.client().is_open());
  EXPECT_FALSE(pair.client().peer());
  ASSERT_TRUE(pair.server().closed());
  EXPECT_EQ(pair.server().closed()->by, Closed::By::peer);
  EXPECT_FALSE(pair.server().is_open());
}

TEST(QuicConnection, AWrongKeyOfWhoDialsIsRefused) {
  Pair pair(3, identity(2)->key(), identity(4)->key());
  pair.run(5s);
  ASSERT_TRUE(pair.server().closed());
  EXPECT_EQ(pair.server().closed()->error.code, Errc::peer_fault);
  EXPECT_FALSE(pair.server().is_open());
  ASSERT_TRUE(pair.client().closed());
}

// The name is that which iroh 0.95 writes for the key of 32 zero bytes.
TEST(QuicConnection, ADiallerThatNamesThePeerIsTaken) {
  EXPECT_EQ(server_name_of(Identity::create({}).value()->key()),
            "7dl2ff6emqi2qol3l382krodedij45bn3nh479hqo14a32qpr8kg.iroh.invalid");
  Config config;
  config.server_name = true;
  Pair pair(20, config);
  ASSERT_TRUE(pair.open());
  EXPECT_EQ(pair.server().peer(), identity(1)->key());
}

TEST(QuicConnection, AnotherApplicationProtocolIsRefused) {
  Config other;
  other.alpn = "kitsune2/1";
  Pair pair(4, other);
  EXPECT_FALSE(pair.open());
  ASSERT_TRUE(pair.client().closed());
  EXPECT_EQ(pair.client().closed()->by, Closed::By::peer);
  EXPECT_FALSE(pair.client().closed()->application);
  EXPECT_EQ(pair.client().closed()->code, 0x100U + 120) << "no_application_protocol";
}

TEST(QuicConnection, MessagesArriveInOrderBothWays) {
  Pair pair(5);
  ASSERT_TRUE(pair.client().send(text("before the handshake")));
  ASSERT_TRUE(pair.open());
  std::vector<std::uint8_t> at_server;
  pair.run(1s);
  pair.read_all(pair.server(), at_server);
  EXPECT_EQ(as_text(at_server), "before the handshake");
  EXPECT_EQ(as_text(transfer(pair, pair.server(), pair.client(), {Bytes::copy_of("an"), Bytes::copy_of("swer")})),
            "answer");
  const auto sent = pair.server().take_sent();
  ASSERT_EQ(sent.size(), 2U);
  EXPECT_TRUE(sent[0].whole && sent[1].whole);
  EXPECT_LT(sent[0].ticket, sent[1].ticket);
  pair.run(1s);
  EXPECT_EQ(pair.server().queued_bytes(), 0U);
  EXPECT_EQ(pair.server().unacknowledged_bytes(), 0U);
}

TEST(QuicConnection, PiecesOfAMessageArriveAsOne) {
  Pair pair(6);
  ASSERT_TRUE(pair.open());
  ByteChain chain;
  std::string whole;
  for (int i = 0; i < 500; ++i) {
    chain.append(Bytes::copy_of(std::to_string(i) + ","));
    whole += std::to_string(i) + ",";
  }
  ASSERT_TRUE(pair.client().send(chain));
  std::vector<std::uint8_t> got;
  pair.run(2s);
  pair.read_all(pair.server(), got);
  EXPECT_EQ(as_text(got), whole);
  EXPECT_EQ(pair.client().take_sent().size(), 1U);
}

TEST(QuicConnection, LargeMessagesPassABadNetwork) {
  for (std::uint64_t number = 10; number < 16; ++number) {
    Pair pair(number);
    pair.faults = Faults{0.05, 0.05, 0.2, 5ms, 65'535, 0.02};
    ASSERT_TRUE(pair.open()) << number;
    const Bytes large = pattern(3'000'000, static_cast<std::uint32_t>(number));
    const auto got = transfer(pair, pair.client(), pair.server(), {large});
    EXPECT_TRUE(std::equal(got.begin(), got.end(), large.begin(), large.end())) << number;
  }
}

TEST(QuicConnection, DatagramsAreSmallUntilTheHandshakeIsOverAndLargeThen) {
  Pair pair(17);
  pair.faults.largest = 1200;
  ASSERT_TRUE(pair.open()) << "the handshake needs no more than 1,200 bytes";
  pair.faults.largest = 1452;
  const std::size_t before = pair.datagrams;
  transfer(pair, pair.client(), pair.server(), {pattern(1'400'000)});
  const std::size_t taken = pair.datagrams - before;
  EXPECT_LT(taken, 1'900U) << "about a thousand, and acknowledgements";
}

TEST(QuicConnection, DatagramsAreNoLargerThanTheOwnerAsksForAndAsTheConfigurationSays) {
  Pair pair(22);
  ASSERT_TRUE(pair.open());
  for (const std::size_t largest : {1200U, 1252U, 1392U, 1452U, 9000U, 0U}) {
    pair.largest = largest;
    pair.faults.largest = std::clamp<std::size_t>(largest, kLeastDatagram, 1452);
    const std::size_t before = pair.datagrams;
    transfer(pair, pair.client(), pair.server(), {pattern(1'000'000)}, 10s);
    EXPECT_LT(pair.datagrams - before, 2 * 1'000'000 / pair.faults.largest) << "they are full";
  }
}

TEST(QuicConnection, WhatWasTooLargeForTheWayIsSentAgainInSmallerDatagrams) {
  Pair pair(23);
  ASSERT_TRUE(pair.open());
  const Bytes large = pattern(2'000'000);
  ASSERT_TRUE(pair.client().send(large));
  std::vector<std::uint8_t> got;
  const auto has = [&](std::size_t bytes) {
    return pair.run(20s, [&] {
      pair.read_all(pair.server(), got);
      return got.size() >= bytes;
    });
  };
  ASSERT_TRUE(has(500'000));
  // A line that gets smaller, and an owner that finds out half a second later; then larger, and smaller again.
  for (const std::size_t largest : {1252U, 1452U, 1200U}) {
    pair.faults.largest = largest;
    pair.run(500ms, [&] {
      pair.read_all(pair.server(), got);
      return false;
    });
    pair.largest = largest;
    ASSERT_TRUE(has(std::min(got.size() + 400'000, large.size())));
  }
  ASSERT_TRUE(has(large.size()));
  EXPECT_TRUE(std::equal(got.begin(), got.end(), large.begin(), large.end()));
}

TEST(QuicConnection, AReaderThatPausesMakesThePeerWait) {
  Config config;
  config.stream_window = 100'000;
  Pair pair(18, {}, config);
  ASSERT_TRUE(pair.open());
  const Bytes large = pattern(1'000'000);
  ASSERT_TRUE(pair.client().send(large));
  pair.run(30s);
  EXPECT_EQ(pair.client().queued_bytes(), 900'000U);
  EXPECT_TRUE(pair.client().take_sent().empty());
  EXPECT_LT(pair.server().library_bytes(), 200'000U);
  std::vector<std::uint8_t> got;
  ASSERT_TRUE(pair.run(60s, [&] {
    pair.read_all(pair.server(), got);
    return got.size() == large.size();
  }));
  EXPECT_TRUE(std::equal(got.begin(), got.end(), large.begin()));
  EXPECT_EQ(pair.client().take_sent().size(), 1U);
}

TEST(QuicConnection, TheWindowOfAllStreamsHoldsAndOpensAgain) {
  Config config;
  config.connection_window = 50'000;
  Pair pair(32, {}, config);
  ASSERT_TRUE(pair.open());
  const Bytes large = pattern(1'000'000);
  ASSERT_TRUE(pair.client().send(large));
  pair.run(10s);
  EXPECT_EQ(pair.client().queued_bytes(), 950'000U);
  std::vector<std::uint8_t> got;
  ASSERT_TRUE(pair.run(60s, [&] {
    pair.read_all(pair.server(), got);
    return got.size() == large.size();
  }));
  EXPECT_TRUE(std::equal(got.begin(), got.end(), large.begin()));
}

TEST(QuicConnection, TooMuchThatWaitsIsRefusedButOneMessageIsAlwaysTaken) {
  Config config;
  config.max_queue_bytes = 1000;
  Pair pair(19, config);
  EXPECT_TRUE(pair.client().send(pattern(5000)));
  const auto refused = pair.client().send(pattern(1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::overloaded);
}

TEST(QuicConnection, NothingForTheIdleTimeEndsIt) {
  Config config;
  config.keep_alive = Duration::zero();
  Pair pair(20, config, config);
  ASSERT_TRUE(pair.open());
  const Time opened = pair.now_;
  ASSERT_TRUE(pair.run(120s, [&] { return pair.client().closed().has_value(); }));
  EXPECT_EQ(pair.client().closed()->by, Closed::By::nobody);
  EXPECT_EQ(pair.client().closed()->error.code, Errc::timed_out);
  EXPECT_GE(pair.now_ - opened, 59s);
  EXPECT_LE(pair.now_ - opened, 62s);
}

TEST(QuicConnection, KeepAlivesKeepAQuietConnection) {
  Pair pair(21);
  ASSERT_TRUE(pair.open());
  const std::size_t before = pair.datagrams;
  pair.run(10min);
  EXPECT_FALSE(pair.client().closed());
  EXPECT_FALSE(pair.server().closed());
  EXPECT_LT(pair.datagrams - before, 600U);
  pair.cut = true;
  pair.run(70s);
  EXPECT_TRUE(pair.client().closed() && pair.server().closed());
}

TEST(QuicConnection, NobodyThereEndsTheHandshake) {
  Pair pair(22);
  pair.cut = true;
  ASSERT_TRUE(pair.run(100s, [&] { return pair.client().closed().has_value(); }));
  EXPECT_EQ(pair.client().closed()->error.code, Errc::timed_out);
  EXPECT_EQ(pair.now_.time_since_epoch(), 65s);
  EXPECT_TRUE(pair.client().is_finished(pair.now_));
}

TEST(QuicConnection, CodeAndReasonOfACloseArrive) {
  Pair pair(23);
  ASSERT_TRUE(pair.open());
  pair.client().close(2, "superseded by preferred connection", pair.now_);
  pair.run(1s);
  ASSERT_TRUE(pair.server().closed());
  EXPECT_EQ(pair.server().closed()->by, Closed::By::peer);
  EXPECT_TRUE(pair.server().closed()->application);
  EXPECT_EQ(pair.server().closed()->code, 2U);
  EXPECT_EQ(pair.server().closed()->reason, "superseded by preferred connection");
  EXPECT_EQ(pair.client().closed()->by, Closed::By::us);
  pair.run(10s);
  EXPECT_TRUE(pair.client().is_finished(pair.now_) && pair.server().is_finished(pair.now_));
}

TEST(QuicConnection, ACloseThatIsLostIsToldAgain) {
  Pair pair(24);
  ASSERT_TRUE(pair.open());
  pair.run(1s);
  pair.cut = true;
  pair.client().close(1, "", pair.now_);
  ASSERT_TRUE(pair.server().send(text("are you there?")));
  pair.run(1ms);
  EXPECT_FALSE(pair.server().closed());
  pair.cut = false;
  ASSERT_TRUE(pair.run(500ms, [&] { return pair.server().closed().has_value(); }));
  EXPECT_EQ(pair.server().closed()->code, 1U);
}

TEST(QuicConnection, AfterTheEndNothingHasAnEffect) {
  Pair pair(25);
  ASSERT_TRUE(pair.open());
  ASSERT_TRUE(pair.client().send(pattern(5'000'000)));
  pair.run(15ms);
  pair.client().close(0, "no", pair.now_);
  const auto sent = pair.client().take_sent();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_FALSE(sent[0].whole);
  EXPECT_EQ(pair.client().send(text("x")).error().code, Errc::disconnected);
  EXPECT_FALSE(pair.client().read());
  pair.client().stop_reading();
  pair.client().close(1, "again", pair.now_);
  EXPECT_EQ(pair.client().closed()->code, 0U);
  EXPECT_EQ(pair.client().queued_bytes(), 0U);
}

TEST(QuicConnection, AStreamThatIsGivenUpIsFollowedByAnother) {
  Config config;
  config.stream_window = 100'000;
  Pair pair(26, {}, config);
  ASSERT_TRUE(pair.open());
  ASSERT_TRUE(pair.client().send(pattern(1'000'000)));
  ASSERT_TRUE(pair.client().send(text("on a new stream")));
  ASSERT_TRUE(pair.run(5s, [&] { return pair.server().read().has_value(); }));
  pair.server().stop_reading();
  std::optional<Connection::Part> part;
  ASSERT_TRUE(pair.run(5s, [&] { return (part = pair.server().read()).has_value(); }));
  EXPECT_EQ(part->stream, 1U);
  EXPECT_EQ(as_text(part->data), "on a new stream");
  const auto sent = pair.client().take_sent();
  ASSERT_EQ(sent.size(), 2U);
  EXPECT_FALSE(sent[0].whole);
  EXPECT_TRUE(sent[1].whole);
  pair.run(2s);
  EXPECT_EQ(pair.client().unacknowledged_bytes(), 0U);
}

TEST(QuicConnection, AThousandStreamsOneAfterTheOther) {
  Pair pair(27);
  ASSERT_TRUE(pair.open());
  for (std::uint64_t i = 0; i < 1000; ++i) {
    ASSERT_TRUE(pair.client().send(text("m" + std::to_string(i))));
    std::optional<Connection::Part> part;
    ASSERT_TRUE(pair.run(5s, [&] { return (part = pair.server().read()).has_value(); })) << i;
    ASSERT_EQ(part->stream, i);
    ASSERT_EQ(as_text(part->data), "m" + std::to_string(i));
    pair.server().stop_reading();
    pair.run(50ms);
  }
  EXPECT_FALSE(pair.client().closed());
  EXPECT_LT(pair.server().library_bytes(), 500'000U);
}

TEST(QuicConnection, AllocationsOfTheLibraryAreBounded) {
  Config config;
  config.max_library_bytes = 150'000;
  Pair pair(28, {}, config);
  pair.faults.loss = 0.3;
  pair.open();
  ASSERT_TRUE(pair.client().send(pattern(2'000'000)));
  ASSERT_TRUE(pair.run(120s, [&] { return pair.server().closed().has_value(); }))
      << "with losses and nobody who reads, what came out of order needs more than that";
  EXPECT_EQ(pair.server().closed()->error.code, Errc::overloaded);
}

TEST(QuicConnection, TheSameNumbersGiveTheSameRun) {
  const auto run = [](std::uint64_t number) {
    Pair pair(number);
    pair.faults = Faults{0.1, 0.1, 0.2, 7ms, 65'535, 0.05};
    EXPECT_TRUE(pair.open());
    transfer(pair, pair.client(), pair.server(), {pattern(300'000), pattern(1), pattern(70'000)});
    pair.client().close(1, "done", pair.now_);
    pair.run(30s);
    return pair.trace;
  };
  const std::string first = run(30);
  EXPECT_GT(first.size(), 1000U);
  EXPECT_EQ(first, run(30));
  EXPECT_NE(first, run(31));
}

TEST(QuicConnection, DatagramsThatOpenNoConnectionAreRefused) {
  const auto accept = [](ByteView datagram) {
    return Connection::accept(identity(2), {}, tests::random_of(1), std::nullopt, datagram, Time(5s)).has_value();
  };
  EXPECT_FALSE(accept({}));
  EXPECT_FALSE(accept(as_bytes("hello")));
  EXPECT_FALSE(accept(pattern(1200)));
  auto client = Connection::dial(identity(1), {}, tests::random_of(1), identity(2)->key(), Time(5s)).value();
  const auto first = client->produce(Time(5s));
  ASSERT_TRUE(first);
  EXPECT_EQ(first->content.size(), 1200U);
  EXPECT_TRUE(accept(first->content));
  EXPECT_FALSE(accept(ByteView(first->content).first(1000)));
  const auto addressed = addressed_to(first->content);
  ASSERT_TRUE(addressed);
  EXPECT_TRUE(addressed->opening);
  EXPECT_EQ(addressed->name.view().size(), 18U);
  EXPECT_FALSE(addressed_to({}));
}

}  // namespace
}  // namespace kitsune2::quic
