// The driver of the fetch core: transport and store on one side, the pure state machine on the other.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/callback.hpp"
#include "core/fetch/fetch_core.hpp"
#include "core/subscribers.hpp"
#include "kitsune2/fetch.hpp"
#include "log/log.hpp"
#include "node/fetch/core_fetch_server.hpp"
#include "node/fetch/core_fetch_writer.hpp"
#include "node/fetch/persists.hpp"

namespace kitsune2 {

/// Does what `Fetch` promises: FetchCore decides, this object carries out.
///
/// Requests: what the core hands out is encoded in one pass and sent; the outcome goes back to the core. A send that
/// failed for reasons of this side (no relay, a full queue) is not the peer's fault: it is tried again after the
/// re-insert delay, without back-off. While the store is behind, nothing more is asked for.
/// Responses: each op is named once by the host's policy; the core says which of them are wanted; these go to the
/// writer, and only when they are durable does the core forget them. Naming is hashing: of a large message it is done
/// piece by piece, with other work in between. *Rationale*: a peer whose next message needs a permit gets it meanwhile,
/// so that it sends while this side hashes; and nobody else waits for a long message.
/// Durable: a pair is written to the store once, when it becomes pending.
/// Offers: what peers name by themselves is fetched only if the application wants it, and only as much as there is room
/// for (`request_offered_ops`).
/// Ops that a source never sends (R16 of the core), or that the store refuses, leave the op store's pending set
/// together, kForgetAfter after the first of them. *Rationale*: the store goes through all that is pending at the
/// source; a peer that sends nothing must not have it do so every few seconds. A restart before that asks for them
/// again, which does no harm. Time: one timer, for the earliest deadline of the core, of the sends to be tried again
/// and of what is forgotten. Callbacks (`FetchEvents`, drained) are made last, when this object's state is whole: they
/// may call it.
class CoreFetch final : public Fetch, public std::enable_shared_from_this<CoreFetch> {
 public:
  CoreFetch(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space, std::shared_ptr<OpStore> op_store,
            std::shared_ptr<Transport> transport, std::shared_ptr<PeerBudget> budget);
  ~CoreFetch() override;

  /// Registers with the transport and loads what is pending.
  Result<void> start();

  // --- from the transport
  Result<void> on_message(const Url& peer, const Bytes& data);
  void on_progress(const Url& peer, std::size_t bytes);
  void on_disconnect(const Url& peer);
  /// This node can be reached again: what did not leave meanwhile leaves.
  void on_online();

  void request_ops(std::vector<OpId> op_ids, const Url& source, Handler<> done) override;
  void request_offered_ops(std::vector<OpId> op_ids, const Url& peer, Handler<> done) override;
  void set_offer_filter(std::function<bool(const Url& peer)> wanted) override {
    assert_on_strand(runtime_, "Fetch::set_offer_filter");
    offer_wanted_ = std::move(wanted);
  }
  void remove_source(const Url& source) override;
  void replace_source(const Url& old_url, const Url& new_url) override;
  FetchStateSummary state_summary() const override;
  FetchStats stats() const override {
    assert_on_strand(runtime_, "Fetch::stats");
    return stats_;
  }
  std::uint64_t pending_ops() const override {
    assert_on_strand(runtime_, "Fetch::pending_ops");
    return core_.pending_ops();
  }
  FetchLoad load(const Url& source) const override;
  void notify_on_drained(std::function<void()> callback) override;
  std::shared_ptr<void> subscribe(FetchEvents events) override {
    assert_on_strand(runtime_, "Fetch::subscribe");
    return listeners_.add(std::move(events));
  }
  void stop(std::function<void()> done) override;

  /// Asserts what must hold between calls; for simulations.
  void check_invariants() const;

 private:
  /// A request that could not leave for reasons of this side.
  struct Unsent {
    std::uint64_t request = 0;
    Url source;
    std::vector<OpId> op_ids;
  };

  /// A list of `request_ops` that is looked up in the store, piece by piece. *Rationale*: what is known to be lacking
  /// is asked for while the rest is looked up; ten thousand ids take the durable store some 10 ms. A piece is what the
  /// requests to one source take that may be under way.
  struct Adding {
    /// Those from `looked_up` on are still to be looked up; the first `open` have become pending by this list and are
    /// to be written to a durable store.
    std::vector<OpId> op_ids;
    Url source;
    Handler<> done;
    std::size_t piece = 0;
    std::size_t looked_up = 0;
    std::size_t open = 0;
    bool any_known = false;      ///< some were pending before, and perhaps not durable yet
    std::uint64_t failures = 0;  ///< of writes, when it began
    Persists::Serial persist = 0;
  };

