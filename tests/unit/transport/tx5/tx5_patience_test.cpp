// Short time limits on slow lines: no handshake begins anew before an answer can have come.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fake_relay.hpp"

namespace kitsune2::tests {
namespace {

using testing::SimWorld;

/// Two nodes, each on a line of its own, and what goes between them.
class Lines {
 public:
  struct Line {
    std::uint32_t timeout_s;
    Duration to_relay;  ///< one way
  };
  Lines(const Line& line_a, const Line& line_b) : a(node(line_a)), b(node(line_b)) {
    // A stream begins with each attempt at a handshake, and with nothing else here.
    relay.filter = [this](const NodeId& from, const NodeId& to, ByteView body) {
      if (body[0] == tx5::kNewStream) streams[{from, to}] += 1;
      return true;
    };
  }

  /// Sends a small and a large message each way, then nothing for a minute; both sides dial or one.
  void talk(bool both_dial, const std::string& what) {
    const std::string large = filled(40'000);
    a->send(b->url(), "small");
    if (both_dial) b->send(a->url(), "small");
    ASSERT_TRUE(
        world.run_until([&] { return a->events.connected(b->url()) && b->events.connected(a->url()); }, seconds(10)))
        << what;
    a->send(b->url(), large);
    b->send(a->url(), large);
    const auto arrived = [&] {
      return b->events.messages_from(a->url()) == std::vector<std::string>{"small", large} &&
             a->events.messages_from(b->url()).size() == (both_dial ? 2U : 1U);
    };
    ASSERT_TRUE(world.run_until(arrived, seconds(30))) << what;
    world.run_for(seconds(60));
    for (const TestNode* side : {a.get(), b.get()}) {
      EXPECT_EQ(side->events.connects, 1) << what;
      EXPECT_TRUE(side->events.disconnects.empty()) << what;
      EXPECT_EQ(side->events.violations, 0) << what;
      for (const auto& result : side->results) EXPECT_TRUE(result.has_value()) << what;
    }
    EXPECT_EQ(streams.size(), 2U) << what;
    for (const auto& [direction, count] : streams) EXPECT_EQ(count, 1) << what << ": a handshake was begun twice";
  }

  SimWorld world{11};
  FakeRelay relay{world, "ws://relay:80"};
  std::map<std::pair<NodeId, NodeId>, int> streams;
  std::unique_ptr<TestNode> a, b;

 private:
  std::unique_ptr<TestNode> node(const Line& line) {
    relay.options.latency = line.to_relay;
    Tx5TransportConfig config;
    config.timeout_s = line.timeout_s;
    auto made = std::make_unique<TestNode>(world, std::vector<FakeRelay*>{&relay}, config);
    EXPECT_TRUE(world.run_until([&] { return made->transport->url().has_value(); }, seconds(10)));
    return made;
  }
};

TEST(Tx5Patience, NoHandshakeBeginsAnewBeforeAnAnswerCanHaveComeWhateverTheTimeout) {
  for (std::uint32_t timeout_a = 1; timeout_a <= 5; ++timeout_a) {
    for (std::uint32_t timeout_b = 1; timeout_b <= 5; ++timeout_b) {
      for (const int round_trip_ms : {500, 750, 1000, 1500, 2000}) {
        for (const bool both_dial : {false, true}) {
          // A frame to the peer passes the relay's line twice, and so does the answer.
          const Duration to_relay = milliseconds(round_trip_ms) / 4;
          Lines lines({timeout_a, to_relay}, {timeout_b, to_relay});
          lines.talk(both_dial, "timeoutS " + std::to_string(timeout_a) + " and " + std::to_string(timeout_b) +
                                    ", round trip " + std::to_string(round_trip_ms) + " ms" +
                                    (both_dial ? ", both dial" : ""));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// The round trip to the relay is two seconds for each of them, so it is four between them.
TEST(Tx5Patience, TwoSecondsToTheRelayAndBackAreServedToo) {
  for (const std::uint32_t timeout : {1U, 2U, 5U, 20U, 60U}) {
    for (const bool both_dial : {false, true}) {
      Lines lines({timeout, seconds(1)}, {timeout, seconds(1)});
      lines.talk(both_dial, "timeoutS " + std::to_string(timeout) + (both_dial ? ", both dial" : ""));
      if (HasFatalFailure()) return;
    }
  }
}

// One cannot know how far away the other is.
TEST(Tx5Patience, ANearNodeWaitsForAFarOne) {
  for (const std::uint32_t near_timeout : {1U, 3U, 60U}) {
    for (const std::uint32_t far_timeout : {1U, 3U, 60U}) {
      Lines lines({near_timeout, milliseconds(1)}, {far_timeout, milliseconds(990)});
      Lines mirrored({far_timeout, milliseconds(990)}, {near_timeout, milliseconds(1)});
      for (Lines* each : {&lines, &mirrored}) {
        each->a->send(each->b->url(), "hello");
        const auto arrived = [&] { return each->b->events.messages_from(each->a->url()).size() == 1; };
        const std::string what = std::to_string(near_timeout) + " and " + std::to_string(far_timeout);
        ASSERT_TRUE(each->world.run_until(arrived, seconds(10))) << what;
        each->world.run_for(seconds(60));
        EXPECT_EQ(each->a->events.connects, 1) << what;
        EXPECT_EQ(each->b->events.connects, 1) << what;
        EXPECT_TRUE(each->a->events.disconnects.empty() && each->b->events.disconnects.empty()) << what;
      }
    }
  }
}

// A lost first frame is still made up for, within the shortest limit.
TEST(Tx5Patience, AFirstFrameThatIsLostDoesNotCostTheConnection) {
  for (const std::uint32_t timeout : {1U, 2U, 5U}) {
    Lines lines({timeout, milliseconds(125)}, {timeout, milliseconds(125)});
    int dropped = 0;
    lines.relay.filter = [&](const NodeId&, const NodeId&, ByteView) { return ++dropped > 2; };
    lines.a->send(lines.b->url(), "hello");
    ASSERT_TRUE(
        lines.world.run_until([&] { return lines.b->events.messages_from(lines.a->url()).size() == 1; }, seconds(8)))
        << timeout;
  }
}

// The limit of a send to a peer that is not there stays short.
TEST(Tx5Patience, APeerThatIsNotThereIsReportedWithinTenSecondsWhateverTheTimeout) {
  for (const std::uint32_t timeout : {1U, 5U, 10U}) {
    Lines lines({timeout, milliseconds(500)}, {timeout, milliseconds(500)});
    const Url gone = lines.b->url();
    lines.b.reset();
    lines.a->send(gone, "anybody?");
    ASSERT_TRUE(lines.world.run_until([&] { return lines.a->results.size() == 1; }, seconds(10))) << timeout;
    EXPECT_EQ(lines.a->results[0].error().code, Errc::peer_unresponsive);
  }
}

}  // namespace
}  // namespace kitsune2::tests
