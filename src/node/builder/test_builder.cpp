// The builder for tests.
#include <utility>

#include "kitsune2/transport_memory.hpp"
#include "node/builder/base_builder.hpp"

namespace kitsune2 {

Builder default_test_builder(std::shared_ptr<MemoryNetwork> network, const std::string& name,
                             std::shared_ptr<const OpPolicy> policy) {
  Builder b = base_builder();
  use_memory_stores(b, std::move(policy));
  b.transport = [network, name](Runtime& runtime, const Config&) {
    return Result<std::unique_ptr<TransportBackend>>(network->make_backend(runtime, name));
  };
  b.bootstrap = [network](const ModuleContext& c) { return make_mem_bootstrap_over(c, network); };
  b.gossip = [](const ModuleContext&) { return make_noop_gossip(); };
  return complete(std::move(b));
}

}  // namespace kitsune2
