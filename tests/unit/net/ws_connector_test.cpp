// The WebSocket client against an independent server.
#include "net/ws_connector.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/ssl.hpp>
#include <functional>
#include <set>
#include <thread>
#include <vector>

#include "support/sockets.hpp"

namespace kitsune2 {
namespace {

using test::Inbox;
using test::Loop;
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using tcp = asio::ip::tcp;

/// An independent WebSocket server: Beast, blocking, one connection; then it does what it is told.
class BeastServer {
 public:
  using Plain = websocket::stream<tcp::socket>;
  using Secure = websocket::stream<asio::ssl::stream<tcp::socket>>;

  explicit BeastServer(std::function<void(Plain&)> serve) : serve_plain_(std::move(serve)) { run(); }
  BeastServer(const test::Certificates& certs, std::function<void(Secure&)> serve) : serve_secure_(std::move(serve)) {
    context_.emplace(asio::ssl::context::tls_server);
    context_->use_certificate_chain_file(certs.cert);
    context_->use_private_key_file(certs.key, asio::ssl::context::pem);
    run();
  }
  ~BeastServer() {
    ::shutdown(acceptor_.native_handle(), SHUT_RDWR);
    thread_.join();
  }
  std::string url(const std::string& path = "/x") const {
    return (context_ ? "wss://127.0.0.1:" : "ws://127.0.0.1:") + std::to_string(port_) + path;
  }

 private:
  void run() {
    port_ = acceptor_.local_endpoint().port();
    thread_ = std::thread([this] {
      try {
        auto socket = acceptor_.accept();
        socket.set_option(tcp::no_delay(true));
        if (context_) {
          Secure stream(std::move(socket), *context_);
          stream.next_layer().handshake(asio::ssl::stream_base::server);
          stream.accept();
          serve_secure_(stream);
        } else {
          Plain stream(std::move(socket));
          stream.accept();
          serve_plain_(stream);
        }
      } catch (const std::exception&) {
        // the client closed, as the test wants
      }
    });
  }

  asio::io_context io_;
  tcp::acceptor acceptor_{io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  std::optional<asio::ssl::context> context_;
  std::uint16_t port_ = 0;
  std::function<void(Plain&)> serve_plain_;
  std::function<void(Secure&)> serve_secure_;
  std::thread thread_;
};

template <class Stream>
void echo(Stream& stream) {
  stream.read_message_max(64U << 20);
  while (true) {
    beast::flat_buffer buffer;
    stream.read(buffer);
    stream.binary(stream.got_binary());
    stream.write(buffer.data());
  }
}

/// What a client receives, in order: "open", "msg <size>", "writable", "close <code> <text>".
struct Client {
  Inbox<Bytes> messages;
  Inbox<std::string> opened;
  Inbox<Error> closed;
  Inbox<std::string> writable;
  Loop loop;
  std::unique_ptr<WsConnector> connector;
  std::shared_ptr<WsConnection> ws;

