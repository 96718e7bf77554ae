// The driver of the fetch core: connects the pure state machine with the transport and the op store.
#pragma once

#include <boost/unordered/unordered_flat_set.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/callback.hpp"
#include "core/fetch/fetch_core.hpp"
#include "core/fetch/metadata_book.hpp"
#include "core/subscribers.hpp"
#include "kitsune2/fetch.hpp"
#include "log/log.hpp"
#include "node/fetch/core_fetch_server.hpp"
#include "node/fetch/core_fetch_writer.hpp"
#include "node/fetch/persists.hpp"

namespace kitsune2 {

/// Implements `Fetch`: FetchCore decides, and this object carries out.
///
/// Requests: each request of the core is encoded in one pass and sent; the core is told the outcome. A send that failed
/// for a local reason (no relay, a full queue) is not the peer's fault: it is tried again after the re-insert delay,
/// without back-off. While the store is behind, nothing more is requested.
/// Responses: the host's policy computes the id of each op once. The core says which are wanted; these go to the
/// writer, and the core forgets them only when they are durable. The ids of a large message are computed in pieces,
/// with other work in between. Each op that would go to the writer is judged once, with the metadata that its sender
/// has published, and goes on with exactly that: what is published meanwhile comes too late. One that is refused was
/// answered all the same: it is not requested from its sender again, and costs it no points of R15, unless that was not
/// asked for it and owes nothing.
/// *Rationale*: a peer whose next message needs a permit gets it meanwhile and sends while this side hashes, and nobody
/// else waits for a long message.
/// Durable: a pair is written to the store once, when it becomes pending.
/// Offers: ops that peers announce are fetched only if the application wants them and there is room
/// (`request_offered_ops`).
/// Ops that a source never sends (R16 of the core), or that the store or the policy refuses, leave the op store's
/// pending set together, kForgetAfter after the first of them. *Rationale*: the store goes through everything pending
/// at the source; a peer that sends nothing must not cause that every few seconds. After an earlier restart they are
/// requested again, which does no harm.
/// Time: one timer, for the earliest deadline of the core, of sends to be repeated, and of ops to be forgotten.
/// Callbacks (`FetchEvents`, drained) are called last, when this object's state is consistent; they may call it.
class CoreFetch final : public Fetch, public std::enable_shared_from_this<CoreFetch> {
 public:
  CoreFetch(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space, std::shared_ptr<OpStore> op_store,
            std::shared_ptr<Transport> transport, std::shared_ptr<PeerBudget> budget);
  ~CoreFetch() override;

  /// Registers with the transport and loads the pending ops.
  Result<void> start();

  // --- from the transport
  Result<void> on_message(const Url& peer, const Bytes& data);
  void on_progress(const Url& peer, std::size_t bytes);
  void on_disconnect(const Url& peer);
  /// This node is reachable again: sends what could not be sent meanwhile.
  void on_online();

  void request_ops(std::vector<OpId> op_ids, const Url& source, Handler<> done) override;
  void request_offered_ops(std::vector<OpId> op_ids, const Url& peer, Handler<> done) override;
  void request_published_ops(std::vector<PublishOp> ops, const Url& peer, Handler<> done) override;
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
  /// A request that could not be sent for a local reason.
  struct Unsent {
    std::uint64_t request = 0;
    Url source;
    std::vector<OpId> op_ids;
  };

  using Metadata = std::unordered_map<OpId, Bytes>;  ///< of some of a list's ops

  /// A list of `request_ops` that is being looked up in the store in pieces. *Rationale*: ops that are known to be
  /// missing are requested while the rest is looked up; ten thousand ids take the durable store about 10 ms. A piece is
  /// as large as the requests that may be under way to one source.
  struct Adding {
    /// Those from `looked_up` on must still be looked up. The first `open` have become pending by this list and must be
    /// written to a durable store.
    std::vector<OpId> op_ids;
    Url source;
    Handler<> done;
    std::vector<OpId> described{};  ///< those of which metadata is kept until it is known whether they become pending
    std::size_t piece = 0;
    std::size_t looked_up = 0;
    std::size_t moves_seen = 0;  ///< how many of `moved_meanwhile_` there were when the look-up of this piece began
    std::size_t open = 0;
    bool any_known = false;      ///< some were pending before, and may not be durable yet
    std::uint64_t failures = 0;  ///< of writes, when it was begun
    Persists::Serial persist = 0;
  };

