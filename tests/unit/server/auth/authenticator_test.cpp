// Authentication in virtual time, with a hook server that answers what and when the test says.
#include "server/auth/authenticator.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"
#include "transport/iroh/endpoint_key.hpp"

namespace kitsune2::server {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

struct Request final : HttpServerRequest {
  Request(std::string_view verb, std::string_view target, std::string_view content, const net::IpAddress& address)
      : HttpServerRequest(verb, target, content, address) {}
  std::vector<std::string> authorization;
  std::string_view header(std::string_view name) const override {
    return name == "authorization" && !authorization.empty() ? std::string_view(authorization.front())
                                                             : std::string_view();
  }
  std::vector<std::string> headers(std::string_view name) const override {
    return name == "authorization" ? authorization : std::vector<std::string>();
  }
};

/// A hook server behind an HttpClient. Calls wait until the test answers them.
struct FakeHook final : HttpClient {
  struct Call {
    HttpRequest request;
    Handler<HttpResponse> done;
  };
  explicit FakeHook(std::deque<Call>& to) : calls(to) {}
  std::deque<Call>& calls;
  void request(HttpRequest request, Handler<HttpResponse> done) override {
    calls.push_back({std::move(request), std::move(done)});
  }
};

class AuthenticatorTest : public ::testing::Test {
 protected:
  net::IpAddress ip(int number) { return *net::IpAddress::parse("10.0.0." + std::to_string(number)); }

  void start(const std::string& hook) {
    auth_.emplace(*runtime_, hook, log_);
    auth_->use_client(std::make_unique<FakeHook>(calls_));
  }

  /// PUT /authenticate; the answer is in `answers_[number]`, perhaps later.
  void ask(int number, const std::string& material, int from = 1) {
    const net::IpAddress address = ip(from);
    const Request request("PUT", "/authenticate", material, address);
    const auto later = [this, number](HttpReply reply) { answers_[number] = std::move(reply); };
    if (auto now = auth_->authenticate(request, address, later)) answers_[number] = std::move(*now);
    world_.run_ready();
  }
  void answer(Result<HttpResponse> with) {
    auto call = std::move(calls_.front());
    calls_.pop_front();
    call.done(std::move(with));
    world_.run_ready();
  }
  std::optional<int> status_with(const std::string& authorization) {
    const net::IpAddress address = ip(1);
    Request request("GET", "/bootstrap/AAAA", {}, address);
    if (!authorization.empty()) request.authorization = {authorization};
    const auto refusal = auth_->refusal(request);
    return refusal ? std::optional(refusal->status) : std::nullopt;
  }
  HttpReply keep_alive(const std::string& token, const std::string& body) {
    const net::IpAddress address = ip(1);
    Request request("PUT", "/relay/keepalive", body, address);
    request.authorization = {"Bearer " + token};
    return auth_->list(request, address, TokenBook::As::kept_alive);
  }

