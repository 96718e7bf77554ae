// Tells a relay's server the endpoint's key, now and then, and gives the transport its token.
#include "node/bootstrap/relay_access.hpp"

#include <array>
#include <utility>

#include "log/log.hpp"
#include "node/bootstrap/token_client.hpp"

namespace kitsune2 {
namespace {

class Keeper final : public std::enable_shared_from_this<Keeper> {
 public:
  Keeper(Runtime& runtime, std::shared_ptr<HttpClient> http, RelayAccessOptions options)
      : runtime_(runtime),
        options_(std::move(options)),
        keepalive_(options_.has_keepalive),
        client_(make_token_client(runtime, std::move(http), options_.server, options_.material)) {}
  ~Keeper() { runtime_.cancel(timer_); }

  void ask(const std::array<std::uint8_t, 32>& endpoint, bool refused, Handler<std::string> done) {
    key_.assign(endpoint.begin(), endpoint.end());
    if (refused) client_->forget_token();
    tell([this, done = std::move(done)](const Result<void>& told) {
      if (!told) return done(told.error());
      done(client_->token());
    });
    if (timer_ == 0) tell_later();
  }

 private:
  void tell(std::function<void(const Result<void>&)> done, bool other_path_tried = false) {
    HttpRequest request;
    request.method = HttpMethod::kPut;
    request.url = options_.server + (keepalive_ ? "/relay/keepalive" : "/relay/register");
    request.body = key_;
    request.headers = {{"Content-Type", "application/octet-stream"}};
    client_->request(std::move(request), [weak = weak_from_this(), used = keepalive_, other_path_tried,
                                          done = std::move(done)](const Result<HttpResponse>& r) mutable {
      const auto self = weak.lock();
      if (!self) return;
      if (!r) return done(r.error());
      if (r->status == 200) return done({});
      if (r->status == 404 && !self->options_.has_keepalive && !other_path_tried) {
        self->keepalive_ = !used;
        return self->tell(std::move(done), true);
      }
      const std::string what = self->options_.server + ": the relay's server does not take the endpoint's key: status ";
      done(make_error(r->status == 401 ? Errc::blocked : Errc::peer_unresponsive, what + std::to_string(r->status)));
    });
  }

  void tell_later() {
    timer_ = runtime_.schedule_after(options_.interval, [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      self->tell([self](const Result<void>& told) {
        if (told || !self->log_.open(self->runtime_.now())) return;
        log::warn("iroh", "the right to use the relay is not renewed: " + told.error().message + self->log_.left_out());
      });
      self->tell_later();
    });
  }

  Runtime& runtime_;
  const RelayAccessOptions options_;
  bool keepalive_;  // A1: the path that is used
  const std::shared_ptr<TokenClient> client_;
  std::string key_;
  Runtime::TimerId timer_ = 0;
  log::Gate log_{std::chrono::minutes(1)};
};

}  // namespace

RelayAccess make_relay_access(Runtime& runtime, std::shared_ptr<HttpClient> http, RelayAccessOptions options) {
  auto keeper = std::make_shared<Keeper>(runtime, std::move(http), std::move(options));
  return [keeper = std::move(keeper)](const std::array<std::uint8_t, 32>& endpoint, bool refused,
                                      Handler<std::string> done) { keeper->ask(endpoint, refused, std::move(done)); };
}

}  // namespace kitsune2
