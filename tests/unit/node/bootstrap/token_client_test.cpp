// Tokens: asking for one, sending it along, and what happens when it is no longer good.
#include "node/bootstrap/token_client.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "kitsune2/testing/sim_runtime.hpp"

namespace kitsune2 {
namespace {

/// A server that is written in the test.
struct FakeTokenServer final : HttpClient {
  explicit FakeTokenServer(Runtime& r) : runtime(r) {}
  void request(HttpRequest request, Handler<HttpResponse> done) override {
    requests.push_back(request);
    runtime.post([this, request = std::move(request), done = std::move(done)] { done(answer(request)); });
  }
  std::string token_of(const HttpRequest& request) const {
    for (const auto& [name, value] : request.headers) {
      if (name == "Authorization") return value;
    }
    return {};
  }
  std::size_t authentications() const {
    return std::count_if(requests.begin(), requests.end(),
                         [](const HttpRequest& r) { return r.url == "http://server:1/authenticate"; });
  }

  Runtime& runtime;
  std::vector<HttpRequest> requests;
  std::function<Result<HttpResponse>(const HttpRequest&)> answer;
};

struct TokenClientTest : ::testing::Test {
  TokenClientTest() {
    server->answer = [this](const HttpRequest& request) -> Result<HttpResponse> {
      if (request.url.ends_with("/authenticate")) return authenticate(request);
      return server->token_of(request) == "Bearer " + good ? HttpResponse{200, "welcome"} : HttpResponse{401, "no"};
    };
  }
  Result<HttpResponse> authenticate(const HttpRequest& request) {
    EXPECT_EQ(request.method, HttpMethod::kPut);
    EXPECT_EQ(request.body, "material");
    return HttpResponse{200, R"({"authToken":")" + good + R"("})"};
  }
  void get() {
    HttpRequest request;
    request.url = "http://server:1/bootstrap/x";
    client->request(request, [this](Result<HttpResponse> answer) { answers.push_back(std::move(answer)); });
  }

  testing::SimWorld world;
  std::unique_ptr<testing::SimRuntime> runtime = world.make_runtime();
  std::shared_ptr<FakeTokenServer> server = std::make_shared<FakeTokenServer>(*runtime);
  std::shared_ptr<HttpClient> client = make_token_client(*runtime, server, "http://server:1", "material");
  std::string good = "first";
  std::vector<Result<HttpResponse>> answers;
};

TEST_F(TokenClientTest, RequestsShareOneToken) {
  for (int i = 0; i < 3; ++i) get();
  world.run_ready();
  get();
  world.run_ready();
  ASSERT_EQ(answers.size(), 4U);
  for (const auto& answer : answers) EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(server->authentications(), 1U);
}

TEST_F(TokenClientTest, ATokenThatIsNoLongerGoodIsRenewedAndTheRequestRepeated) {
  get();
  world.run_ready();
  good = "second";
  get();
  get();
  world.run_ready();
  ASSERT_EQ(answers.size(), 3U);
  for (const auto& answer : answers) EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(server->authentications(), 2U) << "one for both";
}

TEST_F(TokenClientTest, ASecondRefusalIsTheAnswer) {
  server->answer = [this](const HttpRequest& request) -> Result<HttpResponse> {
    if (request.url.ends_with("/authenticate")) return authenticate(request);
    return HttpResponse{401, "no"};
  };
  get();
  world.run_ready();
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0]->status, 401);
  EXPECT_EQ(server->authentications(), 2U);
  EXPECT_EQ(server->requests.size(), 4U);
}

TEST_F(TokenClientTest, WithoutATokenTheRequestFailsAndTheNextOneAsksAgain) {
  struct Case {
    Result<HttpResponse> answer;
    Errc code;
  };
  const std::vector<Case> cases = {
      {HttpResponse{401, ""}, Errc::blocked},
      {HttpResponse{202, ""}, Errc::peer_unresponsive},
      {HttpResponse{500, ""}, Errc::peer_unresponsive},
      {HttpResponse{200, "nonsense"}, Errc::malformed},
      {HttpResponse{200, "[]"}, Errc::malformed},
      {HttpResponse{200, R"({"authToken":7})"}, Errc::malformed},
      {HttpResponse{200, R"({"authToken":"two\r\nlines"})"}, Errc::malformed},
      {HttpResponse{200, R"({"authToken":""})"}, Errc::malformed},
      {make_error(Errc::timed_out, "late"), Errc::timed_out},
  };
  for (const Case& one : cases) {
    const auto normal = std::exchange(server->answer, [&](const HttpRequest&) { return one.answer; });
    answers.clear();
    get();
    get();
    world.run_ready();
    ASSERT_EQ(answers.size(), 2U);
    for (const auto& answer : answers) EXPECT_EQ(answer.error().code, one.code) << answer.error().to_string();
    server->answer = normal;
  }
  answers.clear();
  get();
  world.run_ready();
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0]->status, 200);
}

// Errors reach logs and the status of the program.
TEST_F(TokenClientTest, AnErrorSaysWhatIsWrongAndNeverQuotesTheAnswer) {
  const std::string secret = "s3cr3t";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {secret, "the answer is not a JSON object"},
      {'"' + secret + '"', "the answer is not a JSON object"},
      {R"({"token":")" + secret + R"("})", "the answer has no authToken"},
      {R"({"authToken":[")" + secret + R"("]})", "authToken is not a string"},
      {R"({"authToken":")" + secret + std::string(5000, 'x') + R"("})", "authToken is longer than 4096 bytes"},
      {R"({"authToken":")" + secret + R"( x"})", "authToken has characters that cannot stand in a header"},
  };
  for (const auto& [body, says] : cases) {
    server->answer = [body = body](const HttpRequest&) { return HttpResponse{200, body}; };
    answers.clear();
    get();
    world.run_ready();
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].error().message, "http://server:1/authenticate: " + says);
  }
}

TEST(AuthMaterial, IsBase64WithPadding) {
  EXPECT_EQ(auth_material("bWF0ZXJpYWw="), "material");
  EXPECT_EQ(auth_material("/+8="), "\xff\xef");
  for (const char* text : {"", "bWF0ZXJpYWw", "_-8=", "bWF0 ZXJpYWw=", "====", "é"})
    EXPECT_EQ(auth_material(text), std::nullopt) << text;
  EXPECT_EQ(auth_material(std::string(200'000, 'A')), std::nullopt);
}

}  // namespace
}  // namespace kitsune2
