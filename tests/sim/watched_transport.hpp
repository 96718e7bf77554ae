// A transport that observes the requests that pass, independently of the fetch module's own records.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "kitsune2/runtime.hpp"
#include "support/forwarding_transport.hpp"
#include "wire/fetch_messages.hpp"

namespace kitsune2::sim {

/// Fails the test if an op is requested again from a peer although the first request may still be answered: less than
/// `delay` old, not failed, its connection not lost, nothing received from the peer since, the peer not given up.
class WatchedTransport final : public ForwardingTransport, public std::enable_shared_from_this<WatchedTransport> {
 public:
  WatchedTransport(Runtime& runtime, std::shared_ptr<Transport> inner, Duration delay)
      : ForwardingTransport(std::move(inner)), runtime_(runtime), delay_(delay) {}

  Result<void> register_module_handler(const SpaceId& space, const std::string& module,
                                       std::shared_ptr<ModuleMessageHandler> handler) override {
    return ForwardingTransport::register_module_handler(space, module,
                                                        std::make_shared<Tap>(weak_from_this(), std::move(handler)));
  }
  void send_module(const Url& peer, const SpaceId& space, const std::string& module, ByteChain body,
                   Handler<> done) override {
    ASSERT_EQ(module, kFetchModule);
    const auto message = wire::decode_fetch(dialect(), body.joined());
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
    ForwardingTransport::send_module(peer, space, module, std::move(body), std::move(done));
  }
  /// All requests to `peer` were dropped.
  void forget(const Url& peer) { asked_.erase(peer); }

 private:
  struct Asked {
    std::uint64_t number = 0;
    Time at{};
  };
  class Tap final : public ForwardingModuleHandler {
   public:
    Tap(std::weak_ptr<WatchedTransport> owner, std::shared_ptr<ModuleMessageHandler> inner)
        : ForwardingModuleHandler(std::move(inner)), owner_(std::move(owner)) {}
    Result<void> recv_module_msg(const Url& peer, const SpaceId& space, Bytes data) override {
      forget(peer);
      return ForwardingModuleHandler::recv_module_msg(peer, space, std::move(data));
    }
    void peer_disconnect(const Url& peer, const std::optional<std::string>& reason) override {
      forget(peer);
      ForwardingModuleHandler::peer_disconnect(peer, reason);
    }

   private:
    void forget(const Url& peer) {
      if (const auto owner = owner_.lock()) owner->asked_.erase(peer);
    }
    const std::weak_ptr<WatchedTransport> owner_;
  };

  Runtime& runtime_;
  const Duration delay_;
  std::uint64_t requests_ = 0;
  std::map<Url, std::map<OpId, Asked>> asked_;
};

}  // namespace kitsune2::sim
