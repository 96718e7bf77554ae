// The relay of dialect 0.5 over real sockets on loopback, beside sbd on the same port.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "kitsune2/relay_server.hpp"
#include "net/ws_connector.hpp"
#include "support/served.hpp"
#include "support/sockets.hpp"
#include "transport/iroh/endpoint_key.hpp"
#include "transport/iroh/relay_frames.hpp"
#include "transport/iroh/tls_proof.hpp"
#include "transport/sbd/sbd_frames.hpp"

namespace kitsune2 {
namespace {

using iroh::Datagrams;
using iroh::EndpointKey;
using iroh::RelayFrame;
using iroh::RelayVersion;
using iroh::Sender;
using test::http;
using test::RawSocket;
using test::RawWs;
using test::serve;

/// A client in blocking calls. Pings of the relay are answered.
struct Endpoint {
  EndpointKey key;
  RelayVersion version = RelayVersion::v2;
  std::optional<RawWs> ws;

  explicit Endpoint(std::uint8_t number) : key(seed(number)) {}
  static EndpointKey::Seed seed(std::uint8_t number) {
    EndpointKey::Seed out;
    out.fill(number);
    return out;
  }

  bool connect(const std::string& address, const std::string& headers = "Sec-WebSocket-Protocol: iroh-relay-v2\r\n",
               const std::string& path = "/relay") {
    ws.emplace(address, path, headers);
    if (ws->status() != 101) return false;
    const auto challenge = receive();
    if (!challenge || !std::holds_alternative<iroh::ServerChallenge>(*challenge)) return false;
    const auto signature = key.sign(iroh::to_be_signed(std::get<iroh::ServerChallenge>(*challenge)));
    send(iroh::ClientAuth{key.id(), signature});
    const auto verdict = receive();
    return verdict && std::holds_alternative<iroh::ServerConfirmsAuth>(*verdict);
  }
  void send(const RelayFrame& frame) { ws->send(encode_relay_frame(Sender::client, frame)); }
  void send(const Endpoint& to, Bytes content, std::uint16_t segment = 0) {
    send(Datagrams{to.key.id(), 1, segment, std::move(content)});
  }
  std::optional<RelayFrame> receive() {
    while (const auto message = ws->receive()) {
      auto frame = decode_relay_frame(version, Sender::relay, *message);
      if (!frame) return std::nullopt;
      const auto* ping = std::get_if<iroh::Ping>(&*frame);
      if (ping == nullptr) return std::move(*frame);
      send(iroh::Pong{ping->payload});
    }
    return std::nullopt;
  }
};

/// The head of the answer to a request for a WebSocket.
std::string upgrade(const std::string& address, const std::string& headers) {
  RawSocket s(address);
  s.send(
      "GET /relay HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "
      "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" +
      headers + "\r\n");
  std::string out;
  while (out.find("\r\n\r\n") == std::string::npos) {
    const std::string more = s.receive(1);
    if (more.empty()) break;
    out += more;
  }
  return out;
}

TEST(IrohRelayRoutes, FramesGoBothWaysWithTheSendersKey) {
  const auto server = serve();
  Endpoint a(1), b(2);
  ASSERT_TRUE(a.connect(server->address()) && b.connect(server->address()));
  for (const std::size_t size : {std::size_t{1}, std::size_t{1452}, std::size_t{65'502}}) {
    a.send(b, Bytes(std::vector<std::uint8_t>(size, 7)));
    EXPECT_EQ(b.receive(), RelayFrame(Datagrams{a.key.id(), 1, 0, Bytes(std::vector<std::uint8_t>(size, 7))}));
    b.send(a, Bytes(std::vector<std::uint8_t>(size == 65'502 ? 65'500 : size, 9)), 1200);
    EXPECT_EQ(a.receive(), RelayFrame(Datagrams{b.key.id(), 1, 1200,
                                                Bytes(std::vector<std::uint8_t>(size == 65'502 ? 65'500 : size, 9))}));
  }
  a.send(iroh::Ping{{1, 2, 3, 4, 5, 6, 7, 8}});
  EXPECT_EQ(a.receive(), RelayFrame(iroh::Pong{{1, 2, 3, 4, 5, 6, 7, 8}}));
  const auto stats = server->stats().iroh;
  EXPECT_EQ(stats.packets_sent, 6U);
  EXPECT_EQ(stats.clients, 2U);
  const std::string metrics = server->metrics();
  EXPECT_NE(metrics.find("\nrelayserver_accepts_total 2\n"), std::string::npos);
  EXPECT_NE(metrics.find("\nrelayserver_send_packets_sent_total 6\n"), std::string::npos);
  EXPECT_NE(metrics.find("\nkitsune2_relay_iroh_clients 2\n"), std::string::npos);
}

TEST(IrohRelayRoutes, TheNewestVersionThatWasOfferedIsEchoedAndNoneIfNoneIsKnown) {
  const auto server = serve();
  const auto echoed = [&](const std::string& headers) {
    const std::string head = upgrade(server->address(), headers);
    EXPECT_TRUE(head.starts_with("HTTP/1.1 101 ")) << head;
    const auto at = head.find("Sec-WebSocket-Protocol: ");
    return at == std::string::npos ? std::string() : head.substr(at + 24, head.find('\r', at) - at - 24);
  };
  EXPECT_EQ(echoed("Sec-WebSocket-Protocol: iroh-relay-v1, iroh-relay-v2\r\n"), "iroh-relay-v2");
  EXPECT_EQ(echoed("Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: y,iroh-relay-v1\r\n"), "iroh-relay-v1");
  EXPECT_EQ(echoed("Sec-WebSocket-Protocol: iroh-relay-v9\r\n"), "");
  EXPECT_EQ(echoed(""), "");
}

TEST(IrohRelayRoutes, WithoutAVersionItIsTheFirstAndReportsInWords) {
  const auto server = serve();
  Endpoint a(1), again(1);
  a.version = RelayVersion::v1;
  ASSERT_TRUE(a.connect(server->address(), ""));
  ASSERT_TRUE(again.connect(server->address()));
  const auto report = a.receive();
  ASSERT_TRUE(report && std::holds_alternative<iroh::Health>(*report));
  EXPECT_FALSE(std::get<iroh::Health>(*report).problem.empty());
}

TEST(IrohRelayRoutes, BothRelaysServeOnePort) {
  const auto server = serve();
  Endpoint a(1);
  ASSERT_TRUE(a.connect(server->address()));
  RawWs sbd_client(server->address(), "/" + sbd::to_path(a.key.id()));
  EXPECT_EQ(sbd_client.status(), 101);
  EXPECT_EQ(server->stats().relay_clients, 1U);
  EXPECT_EQ(server->stats().iroh.clients, 1U);
  EXPECT_EQ(server->iroh_relay_url(), "http://" + server->address() + "/relay");
}

TEST(IrohRelayRoutes, EachRelayCanBeSwitchedOff) {
  RelayServerOptions options;
  options.no_iroh = true;
  const auto without = serve(options);
  Endpoint a(1);
  EXPECT_FALSE(a.connect(without->address()));
  EXPECT_TRUE(http(without->address(), "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 400 "))
      << "to sbd it is a key that is none";
  options.no_iroh = false;
  options.no_sbd = true;
  const auto only = serve(options);
  EXPECT_TRUE(a.connect(only->address()));
  EXPECT_EQ(RawWs(only->address(), "/" + sbd::to_path(a.key.id())).status(), 404);
}

TEST(IrohRelayRoutes, FramesThatWouldCutOffTheReceiverStopAtTheSender) {
  const auto server = serve();
  Endpoint a(1), b(2);
  ASSERT_TRUE(a.connect(server->address()) && b.connect(server->address()));
  std::vector<std::uint8_t> largest{4};
  largest.insert(largest.end(), b.key.id().begin(), b.key.id().end());
  std::vector<std::uint8_t> empty = largest;
  empty.resize(34);
  largest.resize(1 + 65'536);
  a.ws->send(empty);
  a.ws->send(largest);
  a.send(b, Bytes::copy_of("still here"));
  EXPECT_EQ(b.receive(), RelayFrame(Datagrams{a.key.id(), 1, 0, Bytes::copy_of("still here")}));
  EXPECT_EQ(server->stats().iroh.dropped_unwritable, 2U);
  largest.push_back(0);
  a.ws->send(largest);
  EXPECT_EQ(a.receive(), std::nullopt);
}

TEST(IrohRelayRoutes, AClientThatLeavesIsReportedToThoseItSentTo) {
  const auto server = serve();
  Endpoint a(1), b(2);
  ASSERT_TRUE(a.connect(server->address()) && b.connect(server->address()));
  a.send(b, Bytes::copy_of("x"));
  ASSERT_TRUE(b.receive().has_value());
  a.ws.reset();
  EXPECT_EQ(b.receive(), RelayFrame(iroh::EndpointGone{a.key.id()}));
}

TEST(IrohRelayRoutes, AReceiverThatReadsNothingLosesFramesAndOthersGoOn) {
  RelayServerOptions options;
  options.slow_receiver_millis = 600'000;  // it is not closed, however slow the machine
  const auto server = serve(options);
  Endpoint a(1), deaf(2), b(3);
  ASSERT_TRUE(a.connect(server->address()) && deaf.connect(server->address()) && b.connect(server->address()));
  deaf.ws->socket().set_receive_buffer(4096);
  const Bytes big(std::vector<std::uint8_t>(60'000, 1));
  while (server->stats().iroh.dropped_full == 0) {
    a.send(deaf, big);
    a.send(b, Bytes::copy_of("y"));
    ASSERT_TRUE(b.receive().has_value());
  }
  EXPECT_EQ(server->stats().iroh.clients, 3U);
}

TEST(IrohRelayRoutes, AReceiverThatReadsNothingIsClosedAndOthersGoOn) {
  RelayServerOptions options;
  options.slow_receiver_millis = 300;
  const auto server = serve(options);
  Endpoint a(1), deaf(2), b(3);
  ASSERT_TRUE(a.connect(server->address()) && deaf.connect(server->address()) && b.connect(server->address()));
  deaf.ws->socket().set_receive_buffer(4096);
  const auto closed = [&] {
    for (const auto& [reason, count] : server->stats().iroh.rejects) {
      if (reason == "slow_receiver") return count;
    }
    return std::uint64_t{0};
  };
  const Bytes big(std::vector<std::uint8_t>(60'000, 1));
  while (closed() == 0) {
    a.send(deaf, big);
    a.send(b, Bytes::copy_of("y"));
    ASSERT_TRUE(b.receive().has_value());
  }
  EXPECT_EQ(server->stats().iroh.clients, 2U);
}

TEST(IrohRelayRoutes, ProbesOfClientsAreAnswered) {
  const auto server = serve();
  const auto ping = http(server->address(), "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(ping.starts_with("HTTP/1.1 200 ")) << ping;
  EXPECT_NE(ping.find("\r\nAccess-Control-Allow-Origin: *\r\n"), std::string::npos);
  const auto portal = [&](const std::string& challenge) {
    RawSocket s(server->address());
    s.send("GET /generate_204 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + challenge + "\r\n");
    return s.receive_all();
  };
  const auto answered = portal("X-Iroh-Challenge: ts_a.example.org\r\n");
  EXPECT_TRUE(answered.starts_with("HTTP/1.1 204 ")) << answered;
  EXPECT_NE(answered.find("\r\nX-Iroh-Response: response ts_a.example.org\r\n"), std::string::npos) << answered;
  EXPECT_EQ(answered.find("Content-Length"), std::string::npos);
  for (const std::string& bad : {std::string(64, 'a'), std::string("a b"), std::string("a-b"), std::string()}) {
    EXPECT_EQ(portal("X-Iroh-Challenge: " + bad + "\r\n").find("X-Iroh-Response"), std::string::npos) << bad;
  }
  EXPECT_TRUE(http(server->address(), "GET /relay HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 400 "));
  for (const std::string& path : {std::string("/ping"), std::string("/relay"), std::string("/generate_204")}) {
    const auto wrong = http(server->address(), "PUT " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    EXPECT_TRUE(wrong.starts_with("HTTP/1.1 405 ")) << wrong;
  }
}

TEST(IrohRelayRoutes, KeepAlivesOfTokensAreTakenInBothDialects) {
  const auto server = serve();
  for (const std::string& path : {std::string("/relay/keepalive"), std::string("/relay/register")}) {
    const auto ask = [&](const std::string& method, const std::string& body) {
      return http(server->address(), method + " " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                                         std::to_string(body.size()) + "\r\n\r\n" + body);
    };
    const iroh::EndpointId id = Endpoint(1).key.id();
    const std::string key(id.begin(), id.end());
    const auto taken = ask("PUT", key);
    EXPECT_TRUE(taken.starts_with("HTTP/1.1 200 ") && taken.ends_with("\r\n\r\n{}")) << taken;
    EXPECT_TRUE(ask("PUT", key.substr(1)).starts_with("HTTP/1.1 400 "));
    EXPECT_TRUE(ask("PUT", std::string(32, 'k')).starts_with("HTTP/1.1 400 ")) << "no point of the curve";
    EXPECT_TRUE(ask("POST", key).starts_with("HTTP/1.1 405 "));
  }
}

TEST(IrohRelayRoutes, PagesOfAllowedOriginsMayReadAnswers) {
  RelayServerOptions options;
  const auto open = serve(options);
  options.allowed_origins = {"https://a.example", "https://b.example"};
  const auto closed = serve(options);
  const auto allowed = [](const RelayServer& server, const std::string& line, const std::string& origin) {
    const auto answer = http(server.address(), line + " HTTP/1.1\r\nHost: x\r\n" +
                                                   (origin.empty() ? "" : "Origin: " + origin + "\r\n") + "\r\n");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 ")) << answer;
    EXPECT_NE(answer.find("\r\nVary: origin"), std::string::npos);
    const bool methods = answer.find("\r\nAccess-Control-Allow-Methods: GET,PUT,OPTIONS\r\n") != std::string::npos;
    EXPECT_EQ(methods, line.starts_with("OPTIONS"));
    const std::string name = "\r\nAccess-Control-Allow-Origin: ";
    const auto at = answer.find(name);
    return at == std::string::npos ? std::string()
                                   : answer.substr(at + name.size(), answer.find('\r', at + 2) - at - name.size());
  };
  for (const std::string& line :
       {std::string("GET /health"), std::string("GET /bootstrap/AAAA"), std::string("OPTIONS /bootstrap/AAAA/AAAA")}) {
    EXPECT_EQ(allowed(*open, line, ""), "*");
    EXPECT_EQ(allowed(*closed, line, "https://b.example"), "https://b.example");
    EXPECT_EQ(allowed(*closed, line, "https://c.example"), "") << "it is served, and the browser keeps it";
    EXPECT_EQ(allowed(*closed, line, ""), "");
  }
}

TEST(IrohRelayRoutes, BrowsersAreToldNothingAboutTlsWithoutIt) {
  const auto server = serve();
  const auto answer = http(server->address(), "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(answer.find("Strict-Transport-Security"), std::string::npos) << answer;
  EXPECT_EQ(answer.find("Content-Security-Policy"), std::string::npos) << answer;
}

/// The first frame that a client with a WebSocket over TLS hears; empty: none came. `headers`: of its request.
Bytes first_frame(RelayServer& server, const std::string& ca,
                  const std::function<std::string(const KeyExporter&)>& headers) {
  test::Inbox<Bytes> got;
  test::Loop loop;
  const auto connector = make_ws_connector(loop);
  std::shared_ptr<WsConnection> ws;
  loop.call([&] {
    WsOptions options;
    options.tls_ca_file = ca;
    options.tls_headers = headers;
    WsHandlers handlers;
    handlers.on_message = [&](Bytes message) { got.push(std::move(message)); };
    handlers.on_close = [&](const Error&) { got.push({}); };
    ws = connector->connect("wss://" + server.address() + "/relay", options, handlers);
  });
  const auto out = got.next();
  loop.call([&] { ws.reset(); });
  return out.value_or(Bytes());
}

TEST(IrohRelayRoutes, AKeyProvenToTlsNeedsNoChallenge) {
  const test::Certificates certs;
  RelayServerOptions options;
  options.tls_cert = certs.cert;
  options.tls_key = certs.key;
  const auto server = serve(options);
  const EndpointKey key(Endpoint::seed(1));
  std::string kept;
  const auto proof = [&](const KeyExporter& exporter) {
    kept = std::string(iroh::kTlsProofHeader) + ": " + iroh::make_tls_proof(key, exporter).value() + "\r\n";
    return kept;
  };
  EXPECT_EQ(to_hex(first_frame(*server, certs.ca, proof)), "02");
  EXPECT_EQ(server->stats().iroh.accepts, 1U);
  // Another session's proof, and none, are answered with a challenge.
  const auto again = [&](const KeyExporter&) { return kept; };
  EXPECT_EQ(to_hex(first_frame(*server, certs.ca, again)).substr(0, 2), "00");
  EXPECT_EQ(to_hex(first_frame(*server, certs.ca, {})).substr(0, 2), "00");
  EXPECT_EQ(server->stats().iroh.accepts, 1U);
}

TEST(IrohRelayRoutes, ABurstWithoutARateIsRefused) {
  RelayServerOptions options;
  options.relay_client_rx_burst_bytes = 1000;
  const auto refused = RelayServer::start(options);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::invalid_argument);
  EXPECT_TRUE(refused.error().message.starts_with("relay_client_rx_burst_bytes: ")) << refused.error().message;
  options.relay_client_rx_bytes_per_second = 10;
  EXPECT_NE(serve(options), nullptr);
}

TEST(IrohRelayRoutes, APortForAddressDiscoveryThatIsTakenIsNoError) {
  RelayServerOptions options;
  options.quic_listen = {"127.0.0.1:0"};
  EXPECT_NE(serve(options), nullptr);
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in taken{};
  taken.sin_family = AF_INET;
  taken.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&taken), sizeof taken), 0);
  socklen_t size = sizeof taken;
  ASSERT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&taken), &size), 0);
  options.quic_listen = {"127.0.0.1:" + std::to_string(ntohs(taken.sin_port))};
  EXPECT_NE(serve(options), nullptr);
  ::close(fd);
  options.quic_listen = {"nowhere"};
  EXPECT_EQ(RelayServer::start(options).error().code, Errc::invalid_argument);
}

}  // namespace
}  // namespace kitsune2
