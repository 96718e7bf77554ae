// The fetch module as the space hands it out: the application's events and the node's own both are heard.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "kitsune2/fetch.hpp"

namespace kitsune2 {

/// Forwards all calls. *Rationale*: `Fetch::set_events` has one listener, and the space needs to listen too.
class ReportingFetch final : public Fetch {
 public:
  /// `own` is called before the application's events; all of its members are set.
  ReportingFetch(std::shared_ptr<Fetch> inner, FetchEvents own)
      : inner_(std::move(inner)), own_(std::move(own)), application_(std::make_shared<FetchEvents>()) {
    FetchEvents both;
    // The events keep what they call: this object may be gone before the inner one's last call.
    both.ops_stored = [own = own_.ops_stored, app = application_](const Url& peer, const std::vector<StoredOp>& ops,
                                                                  std::uint64_t bytes) {
      own(peer, ops, bytes);
      call(app->ops_stored, peer, ops, bytes);
    };
    both.ops_missing = [own = own_.ops_missing, app = application_](const Url& peer, const std::vector<OpId>& ops) {
      own(peer, ops);
      call(app->ops_missing, peer, ops);
    };
    both.peer_given_up = [own = own_.peer_given_up, app = application_](const Url& peer,
                                                                        const std::vector<OpId>& orphaned) {
      own(peer, orphaned);
      call(app->peer_given_up, peer, orphaned);
    };
    both.ops_served = [own = own_.ops_served, app = application_](const Url& peer, std::uint64_t ops,
                                                                  std::uint64_t bytes) {
      own(peer, ops, bytes);
      call(app->ops_served, peer, ops, bytes);
    };
    both.store_failed = [own = own_.store_failed, app = application_](const Error& error) {
      own(error);
      call(app->store_failed, error);
    };
    inner_->set_events(std::move(both));
  }

  void request_ops(std::vector<OpId> op_ids, const Url& source, Handler<> done) override {
    inner_->request_ops(std::move(op_ids), source, std::move(done));
  }
  void remove_source(const Url& source) override { inner_->remove_source(source); }
  void replace_source(const Url& old_url, const Url& new_url) override { inner_->replace_source(old_url, new_url); }
  FetchStateSummary state_summary() const override { return inner_->state_summary(); }
  FetchStats stats() const override { return inner_->stats(); }
  std::uint64_t pending_ops() const override { return inner_->pending_ops(); }
  FetchLoad load(const Url& source) const override { return inner_->load(source); }
  void notify_on_drained(std::function<void()> callback) override { inner_->notify_on_drained(std::move(callback)); }
  void set_events(FetchEvents events) override { *application_ = std::move(events); }
  void stop(std::function<void()> done) override { inner_->stop(std::move(done)); }

 private:
  /// By value: the callback may replace the events.
  template <class F, class... Args>
  static void call(F f, const Args&... args) {
    if (f) f(args...);
  }

  std::shared_ptr<Fetch> inner_;
  FetchEvents own_;
  std::shared_ptr<FetchEvents> application_;
};

}  // namespace kitsune2
