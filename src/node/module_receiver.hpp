// The object by which the transport refers to a module.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "kitsune2/transport.hpp"

namespace kitsune2 {

/// Passes the transport's events to a module while the module lives. Separate from the module, so that the transport
/// does not keep it alive. `Module` has `on_message(peer, data)`, and those it needs of `on_online()`,
/// `on_progress(peer, bytes)`, `on_knows_us(peer)`, `on_connect(peer)` and `on_disconnect(peer)`; all are public.
template <class Module>
class ModuleReceiver final : public ModuleMessageHandler {
 public:
  explicit ModuleReceiver(std::weak_ptr<Module> module) : module_(std::move(module)) {}

  Result<void> recv_module_msg(const Url& peer, const SpaceId& /*space*/, Bytes data) override {
    const auto module = module_.lock();
    return module ? module->on_message(peer, std::move(data)) : Result<void>();
  }
  void new_listening_address(const Url& /*own_url*/) override {
    if constexpr (requires(Module & m) { m.on_online(); }) {
      if (const auto module = module_.lock()) module->on_online();
    }
  }
  void recv_progress(const Url& peer, std::size_t bytes) override {
    if constexpr (requires(Module & m) { m.on_progress(peer, bytes); }) {
      if (const auto module = module_.lock()) module->on_progress(peer, bytes);
    }
  }
  void peer_knows_us(const Url& peer) override {
    if constexpr (requires(Module & m) { m.on_knows_us(peer); }) {
      if (const auto module = module_.lock()) module->on_knows_us(peer);
    }
  }
  void peer_connect(const Url& peer) override {
    if constexpr (requires(Module & m) { m.on_connect(peer); }) {
      if (const auto module = module_.lock()) module->on_connect(peer);
    }
  }
  void peer_disconnect(const Url& peer, const std::optional<std::string>& /*reason*/) override {
    if constexpr (requires(Module & m) { m.on_disconnect(peer); }) {
      if (const auto module = module_.lock()) module->on_disconnect(peer);
    }
  }

 private:
  const std::weak_ptr<Module> module_;
};

}  // namespace kitsune2
