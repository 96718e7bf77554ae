// Direct paths: one node's view, with peers that answer as the test wants.
#include "transport/iroh/direct_paths.hpp"

#include <gtest/gtest.h>

#include <random>

#include "unit/transport/iroh/direct_judge.hpp"

namespace kitsune2::iroh {
namespace {

using namespace std::chrono_literals;
using tests::DirectJudge;

UdpAddress far(std::uint8_t host) { return UdpAddress::v4(8, 0, 0, host, 5000); }
UdpAddress near(std::uint8_t host) { return UdpAddress::v4(10, 0, 0, host, 5000); }
const std::vector<UdpAddress>& own() {
  static const std::vector<UdpAddress> out = {near(99), far(99)};
  return out;
}

class DirectPathsTest : public ::testing::Test {
 protected:
  void meet(DirectJudge::Id id, const std::vector<UdpAddress>& addresses) {
    judge.tell_ours(id, own());
    judge.hear_theirs(id, addresses);
    judge.pass(0s);
  }
  /// The last ping to the address is answered, after the round trip.
  void answer(const UdpAddress& at, Duration round_trip = 0s) {
    judge.pass(round_trip);
    for (std::size_t i = judge.pings.size(); i-- > 0;) {
      if (judge.pings[i].to != at) continue;
      judge.answer(i, at);
      judge.pass(0s);
      return;
    }
    FAIL() << "no ping to " << at.to_string();
  }
  static std::vector<std::size_t> sizes_of(const std::vector<DirectJudge::Ping>& pings) {
    std::vector<std::size_t> out;
    for (const auto& ping : pings) out.push_back(ping.size);
    return out;
  }
  std::size_t pings_to(const UdpAddress& at) const {
    return static_cast<std::size_t>(std::ranges::count(judge.pings, at, &DirectJudge::Ping::to));
  }
  /// A path that is used.
  void establish(const UdpAddress& at, Duration round_trip = 10ms) {
    meet(1, {at});
    answer(at, round_trip);
    answer(at, round_trip);
    ASSERT_EQ(judge.route(1), at);
  }
  /// Answers all pings to the path for a while.
  void live(const UdpAddress& at, Duration time) {
    const Time until = judge.now + time;
    std::size_t seen = judge.pings.size();
    while (judge.now < until) {
      judge.sent(1);
      judge.pass(10ms);
      for (; seen < judge.pings.size(); ++seen) {
        if (judge.pings[seen].to == at) judge.answer(seen, at);
      }
    }
  }

  struct Ways {
    Duration path, relay;
  };
  /// All pings are answered after the round trip of their way, while something is sent, or nothing.
  void run(const UdpAddress& at, const Ways& ways, Duration time, bool busy = true) {
    for (const Time until = judge.now + time; judge.now < until;) {
      if (busy && judge.route(1)) judge.sent(1);
      judge.pass(5ms);
      for (std::size_t i = judge.pings.size() - std::min<std::size_t>(judge.pings.size(), 3); i < judge.pings.size();
           ++i) {
        const auto& ping = judge.pings[i];
        if (ping.to == at && !ping.answered && judge.now - ping.at >= ways.path) judge.answer(i, at);
      }
      if (judge.relay_pings.empty()) continue;
      const auto& ping = judge.relay_pings.back();
      if (!ping.answered && judge.now - ping.at >= ways.relay) judge.answer_relay(judge.relay_pings.size() - 1);
    }
  }
  static constexpr Ways kSlowPath{100ms, 30ms}, kSlowRelay{30ms, 100ms};
  static constexpr Duration kNever = 1000h;

