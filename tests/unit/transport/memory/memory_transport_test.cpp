// The memory transport: the rules of TransportBackend, and its faults at exact times.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"
#include "kitsune2/transport_memory.hpp"

namespace kitsune2 {
namespace {

using namespace std::chrono_literals;
using testing::SimRuntime;
using testing::SimWorld;

Time at(Duration since_start) { return Time(since_start); }

/// A node that records its events.
struct Peer : TransportEvents {
  Peer(SimWorld& world, MemoryNetwork& network, const std::string& name)
      : world_(world), runtime(world.make_runtime()), backend(network.make_backend(*runtime, name)) {
    backend->start(*this);
    world.run_ready();
    url = *backend->url();
  }
  ~Peer() override { runtime->crash(); }

  void new_listening_address(const Url& own) override { log.push_back("url " + own.to_string()); }
  void listening_address_lost() override { log.push_back("lost"); }
  Result<Bytes> peer_connect(const Url& peer) override {
    log.push_back("connect " + std::string(*peer.peer_id()));
    if (refuse_connect) return make_error(Errc::blocked, "blocked");
    return Bytes::copy_of("hello");
  }
  Result<void> recv_data(const Url& peer, Bytes message) override {
    log.push_back(std::string(*peer.peer_id()) + ": " + message.str().substr(0, 20));
    times.push_back(world_.now());
    if (refuse_data) return make_error(Errc::peer_fault, "nonsense");
    return {};
  }
  void recv_progress(const Url&, std::size_t bytes) override { progress += bytes; }
  void peer_disconnect(const Url& peer, const std::optional<std::string>&) override {
    log.push_back("gone " + std::string(*peer.peer_id()));
    gone_at = world_.now();
  }
  void send(const Url& to, const std::string& text) {
    backend->send(to, Bytes::copy_of(text), [this](const Result<void>& r) {
      sent.push_back(r ? "ok" : std::string(to_string(r.error().code)));
      sent_at.push_back(world_.now());
    });
  }
  std::vector<std::string> take() { return std::exchange(log, {}); }

