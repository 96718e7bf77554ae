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

/// An op that a store did not accept.
struct RejectedOp {
  std::size_t index = 0;  ///< its index in the call
  Error reason;           ///< the policy's, or Errc::too_large
};

/// The outcome for the ops of one call.
struct ProcessedOps {
  static constexpr std::size_t kMostRejections = 8;

  /// Durable now, in the order given. Includes ops that were held already, from an earlier call or an earlier place in
  /// this one: the first bytes and time of an id stay, and `created_at` is that of the held op.
  std::vector<StoredOp> stored;
  std::vector<OpId> newly_stored;  ///< those of `stored` that were not held before, each id once
  std::uint64_t bytes_stored = 0;  ///< payload bytes of `newly_stored`
  std::size_t rejected = 0;        ///< ops that failed the policy or are too large
  /// The first kMostRejections of the rejected ops, with the reason. *Rationale*: enough to say what is wrong, while a
  /// peer's flood of bad ops cannot become a flood of texts.
  std::vector<RejectedOp> rejections;

  void reject(std::size_t index, Error reason) {
    if (++rejected <= kMostRejections) rejections.push_back({index, std::move(reason)});
  }
};

/// An op as stores report and list it.
struct OpRecord {
  OpId op_id;
  Timestamp created_at;
  std::uint32_t location = 0;  ///< by the policy
  std::uint64_t size = 0;      ///< of its bytes
  friend bool operator==(const OpRecord&, const OpRecord&) = default;
};

/// Events that a store reports on its own. All callbacks run on the strand.
struct OpStoreEvents {
  /// New ops are durable. Every op that the store accepts is reported once, whoever stored it, in the order of the
  /// commits and of the ops in a call; the ops of a call are reported before its handler runs.
  std::function<void(const std::vector<OpRecord>& ops)> ops_stored = {};
  /// Ops were found damaged on the disk (their bytes do not have their ids) and are no longer held. Time, location and
  /// size are those reported when they were stored, as far as they can still be read. To get the ops back, request them
  /// again: they are stored like new ones. An empty list: any op may be gone or new, since another program has changed
  /// the store.
  std::function<void(const std::vector<OpRecord>& ops)> ops_damaged = {};
};

/// Where a listing continues. Listings are in the order of creation, then of storing. An op keeps its place as long as
/// it is held, also over restarts.
struct OpCursor {
  Timestamp created_at;
  Timestamp stored_at;
  friend auto operator<=>(const OpCursor&, const OpCursor&) = default;
};

/// Selects the ops in `arc` that were created in [start, end).
struct OpListQuery {
  DhtArc arc = DhtArc::full();
  Timestamp start = Timestamp::min();
  Timestamp end = Timestamp::max();
  std::optional<OpCursor> after = {};  ///< `next` of the previous page
  std::size_t limit = 1024;            ///< the most ops in a page
  std::stop_token stop = {};
};
struct OpPage {
  std::vector<OpRecord> ops;
  /// Pass this as `after` to get the next page; nullopt: this was the last one. A page may be short or even empty
  /// without being the last, because a call looks at `OpStore::kMostLookedAt` ops at most.
  std::optional<OpCursor> next;
};

/// A set of the 512 sectors of the ring; sector s holds the locations from s × 2^23 on.
using OpSectors = std::bitset<512>;

/// The ops that were created in [start, end).
struct TimeRange {
  Timestamp start, end;
  friend bool operator==(const TimeRange&, const TimeRange&) = default;
};

/// Selects the combined hashes of the ops in `sectors`, for each sector and each of `ranges`.
struct OpSumsQuery {
  OpSectors sectors = {};
  std::vector<TimeRange> ranges = {};  ///< in order, without overlaps
  std::optional<OpCursor> after = {};  ///< `next` of the previous page
  std::stop_token stop = {};
};
struct OpSum {
  std::uint32_t sector = 0;
  std::uint32_t range = 0;  ///< index in `ranges`
  /// The XOR of the ids; shorter ids count as if padded with zeros.
  Bytes hash;
  std::uint64_t ops = 0;  ///< never 0: without ops there is no sum
  friend bool operator==(const OpSum&, const OpSum&) = default;
};
struct OpSumsPage {
  std::vector<OpSum> sums;  ///< by (range, sector), each pair once
  /// More follows; see OpPage::next. A pair may be in several pages: combine the hashes by XOR and add the counts.
  std::optional<OpCursor> next;
};

