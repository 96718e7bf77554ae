// A fetch module whose books are kept: what it says goes to a Ledger, whoever in the node calls it.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "kitsune2/fetch.hpp"
#include "sim/course.hpp"
#include "sim/watched_transport.hpp"

namespace kitsune2::sim {

class BookedFetch final : public Fetch {
 public:
  /// `ledger` outlives all calls.
  BookedFetch(std::shared_ptr<Fetch> inner, std::shared_ptr<WatchedTransport> transport, Ledger& ledger)
      : inner_(std::move(inner)), transport_(std::move(transport)), ledger_(ledger) {
    set_events({});
  }

  void request_ops(std::vector<OpId> op_ids, const Url& source, Handler<> done) override {
    auto ids = op_ids;
    inner_->request_ops(std::move(op_ids), source,
                        [inner = std::weak_ptr(inner_), &ledger = ledger_, ids = std::move(ids), source,
                         done = std::move(done)](const Result<void>& result) {
                          if (const auto fetch = inner.lock(); fetch && result) {
                            ledger.asked(fetch->state_summary(), ids, source);
                          }
                          if (done) done(result);
                        });
  }
  void remove_source(const Url& source) override {
    ledger_.gave_up(source);
    transport_->forget(source);
    inner_->remove_source(source);
  }
  void replace_source(const Url& old_url, const Url& new_url) override {
    ledger_.moved(old_url, new_url);
    inner_->replace_source(old_url, new_url);
  }
  void set_events(FetchEvents events) override {
    auto stored = std::move(events.ops_stored);
    events.ops_stored = [&ledger = ledger_, next = std::move(stored)](const Url& peer, const std::vector<StoredOp>& ops,
                                                                      std::uint64_t bytes) {
      ledger.stored(ops);
      if (next) next(peer, ops, bytes);
    };
    auto given_up = std::move(events.peer_given_up);
    events.peer_given_up = [&ledger = ledger_, transport = transport_, next = std::move(given_up)](
                               const Url& peer, const std::vector<OpId>& orphaned) {
      ledger.gave_up(peer);
      transport->forget(peer);
      if (next) next(peer, orphaned);
    };
    inner_->set_events(std::move(events));
  }
  FetchStateSummary state_summary() const override { return inner_->state_summary(); }
  FetchStats stats() const override { return inner_->stats(); }
  std::uint64_t pending_ops() const override { return inner_->pending_ops(); }
  FetchLoad load(const Url& source) const override { return inner_->load(source); }
  void notify_on_drained(std::function<void()> callback) override { inner_->notify_on_drained(std::move(callback)); }
  void stop(std::function<void()> done) override { inner_->stop(std::move(done)); }

 private:
  const std::shared_ptr<Fetch> inner_;
  const std::shared_ptr<WatchedTransport> transport_;
  Ledger& ledger_;
};

}  // namespace kitsune2::sim
