// Whole tx5 backends against a relay, in virtual time.
#include "transport/tx5/tx5_transport.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/relay_url.hpp"
#include "fake_relay.hpp"

namespace kitsune2::tests {
namespace {

using testing::SimWorld;
using tx5::LinkLimits;
using tx5::Tx5Transport;

class Tx5Test : public ::testing::Test {
 protected:
  /// Peers that ask for permits of these sizes, in turn, and never use them.
  std::vector<std::unique_ptr<HandPeer>> hoard(const TestNode& at, std::uint8_t count,
                                               const std::vector<std::uint32_t>& sizes) {
    const NodeId to = node_id_of(at.url());
    std::vector<std::unique_ptr<HandPeer>> out;
    for (std::uint8_t i = 0; i < count; ++i) {
      out.push_back(std::make_unique<HandPeer>(world_, relay_, static_cast<std::uint8_t>(30 + i)));
      out.back()->obey();
      out.back()->say_hreq(to);
      world_.run_for(milliseconds(100));
      out.back()->say_frame(to, tx5::FrameType::permit_request, sizes[i % sizes.size()]);
    }
    return out;
  }
  std::unique_ptr<TestNode> node(Tx5TransportConfig config = {}, LinkLimits limits = {}) {
    auto made = std::make_unique<TestNode>(world_, std::vector<FakeRelay*>{&relay_}, config, limits);
    EXPECT_TRUE(run_until([&] { return made->transport->url().has_value(); }));
    return made;
  }
  bool run_until(const std::function<bool()>& done, Duration limit = seconds(120)) {
    return world_.run_until(done, limit);
  }
  bool arrived(TestNode& at, const Url& from, std::size_t count, Duration limit = seconds(120)) {
    return run_until([&] { return at.events.messages_from(from).size() >= count; }, limit);
  }

