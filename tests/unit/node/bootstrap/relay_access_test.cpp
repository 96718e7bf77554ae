// The right to use a relay that asks for authentication: telling the key, tokens, and renewing both.
#include "node/bootstrap/relay_access.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"

namespace kitsune2 {
namespace {

using std::chrono::seconds;

/// As a server of kitsune2 with a hook server: gives tokens, and takes keys from those who have one.
struct FakeServer final : HttpClient {
  explicit FakeServer(Runtime& r) : runtime(r) {}
  void request(HttpRequest request, Handler<HttpResponse> done) override {
    runtime.post([this, request = std::move(request), done = std::move(done)] { done(answer(request)); });
  }
  HttpResponse answer(const HttpRequest& request) {
    if (request.url == "https://relay:1/authenticate") {
      if (request.body != "material") return {401, ""};
      good.insert("token-" + std::to_string(++given));
      return {200, R"({"authToken":"token-)" + std::to_string(given) + R"("})"};
    }
    paths.push_back(request.url.substr(request.url.find("/relay/")));
    if (!only_path.empty() && paths.back() != only_path) return {404, ""};
    for (const auto& [name, value] : request.headers) {
      if (name == "Authorization" && good.contains(value.substr(7))) {
        keys.push_back(request.body);
        return {status, "{}"};
      }
    }
    return {401, ""};
  }

  Runtime& runtime;
  std::set<std::string> good;
  int given = 0;
  int status = 200;
  std::string only_path;  ///< that it has; empty: both
  std::vector<std::string> keys, paths;
};

struct RelayAccessTest : ::testing::Test {
  void start(const std::string& material = "material", bool has_keepalive = true) {
    RelayAccessOptions options;
    options.server = "https://relay:1";
    options.material = material;
    options.interval = seconds(120);
    options.has_keepalive = has_keepalive;
    access = make_relay_access(*runtime, server, options);
  }
  Result<std::string> ask(bool refused = false) {
    std::optional<Result<std::string>> out;
    std::array<std::uint8_t, 32> key{};
    key.fill('k');
    access(key, refused, [&](Result<std::string> r) { out = std::move(r); });
    world.run_ready();
    return out ? *out : Result<std::string>(make_error(Errc::internal, "no answer"));
  }

  testing::SimWorld world;
  std::unique_ptr<testing::SimRuntime> runtime = world.make_runtime();
  std::shared_ptr<FakeServer> server = std::make_shared<FakeServer>(*runtime);
  RelayAccess access;
};

TEST_F(RelayAccessTest, TheKeyIsToldWithATokenWhichTheRelayIsPresented) {
  start();
  EXPECT_EQ(ask().value(), "token-1");
  EXPECT_EQ(server->keys, std::vector<std::string>{std::string(32, 'k')});
  EXPECT_EQ(server->paths.back(), "/relay/keepalive");
  EXPECT_EQ(ask().value(), "token-1") << "as long as it is good";
}

TEST_F(RelayAccessTest, ATokenThatIsNoLongerGoodIsRenewed) {
  start();
  ASSERT_TRUE(ask().has_value());
  server->good.clear();  // the server has started again
  EXPECT_EQ(ask().value(), "token-2");
}

TEST_F(RelayAccessTest, WhatTheRelayRefusedIsGivenUp) {
  start();
  ASSERT_TRUE(ask().has_value());
  EXPECT_EQ(ask(true).value(), "token-2");
}

TEST_F(RelayAccessTest, TheKeyIsToldAgainAndAgain) {
  start();
  ASSERT_TRUE(ask().has_value());
  world.run_for(seconds(600));
  EXPECT_EQ(server->keys.size(), 6U);
  server->good.clear();
  world.run_for(seconds(120));
  EXPECT_EQ(server->keys.size(), 7U) << "with a new token";
  access = nullptr;
  world.run_for(seconds(600));
  EXPECT_EQ(server->keys.size(), 7U) << "until the node has ended";
}

TEST_F(RelayAccessTest, WithoutTheRightTheReasonIsGiven) {
  start("wrong");
  EXPECT_EQ(ask().error().code, Errc::blocked);
  start();
  server->status = 404;
  const auto refused = ask();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::peer_unresponsive);
  EXPECT_NE(refused.error().message.find("status 404"), std::string::npos);
}

TEST_F(RelayAccessTest, InDialect04TheKeyIsRegisteredAndTheTokenPresented) {
  start("material", false);
  EXPECT_EQ(ask().value(), "token-1");
  EXPECT_EQ(server->paths, std::vector<std::string>{"/relay/register"})
      << "the first one has no token to be refused with";
}

TEST_F(RelayAccessTest, InDialect04TheServerMayBeOfEitherVersion) {
  server->only_path = "/relay/keepalive";
  start("material", false);
  EXPECT_EQ(ask().value(), "token-1");
  EXPECT_EQ(ask().value(), "token-1");
  EXPECT_EQ(server->paths, (std::vector<std::string>{"/relay/register", "/relay/keepalive", "/relay/keepalive"}));
  server->only_path = "/relay/register";  // it was replaced
  EXPECT_EQ(ask().value(), "token-1");
  server->only_path = "/none";
  server->paths.clear();
  const auto refused = ask();
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("status 404"), std::string::npos);
  EXPECT_EQ(server->paths.size(), 2U);
  server->only_path = "/relay/register";
  start();
  EXPECT_FALSE(ask().has_value()) << "in 0.5 there is one path only";
}

}  // namespace
}  // namespace kitsune2
