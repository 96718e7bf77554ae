// The fetch module as publish and gossip see it: what peers offer is fetched only if the application wants it.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "kitsune2/space.hpp"

namespace kitsune2 {

/// Forwards all calls, but `request_ops` only where `SpaceHandler::accept_offered_ops` agrees. Else it completes with
/// success and nothing is added. *Rationale*: to the module that asks, an offer that nobody wants is dealt with; it
/// should not offer it again.
class OfferedFetch final : public Fetch {
 public:
  OfferedFetch(Runtime& runtime, SpaceId space, std::shared_ptr<Fetch> inner, std::shared_ptr<SpaceHandler> handler)
      : runtime_(runtime), space_(std::move(space)), inner_(std::move(inner)), handler_(std::move(handler)) {}

  void request_ops(std::vector<OpId> op_ids, const Url& source, Handler<> done) override {
    if (!handler_ || handler_->accept_offered_ops(source, space_)) {
      return inner_->request_ops(std::move(op_ids), source, std::move(done));
    }
    runtime_.post([done = std::move(done)] { done(Result<void>()); });
  }
  void remove_source(const Url& source) override { inner_->remove_source(source); }
  void replace_source(const Url& old_url, const Url& new_url) override { inner_->replace_source(old_url, new_url); }
  FetchStateSummary state_summary() const override { return inner_->state_summary(); }
  FetchStats stats() const override { return inner_->stats(); }
  std::uint64_t pending_ops() const override { return inner_->pending_ops(); }
  void notify_on_drained(std::function<void()> callback) override { inner_->notify_on_drained(std::move(callback)); }
  void set_events(FetchEvents events) override { inner_->set_events(std::move(events)); }
  void stop(std::function<void()> done) override { inner_->stop(std::move(done)); }

 private:
  Runtime& runtime_;
  const SpaceId space_;
  const std::shared_ptr<Fetch> inner_;
  const std::shared_ptr<SpaceHandler> handler_;
};

}  // namespace kitsune2