/// What a DHT model keeps of all ops of a store: combined hash and number of the ops in each sector and stretch of time
/// that hold an op.
struct DhtSums {
  struct Cell {
    std::int64_t first_unit = 0;  ///< where the stretch begins, in units of 15 minutes since 1970
    std::uint32_t units = 1;      ///< its length: 1, or 512 for a full slice
    std::uint32_t sector = 0;
    std::uint64_t ops = 0;  ///< never 0
    friend bool operator==(const Cell&, const Cell&) = default;
  };
  std::vector<Cell> cells;           ///< by time, then by sector; full slices come first, and nothing overlaps
  std::vector<std::uint8_t> hashes;  ///< the XOR of the ids of each cell, in the order of `cells`
  std::size_t id_bytes = 0;          ///< the length of each id, and so of each hash; 0: there are no ops
  std::uint64_t apart = 0;           ///< ops in no cell: created before 1970, or with a damaged entry

  ByteView hash(std::size_t cell) const { return ByteView(hashes).subspan(cell * id_bytes, id_bytes); }
  friend bool operator==(const DhtSums&, const DhtSums&) = default;
};

/// Selects the ops in `arc` that were stored at or after `start`.
struct OpIdsQuery {
  DhtArc arc = DhtArc::full();
  Timestamp start;
  std::uint64_t limit_bytes = UINT32_MAX;  ///< the most bytes of payload
  std::size_t limit_ids = SIZE_MAX;        ///< the most ids
  std::stop_token stop = {};
};

struct OpIdsInSlice {
  std::vector<OpId> op_ids;
  std::uint64_t bytes = 0;  ///< payload bytes of these ops
};

struct OpIdsBounded {
  std::vector<OpId> op_ids;
  std::uint64_t bytes = 0;
  /// Where the next call continues: pass it as `start`. If a limit cut the list, the time when the first op left out
  /// was stored; otherwise just after the last op of the whole store, whatever its arc. Always greater than 0, also if
  /// the store or the arc is empty. No op that is stored later has an earlier time of storing, whatever the wall clock
  /// does.
  Timestamp next;
  /// A limit left ops out. *Rationale*: the caller then asks for the rest at once, and otherwise when it is due.
  bool cut = false;
};

/// A part of the open requests.
struct PendingPage {
  std::vector<std::pair<Url, std::vector<OpId>>> requests;  ///< by source
  std::optional<std::uint64_t> next;  ///< pass this to get the next page; nullopt: this was the last
};

struct OpStoreStats {
  std::uint64_t ops = 0;      ///< ops held
  std::uint64_t bytes = 0;    ///< bytes of their payload
  std::uint64_t damaged = 0;  ///< found damaged since the store was opened, and dropped
  /// Found since the store was opened: entries with a wrong size, time or location whose bytes had their id. The op is
  /// returned, and its entry is corrected.
  std::uint64_t mended = 0;
};

/// Durable storage for the ops of a space, and for its open fetch requests, so that a restart resumes them.
///
/// *Rules*.
///  S1  Once a handler reports success for an op, the op survives a crash of the process and of the machine (except in
///      the memory store).
///  S2  Writes complete in the order in which they were called.
///  S3  Requested ids that are not held are left out; they are not an error.
///  S4  If a call fails, nothing of it is stored, and it can be repeated.
///  S5  A read that is called after the handler of a write sees the write.
///  S6  Times of storing never go back, and those of a call are later than those of earlier calls. They follow the wall
///      clock where that allows it; the clock may stand still, jump back, and show the smallest or largest Timestamp.
///  S7  An op larger than the store's limit (`max_op_bytes` in the shipped stores) is rejected; one held from a time
///      with a higher limit is returned like any other.
///  S8  Every op that becomes held is reported by exactly one `ops_stored`; callers report nothing.
///  S9  Bytes read from a disk are returned only if they have their id by the policy. An op whose bytes do not, or
///      whose entry is damaged, fails no call: it is left out as if it were not held, dropped, and reported by
///      `ops_damaged`.
///  S10 A query with a `stop` ends soon after it with Errc::cancelled, and does not delay the calls that wait before
///      it.
///  S11 A list, a sum or a page of requests is bounded by what one call looks at, however much the store holds.
///  S12 Durable requests are kept once and bounded in bytes: beyond that, `add_pending` is Errc::overloaded and keeps
///      nothing of the call; earlier requests stay. *Reason*: the oldest requests are those that were promised; a peer
///      that announces more and more ops must not push them out.
///  S13 At most `max_pending_write_bytes` wait for the writer. Further calls get Errc::overloaded at once, before the
///      writes that wait, and the caller keeps the ops.
/// `kitsune2/testing/op_store_suite.hpp` tests all of this for any implementation.
///
/// *Errors*: Errc::io, Errc::disk_full, Errc::corrupt (a page of the file is damaged; the message says what to do).
/// *Threads*: strand only; handlers run on the strand, and those of a destroyed store are dropped. The runtime must
/// outlive the store. Rust counterpart: `OpStore` of kitsune2_api 0.2.2, with the same names.
class OpStore {
 public:
  /// The most ops that one `list_ops` or `sum_ops` looks at.
  static constexpr std::size_t kMostLookedAt = 65'536;