  std::deque<FakeHook::Call> calls_;
  testing::SimWorld world_;
  std::unique_ptr<testing::SimRuntime> runtime_ = world_.make_runtime();
  RelayLog log_{*runtime_};
  std::map<int, HttpReply> answers_;
  std::optional<Authenticator> auth_;
};

TEST_F(AuthenticatorTest, WithoutAHookServerWhoeverAsksGetsATokenAndNobodyNeedsOne) {
  start("");
  ask(1, "anything");
  ASSERT_EQ(answers_.at(1).status, 200);
  const std::string& body = answers_.at(1).body;
  ASSERT_TRUE(body.starts_with(R"({"authToken":")") && body.size() == 14 + 43 + 2) << body;
  EXPECT_EQ(status_with(""), std::nullopt);
  EXPECT_EQ(status_with("Bearer " + body.substr(14, 43)), std::nullopt);
  EXPECT_EQ(status_with("Bearer wrong"), 401);
  EXPECT_EQ(status_with("bearer wrong"), std::nullopt) << "that is no token here";
  EXPECT_TRUE(calls_.empty());
}

TEST_F(AuthenticatorTest, TheHookServerIsAskedWithTheClientsBytesAndItsTokenIsPassedOn) {
  start("http://hook.example:8080/");
  ask(1, std::string("\0material", 9));
  ASSERT_EQ(calls_.size(), 1U);
  EXPECT_EQ(calls_.front().request.url, "http://hook.example:8080/authenticate");
  EXPECT_EQ(calls_.front().request.method, HttpMethod::kPut);
  EXPECT_EQ(calls_.front().request.body, std::string("\0material", 9));
  EXPECT_EQ(calls_.front().request.timeout, Authenticator::kCallTimeout);
  EXPECT_EQ(calls_.front().request.headers.front().second, "application/octet-stream");
  EXPECT_EQ(answers_.size(), 0U);
  answer(HttpResponse{200, R"({"authToken":"tok","more":1})"});
  EXPECT_EQ(answers_.at(1).status, 200);
  EXPECT_EQ(answers_.at(1).body, R"({"authToken":"tok"})");
  EXPECT_EQ(answers_.at(1).content_type, "application/json");
  EXPECT_EQ(status_with("Bearer tok"), std::nullopt);
  EXPECT_EQ(status_with("bearer tok"), 401) << "only this form counts, as in the reference";
  EXPECT_EQ(status_with(""), 401);
  EXPECT_EQ(auth_->counters().accepted.get(), 1U);
  EXPECT_EQ(auth_->counters().unauthorized.get(), 2U);
}

TEST_F(AuthenticatorTest, TheHookServersAnswerDecidesWhatTheClientIsTold) {
  start("http://hook.example");
  const auto told = [&](Result<HttpResponse> with) {
    ask(1, "m");
    answer(std::move(with));
    return std::pair(answers_.at(1).status, answers_.at(1).body);
  };
  using Told = std::pair<int, std::string>;
  EXPECT_EQ(told(HttpResponse{202, "ignored"}), Told(202, ""));
  EXPECT_EQ(answers_.at(1).content_type, "");
  EXPECT_EQ(told(HttpResponse{401, "why"}), Told(401, "Unauthorized"));
  EXPECT_EQ(told(HttpResponse{500, "why"}), Told(502, "BAD_GATEWAY: StatusCode(500)"));
  EXPECT_EQ(told(HttpResponse{201, R"({"authToken":"t"})"}).first, 500);
  EXPECT_EQ(told(HttpResponse{302, ""}), Told(502, "BAD_GATEWAY: StatusCode(302)"));
  EXPECT_EQ(told(make_error(Errc::timed_out, "secret.host: no answer")).second,
            "BAD_GATEWAY: no answer of the hook server");
  EXPECT_EQ(told(HttpResponse{200, "{}"}), Told(500, "INTERNAL_SERVER_ERROR: Missing authToken in response"));
  for (const std::string& body :
       {std::string("tok"), std::string(R"(["tok"])"), std::string(R"({"authToken":7})"),
        std::string(R"({"authToken":""})"), std::string(R"({"authToken":"a b"})"),
        std::string(R"({"authToken":"a\r\nX: y"})"), R"({"authToken":")" + std::string(5000, 'x') + R"("})"}) {
    EXPECT_EQ(told(HttpResponse{200, body}).first, 500) << body;
    EXPECT_EQ(told(HttpResponse{204, body}).first, 500) << body;
  }
  EXPECT_EQ(told(HttpResponse{200, R"({"authToken":"tok"})"}).first, 200);
  EXPECT_EQ(auth_->counters().pending.get(), 1U);
  EXPECT_EQ(auth_->counters().refused.get(), 1U);
  EXPECT_EQ(auth_->counters().accepted.get(), 1U);
  EXPECT_EQ(auth_->counters().tokens.get(), 1U);
  EXPECT_EQ(auth_->counters().failed.get(), 5U + 14U);
}

TEST_F(AuthenticatorTest, ATokenThatIsNotUsedEndsAndOneOfAConnectionDoesNot) {
  start("http://hook.example");
  ask(1, "m");
  answer(HttpResponse{200, R"({"authToken":"idle"})"});
  ask(2, "m");
  answer(HttpResponse{200, R"({"authToken":"live"})"});
  const net::IpAddress address = ip(1);
  Request upgrade("GET", "/relay", {}, address);
  upgrade.authorization = {"Basic x", "BEARER live"};
  const auto opened = auth_->open(upgrade);
  EXPECT_EQ(opened.access, TokenBook::Access::good);
  world_.run_for(minutes(6));
  auth_->prune();
  EXPECT_EQ(auth_->counters().tokens.get(), 1U);
  EXPECT_EQ(status_with("Bearer idle"), 401);
  EXPECT_EQ(status_with("Bearer live"), std::nullopt);
  auth_->closed(*opened.token);
  world_.run_for(minutes(5));
  EXPECT_EQ(auth_->open(upgrade).access, TokenBook::Access::stale);
  const Request none("GET", "/relay?x=1", {}, address);
  EXPECT_EQ(auth_->open(none).access, TokenBook::Access::none);
}

TEST_F(AuthenticatorTest, AConnectionMayPresentItsTokenInTheQuery) {
  const net::IpAddress address = ip(1);
  const auto token = [&](const std::string& target) { return relay_token(Request("GET", target, {}, address)); };
  EXPECT_EQ(token("/relay?token=abc"), "abc");
  EXPECT_EQ(token("/relay?a=b&token=a%2Bb+c%2&token=no"), "a+b c%2");
  EXPECT_EQ(token("/relay?token"), "");
  EXPECT_EQ(token("/relay?tokens=abc"), std::nullopt);
  EXPECT_EQ(token("/relay"), std::nullopt);
}

TEST_F(AuthenticatorTest, AKeepAliveListsAKeyForTheHolderOfAToken) {
  start("http://hook.example");
  ask(1, "m");
  answer(HttpResponse{200, R"({"authToken":"tok"})"});
  iroh::EndpointKey::Seed seed{};
  seed[0] = 1;
  const iroh::EndpointKey key(seed);
  const std::string body(key.id().begin(), key.id().end());
  EXPECT_EQ(keep_alive("wrong", body).status, 401);
  EXPECT_EQ(keep_alive("tok", body.substr(1)).body, "Expected exactly 32 bytes (iroh public key)");
  EXPECT_EQ(keep_alive("tok", std::string(32, '\xee')).body, "Invalid public key bytes");
  EXPECT_FALSE(auth_->is_listed(key.id()));
  const auto taken = keep_alive("tok", body);
  EXPECT_EQ(std::pair(taken.status, taken.body), std::pair(200, std::string("{}")));
  EXPECT_TRUE(auth_->is_listed(key.id()));
  world_.run_for(minutes(4));
  EXPECT_EQ(keep_alive("tok", body).status, 200) << "that renews the token";
  world_.run_for(minutes(4));
  EXPECT_TRUE(auth_->is_listed(key.id()));
  world_.run_for(minutes(1));
  EXPECT_FALSE(auth_->is_listed(key.id()));
}

TEST_F(AuthenticatorTest, AHookServerThatAnswersNothingIsAskedLittleAndItsClientsAreToldInTime) {
  start("http://hook.example");
  for (int i = 0; i < 300; ++i) ask(i, "m", 1);
  EXPECT_EQ(calls_.size(), 8U) << "of one address";
  EXPECT_EQ(answers_.size(), 300U - 8U - 64U) << "beyond what may wait, the answer comes at once";
  for (int i = 0; i < 30; ++i) ask(1000 + i, "m", 2 + i % 10);
  EXPECT_EQ(calls_.size(), 32U);
  for (const auto& [number, reply] : answers_) EXPECT_EQ(reply.status, 503) << number;
  world_.run_for(seconds(10));
  EXPECT_EQ(answers_.size(), 330U - 32U) << "all but the calls";
  EXPECT_EQ(auth_->counters().waiting.get(), 0U);
  while (!calls_.empty()) answer(make_error(Errc::timed_out, "no answer in time"));
  EXPECT_EQ(answers_.size(), 330U);
  EXPECT_EQ(auth_->counters().calls.get(), 0U);
  auth_->check_invariants();
}

TEST_F(AuthenticatorTest, AUrlOfAHookServerNamesTheServerOrTheWholePath) {
  EXPECT_EQ(hook_url("http://h:1").value(), "http://h:1/authenticate");
  EXPECT_EQ(hook_url("https://h/base//").value(), "https://h/base/authenticate");
  EXPECT_EQ(hook_url("http://h:1/authenticate").value(), "http://h:1/authenticate");
  EXPECT_EQ(hook_url("http://authenticate").value(), "http://authenticate/authenticate");
  for (const char* bad : {"", "h:1", "ftp://h", "http://"}) EXPECT_FALSE(hook_url(bad).has_value()) << bad;
}

TEST_F(AuthenticatorTest, AnAnswerAfterTheServerHasEndedDoesNothing) {
  start("http://hook.example");
  ask(1, "m");
  auto call = std::move(calls_.front());
  auth_.reset();
  call.done(HttpResponse{200, R"({"authToken":"tok"})"});
  EXPECT_TRUE(answers_.empty());
}

}  // namespace
}  // namespace kitsune2::server
