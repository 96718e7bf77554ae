// The op store: where the ops of one space are kept.
#pragma once

#include <bitset>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
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

/// An op as a store reports and lists it.
struct OpRecord {
  OpId op_id;
  Timestamp created_at;
  std::uint32_t location = 0;  ///< by the policy
  std::uint64_t size = 0;      ///< of its bytes
  friend bool operator==(const OpRecord&, const OpRecord&) = default;
};

/// What a store tells of by itself. All run on the strand.
struct OpStoreEvents {
  /// New ops are durable. Every op that the store takes is told of once, whoever stored it, in the order of the commits
  /// and of the ops in one call; those of a call before its handler runs.
  std::function<void(const std::vector<OpRecord>& ops)> ops_stored = {};
  /// Ops were found damaged on the disk, and are held no longer: their bytes do not have their ids. Time, place and
  /// size are those that were reported when they were stored, as far as they can still be read. Whoever needs the ops
  /// asks for them again: they are stored like new ones.
  std::function<void(const std::vector<OpRecord>& ops)> ops_damaged = {};
};

/// Where a listing goes on. The order is that of creation, and of storing where that is the same; an op keeps its place
/// for as long as it is held, over restarts too.
struct OpCursor {
  Timestamp created_at;
  Timestamp stored_at;
  friend auto operator<=>(const OpCursor&, const OpCursor&) = default;
};

/// The ops in `arc` that were created in [start, end).
struct OpListQuery {
  DhtArc arc = DhtArc::full();
  Timestamp start = Timestamp::min();
  Timestamp end = Timestamp::max();
  std::optional<OpCursor> after = {};  ///< `next` of the page before
  std::size_t limit = 1024;            ///< most ops of a page
  std::stop_token stop = {};
};
struct OpPage {
  std::vector<OpRecord> ops;
  /// Ask for the next page with this. nullopt: that was all. A page may be short, even empty, and not be the last one:
  /// a call looks at `OpStore::kMostLookedAt` ops at most.
  std::optional<OpCursor> next;
};

/// A set of the 512 sectors of the ring; sector s holds the locations from s × 2^23 on.
using OpSectors = std::bitset<512>;

/// Ops that were created in [start, end).
struct TimeRange {
  Timestamp start, end;
  friend bool operator==(const TimeRange&, const TimeRange&) = default;
};

/// The combined hashes of the ops in `sectors`, for each sector and each of `ranges`.
struct OpSumsQuery {
  OpSectors sectors = {};
  std::vector<TimeRange> ranges = {};  ///< in order, none overlaps another
  std::optional<OpCursor> after = {};  ///< `next` of the page before
  std::stop_token stop = {};
};
struct OpSum {
  std::uint32_t sector = 0;
  std::uint32_t range = 0;  ///< index in `ranges`
  /// The XOR of the ids. Ids of different lengths count as if they were filled up with zeros.
  Bytes hash;
  std::uint64_t ops = 0;  ///< never 0: where nothing is, there is no sum
  friend bool operator==(const OpSum&, const OpSum&) = default;
};
struct OpSumsPage {
  std::vector<OpSum> sums;  ///< by (range, sector), each pair once
  /// More is to come; see OpPage::next. A pair may be in several pages: XOR the hashes and add the numbers up.
  std::optional<OpCursor> next;
};

/// The ops in `arc` that were stored at or after `start`.
struct OpIdsQuery {
  DhtArc arc = DhtArc::full();
  Timestamp start;
  std::uint64_t limit_bytes = UINT32_MAX;  ///< most bytes of payload
  std::size_t limit_ids = SIZE_MAX;        ///< most ids
  std::stop_token stop = {};
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

/// A part of the open requests.
struct PendingPage {
  std::vector<std::pair<Url, std::vector<OpId>>> requests;  ///< by source
  std::optional<std::uint64_t> next;                        ///< ask for the next page with this; nullopt: that was all
};

struct OpStoreStats {
  std::uint64_t ops = 0;      ///< held
  std::uint64_t bytes = 0;    ///< of their payload
  std::uint64_t damaged = 0;  ///< found damaged since the store was opened; they are not held any more
  /// Found since the store was opened: entries whose size, time or place was wrong while the bytes had their id. The op
  /// is given out, and its entry is set right.
  std::uint64_t mended = 0;
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
/// was higher once, is given out like any other. S8: every op that becomes held is told of by one `ops_stored`, and
/// nobody else has to tell anybody. S9: bytes that are read from a disk are given out only if they have their id by the
/// policy. One op that does not, or whose entry is damaged, fails no call: it is left out as if it were not held,
/// dropped, and told of by `ops_damaged`. S10: queries with a `stop` end soon after it, with Errc::cancelled; what
/// waits in front of them is not held up. S11: a list, a sum or a page of requests is bounded by what one call looks
/// at, however much the store holds. S12: what is asked for durably is kept once, and has a bound in bytes: beyond it
/// `add_pending` is Errc::overloaded and keeps nothing of the call; what is kept already stays. *Reason*: the oldest
/// requests are those that were promised to be asked for; a peer that names more and more ops must not push them out.
/// `kitsune2/testing/op_store_suite.hpp` tests all of this for any implementation. Errors: Errc::io, Errc::disk_full,
/// Errc::corrupt (a page of the file is damaged; the message says what to do). Calls: strand only; handlers on the
/// strand; pending handlers of a store that is destroyed are dropped. Bounds: at most `max_pending_write_bytes` wait
/// for the writer, further calls wait in the caller's hands: they get Errc::overloaded (at once, before the writes that
/// wait). The runtime outlives the store. Rust counterpart: `OpStore` of kitsune2_api 0.2.2; same names.
class OpStore {
 public:
  /// Most ops that one `list_ops` or `sum_ops` looks at.
  static constexpr std::size_t kMostLookedAt = 65'536;

