// The fetch module: requests ops from the peers that hold them, stores what arrives, and answers others' requests.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kitsune2/budget.hpp"
#include "kitsune2/config.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/transport.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// The state of the fetch module. Rust: `FetchStateSummary` (the first two members).
struct FetchStateSummary {
  std::unordered_map<OpId, std::vector<Url>> pending_requests;  ///< op -> sources not given up
  std::unordered_map<Url, Timestamp> peers_on_backoff;          ///< peer -> when its back-off ends
  std::uint64_t pending_ops = 0;
  std::uint64_t pending_pairs = 0;
  std::uint64_t outstanding_requests = 0;     ///< messages under way
  std::uint64_t known_outstanding_bytes = 0;  ///< of ops whose size is known (the observed average)
};

/// How much is pending. Cheap to compute.
struct FetchLoad {
  /// Approximate size of one pair of an op and a source, including its record in the op store. An id of more than 32
  /// bytes takes its excess in addition.
  static constexpr std::uint64_t kPairBytes = 128;
  std::uint64_t pairs = 0;         ///< in total, including those that are being added
  std::uint64_t source_pairs = 0;  ///< of the source asked about
  std::uint64_t bytes = 0;         ///< estimate for all pairs
  bool serving = false;            ///< peers wait for answers of this node, or did within the last 100 ms
  /// Payload that has arrived in answers and is not stored yet, including the received part of unfinished messages.
  std::uint64_t arriving_bytes = 0;
  /// What the source asked about has sent over its open connection in answer to requests, as FetchStats::bytes_received
  /// counts it: while this grows, the source is alive, however long a message takes.
  std::uint64_t source_received_bytes = 0;
  /// Ops in its answers, since start, that were not asked for or do not parse. *Rationale*: a source whose store is
  /// damaged sends ops with other ids than those that were asked for.
  std::uint64_t source_refused_ops = 0;
};

/// How long something took, counted by ranges of time, for a histogram of Prometheus.
struct LatencyHistogram {
  /// Upper bounds, seconds; the last range has none.
  static constexpr std::array<double, 12> kBounds{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                                  0.05,   0.1,   0.25,   0.5,   1,    5};
  std::array<std::uint64_t, kBounds.size() + 1> counts{};  ///< of each range
  double sum_seconds = 0;

  void add(Duration took) {
    const double seconds = std::chrono::duration<double>(took).count();
    std::size_t range = 0;
    while (range < kBounds.size() && seconds > kBounds[range]) ++range;
    ++counts[range];
    sum_seconds += seconds;
  }
};

/// Counters since start. Monotonic.
struct FetchStats {
  /// From sending a request to a peer that owed no answer to the first part of its answer.
  LatencyHistogram answers;
  /// From passing fetched ops to the op store until it reports the result: a durable commit.
  LatencyHistogram store_writes;
  std::uint64_t ops_fetched = 0, bytes_fetched = 0;  ///< stored durably, asked for by us
  /// Payload in answers, before it is judged, including that of messages that are not whole yet, or never will be.
  std::uint64_t bytes_received = 0;
  std::uint64_t ops_served = 0, bytes_served = 0;  ///< handed to the transport for a peer
  std::uint64_t requests_sent = 0, requests_failed = 0, requests_overdue = 0;
  std::uint64_t requests_received = 0, requests_refused = 0, ops_not_held = 0;
  std::uint64_t ops_unsolicited = 0;  ///< the peer was not asked for them
  std::uint64_t ops_invalid = 0;      ///< failed the policy, or the store refused them
  std::uint64_t ops_duplicate = 0;    ///< arrived late or twice
  std::uint64_t store_failures = 0;
  std::uint64_t peers_put_aside = 0;             ///< how often, for too many invalid and unsolicited ops
  std::uint64_t pairs_dropped_unresponsive = 0;  ///< given up with their peer at the end of its back-off
  std::uint64_t pairs_dropped_unserved = 0;      ///< given up: the peer can be reached and never sent the op
  /// Requested by peers and held, but too large for one message of the transport.
  std::uint64_t ops_too_large = 0;
  std::uint64_t metadata_dropped = 0;  ///< of ops that are fetched without it, because there was no room for it
};

/// What the fetch module tells its listeners (`Fetch::subscribe`). All run on the strand; all are optional.
struct FetchEvents {
  /// `ops` were fetched from `peer` and are durable now.
  std::function<void(const Url& peer, const std::vector<StoredOp>& ops, std::uint64_t bytes)> ops_stored = {};
  /// `peer` answered a request without these ops, so it probably does not hold them.
  std::function<void(const Url& peer, const std::vector<OpId>& ops)> ops_missing = {};
  /// The last back-off of `peer` has passed, because it could not be reached or sent bad ops. All requests to it are
  /// dropped. `orphaned`: the ops that have no other source.
  std::function<void(const Url& peer, const std::vector<OpId>& orphaned)> peer_given_up = {};
  /// Ops were handed to the transport for `peer`.
  std::function<void(const Url& peer, std::uint64_t ops, std::uint64_t bytes)> ops_served = {};
  /// The store failed (disk full, …). The ops stay pending and are fetched again after the re-insert delay.
  std::function<void(const Error& error)> store_failed = {};
  /// `peer` could be reached and was asked for these ops repeatedly, for at least 5 minutes, but never sent them: it
  /// does not hold them, or they are too large for it to send. It is not asked again until they are requested again.
  /// `orphaned`: the ops that have no other source; they are no longer pending.
  std::function<void(const Url& peer, const std::vector<OpId>& ops, const std::vector<OpId>& orphaned)> ops_unserved =
      {};
  /// `count` ops of `peer` failed the policy or were refused by the store. `first`: the reason for the first one.
  std::function<void(const Url& peer, std::uint64_t count, const Error& first)> ops_invalid = {};
  /// `ops` were fetched from `peer`, which had published them with this metadata, and are durable now. Called before
  /// `ops_stored`, which reports them like all others.
  std::function<void(const Url& peer, const std::vector<PublishOp>& ops)> metadata_stored = {};
};

