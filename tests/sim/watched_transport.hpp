// A transport that observes the requests that pass, independently of the fetch module's own records.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "kitsune2/runtime.hpp"
#include "kitsune2/transport.hpp"
#include "wire/fetch_messages.hpp"

namespace kitsune2::sim {

/// Fails the test if an op is requested again from a peer although the first request may still be answered: less than
/// `delay` old, not failed, its connection not lost, nothing received from the peer since, the peer not given up.
class WatchedTransport final : public Transport, public std::enable_shared_from_this<WatchedTransport> {
 public:
  WatchedTransport(Runtime& runtime, std::shared_ptr<Transport> inner, Duration delay)
      : runtime_(runtime), inner_(std::move(inner)), delay_(delay) {}

  Dialect dialect() const override { return inner_->dialect(); }
  std::optional<Url> url() const override { return inner_->url(); }
  Result<void> register_space_handler(const SpaceId& space, std::shared_ptr<SpaceMessageHandler> handler) override {
    return inner_->register_space_handler(space, std::move(handler));
  }
  Result<void> register_module_handler(const SpaceId& space, const std::string& module,
                                       std::shared_ptr<ModuleMessageHandler> handler) override {
    return inner_->register_module_handler(space, module, std::make_shared<Tap>(weak_from_this(), std::move(handler)));
  }
  void unregister_space(const SpaceId& space) override { inner_->unregister_space(space); }
  std::uint64_t max_message_bytes() const override { return inner_->max_message_bytes(); }
  void wasted(const Url& peer, std::uint64_t bytes) override { inner_->wasted(peer, bytes); }
  void on_server_answered() override { inner_->on_server_answered(); }
  void send_space_notify(const Url& peer, const SpaceId& space, Bytes data, Handler<> done) override {
    inner_->send_space_notify(peer, space, std::move(data), std::move(done));
  }
  void send_module(const Url& peer, const SpaceId& space, const std::string& module, ByteChain body,
                   Handler<> done) override {
    ASSERT_EQ(module, kFetchModule);
    const auto message = wire::decode_fetch(Dialect::v0_2, body.joined());
    ASSERT_TRUE(message.has_value());
    if (message->type == wire::FetchMessageType::request) {
      const auto number = ++requests_;
      for (const auto& id : message->op_ids.ids<OpId>()) {
        auto& asked = asked_[peer][id];
        EXPECT_TRUE(asked.number == 0 || runtime_.now() - asked.at >= delay_)
            << id.to_string() << " is asked of " << peer.to_string() << " twice at once";
        asked = {number, runtime_.now()};
      }
      done = [self = weak_from_this(), peer, number, done = std::move(done)](const Result<void>& result) {
        const auto me = self.lock();
        if (me && !result) std::erase_if(me->asked_[peer], [&](const auto& e) { return e.second.number == number; });
        done(result);
      };
    }
    inner_->send_module(peer, space, module, std::move(body), std::move(done));
  }
  void disconnect(const Url& peer, const CloseReason& reason) override { inner_->disconnect(peer, reason); }
  TransportStats stats() const override { return inner_->stats(); }
  void stop(std::function<void()> done) override { inner_->stop(std::move(done)); }
  /// All requests to `peer` were dropped.
  void forget(const Url& peer) { asked_.erase(peer); }

 private:
  struct Asked {
    std::uint64_t number = 0;
    Time at{};
  };
  class Tap final : public ModuleMessageHandler {
   public:
    Tap(std::weak_ptr<WatchedTransport> owner, std::shared_ptr<ModuleMessageHandler> inner)
        : owner_(std::move(owner)), inner_(std::move(inner)) {}
    Result<void> recv_module_msg(const Url& peer, const SpaceId& space, Bytes data) override {
      forget(peer);
      return inner_->recv_module_msg(peer, space, std::move(data));
    }
    void recv_progress(const Url& peer, std::size_t bytes) override { inner_->recv_progress(peer, bytes); }
    void peer_connect(const Url& peer) override { inner_->peer_connect(peer); }
    void peer_disconnect(const Url& peer, const std::optional<std::string>& reason) override {
      forget(peer);
      inner_->peer_disconnect(peer, reason);
    }

   private:
    void forget(const Url& peer) {
      if (const auto owner = owner_.lock()) owner->asked_.erase(peer);
    }
    const std::weak_ptr<WatchedTransport> owner_;
    const std::shared_ptr<ModuleMessageHandler> inner_;
  };

  Runtime& runtime_;
  const std::shared_ptr<Transport> inner_;
  const Duration delay_;
  std::uint64_t requests_ = 0;
  std::map<Url, std::map<OpId, Asked>> asked_;
};

}  // namespace kitsune2::sim