  virtual ~OpStore() = default;

  /// `events` hears of all that happens from now on until the returned token is dropped: not of a single event more.
  /// Listeners hear in the order of subscribing; they may call the store, subscribe, and drop tokens. To know of every
  /// op, subscribe first and read what is held then; some ops may come both ways.
  virtual std::shared_ptr<void> subscribe(OpStoreEvents events) = 0;

  /// Finishes the writes that were called for and closes the store's files, so that another store can open them; what
  /// waits to be read completes with Errc::cancelled, and so does every later call. Blocks until the disk has taken
  /// the writes. For a store whose owner may live for longer than it is needed. No-op when it is closed. Default: no
  /// effect, for a store without files.
  virtual void close() {}

  /// Computes the ids of ops, checks and stores them. Ops that fail the policy are counted in `rejected`, with the
  /// reason of the first ones; the others are stored all the same. Also removes the pending fetch entries of what it
  /// stored, in the same transaction.
  virtual void process_incoming_ops(std::vector<Bytes> ops, Handler<ProcessedOps> done) = 0;

  /// The same for bytes that the caller named already with this store's policy (the fetch module hashes once). One that
  /// is not the policy's is found by a check, or when the op is read after the store was reopened: it is damage then.
  virtual void store_described_ops(std::vector<std::pair<OpDescription, Bytes>> ops, Handler<ProcessedOps> done) = 0;

  /// The held ones among `op_ids`, in the order asked; each at most once. Stops before the op that would pass
  /// `max_bytes` (but gives at least one): the caller asks again for the rest.
  virtual void retrieve_ops(std::vector<OpId> op_ids, std::uint64_t max_bytes, Handler<std::vector<MetaOp>> done) = 0;

  /// Those of `op_ids` that are not held, in the order given.
  virtual void filter_out_existing_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) = 0;

  /// Reads those of `op_ids` that are held and checks their bytes: gives the ones that are not held, or were damaged
  /// (and are dropped, as in S9), in the order given. For whoever has the bytes at hand and can store them anew.
  /// Default: `filter_out_existing_ops`, for a store whose ops cannot be damaged.
  virtual void filter_out_intact_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) {
    filter_out_existing_ops(std::move(op_ids), std::move(done));
  }

  /// What is held, with a limit and a cursor; in the order of OpCursor. Errc::invalid_argument: a limit of 0.
  virtual void list_ops(OpListQuery query, Handler<OpPage> done) = 0;

  /// Combined hashes for a DHT model. Errc::invalid_argument: ranges that overlap, are not in order or end before they
  /// start. *Rationale*: one call with all that is asked for, so that a store can keep the sums; the shipped ones
  /// compute them from their entries.
  virtual void sum_ops(OpSumsQuery query, Handler<OpSumsPage> done) = 0;

  /// Ids of ops with location in `arc` and created in [start, end), by (created_at, id).
  virtual void retrieve_op_hashes_in_time_slice(DhtArc arc, Timestamp start, Timestamp end,
                                                Handler<OpIdsInSlice> done) = 0;

  /// Ids of ops in `arc` stored at or after `start`, by time of storing, up to the limits. An op that is larger than
  /// the limit is not given, as in the reference: the caller that wants it raises its limit.
  virtual void retrieve_op_ids_bounded(OpIdsQuery query, Handler<OpIdsBounded> done) = 0;
  /// The same with the reference's arguments.
  void retrieve_op_ids_bounded(DhtArc arc, Timestamp start, std::uint32_t limit_bytes, Handler<OpIdsBounded> done) {
    retrieve_op_ids_bounded(OpIdsQuery{arc, start, limit_bytes, SIZE_MAX, {}}, std::move(done));
  }

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
  /// that are there. Errc::overloaded: S12.
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
  /// The same in pieces of about `limit` ids, for a start that does not hold all of them in memory at once. `after`: 0,
  /// then `next` of the page before. A pair may come more than once. Default: all in one page.
  virtual void retrieve_pending_page(std::uint64_t /*after*/, std::size_t /*limit*/, Handler<PendingPage> done) {
    retrieve_pending([done = std::move(done)](Result<std::vector<std::pair<Url, std::vector<OpId>>>> all) {
      if (!all) return done(all.error());
      done(PendingPage{std::move(*all), std::nullopt});
    });
  }

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