  SimWorld world_{7};
  FakeRelay relay_{world_, "ws://relay:80"};
};

TEST_F(Tx5Test, TwoNodesTalk) {
  auto a = node(), b = node();
  EXPECT_EQ(a->events.addresses, std::vector<Url>{a->url()});
  a->send(b->url(), "hello");
  ASSERT_TRUE(arrived(*b, a->url(), 1));
  EXPECT_EQ(b->events.messages_from(a->url()), std::vector<std::string>{"hello"});
  b->send(a->url(), "hello yourself");
  ASSERT_TRUE(arrived(*a, b->url(), 1));
  EXPECT_EQ(a->events.messages.at(b->url())[0].text(), "\x08\x01");
  EXPECT_EQ(b->events.messages.at(a->url())[0].text(), "\x08\x01");
  ASSERT_EQ(a->results.size(), 1U);
  EXPECT_TRUE(a->results[0].has_value());
  EXPECT_EQ(a->events.violations + b->events.violations, 0);
  EXPECT_EQ(a->events.connects, 1);
}

TEST_F(Tx5Test, BothDialInTheSameInstant) {
  auto a = node(), b = node();
  a->send(b->url(), "from a");
  b->send(a->url(), "from b");
  ASSERT_TRUE(run_until(
      [&] { return a->events.messages_from(b->url()).size() == 1 && b->events.messages_from(a->url()).size() == 1; }));
  EXPECT_EQ(a->events.connects + b->events.connects, 2);
  EXPECT_TRUE(a->events.disconnects.empty());
}

TEST_F(Tx5Test, EverySizeInOrder) {
  auto a = node(), b = node();
  std::vector<std::string> expected;
  for (const std::size_t size : {0U, 1U, 16'380U, 16'381U, 300'000U, 2U, 1'000'000U, 40'000U}) {
    expected.push_back(filled(size));
    a->send(b->url(), expected.back());
    b->send(a->url(), expected.back());
  }
  ASSERT_TRUE(arrived(*b, a->url(), expected.size()));
  ASSERT_TRUE(arrived(*a, b->url(), expected.size()));
  EXPECT_TRUE(b->events.messages_from(a->url()) == expected);
  EXPECT_TRUE(a->events.messages_from(b->url()) == expected);
  EXPECT_GT(b->events.progress.at(a->url()), 1'000'000U);
  EXPECT_EQ(a->results.size(), expected.size());
}

TEST_F(Tx5Test, ManyNodesAllToAll) {
  std::vector<std::unique_ptr<TestNode>> nodes;
  for (int i = 0; i < 12; ++i) nodes.push_back(node());
  for (auto& from : nodes) {
    for (auto& to : nodes) {
      if (from != to) from->send(to->url(), filled(20'000));
    }
  }
  ASSERT_TRUE(run_until([&] {
    return std::ranges::all_of(nodes, [&](auto& at) {
      return std::ranges::all_of(
          nodes, [&](auto& from) { return at == from || at->events.messages_from(from->url()).size() == 1; });
    });
  }));
  for (auto& n : nodes) {
    EXPECT_EQ(n->events.violations, 0);
    EXPECT_EQ(n->transport->stats().connections.size(), 11U);
  }
}

TEST_F(Tx5Test, ConfigIsChecked) {
  auto runtime = world_.make_runtime();
  auto connector = std::make_shared<FakeConnector>(*runtime, std::map<std::string, FakeRelay*>{});
  const auto error = [&](Tx5TransportConfig config) {
    auto made = make_tx5_transport(*runtime, connector, config);
    return made.has_error() ? made.error().to_string() : std::string("taken");
  };
  Tx5TransportConfig config;
  EXPECT_EQ(error(config), "invalid_config: tx5Transport.serverUrl: is not set") << "the placeholder";
  config.server_url = "ws://relay:80";
  EXPECT_NE(error(config).find("signalAllowPlainText"), std::string::npos);
  config.signal_allow_plain_text = true;
  EXPECT_EQ(error(config), "taken");
  config.timeout_s = 0;
  EXPECT_NE(error(config).find("tx5Transport.timeoutS"), std::string::npos);
  config.timeout_s = 86'401;
  EXPECT_EQ(error(config), "invalid_config: tx5Transport.timeoutS: must be a whole number in 1..86400, got 86401");
  config.timeout_s = 60;
  config.max_peers = 0;
  EXPECT_NE(error(config).find("tx5Transport.maxPeers"), std::string::npos);
  config.max_peers = 1;
  config.message_size_max = 0;
  EXPECT_NE(error(config).find("tx5Transport.messageSizeMax"), std::string::npos);
  config.message_size_max = 16'384;
  config.max_queue_bytes_per_peer = 0;
  EXPECT_NE(error(config).find("tx5Transport.maxQueueBytesPerPeer"), std::string::npos);
  config = {};
  config.server_url = "wss://relay.example";
  EXPECT_EQ(error(config), "taken");
}

TEST_F(Tx5Test, RelayUrlsAreMadeCanonical) {
  const auto canonical = [](const std::string& text) {
    auto url = canonical_relay_url(text);
    return url.has_value() ? url->to_string() : "error";
  };
  EXPECT_EQ(canonical("wss://sbd.kitsu.ne"), "wss://sbd.kitsu.ne:443");
  EXPECT_EQ(canonical("wss://sbd.kitsu.ne/"), "wss://sbd.kitsu.ne:443");
  EXPECT_EQ(canonical("ws://a.b:1234"), "ws://a.b:1234");
  EXPECT_EQ(canonical("ws://a.b"), "ws://a.b:80");
  EXPECT_EQ(canonical("ws://[::1]:9/"), "ws://[::1]:9");
  EXPECT_EQ(canonical("http://a.b"), "error");
  EXPECT_EQ(canonical("ws://a.b:80/iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w"), "error");
  EXPECT_EQ(canonical(""), "error");
}

TEST_F(Tx5Test, BadPeerUrls) {
  auto a = node();
  a->send(a->url(), "to myself");
  a->send(*Url::parse("ws://relay:80"), "to a relay");
  a->send(*Url::parse("ws://relay:80/notakey"), "to nobody");
  a->send(*Url::parse("ws://relay:80/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "to a command");
  world_.run_for(seconds(1));
  ASSERT_EQ(a->results.size(), 4U);
  for (const auto& r : a->results) EXPECT_EQ(r.error().code, Errc::invalid_argument);
  EXPECT_EQ(a->events.violations, 0);
}

TEST_F(Tx5Test, TooLargeAndOverloaded) {
  Tx5TransportConfig config;
  config.message_size_max = 50'000;
  config.max_queue_bytes_per_peer = 100'000;
  auto a = node(config), b = node();
  a->send(b->url(), filled(50'001));
  for (int i = 0; i < 3; ++i) a->send(b->url(), filled(45'000));
  world_.run_for(seconds(5));
  ASSERT_EQ(a->results.size(), 4U);
  EXPECT_EQ(a->results[0].error().code, Errc::too_large);
  EXPECT_EQ(a->results[1].error().code, Errc::overloaded);
  EXPECT_TRUE(a->results[2].has_value());
  EXPECT_TRUE(a->results[3].has_value());
  EXPECT_EQ(b->events.messages_from(a->url()).size(), 2U);
}

TEST_F(Tx5Test, MessageOverTheReceiversLimitClosesTheConnection) {
  Tx5TransportConfig small;
  small.message_size_max = 50'000;
  auto a = node(), b = node(small);
  a->send(b->url(), filled(50'000));
  ASSERT_TRUE(arrived(*b, a->url(), 1));
  a->send(b->url(), filled(50'001));
  ASSERT_TRUE(run_until([&] { return !b->events.connected(a->url()) && a->results.size() == 2; }));
  EXPECT_FALSE(a->events.connected(b->url()));
  EXPECT_EQ(a->results.back().error().code, Errc::peer_unresponsive);
  a->send(b->url(), "still friends");
  ASSERT_TRUE(arrived(*b, a->url(), 1));
}

TEST_F(Tx5Test, UnknownPeerIsUnresponsiveAfterTheTimeout) {
  Tx5TransportConfig config;
  config.timeout_s = 10;
  auto a = node(config);
  HandPeer ghost(world_, relay_, 9);
  relay_.detach(ghost.id());
  const Time start = world_.now();
  a->send(ghost.url(), "anybody?");
  ASSERT_TRUE(run_until([&] { return !a->results.empty(); }));
  EXPECT_EQ(a->results[0].error().code, Errc::peer_unresponsive);
  EXPECT_EQ(world_.now() - start, seconds(10));
  EXPECT_EQ(a->events.connects, 0);
  EXPECT_TRUE(a->events.disconnects.empty());
}

TEST_F(Tx5Test, PeerThatComesLaterIsReached) {
  auto a = node();
  HandPeer late(world_, relay_, 9);
  late.obey();
  bool there = false;
  relay_.filter = [&](const NodeId&, const NodeId& to, ByteView) { return there || to != late.id(); };
  a->send(late.url(), "hello");
  world_.run_for(seconds(3));
  there = true;
  ASSERT_TRUE(run_until([&] { return !late.messages.empty(); }, seconds(10)));
  ASSERT_TRUE(run_until([&] { return !a->results.empty(); }, seconds(10)));
  EXPECT_TRUE(a->results[0].has_value());
}

TEST_F(Tx5Test, OnlyARelayInsideIsBelievedThatAPeerHasLeft) {
  auto a = node(), b = node();
  a->send(b->url(), "hello");
  ASSERT_TRUE(arrived(*b, a->url(), 1));
  for (const auto& id : relay_.node_ids()) relay_.to_all(sbd::encode_peer_gone(id));
  world_.run_for(seconds(1));
  EXPECT_TRUE(a->events.disconnects.empty() && b->events.disconnects.empty());
  a->send(b->url(), "still there");
  EXPECT_TRUE(arrived(*b, a->url(), 2));
}

TEST_F(Tx5Test, DisconnectReachesTheOtherSide) {
  auto a = node(), b = node();
  a->send(b->url(), "hello");
  ASSERT_TRUE(arrived(*b, a->url(), 1));
  a->transport->disconnect(b->url(), {.text = "enough"}, Bytes::copy_of("farewell"));
  EXPECT_TRUE(a->events.disconnects.empty()) << "never from inside the call";
  ASSERT_TRUE(run_until([&] { return !b->events.disconnects.empty(); }, seconds(1)));
  EXPECT_EQ(b->events.messages_from(a->url()), (std::vector<std::string>{"hello", "farewell"}));
  ASSERT_EQ(a->events.disconnects.size(), 1U);
  EXPECT_EQ(a->events.disconnects[0].second, "enough");
  a->transport->disconnect(b->url(), {.text = "twice"}, {});
  world_.run_for(seconds(1));
  EXPECT_EQ(a->events.disconnects.size(), 1U);
  // And a new connection is made at once.
  a->send(b->url(), "again");
  ASSERT_TRUE(
      run_until([&] { return b->events.messages_from(a->url()) == std::vector<std::string>{"again"}; }, seconds(1)));
  EXPECT_EQ(a->events.violations + b->events.violations, 0);
}

TEST_F(Tx5Test, DisconnectFailsWhatIsQueued) {
  auto a = node(), b = node();
  relay_.set_byte_nanos(80'000);
  a->send(b->url(), filled(500'000));
  a->send(b->url(), "behind it");
  world_.run_for(seconds(5));
  a->transport->disconnect(b->url(), {}, {});
  world_.run_for(seconds(5));
  ASSERT_EQ(a->results.size(), 2U);
  EXPECT_EQ(a->results[0].error().code, Errc::peer_unresponsive);
  EXPECT_EQ(a->results[1].error().code, Errc::peer_unresponsive);
  ASSERT_EQ(a->events.disconnects.size(), 1U);
  EXPECT_EQ(a->events.disconnects[0].second, std::nullopt);
}

TEST_F(Tx5Test, RefusedPeersAreNotConnected) {
  auto a = node(), b = node();
  b->events.on_connect = [](const Url&) -> Result<void> { return make_error(Errc::blocked, "no"); };
  a->send(b->url(), "let me in");
  ASSERT_TRUE(run_until([&] { return !a->results.empty(); }));
  EXPECT_EQ(a->results[0].error().code, Errc::peer_unresponsive);
  EXPECT_TRUE(b->events.messages.empty());
  EXPECT_TRUE(b->events.disconnects.empty());
  EXPECT_EQ(b->events.violations, 0);
}

TEST_F(Tx5Test, HandlerErrorClosesTheConnection) {
  auto a = node(), b = node();
  b->events.on_data = [](const Url&, const Bytes& m) -> Result<void> {
    if (m.text() == "bad") return make_error(Errc::malformed, "bad");
    return {};
  };
  a->send(b->url(), "good");
  a->send(b->url(), "bad");
  a->send(b->url(), "lost");
  ASSERT_TRUE(run_until([&] { return !a->events.disconnects.empty() && !b->events.disconnects.empty(); }));
  EXPECT_EQ(b->events.messages_from(a->url()), (std::vector<std::string>{"good", "bad"}));
}

// Handlers call back into the backend in every way that they may.
TEST_F(Tx5Test, ReentrantHandlers) {
  auto a = node(), b = node(), c = node();
  b->events.on_data = [&](const Url& from, const Bytes& m) -> Result<void> {
    if (m.text() == "close me") b->transport->disconnect(from, {.text = "as you wish"}, {});
    if (m.text() == "echo") b->send(from, "echoed");
    if (m.text() == "tell c") b->send(c->url(), "told");
    return {};
  };
  int reconnects = 0;
  a->events.on_disconnect = [&](const Url& peer) {
    if (++reconnects < 5) a->send(peer, "close me");
  };
  c->events.on_connect = [&](const Url& from) -> Result<void> {
    c->transport->disconnect(from, {.text = "at once"}, {});
    return {};
  };
  a->send(b->url(), "echo");
  a->send(b->url(), "tell c");
  a->send(b->url(), "close me");
  ASSERT_TRUE(run_until([&] { return reconnects == 5; }));
  world_.run_for(seconds(5));
  EXPECT_EQ(a->events.violations + b->events.violations + c->events.violations, 0);
  EXPECT_EQ(c->events.live.size(), 0U);
  EXPECT_EQ(c->events.disconnects.size(), static_cast<std::size_t>(c->events.connects));
}

TEST_F(Tx5Test, StopInsideAHandler) {
  auto a = node(), b = node();
  bool stopped = false;
  b->events.on_data = [&](const Url&, const Bytes& m) -> Result<void> {
    if (m.text() == "stop") b->transport->stop([&] { stopped = true; });
    return {};
  };
  a->send(b->url(), "stop");
  a->send(b->url(), "more");
  ASSERT_TRUE(run_until([&] { return stopped; }));
  world_.run_for(seconds(2));
  EXPECT_EQ(b->events.disconnects.size(), 1U);
  EXPECT_EQ(b->events.violations, 0);
  EXPECT_EQ(a->events.disconnects.size(), 1U) << "the other side was told";
  EXPECT_FALSE(b->transport->url());
  b->send(a->url(), "too late");
  world_.run_for(seconds(1));
  EXPECT_EQ(b->results.back().error().code, Errc::disconnected);
}

TEST_F(Tx5Test, StopCompletesEverySendOnce) {
  auto a = node(), b = node();
  relay_.set_byte_nanos(80'000);
  for (int i = 0; i < 10; ++i) a->send(b->url(), filled(50'000));
  world_.run_for(seconds(2));
  bool stopped = false;
  a->transport->stop([&] { stopped = true; });
  EXPECT_FALSE(stopped);
  world_.run_for(seconds(1));
  EXPECT_TRUE(stopped);
  EXPECT_EQ(a->results.size(), 10U);
}

TEST_F(Tx5Test, DestructionCompletesEverySendOnce) {
  auto a = node(), b = node();
  a->send(b->url(), "hi");
  ASSERT_TRUE(arrived(*b, a->url(), 1));
  for (int i = 0; i < 10; ++i) a->send(b->url(), filled(50'000));
  a->transport.reset();
  world_.run_for(seconds(1));
  EXPECT_EQ(a->results.size(), 11U);
  EXPECT_EQ(a->results.back().error().code, Errc::cancelled);
}

// ---------------------------------------------------------------- the relay goes and comes

TEST_F(Tx5Test, RelayLostAndBack) {
  auto a = node(), b = node();
  a->send(b->url(), "hello");
  ASSERT_TRUE(arrived(*b, a->url(), 1));
  const Url old_a = a->url(), old_b = b->url();
  relay_.cut();
  ASSERT_TRUE(run_until([&] { return !a->events.disconnects.empty() && !b->events.disconnects.empty(); }));
  EXPECT_FALSE(a->transport->url());
  EXPECT_EQ(a->events.addresses_lost, 1);
  a->send(old_b, "nobody home");
  world_.run_ready();
  EXPECT_EQ(a->results.back().error().code, Errc::disconnected);
  ASSERT_TRUE(run_until([&] { return a->transport->url() && b->transport->url(); }, seconds(2)));
  EXPECT_NE(a->url(), old_a) << "a fresh key for every connection";
  EXPECT_NE(b->url(), old_b);
  EXPECT_EQ(a->events.addresses.size(), 2U);
  a->send(b->url(), "hello again");
  ASSERT_TRUE(arrived(*b, a->url(), 1));
  EXPECT_EQ(a->events.violations + b->events.violations, 0);
}

TEST_F(Tx5Test, RelayLostInMidMessage) {
  auto a = node(), b = node();
  a->send(b->url(), "hello");
  ASSERT_TRUE(arrived(*b, a->url(), 1));
  relay_.set_byte_nanos(8000);
  world_.run_for(seconds(1));
  a->send(b->url(), filled(1'000'000));
  a->send(b->url(), "behind it");
  const Url old_a = a->url();
  ASSERT_TRUE(run_until([&] { return b->events.progress[old_a] > 200'000; }));
  relay_.cut();
  ASSERT_TRUE(run_until([&] { return a->results.size() == 3; }));
  EXPECT_EQ(a->results[1].error().code, Errc::disconnected);
  EXPECT_EQ(a->results[2].error().code, Errc::disconnected);
  EXPECT_EQ(b->events.messages_from(old_a), std::vector<std::string>{"hello"});
  EXPECT_EQ(relay_.rate_violations, 0U);
}

TEST_F(Tx5Test, TheBackOffOfALostRelayEndsAtEightSeconds) {
  relay_.options.accept = false;
  TestNode a(world_, {&relay_});
  world_.run_for(seconds(300));
  const std::vector<Time>& at = relay_.connect_times;
  ASSERT_GE(at.size(), 40U);
  double expected = 0.25;
  for (std::size_t i = 1; i < at.size(); ++i) {
    const double gap = std::chrono::duration<double>(at[i] - at[i - 1]).count();
    EXPECT_GE(gap, expected * 0.49) << i;
    EXPECT_LE(gap, expected * 1.01) << i;
    expected = std::min(8.0, expected * 2);
  }
  relay_.options.accept = true;
  ASSERT_TRUE(run_until([&] { return a.transport->url().has_value(); }, seconds(9)));
}

TEST_F(Tx5Test, AServerThatAnswersBringsALostRelaysNextTryForward) {
  relay_.options.accept = false;
  TestNode a(world_, {&relay_});
  a.transport->on_server_answered();  // it connects already
  world_.run_for(seconds(60));
  relay_.options.accept = true;
  const std::size_t before = relay_.connect_times.size();
  ASSERT_TRUE(run_until([&] { return relay_.connect_times.size() > before || a.transport->url(); }, seconds(9)));
  ASSERT_TRUE(run_until([&] { return a.transport->url().has_value(); }, seconds(1)));
  // Lost again, within the time that starts the waits anew: they are long still.
  relay_.options.accept = false;
  relay_.cut();
  world_.run_for(seconds(20));
  relay_.options.accept = true;
  a.transport->on_server_answered();
  a.transport->on_server_answered();
  ASSERT_TRUE(run_until([&] { return a.transport->url().has_value(); }, milliseconds(1'100)));
  a.transport->on_server_answered();  // it is connected: no effect
  world_.run_for(seconds(60));
  EXPECT_EQ(a.events.addresses_lost, 1);
}

TEST_F(Tx5Test, AServerThatAnswersAllTheTimeDoesNotMakeANodeHammerItsRelay) {
  relay_.options.accept = false;
  TestNode a(world_, {&relay_});
  world_.run_for(seconds(60));
  const std::size_t before = relay_.connect_times.size();
  for (int i = 0; i < 6'000; ++i) {
    world_.run_for(milliseconds(10));
    a.transport->on_server_answered();
  }
  // One early try in eight seconds at most, beside those that were due.
  EXPECT_LE(relay_.connect_times.size() - before, 60U / 4 + 60U / 8 + 2);
}

TEST_F(Tx5Test, TheReasonForNoUrlIsKnownUntilThereIsOne) {
  relay_.options.accept = false;
  TestNode a(world_, {&relay_});
  EXPECT_FALSE(a.transport->failure()) << "no try has failed yet";
  ASSERT_TRUE(run_until([&] { return a.transport->failure().has_value(); }));
  const auto first = *a.transport->failure();
  EXPECT_EQ(first.attempts, 1U);
  EXPECT_FALSE(first.error.message.empty());
  ASSERT_TRUE(run_until([&] { return a.transport->failure()->attempts == 4; }));
  EXPECT_EQ(a.transport->failure()->since, first.since) << "it is one failure, however many tries";
  relay_.options.accept = true;
  ASSERT_TRUE(run_until([&] { return a.transport->url().has_value(); }));
  EXPECT_FALSE(a.transport->failure());
  world_.run_for(seconds(60));
  relay_.cut();
  ASSERT_TRUE(run_until([&] { return a.transport->failure().has_value(); }));
  EXPECT_GT(a.transport->failure()->since, first.since);
  EXPECT_EQ(a.transport->failure()->attempts, 1U) << "the connection that was lost";
}

TEST_F(Tx5Test, RelayThatNeverAnswersIsTriedAgain) {
  relay_.options.answer = false;
  TestNode a(world_, {&relay_});
  world_.run_for(seconds(9));
  EXPECT_EQ(relay_.connect_times.size(), 1U);
  relay_.options.answer = true;
  ASSERT_TRUE(run_until([&] { return a.transport->url().has_value(); }, seconds(5)));
}

TEST_F(Tx5Test, EveryStepOfTheHandshakeMayFail) {
  // Fail at N: the relay dies after N tasks of the world, for N = 0, 1, 2 … until a message gets through undisturbed.
  bool undisturbed = false;
  for (std::uint64_t n = 0; !undisturbed; n += 1) {
    ASSERT_LT(n, 500U);
    SimWorld world(n + 1);
    FakeRelay relay(world, "ws://relay:80");
    TestNode a(world, {&relay}), b(world, {&relay});
    std::string sent_to;
    const auto poke = [&] {
      if (!a.transport->url() || !b.transport->url() || sent_to == b.url().str()) return;
      sent_to = b.url().to_string();
      a.send(b.url(), filled(40'000));
    };
    bool cut = false;
    const auto got = [&] {
      poke();
      if (world.tasks_run() == n && !cut) {
        cut = true;
        relay.cut();
      }
      for (const auto& [from, messages] : b.events.messages) {
        if (messages.size() > 1) return true;
      }
      // What was cut off is sent again, as an application would.
      if (!a.results.empty() && a.results.back().has_error()) {
        a.results.clear();
        sent_to.clear();
      }
      return false;
    };
    ASSERT_TRUE(world.run_until(got, seconds(200))) << "cut after " << n << " tasks";
    ASSERT_EQ(a.events.violations + b.events.violations, 0) << n;
    undisturbed = !cut;
  }
}

TEST_F(Tx5Test, SameSeedSameTrace) {
  const auto run = [](std::uint64_t seed) {
    SimWorld world(seed);
    FakeRelay relay(world, "ws://relay:80");
    relay.options.byte_nanos = 800;
    TestNode a(world, {&relay}), b(world, {&relay}), c(world, {&relay});
    world.run_for(seconds(1));
    a.send(b.url(), filled(100'000));
    b.send(c.url(), filled(5));
    c.send(a.url(), filled(20'000));
    world.run_for(seconds(3));
    relay.cut();
    world.run_for(seconds(60));
    return world.trace_hash();
  };
  EXPECT_EQ(run(5), run(5));
  EXPECT_NE(run(5), run(6));
}

// ---------------------------------------------------------------- pacing, fairness, back-pressure

TEST_F(Tx5Test, OneLargeTransferDoesNotHoldUpOthers) {
  relay_.options.byte_nanos = 8000;
  auto a = node(), b = node(), c = node();
  a->send(b->url(), "hi");
  a->send(c->url(), "hi");
  ASSERT_TRUE(arrived(*b, a->url(), 1));
  ASSERT_TRUE(arrived(*c, a->url(), 1));
  a->send(b->url(), filled(5'000'000));
  world_.run_for(seconds(2));
  const Time start = world_.now();
  a->send(c->url(), "quick");
  ASSERT_TRUE(arrived(*c, a->url(), 2));
  EXPECT_LT(world_.now() - start, milliseconds(400)) << "a chunk or two, not 45 seconds";
  EXPECT_EQ(b->events.messages_from(a->url()).size(), 1U);
}

TEST_F(Tx5Test, TransfersToManyPeersShareTheRate) {
  relay_.options.byte_nanos = 8000;
  auto a = node();
  std::vector<std::unique_ptr<TestNode>> others;
  for (int i = 0; i < 4; ++i) others.push_back(node());
  for (auto& o : others) a->send(o->url(), filled(300'000));
  std::vector<std::size_t> progress;
  world_.run_for(seconds(6));
  for (auto& o : others) progress.push_back(o->events.progress[a->url()]);
  const auto [low, high] = std::ranges::minmax(progress);
  EXPECT_GT(low, 100'000U);
  EXPECT_LE(high - low, 2 * tx5::kMaxChunkBytes);
}

TEST_F(Tx5Test, ControlFloodDoesNotStopMessages) {
  auto a = node(), b = node();
  a->send(b->url(), "hi");
  ASSERT_TRUE(arrived(*b, a->url(), 1));
  const NodeId to = node_id_of(a->url());
  std::vector<std::unique_ptr<HandPeer>> flooders;
  for (std::uint8_t i = 0; i < 8; ++i) {
    flooders.push_back(std::make_unique<HandPeer>(world_, relay_, static_cast<std::uint8_t>(60 + i)));
    HandPeer* flooder = flooders.back().get();
    flooder->obey();
    // Each grant is worth a control frame: more of them than the rate leaves room for.
    flooder->hear = [flooder, to](const NodeId&, const Bytes& plaintext) {
      if (plaintext.text().starts_with(std::string_view("fmsg\xc0", 5))) {
        flooder->say_frame(to, tx5::FrameType::chunk, 1, as_bytes("x"));
        flooder->say_frame(to, tx5::FrameType::permit_request, 1);
      }
      return false;
    };
    flooders.back()->say_hreq(to);
  }
  ASSERT_TRUE(run_until([&] { return a->events.live.size() == 9; }));
  relay_.set_byte_nanos(80'000);
  world_.run_for(seconds(1));
  a->send(b->url(), filled(60'000));
  for (auto& flooder : flooders) flooder->say_frame(to, tx5::FrameType::permit_request, 1);
  EXPECT_TRUE(arrived(*b, a->url(), 2, seconds(60)));
  EXPECT_EQ(b->events.messages_from(a->url()).size(), 2U);
}

TEST_F(Tx5Test, SlowSocketPushesBack) {
  relay_.options.bytes_per_second = 100'000;
  LinkLimits limits;
  limits.max_socket_queue = 40'000;
  auto a = node({}, limits), b = node();
  a->send(b->url(), filled(1'000'000));
  a->send(b->url(), "second");
  world_.run_for(seconds(3));
  EXPECT_LT(a->results.size(), 1U) << "not handed over yet";
  ASSERT_TRUE(arrived(*b, a->url(), 2));
  EXPECT_EQ(b->events.messages_from(a->url())[0], filled(1'000'000));
  EXPECT_EQ(a->results.size(), 2U);
}

// ---------------------------------------------------------------- limits

TEST_F(Tx5Test, MaxPeersBoundsOwnDials) {
  Tx5TransportConfig config;
  config.max_peers = 2;
  auto a = node(config), b = node(), c = node(), d = node();
  a->send(b->url(), "1");
  a->send(c->url(), "2");
  a->send(d->url(), "3");
  world_.run_for(seconds(2));
  ASSERT_EQ(a->results.size(), 3U);
  EXPECT_EQ(a->results[0].error().code, Errc::overloaded);
  a->transport->disconnect(b->url(), {}, {});
  a->send(d->url(), "3");
  EXPECT_TRUE(arrived(*d, a->url(), 1));
}

TEST_F(Tx5Test, MaxPeersBoundsOthersDials) {
  Tx5TransportConfig config;
  config.max_peers = 2;
  auto a = node(config), b = node(), c = node(), d = node();
  b->send(a->url(), "1");
  c->send(a->url(), "2");
  ASSERT_TRUE(arrived(*a, b->url(), 1));
  ASSERT_TRUE(arrived(*a, c->url(), 1));
  d->send(a->url(), "3");
  ASSERT_TRUE(arrived(*a, d->url(), 1)) << "it has the place of one of the others";
  world_.run_for(seconds(30));
  EXPECT_EQ(a->events.live.size(), 2U);
  EXPECT_EQ(a->events.violations, 0);
}

TEST_F(Tx5Test, ANewcomerGetsThePlaceOfASilentPeer) {
  Tx5TransportConfig config;
  config.max_peers = 64;
  auto a = node(config);
  const NodeId to = node_id_of(a->url());
  // One that we called and that brought something, and one that brought much.
  auto called = node(), useful = node();
  a->send(called->url(), "do you have something?");
  ASSERT_TRUE(arrived(*called, a->url(), 1));
  called->send(a->url(), "yes");
  useful->send(a->url(), filled(10'000));
  ASSERT_TRUE(arrived(*a, called->url(), 1));
  ASSERT_TRUE(arrived(*a, useful->url(), 1));
  // The others have proven their keys and say nothing.
  std::vector<std::unique_ptr<HandPeer>> silent;
  for (std::uint8_t i = 0; i < 62; ++i) {
    silent.push_back(std::make_unique<HandPeer>(world_, relay_, static_cast<std::uint8_t>(20 + i)));
    silent.back()->obey();
    silent.back()->say_hreq(to);
    world_.run_for(milliseconds(20));
  }
  world_.run_for(seconds(1));
  ASSERT_EQ(a->events.live.size(), 64U);
  for (int i = 0; i < 20; ++i) {
    auto newcomer = node();
    newcomer->send(a->url(), "let me in");
    ASSERT_TRUE(arrived(*a, newcomer->url(), 1, seconds(10))) << i;
    for (HandPeer* hand : {silent[static_cast<std::size_t>(i)].get()}) hand->say(to, "keep");
  }
  EXPECT_TRUE(a->events.connected(called->url()));
  EXPECT_TRUE(a->events.connected(useful->url()));
  EXPECT_LE(a->events.live.size(), 64U);
}

/// Peers that ask and do not read: their relay would hold the node's line.
TEST(Tx5Deaf, PeersThatDoNotReadDoNotHoldUpOthers) {
  SimWorld world{7};
  FakeRelay relay{world, "ws://relay:80"};
  TestNode a(world, {&relay}), honest(world, {&relay});
  ASSERT_TRUE(world.run_until([&] { return a.transport->url() && honest.transport->url(); }, seconds(60)));
  std::map<NodeId, std::size_t> bytes;
  relay.filter = [&](const NodeId&, const NodeId& to, ByteView body) {
    bytes[to] += 32 + body.size();
    return true;
  };
  std::vector<std::unique_ptr<HandPeer>> deaf;
  for (std::uint8_t i = 0; i < 8; ++i) {
    deaf.push_back(std::make_unique<HandPeer>(world, relay, static_cast<std::uint8_t>(20 + i)));
    deaf.back()->obey();
    deaf.back()->say_hreq(node_id_of(a.url()));
  }
  world.run_for(seconds(1));
  for (int i = 0; i < 200; ++i) {
    for (const auto& hand : deaf) a.send(hand->url(), filled(16'000));
    a.send(honest.url(), filled(1000));
    // They go on asking.
    for (const auto& hand : deaf) hand->say(node_id_of(a.url()), "keep");
  }
  ASSERT_TRUE(world.run_until([&] { return honest.events.messages_from(a.url()).size() == 200; }, seconds(60)));
  world.run_for(seconds(30));
  const tx5::CreditLimits limits;
  for (const auto& hand : deaf) {
    EXPECT_GE(bytes[hand->id()], limits.first / 2);
    EXPECT_LE(bytes[hand->id()], limits.first + 20'000);
  }
}

TEST_F(Tx5Test, StrangersPushOutTheOldestStranger) {
  LinkLimits limits;
  limits.max_strangers = 3;
  auto a = node({}, limits);
  std::vector<std::unique_ptr<HandPeer>> hands;
  for (std::uint8_t i = 0; i < 8; ++i) {
    hands.push_back(std::make_unique<HandPeer>(world_, relay_, static_cast<std::uint8_t>(20 + i)));
    hands.back()->say_hreq(node_id_of(a->url()));  // and then nothing: they never finish
    world_.run_for(milliseconds(50));
  }
  auto honest = node();
  honest->send(a->url(), "let me in");
  ASSERT_TRUE(arrived(*a, honest->url(), 1, seconds(2)));
  EXPECT_EQ(a->events.connects, 1);
}

TEST_F(Tx5Test, GrantedBytesAreBounded) {
  Tx5TransportConfig config;
  config.message_size_max = 100'000;
  LinkLimits limits;
  limits.permits.max_granted_bytes = 150'000;
  auto a = node(config, limits), b = node(), c = node(), d = node();
  relay_.options.byte_nanos = 8000;
  relay_.set_byte_nanos(8000);
  for (auto* n : {b.get(), c.get(), d.get()}) n->send(a->url(), filled(100'000));
  // One after the other: two never have a permit at once.
  std::size_t most = 0;
  ASSERT_TRUE(run_until([&] {
    std::size_t under_way = 0;
    for (auto* n : {b.get(), c.get(), d.get()}) {
      const std::size_t p = a->events.progress[n->url()];
      under_way += p > 0 && a->events.messages_from(n->url()).empty() ? 1 : 0;
    }
    most = std::max(most, under_way);
    return std::ranges::all_of(std::vector{b.get(), c.get(), d.get()},
                               [&](TestNode* n) { return a->events.messages_from(n->url()).size() == 1; });
  }));
  EXPECT_EQ(most, 1U);
}

TEST_F(Tx5Test, PermitHoardersAreSentAway) {
  Tx5TransportConfig config;
  config.message_size_max = 100'000;
  LinkLimits limits;
  limits.permits.max_granted_bytes = 200'000;
  auto a = node(config, limits);
  const auto hoarders = hoard(*a, 2, {100'000});
  world_.run_for(seconds(5));
  EXPECT_EQ(hoarders[0]->count(std::string("fmsg\xc0", 5)), 1U) << "granted";
  auto honest = node();
  honest->send(a->url(), filled(60'000));
  ASSERT_TRUE(arrived(*a, honest->url(), 1, seconds(15)));
  EXPECT_TRUE(hoarders[0]->closed || hoarders[1]->closed);
}

TEST_F(Tx5Test, HoardersOfPermitsDoNotHoldUpWhoHasUsedOne) {
  Tx5TransportConfig config;
  config.message_size_max = 100'000;
  LinkLimits limits;
  limits.permits.max_granted_bytes = 320'000;  // large ones: 240,000
  auto a = node(config, limits);
  auto known = node();
  known->send(a->url(), filled(60'000));
  ASSERT_TRUE(arrived(*a, known->url(), 1, seconds(5)));
  const auto hoarders = hoard(*a, 20, {100'000});
  world_.run_for(milliseconds(100));
  known->send(a->url(), filled(60'000));
  ASSERT_TRUE(arrived(*a, known->url(), 2, seconds(1))) << "half of the room is not for strangers";
  // A stranger that asks for less than they do is next.
  auto fresh = node();
  fresh->send(a->url(), filled(60'000));
  ASSERT_TRUE(arrived(*a, fresh->url(), 1, seconds(7)));
}

TEST_F(Tx5Test, SmallPermitsDoNotWaitBehindHoardersOfLargeOnes) {
  auto a = node();
  const auto hoarders = hoard(*a, 20, {64U << 20, 8U << 20});
  world_.run_for(milliseconds(100));
  auto small = node(), middle = node();
  small->send(a->url(), filled(60'000));
  middle->send(a->url(), filled(900'000));
  ASSERT_TRUE(arrived(*a, small->url(), 1, seconds(1)));
  ASSERT_TRUE(arrived(*a, middle->url(), 1, seconds(1)));
}

TEST_F(Tx5Test, APeerWhoseMessagesAreRefusedWaitsForTheNextPermit) {
  auto a = node(), wasteful = node(), other = node();
  const auto sends = [&](TestNode& from, std::size_t before) {
    const Time start = world_.now();
    from.send(a->url(), filled(100'000));
    EXPECT_TRUE(arrived(*a, from.url(), before + 1, seconds(30)));
    return world_.now() - start;
  };
  EXPECT_LT(sends(*wasteful, 0), seconds(1));
  a->transport->wasted(wasteful->url(), 3U << 20);
  EXPECT_LT(sends(*other, 0), seconds(1)) << "nobody else pays";
  const Duration paid = sends(*wasteful, 1);
  EXPECT_GT(paid, milliseconds(1900));
  EXPECT_LT(paid, seconds(4));
  EXPECT_LT(sends(*wasteful, 2), seconds(1)) << "it has paid";
  // What needs no permit is not held up, and nobody waits for longer than ten seconds.
  for (int i = 0; i < 100; ++i) a->transport->wasted(wasteful->url(), 512U << 20);
  wasteful->send(a->url(), "small");
  ASSERT_TRUE(arrived(*a, wasteful->url(), 4, seconds(1)));
  const Duration longest = sends(*wasteful, 4);
  EXPECT_GT(longest, seconds(8));
  EXPECT_LT(longest, seconds(12));
  // One that leaves while it waits leaves nothing behind.
  a->transport->wasted(wasteful->url(), 512U << 20);
  wasteful->send(a->url(), filled(100'000));
  world_.run_for(seconds(1));
  const Url gone = wasteful->url();
  wasteful.reset();
  a->transport->disconnect(gone, {}, {});
  world_.run_for(seconds(30));
  EXPECT_LT(sends(*other, 1), seconds(1));
  EXPECT_EQ(a->events.violations, 0);
}

// ---------------------------------------------------------------- other relays

TEST_F(Tx5Test, PeerOnAnotherRelay) {
  FakeRelay other(world_, "ws://other:81");
  auto a = std::make_unique<TestNode>(world_, std::vector<FakeRelay*>{&relay_, &other});
  TestNode b(world_, {&other});
  world_.run_for(seconds(1));
  a->send(b.url(), "across");
  a->send(b.url(), filled(50'000));
  ASSERT_TRUE(
      run_until([&] { return b.events.messages.size() == 1 && b.events.messages.begin()->second.size() == 3; }));
  EXPECT_EQ(other.connections(), 2U);
  EXPECT_EQ(a->results.size(), 2U);
  // The answer goes to the url that the message came from: our key on their relay.
  const Url from = b.events.messages.begin()->first;
  EXPECT_EQ(from.relay().str(), "ws://other:81");
  b.send(from, "back");
  ASSERT_TRUE(arrived(*a, b.url(), 1));
  EXPECT_EQ(a->events.addresses.size(), 1U) << "only the own relay's is an address";
  // Not used: the connection goes, after the peer's.
  a->transport->disconnect(b.url(), {}, {});
  ASSERT_TRUE(run_until([&] { return other.connections() == 1; }, seconds(100)));
  EXPECT_EQ(a->events.violations, 0);
}

TEST_F(Tx5Test, StrangersOnAnotherRelayAreNotHeard) {
  FakeRelay other(world_, "ws://other:81");
  auto a = std::make_unique<TestNode>(world_, std::vector<FakeRelay*>{&relay_, &other});
  TestNode b(world_, {&other});
  world_.run_for(seconds(1));
  a->send(b.url(), "across");
  ASSERT_TRUE(run_until([&] { return b.events.live.size() == 1; }));
  HandPeer stranger(world_, other, 9);
  stranger.obey();
  stranger.say_hreq(node_id_of(*b.events.live.begin()));
  world_.run_for(seconds(5));
  EXPECT_TRUE(stranger.heard.empty());
  EXPECT_EQ(a->events.connects, 1);
}

TEST_F(Tx5Test, OtherRelayThatCannotBeReached) {
  FakeRelay other(world_, "ws://other:81");
  other.options.accept = false;
  TestNode a(world_, {&relay_, &other});
  world_.run_for(seconds(1));
  HandPeer there(world_, other, 9);
  a.send(there.url(), "hello?");
  ASSERT_TRUE(run_until([&] { return !a.results.empty(); }));
  EXPECT_EQ(a.results[0].error().code, Errc::peer_unresponsive);
  other.options.accept = true;
  there.obey();
  a.send(there.url(), "hello?");
  ASSERT_TRUE(run_until([&] { return there.messages.size() == 2; }));
}

TEST_F(Tx5Test, OtherRelaysAreBoundedAndMustBeEncrypted) {
  TestNode a(world_, {&relay_});
  world_.run_for(seconds(1));
  auto runtime = world_.make_runtime();
  Tx5TransportConfig config;
  config.server_url = "wss://relay.example";
  std::map<std::string, FakeRelay*> relays{{"wss://relay.example:443", &relay_}};
  auto made = make_tx5_transport(*runtime, std::make_shared<FakeConnector>(*runtime, relays), config);
  ASSERT_TRUE(made.has_value());
  Recorder events;
  (*made)->start(events);
  world_.run_for(seconds(1));
  std::optional<Error> error;
  const Url plain = *Url::parse("ws://elsewhere:80/iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w");
  (*made)->send(plain, {}, [&](Result<void> r) { error = r.error(); });
  world_.run_for(seconds(1));
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, Errc::unsupported);
  made->reset();
}

// ---------------------------------------------------------------- figures

TEST_F(Tx5Test, Stats) {
  auto a = node(), b = node();
  a->send(b->url(), filled(100));
  a->send(b->url(), filled(20'000));
  ASSERT_TRUE(arrived(*b, a->url(), 2));
  const TransportStats stats = a->transport->stats();
  EXPECT_EQ(stats.backend, "tx5-relay");
  EXPECT_EQ(stats.peer_urls, std::vector<Url>{a->url()});
  ASSERT_EQ(stats.connections.size(), 1U);
  EXPECT_EQ(stats.connections[0].peer, b->url());
  EXPECT_EQ(stats.connections[0].send_message_count, 3U) << "with the preflight";
  EXPECT_EQ(stats.connections[0].send_bytes, 20'102U);
  EXPECT_EQ(stats.connections[0].recv_message_count, 1U);
  EXPECT_FALSE(stats.connections[0].is_direct);
}

}  // namespace
}  // namespace kitsune2::tests
