// The fetch module: knows which ops to get from which peers, asks, answers, stores.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kitsune2/ids.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/transport.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Config section `coreFetch`. The first five keys, their defaults and JSON names are kitsune2 0.2.2's.
struct CoreFetchConfig {
  /// How many requests (messages) may be under way to one peer at once. 1..255.
  std::uint32_t parallel_request_count = 2;
  /// An op that was asked for and has not come after this long is overdue and is asked for again, from its next source
  /// if it has one. ms, 1..86'400'000.
  std::uint32_t re_insert_outgoing_request_delay_ms = 2'000;
  /// First and longest back-off of an unresponsive peer, ms; the interval doubles in between.
  std::uint32_t first_back_off_interval_ms = 20'000;
  std::uint32_t last_back_off_interval_ms = 600'000;
  /// How many intervals until the peer's requests are dropped. 1..64.
  std::uint32_t num_back_off_intervals = 4;

  // --- ours; no counterpart in 0.2.2
  /// Most op ids in a request message (never over 15 KiB of them: it needs no permit), and the payload it aims at.
  std::uint32_t max_ids_per_request = 512;
  std::uint32_t target_request_bytes = 4U << 20;
  /// Most payload bytes in one response message; a larger answer is sent as several.
  std::uint32_t max_response_bytes = 4U << 20;
  /// Requests (messages) from one peer that may wait for an answer; more are dropped and counted (the requester
  /// repeats).
  std::uint32_t max_incoming_requests_per_peer = 64;
  /// Pending (op, peer) pairs, in all and of one peer; `request_ops` beyond it is Errc::overloaded and adds nothing.
  std::uint64_t max_pending = 50'000'000;
  std::uint64_t max_pending_per_peer = 10'000'000;
  /// Memory for requests that peers caused by publish and gossip, bytes; see FetchLoad. What would go beyond it is not
  /// taken, and of one peer not what would be more than a quarter of what the others leave. *Rationale*: offers cost a
  /// peer nothing. The application's own requests are bounded by max_pending only.
  std::uint64_t max_offered_bytes = 1U << 30;
  /// Store ops that nobody asked for (kitsune2 0.2.2 does). Off: they are rejected and counted.
  bool accept_unsolicited = false;
  /// Keep open requests in the op store, so that a restart goes on with them. No effect with a store that is not
  /// durable (`OpStore::is_durable`): there they would only take memory.
  bool persist_pending = true;
};

/// What is going on. Rust: `FetchStateSummary` (the first two members).
struct FetchStateSummary {
  std::unordered_map<OpId, std::vector<Url>> pending_requests;  ///< op -> sources not given up
  std::unordered_map<Url, Timestamp> peers_on_backoff;          ///< peer -> when its back-off ends
  std::uint64_t pending_ops = 0;
  std::uint64_t pending_pairs = 0;
  std::uint64_t outstanding_requests = 0;     ///< messages under way
  std::uint64_t known_outstanding_bytes = 0;  ///< of ops whose size is known (observed average)
};

/// How much is pending; cheap to ask for.
struct FetchLoad {
  /// About what one pair of an op and a source takes, its record in the op store included. An id of more than 32 bytes
  /// adds what is over.
  static constexpr std::uint64_t kPairBytes = 128;
  std::uint64_t pairs = 0;         ///< in all, with those that are being added
  std::uint64_t source_pairs = 0;  ///< of the source asked about
  std::uint64_t bytes = 0;         ///< estimate for all pairs
  bool serving = false;            ///< peers wait for answers of this node, or did within the last 100 ms
};

