// The relay core: handshake, routes, rates, slow receivers.
#include "relay_harness.hpp"

namespace kitsune2::server {
namespace {

TEST(RelayCore, HandshakeFramesAreThoseOfTheWirePage) {
  World w(reference_limits());
  RelayCore::Nonce nonce;
  const Bytes captured = unhex("2ba62ba3831429c2cd27b3026b7c2578890cfe01567537c7c7cc075bbc5a7434");
  std::copy(captured.begin(), captured.end(), nonce.begin());
  EXPECT_EQ(to_hex(kA.id), "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c");
  ASSERT_EQ(w.core.on_open(7, ip(1), kA.id, nonce, w.now), std::nullopt);
  w.take();
  ASSERT_EQ(w.sent[7].size(), 2U);
  EXPECT_EQ(to_hex(w.sent[7][0]), "000000000000000000000000000000000000000000000000000000006c62727400001f40");
  EXPECT_EQ(
      to_hex(w.sent[7][1]),
      "00000000000000000000000000000000000000000000000000000000617265712ba62ba3831429c2cd27b3026b7c2578890cfe015675"
      "37c7c7cc075bbc5a7434");
  EXPECT_EQ(
      w.message(7, unhex("00000000000000000000000000000000000000000000000000000000617265730364cdb79a3c86e5d6c833d3"
                         "d1b34d874e0b85cbe83c845ae01995589a173b2e4e9ab9210b8ac007a3986fcf7a5c2c05f9de09b60cb845"
                         "c76dbbb7f353d97303"))
          .verdict,
      Verdict::taken);
  ASSERT_EQ(w.sent[7].size(), 4U);
  EXPECT_EQ(to_hex(w.sent[7][2]), "000000000000000000000000000000000000000000000000000000006c69646c00002710");
  EXPECT_EQ(to_hex(w.sent[7][3]), "0000000000000000000000000000000000000000000000000000000073726479");
  EXPECT_EQ(w.core.counters().handshakes.get(), 1U);
}

TEST(RelayCore, ForwardGoesToTheKeyInTheHeaderWithTheSendersKey) {
  World w;
  const auto a = w.ready(kA);
  const auto b = w.ready(kB);
  const auto routed = w.forward(a, kB, 100);
  EXPECT_EQ(routed.verdict, Verdict::forward);
  EXPECT_EQ(routed.to, b);
  ASSERT_NE(routed.from_key, nullptr);
  EXPECT_EQ(*routed.from_key, kA.id);
  EXPECT_EQ(w.core.counters().forwards.get(), 1U);
  EXPECT_EQ(w.core.counters().forward_bytes.get(), 132U);
}

TEST(RelayCore, AForwardOfTheHeaderAloneAndToOneselfIsAllowed) {
  World w;
  const auto a = w.ready(kA);
  const auto routed = w.forward(a, kA, 0);
  EXPECT_EQ(routed.verdict, Verdict::forward);
  EXPECT_EQ(routed.to, a);
}

TEST(RelayCore, UnknownDestinationIsDroppedInSilence) {
  World w;
  const auto a = w.ready(kA);
  const std::size_t told = w.sent[a].size();
  EXPECT_EQ(w.forward(a, kB).verdict, Verdict::taken);
  EXPECT_EQ(w.core.counters().dropped_unknown.get(), 1U);
  EXPECT_EQ(w.sent[a].size(), told);
  EXPECT_TRUE(w.closed.empty());
}

TEST(RelayCore, ADestinationThatIsNotReadyIsUnknown) {
  World w;
  const auto a = w.ready(kA);
  w.open(kB);
  EXPECT_EQ(w.forward(a, kB).verdict, Verdict::taken);
  EXPECT_EQ(w.core.counters().dropped_unknown.get(), 1U);
}

TEST(RelayCore, BadSignatureCloses) {
  World w;
  const auto a = w.open(kA);
  EXPECT_EQ(w.answer(a, kB).verdict, Verdict::closed);
  EXPECT_EQ(w.closed[a], RelayReject::bad_signature);
  EXPECT_EQ(w.forward(a, kA).verdict, Verdict::closed);
  EXPECT_EQ(w.core.client_count(), 0U);
}

TEST(RelayCore, ASignatureOfAnOlderNonceCloses) {
  World w;
  const auto first = w.open(kA);
  const auto frame = *sbd::parse_frame(w.sent[first][1]);
  const Bytes response = sbd::encode_auth_response(sbd::sign_nonce(frame.body, kA.secret));
  const auto second = w.open(kA);
  EXPECT_EQ(w.message(second, response).verdict, Verdict::closed);
  EXPECT_EQ(w.closed[second], RelayReject::bad_signature);
}

TEST(RelayCore, AKeyThatReadsAsACommandIsRefused) {
  World w;
  KeyPair key;
  key.id = {};
  key.id[31] = 9;
  EXPECT_EQ(w.core.on_open(1, ip(1), key.id, {}, w.now), RelayReject::illegal_key);
  EXPECT_EQ(w.core.client_count(), 0U);
  key.id[27] = 1;
  EXPECT_EQ(w.core.on_open(2, ip(1), key.id, {}, w.now), std::nullopt);
}

TEST(RelayCore, AForwardBeforeReadyIsDroppedAndCloses) {
  World w;
  w.ready(kB);
  const auto a = w.open(kA);
  EXPECT_EQ(w.forward(a, kB).verdict, Verdict::closed);
  EXPECT_EQ(w.closed[a], RelayReject::early_forward);
  EXPECT_EQ(w.core.counters().forwards.get(), 0U);
}

TEST(RelayCore, AresAfterTheHandshakeCloses) {
  World w;
  const auto a = w.ready(kA);
  EXPECT_EQ(w.answer(a, kA).verdict, Verdict::closed);
  EXPECT_EQ(w.closed[a], RelayReject::late_response);
}

TEST(RelayCore, AnAresOfTheWrongLengthCloses) {
  for (const int more : {-1, 1}) {
    World w;
    const auto a = w.open(kA);
    std::vector<std::uint8_t> m(static_cast<std::size_t>(96 + more));
    std::copy_n("ares", 4, m.begin() + 28);
    EXPECT_EQ(w.message(a, m).verdict, Verdict::closed);
    EXPECT_EQ(w.closed[a], RelayReject::malformed);
  }
}

TEST(RelayCore, TooShortAndTooLongMessagesClose) {
  World w;
  const auto a = w.ready(kA);
  EXPECT_EQ(w.message(a, std::vector<std::uint8_t>(31, 1)).verdict, Verdict::closed);
  EXPECT_EQ(w.closed[a], RelayReject::malformed);
  const auto b = w.ready(kB);
  w.ready(kC);
  EXPECT_EQ(w.forward(b, kC, 20'000 - 32).verdict, Verdict::forward) << "exactly the limit";
  EXPECT_EQ(w.forward(b, kC, 20'001 - 32).verdict, Verdict::closed);
  EXPECT_EQ(w.closed[b], RelayReject::too_large);
}

TEST(RelayCore, UnknownCommandsAndServerCommandsAreIgnored) {
  World w;
  for (const bool before : {true, false}) {
    const auto a = before ? w.open(kA) : w.ready(kA);
    for (const char* name : {"keep", "lbrt", "areq", "lidl", "srdy", "zzzz"}) {
      for (const std::size_t size : {32U, 36U, 500U}) {
        std::vector<std::uint8_t> m(size);
        std::copy_n(name, 4, m.begin() + 28);
        EXPECT_EQ(w.message(a, m).verdict, Verdict::taken) << name;
      }
    }
    EXPECT_FALSE(w.closed.contains(a));
  }
}

TEST(RelayCore, HandshakeMustFinishWithinTheIdleLimit) {
  World w;
  const auto a = w.open(kA);
  const Time start = w.now;
  w.poll_at(start + seconds(10) - microseconds(1));
  EXPECT_FALSE(w.closed.contains(a));
  w.poll_at(start + seconds(10));
  EXPECT_EQ(w.closed[a], RelayReject::handshake_timeout);
}

TEST(RelayCore, AnIdleClientIsClosedAndKeepOrAForwardKeepsIt) {
  World w;
  const auto a = w.ready(kA);
  const auto b = w.ready(kB);
  const auto c = w.ready(kC);
  w.pass(seconds(9));
  w.message(a, sbd::encode_keepalive());
  w.forward(b, kA);
  w.pass(seconds(1) - microseconds(1));
  EXPECT_TRUE(w.closed.empty());
  w.pass(microseconds(1));
  EXPECT_EQ(w.closed.size(), 1U);
  EXPECT_EQ(w.closed[c], RelayReject::idle);
  w.pass(seconds(9) - microseconds(1));
  EXPECT_EQ(w.closed.size(), 1U);
  w.pass(microseconds(1));
  EXPECT_EQ(w.closed[a], RelayReject::idle);
  EXPECT_EQ(w.closed[b], RelayReject::idle);
}

TEST(RelayCore, PingsAreNoSignOfLifeButTheyCost) {
  World w(reference_limits());
  const auto a = w.ready(kA);
  for (int i = 0; i < 9; ++i) {
    w.pass(seconds(1));
    w.core.on_other_bytes(a, 100, w.now);
    w.take();
  }
  w.pass(seconds(1));
  EXPECT_EQ(w.closed[a], RelayReject::idle);
  const auto b = w.ready(kB);
  w.core.on_other_bytes(b, 262'145, w.now);
  w.take();
  EXPECT_EQ(w.closed[b], RelayReject::rate_limited);
}

TEST(RelayCore, TheBurstIsExactAndGoingOverItCloses) {
  World w(reference_limits());
  const auto a = w.ready(kA);
  w.ready(kB);
  w.pass(seconds(5));  // the handshake's bytes have leaked away
  w.message(a, sbd::encode_keepalive());
  std::size_t used = 32;
  while (used + 20'000 <= 262'144) {
    ASSERT_EQ(w.forward(a, kB, 20'000 - 32).verdict, Verdict::forward);
    used += 20'000;
  }
  ASSERT_EQ(w.forward(a, kB, 262'144 - used - 32).verdict, Verdict::forward);
  EXPECT_EQ(w.forward(a, kB, 0).verdict, Verdict::closed);
  EXPECT_EQ(w.closed[a], RelayReject::rate_limited);
}

TEST(RelayCore, TheBucketLeaksAtTheRate) {
  World w(reference_limits());
  const auto a = w.ready(kA);
  w.ready(kB);
  // 1000 bytes every 8 ms is exactly 1000 kbit/s: for ever.
  for (int i = 0; i < 5000; ++i) {
    w.pass(milliseconds(8));
    ASSERT_EQ(w.forward(a, kB, 968).verdict, Verdict::forward);
    w.core.on_queue(2, 0, w.now);
    w.message(2, sbd::encode_keepalive());
    w.pass(microseconds(256));  // what the keepalive costs
  }
  EXPECT_TRUE(w.closed.empty());
}

TEST(RelayCore, AnAddressSharesOneBucketAndOthersHaveTheirOwn) {
  World w(reference_limits());
  const auto a = w.ready(kA, 1);
  const auto b = w.ready(kB, 1);
  const auto c = w.ready(kC, 2);
  for (int i = 0; i < 13; ++i) ASSERT_NE(w.forward(a, kC, 19'968).verdict, Verdict::closed);
  EXPECT_EQ(w.forward(b, kC, 2'000).verdict, Verdict::closed) << "the neighbour used it up";
  EXPECT_EQ(w.closed[b], RelayReject::rate_limited);
  EXPECT_EQ(w.forward(c, kA, 19'968).verdict, Verdict::forward);
}

TEST(RelayCore, RateLimitingOffSaysOneAndNeverCloses) {
  RelayLimits limits;
  limits.rate_limiting = false;
  limits.send_queue_bytes = 1U << 30;
  World w(limits);
  const auto a = w.ready(kA);
  w.ready(kB);
  EXPECT_EQ(w.rates(a), std::vector<std::int32_t>{1});
  for (int i = 0; i < 2000; ++i) ASSERT_EQ(w.forward(a, kB, 19'968).verdict, Verdict::forward);
  w.pass(seconds(1));
  EXPECT_EQ(w.rates(a), std::vector<std::int32_t>{1});
}

TEST(RelayCore, TheNodeThatRunsTheRelayIsNotLimitedAndOthersAre) {
  RelayLimits limits = reference_limits();
  limits.send_queue_bytes = 1U << 30;
  World w(limits);
  const auto own = w.next++;
  EXPECT_TRUE(w.core.on_connect(RelayCore::kThisProcess, w.now));
  EXPECT_EQ(w.core.on_open(own, RelayCore::kThisProcess, kA.id, w.nonce(), w.now), std::nullopt);
  w.take();
  for (const Bytes& m : w.sent[own]) {
    const auto frame = sbd::parse_frame(m);
    if (frame->kind != sbd::FrameKind::auth_request) continue;
    w.message(own, sbd::encode_auth_response(sbd::sign_nonce(frame->body, kA.secret)));
    break;
  }
  const auto other = w.ready(kB);
  EXPECT_EQ(w.rates(own), std::vector<std::int32_t>{1});
  EXPECT_EQ(w.rates(other), std::vector<std::int32_t>{8000});
  for (int i = 0; i < 2000; ++i) ASSERT_EQ(w.forward(own, kB, 19'968).verdict, Verdict::forward);
  Verdict last = Verdict::forward;
  for (int i = 0; i < 100 && last == Verdict::forward; ++i) last = w.forward(other, kA, 19'968).verdict;
  EXPECT_EQ(last, Verdict::closed);
  EXPECT_EQ(w.closed.at(other), RelayReject::rate_limited);
  EXPECT_FALSE(w.closed.contains(own));
}

TEST(RelayCore, OurDefaultRateIsEightNanosecondsAByte) {
  World w;
  EXPECT_EQ(w.rates(w.ready(kA)), std::vector<std::int32_t>{8});
}

TEST(RelayCore, TheConnectionsOfAnAddressShareItsRateAndAllLearnIt) {
  World w(reference_limits());
  const auto a = w.ready(kA, 1);
  const auto b = w.ready(kB, 1);
  const auto other = w.ready(kC, 2);
  EXPECT_EQ(w.rates(a), (std::vector<std::int32_t>{8000}));
  EXPECT_EQ(w.rates(b), (std::vector<std::int32_t>{16'000}));
  w.pass(milliseconds(100));
  EXPECT_EQ(w.rates(a).back(), 16'000);
  w.core.on_close(b, w.now);
  w.take();
  w.pass(milliseconds(100));
  EXPECT_EQ(w.rates(a).back(), 8000) << "and it rises again";
  EXPECT_EQ(w.rates(other), std::vector<std::int32_t>{8000});
}

TEST(RelayCore, ManyNewConnectionsOfAnAddressCauseOneNewRate) {
  World w(reference_limits());
  for (std::uint8_t i = 1; i <= 100; ++i) w.open(KeyPair::seeded(i), 1);
  std::size_t before = 0;
  for (auto& [id, list] : w.sent) before += list.size();
  EXPECT_EQ(before, 200U) << "one lbrt and one areq each";
  w.pass(milliseconds(100));
  std::size_t after = 0;
  for (auto& [id, list] : w.sent) after += list.size();
  EXPECT_EQ(after, 300U) << "one more each, not one for each pair";
  EXPECT_EQ(w.rates(1).back(), 800'000);
}

TEST(RelayCore, ATcpConnectCostsOneByte) {
  World w(reference_limits());
  for (int i = 0; i < 262'144; ++i) ASSERT_TRUE(w.core.on_connect(ip(1), w.now));
  EXPECT_FALSE(w.core.on_connect(ip(1), w.now));
  EXPECT_TRUE(w.core.on_connect(ip(2), w.now));
  w.now += seconds(1);
  EXPECT_TRUE(w.core.on_connect(ip(1), w.now));
}

TEST(RelayCore, AddressesThatAreQuietAreForgotten) {
  World w(reference_limits());
  for (std::uint8_t i = 1; i < 200; ++i) w.core.on_connect(ip(i), w.now);
  const auto a = w.ready(kA, 200);
  EXPECT_EQ(w.core.address_count(), 200U);
  w.pass(seconds(6));
  EXPECT_EQ(w.core.address_count(), 1U);
  w.core.on_close(a, w.now);
  w.take();
  w.pass(seconds(6));
  EXPECT_EQ(w.core.address_count(), 0U);
  EXPECT_EQ(w.core.next_deadline(), std::nullopt);
}

TEST(RelayCore, TooManyClientsAreRefused) {
  RelayLimits limits;
  limits.clients = 2;
  World w(limits);
  const auto a = w.open(kA);
  w.open(kB);
  EXPECT_EQ(w.core.on_open(99, ip(1), kC.id, {}, w.now), RelayReject::limit_clients);
  w.core.on_close(a, w.now);
  EXPECT_EQ(w.core.on_open(99, ip(1), kC.id, {}, w.now), std::nullopt);
}

TEST(RelayCore, ANewConnectionWithTheSameKeyTakesOverOnceItHasProvenIt) {
  World w;
  const auto sender = w.ready(kB);
  const auto first = w.ready(kA);
  const auto second = w.open(kA);
  EXPECT_EQ(w.forward(sender, kA).to, first) << "asking is not proving";
  w.answer(second, kA);
  EXPECT_EQ(w.closed[first], RelayReject::taken_over);
  EXPECT_EQ(w.forward(sender, kA).to, second);
  w.core.on_close(first, w.now);  // the shell's late report
  w.take();
  EXPECT_EQ(w.forward(sender, kA).to, second);
}

TEST(RelayCore, AnImpostorDoesNotDisturbTheRealClient) {
  World w;
  const auto sender = w.ready(kB);
  const auto real = w.ready(kA);
  const auto impostor = w.open(kA, 2);
  w.answer(impostor, kC);
  EXPECT_EQ(w.closed[impostor], RelayReject::bad_signature);
  EXPECT_EQ(w.forward(sender, kA).to, real);
}

RelayLimits small_queue() {
  RelayLimits out;
  out.send_queue_bytes = 100'000;
  out.slow_receiver_bytes = 40'000;
  out.slow_receiver_millis = 2'000;
  return out;
}

/// Sends until the receiver's queue is full.
void fill(World& w, RelayCore::ConnId from, const KeyPair& to) {
  for (int i = 0; i < 1000; ++i) {
    if (w.forward(from, to, 9'964).verdict == Verdict::hold) return;
  }
  FAIL() << "never held";
}

TEST(RelayCore, AFullReceiverHoldsItsSendersAndNoOthers) {
  World w(small_queue());
  const auto a = w.ready(kA);
  w.ready(kB);
  const auto c = w.ready(kC);
  fill(w, a, kB);
  EXPECT_EQ(w.core.counters().forwards.get(), 10U);
  EXPECT_EQ(w.core.counters().sender_waits.get(), 1U);
  EXPECT_EQ(w.forward(c, kA).verdict, Verdict::forward);
  EXPECT_EQ(w.forward(c, kB).verdict, Verdict::hold);
  EXPECT_TRUE(w.resumed.empty());
  w.core.on_queue(2, 60'001, w.now);
  w.take();
  EXPECT_TRUE(w.resumed.empty());
  w.core.on_queue(2, 60'000, w.now);
  w.take();
  EXPECT_EQ(w.resumed, (std::vector<RelayCore::ConnId>{a, c})) << "in the order of waiting";
  EXPECT_EQ(w.forward(a, kB, 9'964).verdict, Verdict::forward);
}

TEST(RelayCore, AHeldMessageCostsOnce) {
  RelayLimits limits = small_queue();
  limits.ip_kbps = 1000;
  limits.ip_byte_burst = 150'000;
  World w(limits);
  const auto a = w.ready(kA, 1);
  w.ready(kB, 2);
  fill(w, a, kB);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(w.forward(a, kB, 9'964).verdict, Verdict::hold);
  w.core.on_queue(2, 0, w.now);
  w.take();
  EXPECT_EQ(w.forward(a, kB, 9'964).verdict, Verdict::forward);
}

TEST(RelayCore, AReceiverThatTakesNothingIsClosedAndItsSendersGoOn) {
  World w(small_queue());
  const auto a = w.ready(kA);
  const auto b = w.ready(kB);
  fill(w, a, kB);
  const Time held = w.now;
  w.poll_at(held + seconds(2) - microseconds(1));
  EXPECT_TRUE(w.closed.empty());
  w.poll_at(held + seconds(2));
  EXPECT_EQ(w.closed[b], RelayReject::slow_receiver);
  EXPECT_EQ(w.resumed, std::vector<RelayCore::ConnId>{a});
  EXPECT_EQ(w.forward(a, kB).verdict, Verdict::taken) << "unknown now";
}

TEST(RelayCore, ASlowButSteadyReceiverIsKeptAndHoldsForABoundedTime) {
  World w(small_queue());
  const auto a = w.ready(kA);
  const auto b = w.ready(kB);
  std::size_t queued = 0;
  Time held{};
  bool waiting = false;
  // 20 kB/s, the least that is allowed, for five minutes.
  for (int i = 0; i < 3000; ++i) {
    while (!waiting) {
      const auto routed = w.forward(a, kB, 9'964);
      ASSERT_NE(routed.verdict, Verdict::closed);
      if (routed.verdict == Verdict::hold) {
        waiting = true;
        held = w.now;
      } else {
        queued += 10'000;
      }
    }
    w.message(b, sbd::encode_keepalive());
    queued -= std::min<std::size_t>(queued, 2'000);
    w.core.on_queue(b, queued, w.now);
    w.take();
    if (!w.resumed.empty()) {
      w.resumed.clear();
      waiting = false;
      EXPECT_LE(w.now - held, seconds(2));
    }
    w.pass(milliseconds(100));
    ASSERT_TRUE(w.closed.empty()) << to_string(w.closed.begin()->second);
  }
}

TEST(RelayCore, AHeldSenderIsNotIdle) {
  RelayLimits limits = small_queue();
  limits.slow_receiver_millis = 60'000;
  World w(limits);
  const auto a = w.ready(kA);
  const auto b = w.ready(kB);
  fill(w, a, kB);
  for (int i = 0; i < 5; ++i) {
    w.pass(seconds(5));
    w.message(b, sbd::encode_keepalive());
  }
  EXPECT_TRUE(w.closed.empty());
  w.core.on_queue(b, 0, w.now);
  w.take();
  w.pass(seconds(5));
  w.message(b, sbd::encode_keepalive());
  EXPECT_TRUE(w.closed.empty()) << "its silence starts anew";
  w.pass(seconds(15));
  EXPECT_EQ(w.closed[a], RelayReject::idle);
}

TEST(RelayCore, WhenTheReceiverDisconnectsItsSendersContinue) {
  World w(small_queue());
  const auto a = w.ready(kA);
  const auto b = w.ready(kB);
  fill(w, a, kB);
  w.core.on_close(b, w.now);
  w.take();
  EXPECT_EQ(w.resumed, std::vector<RelayCore::ConnId>{a});
}

TEST(RelayCore, ASenderThatDisconnectsWhileHeldIsForgotten) {
  World w(small_queue());
  const auto a = w.ready(kA);
  const auto b = w.ready(kB);
  fill(w, a, kB);
  w.core.on_close(a, w.now);
  w.core.on_queue(b, 0, w.now);
  w.take();
  EXPECT_TRUE(w.resumed.empty());
}

TEST(RelayCore, UnknownConnectionsAreNoOps) {
  World w;
  w.core.on_close(5, w.now);
  w.core.on_queue(5, 1, w.now);
  w.core.on_other_bytes(5, 1, w.now);
  EXPECT_EQ(w.forward(5, kA).verdict, Verdict::closed);
  EXPECT_TRUE(w.sent.empty());
}

TEST(RelayCore, DeadlinesAreNeverMissedByOnePoll) {
  // Whatever happens, polling at each next_deadline ends; and a client that says nothing is gone after it.
  World w;
  for (std::uint8_t i = 1; i < 50; ++i) w.open(KeyPair::seeded(i), static_cast<std::uint8_t>(i % 3));
  int polls = 0;
  while (const auto next = w.core.next_deadline()) {
    ASSERT_GE(*next, w.now);
    w.poll_at(*next);
    ASSERT_LT(++polls, 1000);
  }
  EXPECT_EQ(w.core.client_count(), 0U);
  EXPECT_EQ(w.core.address_count(), 0U);
}

TEST(RelayCore, RandomPlayKeepsTheInvariants) {
  for (std::uint32_t seed = 1; seed <= 30; ++seed) {
    RelayLimits limits = small_queue();
    limits.clients = 12;
    limits.ip_kbps = 2000;
    World w(limits);
    std::mt19937 random(seed);
    std::vector<KeyPair> keys;
    for (std::uint8_t i = 1; i <= 6; ++i) keys.push_back(KeyPair::seeded(i));
    std::map<RelayCore::ConnId, std::size_t> conns;  // to their key
    for (int step = 0; step < 400; ++step) {
      const auto pick = [&](std::size_t n) { return random() % n; };
      std::erase_if(conns, [&](const auto& c) { return w.closed.contains(c.first); });
      const auto some = [&] {
        auto it = conns.begin();
        std::advance(it, static_cast<long>(pick(conns.size())));
        return *it;
      };
      const auto what = pick(10);
      if (conns.empty() || what == 0) {
        const std::size_t key = pick(keys.size());
        const auto id = w.next++;
        if (!w.core.on_open(id, ip(static_cast<std::uint8_t>(pick(3))), keys[key].id, w.nonce(), w.now))
          conns[id] = key;
      } else if (what == 1) {
        const auto [id, key] = some();
        w.take();
        w.answer(id, keys[pick(5) == 0 ? pick(keys.size()) : key]);
      } else if (what == 2) {
        w.core.on_close(some().first, w.now);
      } else if (what == 3) {
        w.pass(milliseconds(pick(1500)));
      } else if (what == 4) {
        w.core.on_queue(some().first, pick(100'000), w.now);
      } else {
        w.forward(some().first, keys[pick(keys.size())], pick(20'000));
      }
      w.take();
    }
  }
}

TEST(RelayCore, ALowerLimitClosesNobodyAndAppliesToNewClients) {
  World w;
  const auto a = w.ready(kA, 1);
  const auto b = w.ready(kB, 2);
  RelayLimits limits;
  limits.clients = 1;
  w.core.set_limits(limits, w.now);
  w.take();
  EXPECT_EQ(w.core.on_open(99, ip(3), kC.id, w.nonce(), w.now), RelayReject::limit_clients);
  EXPECT_EQ(w.forward(a, kB).to, b);
  EXPECT_TRUE(w.closed.empty());
  w.core.on_close(a, w.now);
  w.core.on_close(b, w.now);
  EXPECT_EQ(w.core.on_open(99, ip(3), kC.id, w.nonce(), w.now), std::nullopt);
}

TEST(RelayCore, ANewRateReachesAllAndTheBacklogOfTheOldOneIsForgiven) {
  World w(reference_limits());
  const auto a = w.ready(kA);
  ASSERT_EQ(w.rates(a), std::vector<std::int32_t>{8000});
  // A backlog of nearly the old burst: 2 s by the old rate.
  for (std::size_t sent = 0; sent + 20'000 < sbd::kBurstBytes; sent += 20'000) {
    EXPECT_EQ(w.forward(a, kB, 20'000 - sbd::kHeaderBytes).verdict, Verdict::taken);
  }
  w.core.set_limits(RelayLimits{}, w.now);  // by this rate 2 s are far more than its burst
  w.take();
  EXPECT_EQ(w.forward(a, kB).verdict, Verdict::taken);
  w.pass(milliseconds(100));
  EXPECT_EQ(w.rates(a), (std::vector<std::int32_t>{8000, 8}));
  EXPECT_EQ(w.rates(w.open(kB, 2)), std::vector<std::int32_t>{8});
  RelayLimits none;
  none.rate_limiting = false;
  w.core.set_limits(none, w.now);
  w.take();
  w.pass(milliseconds(100));
  EXPECT_EQ(w.rates(a), (std::vector<std::int32_t>{8000, 8, 1}));
  EXPECT_TRUE(w.closed.empty());
}

TEST(RelayCore, ALowerRateIsNotChargedToClientsThatKeptTheOldOne) {
  World w;  // 8 ns, 16 MiB
  const auto a = w.ready(kA, 1);
  const auto deaf = w.ready(kB, 2);
  const auto flood = w.ready(kC, 3);
  const std::size_t body = 20'000 - sbd::kHeaderBytes;
  const KeyPair nobody = KeyPair::seeded(9);
  const Time lowered = w.now;
  w.core.set_limits(reference_limits(), w.now);  // 8000 ns, 256 KiB
  w.take();
  // At the pace of the old rate until the new one is told, and as long again: it was under way.
  for (int i = 0; i < 1250; ++i) {
    w.pass(microseconds(160));
    ASSERT_EQ(w.forward(a, nobody, body).verdict, Verdict::taken) << i;
  }
  EXPECT_EQ(w.rates(a), (std::vector<std::int32_t>{8, 8000}));
  // Who goes over the old rate too is closed at once.
  for (int i = 0; i < 1000; ++i) w.forward(flood, nobody, body);
  EXPECT_EQ(w.closed, (std::map<RelayCore::ConnId, RelayReject>{{flood, RelayReject::rate_limited}}));
  // The same limits once more do not put it off.
  w.pass(seconds(5));
  w.core.set_limits(reference_limits(), w.now);
  w.poll_at(lowered + seconds(10) - microseconds(1));
  const auto burst_of_deaf = [&] {
    for (int i = 0; i < 14; ++i) w.forward(deaf, nobody, body);
  };
  EXPECT_EQ(w.forward(a, nobody, body).verdict, Verdict::taken);
  burst_of_deaf();
  EXPECT_FALSE(w.closed.contains(deaf));
  w.poll_at(lowered + seconds(10));
  burst_of_deaf();
  EXPECT_EQ(w.closed[deaf], RelayReject::rate_limited);
  for (int i = 0; i < 100; ++i) {
    w.pass(milliseconds(160));
    ASSERT_EQ(w.forward(a, nobody, body).verdict, Verdict::taken) << i;
  }
}

TEST(RelayCore, ALimitOnTheRateThatThereWasNotIsChargedAfterTenSeconds) {
  RelayLimits limits = reference_limits();
  limits.rate_limiting = false;
  World w(limits);
  const auto a = w.ready(kA);
  w.core.set_limits(reference_limits(), w.now);
  w.take();
  w.pass(milliseconds(100));
  EXPECT_EQ(w.rates(a), (std::vector<std::int32_t>{1, 8000}));
  const auto burst = [&] {
    for (int i = 0; i < 14; ++i) w.forward(a, kB, 20'000 - sbd::kHeaderBytes);
  };
  w.pass(milliseconds(9'899));
  burst();
  EXPECT_TRUE(w.closed.empty());
  w.pass(milliseconds(1));
  burst();
  EXPECT_EQ(w.closed[a], RelayReject::rate_limited);
}

TEST(RelayCore, ANewIdleTimeIsForClientsThatComeFromThenOn) {
  World w;  // 10 s
  const auto a = w.ready(kA);
  RelayLimits limits;
  limits.idle_millis = 2000;
  w.core.set_limits(limits, w.now);
  const auto b = w.ready(kB);
  w.pass(milliseconds(2000));
  EXPECT_EQ(w.closed, (std::map<RelayCore::ConnId, RelayReject>{{b, RelayReject::idle}}));
  w.pass(milliseconds(8000));
  EXPECT_EQ(w.closed[a], RelayReject::idle);
}

TEST(RelayCore, TheMessageThatProvesTheKeyIsTheOneThatJoins) {
  World w;
  const auto a = w.open(kA);
  EXPECT_TRUE(w.answer(a, kA).joined);
  EXPECT_FALSE(w.forward(a, kB).joined);
  const auto b = w.open(kB);
  EXPECT_FALSE(w.answer(b, kC).joined) << "another key's signature";
}

}  // namespace
}  // namespace kitsune2::server