  /// A response whose ops are being named.
  struct Arrived {
    Url peer;
    std::vector<Bytes> slices;  ///< the first `valid` of them have passed the policy, those from `next` on have not yet
    std::uint64_t bytes = 0;
    std::uint64_t weight = 0;  ///< of what is to be named: bytes, and kNamingBytes for each op
    std::size_t next = 0;
    std::size_t valid = 0;
    std::uint64_t invalid = 0;
    std::optional<Error> first_invalid;  ///< why the first of these is
    std::vector<OpDescription> descriptions;
    std::vector<OpId> ids;
  };
  /// Weight that is named in one go; about half a millisecond.
  static constexpr std::uint64_t kNamedAtOnce = 1U << 20;
  static constexpr std::uint64_t kNamingBytes = 256;
  /// Beyond this what arrives is named before anything else is read.
  static constexpr std::uint64_t kMostArrived = 16U << 20;

  /// What has come from a source over its open connection.
  struct Incoming {
    std::uint64_t partial = 0;   ///< bytes of the message that is not whole yet
    std::uint64_t received = 0;  ///< payload, `partial` included
  };

  static constexpr std::size_t kMostBlamed = 256;

  /// Calls that event of each listener that has it.
  template <class F, class... Args>
  void tell(F FetchEvents::*event, const Args&... args) const {
    listeners_.tell([&](const FetchEvents& events) {
      if (events.*event) call_application("a listener of FetchEvents", [&] { (events.*event)(args...); });
    });
  }

  void response(const Url& peer, const wire::DataList& ops);
  void name_ops(Arrived& message, std::uint64_t most);
  void name_first(std::uint64_t most);
  void name_soon();
  bool is_naming(const Url& peer) const;
  void name_all_of(const Url& peer);
  void answered(Arrived& message);
  void judged(const Url& peer, const FetchAnswer& answer);
  /// What it sends may be answers to requests of ours.
  bool is_source(const Url& peer) const { return core_.pending_pairs(peer) > 0 || core_.owes(peer); }
  void came(Incoming& incoming, std::uint64_t bytes);
  void refuse_ops(const Url& peer, std::uint64_t count);
  void invalid(const Url& peer, std::uint64_t count, const Error& first);

  /// Reads what an earlier run left open, in pieces; from the first one if `after` is 0.
  void resume(std::uint64_t after);
  bool has_room_for_offer(const std::vector<OpId>& op_ids, const Url& peer) const;
  void request(std::vector<OpId> op_ids, const Url& source, Handler<> done);
  void look_up(const std::shared_ptr<Adding>& adding);
  void looked_up(const std::shared_ptr<Adding>& adding, Result<std::vector<OpId>> result);
  Result<void> add(Adding& adding, std::vector<OpId>& op_ids);
  void persist(const std::shared_ptr<Adding>& adding);
  void added(const std::shared_ptr<Adding>& adding, const Result<void>& result);
  /// What `ops` that a peer offers cost it; given back when they have come.
  PeerWork cost_of_offer(std::uint64_t ops) const { return PeerWork().look_ups(ops).rows(keep_pending_ ? ops : 0); }
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
  void unserved(std::vector<FetchUnserved> dropped);
  void forget_later(const Url& source, const std::vector<OpId>& op_ids);
  void forget_now();
  void persist_replaced(std::vector<OpId> op_ids, const Url& old_url, const Url& new_url);
  Url current(const Url& source) const;
  void lookup_ended();
  void check_drained();
  void post_drained_check();
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
  const std::shared_ptr<PeerBudget> budget_;
  const bool keep_pending_;  ///< in the store too: asked for by the config, and the store outlives the process
  FetchStats stats_;
  Subscribers<FetchEvents> listeners_;
  std::function<bool(const Url& peer)> offer_wanted_;
  FetchCore core_;
  /// When each peer with a connection that owes an answer was asked.
  std::unordered_map<Url, Time> asked_at_;
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
  Persists persists_;  ///< of what is pending, what is being written to the store

  std::deque<Arrived> arrived_;  ///< in the order in which they came
  std::uint64_t arrived_weight_ = 0;
  std::unordered_map<Url, Incoming> incoming_;  ///< connected peers that are sources, or were
  std::uint64_t partial_bytes_ = 0;             ///< of all of them
  /// Ops that sources sent and that were not asked for or do not parse; of the first kMostBlamed sources, also when
  /// their connection has gone.
  std::unordered_map<Url, std::uint64_t> refused_ops_;
  bool naming_posted_ = false;

  std::vector<Unsent> unsent_;
  Time send_again_at_{};
  static constexpr Duration kForgetAfter = std::chrono::minutes(1);
  std::map<Url, std::vector<OpId>> to_forget_;  ///< dropped here, and still pending in the store
  Time forget_at_{};
  Runtime::TimerId timer_ = 0;
  Time timer_at_{};

  std::vector<std::function<void()>> on_drained_;
  bool drained_check_posted_ = false;
  std::vector<std::function<void()>> on_stopped_;
  std::size_t store_calls_ = 0;
  bool stopped_ = false;

  // Of the last message, kept to save allocations.
  std::vector<OpDescription> descriptions_;
  std::vector<OpId> ids_;

  log::Gate invalid_gate_, unsolicited_gate_, aside_gate_, store_gate_, send_gate_, resume_gate_, unserved_gate_;
  Lifetime lifetime_;
};

}  // namespace kitsune2
