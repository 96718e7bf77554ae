// Questions to the hook server, its answers, and requests with and without tokens.
#include "server/auth/authenticator.hpp"

#include <sodium.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/random.hpp"
#include "log/log.hpp"
#include "net/url_parts.hpp"

namespace kitsune2::server {
namespace {

constexpr std::string_view kBearer = "Bearer ";
constexpr std::string_view kRoute = "/authenticate";

HttpReply plain(int status, std::string text) {
  HttpReply out;
  out.status = status;
  out.content_type = "text/plain; charset=utf-8";
  out.body = std::move(text);
  return out;
}

HttpReply token_answer(std::string_view token) {
  HttpReply out;
  out.body.append(R"({"authToken":")").append(token).append(R"("})");
  return out;
}

TokenBook::Secret fresh_secret(Runtime& runtime) {
  TokenBook::Secret out;
  runtime.random_bytes(out);
  return out;
}

bool is_bearer(std::string_view scheme) {
  constexpr std::string_view kName = "bearer";
  return std::equal(scheme.begin(), scheme.end(), kName.begin(), kName.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b; });
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/// A value of a query. What is no escape stays as it is.
std::string unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' && i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
    if (low < 0) {
      out += text[i] == '+' ? ' ' : text[i];
      continue;
    }
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

/// Whether it can stand in a header and in a JSON string as it is.
bool is_token(const std::string& text) {
  return !text.empty() && text.size() <= TokenBook::kMaxTokenBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < '\x7f' && c != '"' && c != '\\'; });
}

}  // namespace

Result<std::string> hook_url(std::string_view url) {
  std::string out(url);
  while (out.ends_with('/')) out.pop_back();
  const auto host = out.find("://");
  const auto path = host == std::string::npos ? host : out.find('/', host + 3);
  if (path == std::string::npos || !out.substr(path).ends_with(kRoute)) out += kRoute;
  if (const auto parts = net::parse_url(out, "http", "https"); !parts) return parts.error();
  return out;
}

std::optional<std::string_view> bearer_token(const HttpServerRequest& request) {
  const std::string_view value = request.header("authorization");
  return value.starts_with(kBearer) ? std::optional(value.substr(kBearer.size())) : std::nullopt;
}

std::optional<std::string> relay_token(const HttpServerRequest& request) {
  for (const std::string& value : request.headers("authorization")) {
    const std::string_view text = value;
    const auto space = text.find(' ');
    if (space != std::string_view::npos && is_bearer(text.substr(0, space))) return std::string(text.substr(space + 1));
  }
  std::string_view rest = request.query;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    const auto equals = pair.find('=');
    if (pair.substr(0, equals) != "token") continue;
    return unescaped(equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1));
  }
  return std::nullopt;
}

Authenticator::Authenticator(Runtime& runtime, const std::string& hook, RelayLog& log, Duration token_idle)
    : runtime_(runtime),
      hook_(hook.empty() ? std::string() : hook_url(hook).value()),
      log_(log),
      book_(!hook.empty(), fresh_secret(runtime), {.idle = token_idle}) {}

Authenticator::~Authenticator() { runtime_.cancel(timer_); }

void Authenticator::check_invariants() const {
  book_.check_invariants();
  turns_.check_invariants();
  K2_ASSERT(questions_.size() == turns_.waiting() + turns_.calls());
}

void Authenticator::count() {
  counters_.tokens.store(book_.tokens());
  counters_.keys.store(book_.keys());
  counters_.calls.store(turns_.calls());
  counters_.waiting.store(turns_.waiting());
}

void Authenticator::prune() {
  book_.prune(runtime_.now());
  count();
}

void Authenticator::say(const net::IpAddress& ip, std::string_view kind, std::string_view what) {
  log_.say(log::Level::info, kind, [&] { return ip.to_string() + ": authentication: " + std::string(what); });
}

std::optional<HttpReply> Authenticator::refusal(const HttpServerRequest& request) {
  if (book_.check(bearer_token(request), runtime_.now())) return std::nullopt;
  ++counters_.unauthorized;
  return plain(401, "Unauthorized");
}

HttpReply Authenticator::list(const HttpServerRequest& request, const net::IpAddress& ip, TokenBook::As as) {
  if (auto refused = refusal(request)) return std::move(*refused);
  TokenBook::Key key{};
  if (request.body.size() != key.size()) return plain(400, "Expected exactly 32 bytes (iroh public key)");
  std::copy(request.body.begin(), request.body.end(), key.begin());
  if (crypto_core_ed25519_is_valid_point(key.data()) == 0) return plain(400, "Invalid public key bytes");
  const auto token = bearer_token(request).value_or(std::string_view());
  if (!book_.list(key, as, token, ip.limit_key().bytes, runtime_.now(), random_u64(runtime_))) {
    return plain(503, "too many keys");
  }
  count();
  HttpReply out;
  out.body = "{}";
  return out;
}

