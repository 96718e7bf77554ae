// The builder for tests, and a transport that reaches nobody.
#include <utility>

#include "kitsune2/builder.hpp"
#include "kitsune2/transport_memory.hpp"

namespace kitsune2 {

Builder default_test_builder(std::shared_ptr<MemoryNetwork> network, const std::string& name,
                             std::shared_ptr<const OpPolicy> policy) {
  if (!policy) policy = make_sha256_policy();
  Builder b;
  b.transport = [network = std::move(network), name](Runtime& runtime, const Config&) {
    return Result<std::unique_ptr<TransportBackend>>(network->make_backend(runtime, name));
  };
  b.report = [] { return make_core_report(); };
  b.block_list = [](Runtime& runtime) { return make_memory_block_list(runtime); };
  b.peer_store = [](const ModuleContext& c) { return make_memory_peer_store(*c.runtime, c.space); };
  b.bootstrap = [](const ModuleContext& c) { return make_mem_bootstrap(c); };
  b.local_agent_store = [](const ModuleContext&) { return make_memory_local_agent_store(); };
  b.op_store = [policy = std::move(policy)](const ModuleContext& c) {
    return make_memory_op_store(*c.runtime, policy);
  };
  b.fetch = [](const ModuleContext& c) {
    return make_core_fetch(*c.runtime, c.config->current().core_fetch, c.space, c.op_store, c.transport);
  };
  b.publish = [](const ModuleContext& c) {
    return make_core_publish(*c.runtime, c.config->current().core_publish, c.space, c.fetch, c.peer_store, c.transport,
                             *c.verifier);
  };
  b.peer_meta_store = [](const ModuleContext& c) { return make_memory_peer_meta_store(*c.runtime); };
  b.gossip = [](const ModuleContext&) { return make_noop_gossip(); };
  return b;
}

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
  void disconnect(const Url&, const std::optional<std::string>&, Bytes) override {}
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