  Client() {
    loop.call([&] { connector = make_ws_connector(loop); });
  }
  ~Client() {
    loop.call([&] {
      ws.reset();
      connector.reset();
    });
  }
  void connect(const std::string& url, const WsOptions& options = {}) {
    loop.call([&] {
      WsHandlers handlers;
      handlers.on_open = [&] { opened.push("open"); };
      handlers.on_message = [&](Bytes m) { messages.push(std::move(m)); };
      handlers.on_close = [&](Error e) { closed.push(std::move(e)); };
      handlers.on_writable = [&] { writable.push("writable"); };
      ws = connector->connect(url, options, std::move(handlers));
      EXPECT_EQ(opened.size() + closed.size(), 0U) << "called back from inside connect";
    });
  }
  bool send(Bytes message) {
    bool out = false;
    loop.call([&] { out = ws->send(std::move(message)); });
    return out;
  }
};

Bytes counting(std::size_t size, int seed) {
  std::vector<std::uint8_t> out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::uint8_t>(i * 31 + static_cast<std::size_t>(seed));
  return Bytes(std::move(out));
}

TEST(WsConnector, EchoOverTcpKeepsOrderAndBytes) {
  BeastServer server([](auto& s) { echo(s); });
  Client c;
  WsOptions options;
  options.max_message_bytes = 1U << 20;
  c.connect(server.url(), options);
  ASSERT_TRUE(c.opened.next());
  const std::size_t sizes[] = {0, 1, 125, 126, 4095, 4096, 20'000, 65'535, 65'536, 300'000, 5};
  int seed = 0;
  for (const auto size : sizes) EXPECT_TRUE(c.send(counting(size, seed++)));
  seed = 0;
  for (const auto size : sizes) EXPECT_EQ(c.messages.next(), counting(size, seed++)) << size;
  c.loop.call([&] { c.ws->close(); });
  const auto end = c.closed.next();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, Errc::cancelled);
}

TEST(WsConnector, EchoOverTls) {
  const test::Certificates certs;
  BeastServer server(certs, [](auto& s) { echo(s); });
  Client c;
  WsOptions options;
  options.tls_ca_file = certs.ca;
  c.connect(server.url(), options);
  ASSERT_TRUE(c.opened.next());
  for (int i = 0; i < 500; ++i)
    ASSERT_TRUE(c.send(counting(20'000 - static_cast<std::size_t>(i), i)) || c.writable.next());
  int got = 0;
  for (int i = 0; i < 500; ++i) {
    const auto m = c.messages.next();
    if (m == counting(20'000 - static_cast<std::size_t>(i), i)) ++got;
  }
  EXPECT_EQ(got, 500);
}

TEST(WsConnector, ABadCertificateIsRefusedAndSaysWhy) {
  const test::Certificates certs;
  const test::Certificates others;
  const test::Certificates wrong_name("DNS:elsewhere.example");
  struct Case {
    const test::Certificates& server;
    std::string ca;
    std::string expect;
  };
  const Case cases[] = {
      {certs, "", "certificate"}, {certs, others.ca, "certificate"}, {wrong_name, wrong_name.ca, "mismatch"}};
  for (const auto& kase : cases) {
    BeastServer server(kase.server, [](auto& s) { echo(s); });
    Client c;
    WsOptions options;
    options.tls_ca_file = kase.ca;
    c.connect(server.url(), options);
    const auto end = c.closed.next();
    ASSERT_TRUE(end);
    EXPECT_EQ(end->code, Errc::peer_unresponsive);
    EXPECT_NE(end->message.find(kase.expect), std::string::npos) << end->message;
    EXPECT_EQ(c.opened.size(), 0U);
  }
  BeastServer server(certs, [](auto& s) { echo(s); });
  Client c;
  WsOptions options;
  options.tls_verify = false;
  c.connect(server.url(), options);
  EXPECT_TRUE(c.opened.next()) << "verification is off only when asked";
}

TEST(WsConnector, APlainServerOnAWssUrlIsAClearError) {
  BeastServer server([](auto& s) { echo(s); });
  Client c;
  std::string url = server.url();
  url.replace(0, 2, "wss");
  c.connect(url);
  const auto end = c.closed.next();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, Errc::peer_unresponsive) << end->to_string();
  EXPECT_NE(end->message.find("does the server speak TLS there?"), std::string::npos) << end->message;
}

TEST(WsConnector, AServerThatClosesBeforeItAnswersMayExpectTls) {
  // What a TLS server does with a plain request: takes it for nonsense and closes.
  asio::io_context io;
  tcp::acceptor acceptor(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  std::jthread thread([&] {
    auto socket = acceptor.accept();
    char bytes[16];
    beast::error_code ec;
    socket.read_some(asio::buffer(bytes), ec);
  });
  Client c;
  c.connect("ws://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/x");
  const auto end = c.closed.next();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, Errc::disconnected);
  EXPECT_NE(end->message.find("does it expect TLS there?"), std::string::npos) << end->message;
}

TEST(WsConnector, ErrorsNameThePlace) {
  struct Case {
    std::string url;
    Errc code;
    std::string expect;
  };
  const Case cases[] = {
      {"ws://127.0.0.1:9/x", Errc::peer_unresponsive, "connect 127.0.0.1:9: Connection refused"},
      {"ws://[::1]:9/x", Errc::peer_unresponsive, "connect [::1]:9: "},
      {"ws://does-not-exist.invalid:80/x", Errc::peer_unresponsive, "resolve does-not-exist.invalid: "},
      {"http://127.0.0.1/", Errc::invalid_argument, "must begin with ws:// or wss://"},
  };
  for (const auto& kase : cases) {
    Client c;
    c.connect(kase.url);
    const auto end = c.closed.next();
    ASSERT_TRUE(end);
    EXPECT_EQ(end->code, kase.code) << end->to_string();
    EXPECT_NE(end->message.find(kase.expect), std::string::npos) << end->message;
    EXPECT_FALSE(c.send(counting(1, 1)));
  }
}

TEST(WsConnector, ASilentServerTimesOut) {
  // Connects, but the other side does not answer the upgrade.
  asio::io_context io;
  tcp::acceptor silent(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  const std::string at = "127.0.0.1:" + std::to_string(silent.local_endpoint().port());
  for (const char* scheme : {"ws://", "wss://"}) {
    Client c;
    WsOptions options;
    options.handshake_timeout = std::chrono::milliseconds(50);
    c.connect(scheme + at + "/x", options);
    const auto end = c.closed.next();
    ASSERT_TRUE(end);
    EXPECT_EQ(end->code, Errc::timed_out) << end->to_string();
  }
}

// A host whose first packets are lost: a later attempt finds it sooner than this one would (net::kTcpConnectLimit).
TEST(WsConnector, AHostThatDoesNotAnswerIsLeftAfterEightSecondsNotThirty) {
  asio::io_context io;
  tcp::acceptor full(io);
  full.open(tcp::v4());
  full.bind(tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  full.listen(0);
  // Nobody accepts: once the system's queue is full, it answers nobody.
  std::vector<tcp::socket> waiting;
  for (int i = 0; i < 4; ++i) {
    waiting.emplace_back(io, tcp::v4()).async_connect(full.local_endpoint(), [](const beast::error_code&) {});
  }
  Client c;
  c.connect("ws://127.0.0.1:" + std::to_string(full.local_endpoint().port()) + "/x");
  const auto end = c.closed.next();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, Errc::peer_unresponsive) << "timed_out is the limit of all steps together, 30 s";
  EXPECT_NE(end->message.find("connect 127.0.0.1:"), std::string::npos) << end->message;
}

TEST(WsConnector, TooLargeAMessageClosesWith1009) {
  Inbox<std::uint16_t> code;
  BeastServer server([&](auto& s) {
    s.binary(true);
    s.write(asio::buffer(std::string(20'001, 'x')));
    beast::flat_buffer buffer;
    beast::error_code ec;
    s.read(buffer, ec);
    code.push(s.reason().code);
  });
  Client c;
  c.connect(server.url());
  const auto end = c.closed.next();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, Errc::too_large);
  EXPECT_EQ(code.next(), 1009);
}

TEST(WsConnector, TheServersCloseAndItsReasonAreReported) {
  BeastServer server([](auto& s) { s.close({websocket::close_code::policy_error, "go away"}); });
  Client c;
  c.connect(server.url());
  ASSERT_TRUE(c.opened.next());
  const auto end = c.closed.next();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, Errc::disconnected);
  EXPECT_NE(end->message.find("(1008 go away)"), std::string::npos) << end->message;
}

TEST(WsConnector, ALostConnectionIsReported) {
  BeastServer server([](auto& s) { s.next_layer().close(); });
  Client c;
  c.connect(server.url());
  const auto end = c.closed.next();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, Errc::disconnected) << end->to_string();
}

TEST(WsConnector, PingsAreAnswered) {
  Inbox<std::string> pong;
  BeastServer server([&](auto& s) {
    s.control_callback([&](websocket::frame_type kind, beast::string_view payload) {
      if (kind == websocket::frame_type::pong) pong.push(std::string(payload));
    });
    s.ping("are you there");
    echo(s);
  });
  Client c;
  c.connect(server.url());
  EXPECT_EQ(pong.next(), "are you there");
}

TEST(WsConnector, AServerThatAnswersPingsIsKeptThoughItSaysNothingElse) {
  Inbox<std::string> pings;
  BeastServer server([&](auto& s) {
    s.control_callback([&](websocket::frame_type kind, beast::string_view payload) {
      if (kind == websocket::frame_type::ping) pings.push(std::string(payload));
    });
    echo(s);  // reads, and answers pings on its own
  });
  Client c;
  WsOptions options;
  options.pings = {.quiet = std::chrono::milliseconds(20), .answer = std::chrono::seconds(60)};
  c.connect(server.url(), options);
  std::set<std::string> payloads;
  for (int i = 0; i < 20; ++i) {
    const auto ping = pings.next();
    ASSERT_TRUE(ping) << "an answer is followed by the next ping";
    payloads.insert(*ping);
  }
  EXPECT_EQ(payloads.size(), 20U);
  EXPECT_TRUE(c.send(counting(100, 1)));
  EXPECT_EQ(c.messages.next(), counting(100, 1));
  EXPECT_EQ(c.closed.size(), 0U);
}

TEST(WsConnector, AServerThatIsUpAndDeafIsLeft) {
  Inbox<int> end_of_test;
  BeastServer server([&](auto&) { end_of_test.next(); });  // accepted; it neither reads nor writes
  Client c;
  WsOptions options;
  options.pings = {.quiet = std::chrono::milliseconds(20), .answer = std::chrono::milliseconds(200)};
  c.connect(server.url(), options);
  ASSERT_TRUE(c.opened.next());
  const auto end = c.closed.next();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, Errc::timed_out) << end->to_string();
  EXPECT_NE(end->message.find("has not answered a ping"), std::string::npos) << end->message;
  EXPECT_TRUE(end->message.starts_with("127.0.0.1:")) << end->message;
  EXPECT_FALSE(c.send(counting(1, 1)));
  end_of_test.push(1);
}

TEST(WsConnector, AFullQueueRefusesAndReportsWhenThereIsRoom) {
  Inbox<int> go;
  BeastServer server([&](auto& s) {
    go.next();
    echo(s);
  });
  Client c;
  WsOptions options;
  options.max_queue_bytes = 100'000;
  c.connect(server.url(), options);
  ASSERT_TRUE(c.opened.next());
  // The server does not read: the kernel's buffers fill, then the queue.
  std::size_t sent = 0;
  while (c.send(counting(20'000, 1))) {
    ++sent;
    ASSERT_LT(sent, 10'000U);
    c.loop.call([&] { EXPECT_LE(c.ws->queued_bytes(), 100'000U + 20'014U); });
  }
  EXPECT_EQ(c.writable.size(), 0U);
  go.push(1);
  EXPECT_TRUE(c.writable.next());
  EXPECT_TRUE(c.send(counting(20'000, 1)));
  ++sent;
  for (std::size_t i = 0; i < sent; ++i) ASSERT_EQ(c.messages.next(), counting(20'000, 1));
}

TEST(WsConnector, LettingGoOfTheConnectionClosesIt) {
  Inbox<int> ended;
  BeastServer server([&](auto& s) {
    beast::flat_buffer buffer;
    beast::error_code ec;
    s.read(buffer, ec);
    ended.push(1);
  });
  Client c;
  c.connect(server.url());
  ASSERT_TRUE(c.opened.next());
  c.loop.call([&] { c.ws.reset(); });
  EXPECT_TRUE(ended.next());
  const auto end = c.closed.next();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, Errc::cancelled);
}

TEST(WsConnector, AnAnswerThatIsNoUpgradeIsRefused) {
  const std::pair<const char*, const char*> answers[] = {
      {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "the server answered 404; is it a relay?"},
      {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "takes no more clients (it answered 503)"},
      {"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", "takes no more clients (it answered 429)"},
      {"hello\r\n\r\n", "the answer is not HTTP"},
      {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
       "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
       "the server's answer to the upgrade is not valid"}};
  for (const auto& [answer, says] : answers) {
    asio::io_context io;
    tcp::acceptor acceptor(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    std::jthread thread([&, text = answer] {
      auto socket = acceptor.accept();
      asio::write(socket, asio::buffer(text, std::strlen(text)));
      char byte = 0;
      beast::error_code ec;
      while (!ec) socket.read_some(asio::buffer(&byte, 1), ec);
    });
    Client c;
    c.connect("ws://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/x");
    const auto end = c.closed.next();
    ASSERT_TRUE(end);
    EXPECT_EQ(end->code, Errc::peer_unresponsive) << end->to_string();
    EXPECT_NE(end->message.find(says), std::string::npos) << end->message;
  }
}

TEST(WsConnector, AMessageInTheSamePacketAsTheUpgradeIsDelivered) {
  asio::io_context io;
  tcp::acceptor acceptor(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  // Answers the upgrade and sends a frame in one write.
  std::jthread thread([&] {
    auto socket = acceptor.accept();
    std::string request;
    asio::read_until(socket, asio::dynamic_buffer(request), "\r\n\r\n");
    const auto at = request.find("Sec-WebSocket-Key: ") + 19;
    websocket::detail::sec_ws_accept_type accept;
    websocket::detail::make_sec_ws_accept(accept, request.substr(at, request.find("\r\n", at) - at));
    const std::string answer =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
        std::string(accept.data(), accept.size()) + "\r\n\r\n\x82\x05hello";
    asio::write(socket, asio::buffer(answer));
    char byte = 0;
    beast::error_code ec;
    while (!ec) socket.read_some(asio::buffer(&byte, 1), ec);
  });
  Client c;
  c.connect("ws://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/x");
  EXPECT_EQ(c.messages.next(), Bytes::copy_of("hello"));
  c.loop.call([&] { c.ws.reset(); });
}

}  // namespace
}  // namespace kitsune2