  /// What the policy has said of an op (`OpPolicy::judge_incoming`).
  enum class Judged : std::uint8_t { not_yet, may_be_stored, refused };
  /// A response whose ids are being computed.
  struct Arrived {
    Url peer;
    std::vector<Bytes> slices;  ///< the first `valid` have passed the policy; those from `next` on were not checked yet
    std::uint64_t bytes = 0;
    std::uint64_t weight = 0;  ///< of what is left: bytes, and kNamingBytes for each op
    std::size_t next = 0;
    std::size_t valid = 0;
    std::uint64_t invalid = 0;
    std::optional<Error> first_invalid;  ///< the reason for the first of these
    std::vector<OpDescription> descriptions;
    std::vector<OpId> ids;
    std::vector<Judged> judged;                       ///< one for each id
    std::unordered_map<std::size_t, Bytes> metadata;  ///< with which ops were judged, by index; left out if empty
    std::uint64_t metadata_cost = 0;                  ///< of these
    std::optional<Error> first_refused;               ///< the reason for the first that the policy does not take
  };
  /// The weight that is handled in one go; about half a millisecond.
  static constexpr std::uint64_t kNamedAtOnce = 1U << 20;
  static constexpr std::uint64_t kNamingBytes = 256;
  /// Beyond this, what has arrived is handled before anything else is read.
  static constexpr std::uint64_t kMostArrived = 16U << 20;

  /// What has arrived from a source over its open connection.
  struct Incoming {
    std::uint64_t partial = 0;   ///< bytes of the incomplete message
    std::uint64_t received = 0;  ///< payload, including `partial`
  };

  static constexpr std::size_t kMostBlamed = 256;

  /// Calls this event of each listener that has it.
  template <class F, class... Args>
  void tell(F FetchEvents::*event, const Args&... args) const {
    listeners_.tell([&](const FetchEvents& events) {
      if (events.*event) call_application("a listener of FetchEvents", [&] { (events.*event)(args...); });
    });
  }

  void on_response(const Url& peer, const wire::DataList& ops);
  void name_ops(Arrived& message, std::uint64_t most);
  bool may_be_stored(Arrived& message, std::size_t index);
  void name_first(std::uint64_t most);
  void name_soon();
  bool is_naming(const Url& peer) const;
  void name_all_of(const Url& peer);
  void on_answered(Arrived& message);
  std::uint64_t drop_refused(const Url& peer, const std::vector<OpId>& op_ids);
  void on_judged(const Url& peer, const FetchAnswer& answer);
  /// Whether what `peer` sends may be answers to our requests.
  bool is_source(const Url& peer) const { return core_.pending_pairs(peer) > 0 || core_.owes(peer); }
  void count_received(Incoming& incoming, std::uint64_t bytes);
  void refuse_ops(const Url& peer, std::uint64_t count);
  void on_invalid(const Url& peer, std::uint64_t count, const Error& first);

