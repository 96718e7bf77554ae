// A fetch module whose calls and events are recorded in a Ledger, whoever in the node makes them.
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
  /// `ledger` must outlive all calls.
  BookedFetch(std::shared_ptr<Fetch> inner, std::shared_ptr<WatchedTransport> transport, Ledger& ledger)
      : inner_(std::move(inner)), transport_(std::move(transport)), ledger_(ledger) {
    FetchEvents events;
    events.ops_stored = [&ledger = ledger_](const Url&, const std::vector<StoredOp>& ops, std::uint64_t) {
      ledger.stored(ops);
    };
    events.peer_given_up = [&ledger = ledger_, transport = transport_](const Url& peer, const std::vector<OpId>&) {
      ledger.gave_up(peer);
      transport->forget(peer);
    };
    events.ops_unserved = [&ledger = ledger_](const Url& peer, const std::vector<OpId>& ops, const std::vector<OpId>&) {
      ledger.unserved(peer, ops);
    };
    booking_ = inner_->subscribe(std::move(events));
  }

  void request_ops(std::vector<OpId> op_ids, const Url& source, Handler<> done) override {
    auto booked = book(op_ids, source, std::move(done));
    inner_->request_ops(std::move(op_ids), source, std::move(booked));
  }
  void request_offered_ops(std::vector<OpId> op_ids, const Url& peer, Handler<> done) override {
    auto booked = book(op_ids, peer, std::move(done));
    inner_->request_offered_ops(std::move(op_ids), peer, std::move(booked));
  }
  void set_offer_filter(std::function<bool(const Url&)> wanted) override {
    inner_->set_offer_filter(std::move(wanted));
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
  std::shared_ptr<void> subscribe(FetchEvents events) override { return inner_->subscribe(std::move(events)); }
  FetchStateSummary state_summary() const override { return inner_->state_summary(); }
  FetchStats stats() const override { return inner_->stats(); }
  std::uint64_t pending_ops() const override { return inner_->pending_ops(); }
  FetchLoad load(const Url& source) const override { return inner_->load(source); }
  void notify_on_drained(std::function<void()> callback) override { inner_->notify_on_drained(std::move(callback)); }
  void stop(std::function<void()> done) override { inner_->stop(std::move(done)); }

 private:
  /// Records what has become pending when the call succeeds.
  Handler<> book(const std::vector<OpId>& ids, const Url& source, Handler<> done) {
    return [inner = std::weak_ptr(inner_), &ledger = ledger_, ids, source,
            done = std::move(done)](const Result<void>& result) {
      if (const auto fetch = inner.lock(); fetch && result) ledger.asked(fetch->state_summary(), ids, source);
      if (done) done(result);
    };
  }

  const std::shared_ptr<Fetch> inner_;
  const std::shared_ptr<WatchedTransport> transport_;
  Ledger& ledger_;
  std::shared_ptr<void> booking_;
};

}  // namespace kitsune2::sim