  virtual ~OpStore() = default;

  /// Calls `events` for everything from now on, until the returned token is dropped, and for nothing after that.
  /// Listeners are called in the order of subscribing; they may call the store, subscribe, and drop tokens. To learn of
  /// every op, subscribe first and then read what is held; some ops may come both ways.
  virtual std::shared_ptr<void> subscribe(OpStoreEvents events) = 0;

  /// Finishes the pending writes and closes the store's files, so that another store can open them. Reads that wait
  /// complete with Errc::cancelled, as does every later call. Blocks until the disk has the writes. For stores
  /// whose owner may live longer than they are needed. No-op if closed. Default: no effect, for a store without
  /// files.
  virtual void close() {}

  /// Computes the ids of `ops`, checks and stores them. Ops that fail the policy are counted in `rejected`, the first
  /// ones with the reason; the others are stored all the same. The same transaction removes the pending entries of the
  /// stored ops.
  virtual void process_incoming_ops(std::vector<Bytes> ops, Handler<ProcessedOps> done) = 0;

  /// The same for ops whose ids the caller has computed with this store's policy (fetch hashes only once). A wrong id
  /// is found by a check, or when the op is read after the store was reopened; it counts as damage then.
  virtual void store_described_ops(std::vector<std::pair<OpDescription, Bytes>> ops, Handler<ProcessedOps> done) = 0;

  /// The same for fetched ops of which some came with metadata. For a host's store that wants it. Default, and in the
  /// shipped stores: `store_described_ops`, so the metadata is not kept, as in the reference's own store.
  virtual void store_incoming_ops(std::vector<IncomingOp> ops, Handler<ProcessedOps> done) {
    std::vector<std::pair<OpDescription, Bytes>> plain;
    plain.reserve(ops.size());
    for (IncomingOp& op : ops) plain.emplace_back(std::move(op.description), std::move(op.op_data));
    store_described_ops(std::move(plain), std::move(done));
  }

  /// Returns the held ones among `op_ids`, in the order given, each at most once. Stops before the op that would exceed
  /// `max_bytes` (but returns at least one); the caller asks again for the rest.
  virtual void retrieve_ops(std::vector<OpId> op_ids, std::uint64_t max_bytes, Handler<std::vector<MetaOp>> done) = 0;