  /// Reads the requests that an earlier run left open, in pieces, starting at `after` (0: the first).
  void resume(std::uint64_t after);
  /// False: there is no room, and nothing was taken.
  bool take_room_for_offer(const std::vector<OpId>& op_ids, const Url& peer);
  /// Counts what the offers of newcomers take, once a second at most.
  void count_newcomers();
  void offer(std::vector<OpId> op_ids, Metadata metadata, const Url& peer, Handler<> done);
  void request(std::vector<OpId> op_ids, Metadata metadata, const Url& source, Handler<> done);
  bool keep_metadata(const OpId& op_id, const Url& source, const Bytes& metadata);
  /// Forgets what is kept of ops that have not become pending.
  void forget_metadata(Adding& adding);
  void look_up(const std::shared_ptr<Adding>& adding);
  void on_looked_up(const std::shared_ptr<Adding>& adding, Result<std::vector<OpId>> result);
  Result<void> add(Adding& adding, std::vector<OpId>& op_ids);
  void persist(const std::shared_ptr<Adding>& adding);
  void on_added(const std::shared_ptr<Adding>& adding, const Result<void>& result);
  /// What `ops` offered ops cost a peer; given back when they have arrived.
  PeerWork cost_of_offer(std::uint64_t ops) const { return PeerWork().look_ups(ops).rows(keep_pending_ ? ops : 0); }
  void pump();
  /// Runs after everything that is posted for this turn. *Rationale*: otherwise, when many sources announce the same
  /// ops at the same time, the first one would get all the requests.
  void pump_soon();
  void send(FetchRequest request);
  void on_sent(Unsent request, const Result<void>& result);
  void send_again();
  void arm();
  void wake();
  /// A peer, and how many of its ops the store refused.
  using Refused = std::pair<Url, std::uint64_t>;
  void on_written(std::vector<FetchedRun> runs, const Result<ProcessedOps>& result);
  void on_stored(std::vector<FetchedRun> runs, const ProcessedOps& result);
  void on_store_failed(const std::vector<FetchedRun>& runs, const Error& why);
  std::vector<Refused> take_refused(std::vector<FetchedRun>& runs, const ProcessedOps& result);
  void forget_pending(const Url& source);
  void on_given_up(const FetchGivenUp& gone, std::string_view why);
  void on_unserved(std::vector<FetchUnserved> dropped);
  void forget_later(const Url& source, const std::vector<OpId>& op_ids);
  void forget_now();
  void persist_replaced(std::vector<OpId> op_ids, const Url& old_url, const Url& new_url);
  std::optional<Url> current(const Url& source, std::size_t since) const;
  void on_lookup_ended();
  void check_drained();
  void post_drained_check();
  bool is_drained() const { return core_.pending_ops() == 0 && adding_ == 0 && !resuming_; }
  void tell_missing(std::vector<FetchMissing> missing);
  void check_stopped();
  void on_store_call_done() {
    --store_calls_;
    check_stopped();
  }

  Runtime& runtime_;
  const CoreFetchConfig config_;
  const SpaceId space_;
  const std::shared_ptr<OpStore> store_;
  const std::shared_ptr<Transport> transport_;
  const std::shared_ptr<PeerBudget> budget_;
  const bool keep_pending_;  ///< in the store too: the config says so, and the store is durable
  FetchStats stats_;
  Subscribers<FetchEvents> listeners_;
  std::function<bool(const Url& peer)> offer_wanted_;
  FetchCore core_;
  MetadataBook metadata_;  ///< of pairs that are pending in the core, or being looked up
  /// When each peer that owes an answer, and is connected, was asked.
  std::unordered_map<Url, Time> asked_at_;
  FetchWriter writer_;
  FetchServer server_;

  std::uint64_t newcomers_bytes_ = 0;
  std::optional<Time> newcomers_counted_at_;
  std::uint64_t adding_ = 0;  ///< ids being looked up in the store before they become pending
  std::size_t filters_ = 0;
  /// Ops that became durable during the `filters_` lookups: they must not become pending by them.
  boost::unordered_flat_set<OpId, std::hash<OpId>> stored_meanwhile_;
  /// What happened to sources during the `filters_` lookups, in order: the new url of each, or null if it was removed.
  std::vector<std::pair<Url, std::optional<Url>>> moved_meanwhile_;
  bool resuming_ = false;
  bool pump_posted_ = false;
  Persists persists_;  ///< the pending pairs that are being written to the store

  std::deque<Arrived> arrived_;  ///< in the order of arrival
  std::uint64_t arrived_weight_ = 0;
  std::uint64_t judged_metadata_ = 0;           ///< the cost of what was judged and is not the writer's yet
  std::unordered_map<Url, Incoming> incoming_;  ///< connected peers that are sources, or were
  std::uint64_t partial_bytes_ = 0;             ///< of all of them
  /// The number of ops that sources sent without being asked for them, or that do not parse; for the first kMostBlamed
  /// sources, even after their connection closed.
  std::unordered_map<Url, std::uint64_t> refused_ops_;
  bool naming_posted_ = false;

  std::vector<Unsent> unsent_;
  Time send_again_at_{};
  static constexpr Duration kForgetAfter = std::chrono::minutes(1);
  std::map<Url, std::vector<OpId>> to_forget_;  ///< dropped here, but still pending in the store
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