std::optional<HttpReply> Authenticator::authenticate(const HttpServerRequest& request, const net::IpAddress& ip,
                                                     Later later) {
  if (!has_hook()) {
    std::array<std::uint8_t, 16> random{};
    runtime_.random_bytes(random);
    ++counters_.accepted;
    return token_answer(book_.issue(random));
  }
  const auto number = next_question_++;
  questions_.emplace(number, Question{std::string(request.body), ip, std::move(later)});
  turns_.ask(number, ip.limit_key().bytes, runtime_.now());
  // Not from inside this call, so that each answer takes the same way.
  runtime_.post(lifetime_.guard([this] { turn(); }));
  return std::nullopt;
}

/// Gives up what waited too long, makes the calls that may be made, and sets the timer.
void Authenticator::turn() {
  const Time now = runtime_.now();
  for (const auto number : turns_.given_up(now)) {
    const auto it = questions_.find(number);
    const Question question = std::move(it->second);
    questions_.erase(it);
    ++counters_.busy;
    say(question.ip, "authentications that were not asked", "the hook server is not asked: too many wait for it");
    question.later(plain(503, "too many wait for the authentication"));
  }
  while (const auto number = turns_.next()) call(*number);
  count();
  runtime_.cancel(std::exchange(timer_, 0));
  if (const auto next = turns_.next_deadline()) {
    timer_ = runtime_.schedule(*next, lifetime_.guard([this] {
      timer_ = 0;
      turn();
    }));
  }
}

void Authenticator::call(HookTurns::Question number) {
  HttpRequest request;
  request.method = HttpMethod::kPut;
  request.url = hook_;
  request.body = std::move(questions_.at(number).material);
  request.headers = {{"Content-Type", "application/octet-stream"}};
  request.timeout = kCallTimeout;
  request.max_response_bytes = kMaxAnswerBytes;
  Handler<HttpResponse> done = lifetime_.guard([this, number](const Result<HttpResponse>& answer) {
    const auto it = questions_.find(number);
    const Question question = std::move(it->second);
    questions_.erase(it);
    turns_.ended(question.ip.limit_key().bytes);
    question.later(judge(answer, question.ip));
    turn();
  });
  if (client_) return client_->request(std::move(request), std::move(done));
  runtime_.post([done = std::move(done)] { done(make_error(Errc::peer_unresponsive, "there is no HTTP client")); });
}

/// What the client is told for the hook server's answer, as by the reference. Of an error it is not told where the hook
/// server is.
HttpReply Authenticator::judge(const Result<HttpResponse>& answer, const net::IpAddress& ip) {
  const auto fail = [&](int status, const std::string& what, const std::string& why) {
    ++counters_.failed;
    say(ip, "authentications that failed", "the hook server fails: " + why);
    log_.urge("hook server", [&] { return "the authentication hook server fails: " + why; });
    return plain(status, (status == 502 ? "BAD_GATEWAY: " : "INTERNAL_SERVER_ERROR: ") + what);
  };
  if (!answer) return fail(502, "no answer of the hook server", answer.error().message);
  const int status = answer->status;
  if (status == 202) {
    ++counters_.pending;
    say(ip, "authentications that are pending", "pending");
    HttpReply out;
    out.status = 202;
    out.content_type.clear();
    return out;
  }
  if (status == 401) {
    ++counters_.refused;
    say(ip, "authentications that are refused", "refused");
    return plain(401, "Unauthorized");
  }
  if (status < 200 || status >= 300) {
    const std::string code = "StatusCode(" + std::to_string(status) + ")";
    return fail(502, code, "status " + std::to_string(status));
  }
  if (status != 200) {
    return fail(500, "the hook server's status is neither 200 nor 202", "status " + std::to_string(status));
  }
  // The answer may hold the token in a place where it is not looked for, so it is not quoted.
  const auto json = nlohmann::json::parse(answer->body, nullptr, false);
  const auto found = json.is_object() ? json.find("authToken") : json.end();
  if (!json.is_object())
    return fail(500, "the hook server's answer is not a JSON object", "its answer is no JSON object");
  if (found == json.end() || !found->is_string()) {
    return fail(500, "Missing authToken in response", "its answer has no authToken");
  }
  const auto& token = found->get_ref<const std::string&>();
  if (!is_token(token)) {
    return fail(500, "the authToken cannot stand in a header", "its authToken cannot stand in a header");
  }
  if (!book_.admit(token, ip.limit_key().bytes, runtime_.now(), random_u64(runtime_))) {
    ++counters_.busy;
    say(ip, "authentications that found no place", "there is no place for its token");
    return plain(503, "too many tokens");
  }
  ++counters_.accepted;
  say(ip, "authentications that are accepted", "accepted");
  return token_answer(token);
}

}  // namespace kitsune2::server
