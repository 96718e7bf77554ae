// The relay core in the process of a node: small frames go in turns (R11).
#include "relay_harness.hpp"

namespace kitsune2::server {
namespace {

/// A relay with its node inside, and clients that send it frames as often as they may.
struct TurnsWorld : World {
  TurnsWorld() {
    node = next++;
    EXPECT_EQ(core.on_open(node, RelayCore::kThisProcess, kA.id, RelayCore::Nonce{}, now), std::nullopt);
    take();
    answer(node, kA);
  }
  /// A client that floods from now on.
  void flood(const KeyPair& key, std::uint8_t address) {
    const auto id = ready(key, address);
    floods.push_back(id);
    resumed.push_back(id);
  }
  /// Sends for whoever may be read from, until the relay holds it. What is taken is taken by the node at once.
  void work_off() {
    while (!resumed.empty()) {
      for (const auto id : std::exchange(resumed, {})) {
        if (std::ranges::count(floods, id) == 0) continue;
        while (forward(id, kA).verdict == Verdict::forward) {
          frames[id] += 1;
          core.on_queue(node, 0, now);
        }
        EXPECT_FALSE(closed.contains(id));
      }
    }
  }
  void run(Duration time) {
    const Time end = now + time;
    work_off();
    while (core.next_deadline() && *core.next_deadline() <= end) {
      poll_at(std::max(now, *core.next_deadline()));
      message(node, sbd::encode_keepalive());
      work_off();
    }
    poll_at(end);
  }

