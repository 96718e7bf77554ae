// Connections between two loops, over TCP and over TLS.
#include "net/conn.hpp"

#include <gtest/gtest.h>

#include <string>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/tls.hpp"
#include "support/sockets.hpp"
#include "unit/net/pattern.hpp"

namespace kitsune2::net {
namespace {

using test::Inbox;
using test::Loop;

/// Takes ten bytes in each turn of the loop, or `most`.
struct SlowReader final : ConnEvents {
  explicit SlowReader(std::size_t at_once = 10) : most(at_once) {}
  const std::size_t most;
  std::shared_ptr<Conn> conn;
  std::string received;
  Inbox<Error> closed;

  void on_connected() override {}
  std::size_t on_data(const Incoming& in) override {
    const std::size_t n = std::min(in.size, most);
    received.append(reinterpret_cast<const char*>(in.data), n);
    if (n < in.size) {
      conn->pause();
      conn->resume();
    }
    return n;
  }
  void on_sent(std::size_t) override {}
  void on_closed(const Error& why) override {
    conn.reset();
    closed.push(why);
  }
};

/// Appends the first bytes, passes on the others by send_now, and closes.
struct Sender final : ConnEvents {
  Sender(std::string all, std::size_t first) : data(std::move(all)), appended(first) {}
  const std::string data;
  const std::size_t appended;
  std::shared_ptr<Conn> conn;
  Inbox<Error> closed;

  void on_connected() override {
    conn->out().append(as_bytes(data).first(appended));
    if (appended < data.size()) conn->send_now(as_bytes(data).subspan(appended));
    conn->close(make_error(Errc::cancelled, "said"));
  }
  std::size_t on_data(const Incoming& in) override { return in.size; }
  void on_sent(std::size_t) override {}
  void on_closed(const Error& why) override {
    conn.reset();
    closed.push(why);
  }
};

/// What arrives of what was sent before the close.
std::string arrives(const std::shared_ptr<SlowReader>& reader, const std::shared_ptr<Sender>& sender,
                    const std::shared_ptr<TlsContext>& server_tls, const std::shared_ptr<TlsContext>& client_tls) {
  Loop server_loop, client_loop;
  const auto listener = Listener::listen(server_loop, "127.0.0.1:0", server_tls, [&](const auto& conn) {
                          reader->conn = conn;
                          return reader;
                        }).value();
  server_loop.call([&] { listener->start(); });
  const auto at = split_host_port(listener->address()).value();
  client_loop.call([&] {
    sender->conn = connect(client_loop, {at.first, at.second, client_tls}, std::chrono::seconds(30), sender);
  });
  EXPECT_TRUE(sender->closed.next().has_value());
  EXPECT_TRUE(reader->closed.next().has_value());
  std::string out;
  server_loop.call([&] {
    listener->stop();
    out = reader->received;
  });
  return out;
}

using tests::pattern;

/// Sends by send_now until the other side is gone.
struct EagerSender final : ConnEvents {
  explicit EagerSender(Runtime& on) : runtime(on) {}
  Runtime& runtime;
  std::shared_ptr<Conn> conn;
  bool inside = false;  // a call to the connection
  std::size_t calls_inside = 0, left = 1;
  Inbox<std::size_t> sent;
  Inbox<Error> closed;

