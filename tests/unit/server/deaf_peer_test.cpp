// A node with its relay inside, over real sockets: a peer that does not read holds up nobody.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>

#include "kitsune2/relay_server.hpp"
#include "net/ws_connector.hpp"
#include "support/sockets.hpp"
#include "transport/tx5/tx5_transport.hpp"

namespace kitsune2 {
namespace {

using test::Inbox;

struct Events final : TransportEvents {
  void new_listening_address(const Url& own_url) override { urls.push(own_url); }
  void listening_address_lost() override { lost += 1; }
  Result<Bytes> peer_connect(const Url&) override { return Bytes::copy_of("\x08\x01"); }
  Result<void> recv_data(const Url&, Bytes message) override {
    if (message.size() > 2) messages.push(message.size());
    return {};
  }
  void recv_progress(const Url&, std::size_t) override {}
  void peer_disconnect(const Url& peer, const std::optional<std::string>&) override { left.push(peer); }

  Inbox<Url> urls;
  Inbox<std::size_t> messages;
  Inbox<Url> left;
  std::atomic<int> lost{0};
};

struct Node {
  Node(const RelayServer& relay, bool inside) {
    Tx5TransportConfig config;
    config.server_url = relay.relay_url();
    config.signal_allow_plain_text = true;
    loop.call([&] {
      auto connector =
          inside ? make_ws_connector(loop, relay.relay_url(), relay.local_door()) : make_ws_connector(loop);
      auto made = *tx5::Tx5Transport::create(loop, std::move(connector), config, tx5::LinkLimits{});
      made->note_addresses(addresses);
      transport = std::move(made);
      transport->start(events);
    });
    url = *events.urls.next();
  }
  ~Node() {
    loop.call([&] { transport.reset(); });
  }
  /// `count` messages of `size` bytes. `done` counts those that were sent, for as long as the node lives.
  void send(const Url& to, std::size_t size, std::atomic<int>& done, int count = 1) {
    loop.call([&] {
      for (int i = 0; i < count; ++i)
        transport->send(to, Bytes(std::vector<std::uint8_t>(size)), [&done](Result<void> r) { done += r ? 1 : 0; });
    });
  }

  /// Where the relay inside says that `peer` comes from.
  std::optional<std::string> group_of(const Url& peer) {
    std::optional<std::string> out;
    loop.call([&] { out = addresses->group_of(peer); });
    return out;
  }

  Events events;
  std::shared_ptr<tx5::PeerAddresses> addresses = std::make_shared<tx5::PeerAddresses>();
  std::unique_ptr<TransportBackend> transport;
  std::optional<Url> url;
  test::Loop loop;
};

TEST(DeafPeer, DoesNotDelayOtherPeersOfANodeWithItsOwnRelay) {
  RelayServerOptions options;
  options.slow_receiver_millis = 60'000;  // so that the relay would hold the node, if it held it at all
  const auto relay = *RelayServer::start(options);
  std::atomic<int> to_deaf{0}, to_honest{0};  // before the nodes, whose loops count there until they stop
  Node node(*relay, true), deaf(*relay, false), honest(*relay, false);
  node.send(*deaf.url, 100, to_deaf);
  node.send(*honest.url, 100, to_honest);
  ASSERT_TRUE(deaf.events.messages.next());
  ASSERT_TRUE(honest.events.messages.next());

  // It reads nothing any more: its loop stands still.
  std::promise<void> go_on;
  std::promise<void> stands;
  deaf.loop.post([&, wait = go_on.get_future().share()] {
    stands.set_value();
    wait.wait();
  });
  stands.get_future().wait();
  constexpr int kMessages = 3'000;  // of 16,000 bytes: more than the system's buffers and the credit take
  node.send(*deaf.url, 16'000, to_deaf, kMessages);
  node.send(*honest.url, 1'000, to_honest, 100);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(honest.events.messages.next()) << i;
  EXPECT_LT(to_deaf, kMessages);
  const auto stats = relay->stats();
  EXPECT_EQ(stats.sender_waits, 0U);
  EXPECT_LE(stats.queued_bytes, 2U << 20);
  go_on.set_value();
  for (int i = 0; i < kMessages; ++i) ASSERT_TRUE(deaf.events.messages.next()) << "nothing is lost";
  EXPECT_EQ(node.events.lost, 0);
}

TEST(RelayInside, OnlyTheNodeKnowsTheAddressesOfItsPeers) {
  const auto relay = *RelayServer::start(RelayServerOptions());
  std::atomic<int> done{0};  // before the nodes, as in the test above
  Node node(*relay, true), peer(*relay, false), other(*relay, false);
  peer.send(*node.url, 100, done);
  ASSERT_TRUE(node.events.messages.next());
  EXPECT_EQ(node.group_of(*peer.url), "7f000001");
  EXPECT_EQ(node.group_of(*other.url), std::nullopt) << "it has not spoken yet";
  other.send(*peer.url, 100, done);
  ASSERT_TRUE(peer.events.messages.next());
  EXPECT_EQ(peer.group_of(*other.url), std::nullopt);
}

TEST(RelayInside, WhatIsQueuedForAPeerThatHasLeftIsDroppedAtOnce) {
  const auto relay = *RelayServer::start(RelayServerOptions());
  Inbox<bool> ended;
  std::atomic<int> sent{0};
  Node node(*relay, true);
  auto peer = std::make_unique<Node>(*relay, false);
  const Url url = *peer->url;
  peer->send(*node.url, 100, sent);
  ASSERT_TRUE(node.events.messages.next());
  ASSERT_TRUE(node.group_of(url));
  std::promise<void> go_on, stands;
  peer->loop.post([&, wait = go_on.get_future().share()] {
    stands.set_value();
    wait.wait();
  });
  stands.get_future().wait();
  // More than the system's buffers and the credit take, so that some of it still waits when the peer is gone.
  constexpr int kMessages = 3'000;
  node.loop.call([&] {
    for (int i = 0; i < kMessages; ++i) {
      node.transport->send(url, Bytes(std::vector<std::uint8_t>(16'000)),
                           [&ended](const Result<void>& r) { ended.push(r.has_value()); });
    }
  });
  go_on.set_value();
  peer.reset();  // it says nothing more to the node
  EXPECT_EQ(node.events.left.next(), url);
  int sent_to_it = 0;
  for (int i = 0; i < kMessages; ++i) {
    const auto ok = ended.next();
    ASSERT_TRUE(ok) << i;
    sent_to_it += *ok ? 1 : 0;
  }
  EXPECT_LT(sent_to_it, kMessages);
  EXPECT_EQ(node.group_of(url), std::nullopt);
  EXPECT_EQ(node.events.lost, 0);
}

}  // namespace
}  // namespace kitsune2