  DirectJudge judge{false};
};

TEST_F(DirectPathsTest, NothingIsSentBeforeBothHaveToldTheirAddresses) {
  judge.hear_theirs(1, {far(1)});
  judge.pass(1min);
  judge.tell_ours(2, own());
  judge.pass(1min);
  judge.ping_us(2, far(2), 37);
  judge.pass(1min);
  EXPECT_TRUE(judge.pings.empty());
  EXPECT_TRUE(judge.pongs.empty());
}

TEST_F(DirectPathsTest, AnAddressIsUsedAfterASmallAndALargePingWereAnswered) {
  meet(1, {far(1)});
  ASSERT_EQ(judge.pings.size(), 1U);
  EXPECT_EQ(judge.pings[0].size, DirectProbe::kBytes);
  answer(far(1), 10ms);
  EXPECT_FALSE(judge.route(1));
  ASSERT_EQ(judge.pings.size(), 2U);
  EXPECT_EQ(judge.pings[1].size, DirectJudge::kFull);
  answer(far(1), 10ms);
  EXPECT_EQ(judge.route(1), far(1));
}

TEST_F(DirectPathsTest, AnAddressThroughWhichNoDatagramOfQuicPassesIsNotUsed) {
  meet(1, {far(1)});
  answer(far(1), 10ms);
  judge.pass(20s);
  EXPECT_FALSE(judge.route(1));
  EXPECT_EQ(sizes_of(judge.pings), (std::vector<std::size_t>{37, 1452, 1452, 1200, 1200, 1200}));
}

TEST_F(DirectPathsTest, ALineForSmallDatagramsIsUsedForTheLargestThatItCarries) {
  for (const std::size_t largest : {1200U, 1231U, 1232U, 1252U, 1372U, 1392U, 1399U, 1432U, 1451U}) {
    judge.forget(1);
    judge.pings.clear();
    judge.relay_pings.clear();
    judge.carries[far(1)] = largest;
    meet(1, {far(1)});
    run(far(1), kSlowRelay, 3s);
    ASSERT_EQ(judge.route(1), far(1)) << "two pings are lost, 1.5 s";
    run(far(1), kSlowRelay, 10s);
    EXPECT_LE(judge.bytes(1), largest);
    EXPECT_GT(judge.bytes(1) + DatagramSize::kStep, largest);
    run(far(1), kSlowRelay, 1h, false);
    EXPECT_EQ(judge.route(1), far(1));
    EXPECT_LE(std::ranges::count(judge.pings, true, &DirectJudge::Ping::of_size), 150) << "in an hour";
  }
}

TEST_F(DirectPathsTest, APathForAllDatagramsIsNotSearched) {
  establish(far(1));
  run(far(1), kSlowRelay, 1h);
  EXPECT_EQ(judge.bytes(1), DirectJudge::kFull);
  EXPECT_EQ(std::ranges::count(judge.pings, true, &DirectJudge::Ping::of_size), 0);
}

TEST_F(DirectPathsTest, APathThatGetsSmallerIsLeftForAMomentAndUsedWithSmallerDatagrams) {
  establish(far(1));
  run(far(1), kSlowRelay, 5s);
  judge.carries[far(1)] = 1252;
  run(far(1), kSlowRelay, 3s);
  EXPECT_EQ(judge.route(1), far(1)) << "a ping each second, and two that wait for 0.3 and 0.6 s";
  EXPECT_LE(judge.bytes(1), 1252U);
  run(far(1), kSlowRelay, 10s);
  EXPECT_EQ(judge.bytes(1), 1252U);
  judge.carries.clear();
  run(far(1), kSlowRelay, 10min);
  EXPECT_EQ(judge.bytes(1), DirectJudge::kFull) << "it is searched again";
}

TEST_F(DirectPathsTest, APathThatWasGoneHasItsSizeAgainAfterOneMoreRoundTrip) {
  establish(far(1));
  run(far(1), kSlowRelay, 5s);
  const Ways dead{kNever, 100ms};
  run(far(1), dead, 3s);
  ASSERT_FALSE(judge.route(1));
  for (int i = 0; i < 1000 && !judge.route(1); ++i) run(far(1), kSlowRelay, 5ms);
  ASSERT_EQ(judge.route(1), far(1));
  EXPECT_EQ(judge.bytes(1), DatagramSize::kBase);
  run(far(1), kSlowRelay, 40ms);
  EXPECT_EQ(judge.bytes(1), DirectJudge::kFull);
}

TEST_F(DirectPathsTest, NothingIsSearchedOnAPathThatDoesNotAnswer) {
  judge.carries[far(1)] = 1300;
  meet(1, {far(1)});
  run(far(1), kSlowRelay, 29s);
  ASSERT_EQ(judge.bytes(1), 1292U);
  judge.carries[far(1)] = 0;
  run(far(1), {kNever, 100ms}, 3s);
  ASSERT_FALSE(judge.route(1));
  const auto searched = std::ranges::count(judge.pings, true, &DirectJudge::Ping::of_size);
  run(far(1), {kNever, 100ms}, 10min);
  EXPECT_EQ(std::ranges::count(judge.pings, true, &DirectJudge::Ping::of_size), searched);
}

TEST_F(DirectPathsTest, AnAnswerFromElsewhereDoesNotRaiseTheSize) {
  judge.carries[far(1)] = 1200;
  meet(1, {far(1), far(2)});
  run(far(1), kSlowRelay, 3s);
  ASSERT_EQ(judge.route(1), far(1));
  judge.carries.clear();
  for (std::size_t i = 0; i < judge.pings.size(); ++i) {
    if (!judge.pings[i].of_size) continue;
    judge.answer(i, far(2));
    judge.answer(i, far(1), {.pinger = DirectJudge::endpoint_of(2), .pinged = DirectJudge::endpoint_of(1)});
  }
  EXPECT_EQ(judge.bytes(1), DatagramSize::kBase);
}

TEST_F(DirectPathsTest, AnAddressThatDoesNotAnswerGetsAFewPackets) {
  meet(1, {far(1)});
  judge.pass(29s);
  EXPECT_EQ(pings_to(far(1)), 3U);
  judge.pass(1h);
  EXPECT_LE(pings_to(far(1)), 36U);
  EXPECT_GE(pings_to(far(1)), 20U);
  for (const auto& ping : judge.pings) EXPECT_EQ(ping.size, DirectProbe::kBytes);
}

TEST_F(DirectPathsTest, ManyAddressesOfOnePeerShareABudget) {
  std::vector<UdpAddress> told;
  for (std::uint8_t i = 0; i < 12; ++i) told.push_back(far(i));
  meet(1, told);
  judge.pass(40s);
  EXPECT_GE(judge.pings.size(), DirectPaths::kPeerBudget);
  EXPECT_LE(judge.pings.size(), DirectPaths::kPeerBudget + 9);
}

TEST_F(DirectPathsTest, APeerThatComesAgainHasWhatIsLeftOfItsBudget) {
  for (std::uint8_t round = 0; round < 20; ++round) {
    std::vector<UdpAddress> told;
    for (std::uint8_t i = 0; i < 8; ++i) told.push_back(far(static_cast<std::uint8_t>(round * 8 + i)));
    meet(1, told);
    judge.pass(1s);
    judge.forget(1);
  }
  EXPECT_GE(judge.pings.size(), DirectPaths::kPeerBudget);
  EXPECT_LE(judge.pings.size(), DirectPaths::kPeerBudget + 5);
  // What has come back meanwhile is all of it.
  judge.pass(DirectPaths::kRemember + 5s);
  const std::size_t before = judge.pings.size();
  meet(1, {far(1), far(2), far(3), far(4), far(5), far(6), far(7), far(8)});
  judge.pass(4s);
  EXPECT_EQ(judge.pings.size(), before + DirectPaths::kPeerBudget);
}

TEST_F(DirectPathsTest, WhoWaitsForTheBudgetOfAllKeepsItsOwn) {
  std::vector<UdpAddress> told, last;
  for (std::uint8_t i = 0; i < 8; ++i) told.push_back(far(i));
  for (std::uint8_t i = 0; i < 8; ++i) last.push_back(far(static_cast<std::uint8_t>(100 + i)));
  const auto pings_to_last = [&] {
    return std::ranges::count_if(judge.pings, [](const auto& ping) { return ping.peer == 61; });
  };
  for (DirectJudge::Id id = 1; id <= 60; ++id) meet(id, told);
  meet(61, last);
  judge.pass(22s);
  ASSERT_EQ(pings_to_last(), 0) << "the others take everything";
  for (DirectJudge::Id id = 1; id <= 60; ++id) judge.forget(id);
  judge.pass(15s);
  EXPECT_GE(pings_to_last(), DirectPaths::kPeerBudget);
}

TEST_F(DirectPathsTest, AnotherOfferOfTheSameConnectionIsNotHeard) {
  meet(1, {far(1)});
  judge.pass(10s);
  ASSERT_EQ(pings_to(far(1)), 3U);
  for (std::uint8_t i = 0; i < 100; ++i) {
    judge.hear_theirs(1, i % 2 == 0 ? std::vector<UdpAddress>{far(2)} : std::vector<UdpAddress>{far(1)});
    judge.pass(100ms);
  }
  EXPECT_EQ(judge.pings.size(), 3U) << "the first one rests, and the second one is not tried";
}

TEST_F(DirectPathsTest, ManyPeersShareABudget) {
  for (DirectJudge::Id id = 1; id < 60; ++id) meet(id, {far(1), far(2), far(3)});
  EXPECT_LE(judge.pings.size(), DirectPaths::kTotalBudget);
  judge.pass(1s);
  EXPECT_LE(judge.pings.size(), DirectPaths::kTotalBudget + 16);
}

TEST_F(DirectPathsTest, SenselessAddressesGetNothing) {
  meet(1, {UdpAddress::v4(8, 8, 8, 8, 53), UdpAddress::v4(224, 0, 0, 1, 5000), UdpAddress::v4(255, 255, 255, 255, 5000),
           UdpAddress::v4(127, 0, 0, 1, 5000), UdpAddress::v4(8, 8, 8, 8, 0)});
  judge.pass(1h);
  EXPECT_TRUE(judge.pings.empty());
}

TEST_F(DirectPathsTest, PrivateAddressesAreTriedOnlyFromAPrivateNetwork) {
  judge.tell_ours(1, {far(99)});
  judge.hear_theirs(1, {near(1)});
  judge.pass(1min);
  EXPECT_TRUE(judge.pings.empty());
  judge.tell_ours(2, own());
  judge.hear_theirs(2, {near(1)});
  judge.pass(1min);
  EXPECT_FALSE(judge.pings.empty());
}

TEST(DirectPaths, WhereTheRelayIsOnLoopbackNothingElseIsToldOrTried) {
  DirectJudge judge(true);
  judge.tell_ours(1, {near(99), far(99), UdpAddress::v4(127, 0, 0, 1, 4000)});
  EXPECT_EQ(judge.paths().offer_to(1, DirectJudge::endpoint_of(1), {}, judge.now).addresses,
            (std::vector<UdpAddress>{UdpAddress::v4(127, 0, 0, 1, 4000)}));
  judge.hear_theirs(1, {near(1), far(1), UdpAddress::v4(127, 0, 0, 1, 5000)});
  judge.pass(10s);
  for (const auto& ping : judge.pings) EXPECT_EQ(ping.to, UdpAddress::v4(127, 0, 0, 1, 5000));
  EXPECT_EQ(judge.pings.size(), 3U);
}

TEST_F(DirectPathsTest, AnAnswerFromElsewhereOrToAnEarlierPingDoesNotCount) {
  meet(1, {far(1)});
  judge.answer(0, far(2));
  judge.pass(600ms);
  ASSERT_EQ(judge.pings.size(), 2U);
  judge.answer(0, far(1));
  judge.pass(0s);
  EXPECT_EQ(judge.pings.size(), 2U);
  judge.answer(1, far(1));
  judge.pass(0s);
  ASSERT_EQ(judge.pings.size(), 3U);
  EXPECT_EQ(judge.pings[2].size, DirectJudge::kFull);
}

TEST_F(DirectPathsTest, WhatIsNotMadeWithTheKeyOfAnOfferIsNotHeard) {
  meet(1, {far(1)});
  const auto theirs = DirectJudge::offer_of(1, {});
  const auto ours = judge.paths().offer_to(1, DirectJudge::endpoint_of(1), {}, judge.now);
  // Both as an observer of the network would make them.
  judge.raw(far(1),
            encode_probe({DirectProbe::Kind::pong, theirs.name, judge.pings[0].nonce}, DirectJudge::to_peer(1), {}, 0));
  judge.raw(far(5), encode_probe({DirectProbe::Kind::ping, ours.name, {}}, DirectJudge::to_us(1), {}, 0));
  judge.pass(0s);
  EXPECT_EQ(judge.pings.size(), 1U);
  EXPECT_TRUE(judge.pongs.empty());
}

/// Two nodes that send each other everything, and a third one, with which both have a connection, between them.
class Passed {
 public:
  static constexpr std::uint8_t kA = 1, kB = 2;
  /// What each has told the peer of its connection 1 is told to the other as the offer of `to_a` and of `to_b`.
  Passed(std::uint8_t to_a, std::uint8_t to_b) {
    const DirectOffer of_a = a_.offer_to(1, DirectJudge::endpoint_of(to_a), {far(kA)}, now_);
    const DirectOffer of_b = b_.offer_to(1, DirectJudge::endpoint_of(to_b), {far(kB)}, now_);
    a_.on_offer(1, DirectJudge::endpoint_of(to_a), of_b, now_);
    b_.on_offer(1, DirectJudge::endpoint_of(to_b), of_a, now_);
    for (int i = 0; i < 1000; ++i) {
      a_.on_deadline(now_);
      b_.on_deadline(now_);
      carry(a_, far(kA), b_);
      carry(b_, far(kB), a_);
      now_ += 100ms;
    }
  }
  bool has_path() const { return a_.route(1) || b_.route(1); }
  std::size_t pongs = 0;

