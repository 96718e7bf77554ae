// Connections inside the process, between two loops.
#include "net/local_conn.hpp"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "support/sockets.hpp"
#include "unit/net/pattern.hpp"

namespace kitsune2::net {
namespace {

using test::Inbox;
using test::Loop;

/// Keeps what arrives; may echo it.
struct End final : ConnEvents {
  std::shared_ptr<Conn> conn;
  bool echo = false;
  bool slow = false;  ///< takes ten bytes in each turn of the loop
  std::string received;
  Inbox<std::size_t> amounts;  ///< size of `received` after each delivery
  Inbox<bool> connected;
  Inbox<std::size_t> sent;
  Inbox<Error> closed;

  void on_connected() override { connected.push(true); }
  std::size_t on_data(const Incoming& in) override {
    if (slow && in.size > 10) {
      received.append(reinterpret_cast<const char*>(in.data), 10);
      conn->pause();
      conn->resume();
      return 10;
    }
    received.append(reinterpret_cast<const char*>(in.data), in.size);
    if (echo) {
      conn->out().append({in.data, in.size});
      conn->flush();
    }
    amounts.push(received.size());
    return in.size;
  }
  void on_sent(std::size_t queued) override { sent.push(queued); }
  void on_closed(const Error& why) override {
    conn.reset();
    closed.push(why);
  }
};

/// A server that accepts connections, and a client that has connected.
struct Pair {
  Loop server_loop, client_loop;
  std::shared_ptr<End> server = std::make_shared<End>(), client = std::make_shared<End>();
  bool refuse = false, pause_first = false;
  std::shared_ptr<LocalDoor> door = std::make_shared<LocalDoor>(
      server_loop, [this](const std::shared_ptr<Conn>& conn) -> std::shared_ptr<ConnEvents> {
        if (refuse) return nullptr;
        server->conn = conn;
        if (pause_first) conn->pause();
        return server;
      });

  ~Pair() {
    server_loop.call([&] { door->shut(); });
    client_loop.stop();
    server_loop.stop();
    // The two keep each other alive while the connection is open.
    client->conn.reset();
    server->conn.reset();
  }
  void connect() {
    client_loop.call([&] { client->conn = net::connect(client_loop, door, client); });
  }
  void send(std::string_view text) {
    client_loop.call([&] {
      client->conn->out().append(as_bytes(text));
      client->conn->flush();
    });
  }
};

bool wait_for_bytes(End& end, std::size_t bytes) {
  while (const auto have = end.amounts.next()) {
    if (*have >= bytes) return true;
  }
  return false;
}

using tests::pattern;

TEST(LocalConn, BytesGoBothWaysWholeAndInOrder) {
  Pair p;
  p.server->echo = true;
  p.connect();
  ASSERT_TRUE(p.client->connected.next());
  ASSERT_TRUE(p.server->connected.next());
  const std::string data = pattern(3'000'000);
  for (std::size_t at = 0, n = 1; at < data.size(); at += n, n = n * 3 + 1) {
    n = std::min(n, data.size() - at);
    p.send(std::string_view(data).substr(at, n));
  }
  ASSERT_TRUE(wait_for_bytes(*p.client, data.size()));
  p.client_loop.call([&] { EXPECT_TRUE(p.client->received == data); });
  p.client_loop.call([&] { EXPECT_EQ(p.client->conn->remote_ip(), IpAddress{}); });
}

TEST(LocalConn, UntakenBytesAreQueuedAndAPausedEndTakesNothing) {
  Pair p;
  p.pause_first = true;
  p.connect();
  ASSERT_TRUE(p.client->connected.next());
  const std::string data = pattern(1'000'000);
  p.send(data);
  p.client_loop.call([&] { EXPECT_EQ(p.client->conn->queued(), data.size()); });
  p.server_loop.call([] {});  // a turn in which it could have been read
  EXPECT_EQ(p.server->amounts.size(), 0U);
  p.client_loop.call([&] {
    EXPECT_EQ(p.client->conn->queued(), data.size());
    EXPECT_TRUE(p.client->conn->stalled_since().has_value());
  });
  p.server_loop.call([&] { p.server->conn->resume(); });
  ASSERT_TRUE(wait_for_bytes(*p.server, data.size()));
  for (;;) {
    const auto left = p.client->sent.next();
    ASSERT_TRUE(left.has_value());
    if (*left == 0) break;
  }
  p.client_loop.call([&] { EXPECT_FALSE(p.client->conn->stalled_since().has_value()); });
  p.server_loop.call([&] { EXPECT_TRUE(p.server->received == data); });
}

TEST(LocalConn, AClosedEndsBytesArriveBeforeItsEnd) {
  Pair p;
  p.connect();
  ASSERT_TRUE(p.client->connected.next());
  const std::string data = pattern(700'000);
  p.client_loop.call([&] {
    p.client->conn->out().append(as_bytes(data));
    p.client->conn->close(make_error(Errc::cancelled, "enough"), std::chrono::seconds(1));
  });
  const auto here = p.client->closed.next();
  ASSERT_TRUE(here.has_value());
  EXPECT_EQ(here->code, Errc::cancelled);
  const auto there = p.server->closed.next();
  ASSERT_TRUE(there.has_value());
  EXPECT_EQ(there->code, Errc::disconnected);
  p.server_loop.call([&] { EXPECT_TRUE(p.server->received == data); });
}

TEST(LocalConn, ASlowReaderGetsEverythingBeforeTheEnd) {
  Pair p;
  p.server->slow = true;
  p.connect();
  ASSERT_TRUE(p.client->connected.next());
  const std::string data = pattern(5'000);
  p.client_loop.call([&] {
    p.client->conn->out().append(as_bytes(data));
    p.client->conn->close(make_error(Errc::cancelled, "enough"), std::chrono::seconds(1));
  });
  ASSERT_TRUE(p.server->closed.next().has_value());
  p.server_loop.call([&] { EXPECT_TRUE(p.server->received == data); });
}

TEST(LocalConn, ARefusedClientLearnsOfIt) {
  Pair p;
  p.refuse = true;
  p.connect();
  const auto why = p.client->closed.next();
  ASSERT_TRUE(why.has_value());
  EXPECT_EQ(why->code, Errc::peer_unresponsive);
}

TEST(LocalConn, AShutDoorLetsNobodyIn) {
  Pair p;
  p.server_loop.call([&] { p.door->shut(); });
  p.connect();
  const auto why = p.client->closed.next();
  ASSERT_TRUE(why.has_value());
  EXPECT_EQ(why->code, Errc::peer_unresponsive);
}

TEST(LocalConn, WhenTheServersLoopStopsTheClientIsClosed) {
  Pair p;
  p.connect();
  ASSERT_TRUE(p.server->connected.next());
  p.server_loop.stop();
  const auto why = p.client->closed.next();
  ASSERT_TRUE(why.has_value());
  EXPECT_EQ(why->code, Errc::disconnected);
}

TEST(LocalConn, EndsThatComeAndGoAtOnceFromBothSides) {
  for (int i = 0; i < 200; ++i) {
    Pair p;
    p.connect();
    p.client_loop.call([&] {
      if (!p.client->conn) return;
      p.client->conn->out().append(as_bytes("x"));
      p.client->conn->flush();
      if (i % 2 == 0) p.client->conn->abort(make_error(Errc::cancelled, "gone"));
    });
    if (i % 3 == 0) p.server_loop.stop();
    if (i % 2 == 0) {
      EXPECT_TRUE(p.client->closed.next().has_value());
    }
  }
}

}  // namespace
}  // namespace kitsune2::net