  /// Returns those of `op_ids` that are not held, in the order given.
  virtual void filter_out_existing_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) = 0;

  /// Reads those of `op_ids` that are held and checks their bytes. Returns those that are not held or were damaged (and
  /// dropped, S9), in the order given. For callers that have the bytes and can store them again. Default:
  /// `filter_out_existing_ops`, for a store whose ops cannot be damaged.
  virtual void filter_out_intact_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) {
    filter_out_existing_ops(std::move(op_ids), std::move(done));
  }

  /// Lists held ops by pages, in the order of OpCursor. Errc::invalid_argument: the limit is 0.
  virtual void list_ops(OpListQuery query, Handler<OpPage> done) = 0;

  /// Returns combined hashes for a DHT model. Errc::invalid_argument: ranges overlap, are not in order, or end before
  /// they start. *Rationale*: one call asks for all sums, so that a store can keep them; the shipped stores compute
  /// them from their entries.
  virtual void sum_ops(OpSumsQuery query, Handler<OpSumsPage> done) = 0;

  /// Returns the sums of all ops for a DHT model, if the store keeps them: a start then need not read every op. They
  /// are those of one moment: listeners have been told of the ops in them (`ops_stored`) before the handler runs, and
  /// are told of all others after it. The first call may have to read all ops, in pieces between other calls. After an
  /// error, list the ops. Returns false, and the handler does not run, if the store keeps no sums. Default: it does
  /// not.
  [[nodiscard]] virtual bool retrieve_dht_sums(Handler<DhtSums> /*done*/) { return false; }

  /// Returns the ids of the ops in `arc` that were created in [start, end), ordered by (created_at, id).
  virtual void retrieve_op_hashes_in_time_slice(DhtArc arc, Timestamp start, Timestamp end,
                                                Handler<OpIdsInSlice> done) = 0;

  /// Returns the ids of the ops in `arc` that were stored at or after `start`, by time of storing, up to the limits. As
  /// in the reference, an op larger than the limit is not returned: a caller that wants it raises the limit.
  virtual void retrieve_op_ids_bounded(OpIdsQuery query, Handler<OpIdsBounded> done) = 0;
  /// The same with the reference's arguments.
  void retrieve_op_ids_bounded(DhtArc arc, Timestamp start, std::uint32_t limit_bytes, Handler<OpIdsBounded> done) {
    retrieve_op_ids_bounded(OpIdsQuery{arc, start, limit_bytes, SIZE_MAX, {}}, std::move(done));
  }

  /// Returns the smallest created_at in `arc`; nullopt if no op is in it.
  virtual void earliest_timestamp_in_arc(DhtArc arc, Handler<std::optional<Timestamp>> done) = 0;

  /// Keeps the combined hash of a full time slice for the DHT model, replacing an earlier one. Errc::invalid_argument:
  /// an empty arc, an empty hash, an index over 2^63 - 1.
  virtual void store_slice_hash(DhtArc arc, std::uint64_t slice_index, Bytes slice_hash, Handler<> done) = 0;
  /// Returns the highest stored slice index plus 1, or 0 if there is none.
  virtual void slice_hash_count(DhtArc arc, Handler<std::uint64_t> done) = 0;
  virtual void retrieve_slice_hash(DhtArc arc, std::uint64_t slice_index, Handler<std::optional<Bytes>> done) = 0;
  virtual void retrieve_slice_hashes(DhtArc arc, Handler<std::vector<std::pair<std::uint64_t, Bytes>>> done) = 0;

  /// Remembers (or forgets) that `op_ids` are to be fetched from `source`. No effect for ops that are held, nor for
  /// pairs that are there already. Errc::overloaded: S12.
  virtual void add_pending(std::vector<OpId> op_ids, Url source, Handler<> done) = 0;
  virtual void remove_pending_source(Url source, Handler<> done) = 0;
  /// Forgets that `op_ids` are to be fetched from `source`. No effect for pairs that are not there. Default: no effect;
  /// the pairs are requested again after a restart.
  virtual void remove_pending(std::vector<OpId> op_ids, Url source, Handler<> done) {
    op_ids.clear();
    add_pending(std::move(op_ids), std::move(source), std::move(done));
  }
  /// Returns all pairs by source, each once, in no particular order.
  virtual void retrieve_pending(Handler<std::vector<std::pair<Url, std::vector<OpId>>>> done) = 0;
  /// The same in pages of about `limit` ids, so that a start need not hold all of them in memory. `after`: 0, then
  /// `next` of the previous page. A pair may occur more than once. Default: all in one page.
  virtual void retrieve_pending_page(std::uint64_t /*after*/, std::size_t /*limit*/, Handler<PendingPage> done) {
    retrieve_pending([done = std::move(done)](Result<std::vector<std::pair<Url, std::vector<OpId>>>> all) {
      if (!all) return done(all.error());
      done(PendingPage{std::move(*all), std::nullopt});
    });
  }

  virtual void stats(Handler<OpStoreStats> done) = 0;

  virtual const OpPolicy& policy() const = 0;

  /// Whether ops outlive the process. If not, keeping open requests here is of no use.
  virtual bool is_durable() const { return true; }
};

/// Keeps everything in memory: for tests, caches and nodes that need no durability. Rejects ops larger than
/// `max_op_bytes`.
std::shared_ptr<OpStore> make_memory_op_store(Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                                              std::uint64_t max_op_bytes = kDefaultMaxOpBytes);

}  // namespace kitsune2