  void on_connected() override { go_on(); }
  std::size_t on_data(const Incoming& in) override { return in.size; }
  void on_sent(std::size_t queued) override {
    calls_inside += inside ? 1U : 0U;
    sent.push(queued);
    runtime.post([this] { go_on(); });
  }
  void on_closed(const Error& why) override {
    calls_inside += inside ? 1U : 0U;
    conn.reset();
    closed.push(why);
  }
  void go_on() {
    const auto self = conn;  // the end is not to be told inside this call, but might be
    if (!self) return;
    inside = true;
    self->out().append(as_bytes("a few bytes"));
    self->send_now();
    left = std::min(left, self->queued());
    inside = false;
  }
};

TEST(Conn, WhatIsSentNowLeavesAtOnceAndIsReportedAfterTheCall) {
  Loop server_loop, client_loop;
  Inbox<bool> accepted;
  const auto reader = std::make_shared<SlowReader>();
  const auto sender = std::make_shared<EagerSender>(client_loop);
  const auto listener = Listener::listen(server_loop, "127.0.0.1:0", nullptr, [&](const auto& conn) {
                          reader->conn = conn;
                          accepted.push(true);
                          return reader;
                        }).value();
  server_loop.call([&] { listener->start(); });
  const auto at = split_host_port(listener->address()).value();
  client_loop.call([&] {
    sender->conn = connect(client_loop, {at.first, at.second, nullptr}, std::chrono::seconds(30), sender);
  });
  ASSERT_EQ(sender->sent.next(), std::optional<std::size_t>(0));
  ASSERT_TRUE(sender->sent.next().has_value());
  // The operating system takes what is sent before the server has accepted.
  ASSERT_TRUE(accepted.next().has_value());
  server_loop.call([&] {
    if (reader->conn) reader->conn->abort(make_error(Errc::cancelled, "enough"));
  });
  ASSERT_TRUE(sender->closed.next().has_value());
  client_loop.call([&] {
    EXPECT_EQ(sender->left, 0U);
    EXPECT_EQ(sender->calls_inside, 0U);
  });
  server_loop.call([&] { listener->stop(); });
}

struct Tls {
  const test::Certificates certificates;
  const std::shared_ptr<TlsContext> server = TlsContext::server(certificates.cert, certificates.key).value();
  const std::shared_ptr<TlsContext> client = TlsContext::client({.ca_file = certificates.ca}).value();
};

/// Closes at once.
struct Closer final : ConnEvents {
  std::shared_ptr<Conn> conn;
  Inbox<Error> closed;

  void on_connected() override { conn->close(make_error(Errc::cancelled, "enough")); }
  std::size_t on_data(const Incoming& in) override { return in.size; }
  void on_sent(std::size_t) override {}
  void on_closed(const Error& why) override {
    conn.reset();
    closed.push(why);
  }
};

/// How many bytes of 32 MiB a client gets rid of that only sends, until the other side is gone.
std::size_t sends_to(const std::string& host, std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int room = 64 << 10;
  ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = ::inet_addr(host.c_str());
  to.sin_port = htons(port);
  std::size_t sent = 0;
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): how the C library takes addresses
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0) {
    const std::string piece(64U << 10, 'x');
    while (sent < 32U << 20) {
      const ssize_t n = ::send(fd, piece.data(), piece.size(), MSG_NOSIGNAL);
      if (n <= 0) break;
      sent += static_cast<std::size_t>(n);
    }
  }
  ::close(fd);
  return sent;
}

TEST(Conn, OfAClientThatIsSentAwayLittleMoreIsRead) {
  Loop server_loop;
  const auto closer = std::make_shared<Closer>();
  const auto listener = Listener::listen(server_loop, "127.0.0.1:0", nullptr, [&](const auto& conn) {
                          closer->conn = conn;
                          return closer;
                        }).value();
  server_loop.call([&] { listener->start(); });
  const auto at = split_host_port(listener->address()).value();
  // What the operating system keeps for both sides is less than 8 MiB.
  EXPECT_LT(sends_to(at.first, at.second), 8U << 20);
  EXPECT_TRUE(closer->closed.next().has_value());
  server_loop.call([&] { listener->stop(); });
}

TEST(Conn, ASlowReaderGetsEverythingBeforeTheEnd) {
  const auto sender = std::make_shared<Sender>(pattern(5'000), 5'000);
  EXPECT_EQ(arrives(std::make_shared<SlowReader>(), sender, nullptr, nullptr), sender->data);
}

TEST(Conn, ASlowReaderGetsEverythingBeforeTheEndOfTls) {
  const Tls tls;
  const auto sender = std::make_shared<Sender>(pattern(5'000), 5'000);
  EXPECT_EQ(arrives(std::make_shared<SlowReader>(), sender, tls.server, tls.client), sender->data);
}

// The operating system takes less of them than there is.
TEST(Conn, BytesThatAreSentNowFollowWhatWasAppended) {
  for (const std::size_t appended : {0U, 1U, 3'000'000U}) {
    const auto sender = std::make_shared<Sender>(pattern(20'000'000), appended);
    EXPECT_TRUE(arrives(std::make_shared<SlowReader>(1U << 20), sender, nullptr, nullptr) == sender->data) << appended;
  }
}

TEST(Conn, BytesThatAreSentNowFollowWhatWasAppendedOverTls) {
  const Tls tls;
  const auto sender = std::make_shared<Sender>(pattern(5'000'000), 1'000'000);
  EXPECT_TRUE(arrives(std::make_shared<SlowReader>(1U << 20), sender, tls.server, tls.client) == sender->data);
}

}  // namespace
}  // namespace kitsune2::net
