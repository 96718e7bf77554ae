// A transport that reaches no peer.
#include <utility>

#include "kitsune2/builder.hpp"

namespace kitsune2 {
namespace {

class OfflineTransport final : public TransportBackend {
 public:
  explicit OfflineTransport(Runtime& runtime) : runtime_(runtime) {}
  void start(TransportEvents&) override {}
  std::optional<Url> url() const override { return std::nullopt; }
  void send(const Url&, ByteChain, Handler<> done) override {
    if (!done) return;
    runtime_.post([done = std::move(done)] { done(make_error(Errc::disconnected, "no relay is configured")); });
  }
  void disconnect(const Url&, const CloseReason&, Bytes) override {}
  TransportStats stats() const override {
    TransportStats out;
    out.backend = "offline";
    return out;
  }
  void stop(std::function<void()> done) override { runtime_.post(std::move(done)); }

 private:
  Runtime& runtime_;
};

}  // namespace

std::unique_ptr<TransportBackend> make_offline_transport(Runtime& runtime) {
  return std::make_unique<OfflineTransport>(runtime);
}

}  // namespace kitsune2
