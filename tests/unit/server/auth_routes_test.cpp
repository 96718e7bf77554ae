// A server with an authentication hook server, over real sockets on loopback: every route with and without a token.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "kitsune2/relay_server.hpp"
#include "net/conn.hpp"
#include "server/http_server.hpp"
#include "support/served.hpp"
#include "support/sockets.hpp"
#include "transport/iroh/endpoint_key.hpp"
#include "transport/iroh/relay_frames.hpp"
#include "transport/sbd/sbd_frames.hpp"

namespace kitsune2 {
namespace {

using iroh::EndpointKey;
using iroh::RelayFrame;
using iroh::RelayVersion;
using iroh::Sender;
using test::RawSocket;
using test::RawWs;

/// Answers PUT /authenticate: "good…" gets a token that says so, "wait" is pending, all others are refused. "hang" is
/// answered never.
class FakeHook final : public server::HttpHandler {
 public:
  FakeHook() {
    EXPECT_TRUE(loop_.call([&] {
      http_.emplace(loop_, server::HttpLimits(), *this);
      auto made = net::Listener::listen(loop_, "127.0.0.1:0", nullptr,
                                        [this](const std::shared_ptr<net::Conn>& conn) { return http_->accept(conn); });
      listener_ = made.value();
      listener_->start();
      address_ = listener_->address();
    }));
  }
  ~FakeHook() override {
    loop_.call([&] {
      listener_->stop();
      http_.reset();
    });
  }
  std::string url() const { return "http://" + address_; }
  std::size_t asked() const { return asked_; }

  bool admit(const net::IpAddress&) override { return true; }
  server::HttpReply on_request(const server::HttpServerRequest& request) override {
    ++asked_;
    server::HttpReply out;
    out.status = 401;
    if (request.method != "PUT" || request.path != "/authenticate") out.status = 404;
    if (request.body == "wait") out.status = 202;
    if (request.body == "hang") out.later = true;
    if (!request.body.starts_with("good")) return out;
    out.status = 200;
    out.body = R"({"authToken":"token-of-)" + std::string(request.body) + R"("})";
    return out;
  }
  std::shared_ptr<server::WsPeerEvents> on_upgrade(const server::HttpServerRequest&, server::WsPeer&,
                                                   server::HttpReply&) override {
    return nullptr;
  }