  RelayCore::ConnId node = 0;
  std::vector<RelayCore::ConnId> floods;
  std::map<RelayCore::ConnId, std::uint64_t> frames;
};

constexpr std::uint64_t kAddressFrames =
    RelayCore::kAddressFramesPercent * 10'000U / static_cast<std::uint64_t>(RelayCore::kFrameTime.count());

TEST(RelayTurns, AFloodOfOneAddressHasItsShareOfTheTimeAndNobodyIsClosed) {
  TurnsWorld w;
  for (std::uint8_t i = 10; i < 26; ++i) w.flood(KeyPair::seeded(i), 7);
  w.run(seconds(3));  // the burst
  w.frames.clear();
  w.run(seconds(10));
  std::uint64_t all = 0;
  for (const auto& [id, n] : w.frames) all += n;
  EXPECT_NEAR(static_cast<double>(all), 10.0 * kAddressFrames, 0.05 * 10 * kAddressFrames);
  for (const auto id : w.floods) EXPECT_NEAR(static_cast<double>(w.frames[id]), all / 16.0, all / 160.0);
  EXPECT_TRUE(w.closed.empty()) << "who waits for a turn is not silent";
}

// R12: of a machine that is busy with other things, too, the flood gets its share only of what the node gets.
TEST(RelayTurns, TimeThatTheNodeDoesNotGetIsNotShared) {
  TurnsWorld w;
  for (std::uint8_t i = 10; i < 26; ++i) w.flood(KeyPair::seeded(i), 7);
  w.run(seconds(3));  // the burst
  w.frames.clear();
  Duration waited{};
  for (int i = 0; i < 10'000; ++i) {
    waited += Duration(850);  // of each millisecond
    w.core.on_waited(waited);
    w.run(milliseconds(1));
  }
  std::uint64_t all = 0;
  for (const auto& [id, n] : w.frames) all += n;
  EXPECT_NEAR(static_cast<double>(all), 1.5 * kAddressFrames, 0.1 * 1.5 * kAddressFrames);
  // What was waited is not taken back, and the rest is shared as before.
  w.core.on_waited(Duration(1));
  w.frames.clear();
  w.run(seconds(10));
  all = 0;
  for (const auto& [id, n] : w.frames) all += n;
  EXPECT_NEAR(static_cast<double>(all), 10.0 * kAddressFrames, 0.05 * 10 * kAddressFrames);
}

TEST(RelayTurns, AFrameAloneWaitsForOneTurnOfEachOtherAddress) {
  TurnsWorld w;
  for (std::uint8_t i = 10; i < 74; ++i) w.flood(KeyPair::seeded(i), i);
  w.run(seconds(3));
  const auto honest = w.ready(kB, 200);
  const Time asked = w.now;
  ASSERT_EQ(w.forward(honest, kA).verdict, Verdict::hold);
  bool is_heard = false;
  while (!is_heard) {
    w.poll_at(std::max(w.now, *w.core.next_deadline()));
    is_heard = std::ranges::count(w.resumed, honest) > 0;
    std::erase(w.resumed, honest);
    w.work_off();
    ASSERT_LT(w.now - asked, seconds(1));
  }
  EXPECT_EQ(w.forward(honest, kA).verdict, Verdict::forward);
  const auto turn = RelayCore::kTurnFrames * RelayCore::kFrameTime * 100 / RelayCore::kFramesPercent;
  EXPECT_LE(w.now - asked, 66 * turn);
}

TEST(RelayTurns, ClientsThatExchangeMuchInFewFramesAreNotDelayedByAFlood) {
  TurnsWorld w;
  for (std::uint8_t i = 10; i < 74; ++i) w.flood(KeyPair::seeded(i), i);
  const auto honest = w.ready(kB, 200);
  w.run(seconds(3));
  for (int i = 0; i < 8; ++i) {  // until its first turn is used up
    if (w.forward(honest, kA).verdict == Verdict::forward) continue;
    w.run(milliseconds(100));
    ASSERT_EQ(w.forward(honest, kA).verdict, Verdict::forward);
  }
  // A request, and answers of 448 KiB: 28 frames.
  for (int round = 0; round < 1000; ++round) {
    for (int i = 0; i < 28; ++i) {
      ASSERT_EQ(w.forward(w.node, kB, 16'400).verdict, Verdict::forward);
      w.core.on_queue(honest, 0, w.now);
    }
    ASSERT_EQ(w.forward(honest, kA, 14'000).verdict, Verdict::forward) << round;
    ASSERT_EQ(w.forward(honest, kA).verdict, Verdict::forward) << round << ": the grant of a permit";
    w.core.on_queue(w.node, 0, w.now);
    w.resumed.clear();
  }
}

/// It once waited for its turn among the flood all the same.
TEST(RelayTurns, APeerThatEarnsATurnWhileItWaitsGoesOnAtOnce) {
  TurnsWorld w;
  for (std::uint8_t i = 10; i < 74; ++i) w.flood(KeyPair::seeded(i), i);
  const auto honest = w.ready(kB, 200);
  w.run(seconds(3));
  while (w.forward(honest, kA).verdict == Verdict::forward) w.core.on_queue(w.node, 0, w.now);
  w.resumed.clear();
  for (int i = 0; i < 4; ++i) ASSERT_EQ(w.forward(w.node, kB, 16'000).verdict, Verdict::forward);
  EXPECT_TRUE(w.resumed.empty()) << "not worth a wake-up";
  ASSERT_EQ(w.forward(w.node, kB, 2'000).verdict, Verdict::forward);
  EXPECT_EQ(w.resumed, std::vector<RelayCore::ConnId>{honest});
  for (std::size_t i = 0; i < RelayCore::kTurnFrames; ++i) {
    EXPECT_EQ(w.forward(honest, kA).verdict, Verdict::forward) << i;
    w.core.on_queue(w.node, 0, w.now);
  }
  w.core.check_invariants();
}

TEST(RelayTurns, LargeFramesNeedNoTurn) {
  TurnsWorld w;
  const auto sender = w.ready(kB, 200);
  for (int i = 0; i < 500; ++i) {
    ASSERT_EQ(w.forward(sender, kA, 16'400).verdict, Verdict::forward) << i;
    w.core.on_queue(w.node, 0, w.now);
    w.pass(milliseconds(1));
  }
}

TEST(RelayTurns, ARelayWithoutANodeHasNone) {
  World w;
  const auto a = w.ready(kA);
  const auto b = w.ready(kB);
  for (int i = 0; i < 100'000; ++i) {
    ASSERT_EQ(w.core.on_message(a, sbd::encode_forward(kB.id, std::vector<std::uint8_t>(10)), 42, w.now).verdict,
              Verdict::forward);
    w.core.on_queue(b, 0, w.now);
  }
}

TEST(RelayTurns, AClientMayDisconnectWhileItWaitsForItsTurn) {
  TurnsWorld w;
  for (std::uint8_t i = 10; i < 26; ++i) w.flood(KeyPair::seeded(i), i);
  w.run(seconds(3));
  for (const auto id : w.floods) {
    w.core.on_close(id, w.now);
    w.take();
  }
  w.run(seconds(1));
  const auto honest = w.ready(kB, 200);
  EXPECT_EQ(w.forward(honest, kA).verdict, Verdict::forward);
}

}  // namespace
}  // namespace kitsune2::server
