// The driver of the fetch core: transport and store on one side, the pure state machine on the other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_set>
#include <vector>

#include "core/fetch_core.hpp"
#include "kitsune2/fetch.hpp"
#include "node/core_fetch_server.hpp"
#include "node/core_fetch_writer.hpp"
#include "node/log.hpp"

namespace kitsune2 {

/// Does what `Fetch` promises: FetchCore decides, this object carries out.
///
/// Requests: what the core hands out is encoded in one pass and sent; the outcome goes back to the core. A send that
/// failed for reasons of this side (no relay, a full queue) is not the peer's fault: it is tried again after the
/// re-insert delay, without back-off. While the store is behind, nothing more is asked for.
/// Responses: each op is named once by the host's policy; the core says which of them are wanted; these go to the
/// writer, and only when they are durable does the core forget them.
/// Time: one timer, for the earliest deadline of the core and of the sends to be tried again.
/// Callbacks (`FetchEvents`, drained) are made last, when this object's state is whole: they may call it.
class CoreFetch final : public Fetch, public std::enable_shared_from_this<CoreFetch> {
 public:
  CoreFetch(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space, std::shared_ptr<OpStore> op_store,
            std::shared_ptr<Transport> transport);
  ~CoreFetch() override;

  /// Registers with the transport and loads what is pending.
  Result<void> start();

  void request_ops(std::vector<OpId> op_ids, const Url& source, Handler<> done) override;
  void remove_source(const Url& source) override;
  void replace_source(const Url& old_url, const Url& new_url) override;
  FetchStateSummary state_summary() const override;
  FetchStats stats() const override { return stats_; }
  std::uint64_t pending_ops() const override { return core_.pending_ops(); }
  FetchLoad load(const Url& source) const override;
  void notify_on_drained(std::function<void()> callback) override;
  void set_events(FetchEvents events) override;
  void stop(std::function<void()> done) override;

  /// Asserts what must hold between calls; for simulations.
  void check_invariants() const;

 private:
  class Receiver;
  /// A request that could not leave for reasons of this side.
  struct Unsent {
    std::uint64_t request = 0;
    Url source;
    std::vector<OpId> op_ids;
  };

  Result<void> received(const Url& peer, Bytes data);
  void response(const Url& peer, const wire::OpList& ops);
  void judged(const Url& peer, const FetchAnswer& answer);
  void progress(const Url& peer, std::size_t bytes);
  void disconnected(const Url& peer);
  /// This node can be reached again: what did not leave meanwhile leaves.
  void online();

  void resume();
  void filtered(std::vector<OpId> op_ids, const Url& source, Handler<> done);
  void persist(std::vector<OpId> op_ids, const Url& source, Handler<> done);
  void pump();
  /// After everything that is on its way in this turn. *Rationale*: told of the same ops by many sources at once, the
  /// first one would get all the requests.
  void pump_soon();
  void send(FetchRequest request);
  void sent(Unsent request, const Result<void>& result);
  void send_again();
  void arm();
  void wake();
  void written(std::vector<FetchedRun> runs, const Result<ProcessedOps>& result);
  void forget_pending(const Url& source);
  void given_up(const FetchGivenUp& gone, std::string_view why);
  void persist_replaced(std::vector<OpId> op_ids, const Url& old_url, const Url& new_url);
  Url current(const Url& source) const;
  void lookup_ended();
  void check_drained();
  void post_drained_check();
  /// Whether every pending pair is in the store too (or need not be).
  bool all_durable() const { return !keep_pending_ || (persisting_ == 0 && !persist_failed_); }
  bool drained() const { return core_.pending_ops() == 0 && adding_ == 0 && !resuming_; }
  void tell_missing(std::vector<FetchMissing> missing);
  void check_stopped();
  void store_call_done() {
    --store_calls_;
    check_stopped();
  }

  Runtime& runtime_;
  const CoreFetchConfig config_;
  const SpaceId space_;
  const std::shared_ptr<OpStore> store_;
  const std::shared_ptr<Transport> transport_;
  const bool keep_pending_;  ///< in the store too: asked for by the config, and the store outlives the process
  FetchStats stats_;
  std::shared_ptr<const FetchEvents> events_;
  FetchCore core_;
  FetchWriter writer_;
  FetchServer server_;

  std::uint64_t adding_ = 0;  ///< ids that are looked up in the store before they become pending
  std::size_t filters_ = 0;
  /// What became durable while `filters_` lookups were under way: it must not become pending by them.
  std::unordered_set<OpId> stored_meanwhile_;
  /// The same for urls: what was replaced meanwhile, in order.
  std::vector<std::pair<Url, Url>> replaced_meanwhile_;
  bool resuming_ = false;
  bool pump_posted_ = false;
  std::size_t persisting_ = 0;
  bool persist_failed_ = false;  ///< since nothing was pending

  std::vector<Unsent> unsent_;
  Time send_again_at_{};
  Runtime::TimerId timer_ = 0;
  Time timer_at_{};

  std::vector<std::function<void()>> on_drained_;
  bool drained_check_posted_ = false;
  std::vector<std::function<void()>> on_stopped_;
  std::size_t store_calls_ = 0;
  bool stopped_ = false;

  // Scratch of response(), kept to save allocations.
  std::vector<OpDescription> descriptions_;
  std::vector<OpId> ids_;

  log::Gate invalid_gate_, unsolicited_gate_, aside_gate_, store_gate_, send_gate_, resume_gate_;
  Lifetime lifetime_;
};

}  // namespace kitsune2