  SimWorld& world_;
  std::unique_ptr<SimRuntime> runtime;
  std::unique_ptr<TransportBackend> backend;
  Url url;
  std::vector<std::string> log, sent;
  std::vector<Time> times, sent_at;
  std::size_t progress = 0;
  Time gone_at{};
  bool refuse_connect = false, refuse_data = false;
};

using Log = std::vector<std::string>;

struct MemoryTransport : ::testing::Test {
  SimWorld world{1};
  std::shared_ptr<MemoryNetwork> network = MemoryNetwork::create();
};

TEST_F(MemoryTransport, UrlsAreCanonicalAndKnownSoon) {
  auto runtime = world.make_runtime();
  auto backend = network->make_backend(*runtime, "abc");
  EXPECT_FALSE(backend->url());
  Peer a(world, *network, "a");
  EXPECT_EQ(a.url.str(), "ws://memory:1/a");
  EXPECT_EQ(MemoryNetwork::url_of("a"), a.url);
  EXPECT_EQ(a.take(), (Log{"url ws://memory:1/a"}));
  EXPECT_EQ(a.backend->stats().peer_urls, (std::vector<Url>{a.url}));
  EXPECT_EQ(a.backend->stats().backend, "memory");
}

TEST_F(MemoryTransport, ThePreflightIsFirstEachWay) {
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.take();
  b.take();
  a.send(b.url, "one");
  a.send(b.url, "two");
  EXPECT_TRUE(a.log.empty()) << "nothing from inside the call";
  world.run_ready();
  b.send(a.url, "three");
  world.run_ready();
  EXPECT_EQ(a.take(), (Log{"connect b", "b: hello", "b: three"}));
  EXPECT_EQ(b.take(), (Log{"connect a", "a: hello", "a: one", "a: two"}));
  EXPECT_EQ(a.sent, (Log{"ok", "ok"}));
  ASSERT_EQ(a.backend->stats().connections.size(), 1U);
  EXPECT_EQ(a.backend->stats().connections[0].send_message_count, 3U);
  EXPECT_EQ(a.backend->stats().connections[0].recv_bytes, 10U);
}

TEST_F(MemoryTransport, BothMayConnectAtOnce) {
  network->set_default_link({.latency = 5ms});
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.take();
  b.take();
  a.send(b.url, "from a");
  b.send(a.url, "from b");
  world.run_for(1s);
  EXPECT_EQ(a.take(), (Log{"connect b", "b: hello", "b: from b"}));
  EXPECT_EQ(b.take(), (Log{"connect a", "a: hello", "a: from a"}));
}

TEST_F(MemoryTransport, LatencyIsExactAndOrderIsKeptWhenItChanges) {
  network->set_default_link({.latency = 50ms});
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.send(b.url, "one");
  world.run_for(1s);
  EXPECT_EQ(b.times, (std::vector<Time>{at(50ms), at(150ms)})) << "preflight, and the message after both preflights";
  b.times.clear();
  a.send(b.url, "slow");
  network->set_default_link({.latency = 1ms});
  a.send(b.url, "fast");
  world.run_for(1s);
  EXPECT_EQ(b.times, (std::vector<Time>{at(1050ms), at(1050ms)}));
  EXPECT_EQ(b.log.back(), "a: fast");
}

TEST_F(MemoryTransport, BandwidthQueuesAndTheQueueIsBounded) {
  MemoryNetworkOptions options;
  options.link.bytes_per_second = 1'000'000;
  options.max_queue_bytes = 300'000;
  network = MemoryNetwork::create(options);
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.send(b.url, "open");
  world.run_for(1s);
  a.sent_at.clear();
  b.times.clear();
  b.progress = 0;
  for (int i = 0; i < 4; ++i) a.send(b.url, std::string(100'000, 'x'));
  world.run_for(1s);
  EXPECT_EQ(a.sent, (Log{"ok", "overloaded", "ok", "ok", "ok"}));
  EXPECT_EQ(b.times, (std::vector<Time>{at(1100ms), at(1200ms), at(1300ms)}));
  EXPECT_EQ(a.sent_at.back(), at(1300ms)) << "handed to the network when its bytes have left";
  EXPECT_GT(b.progress, 0U);
}

TEST_F(MemoryTransport, NobodyIsThere) {
  network->set_default_link({.latency = 10ms});
  Peer a(world, *network, "a");
  a.take();
  a.send(MemoryNetwork::url_of("nobody"), "hi");
  world.run_for(19999us);
  EXPECT_TRUE(a.sent.empty());
  world.run_for(1us);
  EXPECT_EQ(a.sent, (Log{"peer_unresponsive"}));
  EXPECT_EQ(a.take(), (Log{"connect nobody", "gone nobody"}));
}

TEST_F(MemoryTransport, ARefusedConnectionFailsItsMessages) {
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.take();
  b.take();
  b.refuse_connect = true;
  a.send(b.url, "hi");
  world.run_ready();
  EXPECT_EQ(a.sent, (Log{"peer_unresponsive"}));
  EXPECT_EQ(a.take(), (Log{"connect b", "gone b"}));
  EXPECT_EQ(b.take(), (Log{"connect a"})) << "no disconnect for what was not connected";
  b.send(a.url, "hi");
  world.run_ready();
  EXPECT_EQ(b.sent, (Log{"blocked"}));
}

TEST_F(MemoryTransport, AnErrorOnDataClosesTheConnection) {
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.send(b.url, "fine");
  world.run_ready();
  a.take();
  b.take();
  b.refuse_data = true;
  a.send(b.url, "bad");
  world.run_ready();
  EXPECT_EQ(a.take(), (Log{"gone b"}));
  EXPECT_EQ(b.take(), (Log{"a: bad", "gone a"}));
  b.refuse_data = false;
  a.send(b.url, "again");
  world.run_ready();
  EXPECT_EQ(b.take(), (Log{"connect a", "a: hello", "a: again"}));
}

TEST_F(MemoryTransport, DisconnectSaysFarewell) {
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.send(b.url, "hi");
  world.run_ready();
  a.take();
  b.take();
  a.backend->disconnect(b.url, {.text = "enough"}, Bytes::copy_of("farewell"));
  EXPECT_TRUE(a.log.empty());
  world.run_ready();
  EXPECT_EQ(a.take(), (Log{"gone b"}));
  EXPECT_EQ(b.take(), (Log{"a: farewell", "gone a"}));
  a.backend->disconnect(b.url, {.text = "again"}, {});
  world.run_ready();
  EXPECT_TRUE(a.log.empty());
}

TEST_F(MemoryTransport, FailingAndSwallowingLinks) {
  Peer a(world, *network, "a"), b(world, *network, "b"), c(world, *network, "c");
  network->set_links_to(b.url, {.fail_sends = true, .fail_after = 3s});
  network->set_links_to(c.url, {.swallow = true});
  a.send(b.url, "to b");
  a.send(c.url, "to c");
  world.run_until(at(3s));
  EXPECT_EQ(a.sent, (Log{"ok", "peer_unresponsive"}));
  EXPECT_EQ(a.sent_at, (std::vector<Time>{at(0s), at(3s)}));
  EXPECT_EQ(c.log.back(), "a: hello") << "connected, and then nothing";
}

TEST_F(MemoryTransport, APartitionIsNoticedOnlyByLosses) {
  MemoryNetworkOptions options;
  options.loss_timeout = 5s;
  network = MemoryNetwork::create(options);
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.send(b.url, "hi");
  world.run_ready();
  a.take();
  b.take();
  network->partition({a.url}, {b.url});
  world.run_until(at(60s));
  EXPECT_TRUE(a.log.empty());
  a.send(b.url, "lost");
  world.run_until(at(65s - 1us));
  EXPECT_TRUE(a.log.empty());
  EXPECT_EQ(a.sent.back(), "ok") << "handed to the network";
  network->heal();
  a.send(b.url, "must not overtake what was lost");
  world.run_until(at(65s));
  EXPECT_EQ(a.take(), (Log{"gone b"}));
  EXPECT_TRUE(b.log.empty());
  a.send(b.url, "new");
  world.run_ready();
  EXPECT_EQ(b.take(), (Log{"gone a", "connect a", "a: hello", "a: new"}));
}

TEST_F(MemoryTransport, ACutDropsWhatIsOnItsWay) {
  network->set_default_link({.latency = 100ms});
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.send(b.url, "hi");
  world.run_for(1s);
  a.take();
  b.take();
  a.send(b.url, "on its way");
  world.run_for(50ms);
  network->cut(a.url, b.url, false);
  world.run_for(1s);
  EXPECT_TRUE(b.log.empty());
  EXPECT_TRUE(a.log.empty());
  world.run_for(10s);
  EXPECT_EQ(a.take(), (Log{"gone b"}));
  EXPECT_TRUE(b.log.empty()) << "b has sent nothing and knows nothing";
  b.send(a.url, "hello?");
  world.run_for(10s);
  EXPECT_EQ(b.take(), (Log{"gone a"}));
}

TEST_F(MemoryTransport, ACutWithNoticeIsHeardByBoth) {
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.send(b.url, "hi");
  world.run_ready();
  a.take();
  b.take();
  network->cut(a.url, b.url, true);
  world.run_ready();
  EXPECT_EQ(a.take(), (Log{"gone b"}));
  EXPECT_EQ(b.take(), (Log{"gone a"}));
}

TEST_F(MemoryTransport, ACrashedPeerResetsWhatItDoesNotKnow) {
  Peer a(world, *network, "a");
  {
    Peer b(world, *network, "b");
    a.send(b.url, "hi");
    world.run_ready();
  }
  a.take();
  Peer b(world, *network, "b");
  b.take();
  a.send(b.url, "old connection");
  world.run_ready();
  EXPECT_EQ(a.take(), (Log{"gone b"}));
  EXPECT_EQ(b.take(), (Log{}));
  b.send(a.url, "new");
  world.run_ready();
  EXPECT_EQ(a.take(), (Log{"connect b", "b: hello", "b: new"}));
}

TEST_F(MemoryTransport, ARestartedPeerReplacesItsConnection) {
  Peer a(world, *network, "a");
  {
    Peer b(world, *network, "b");
    a.send(b.url, "hi");
    world.run_ready();
  }
  a.take();
  Peer b(world, *network, "b");
  b.send(a.url, "back");
  world.run_ready();
  EXPECT_EQ(a.take(), (Log{"gone b", "connect b", "b: hello", "b: back"}));
}

TEST_F(MemoryTransport, ConnectingEndsWhenThePeerCrashesMeanwhile) {
  network->set_default_link({.latency = 100ms});
  Peer a(world, *network, "a");
  a.take();
  {
    Peer b(world, *network, "b");
    a.send(b.url, "hi");
    world.run_for(50ms);
  }
  world.run_until(at(30s - 1us));
  EXPECT_TRUE(a.sent.empty());
  world.run_until(at(30s));
  EXPECT_EQ(a.sent, (Log{"peer_unresponsive"}));
  EXPECT_EQ(a.take(), (Log{"connect b", "gone b"}));
}

TEST_F(MemoryTransport, AUrlMayChange) {
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.send(b.url, "hi");
  world.run_ready();
  a.take();
  const auto next = network->change_url(a.url, 2s);
  world.run_ready();
  EXPECT_FALSE(a.backend->url());
  EXPECT_EQ(a.take(), (Log{"gone b", "lost"}));
  a.send(b.url, "offline");
  world.run_for(1s);
  EXPECT_EQ(a.sent.back(), "disconnected");
  world.run_for(1s);
  EXPECT_EQ(a.take(), (Log{"url " + next.to_string()}));
  EXPECT_NE(next, MemoryNetwork::url_of("a"));
  b.take();
  a.send(b.url, "again");
  world.run_ready();
  EXPECT_EQ(b.take(), (Log{"connect " + std::string(*next.peer_id()), std::string(*next.peer_id()) + ": hello",
                           std::string(*next.peer_id()) + ": again"}));
}

TEST_F(MemoryTransport, StopEndsEverything) {
  Peer a(world, *network, "a"), b(world, *network, "b");
  a.send(b.url, "hi");
  world.run_ready();
  a.take();
  b.take();
  a.send(MemoryNetwork::url_of("c"), "still connecting");
  bool stopped = false;
  a.backend->stop([&] { stopped = true; });
  EXPECT_FALSE(stopped);
  world.run_ready();
  EXPECT_TRUE(stopped);
  EXPECT_EQ(a.take(), (Log{"gone b"}));
  EXPECT_EQ(b.take(), (Log{"gone a"}));
  EXPECT_EQ(a.sent.back(), "cancelled");
  a.send(b.url, "late");
  b.send(MemoryNetwork::url_of("a"), "late");
  world.run_ready();
  EXPECT_EQ(a.sent.back(), "cancelled");
  EXPECT_EQ(b.sent.back(), "peer_unresponsive");
  EXPECT_TRUE(a.log.empty());
}

TEST_F(MemoryTransport, MessagesAreNotCopied) {
  Peer a(world, *network, "a");
  struct Keeper : Peer {
    using Peer::Peer;
    Result<void> recv_data(const Url& peer, Bytes message) override {
      last = message;
      return Peer::recv_data(peer, message);
    }
    Bytes last;
  } b(world, *network, "b");
  const auto message = Bytes::copy_of(std::string(1000, 'm'));
  a.backend->send(b.url, message, [](const Result<void>&) {});
  world.run_ready();
  EXPECT_EQ(b.last.data(), message.data());
  EXPECT_EQ(network->bytes_between(a.url, b.url), 1000U);
  EXPECT_EQ(network->stats().messages, 3U);
}

}  // namespace
}  // namespace kitsune2