/// The fetch module of one space. Strand only. docs/protocol-fetch.md and src/core/fetch/fetch_core.hpp describe how it
/// works.
class Fetch {
 public:
  virtual ~Fetch() = default;

  /// Fetches `op_ids` from `source`, except those that the store holds. An op may be added with many sources. Completes
  /// once the ids are pending (and durably so, with persist_pending). A long list is looked up in pieces: its first ops
  /// may be fetched before the call completes, and after an error of the store the pieces looked up before stay
  /// pending; repeat the call. Errc::overloaded: over max_pending or max_pending_per_peer; nothing was added (except,
  /// if the source is replaced meanwhile, perhaps the first part of the list). Rust: `request_ops`.
  virtual void request_ops(std::vector<OpId> op_ids, const Url& source, Handler<> done) = 0;

  /// The same for ops that `peer` offers; called by publish and gossip. The offer filter decides whether they are
  /// wanted. If not, the call succeeds and adds nothing. *Rationale*: for the caller an unwanted offer has been
  /// handled; the peer need not offer it again. Errc::overloaded also if more than CoreFetchConfig::max_offered_bytes
  /// would be pending, or more than this peer's share of it.
  virtual void request_offered_ops(std::vector<OpId> op_ids, const Url& peer, Handler<> done) = 0;
  /// The same for ops that `peer` has published with metadata, which is kept while they are to be fetched from it: what
  /// came first for an op stays. It goes to the policy and the store with the op. It is not kept over a restart. The
  /// memory for it is bounded (src/core/fetch/metadata_book.hpp); an op beyond that is fetched without. Default:
  /// without.
  virtual void request_published_ops(std::vector<PublishOp> ops, const Url& peer, Handler<> done) {
    std::vector<OpId> op_ids;
    op_ids.reserve(ops.size());
    for (PublishOp& op : ops) op_ids.push_back(std::move(op.op_id));
    request_offered_ops(std::move(op_ids), peer, std::move(done));
  }
  /// Sets the function that decides, for each offer, whether the ops are wanted. Empty: they always are. The space sets
  /// it to the application's `SpaceHandler::accept_offered_ops`.
  virtual void set_offer_filter(std::function<bool(const Url& peer)> wanted) = 0;

  /// Drops the requests to a source that is blocked or gone; lists being looked up for it end with Errc::cancelled.
  virtual void remove_source(const Url& source) = 0;

  /// The peer at `old_url` is at `new_url` from now on: requests its pending ops there at once, and tells the store.
  /// No-op if nothing is pending at `old_url`, if `new_url` is not a peer's or is this node's own, or if both together
  /// exceed max_pending_per_peer (then `old_url` stays until it is given up). The node calls this when a newer info of
  /// an agent has another url and no other agent is at the old one.
  virtual void replace_source(const Url& old_url, const Url& new_url) = 0;

  virtual FetchStateSummary state_summary() const = 0;
  virtual FetchStats stats() const = 0;
  virtual std::uint64_t pending_ops() const = 0;  ///< cheap
  virtual FetchLoad load(const Url& /*source*/) const { return {}; }

  /// Calls `callback` once, as soon as nothing is pending. If nothing is pending now, that is soon after this call.
  virtual void notify_on_drained(std::function<void()> callback) = 0;

  /// Adds a listener. It hears every event from now on until the returned token is destroyed, and none after that, even
  /// if one is being delivered at that moment. The token may outlive the module.
  ///
  /// Listeners are called in the order in which they subscribed, when the module's own state is consistent again. So a
  /// listener may call the module, subscribe others, and destroy tokens, its own included.
  ///
  /// To miss nothing, subscribe in `SpaceHandler::on_space_created`. Nothing is fetched before that call, not even for
  /// requests that an earlier run left open.
  virtual std::shared_ptr<void> subscribe(FetchEvents events) = 0;

  /// The interface before `subscribe`, for one listener: each call replaces the listener of the call before.
  [[deprecated("use subscribe")]] void set_events(FetchEvents events) { set_events_ = subscribe(std::move(events)); }

  /// Stops requesting and answering. Calls `done` when nothing is under way. Later calls get Errc::cancelled.
  virtual void stop(std::function<void()> done) = 0;

 private:
  std::shared_ptr<void> set_events_;
};

/// Makes the fetch module of `space` and registers it with `transport` under the name "Fetch". If persist_pending is
/// set, it resumes the requests that `op_store` has kept. `budget` is charged for what peers offer and request; null
/// means that nothing is charged. Rust: `CoreFetch`.
Result<std::shared_ptr<Fetch>> make_core_fetch(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space,
                                               std::shared_ptr<OpStore> op_store, std::shared_ptr<Transport> transport,
                                               std::shared_ptr<PeerBudget> budget = nullptr);

}  // namespace kitsune2
