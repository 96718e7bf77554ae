// The op store: where the ops of one space are kept.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kitsune2/arc.hpp"
#include "kitsune2/bytes.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/op_policy.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// An op that a store did not take.
struct RejectedOp {
  std::size_t index = 0;  ///< its place in the call
  Error reason;           ///< the policy's, or Errc::too_large
};

/// What became of the ops of one call.
struct ProcessedOps {
  static constexpr std::size_t kMostRejections = 8;

  /// Durable now, in the order given. Includes ops that were held already, by an earlier call or by an earlier place
  /// in this one: of an id, the bytes and the time that came first stay, and `created_at` here is that of the held op.
  std::vector<StoredOp> stored;
  std::vector<OpId> newly_stored;  ///< the part of `stored` that was not held before, each id once
  std::uint64_t bytes_stored = 0;  ///< payload bytes of `newly_stored`
  std::size_t rejected = 0;        ///< ops that failed the policy or are too large
  /// The first kMostRejections of the rejected, with the reason. *Rationale*: enough to say what is wrong; a peer's
  /// flood of bad ops must not become a flood of texts.
  std::vector<RejectedOp> rejections;

  void reject(std::size_t index, Error reason) {
    if (++rejected <= kMostRejections) rejections.push_back({index, std::move(reason)});
  }
};

struct OpIdsInSlice {
  std::vector<OpId> op_ids;
  std::uint64_t bytes = 0;  ///< payload bytes of these ops
};

struct OpIdsBounded {
  std::vector<OpId> op_ids;
  std::uint64_t bytes = 0;
  /// Where the next call goes on: ask with this as `start`. If the limit cut: when the first op left out was stored. If
  /// everything fitted: just after the last op of the whole store, of whatever arc. Always greater than 0, also when
  /// the store or the arc is empty. No op that is stored later has an earlier time of storing, whatever the wall clock
  /// does.
  Timestamp next;
  /// The limit left ops out. *Rationale*: whoever is told so asks for the rest at once, and otherwise when it is time.
  bool cut = false;
};

struct OpStoreStats {
  std::uint64_t ops = 0;
  std::uint64_t bytes = 0;
};

/// Durable storage of one space's ops, and of the fetch requests that are still open (so that a restart resumes).
///
/// *Rules*. S1: a handler that gets success for an op means: it survives a crash of the process and of the machine
/// (the memory store has no such duty). S2: writes complete in the order they were called. S3: ids that are asked for
/// and not held are left out, never an error. S4: on failure nothing of that call is stored, and it can be repeated.
/// S5: a read that is called once the handler of a write has been called sees the write. S6: times of
/// storing never go back, and a call's are later than those of the calls before it. They follow the wall clock where it
/// allows that; it may stand still, jump back, and show the smallest or the largest Timestamp. S7: an op that is larger
/// than the store's limit is rejected (the shipped stores: `max_op_bytes`); one that is held already, because the limit
/// was higher once, is given out like any other. `kitsune2/testing/op_store_suite.hpp` tests all of this for any
/// implementation. Errors: Errc::io, Errc::disk_full, Errc::corrupt. Calls: strand only; handlers on the strand;
/// pending handlers of a store that is destroyed are dropped. Bounds: at most `max_pending_write_bytes` wait for the
/// writer, further calls wait in the caller's hands: they get Errc::overloaded (at once, before the writes that wait).
/// The runtime outlives the store. Rust counterpart: `OpStore` of kitsune2_api 0.2.2; same names.
class OpStore {
 public:
  virtual ~OpStore() = default;

  /// Finishes the writes that were called for and closes the store's files, so that another store can open them; what
  /// waits to be read completes with Errc::cancelled, and so does every later call. Blocks until the disk has taken
  /// the writes. For a store whose owner may live for longer than it is needed. No-op when it is closed. Default: no
  /// effect, for a store without files.
  virtual void close() {}