/// Counters since start. Monotonic.
struct FetchStats {
  std::uint64_t ops_fetched = 0, bytes_fetched = 0;  ///< stored durably, asked for by us
  std::uint64_t ops_served = 0, bytes_served = 0;    ///< handed to the transport for a peer
  std::uint64_t requests_sent = 0, requests_failed = 0, requests_overdue = 0;
  std::uint64_t requests_received = 0, requests_refused = 0, ops_not_held = 0;
  std::uint64_t ops_unsolicited = 0;  ///< the peer was not asked for them
  std::uint64_t ops_invalid = 0;      ///< failed the policy, or the store refused them
  std::uint64_t ops_duplicate = 0;    ///< came late or twice, as asked
  std::uint64_t store_failures = 0;
  std::uint64_t peers_put_aside = 0;             ///< how often: they sent too many invalid and unsolicited ops
  std::uint64_t pairs_dropped_unresponsive = 0;  ///< given up with their peer at the end of its back-off
};

/// Hears what the fetch module did, for progress, reports and gossip. All on the strand; all optional.
struct FetchEvents {
  /// Durable now, fetched from `peer`.
  std::function<void(const Url& peer, const std::vector<StoredOp>& ops, std::uint64_t bytes)> ops_stored;
  /// A peer answered a request and left these out: it does not hold them (as far as one can tell).
  std::function<void(const Url& peer, const std::vector<OpId>& ops)> ops_missing;
  /// The last back-off of `peer` has passed, be it for not being reached or for bad ops: all requests to it were
  /// dropped. `orphaned`: ops that have no other source.
  std::function<void(const Url& peer, const std::vector<OpId>& orphaned)> peer_given_up;
  /// Ops were handed to the transport for `peer`.
  std::function<void(const Url& peer, std::uint64_t ops, std::uint64_t bytes)> ops_served;
  /// The store refused (disk full, …). The ops stay pending; the module tries again after the re-insert delay.
  std::function<void(const Error& error)> store_failed;
};

/// CoreFetch of one space. Strand only. The flow is the seed's; see docs/protocol-fetch.md and src/core/fetch_core.hpp.
class Fetch {
 public:
  virtual ~Fetch() = default;

  /// `add_ops`: fetch `op_ids` from `source`, leaving out what the store holds. The same op may be added with many
  /// sources. Completes once the ids are pending (and, with persist_pending, durably so). A long list is looked up in
  /// the store piece by piece: the first of it may be fetched before it completes, and an error of the store leaves
  /// open what was looked up before; repeat the call. Errc::overloaded: over max_pending or max_pending_per_peer,
  /// nothing was added (of a list whose source is replaced meanwhile, perhaps its first part). Rust: `request_ops`.
  virtual void request_ops(std::vector<OpId> op_ids, const Url& source, Handler<> done) = 0;

  /// A source is gone for good (blocked, or nobody uses the url any more): drops its requests.
  virtual void remove_source(const Url& source) = 0;

  /// The peer at `old_url` is reached at `new_url` from now on: what is pending at the old one is asked for there at
  /// once, and the store is told. No-op if nothing is pending at `old_url`, if `new_url` is no peer's or this node's
  /// own, or if the two together are over max_pending_per_peer there (then the old one stays until it is given up). The
  /// node calls it when a newer info of an agent has another url and no other agent is at the old one.
  virtual void replace_source(const Url& old_url, const Url& new_url) = 0;

  virtual FetchStateSummary state_summary() const = 0;
  virtual FetchStats stats() const = 0;
  virtual std::uint64_t pending_ops() const = 0;  ///< cheap
  virtual FetchLoad load(const Url& source) const {
    static_cast<void>(source);
    return {};
  }

  /// Calls `callback` once, when nothing is pending: soon if that is so now, else as soon as it is. Never missed.
  virtual void notify_on_drained(std::function<void()> callback) = 0;

  virtual void set_events(FetchEvents events) = 0;

  /// Stops asking and answering; `done` when nothing of this module is under way. Later calls get Errc::cancelled.
  virtual void stop(std::function<void()> done) = 0;
};

/// Registers itself with `transport` for (space, "Fetch"). Resumes what `op_store` has pending if persist_pending.
Result<std::shared_ptr<Fetch>> make_core_fetch(Runtime& runtime, const CoreFetchConfig& config, const SpaceId& space,
                                               std::shared_ptr<OpStore> op_store, std::shared_ptr<Transport> transport);

}  // namespace kitsune2
