// The common part of this library's builders.
#include "node/builder/base_builder.hpp"

#include <string>
#include <string_view>
#include <utility>

namespace kitsune2 {

Builder base_builder() {
  Builder b;
  b.report = [] { return make_core_report(); };
  b.block_list = [](Runtime& runtime) { return make_memory_block_list(runtime); };
  b.local_agent_store = [](const ModuleContext&) { return make_memory_local_agent_store(); };
  b.fetch = [](const ModuleContext& c) {
    return make_core_fetch(*c.runtime, c.config->current().core_fetch, c.space, c.op_store, c.transport, c.budget);
  };
  b.publish = [](const ModuleContext& c) {
    return make_core_publish(*c.runtime, c.config->current().core_publish, c.space, c.fetch, c.peer_store, c.transport,
                             *c.verifier, c.budget);
  };
  return b;
}

void use_memory_stores(Builder& b, std::shared_ptr<const OpPolicy> policy) {
  if (!policy) policy = make_sha256_policy();
  b.peer_store = [](const ModuleContext& c) { return make_memory_peer_store(*c.runtime, c.space); };
  b.peer_meta_store = [](const ModuleContext& c) { return make_memory_peer_meta_store(*c.runtime); };
  b.op_store = [policy = std::move(policy)](const ModuleContext& c) {
    return make_memory_op_store(*c.runtime, policy, largest_op_bytes(c.transport->max_message_bytes()));
  };
}

const char* empty_slot(const Builder& builder) {
  // Names every member, so that a new one does not compile until it is added here and below.
  const auto& [config, verifier, transport, report, block_list, address_group, peer_store, bootstrap, local_agent_store,
               op_store, fetch, publish, peer_meta_store, gossip, checks] = builder;
  const std::pair<const char*, bool> slots[] = {
      {"verifier", verifier != nullptr},
      {"transport", !!transport},
      {"report", !!report},
      {"block_list", !!block_list},
      {"peer_store", !!peer_store},
      {"bootstrap", !!bootstrap},
      {"op_store", !!op_store},
      {"local_agent_store", !!local_agent_store},
      {"fetch", !!fetch},
      {"publish", !!publish},
      {"gossip", !!gossip},
      {"peer_meta_store", !!peer_meta_store},
  };
  for (const auto& [name, filled] : slots) {
    if (!filled) return name;
  }
  return nullptr;
}

Builder complete(Builder builder) {
  K2_ASSERT(empty_slot(builder) == nullptr);
  return builder;
}

Result<void> Builder::validate() const {
  if (const char* slot = empty_slot(*this)) {
    return make_error(Errc::invalid_argument, slot == std::string_view("verifier")
                                                  ? "the builder has no verifier"
                                                  : "the builder has no factory for " + std::string(slot));
  }
  if (auto valid = config.validate(); !valid) return valid;
  for (const auto& check : checks) {
    if (auto valid = check(config); !valid) return valid;
  }
  return {};
}

}  // namespace kitsune2
