// The relay core when it is full: queues, places, frames that are no messages; and what it tells its node.
#include "relay_harness.hpp"

namespace kitsune2::server {
namespace {

TEST(RelayCore, AnEmptyFrameCostsMoreThanItsBytes) {
  World w(reference_limits());
  const auto a = w.ready(kA);
  w.pass(seconds(5));
  int frames = 0;
  while (w.closed.empty() && frames < 1000) {
    w.core.on_other_bytes(a, 6, w.now);
    w.take();
    ++frames;
  }
  EXPECT_EQ(w.closed[a], RelayReject::rate_limited);
  EXPECT_LE(frames, 64) << "262144 bytes of burst, 4096 for each";
}

TEST(RelayCore, FramesThatAreNoMessagesAreCountedForEachClient) {
  RelayLimits limits;
  limits.rate_limiting = false;
  World w(limits);
  const auto a = w.ready(kA);
  w.ready(kB);
  const auto frames = [&](int n) {
    for (int i = 0; i < n; ++i) w.core.on_other_bytes(a, 6, w.now);
    w.take();
  };
  frames(64);
  EXPECT_TRUE(w.closed.empty());
  for (int i = 0; i < 40; ++i) w.forward(a, kB, 19'000);
  frames(11);
  EXPECT_TRUE(w.closed.empty()) << "760 kB were sent";
  w.pass(seconds(3));
  frames(3);
  EXPECT_TRUE(w.closed.empty());
  frames(1);
  EXPECT_EQ(w.closed[a], RelayReject::rate_limited);
}

/// One sender for each receiver, so that nobody holds another one.
struct Crowd {
  Crowd(World& w, std::size_t pairs, std::uint8_t address) {
    for (std::size_t i = 0; i < pairs; ++i) {
      receivers.push_back(KeyPair::seeded(static_cast<std::uint8_t>(100 + i)));
      conns.push_back(w.ready(receivers.back(), address));
    }
  }
  std::vector<KeyPair> receivers;
  std::vector<RelayCore::ConnId> conns;
};

TEST(RelayCore, AllQueuesTogetherAreBoundedAndSomeIsLeftForEachNewOne) {
  RelayLimits limits;
  limits.rate_limiting = false;
  limits.send_queue_bytes = 1U << 20;
  limits.all_queue_bytes = 16U << 20;
  World w(limits);
  Crowd deaf(w, 100, 9);
  const auto a = w.ready(kA);
  const auto b = w.ready(kB);
  std::vector<std::size_t> queued(deaf.conns.size());
  for (int round = 0; round < 60; ++round) {
    for (std::size_t i = 0; i < deaf.conns.size(); ++i) {
      const auto routed = w.forward(a, deaf.receivers[i], 19'000);
      if (routed.verdict == Verdict::forward) queued[i] += 19'036;
      if (routed.verdict == Verdict::hold) {
        // Another sender's turn; this one would wait.
        w.core.on_close(a, w.now);
        break;
      }
    }
  }
  std::size_t all = 0;
  for (const std::size_t q : queued) all += q;
  EXPECT_LE(all, limits.all_queue_bytes + 20'000);
  EXPECT_EQ(w.core.counters().queued_bytes.get(), all);
  EXPECT_EQ(w.forward(b, kB, 19'000).verdict, Verdict::forward) << "an empty queue takes one";
}

TEST(RelayCore, WhenNothingIsFreeTheClientThatTookNothingForLongestIsClosed) {
  RelayLimits limits;
  limits.rate_limiting = false;
  limits.send_queue_bytes = 40'000;
  limits.all_queue_bytes = 640'000;
  World w(limits);
  Crowd deaf(w, 40, 9);
  const auto a = w.ready(kA);
  std::size_t most = 0;
  for (const KeyPair& key : deaf.receivers) {
    w.pass(milliseconds(10));
    EXPECT_EQ(w.forward(a, key, 19'900).verdict, Verdict::forward);
    most = std::max<std::size_t>(most, w.core.counters().queued_bytes.get());
  }
  EXPECT_LE(most, limits.all_queue_bytes + 20'000);
  ASSERT_FALSE(w.closed.empty());
  const std::size_t closed = w.closed.size();
  EXPECT_EQ(closed, 7U);
  for (std::size_t i = 0; i < closed; ++i) EXPECT_EQ(w.closed[deaf.conns[i]], RelayReject::queues_full) << i;
}

/// The node that runs the relay.
RelayCore::ConnId node(World& w, const KeyPair& key) {
  const auto id = w.next++;
  EXPECT_EQ(w.core.on_open(id, RelayCore::kThisProcess, key.id, RelayCore::Nonce{}, w.now), std::nullopt);
  w.take();
  for (const Bytes& m : w.sent[id]) {
    const auto frame = sbd::parse_frame(m);
    if (frame->kind == sbd::FrameKind::auth_request) {
      w.message(id, sbd::encode_auth_response(sbd::sign_nonce(frame->body, key.secret)));
    }
  }
  w.sent[id].clear();
  return id;
}

std::uint32_t credit_for(World& w, RelayCore::ConnId conn, const KeyPair& peer) {
  std::uint32_t out = 0;
  for (const Bytes& m : w.sent[conn]) {
    const auto frame = sbd::parse_frame(m);
    if (frame->kind == sbd::FrameKind::credit && frame->peer == peer.id) out += frame->bytes;
  }
  return out;
}

TEST(RelayCore, TheNodeIsNeverHeldAndAFullReceiverIsClosedInstead) {
  RelayLimits limits;
  limits.send_queue_bytes = 100'000;
  World w(limits);
  const auto n = node(w, kA);
  const auto b = w.ready(kB);
  const auto c = w.ready(kC);
  for (int i = 0; i < 11; ++i) EXPECT_EQ(w.forward(n, kB, 19'000).verdict, Verdict::forward);
  EXPECT_TRUE(w.closed.empty());
  EXPECT_EQ(w.forward(n, kB, 19'000).verdict, Verdict::taken) << "dropped with its receiver";
  EXPECT_EQ(w.closed[b], RelayReject::slow_receiver);
  EXPECT_EQ(w.forward(n, kC, 19'000).verdict, Verdict::forward);
  EXPECT_FALSE(w.closed.contains(c));
}

TEST(RelayCore, BytesOfOthersInAQueueAreNotCountedAsTheNodes) {
  RelayLimits limits;
  limits.send_queue_bytes = 100'000;
  World w(limits);
  const auto n = node(w, kA);
  const auto b = w.ready(kB);
  const auto c = w.ready(kC);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(w.forward(c, kB, 19'000).verdict, Verdict::forward);
  EXPECT_EQ(w.forward(c, kB, 19'000).verdict, Verdict::hold);
  for (int i = 0; i < 11; ++i) EXPECT_EQ(w.forward(n, kB, 19'000).verdict, Verdict::forward) << i;
  EXPECT_FALSE(w.closed.contains(b));
  w.core.check_invariants();
  EXPECT_EQ(w.forward(n, kB, 19'000).verdict, Verdict::taken);
  EXPECT_EQ(w.closed[b], RelayReject::slow_receiver);
}

TEST(RelayCore, TheNodeLearnsHowMuchAPeerHasTakenAndHowMuchIsLost) {
  World w;
  const auto n = node(w, kA);
  const auto b = w.ready(kB);
  for (int i = 0; i < 10; ++i) w.forward(n, kB, 19'968);
  EXPECT_EQ(credit_for(w, n, kB), 0U);
  w.core.on_queue(b, 10 * 20'004 - 100'020, w.now);
  w.take();
  EXPECT_EQ(credit_for(w, n, kB), 0U) << "less than a step";
  w.core.on_queue(b, 10 * 20'004 - 140'028, w.now);
  w.take();
  EXPECT_EQ(credit_for(w, n, kB), 140'000U);
  w.core.on_queue(b, 0, w.now);
  w.take();
  EXPECT_EQ(credit_for(w, n, kB), 140'000U) << "the rest is less than a step";
  // What is lost comes back too.
  w.forward(n, kB, 968);
  w.core.on_close(b, w.now);
  w.take();
  EXPECT_EQ(credit_for(w, n, kB), 201'000U);
  w.forward(n, kB, 968);
  EXPECT_EQ(credit_for(w, n, kB), 202'000U);
}

TEST(RelayCore, OnlyTheNodeGetsCreditsAndAddresses) {
  World w;
  const auto n = node(w, kA);
  const auto b = w.ready(kB, 7);
  const auto c = w.ready(kC, 8);
  w.sent[b].clear();
  w.sent[c].clear();
  w.forward(c, kB, 1000);
  w.core.on_queue(b, 0, w.now);
  w.take();
  EXPECT_TRUE(w.sent[b].empty() && w.sent[c].empty());
  const auto routed = w.forward(b, kA, 10);
  EXPECT_TRUE(routed.first);
  ASSERT_EQ(w.sent[n].size(), 1U);
  const auto frame = sbd::parse_frame(w.sent[n][0]);
  EXPECT_EQ(frame->kind, sbd::FrameKind::peer_group);
  EXPECT_EQ(frame->peer, kB.id);
  EXPECT_EQ(frame->group, ip(7));
  EXPECT_FALSE(w.forward(b, kA, 10).first) << "once";
}

TEST(RelayCore, OnlyTheNodeIsToldWhoHasLeftOfThoseThatItKnows) {
  World w;
  const auto n = node(w, kA);
  const auto b = w.ready(kB, 7);
  const auto c = w.ready(kC, 8);
  const auto told = [&](RelayCore::ConnId conn) {
    std::vector<sbd::NodeId> out;
    for (const Bytes& m : std::exchange(w.sent[conn], {})) {
      const auto frame = sbd::parse_frame(m);
      if (frame->kind == sbd::FrameKind::peer_gone) out.push_back(frame->peer);
    }
    return out;
  };
  using Keys = std::vector<sbd::NodeId>;
  w.forward(b, kC, 10);
  w.core.on_close(b, w.now);
  w.take();
  EXPECT_EQ(told(n), Keys()) << "it has heard nothing of it";
  EXPECT_EQ(told(c), Keys());
  const auto again = w.ready(kB, 7);
  w.forward(again, kA, 10);
  w.forward(n, kB, 10);
  w.forward(n, kC, 10);
  EXPECT_EQ(told(n), Keys());
  const auto taken_over = w.ready(kB, 7);
  EXPECT_EQ(w.closed[again], RelayReject::taken_over);
  EXPECT_EQ(told(n), Keys{kB.id}) << "once, though it has sent and received; what comes now is a new connection";
  w.core.on_close(c, w.now);
  w.take();
  EXPECT_EQ(told(n), Keys{kC.id}) << "it has sent to it, and heard nothing";
  w.core.on_close(taken_over, w.now);
  w.take();
  EXPECT_EQ(told(n), Keys());
  w.core.check_invariants();
}

TEST(RelayCore, ANewcomerGetsThePlaceOfOneOfTheCrowd) {
  RelayLimits limits;
  limits.clients = 50;
  World w(limits);
  const auto honest = w.ready(kA, 1);
  std::vector<KeyPair> keys;
  for (std::uint8_t i = 0; i < 49; ++i) w.open(KeyPair::seeded(static_cast<std::uint8_t>(100 + i)), 9);
  EXPECT_EQ(w.core.on_open(w.next, ip(9), kC.id, w.nonce(), w.now, 1), RelayReject::limit_clients);
  for (std::uint8_t i = 0; i < 20; ++i) w.open(KeyPair::seeded(static_cast<std::uint8_t>(10 + i)), 20);
  EXPECT_EQ(w.closed.size(), 20U);
  EXPECT_FALSE(w.closed.contains(honest));
  for (const auto& [conn, reason] : w.closed) EXPECT_EQ(reason, RelayReject::evicted);
  EXPECT_EQ(w.core.client_count(), 50U);
}

}  // namespace
}  // namespace kitsune2::server