  /// Computes the ids of ops, checks and stores them. Ops that fail the policy are counted in `rejected`, with the
  /// reason of the first ones; the others are stored all the same. Also removes the pending fetch entries of what it
  /// stored, in the same transaction.
  virtual void process_incoming_ops(std::vector<Bytes> ops, Handler<ProcessedOps> done) = 0;

  /// The same for bytes that the caller named already with this store's policy (the fetch module hashes once).
  virtual void store_described_ops(std::vector<std::pair<OpDescription, Bytes>> ops, Handler<ProcessedOps> done) = 0;

  /// The held ones among `op_ids`, in the order asked; each at most once. Stops before the op that would pass
  /// `max_bytes` (but gives at least one): the caller asks again for the rest.
  virtual void retrieve_ops(std::vector<OpId> op_ids, std::uint64_t max_bytes, Handler<std::vector<MetaOp>> done) = 0;

  /// Those of `op_ids` that are not held, in the order given.
  virtual void filter_out_existing_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) = 0;

  /// Ids of ops with location in `arc` and created in [start, end), by (created_at, id).
  virtual void retrieve_op_hashes_in_time_slice(DhtArc arc, Timestamp start, Timestamp end,
                                                Handler<OpIdsInSlice> done) = 0;

  /// Ids of ops in `arc` stored at or after `start`, by time of storing, up to `limit_bytes` of payload. An op that is
  /// larger than the limit is not given, as in the reference: the caller that wants it raises its limit.
  virtual void retrieve_op_ids_bounded(DhtArc arc, Timestamp start, std::uint32_t limit_bytes,
                                       Handler<OpIdsBounded> done) = 0;

  /// The smallest created_at in `arc`; nullopt if the arc holds nothing.
  virtual void earliest_timestamp_in_arc(DhtArc arc, Handler<std::optional<Timestamp>> done) = 0;

  /// Combined hash of a full time slice, kept for the DHT model. Replaces an earlier one. Empty arc, empty hash, index
  /// over 2^63 - 1: Errc::invalid_argument.
  virtual void store_slice_hash(DhtArc arc, std::uint64_t slice_index, Bytes slice_hash, Handler<> done) = 0;
  /// Highest stored slice index + 1; 0 if none.
  virtual void slice_hash_count(DhtArc arc, Handler<std::uint64_t> done) = 0;
  virtual void retrieve_slice_hash(DhtArc arc, std::uint64_t slice_index, Handler<std::optional<Bytes>> done) = 0;
  virtual void retrieve_slice_hashes(DhtArc arc, Handler<std::vector<std::pair<std::uint64_t, Bytes>>> done) = 0;

  /// Remembers / forgets that `op_ids` are to be fetched from `source`. No effect for ops that are held, nor for pairs
  /// that are there; avoid repeating them though: in the durable store they take room twice until then.
  virtual void add_pending(std::vector<OpId> op_ids, Url source, Handler<> done) = 0;
  virtual void remove_pending_source(Url source, Handler<> done) = 0;
  /// Forgets that these of its ops are to be fetched from `source`; no effect for pairs that are not there. Default: no
  /// effect, and the pairs are asked for again after a restart.
  virtual void remove_pending(std::vector<OpId> op_ids, Url source, Handler<> done) {
    op_ids.clear();
    add_pending(std::move(op_ids), std::move(source), std::move(done));
  }
  /// All pairs by source, each once; the order is not defined.
  virtual void retrieve_pending(Handler<std::vector<std::pair<Url, std::vector<OpId>>>> done) = 0;

  virtual void stats(Handler<OpStoreStats> done) = 0;

  virtual const OpPolicy& policy() const = 0;

  /// Whether what is stored outlives the process. False: keeping open requests here serves no restart.
  virtual bool is_durable() const { return true; }
};

/// Keeps everything in memory: for tests, caches and nodes that need no durability.
/// `max_op_bytes`: larger ops are rejected.
std::shared_ptr<OpStore> make_memory_op_store(Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                                              std::uint64_t max_op_bytes = kDefaultMaxOpBytes);

}  // namespace kitsune2
