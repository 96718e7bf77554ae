// The fetch module as publish and gossip see it: what peers offer is fetched only if the application wants it, and only
// as much as there is room for.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "core/callback.hpp"
#include "kitsune2/space.hpp"

namespace kitsune2 {

/// Forwards all calls, but `request_ops` only where `SpaceHandler::accept_offered_ops` agrees. Else it completes with
/// success and nothing is added. *Rationale*: to the module that asks, an offer that nobody wants is dealt with; it
/// should not offer it again. Errc::overloaded: more than CoreFetchConfig::max_offered_bytes would be pending, or more
/// of this peer than its share of that.
class OfferedFetch final : public Fetch {
 public:
  OfferedFetch(Runtime& runtime, SpaceId space, std::shared_ptr<Fetch> inner, std::shared_ptr<SpaceHandler> handler,
               std::uint64_t max_bytes)
      : runtime_(runtime),
        space_(std::move(space)),
        inner_(std::move(inner)),
        handler_(std::move(handler)),
        max_bytes_(max_bytes) {}

  void request_ops(std::vector<OpId> op_ids, const Url& source, Handler<> done) override {
    Result<void> outcome;
    if (!handler_ || call_application("SpaceHandler::accept_offered_ops",
                                      [&] { return handler_->accept_offered_ops(source, space_); })) {
      if (has_room(op_ids, source)) return inner_->request_ops(std::move(op_ids), source, std::move(done));
      outcome = make_error(Errc::overloaded, "too many offered ops are pending");
    }
    runtime_.post([done = std::move(done), outcome = std::move(outcome)] { done(outcome); });
  }
  void remove_source(const Url& source) override { inner_->remove_source(source); }
  void replace_source(const Url& old_url, const Url& new_url) override { inner_->replace_source(old_url, new_url); }
  FetchStateSummary state_summary() const override { return inner_->state_summary(); }
  FetchStats stats() const override { return inner_->stats(); }
  std::uint64_t pending_ops() const override { return inner_->pending_ops(); }
  FetchLoad load(const Url& source) const override { return inner_->load(source); }
  void notify_on_drained(std::function<void()> callback) override { inner_->notify_on_drained(std::move(callback)); }
  void set_events(FetchEvents events) override { inner_->set_events(std::move(events)); }
  void stop(std::function<void()> done) override { inner_->stop(std::move(done)); }

 private:
  bool has_room(const std::vector<OpId>& op_ids, const Url& source) const {
    const FetchLoad load = inner_->load(source);
    std::uint64_t offered = op_ids.size() * FetchLoad::kPairBytes;
    for (const OpId& id : op_ids) offered += id.size() - std::min<std::size_t>(id.size(), 32);
    if (load.bytes + offered > max_bytes_) return false;
    const std::uint64_t own = load.source_pairs * FetchLoad::kPairBytes;
    const std::uint64_t others = load.bytes - std::min(own, load.bytes);
    return own + offered <= (max_bytes_ - std::min(others, max_bytes_)) / 4;
  }

  Runtime& runtime_;
  const SpaceId space_;
  const std::shared_ptr<Fetch> inner_;
  const std::shared_ptr<SpaceHandler> handler_;
  const std::uint64_t max_bytes_;
};

}  // namespace kitsune2