 private:
  void carry(DirectPaths& from, const UdpAddress& at, DirectPaths& to) {
    while (const auto packet = from.next_packet()) {
      pongs += decode_probe(packet->content)->kind == DirectProbe::Kind::pong ? 1U : 0U;
      to.on_probe(at, packet->content, now_);
    }
  }
  static void draw(std::span<std::uint8_t> out) {
    static std::mt19937_64 engine(1);
    for (std::uint8_t& byte : out) byte = static_cast<std::uint8_t>(engine());
  }
  DirectPaths a_{draw, DirectJudge::endpoint_of(kA), false, DirectJudge::kFull};
  DirectPaths b_{draw, DirectJudge::endpoint_of(kB), false, DirectJudge::kFull};
  Time now_{100s};
};

TEST(DirectPaths, AnOfferThatAPeerPassesOnAsItsOwnLeadsNowhere) {
  EXPECT_TRUE(Passed(Passed::kB, Passed::kA).has_path()) << "as they are";
  // A third node tells each the offer of the other one.
  const Passed passed(3, 3);
  EXPECT_FALSE(passed.has_path());
  EXPECT_EQ(passed.pongs, 0U);
}

TEST_F(DirectPathsTest, AnAnswerThatIsForSomebodyElseDoesNotCount) {
  meet(1, {far(1)});
  const EndpointId us = DirectJudge::endpoint_of(DirectJudge::kOwn), peer = DirectJudge::endpoint_of(1),
                   other = DirectJudge::endpoint_of(2);
  const ProbeEnds all[] = {{us, other}, {other, peer}, {peer, us}, {peer, other}, {other, us}};
  for (const ProbeEnds& ends : all) judge.answer(0, far(1), ends);
  judge.ping_us_as(other, 1, far(1));
  judge.pass(0s);
  EXPECT_EQ(judge.pings.size(), 1U);
  EXPECT_TRUE(judge.pongs.empty());
  answer(far(1));
  EXPECT_EQ(judge.pings.size(), 2U);
}

TEST_F(DirectPathsTest, APingIsAnsweredAndItsSenderIsTried) {
  meet(1, {});
  judge.ping_us(1, far(7), 1452);
  judge.pass(0s);
  ASSERT_EQ(judge.pongs.size(), 1U);
  ASSERT_EQ(judge.pings.size(), 1U);
  EXPECT_EQ(judge.pings[0].to, far(7));
  judge.ping_us(1, far(8), 37);
  judge.ping_us(1, far(9), 37);
  judge.pass(1min);
  EXPECT_EQ(pings_to(far(7)), 1U) << "two senders are remembered";
}

TEST_F(DirectPathsTest, PingsThatOvertakeTheOfferAreAnsweredWhenItComes) {
  judge.tell_ours(1, own());
  for (int i = 0; i < 3; ++i) judge.ping_us(1, far(1), 37);
  judge.ping_us(1, UdpAddress::v4(127, 0, 0, 1, 5000), 37);
  for (std::uint8_t host = 2; host < 50; ++host) judge.ping_us(1, far(host), 1452);
  EXPECT_TRUE(judge.pongs.empty());
  judge.hear_theirs(1, {far(1)});
  EXPECT_EQ(std::ranges::count(judge.pongs, far(1), &DirectJudge::Pong::to), 1);
  EXPECT_EQ(judge.pongs.size(), DirectOffer::kMaxAddresses - 1) << "and no loopback";
  judge.hear_theirs(1, {far(1)});
  EXPECT_EQ(judge.pongs.size(), DirectOffer::kMaxAddresses - 1);
}

TEST_F(DirectPathsTest, AFloodOfPingsIsAnsweredAtARate) {
  meet(1, {});
  for (int i = 0; i < 1000; ++i) {
    judge.ping_us(1, far(7), 37);
    judge.pass(1ms);
  }
  EXPECT_LE(judge.pongs.size(), 32U + 17U);
  EXPECT_LE(judge.pings.size(), DirectPaths::kPeerBudget);
}

TEST_F(DirectPathsTest, TheFirstPathIsUsedUntilAClearlyBetterOneAnswers) {
  meet(1, {far(1), far(2), far(3)});
  answer(far(1), 100ms);
  answer(far(1), 100ms);
  EXPECT_EQ(judge.route(1), far(1));
  answer(far(2), 10ms);
  answer(far(2), 90ms);
  EXPECT_EQ(judge.route(1), far(1)) << "not clearly better";
  answer(far(3), 10ms);
  answer(far(3), 10ms);
  EXPECT_EQ(judge.route(1), far(3));
  const std::size_t before = judge.pings.size();
  judge.pass(100ms);
  EXPECT_EQ(judge.pings.size(), before) << "the others rest";
}

TEST_F(DirectPathsTest, APathThatDiesIsLeftSoonAndThePeerIsReachedByTheRelay) {
  establish(far(1));
  live(far(1), 5s);
  ASSERT_EQ(judge.route(1), far(1));
  judge.sent(1);
  judge.pass(3s);
  EXPECT_FALSE(judge.route(1));
}

TEST_F(DirectPathsTest, APathThatIsBackIsUsedAgain) {
  establish(far(1));
  judge.sent(1);
  judge.pass(4s);
  ASSERT_FALSE(judge.route(1));
  judge.pass(2s);
  answer(far(1));
  EXPECT_EQ(judge.route(1), far(1));
}

TEST_F(DirectPathsTest, ADeadPathIsGivenUpAndAllAddressesAreTried) {
  meet(1, {far(1), far(2)});
  answer(far(1), 10ms);
  answer(far(1), 10ms);
  judge.pass(5s);
  const std::size_t before = pings_to(far(2));
  for (int i = 0; i < 200 && pings_to(far(2)) == before; ++i) judge.pass(100ms);
  ASSERT_GT(pings_to(far(2)), before);
  answer(far(2), 0s);
  answer(far(2), 10ms);
  EXPECT_EQ(judge.route(1), far(2));
}

TEST_F(DirectPathsTest, AnIdlePathIsPingedSeldomAndABusyOneEachSecond) {
  establish(far(1));
  std::size_t before = judge.pings.size();
  for (int i = 0; i < 60; ++i) {
    judge.pass(1s);
    answer(far(1));
  }
  EXPECT_LE(judge.pings.size() - before, 14U);
  before = judge.pings.size();
  live(far(1), 60s);
  EXPECT_GE(judge.pings.size() - before, 50U);
  EXPECT_LE(judge.pings.size() - before, 70U);
}

TEST_F(DirectPathsTest, AForgedUnreachableCostsAPingAndThePathStaysInUse) {
  establish(far(1));
  judge.pass(500ms);
  const std::size_t before = judge.pings.size();
  for (int i = 0; i < 100; ++i) judge.unreachable(far(1));
  judge.pass(0s);
  EXPECT_EQ(judge.pings.size(), before + 1);
  // That one is lost: still as if nobody had said anything.
  judge.pass(350ms);
  EXPECT_EQ(judge.pings.size(), before + 2);
  for (int i = 0; i < 100; ++i) judge.unreachable(far(1));
  EXPECT_EQ(judge.route(1), far(1));
  answer(far(1), 10ms);
  for (int i = 0; i < 10'000; ++i) {
    judge.unreachable(far(1));
    live(far(1), 10ms);
    ASSERT_EQ(judge.route(1), far(1)) << i;
  }
  EXPECT_LE(judge.pings.size() - before, 340U) << "in 100 s";
}

TEST_F(DirectPathsTest, WhereNobodyListensAnyMoreAnIdlePathIsLeftSooner) {
  establish(far(1));
  judge.pass(1s);
  answer(far(1), 10ms);
  judge.pass(500ms);
  judge.unreachable(far(1));
  judge.pass(1s);
  EXPECT_FALSE(judge.route(1)) << "the next ping was due after 5 s";
}

TEST_F(DirectPathsTest, APathThatComesAndGoesIsGivenUpForAMinute) {
  establish(far(1));
  const auto lose = [&] {
    judge.sent(1);
    for (int i = 0; i < 100 && judge.route(1); ++i) judge.pass(100ms);
    ASSERT_FALSE(judge.route(1));
  };
  for (int i = 0; i < 2; ++i) {
    lose();
    answer(far(1), 0ms);
    ASSERT_EQ(judge.route(1), far(1));
  }
  lose();
  const std::size_t before = judge.pings.size();
  for (int i = 0; i < 59; ++i) {
    judge.pass(1s);
    judge.ping_us(1, far(1), 37);
  }
  EXPECT_EQ(judge.pings.size(), before) << "also if the peer asks";
  EXPECT_FALSE(judge.route(1));
  judge.pass(2s);
  EXPECT_GT(judge.pings.size(), before);
}

TEST_F(DirectPathsTest, ARelayThatIsClearlyFasterIsUsedUntilItIsNot) {
  establish(far(1), 100ms);
  run(far(1), kSlowPath, 3s);
  EXPECT_EQ(judge.route(1), far(1)) << "not after three answers";
  run(far(1), kSlowPath, 7s);
  EXPECT_FALSE(judge.route(1));
  run(far(1), kSlowPath, 10min);
  EXPECT_FALSE(judge.route(1));
  run(far(1), kSlowRelay, 30s);
  EXPECT_EQ(judge.route(1), far(1));
  run(far(1), kSlowRelay, 10min);
  EXPECT_EQ(judge.route(1), far(1));
  EXPECT_EQ(judge.yields + judge.returns, 2U);
}

TEST_F(DirectPathsTest, APathThatIsALittleSlowerThanTheRelayStaysInUse) {
  establish(far(1), 60ms);
  run(far(1), {60ms, 30ms}, 10min);
  EXPECT_EQ(judge.route(1), far(1));
  EXPECT_EQ(judge.yields, 0U);
}

TEST_F(DirectPathsTest, APathIsNotLeftIfSomeOfItsAnswersAreFast) {
  establish(far(1), 100ms);
  for (int i = 0; i < 60; ++i) {
    run(far(1), kSlowPath, 2s);
    run(far(1), {10ms, 30ms}, 2s);
  }
  EXPECT_EQ(judge.yields, 0U) << "what this node sends may have delayed the other ones";
}

TEST_F(DirectPathsTest, TwoWaysThatAreSlowInTurnAreChangedSeldom) {
  establish(far(1), 100ms);
  for (int i = 0; i < 180; ++i) run(far(1), i % 2 == 0 ? kSlowPath : kSlowRelay, 20s);
  EXPECT_GE(judge.yields, 3U);
  EXPECT_LE(judge.yields + judge.returns, 15U) << "30 s, 1, 2, 4, 8, 10 min, for either, in an hour";
}

TEST_F(DirectPathsTest, WhenTheRelayIsLostThePathIsUsedAtOnce) {
  establish(far(1), 100ms);
  run(far(1), kSlowPath, 10s);
  ASSERT_FALSE(judge.route(1));
  judge.lose_relay();
  EXPECT_EQ(judge.route(1), far(1));
}

TEST_F(DirectPathsTest, WhenNothingComesThroughTheRelayThePathIsUsedAgain) {
  establish(far(1), 100ms);
  run(far(1), kSlowPath, 10s);
  ASSERT_FALSE(judge.route(1));
  run(far(1), {100ms, kNever}, 20s);
  EXPECT_EQ(judge.route(1), far(1));
}

TEST_F(DirectPathsTest, ASlowPathThatDiesIsGivenUpAsAnyOther) {
  meet(1, {far(1), far(2)});
  for (int i = 0; i < 2; ++i) answer(far(1), 100ms);
  run(far(1), kSlowPath, 10s);
  ASSERT_FALSE(judge.route(1));
  const std::size_t before = pings_to(far(2));
  for (int i = 0; i < 300 && pings_to(far(2)) == before; ++i) run(far(1), {kNever, 30ms}, 100ms);
  ASSERT_GT(pings_to(far(2)), before);
  answer(far(2), 10ms);
  answer(far(2), 10ms);
  EXPECT_EQ(judge.route(1), far(2));
}

TEST_F(DirectPathsTest, FewPingsGoThroughTheRelayAndNoneWithoutAPath) {
  meet(1, {far(1)});
  judge.pass(1h);
  ASSERT_TRUE(judge.relay_pings.empty());
  judge.ping_us(1, far(1), 37);
  judge.pass(0s);
  for (int i = 0; i < 2; ++i) answer(far(1), 10ms);
  ASSERT_EQ(judge.route(1), far(1));
  run(far(1), kSlowRelay, 60s);
  EXPECT_GE(judge.relay_pings.size(), 12U);
  EXPECT_LE(judge.relay_pings.size(), 4U + 12U);
  const std::size_t before = judge.relay_pings.size();
  run(far(1), kSlowRelay, 10min, false);
  EXPECT_GE(judge.relay_pings.size() - before, 9U);
  EXPECT_LE(judge.relay_pings.size() - before, 11U);
}

TEST_F(DirectPathsTest, APingThroughTheRelayIsAnsweredThereAndOnlyThePeers) {
  meet(1, {far(1)});
  const std::size_t before = judge.pings.size();
  judge.ping_us_by_relay(1);
  EXPECT_EQ(judge.pongs.size(), 1U);
  judge.ping_us_by_relay(1, DirectJudge::endpoint_of(2));
  EXPECT_EQ(judge.pongs.size(), 1U);
  for (int i = 0; i < 100; ++i) judge.ping_us_by_relay(1);
  EXPECT_LE(judge.pongs.size(), DirectPaths::kPongBudget + 1);
  EXPECT_EQ(judge.pings.size(), before) << "nobody is tried for it";
}

TEST_F(DirectPathsTest, AnAnswerThroughTheRelayCountsOnlyFromThePeer) {
  establish(far(1), 100ms);
  std::size_t seen = 0;
  for (int i = 0; i < 3000; ++i) {
    run(far(1), {100ms, kNever}, 5ms);
    for (; seen < judge.relay_pings.size(); ++seen) {
      judge.answer_relay(seen, DirectJudge::endpoint_of(2));
      // As the relay would make it, and as one of the other way.
      DirectProbe pong{DirectProbe::Kind::relay_pong, DirectJudge::offer_of(1, {}).name, judge.relay_pings[seen].nonce};
      judge.raw_by_relay(DirectJudge::endpoint_of(1), encode_probe(pong, DirectJudge::to_peer(1), {}, 0));
      pong.kind = DirectProbe::Kind::pong;
      judge.raw_by_relay(DirectJudge::endpoint_of(1),
                         encode_probe(pong, DirectJudge::to_peer(1), DirectJudge::offer_of(1, {}).key, 0));
    }
  }
  EXPECT_EQ(judge.route(1), far(1));
  EXPECT_EQ(judge.yields, 0U);
}

TEST_F(DirectPathsTest, WhatIsForgottenIsNotSentTo) {
  establish(far(1));
  meet(2, {far(2)});
  judge.forget(1);
  judge.forget(2);
  const std::size_t before = judge.pings.size();
  judge.pass(1h);
  EXPECT_EQ(judge.pings.size(), before);
  EXPECT_EQ(judge.paths().size(), 0U);
}

TEST(DirectPaths, TheJudgeAgreesAfterEveryStepOfRandomRuns) {
  std::uint64_t routes = 0, yields = 0, returns = 0, small = 0, raised = 0;
  for (unsigned seed = 1; seed <= 200; ++seed) {
    std::mt19937_64 engine(seed);
    const auto pick = [&](std::uint64_t below) { return engine() % below; };
    DirectJudge judge(false);
    const auto address = [&] {
      const auto host = static_cast<std::uint8_t>(pick(6));
      return pick(2) == 0 ? far(host) : near(host);
    };
    const std::uint64_t honest = pick(100);
    const auto new_line = [&] {
      const std::size_t sizes[] = {1200, 1252, 1300, 1392, 1452, 1199, 600};
      const UdpAddress at = address();
      judge.carries[at] = pick(2) == 0 ? sizes[pick(std::size(sizes))] : 1200 + pick(300);
    };
    for (std::uint64_t i = seed % 2 == 0 ? 0 : pick(8); i > 0; --i) new_line();
    for (int step = 0; step < 300; ++step) {
      const DirectJudge::Id id = 1 + pick(3);
      switch (pick(15)) {
        case 0:
          judge.tell_ours(id, pick(2) == 0 ? own() : std::vector<UdpAddress>{far(99)});
          break;
        case 1: {
          std::vector<UdpAddress> told;
          for (std::uint64_t i = pick(5); i > 0; --i) told.push_back(address());
          judge.hear_theirs(id, told);
          break;
        }
        case 2:
          judge.ping_us(id, address(), 37 + pick(1500));
          break;
        case 3:
          if (pick(4) == 0) judge.unreachable(address());
          break;
        case 4:
          if (pick(10) == 0) judge.forget(id);
          if (seed % 2 != 0 && pick(2) == 0) new_line();
          break;
        case 5:
          judge.sent(id);
          break;
        case 6:
          if (!judge.pings.empty()) judge.answer(pick(judge.pings.size()), address());
          break;
        case 7:
          // The owner of an offer that was passed on, to whom the pings of a third node are those of `id`.
          if (!judge.pings.empty() && pick(2) == 0) {
            const auto& last = judge.pings.back();
            judge.answer(judge.pings.size() - 1, last.to,
                         {.pinger = DirectJudge::endpoint_of(last.peer), .pinged = DirectJudge::endpoint_of(50)});
          } else {
            judge.ping_us_as(DirectJudge::endpoint_of(50), id, address());
          }
          break;
        case 8:
          if (pick(3) == 0) judge.lose_relay();
          judge.ping_us_by_relay(id, DirectJudge::endpoint_of(pick(2) == 0 ? id : 1 + pick(3)));
          break;
        case 9: {
          // A while in which the ways have round trips of their own.
          const Duration path = 1ms * pick(300), relay = pick(5) == 0 ? 1000h : 1ms * pick(150);
          for (std::uint64_t i = pick(250); i > 0; --i) {
            if (pick(2) == 0) judge.sent(id);
            judge.pass(20ms + 1ms * pick(80));
            const auto is_due = [&](const auto& ping, Duration after) {
              return !ping.answered && judge.now - ping.at >= after && pick(100) < 50 + honest / 2;
            };
            for (std::size_t n = judge.pings.size() - std::min<std::size_t>(judge.pings.size(), 6);
                 n < judge.pings.size(); ++n) {
              if (is_due(judge.pings[n], path)) judge.answer(n, judge.pings[n].to);
            }
            for (std::size_t n = judge.relay_pings.size() - std::min<std::size_t>(judge.relay_pings.size(), 3);
                 n < judge.relay_pings.size(); ++n) {
              if (is_due(judge.relay_pings[n], relay)) judge.answer_relay(n);
            }
          }
          break;
        }
        default: {
          const std::size_t before = judge.pings.size(), relayed = judge.relay_pings.size();
          judge.pass(std::chrono::microseconds(1) * (1U << pick(24)));
          for (std::size_t i = before > 3 ? before - 3 : 0; i < judge.pings.size(); ++i) {
            if (pick(100) < honest) judge.answer(i, judge.pings[i].to);
          }
          for (std::size_t i = relayed > 3 ? relayed - 3 : 0; i < judge.relay_pings.size(); ++i) {
            if (pick(100) < honest) judge.answer_relay(i);
          }
          break;
        }
      }
      for (DirectJudge::Id peer = 1; peer <= 3; ++peer) {
        if (!judge.route(peer)) continue;
        ++routes;
        small += judge.bytes(peer) == DatagramSize::kBase ? 1 : 0;
        raised += judge.bytes(peer) > DatagramSize::kBase && judge.bytes(peer) < DirectJudge::kFull ? 1 : 0;
      }
    }
    yields += judge.yields;
    returns += judge.returns;
  }
  EXPECT_GT(routes, 1000U) << "the runs are worth something";
  EXPECT_GT(yields, 100U);
  EXPECT_GT(returns, 10U);
  EXPECT_GT(small, 100U);
  EXPECT_GT(raised, 100U);
}

}  // namespace
}  // namespace kitsune2::iroh
