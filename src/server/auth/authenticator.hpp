// Authentication of clients: /authenticate with its hook server, and the tokens that other requests present.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "kitsune2/error.hpp"
#include "kitsune2/http.hpp"
#include "kitsune2/runtime.hpp"
#include "net/conn.hpp"
#include "server/auth/hook_turns.hpp"
#include "server/auth/token_book.hpp"
#include "server/counter.hpp"
#include "server/http_server.hpp"
#include "server/relay_log.hpp"

namespace kitsune2::server {

struct AuthCounters {
  // Outcomes of PUT /authenticate.
  Counter accepted;
  Counter pending;
  Counter refused;
  Counter failed;        // the hook server could not be reached, or its answer makes no sense
  Counter busy;          // not asked: too many questions, or no place for the token
  Counter unauthorized;  // other requests without a good token
  Counter tokens;        // gauge
  Counter keys;          // gauge
  Counter calls;         // gauge: calls to the hook server that are under way
  Counter waiting;       // gauge: questions that wait for one
};

/// The url at which a hook server is asked: `url` and "/authenticate", as kitsune2_bootstrap_srv 0.5.3 does. A url that
/// ends so already stays as it is, which is what 0.2.17 to 0.3.2 expect. Errc::invalid_argument.
Result<std::string> hook_url(std::string_view url);

/// The token that a request for anything but the relay of dialect 0.5 presents: what follows "Bearer " in
/// Authorization.
std::optional<std::string_view> bearer_token(const HttpServerRequest& request);
/// The same of a connection to the relay: the scheme in any case, or `?token=`.
std::optional<std::string> relay_token(const HttpServerRequest& request);

/// Asks the hook server and knows the tokens. TokenBook and HookTurns have the rules; a call to the hook server has
/// kCallTimeout and kMaxAnswerBytes. Neither what clients authenticate themselves with nor a token is ever logged.
/// Strand only; `runtime` and `log` must outlive it.
class Authenticator {
 public:
  static constexpr Duration kCallTimeout = std::chrono::seconds(10);
  static constexpr std::size_t kMaxAnswerBytes = 16U << 10;
  using Later = std::function<void(HttpReply)>;

  /// `hook`: the url of the hook server; empty: none, and everyone gets a token, and nobody needs one.
  /// `token_idle`: TokenBook K2.
  Authenticator(Runtime& runtime, const std::string& hook, RelayLog& log, Duration token_idle = TokenBook::kIdleLimit);
  ~Authenticator();
  Authenticator(const Authenticator&) = delete;
  Authenticator& operator=(const Authenticator&) = delete;

  /// What calls are made with. Without one, each fails.
  void use_client(std::unique_ptr<HttpClient> client) { client_ = std::move(client); }
  bool has_hook() const { return book_.needed(); }
  /// Whether calls need TLS.
  bool hook_has_tls() const { return hook_.starts_with("https:"); }

  /// PUT /authenticate of a client at `ip`. nullopt: `later` is called with the answer.
  std::optional<HttpReply> authenticate(const HttpServerRequest& request, const net::IpAddress& ip, Later later);
  /// The answer to a request that may not go on; nullopt: it may.
  std::optional<HttpReply> refusal(const HttpServerRequest& request);
  /// PUT /relay/keepalive, or /relay/register.
  HttpReply list(const HttpServerRequest& request, const net::IpAddress& ip, TokenBook::As as);
  /// What a connection to the relay presents. `closed` must be called when it has ended.
  TokenBook::Opened open(const HttpServerRequest& request) { return book_.open(relay_token(request), runtime_.now()); }
  void closed(TokenBook::Number token) { book_.closed(token, runtime_.now()); }
  bool is_listed(const TokenBook::Key& key) const { return book_.is_listed(key, runtime_.now()); }
  bool is_registered(const TokenBook::Key& key) const { return book_.is_registered(key, runtime_.now()); }
  /// To be called now and then.
  void prune();

  const AuthCounters& counters() const { return counters_; }
  /// O(n); tests.
  void check_invariants() const;

 private:
  struct Question {
    std::string material;
    net::IpAddress ip;
    Later later;
  };

  void turn();
  void call(HookTurns::Question number);
  HttpReply judge(const Result<HttpResponse>& answer, const net::IpAddress& ip);
  void say(const net::IpAddress& ip, std::string_view kind, std::string_view what);
  void count();

  Runtime& runtime_;
  const std::string hook_;
  RelayLog& log_;
  TokenBook book_;
  HookTurns turns_;
  AuthCounters counters_;
  std::unique_ptr<HttpClient> client_;
  HookTurns::Question next_question_ = 1;
  boost::unordered_flat_map<HookTurns::Question, Question> questions_;
  Runtime::TimerId timer_ = 0;
  Lifetime lifetime_;
};

}  // namespace kitsune2::server
