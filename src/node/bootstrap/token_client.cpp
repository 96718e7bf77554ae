// Tokens of a bootstrap server: asking for one, sending it along, renewing it.
#include "node/bootstrap/token_client.hpp"

#include <sodium.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace kitsune2 {
namespace {

constexpr std::size_t kMaxMaterial = 65'536;
constexpr std::size_t kMaxToken = 4096;

/// Whether it can stand in a header.
bool is_token(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < '\x7f'; });
}

class Client final : public TokenClient, public std::enable_shared_from_this<Client> {
 public:
  Client(Runtime& runtime, std::shared_ptr<HttpClient> http, std::string server, std::string material)
      : runtime_(runtime), http_(std::move(http)), server_(std::move(server)), material_(std::move(material)) {}
  ~Client() override {
    for (Waiting& one : waiting_) fail(std::move(one), make_error(Errc::cancelled, "the client was destroyed"));
  }

  void request(HttpRequest request, Handler<HttpResponse> done) override {
    send({std::move(request), std::move(done), false});
  }
  const std::string& token() const override { return token_; }
  void forget_token() override { token_.clear(); }

 private:
  struct Waiting {
    HttpRequest request;
    Handler<HttpResponse> done;
    bool repeated = false;
  };

  void fail(Waiting one, const Error& why) {
    runtime_.post([done = std::move(one.done), why] { done(why); });
  }

  void send(Waiting one) {
    if (token_.empty()) {
      waiting_.push_back(std::move(one));
      if (waiting_.size() == 1) authenticate(waiting_.front().request.timeout);
      return;
    }
    HttpRequest request = one.request;
    request.headers.emplace_back("Authorization", "Bearer " + token_);
    http_->request(std::move(request), [weak = weak_from_this(), one = std::move(one),
                                        token = token_](Result<HttpResponse> answer) mutable {
      const auto self = weak.lock();
      if (!self || one.repeated || !answer || answer->status != kUnauthorized) return one.done(std::move(answer));
      one.repeated = true;
      // Another request may have got a new one meanwhile.
      if (self->token_ == token) self->token_.clear();
      self->send(std::move(one));
    });
  }

  void authenticate(Duration timeout) {
    HttpRequest request;
    request.method = HttpMethod::kPut;
    request.url = server_ + "/authenticate";
    request.body = material_;
    request.headers = {{"Content-Type", "application/octet-stream"}};
    request.timeout = timeout;
    http_->request(std::move(request), [weak = weak_from_this()](const Result<HttpResponse>& answer) {
      if (const auto self = weak.lock()) self->authenticated(answer);
    });
  }

  void authenticated(const Result<HttpResponse>& answer) {
    Result<std::string> token = answer ? token_of(*answer) : Result<std::string>(answer.error());
    std::vector<Waiting> waiting = std::exchange(waiting_, {});
    if (!token) {
      for (Waiting& one : waiting) fail(std::move(one), token.error());
      return;
    }
    token_ = std::move(*token);
    for (Waiting& one : waiting) send(std::move(one));
  }

  Result<std::string> token_of(const HttpResponse& answer) const {
    const std::string what = server_ + "/authenticate: ";
    if (answer.status == kUnauthorized)
      return make_error(Errc::blocked, what + "the server refuses the authentication material");
    if (answer.status == 202) return make_error(Errc::peer_unresponsive, what + "the decision is pending");
    if (answer.status != 200)
      return make_error(Errc::peer_unresponsive, what + "status " + std::to_string(answer.status));
    // The answer may have the token in a place where it is not looked for, and errors reach logs: it is not quoted.
    const auto bad = [&](const std::string& why) { return make_error(Errc::malformed, what + why); };
    const auto json = nlohmann::json::parse(answer.body, nullptr, false);
    if (!json.is_object()) return bad("the answer is not a JSON object");
    const auto found = json.find("authToken");
    if (found == json.end()) return bad("the answer has no authToken");
    if (!found->is_string()) return bad("authToken is not a string");
    const auto& token = found->get_ref<const std::string&>();
    if (token.empty()) return bad("authToken is empty");
    if (token.size() > kMaxToken) return bad("authToken is longer than " + std::to_string(kMaxToken) + " bytes");
    if (!is_token(token)) return bad("authToken has characters that cannot stand in a header");
    return token;
  }

  Runtime& runtime_;
  const std::shared_ptr<HttpClient> http_;
  const std::string server_;
  const std::string material_;
  std::string token_;             ///< empty: none
  std::vector<Waiting> waiting_;  ///< for a token, which is asked for
};

}  // namespace

std::optional<std::string> auth_material(std::string_view base64) {
  if (base64.empty() || base64.size() > kMaxMaterial * 4 / 3 + 4) return std::nullopt;
  std::string out(base64.size(), '\0');
  std::size_t size = 0;
  if (sodium_base642bin(reinterpret_cast<unsigned char*>(out.data()), out.size(), base64.data(), base64.size(), nullptr,
                        &size, nullptr, sodium_base64_VARIANT_ORIGINAL) != 0) {
    return std::nullopt;
  }
  if (size == 0 || size > kMaxMaterial) return std::nullopt;
  out.resize(size);
  return out;
}

std::shared_ptr<TokenClient> make_token_client(Runtime& runtime, std::shared_ptr<HttpClient> http, std::string server,
                                               std::string material) {
  return std::make_shared<Client>(runtime, std::move(http), std::move(server), std::move(material));
}

}  // namespace kitsune2