 private:
  std::atomic<std::size_t> asked_{0};
  std::string address_;
  std::optional<server::HttpServer> http_;
  std::shared_ptr<net::Listener> listener_;
  test::Loop loop_;
};

std::unique_ptr<RelayServer> serve(const std::string& hook) {
  RelayServerOptions options;
  options.authentication_hook_server = hook;
  return test::serve(options);
}

std::string put(const RelayServer& server, const std::string& path, const std::string& body,
                const std::string& headers = {}) {
  return test::http(server.address(), "PUT " + path + " HTTP/1.1\r\nHost: x\r\n" + headers +
                                          "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
}

std::string get(const RelayServer& server, const std::string& path, const std::string& headers = {}) {
  return test::http(server.address(), "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n");
}

bool has_status(const std::string& answer, int status) {
  return answer.starts_with("HTTP/1.1 " + std::to_string(status) + " ");
}

/// What the relay says to a client that presents `headers` or `query` and proves its key.
std::optional<RelayFrame> verdict(const RelayServer& server, std::uint8_t number, const std::string& headers,
                                  const std::string& query = {}, RelayVersion version = RelayVersion::v2) {
  EndpointKey::Seed seed{};
  seed.fill(number);
  const EndpointKey key(seed);
  const std::string offered = "Sec-WebSocket-Protocol: " + std::string(iroh::to_string(version)) + "\r\n";
  RawWs ws(server.address(), "/relay" + query, offered + headers);
  EXPECT_EQ(ws.status(), 101) << "as in the reference, the upgrade is not refused";
  const auto receive = [&]() -> std::optional<RelayFrame> {
    const auto message = ws.receive();
    if (!message) return std::nullopt;
    auto frame = decode_relay_frame(version, Sender::relay, *message);
    return frame ? std::optional(std::move(*frame)) : std::nullopt;
  };
  const auto challenge = receive();
  if (!challenge || !std::holds_alternative<iroh::ServerChallenge>(*challenge)) return std::nullopt;
  const auto signature = key.sign(iroh::to_be_signed(std::get<iroh::ServerChallenge>(*challenge)));
  ws.send(encode_relay_frame(Sender::client, iroh::ClientAuth{key.id(), signature}));
  return receive();
}

const RelayFrame kIn{iroh::ServerConfirmsAuth{}};
const RelayFrame kDenied{iroh::ServerDeniesAuth{"not authorized"}};

TEST(AuthRoutes, WhoeverTheHookServerAcceptsMayUseEverything) {
  FakeHook hook;
  const auto server = serve(hook.url());
  const auto answer = put(*server, "/authenticate", "good");
  ASSERT_TRUE(has_status(answer, 200)) << answer;
  EXPECT_TRUE(answer.ends_with(R"({"authToken":"token-of-good"})")) << answer;
  const std::string token = "Authorization: Bearer token-of-good\r\n";
  EXPECT_TRUE(has_status(get(*server, "/bootstrap/AAAA", token), 200));
  EXPECT_EQ(verdict(*server, 1, token), kIn);
  EXPECT_EQ(verdict(*server, 1, "Authorization: bearer token-of-good\r\n"), kIn);
  EXPECT_EQ(verdict(*server, 1, "", "?token=token-of-good"), kIn);
  EndpointKey::Seed seed{};
  const EndpointKey key(seed);
  EXPECT_EQ(RawWs(server->address(), "/" + sbd::to_path(key.id()), token).status(), 101);
  EXPECT_EQ(hook.asked(), 1U);
  const std::string metrics = server->metrics();
  EXPECT_NE(metrics.find("\nkitsune2_relay_auth_requests_total{outcome=\"accepted\"} 1\n"), std::string::npos);
  EXPECT_NE(metrics.find("\nkitsune2_relay_auth_tokens 1\n"), std::string::npos);
  EXPECT_NE(metrics.find("\nbootstrap_auth_failures_total 0\n"), std::string::npos);
  EXPECT_EQ(metrics.find("token-of-good"), std::string::npos);
}

TEST(AuthRoutes, WithoutAGoodTokenNothingIsOpenButHealthAndProbes) {
  FakeHook hook;
  const auto server = serve(hook.url());
  for (const std::string& wrong : {std::string(), std::string("Authorization: Bearer wrong\r\n")}) {
    const auto refused = get(*server, "/bootstrap/AAAA", wrong);
    EXPECT_TRUE(has_status(refused, 401)) << refused;
    EXPECT_TRUE(refused.ends_with("\r\n\r\nUnauthorized")) << refused;
    EXPECT_NE(refused.find("\r\nContent-Type: text/plain; charset=utf-8\r\n"), std::string::npos);
    EXPECT_TRUE(has_status(get(*server, "/bootstrap/%%%", wrong), 401)) << "the path is not looked at";
    EXPECT_TRUE(has_status(put(*server, "/bootstrap/AAAA/AAAA", "{}", wrong), 401));
    EXPECT_TRUE(has_status(put(*server, "/relay/keepalive", std::string(32, 'k'), wrong), 401));
    EXPECT_TRUE(has_status(put(*server, "/relay/register", std::string(32, 'k'), wrong), 401));
    EXPECT_EQ(verdict(*server, 1, wrong), kDenied);
    EXPECT_TRUE(has_status(get(*server, "/health", wrong), 200));
    EXPECT_TRUE(has_status(get(*server, "/ping", wrong), 200));
  }
  EndpointKey::Seed seed{};
  EXPECT_EQ(RawWs(server->address(), "/" + sbd::to_path(EndpointKey(seed).id())).status(), 401);
  EXPECT_EQ(hook.asked(), 0U);
  EXPECT_EQ(server->stats().auth.unauthorized, 11U);
}

TEST(AuthRoutes, PendingAndRefusedAreTold) {
  FakeHook hook;
  const auto server = serve(hook.url());
  const auto pending = put(*server, "/authenticate", "wait");
  EXPECT_TRUE(has_status(pending, 202) && pending.ends_with("\r\n\r\n")) << pending;
  const auto refused = put(*server, "/authenticate", "bad");
  EXPECT_TRUE(has_status(refused, 401) && refused.ends_with("Unauthorized")) << refused;
  EXPECT_EQ(server->stats().auth.pending, 1U);
  EXPECT_EQ(server->stats().auth.refused, 1U);
  EXPECT_TRUE(has_status(put(*server, "/authenticate", std::string(1025, 'x')), 413));
  EXPECT_TRUE(has_status(get(*server, "/authenticate"), 405));
}

TEST(AuthRoutes, AHookServerThatIsNotThereIsABadGateway) {
  const auto server = serve("http://127.0.0.1:1");
  const auto answer = put(*server, "/authenticate", "good");
  EXPECT_TRUE(has_status(answer, 502)) << answer;
  EXPECT_TRUE(answer.ends_with("BAD_GATEWAY: no answer of the hook server")) << answer;
  EXPECT_EQ(server->stats().auth.failed, 1U);
}

TEST(AuthRoutes, AHookServerThatAnswersNothingHoldsUpNobodyElse) {
  FakeHook hook;
  const auto server = serve(hook.url());
  ASSERT_TRUE(has_status(put(*server, "/authenticate", "good"), 200));
  std::vector<std::unique_ptr<RawSocket>> waiting;
  for (int i = 0; i < 20; ++i) {
    waiting.push_back(std::make_unique<RawSocket>(server->address()));
    waiting.back()->send("PUT /authenticate HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nhang");
  }
  while (server->stats().auth.calls < 8 || server->stats().auth.waiting < 12) std::this_thread::yield();
  EXPECT_TRUE(has_status(get(*server, "/bootstrap/AAAA", "Authorization: Bearer token-of-good\r\n"), 200));
  EXPECT_EQ(verdict(*server, 1, "Authorization: Bearer token-of-good\r\n"), kIn);
  RawSocket other(server->address(), "127.0.0.2");
  other.send("PUT /authenticate HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\ngood2");
  EXPECT_TRUE(has_status(other.receive_answer(), 200)) << "another address has calls left";
}

TEST(AuthRoutes, AKeyThatWasKeptAliveOpensTheRelayForAStaleTokenButNotForNone) {
  FakeHook hook;
  const auto server = serve(hook.url());
  ASSERT_TRUE(has_status(put(*server, "/authenticate", "good"), 200));
  EndpointKey::Seed seed{};
  seed.fill(1);
  const EndpointKey key(seed);
  const std::string token = "Authorization: Bearer token-of-good\r\n";
  const auto kept = put(*server, "/relay/keepalive", std::string(key.id().begin(), key.id().end()), token);
  EXPECT_TRUE(has_status(kept, 200) && kept.ends_with("{}")) << kept;
  EXPECT_EQ(verdict(*server, 1, "Authorization: Bearer stale\r\n"), kIn);
  EXPECT_EQ(verdict(*server, 1, ""), kDenied);
  EXPECT_EQ(verdict(*server, 2, "Authorization: Bearer stale\r\n"), kDenied) << "another key";
  EXPECT_EQ(server->stats().auth.keys, 1U);
}

TEST(AuthRoutes, ARegisteredKeyOpensTheRelayWithoutAToken) {
  FakeHook hook;
  const auto server = serve(hook.url());
  EndpointKey::Seed seed{};
  seed.fill(1);
  const EndpointKey key(seed);
  const std::string body(key.id().begin(), key.id().end()), token = "Authorization: Bearer token-of-good\r\n";
  const auto without_token = [&](std::uint8_t number) { return verdict(*server, number, "", "", RelayVersion::v1); };
  EXPECT_TRUE(has_status(put(*server, "/relay/register", body, token), 401));
  EXPECT_EQ(without_token(1), kDenied);
  ASSERT_TRUE(has_status(put(*server, "/authenticate", "good"), 200));
  const auto registered = put(*server, "/relay/register", body, token);
  EXPECT_TRUE(has_status(registered, 200) && registered.ends_with("{}")) << registered;
  EXPECT_EQ(without_token(1), kIn);
  EXPECT_EQ(without_token(2), kDenied) << "another key";
  EXPECT_EQ(verdict(*server, 1, "Authorization: Bearer stale\r\n"), kIn) << "as one that is kept alive";
  EXPECT_EQ(server->stats().auth.keys, 1U);
}

TEST(AuthRoutes, PagesMaySendTokensFromOriginsThatAreNamed) {
  FakeHook hook;
  const auto server = serve(hook.url());
  for (const std::string& answer : {get(*server, "/health", "Origin: https://a.example\r\n"),
                                    put(*server, "/authenticate", "good", "Origin: https://a.example\r\n"),
                                    get(*server, "/bootstrap/AAAA", "Origin: https://a.example\r\n")}) {
    EXPECT_NE(answer.find("\r\nAccess-Control-Allow-Origin: https://a.example\r\n"), std::string::npos) << answer;
    EXPECT_NE(answer.find("\r\nAccess-Control-Allow-Credentials: true\r\n"), std::string::npos) << answer;
    EXPECT_NE(answer.find("\r\nVary: origin"), std::string::npos) << answer;
  }
  EXPECT_EQ(get(*server, "/health").find("Access-Control-Allow-Origin"), std::string::npos);
}

TEST(AuthRoutes, RequestsBehindOneThatWaitsForTheHookServerKeepTheirOrder) {
  FakeHook hook;
  const auto server = serve(hook.url());
  RawSocket s(server->address());
  s.send(
      "PUT /authenticate HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\ngoodGET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(s.receive_answer().ends_with(R"({"authToken":"token-of-good"})"));
  EXPECT_TRUE(s.receive_answer().ends_with("{}"));
}

TEST(AuthRoutes, AUrlThatIsNoneIsRefusedAtTheStart) {
  RelayServerOptions options;
  options.authentication_hook_server = "hook.example";
  const auto server = RelayServer::start(options);
  ASSERT_FALSE(server.has_value());
  EXPECT_EQ(server.error().code, Errc::invalid_argument);
  EXPECT_TRUE(server.error().message.starts_with("authentication_hook_server: ")) << server.error().message;
}

}  // namespace
}  // namespace kitsune2
