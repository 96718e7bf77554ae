// A transport that passes every call on to another one, as a base class.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "kitsune2/transport.hpp"

namespace kitsune2 {

class ForwardingTransport : public Transport {
 public:
  explicit ForwardingTransport(std::shared_ptr<Transport> inner) : inner_(std::move(inner)) {}

  Dialect dialect() const override { return inner_->dialect(); }
  std::optional<Url> url() const override { return inner_->url(); }
  std::optional<TransportFailure> failure() const override { return inner_->failure(); }
  Result<void> register_space_handler(const SpaceId& space, std::shared_ptr<SpaceMessageHandler> handler) override {
    return inner_->register_space_handler(space, std::move(handler));
  }
  Result<void> register_module_handler(const SpaceId& space, const std::string& module,
                                       std::shared_ptr<ModuleMessageHandler> handler) override {
    return inner_->register_module_handler(space, module, std::move(handler));
  }
  void unregister_space(const SpaceId& space) override { inner_->unregister_space(space); }
  void send_space_notify(const Url& peer, const SpaceId& space, Bytes data, Handler<> done) override {
    inner_->send_space_notify(peer, space, std::move(data), std::move(done));
  }
  void send_module(const Url& peer, const SpaceId& space, const std::string& module, ByteChain body,
                   Handler<> done) override {
    inner_->send_module(peer, space, module, std::move(body), std::move(done));
  }
  void disconnect(const Url& peer, const CloseReason& reason) override { inner_->disconnect(peer, reason); }
  std::uint64_t max_message_bytes() const override { return inner_->max_message_bytes(); }
  std::optional<Duration> round_trip(const Url& peer) const override { return inner_->round_trip(peer); }
  void wasted(const Url& peer, std::uint64_t bytes) override { inner_->wasted(peer, bytes); }
  std::uint64_t sent_mark(const Url& peer) const override { return inner_->sent_mark(peer); }
  void was_read(const Url& peer, std::uint64_t mark) override { inner_->was_read(peer, mark); }
  void on_server_answered() override { inner_->on_server_answered(); }
  void on_peer_known(const SpaceId& space, const Url& peer) override { inner_->on_peer_known(space, peer); }
  bool is_known_to(const SpaceId& space, const Url& peer) const override { return inner_->is_known_to(space, peer); }
  TransportStats stats() const override { return inner_->stats(); }
  void stop(std::function<void()> done) override { inner_->stop(std::move(done)); }

 protected:
  Transport& inner() { return *inner_; }

 private:
  const std::shared_ptr<Transport> inner_;
};

/// The same for a handler of a module.
class ForwardingModuleHandler : public ModuleMessageHandler {
 public:
  explicit ForwardingModuleHandler(std::shared_ptr<ModuleMessageHandler> inner) : inner_(std::move(inner)) {}

  void new_listening_address(const Url& own_url) override { inner_->new_listening_address(own_url); }
  Result<void> recv_module_msg(const Url& peer, const SpaceId& space, Bytes data) override {
    return inner_->recv_module_msg(peer, space, std::move(data));
  }
  void recv_progress(const Url& peer, std::size_t bytes) override { inner_->recv_progress(peer, bytes); }
  void peer_knows_us(const Url& peer) override { inner_->peer_knows_us(peer); }
  void peer_connect(const Url& peer) override { inner_->peer_connect(peer); }
  void peer_disconnect(const Url& peer, const std::optional<std::string>& reason) override {
    inner_->peer_disconnect(peer, reason);
  }

 private:
  const std::shared_ptr<ModuleMessageHandler> inner_;
};

}  // namespace kitsune2
