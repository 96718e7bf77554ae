// The server over real sockets on loopback.
#include "kitsune2/relay_server.hpp"

#include <gtest/gtest.h>
#include <sodium.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fcntl.h>
#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include "core/sanitized.hpp"
#include "kitsune2/agent.hpp"
#include "kitsune2/http.hpp"
#include "kitsune2/version.hpp"
#include "net/conn.hpp"
#include "net/ws_connector.hpp"
#include "support/sbd_client.hpp"
#include "support/served.hpp"
#include "support/sockets.hpp"
#include "transport/sbd/sbd_frames.hpp"

namespace kitsune2 {
namespace {

using test::http;
using test::Inbox;
using test::Loop;
using test::RawSocket;
using test::RawWs;
using test::Sbd;
using test::serve;

std::uint64_t rejects(const RelayServer& server, std::string_view reason) {
  const auto stats = server.stats();
  for (const auto& [name, count] : stats.rejects) {
    if (name == reason) return count;
  }
  ADD_FAILURE() << "no such reason: " << reason;
  return 0;
}

/// Asks until it is so. For figures that another thread counts.
template <class F>
bool eventually(F is_so) {
  const auto end = std::chrono::steady_clock::now() + test::kPatience;
  while (!is_so()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

TEST(RelayServer, HealthAndUnknownPaths) {
  const auto server = serve();
  EXPECT_TRUE(http(server->address(), "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").ends_with("\r\n\r\n{}"));
  const auto status = [&](const std::string& line) {
    const auto answer = http(server->address(), line + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    return answer.size() < 12 ? 0 : std::stoi(answer.substr(9, 3));
  };
  EXPECT_EQ(status("GET /bootstrap/AAAA"), 200);
  EXPECT_EQ(status("GET /bootstrap/a*"), 400);
  EXPECT_EQ(status("GET /bootstrap/AAAA/AAAA"), 405);
  EXPECT_EQ(status("PUT /bootstrap/AAAA"), 405);
  EXPECT_EQ(status("PUT /bootstrap/AAAA/AAAA"), 500);
  EXPECT_EQ(status("PUT /bootstrap/AAAA/AAAA/AAAA"), 404);
  EXPECT_EQ(status("POST /health"), 405);
  EXPECT_EQ(status("GET /"), 404);
  EXPECT_EQ(status("GET /x/y"), 404);
  EXPECT_EQ(status("GET /not-a-websocket"), 400);
  EXPECT_GE(server->stats().http_requests, 11U);
}

TEST(RelayServer, AuthenticateGivesAFreshTokenAsAServerWithoutAHookDoes) {
  const auto server = serve();
  const auto ask = [&](const std::string& head, const std::string& body) {
    return http(server->address(),
                head + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  };
  std::set<std::string> tokens;
  for (const std::string& body : {std::string(), std::string("auth material"), std::string(1024, '\0')}) {
    const auto answer = ask("PUT /authenticate", body);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 ")) << answer;
    EXPECT_NE(answer.find("Content-Type: application/json\r\n"), std::string::npos);
    const auto token =
        nlohmann::json::parse(answer.substr(answer.find("\r\n\r\n") + 4)).at("authToken").get<std::string>();
    std::vector<std::uint8_t> raw;
    EXPECT_TRUE(from_base64url(token, raw)) << token;
    EXPECT_EQ(raw.size(), 32U);
    tokens.insert(token);
  }
  EXPECT_EQ(tokens.size(), 3U);
  EXPECT_TRUE(ask("PUT /authenticate", std::string(1025, 'x')).starts_with("HTTP/1.1 413 "));
  const auto refused = ask("GET /authenticate", "");
  EXPECT_TRUE(refused.starts_with("HTTP/1.1 405 ")) << refused;
  EXPECT_NE(refused.find("Allow: PUT\r\n"), std::string::npos);
}

TEST(RelayServer, BootstrapThroughTheHttpClient) {
  const auto server = serve();
  Inbox<Result<HttpResponse>> answers;
  Loop loop;
  const auto agent = Ed25519LocalAgent::generate();
  AgentInfo info;
  info.agent = agent->agent();
  info.space = SpaceId::from_text("space");
  info.created_at = loop.wall_now();
  info.expires_at = info.created_at + std::chrono::minutes(20);
  const std::string body = (*AgentInfoSigned::sign(*agent, info))->encode();
  std::unique_ptr<HttpClient> client;
  const auto ask = [&](HttpMethod method, const std::string& path, const std::string& content) {
    loop.call([&] {
      HttpRequest request;
      request.method = method;
      request.url = server->bootstrap_url() + path;
      request.body = content;
      client->request(request, [&](Result<HttpResponse> r) { answers.push(std::move(r)); });
    });
    return *answers.next();
  };
  loop.call([&] { client = make_http_client(loop); });
  const std::string space = "/bootstrap/" + info.space.to_string();
  EXPECT_EQ(ask(HttpMethod::kGet, space, "")->body, "[]");
  const auto put = ask(HttpMethod::kPut, space + "/" + info.agent.to_string(), body);
  ASSERT_TRUE(put.has_value()) << put.error().to_string();
  EXPECT_EQ(put->status, 200);
  EXPECT_EQ(put->body, "{}");
  EXPECT_EQ(ask(HttpMethod::kGet, space, "")->body, "[" + body + "]");
  EXPECT_EQ(ask(HttpMethod::kPut, space + "/" + info.agent.to_string(), std::string(1025, 'x'))->status, 413);
  EXPECT_EQ(server->stats().bootstrap_entries, 1U);
  loop.call([&] { client.reset(); });
}

TEST(RelayServer, TwoClientsTalkBothWaysAndSeeTheSendersKey) {
  const auto server = serve();
  Sbd a;
  Sbd b;
  ASSERT_TRUE(a.handshake(server->address()));
  ASSERT_TRUE(b.handshake(server->address()));
  EXPECT_EQ(a.rates.front(), 8);
  EXPECT_EQ(b.rates.front(), 16);
  EXPECT_EQ(a.idle_millis, 10'000);
  for (const std::size_t size : {0U, 1U, 93U, 94U, 5000U, 19'968U}) {
    std::vector<std::uint8_t> body(size);
    for (std::size_t i = 0; i < size; ++i) body[i] = static_cast<std::uint8_t>(i * 7);
    ASSERT_TRUE(a.send(b, body));
    const auto got = b.receive();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->first, a.id);
    EXPECT_EQ(got->second, Bytes(body));
    ASSERT_TRUE(b.send(a, body));
    const auto back = a.receive();
    ASSERT_TRUE(back);
    EXPECT_EQ(back->first, b.id);
    EXPECT_EQ(back->second, Bytes(body));
  }
  EXPECT_EQ(server->stats().forwards, 12U);
  EXPECT_EQ(server->stats().relay_clients, 2U);
}

TEST(RelayServer, TextMessagesAndFragmentsAreMessagesToo) {
  const auto server = serve();
  Sbd a;
  Sbd b;
  ASSERT_TRUE(a.handshake(server->address()));
  ASSERT_TRUE(b.handshake(server->address()));
  const Bytes m = sbd::encode_forward(b.id, as_bytes("fragments"));
  a.ws->send_frame(0x81, m);
  EXPECT_EQ(b.receive()->second, Bytes::copy_of("fragments"));
  a.ws->send_frame(0x02, m.slice(0, 10));
  a.ws->send_frame(0x89, as_bytes("ping between"));
  a.ws->send_frame(0x00, m.slice(10, 25));
  a.ws->send_frame(0x80, m.slice(35));
  EXPECT_EQ(b.receive()->second, Bytes::copy_of("fragments"));
}

TEST(RelayServer, BadSignatureClosesAndNothingIsDelivered) {
  const auto server = serve();
  Sbd b;
  ASSERT_TRUE(b.handshake(server->address()));
  Sbd impostor;
  ASSERT_TRUE(impostor.open(server->address()));
  Sbd other;
  impostor.ws->send(sbd::encode_auth_response(sbd::sign_nonce(impostor.nonce, other.secret)));
  impostor.send(b, as_bytes("lie"));
  while (impostor.ws->receive()) {
  }
  EXPECT_EQ(impostor.ws->close_code(), 1008);
  EXPECT_EQ(impostor.ws->close_reason(), "bad_signature");
  EXPECT_EQ(rejects(*server, "bad_signature"), 1U);
  Sbd honest;
  ASSERT_TRUE(honest.handshake(server->address()));
  honest.send(b, as_bytes("truth"));
  EXPECT_EQ(b.receive()->second, Bytes::copy_of("truth"));
}

TEST(RelayServer, KeysThatAreNoneAreRefused) {
  const auto server = serve();
  EXPECT_EQ(RawWs(server->address(), "/short").status(), 400);
  EXPECT_EQ(RawWs(server->address(), "/" + std::string(43, '*')).status(), 400);
  EXPECT_EQ(RawWs(server->address(), "/" + std::string(43, 'A')).status(), 400);
  EXPECT_EQ(RawWs(server->address(), "/").status(), 400);
  EXPECT_EQ(rejects(*server, "illegal_key"), 1U);
}

TEST(RelayServer, ATooLargeMessageCloses) {
  const auto server = serve();
  Sbd a;
  ASSERT_TRUE(a.handshake(server->address()));
  a.send(a, std::vector<std::uint8_t>(20'001 - 32));
  EXPECT_FALSE(a.receive());
  EXPECT_EQ(a.ws->close_code(), 1009);
}

TEST(RelayServer, GoingOverTheRateCloses) {
  RelayServerOptions options;
  options.limit_ip_kbps = 8;  // 1 kB/s: nothing leaks in a test's time
  options.limit_ip_byte_burst = 50'000;
  const auto server = serve(options);
  Sbd a;
  ASSERT_TRUE(a.handshake(server->address()));
  EXPECT_EQ(a.rates.front(), 1'000'000);
  const Sbd nobody;
  for (int i = 0; i < 10; ++i) a.send(nobody, std::vector<std::uint8_t>(10'000));
  EXPECT_FALSE(a.receive());
  EXPECT_EQ(rejects(*server, "rate_limited"), 1U);
}

TEST(RelayServer, WhoFloodsHearsWhyIfItHasProvedAKey) {
  const auto server = serve();
  for (const bool proves : {false, true}) {
    Sbd client;
    ASSERT_TRUE(proves ? client.handshake(server->address()) : client.open(server->address()));
    for (int i = 0; i < 100; ++i) client.ws->send_frame(0x89, Bytes());
    EXPECT_FALSE(client.receive());
    EXPECT_EQ(client.ws->close_code() == 1008, proves);
  }
}

TEST(RelayServer, WhoBreaksARuleIsBlamedAndWhoIsOnlyReplacedOrIdleIsNot) {
  RelayServerOptions options;
  options.limit_idle_millis = 20;
  const auto server = serve();
  const auto idle = serve(options);
  Sbd first, again, liar;
  ASSERT_TRUE(first.handshake(server->address()));
  again.id = first.id;
  again.secret = first.secret;
  ASSERT_TRUE(again.handshake(server->address()));
  EXPECT_FALSE(first.receive());
  EXPECT_EQ(first.ws->close_reason(), "taken_over");
  EXPECT_EQ(server->stats().http_blamed, 0U);
  Sbd silent;
  if (silent.handshake(idle->address())) {  // unless this machine stood still for 20 ms
    EXPECT_FALSE(silent.receive());
    EXPECT_EQ(silent.ws->close_reason(), "idle");
    EXPECT_EQ(idle->stats().http_blamed, 0U);
  }
  ASSERT_TRUE(liar.open(server->address()));
  liar.ws->send(sbd::encode_auth_response(sbd::sign_nonce(liar.nonce, first.secret)));
  EXPECT_FALSE(liar.receive());
  EXPECT_EQ(liar.ws->close_reason(), "bad_signature");
  EXPECT_EQ(server->stats().http_blamed, 1U);
}

TEST(RelayServer, AnIdleClientIsClosed) {
  RelayServerOptions options;
  options.limit_idle_millis = 50;
  const auto server = serve(options);
  Sbd a;
  ASSERT_TRUE(a.open(server->address()));
  EXPECT_FALSE(a.receive());
  EXPECT_EQ(a.ws->close_reason(), "handshake_timeout");
  Sbd b;
  if (b.handshake(server->address())) {  // unless this machine stood still for 50 ms
    EXPECT_FALSE(b.receive());
    EXPECT_EQ(b.ws->close_reason(), "idle");
  }
}

TEST(RelayServer, ANewConnectionWithTheSameKeyTakesOver) {
  const auto server = serve();
  Sbd a;
  ASSERT_TRUE(a.handshake(server->address()));
  Sbd again;
  again.id = a.id;
  again.secret = a.secret;
  ASSERT_TRUE(again.handshake(server->address()));
  EXPECT_FALSE(a.receive());
  EXPECT_EQ(a.ws->close_reason(), "taken_over");
  Sbd b;
  ASSERT_TRUE(b.handshake(server->address()));
  b.send(a, as_bytes("to the new one"));
  EXPECT_EQ(again.receive()->second, Bytes::copy_of("to the new one"));
}

TEST(RelayServer, AReceiverThatDoesNotReadIsClosedAndOthersAreNotHeldUpByIt) {
  RelayServerOptions options;
  options.limit_send_queue_bytes = 100'000;
  options.slow_receiver_millis = 200;
  options.slow_receiver_bytes = 20'000;
  options.disable_rate_limiting = true;
  const auto server = serve(options);
  Sbd sender;
  Sbd sleeper;
  Sbd other;
  Sbd reader;
  ASSERT_TRUE(sender.handshake(server->address()));
  ASSERT_TRUE(sleeper.handshake(server->address()));
  ASSERT_TRUE(other.handshake(server->address()));
  ASSERT_TRUE(reader.handshake(server->address()));
  // The sender blocks in send() once the relay holds it; so it has a thread.
  std::jthread flood([&] {
    const std::vector<std::uint8_t> body(19'000, 1);
    while (rejects(*server, "slow_receiver") == 0) {
      if (!sender.send(sleeper, body)) return;
    }
    sender.send(reader, as_bytes("after all"));
  });
  ASSERT_TRUE(eventually([&] { return server->stats().sender_waits > 0; }));
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(other.send(reader, as_bytes("unrelated")));
    const auto got = reader.receive();
    ASSERT_TRUE(got);
    if (got->first == sender.id) continue;
    EXPECT_EQ(got->second, Bytes::copy_of("unrelated"));
  }
  ASSERT_TRUE(eventually([&] { return rejects(*server, "slow_receiver") == 1; }));
  flood.join();
  other.send(reader, as_bytes("end"));
  bool after_all = false;
  for (bool end = false; !end;) {
    const auto got = reader.receive();
    ASSERT_TRUE(got);
    if (got->second == Bytes::copy_of("after all")) after_all = true;
    end = got->second == Bytes::copy_of("end");
  }
  if (!after_all) {
    EXPECT_EQ(reader.receive()->second, Bytes::copy_of("after all"));
  }
}

TEST(RelayServer, AReceiverThatReadsLateLosesNothing) {
  RelayServerOptions options;
  options.limit_idle_millis = 600'000;  // it says nothing all the time
  options.limit_send_queue_bytes = 60'000;
  options.slow_receiver_millis = 60'000;
  options.disable_rate_limiting = true;
  const auto server = serve(options);
  Sbd a;
  Sbd b;
  ASSERT_TRUE(a.handshake(server->address()));
  ASSERT_TRUE(b.handshake(server->address()));
  constexpr int kCount = 2000;
  std::jthread flood([&] {
    std::vector<std::uint8_t> body(15'000, 1);
    for (int i = 0; i < kCount; ++i) {
      std::memcpy(body.data(), &i, sizeof(i));
      if (!a.send(b, body)) return;
    }
  });
  ASSERT_TRUE(eventually([&] { return server->stats().sender_waits > 0; }));
  for (int i = 0; i < kCount; ++i) {
    const auto got = b.receive();
    ASSERT_TRUE(got) << i;
    int number = -1;
    std::memcpy(&number, got->second.data(), sizeof(number));
    ASSERT_EQ(number, i);
  }
}

TEST(RelayServer, OverTls) {
  const test::Certificates certs;
  RelayServerOptions options;
  options.tls_cert = certs.cert;
  options.tls_key = certs.key;
  const auto server = serve(options);
  EXPECT_TRUE(server->uses_tls());
  EXPECT_TRUE(server->relay_url().starts_with("wss://127.0.0.1:"));
  // Two real clients; each signs, then they exchange a few hundred large messages.
  struct Side {
    Sbd keys;
    std::shared_ptr<WsConnection> ws;
    Inbox<int> ready;
    Inbox<Bytes> got;
    Inbox<Error> closed;
  };
  Side sides[2];
  Loop loop;
  const auto connector = make_ws_connector(loop);
  WsOptions ws_options;
  ws_options.tls_ca_file = certs.ca;
  for (Side& side : sides) {
    loop.call([&] {
      WsHandlers handlers;
      handlers.on_close = [&](Error e) { side.closed.push(std::move(e)); };
      handlers.on_message = [&](Bytes m) {
        const auto frame = sbd::parse_frame(m);
        if (frame->kind == sbd::FrameKind::auth_request) {
          side.ws->send(sbd::encode_auth_response(sbd::sign_nonce(frame->body, side.keys.secret)));
        } else if (frame->kind == sbd::FrameKind::ready) {
          side.ready.push(1);
        } else if (frame->kind == sbd::FrameKind::forward) {
          side.got.push(Bytes::copy_of(frame->body));
        }
      };
      side.ws = connector->connect(server->relay_url() + "/" + sbd::to_path(side.keys.id), ws_options, handlers);
    });
    ASSERT_TRUE(side.ready.next()) << (side.closed.size() > 0 ? side.closed.next()->to_string() : "");
  }
  const Bytes body(std::vector<std::uint8_t>(19'000, 9));
  loop.call([&] {
    for (int i = 0; i < 200; ++i) EXPECT_TRUE(sides[0].ws->send(sbd::encode_forward(sides[1].keys.id, body)));
  });
  for (int i = 0; i < 200; ++i) ASSERT_EQ(sides[1].got.next(), body);
  loop.call([&] {
    for (Side& side : sides) side.ws.reset();
  });
  for (Side& side : sides) EXPECT_EQ(side.closed.next()->code, Errc::cancelled);
}

TEST(RelayServer, OptionsThatMakeNoSenseAreNamed) {
  const auto refused = [](auto change) {
    RelayServerOptions options;
    change(options);
    const auto server = RelayServer::start(options);
    return server.has_error() ? server.error() : make_error(Errc::internal, "started");
  };
  const auto expect = [](const Error& e, Errc code, const std::string& word) {
    EXPECT_EQ(e.code, code) << e.to_string();
    EXPECT_NE(e.message.find(word), std::string::npos) << e.message;
  };
  expect(refused([](auto& o) { o.limit_ip_kbps = 0; }), Errc::invalid_argument, "limit_ip_kbps");
  expect(refused([](auto& o) { o.limit_ip_byte_burst = 100; }), Errc::invalid_argument, "limit_ip_byte_burst");
  expect(refused([](auto& o) { o.limit_idle_millis = 0; }), Errc::invalid_argument, "limit_idle_millis");
  expect(refused([](auto& o) { o.limit_clients = 0; }), Errc::invalid_argument, "limit_clients: must be at least 1");
  expect(refused([](auto& o) { o.max_entries_per_space = 0; }), Errc::invalid_argument, "max_entries_per_space");
  expect(refused([](auto& o) { o.tls_cert = "x"; }), Errc::invalid_argument, "tls_key");
  expect(refused([](auto& o) { o.listen = {}; }), Errc::invalid_argument, "listen");
  expect(refused([](auto& o) { o.listen = {"nonsense"}; }), Errc::invalid_argument, "nonsense");
  expect(refused([](auto& o) { o.listen = {"127.0.0.1:70000"}; }), Errc::invalid_argument, "70000");
  expect(refused([](auto& o) { o.listen = {"192.0.2.1:0"}; }), Errc::io, "192.0.2.1:0");
}

TEST(RelayServer, TlsFilesThatDoNotWorkAreNamed) {
  const test::Certificates certs;
  const auto refused = [](const std::string& cert, const std::string& key) {
    RelayServerOptions options;
    options.tls_cert = cert;
    options.tls_key = key;
    const auto server = RelayServer::start(options);
    return server.has_error() ? server.error() : make_error(Errc::internal, "started");
  };
  EXPECT_EQ(refused("/nowhere/c.pem", certs.key).message, "TLS certificate /nowhere/c.pem: No such file or directory");
  EXPECT_EQ(refused(certs.cert, "/nowhere/k.pem").message, "TLS key /nowhere/k.pem: No such file or directory");
  EXPECT_NE(refused(certs.cert, certs.other_key).message.find("does not belong"), std::string::npos);
  EXPECT_EQ(refused(certs.key, certs.key).code, Errc::io) << "a key is no certificate";
}

TEST(RelayServer, APortInUseIsNamed) {
  const auto first = serve();
  RelayServerOptions options;
  options.listen = {first->address()};
  const auto second = RelayServer::start(options);
  ASSERT_TRUE(second.has_error());
  EXPECT_EQ(second.error().code, Errc::already_exists);
  EXPECT_EQ(second.error().message, "listen " + first->address() + ": Address already in use");
}

TEST(RelayServer, RestartsOnTheSamePortWithClientsConnected) {
  RelayServerOptions options;
  auto server = serve(options);
  options.listen = {server->address()};
  for (int round = 0; round < 5; ++round) {
    Sbd a;
    ASSERT_TRUE(a.handshake(server->address()));
    server->stop();
    EXPECT_FALSE(a.receive());
    EXPECT_FALSE(RawSocket(options.listen[0]).connected());
    server = serve(options);
    ASSERT_TRUE(server);
    EXPECT_EQ(server->address(), options.listen[0]);
  }
}

TEST(RelayServer, ListensOnSeveralAddressesAndOnIPv6) {
  RelayServerOptions options;
  options.listen = {"127.0.0.1:0", "127.0.0.1:0", "localhost:0"};
  const auto server = serve(options);
  ASSERT_EQ(server->addresses().size(), 3U);
  Sbd a;
  Sbd b;
  ASSERT_TRUE(a.handshake(server->addresses()[0]));
  ASSERT_TRUE(b.handshake(server->addresses()[1]));
  a.send(b, as_bytes("across"));
  EXPECT_EQ(b.receive()->second, Bytes::copy_of("across"));
  options.listen = {"[::1]:0"};
  const auto six = RelayServer::start(options);
  if (six.has_value()) {  // unless this machine has no IPv6
    EXPECT_TRUE((*six)->address().starts_with("[::1]:"));
  }
}

TEST(RelayServer, NoSbdMeansBootstrapOnly) {
  RelayServerOptions options;
  options.no_sbd = true;
  const auto server = serve(options);
  Sbd a;
  EXPECT_FALSE(a.open(server->address()));
  EXPECT_EQ(a.ws->status(), 404);
  EXPECT_TRUE(http(server->address(), "GET /health HTTP/1.1\r\n\r\n").ends_with("{}"));
}

TEST(RelayServer, BehindAProxyTheHeaderCounts) {
  RelayServerOptions options;
  options.trusted_ip_header = "X-Real-IP";
  options.limit_ip_kbps = 1000;
  options.limit_ip_byte_burst = 262'144;
  const auto server = serve(options);
  Sbd a;
  Sbd b;
  Sbd c;
  ASSERT_TRUE(a.handshake(server->address(), "X-Real-IP: 10.1.1.1\r\n"));
  ASSERT_TRUE(b.handshake(server->address(), "X-Real-IP: 10.1.1.2\r\n"));
  ASSERT_TRUE(c.handshake(server->address(), "X-Real-IP: 10.1.1.1\r\n"));
  EXPECT_EQ(a.rates.front(), 8000);
  EXPECT_EQ(b.rates.front(), 8000);
  EXPECT_EQ(c.rates.front(), 16'000);
}

TEST(RelayServer, ConnectionsOfOneAddressAreLimited) {
  RelayServerOptions options;
  options.limit_ip_connections = 3;
  const auto server = serve(options);
  Sbd clients[3];
  for (Sbd& c : clients) ASSERT_TRUE(c.handshake(server->address()));
  Sbd fourth;
  EXPECT_FALSE(fourth.open(server->address()));
  Sbd elsewhere;
  EXPECT_TRUE(elsewhere.handshake(server->address(), {}, "127.0.0.2"));
  EXPECT_EQ(rejects(*server, "limit_ip"), 1U);
}

TEST(RelayServer, TooManyClientsAreRefusedWithAReason) {
  RelayServerOptions options;
  options.limit_clients = 1;
  const auto server = serve(options);
  Sbd a;
  ASSERT_TRUE(a.handshake(server->address()));
  Sbd b;
  EXPECT_FALSE(b.open(server->address()));
  EXPECT_EQ(b.ws->status(), 503);
  a.ws.reset();
  EXPECT_TRUE(eventually([&] { return server->stats().relay_clients == 0; }));
  EXPECT_TRUE(Sbd().handshake(server->address()));
}

/// Lines of a server's log.
struct KeptLines {
  std::mutex mutex;
  std::vector<std::string> lines;
  LogOptions options(LogLevel level = LogLevel::debug) {
    return {[this](const LogLine& line) {
              const std::lock_guard lock(mutex);
              lines.push_back(std::string(to_string(line.level)) + ' ' + std::string(line.text));
            },
            level};
  }
  /// Waits for a line that begins with `begin` and has `part` in it.
  bool has(const std::string& begin, const std::string& part = {}) {
    return eventually([&] {
      const std::lock_guard lock(mutex);
      return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
        return line.starts_with(begin) && line.find(part) != std::string::npos;
      });
    });
  }
  std::string all() {
    const std::lock_guard lock(mutex);
    std::string out;
    for (const auto& line : lines) out += line + '\n';
    return out;
  }
};

std::string name_of(const Sbd& client) { return "client " + sbd::to_path(client.id) + " of 127.0.0.1:"; }

TEST(RelayServer, TheLogSaysWhichClientsConnectedLeftOrWereRefusedAndWhy) {
  KeptLines log;
  RelayServerOptions options;
  options.log = log.options();
  options.limit_clients = 2;
  options.limit_ip_connections = 4;
  const auto server = serve(options);
  Sbd a, b, c, forger;
  ASSERT_TRUE(a.handshake(server->address()));
  EXPECT_TRUE(log.has("debug 127.0.0.1:", " connects"));
  EXPECT_TRUE(log.has("info " + name_of(a), " connected")) << log.all();
  ASSERT_TRUE(forger.open(server->address()));
  forger.ws->send(sbd::encode_auth_response(sbd::sign_nonce(forger.nonce, a.secret)));
  EXPECT_FALSE(forger.ws->receive());
  EXPECT_TRUE(log.has("info " + name_of(forger), "bad_signature: it does not have the key that it gave")) << log.all();
  forger.ws.reset();
  ASSERT_TRUE(eventually([&] { return server->stats().connections == 1; }));
  ASSERT_TRUE(b.handshake(server->address()));
  EXPECT_FALSE(c.open(server->address()));
  EXPECT_TRUE(log.has("info " + name_of(c), " is refused: limit_clients: 2 are connected")) << log.all();
  EXPECT_TRUE(log.has("warn limit_clients 2 is reached"));
  c.ws.reset();
  a.ws.reset();
  EXPECT_TRUE(log.has("info " + name_of(a), " disconnected after ")) << log.all();
  b.ws->send_frame(0x82, std::vector<std::uint8_t>(5));
  EXPECT_TRUE(log.has("info " + name_of(b), "malformed: a message of the wrong length")) << log.all();
  b.ws.reset();

  EXPECT_TRUE(http(server->address(), "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
  EXPECT_TRUE(log.has("info 127.0.0.1:", ": bad_request: ")) << log.all();
  EXPECT_TRUE(http(server->address(), "PUT /bootstrap/AAAA/A%1B%5B31m HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
                  .starts_with("HTTP/1.1 400"));
  EXPECT_TRUE(log.has("info 127.0.0.1: the info of agent A%1B%5B31m in space AAAA… is refused: 400 ")) << log.all();
  EXPECT_TRUE(http(server->address(), "PUT /bootstrap/AAAA/AAAA HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
                  .starts_with("HTTP/1.1 500"));
  EXPECT_TRUE(log.has("info 127.0.0.1: the info of agent AAAA in space AAAA… is refused: 500 ", "agentInfo"))
      << log.all();
  ASSERT_TRUE(eventually([&] { return server->stats().connections == 0; }));

  std::vector<RawSocket> many;
  for (int i = 0; i < 5; ++i) many.emplace_back(server->address());
  EXPECT_TRUE(log.has("info 127.0.0.1:", ": limit_ip: 4 of its address are open")) << log.all();
}

TEST(RelayServer, AFailedTlsHandshakeIsReportedAndCounted) {
  const test::Certificates certs;
  KeptLines log;
  RelayServerOptions options;
  options.tls_cert = certs.cert;
  options.tls_key = certs.key;
  options.log = log.options(LogLevel::info);
  const auto server = serve(options);
  RawSocket plain(server->address());
  plain.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  plain.receive_all();
  EXPECT_TRUE(log.has("info 127.0.0.1:", ": tls_failed: TLS: http request")) << log.all();
  EXPECT_EQ(rejects(*server, "tls_failed"), 1U);
}

TEST(RelayServer, AClientThatDoesNotFinishTheTlsHandshakeIsClosed) {
  const test::Certificates certs;
  RelayServerOptions options;
  options.tls_cert = certs.cert;
  options.tls_key = certs.key;
  options.http_header_millis = 50;
  const auto server = serve(options);
  RawSocket silent(server->address()), begun(server->address());
  begun.send("\x16\x03\x01");  // of a ClientHello
  silent.receive_all();
  begun.receive_all();
  EXPECT_EQ(rejects(*server, "request_timeout"), 2U);
}

TEST(RelayServer, AFloodOfOneKindIsCutShortAndCounted) {
  KeptLines log;
  RelayServerOptions options;
  options.log = log.options(LogLevel::info);
  options.prune_interval_ms = 50;
  const auto server = serve(options);
  const auto put = [&] { http(server->address(), "PUT /bootstrap/AAAA/AAAA HTTP/1.1\r\nContent-Length: 0\r\n\r\n"); };
  while (server->stats().log_left_out == 0) put();
  EXPECT_TRUE(log.has("info left out ", " about bootstrap_refused") || log.has("info ", " more like it left out)"));
  EXPECT_TRUE(http(server->address(), "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
  EXPECT_TRUE(log.has("info 127.0.0.1:", ": bad_request: ")) << "another kind has a gate of its own";
  EXPECT_NE(server->metrics().find("\nkitsune2_relay_log_lines_left_out_total "), std::string::npos);
}

TEST(RelayServer, AStopSaysGoodByeToClientsAndRefusesNewcomers) {
  const auto server = serve();
  const std::string address = server->address();
  Sbd client;
  ASSERT_TRUE(client.handshake(address));
  RawSocket idle(address);
  std::thread stopping([&] { server->stop(test::kPatience); });
  EXPECT_FALSE(client.ws->receive());
  EXPECT_EQ(client.ws->close_code(), 1001);
  EXPECT_EQ(client.ws->close_reason(), "the server stops");
  EXPECT_FALSE(RawSocket(address).connected());
  EXPECT_EQ(idle.receive_all(), "");
  idle.close();
  client.ws.reset();
  stopping.join();  // as soon as both have gone, or the test would wait for kPatience
  EXPECT_EQ(server->stats().connections, 0U);
}

TEST(RelayServer, AClientThatDoesNotGoIsClosedWhenThePatienceEnds) {
  const auto server = serve();
  Sbd client;
  ASSERT_TRUE(client.handshake(server->address()));
  server->stop(std::chrono::milliseconds(50));
  EXPECT_FALSE(client.ws->receive());
  EXPECT_EQ(server->stats().connections, 0U);
}

TEST(RelayServer, AReloadTakesUpCertificateAndLimitsAndNamesWhatNeedsARestart) {
  const test::Certificates first, second;
  RelayServerOptions options;
  options.tls_cert = first.dir.path() + "/live.pem";
  options.tls_key = first.dir.path() + "/live.key";
  const auto install = [&](const test::Certificates& certs) {
    using std::filesystem::copy_options;
    std::filesystem::copy_file(certs.cert, options.tls_cert, copy_options::overwrite_existing);
    std::filesystem::copy_file(certs.key, options.tls_key, copy_options::overwrite_existing);
  };
  install(first);
  const auto server = serve(options);
  const auto trusted_by = [&](const test::Certificates& certs) {
    Loop loop;
    Inbox<Result<HttpResponse>> answers;
    std::unique_ptr<HttpClient> client;
    loop.call([&] {
      client = make_http_client(loop, {certs.ca, true});
      HttpRequest request;
      request.url = server->bootstrap_url() + "/health";
      client->request(request, [&](Result<HttpResponse> r) { answers.push(std::move(r)); });
    });
    const bool out = answers.next()->has_value();
    loop.call([&] { client.reset(); });
    return out;
  };
  EXPECT_TRUE(trusted_by(first));
  install(second);
  auto done = server->reload(options);
  ASSERT_TRUE(done) << done.error().to_string();
  EXPECT_TRUE(done->empty());
  EXPECT_TRUE(trusted_by(second));
  EXPECT_FALSE(trusted_by(first));

  auto wanted = options;
  wanted.limit_ip_connections = 0;
  wanted.limit_clients = 7;
  wanted.listen = {"127.0.0.1:1"};
  wanted.no_sbd = true;
  done = server->reload(wanted);
  ASSERT_TRUE(done);
  EXPECT_EQ(*done, (std::vector<std::string>{"listen", "no_sbd"}));
  // What is wrong changes nothing.
  wanted.limit_ip_kbps = 0;
  done = server->reload(wanted);
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("limit_ip_kbps"), std::string::npos);
  std::ofstream(options.tls_cert) << "damaged";
  done = server->reload(options);
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find(options.tls_cert), std::string::npos) << done.error().message;
  EXPECT_TRUE(trusted_by(second)) << "the old certificate stays";
}

TEST(RelayServer, AReloadedLimitAppliesToNewClients) {
  RelayServerOptions options;
  const auto server = serve(options);
  Sbd a, b;
  ASSERT_TRUE(a.handshake(server->address()));
  options.limit_clients = 1;
  ASSERT_TRUE(server->reload(options));
  EXPECT_FALSE(b.open(server->address()));
  EXPECT_EQ(b.ws->status(), 503);
  options.limit_clients = 2;
  ASSERT_TRUE(server->reload(options));
  EXPECT_TRUE(b.handshake(server->address()));
  EXPECT_TRUE(a.send(b, as_bytes("still here")));
  EXPECT_EQ(b.receive()->first, a.id);
}

TEST(RelayServer, AThousandConnectionsAtOnce) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 8192);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_cur < 2200) GTEST_SKIP() << "only " << limit.rlim_cur << " file descriptors allowed";
  RelayServerOptions options;
  options.limit_idle_millis = 120'000;
  const auto server = serve(options);
  std::vector<Sbd> clients(1000);
  for (Sbd& c : clients) ASSERT_TRUE(c.handshake(server->address()));
  EXPECT_EQ(server->stats().relay_clients, 1000U);
  // Each says something to the next one.
  for (std::size_t i = 0; i < clients.size(); ++i) {
    ASSERT_TRUE(clients[i].send(clients[(i + 1) % clients.size()], as_bytes(std::to_string(i))));
  }
  for (std::size_t i = 0; i < clients.size(); ++i) {
    const auto got = clients[(i + 1) % clients.size()].receive();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->second, Bytes::copy_of(std::to_string(i)));
  }
  clients.clear();
  EXPECT_TRUE(eventually([&] { return server->stats().connections == 0; }));
}

TEST(RelayServer, OutOfFileDescriptorsItWaitsAndContinues) {
  if (kSanitized) GTEST_SKIP() << "the sanitizers' own checks need file descriptors";
  const auto server = serve();
  Sbd before;
  ASSERT_TRUE(before.handshake(server->address()));
  RawSocket waiting(server->address());  // its descriptor is ours already; the server's side needs one more
  ASSERT_TRUE(waiting.connected());
  ASSERT_TRUE(eventually([&] { return server->stats().connections == 2; }));
  std::vector<RawSocket> queue;
  for (int i = 0; i < 3; ++i) queue.emplace_back(server->address());
  ASSERT_TRUE(eventually([&] { return server->stats().connections == 5; }));
  queue.clear();
  ASSERT_TRUE(eventually([&] { return server->stats().connections == 2; }));

  // Take all descriptors but one, which becomes the client's end.
  std::vector<int> hoard;
  for (int fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC); fd >= 0; fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) {
    hoard.push_back(fd);
    if (hoard.size() > 100'000) break;
  }
  ASSERT_FALSE(hoard.empty());
  ::close(hoard.back());
  hoard.pop_back();
  RawSocket late(server->address());
  ASSERT_TRUE(late.connected()) << "the kernel takes it, the server cannot yet";
  late.send("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  // The old clients are served meanwhile.
  before.send(before, as_bytes("still here"));
  EXPECT_EQ(before.receive()->second, Bytes::copy_of("still here"));
  EXPECT_EQ(server->stats().connections, 2U);
  for (const int fd : hoard) ::close(fd);
  EXPECT_TRUE(late.receive_answer().ends_with("{}"));
}

TEST(RelayServer, HostileHttpOverRealSockets) {
  RelayServerOptions options;
  options.http_header_millis = 500;
  const auto impatient = serve(options);
  {
    RawSocket s(impatient->address());
    s.send("GET / HTTP/1.1\r\nHost: slow");
    EXPECT_TRUE(s.receive_all().starts_with("HTTP/1.1 408 "));
  }
  {
    RawSocket s(impatient->address());
    EXPECT_EQ(s.receive_all(), "") << "silence is closed, too";
  }
  const auto server = serve();
  {
    RawSocket s(server->address());
    s.send("GET / HTTP/1.1\r\nX: " + std::string(20'000, 'x'));
    EXPECT_TRUE(s.receive_all().starts_with("HTTP/1.1 431 "));
  }
  {
    RawSocket s(server->address());
    s.send(std::string_view("\0\1\2\3garbage\r\n\r\n", 15));
    EXPECT_TRUE(s.receive_all().starts_with("HTTP/1.1 400 "));
  }
  {
    RawSocket s(server->address());
    s.send("PUT /bootstrap/AAAA/AAAA HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n" + std::string(300'000, 'x'));
    EXPECT_TRUE(s.receive_all().starts_with("HTTP/1.1 413 ")) << "the answer survives the unread body";
  }
  {
    RawSocket s(server->address());
    std::string all;
    for (int i = 0; i < 100; ++i) all += "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    s.send(all + "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    s.shut_output();
    const std::string answers = s.receive_all();
    std::size_t count = 0;
    for (auto at = answers.find("HTTP/1.1 200"); at != std::string::npos; at = answers.find("HTTP/1.1 200", at + 1))
      ++count;
    EXPECT_EQ(count, 101U) << "half-closed after the requests";
  }
  EXPECT_TRUE(http(server->address(), "GET /health HTTP/1.1\r\n\r\n").ends_with("{}"));
  EXPECT_TRUE(eventually([&] { return server->stats().connections == 0; }));
}

TEST(RelayServer, ARuntimeCanBeSharedAndStatsOutliveTheStop) {
  Loop loop;
  auto server = RelayServer::start(loop, {});
  ASSERT_TRUE(server.has_value());
  {
    Sbd a;
    ASSERT_TRUE(a.handshake((*server)->address()));
  }
  const std::string metrics = (*server)->metrics();
  EXPECT_NE(metrics.find("\nkitsune2_relay_handshakes_total 1\n"), std::string::npos);
  EXPECT_NE(metrics.find("kitsune2_relay_rejects_total{reason=\"bad_signature\"} 0\n"), std::string::npos);
  (*server)->stop();
  EXPECT_EQ((*server)->stats().handshakes, 1U);
  EXPECT_EQ((*server)->stats().connections, 0U);
  AsioRuntime stopped;
  EXPECT_EQ(RelayServer::start(stopped, {}).error().code, Errc::invalid_argument);
}

TEST(AdminServer, MetricsDescribeBuildAndProcessAndKeepEachFamilyTogether) {
  const auto server = serve();
  Loop loop;
  auto admin = AdminServer::start(loop, "0", [&] { return server->metrics() + AdminServer::process_metrics(); });
  ASSERT_TRUE(admin);
  const std::string answer = http((*admin)->address(), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  std::map<std::string, std::string> types;
  std::map<std::string, double> values;
  std::string family;
  std::istringstream lines(answer.substr(answer.find("\r\n\r\n") + 4));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first, second, third, fourth;
    words >> first >> second >> third >> fourth;
    if (first == "#" && second == "HELP") {
      EXPECT_TRUE(types.emplace(third, "").second) << third << " twice";
      family = third;
    } else if (first == "#") {
      EXPECT_EQ(third, family);
      types[family] = fourth;
    } else {
      EXPECT_EQ(line.substr(0, line.find_first_of(" {")), family) << line;
      values[line.substr(0, line.rfind(' '))] = std::stod(line.substr(line.rfind(' ') + 1));
    }
  }
  for (const auto& [name, type] : types) {
    EXPECT_TRUE(type == "counter" || type == "gauge") << name;
    EXPECT_EQ(name.ends_with("_total"), type == "counter") << name;
    // The names that iroh-relay has are kept as they are.
    const bool ours = !name.starts_with("relayserver_");
    EXPECT_TRUE(!ours || name.find("_bytes_") == std::string::npos || name.ends_with("_bytes_total"))
        << name << ": the unit is last";
  }
  EXPECT_EQ(values.at(std::string("kitsune2_build_info{version=\"") + version() + "\",wire=\"0.2\"}"), 1);
  EXPECT_GT(values.at("process_cpu_seconds_total"), 0);
  EXPECT_GT(values.at("process_resident_memory_bytes"), 1e6);
  EXPECT_GE(values.at("process_virtual_memory_bytes"), values.at("process_resident_memory_bytes"));
  EXPECT_GE(values.at("process_threads"), 3);
  EXPECT_GE(values.at("process_open_fds"), 5);
  EXPECT_GT(values.at("process_max_fds"), values.at("process_open_fds"));
  const auto now = static_cast<double>(std::time(nullptr));
  EXPECT_GT(values.at("process_start_time_seconds"), now - 86'400);
  EXPECT_LE(values.at("process_start_time_seconds"), now + 60);
}

TEST(AdminServer, MetricsAndHealthOnLoopback) {
  bool healthy = true;
  Loop loop;
  auto admin = AdminServer::start(
      loop, "0", [] { return std::string("a_metric 1\n"); },
      [&] {
        return AdminServer::Health{healthy, healthy ? "ok\n" : "the store is gone\n"};
      });
  ASSERT_TRUE(admin.has_value()) << admin.error().to_string();
  const std::string address = (*admin)->address();
  EXPECT_TRUE(address.starts_with("127.0.0.1:"));
  const auto metrics = http(address, "GET /metrics HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(metrics.ends_with("\r\n\r\na_metric 1\n"));
  EXPECT_NE(metrics.find("Content-Type: text/plain; version=0.0.4"), std::string::npos);
  EXPECT_TRUE(http(address, "GET /healthz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
  loop.call([&] { healthy = false; });
  const auto sick = http(address, "GET /healthz HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(sick.starts_with("HTTP/1.1 503 "));
  EXPECT_TRUE(sick.ends_with("the store is gone\n"));
  EXPECT_TRUE(http(address, "GET /else HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
  EXPECT_TRUE(http(address, "PUT /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n").starts_with("HTTP/1.1 405 "));
  const auto taken = AdminServer::start(loop, address, {});
  ASSERT_TRUE(taken.has_error());
  EXPECT_EQ(taken.error().code, Errc::already_exists);
  EXPECT_NE(taken.error().message.find(address), std::string::npos);
  (*admin)->stop();
  EXPECT_FALSE(RawSocket(address).connected());
}

}  // namespace
}  // namespace kitsune2
