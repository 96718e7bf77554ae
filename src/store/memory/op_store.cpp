// The op store that keeps everything in memory.
#include <algorithm>
#include <array>
#include <boost/unordered/unordered_flat_set.hpp>
#include <map>
#include <memory>
#include <new>
#include <utility>

#include "core/buffer.hpp"
#include "core/callback.hpp"
#include "core/subscribers.hpp"
#include "kitsune2/op_store.hpp"
#include "store/memory/id_table.hpp"
#include "store/memory/lazy_index.hpp"
#include "store/op_limit.hpp"
#include "store/op_sums.hpp"
#include "store/pending_sources.hpp"
#include "store/slice_hash_rules.hpp"
#include "store/stored_clock.hpp"

namespace kitsune2 {
namespace {

using store::IdTable;
using store::LazyIndex;

/// One op. Records are appended in the order of storing, so their numbers order them by `stored_at` too.
struct Record {
  OpId op_id;
  Timestamp created_at;
  Timestamp stored_at;
  const std::uint8_t* data = nullptr;
  std::uint32_t size = 0;
  std::uint32_t block = 0;  ///< what keeps `data` alive
  std::uint32_t loc = 0;

  ByteView view() const { return {data, size}; }
};

/// How much of each kind (records, payloads) a store holds in small pages. A block of one huge page is resident as a
/// whole, so that at most half as much again is never used.
constexpr std::size_t kSmallPages = 4U << 20;
/// The most ids for which a query reserves room at first.
constexpr std::size_t kMostReserved = 4096;

/// Memory for a store that grows. What comes first is made resident page by page, as it is used, since many stores stay
/// small; what comes later, in blocks of one huge page, which cost a quarter of the same memory in small pages.
std::shared_ptr<std::uint8_t[]> more_memory(bool is_huge, std::size_t size) {
  // The heap's, which aligns it for everything.
  if (!is_huge) return {new std::uint8_t[size], std::default_delete<std::uint8_t[]>()};
  return make_buffer(kHugePage);
}

/// Records that never move, in chunks: growing copies nothing.
class Records {
 public:
  Records() = default;
  Records(const Records&) = delete;
  Records& operator=(const Records&) = delete;
  ~Records() {
    for (std::uint32_t i = 0; i < size_; ++i) at(i)->~Record();
  }

  std::uint32_t size() const { return size_; }
  const Record& operator[](std::uint32_t i) const { return *std::launder(at(i)); }
  Record& append() {
    if (size_ == chunks_.size() * kChunk) add_chunks();
    return *::new (static_cast<void*>(at(size_++))) Record;
  }

 private:
  static constexpr std::uint32_t kChunk = 4096;
  static constexpr std::size_t kChunkBytes = kChunk * sizeof(Record);
  static constexpr std::size_t kSmallChunks = kSmallPages / kChunkBytes;  ///< that have a block of their own
  static_assert(kChunkBytes <= kHugePage);

  Record* at(std::uint32_t i) const { return chunks_[i / kChunk] + i % kChunk; }
  void add_chunks() {
    const bool is_huge = chunks_.size() >= kSmallChunks;
    const auto& block = blocks_.emplace_back(more_memory(is_huge, kChunkBytes));
    K2_ASSERT(reinterpret_cast<std::uintptr_t>(block.get()) % alignof(Record) == 0);
    for (std::size_t used = 0; used + kChunkBytes <= (is_huge ? kHugePage : kChunkBytes); used += kChunkBytes) {
      chunks_.push_back(reinterpret_cast<Record*>(block.get() + used));
    }
  }

  std::vector<std::shared_ptr<std::uint8_t[]>> blocks_;
  std::vector<Record*> chunks_;
  std::uint32_t size_ = 0;
};

/// The payload bytes. An op that is a slice of a message would keep the whole message alive. So ops below `kShareFrom`
/// are copied, one after the other, into blocks (without an allocation per op); larger ones are kept as they are, where
/// a copy would cost more than the rest of the message is likely to weigh.
class Payloads {
 public:
  static constexpr std::size_t kShareFrom = 64U << 10;

  void put(const Bytes& bytes, Record& record) {
    record.size = static_cast<std::uint32_t>(bytes.size());
    if (bytes.empty()) return;
    if (bytes.size() >= kShareFrom) {
      record.data = bytes.data();
      record.block = static_cast<std::uint32_t>(owners_.size());
      owners_.push_back(std::make_shared<Bytes>(bytes));
      return;
    }
    if (bytes.size() > left_) {
      const bool is_huge = held_ >= kSmallPages;
      auto block = more_memory(is_huge, kSmallBlock);
      free_ = block.get();
      left_ = is_huge ? kHugePage : kSmallBlock;
      held_ += left_;
      current_ = static_cast<std::uint32_t>(owners_.size());
      owners_.push_back(std::move(block));
    }
    std::memcpy(free_, bytes.data(), bytes.size());
    record.data = free_;
    record.block = current_;
    free_ += bytes.size();
    left_ -= bytes.size();
  }

  Bytes get(const Record& record) const {
    if (record.size == 0) return {};
    return Bytes::share(owners_[record.block], record.view());
  }

 private:
  static constexpr std::size_t kSmallBlock = 1U << 20;
  std::vector<std::shared_ptr<const void>> owners_;
  std::size_t held_ = 0;  ///< bytes of the blocks
  std::uint8_t* free_ = nullptr;
  std::size_t left_ = 0;
  std::uint32_t current_ = 0;
};

/// The records that an answer has already. As long as they come in rising order, as ops that were stored together do,
/// none is looked up.
class Given {
 public:
  explicit Given(std::size_t most) { rising_.reserve(most); }

  /// Returns false if it was added before.
  bool add(std::uint32_t record) {
    if (is_rising_ && (rising_.empty() || record > rising_.back())) {
      rising_.push_back(record);
      return true;
    }
    if (std::exchange(is_rising_, false)) all_.insert(rising_.begin(), rising_.end());
    return all_.insert(record).second;
  }

 private:
  bool is_rising_ = true;
  std::vector<std::uint32_t> rising_;
  boost::unordered_flat_set<std::uint32_t> all_;
};

/// The hashes of the ids of a list, in order. The table is told of each a few look-ups before: in a large table each of
/// them would otherwise wait for memory.
template <class IdAt>
class Hashes {
 public:
  Hashes(const IdTable& table, std::size_t size, IdAt id_at) : table_(table), size_(size), id_at_(std::move(id_at)) {
    while (ahead_ < std::min(IdTable::kAhead, size_)) expect_one();
  }

  std::uint64_t next() {
    const std::uint64_t out = hashes_[next_++ % IdTable::kAhead];
    if (ahead_ < size_) expect_one();
    return out;
  }

 private:
  void expect_one() {
    const std::uint64_t hash = keyed_hash(id_at_(ahead_));
    table_.expect(hash);
    hashes_[ahead_++ % IdTable::kAhead] = hash;
  }

  const IdTable& table_;
  const std::size_t size_;
  const IdAt id_at_;
  std::array<std::uint64_t, IdTable::kAhead> hashes_{};
  std::size_t next_ = 0;
  std::size_t ahead_ = 0;
};

/// The order of OpCursor.
struct ByTime {
  const Records* records;
  bool operator()(std::uint32_t a, std::uint32_t b) const {
    const Record& x = (*records)[a];
    const Record& y = (*records)[b];
    return x.created_at != y.created_at ? x.created_at < y.created_at : a < b;
  }
};

/// The order of time slices.
struct ByTimeAndId {
  const Records* records;
  bool operator()(std::uint32_t a, std::uint32_t b) const {
    const Record& x = (*records)[a];
    const Record& y = (*records)[b];
    return x.created_at != y.created_at ? x.created_at < y.created_at : x.op_id < y.op_id;
  }
};

struct ByPlace {
  const Records* records;
  bool operator()(std::uint32_t a, std::uint32_t b) const { return (*records)[a].loc < (*records)[b].loc; }
};

using Hits = std::vector<std::span<const std::uint32_t>>;

std::size_t count_of(const Hits& hits) {
  std::size_t n = 0;
  for (const auto& run : hits) n += run.size();
  return n;
}

class MemoryOpStore final : public OpStore {
 public:
  MemoryOpStore(Runtime& runtime, std::shared_ptr<const OpPolicy> policy, std::uint64_t max_op_bytes)
      : runtime_(runtime),
        policy_(std::move(policy)),
        max_op_bytes_(std::min<std::uint64_t>(max_op_bytes, UINT32_MAX)),
        by_time_(ByTime{&records_}),
        by_place_(ByPlace{&records_}) {}

  std::shared_ptr<void> subscribe(OpStoreEvents events) override {
    assert_on_strand(runtime_, "OpStore::subscribe");
    return events_.add(std::move(events));
  }

  void process_incoming_ops(std::vector<Bytes> ops, Handler<ProcessedOps> done) override {
    assert_on_strand(runtime_, "OpStore::process_incoming_ops");
    ProcessedOps out;
    out.stored.reserve(ops.size());
    out.newly_stored.reserve(ops.size());
    const Timestamp now = runtime_.wall_now();
    for (std::size_t i = 0; i < ops.size(); ++i) {
      if (auto description = describe(ops[i])) {
        store(*description, keyed_hash(description->op_id), ops[i], now, out);
      } else {
        out.reject(i, description.error());
      }
    }
    stored(std::move(done), std::move(out));
  }

  void store_described_ops(std::vector<std::pair<OpDescription, Bytes>> ops, Handler<ProcessedOps> done) override {
    ProcessedOps out;
    out.stored.reserve(ops.size());
    out.newly_stored.reserve(ops.size());
    const Timestamp now = runtime_.wall_now();
    Hashes hashes(ids_, ops.size(), [&](std::size_t i) { return ops[i].first.op_id.view(); });
    for (std::size_t i = 0; i < ops.size(); ++i) {
      const auto& [description, op] = ops[i];
      const std::uint64_t hash = hashes.next();
      if (auto fits = store::check_op_size(op.size(), max_op_bytes_)) {
        store(description, hash, op, now, out);
      } else {
        out.reject(i, fits.error());
      }
    }
    stored(std::move(done), std::move(out));
  }

  void retrieve_ops(std::vector<OpId> op_ids, std::uint64_t max_bytes, Handler<std::vector<MetaOp>> done) override {
    std::vector<MetaOp> out;
    out.reserve(op_ids.size());
    std::uint64_t bytes = 0;
    Given given(op_ids.size());
    std::uint32_t next = 0;
    for (const OpId& op_id : op_ids) {
      // Ops that were stored together are mostly asked for together: the next record is looked at before the table.
      const bool is_next = next < records_.size() && records_[next].op_id == op_id;
      const auto found = is_next ? std::optional(next) : find(op_id);
      if (!found) continue;
      next = *found + 1;
      if (!given.add(*found)) continue;
      const Record& record = records_[*found];
      if (!out.empty() && bytes + record.size > max_bytes) break;
      bytes += record.size;
      out.push_back({record.op_id, payloads_.get(record)});
    }
    complete<std::vector<MetaOp>>(std::move(done), std::move(out));
  }

  void filter_out_existing_ops(std::vector<OpId> op_ids, Handler<std::vector<OpId>> done) override {
    Hashes hashes(ids_, op_ids.size(), [&](std::size_t i) { return op_ids[i].view(); });
    std::erase_if(op_ids, [&](const OpId& id) { return find(id, hashes.next()).has_value(); });
    complete<std::vector<OpId>>(std::move(done), std::move(op_ids));
  }

  void retrieve_op_hashes_in_time_slice(DhtArc arc, Timestamp start, Timestamp end,
                                        Handler<OpIdsInSlice> done) override {
    OpIdsInSlice out;
    if (!arc.empty() && start < end) {
      const auto early = [&](std::uint32_t i) { return records_[i].created_at < start; };
      const auto late = [&](std::uint32_t i) { return records_[i].created_at >= end; };
      by_time_.update(records_.size());
      const Hits in_time = by_time_.range(early, late);
      std::vector<std::uint32_t> found;
      const Hits in_place = arc.is_full() ? Hits{} : place_hits(arc);
      if (arc.is_full() || count_of(in_time) <= count_of(in_place)) {
        collect(in_time, found, [&](std::uint32_t i) { return arc.contains(records_[i].loc); });
      } else {
        collect(in_place, found, [&](std::uint32_t i) { return !early(i) && !late(i); });
      }
      std::sort(found.begin(), found.end(), ByTimeAndId{&records_});
      out.op_ids.reserve(found.size());
      for (const std::uint32_t i : found) {
        out.op_ids.push_back(records_[i].op_id);
        out.bytes += records_[i].size;
      }
    }
    complete<OpIdsInSlice>(std::move(done), std::move(out));
  }

  void list_ops(OpListQuery query, Handler<OpPage> done) override { complete<OpPage>(std::move(done), list(query)); }

  void sum_ops(OpSumsQuery query, Handler<OpSumsPage> done) override {
    complete<OpSumsPage>(std::move(done), sum(query));
  }

  using OpStore::retrieve_op_ids_bounded;
  void retrieve_op_ids_bounded(OpIdsQuery query, Handler<OpIdsBounded> done) override {
    if (query.stop.stop_requested()) return complete<OpIdsBounded>(std::move(done), store::stopped());
    OpIdsBounded out;
    out.next = clock_.bookmark();
    const std::uint32_t first = first_stored_at(query.start);
    // Not for all that could come: the limit of bytes may end it much earlier.
    if (query.arc.is_full()) {
      out.op_ids.reserve(std::min<std::size_t>({query.limit_ids, records_.size() - first, kMostReserved}));
    }
    for (std::uint32_t i = first; i < records_.size() && !query.arc.empty(); ++i) {
      const Record& record = records_[i];
      if (!query.arc.contains(record.loc)) continue;
      if (out.bytes + record.size > query.limit_bytes || out.op_ids.size() >= query.limit_ids) {
        out.next = record.stored_at;
        out.cut = true;
        break;
      }
      out.bytes += record.size;
      out.op_ids.push_back(record.op_id);
    }
    complete<OpIdsBounded>(std::move(done), std::move(out));
  }

  void earliest_timestamp_in_arc(DhtArc arc, Handler<std::optional<Timestamp>> done) override {
    complete<std::optional<Timestamp>>(std::move(done), earliest(arc));
  }

  void store_slice_hash(DhtArc arc, std::uint64_t slice_index, Bytes slice_hash, Handler<> done) override {
    Result<void> out = store::check_slice_hash(arc, slice_index, slice_hash);
    if (out) slice_hashes_[{arc.start(), arc.end()}][slice_index] = slice_hash.compact();
    complete<void>(std::move(done), std::move(out));
  }

  void slice_hash_count(DhtArc arc, Handler<std::uint64_t> done) override {
    const auto* hashes = slice_hashes_of(arc);
    complete<std::uint64_t>(std::move(done), hashes == nullptr ? 0 : hashes->rbegin()->first + 1);
  }

  void retrieve_slice_hash(DhtArc arc, std::uint64_t slice_index, Handler<std::optional<Bytes>> done) override {
    std::optional<Bytes> out;
    if (const auto* hashes = slice_hashes_of(arc)) {
      if (const auto it = hashes->find(slice_index); it != hashes->end()) out = it->second;
    }
    complete<std::optional<Bytes>>(std::move(done), std::move(out));
  }

  void retrieve_slice_hashes(DhtArc arc, Handler<std::vector<std::pair<std::uint64_t, Bytes>>> done) override {
    std::vector<std::pair<std::uint64_t, Bytes>> out;
    if (const auto* hashes = slice_hashes_of(arc)) out.assign(hashes->begin(), hashes->end());
    complete<std::vector<std::pair<std::uint64_t, Bytes>>>(std::move(done), std::move(out));
  }

  void add_pending(std::vector<OpId> op_ids, Url source, Handler<> done) override {
    for (const OpId& op_id : op_ids) {
      if (!find(op_id)) pending_.add(op_id, source);
    }
    complete<void>(std::move(done), Result<void>());
  }

  void remove_pending_source(Url source, Handler<> done) override {
    pending_.remove_source(source);
    complete<void>(std::move(done), Result<void>());
  }

  void remove_pending(std::vector<OpId> op_ids, Url source, Handler<> done) override {
    for (const OpId& op_id : op_ids) pending_.remove(op_id, source);
    complete<void>(std::move(done), Result<void>());
  }

  void retrieve_pending(Handler<std::vector<std::pair<Url, std::vector<OpId>>>> done) override {
    complete<std::vector<std::pair<Url, std::vector<OpId>>>>(std::move(done), pending_.all());
  }

  void stats(Handler<OpStoreStats> done) override {
    complete<OpStoreStats>(std::move(done), OpStoreStats{records_.size(), bytes_});
  }

  const OpPolicy& policy() const override { return *policy_; }
  bool is_durable() const override { return false; }

 private:
  /// Reports what is new in `out`, then has the handler run.
  void stored(Handler<ProcessedOps> done, ProcessedOps out) {
    if (!out.newly_stored.empty()) {
      const std::uint32_t end = records_.size();
      const std::uint32_t begin = end - static_cast<std::uint32_t>(out.newly_stored.size());
      runtime_.post(lifetime_.guard([this, begin, end] { tell_stored(begin, end); }));
    }
    complete<ProcessedOps>(std::move(done), std::move(out));
  }

  /// Records never change, so those from `begin` to `end` are read only now.
  void tell_stored(std::uint32_t begin, std::uint32_t end) {
    std::vector<OpRecord> records;
    records.reserve(end - begin);
    for (std::uint32_t i = begin; i < end; ++i) records.push_back(record_of(records_[i]));
    events_.tell([&](const OpStoreEvents& events) {
      if (events.ops_stored) call_application("OpStoreEvents::ops_stored", [&] { events.ops_stored(records); });
    });
  }

  static OpRecord record_of(const Record& record) { return {record.op_id, record.created_at, record.loc, record.size}; }

  /// The records created in [start, end) after the cursor, in the order of OpCursor, at most `kMostLookedAt`.
  std::vector<std::uint32_t> created_in(Timestamp start, Timestamp end, const std::optional<OpCursor>& after,
                                        std::size_t most) {
    by_time_.update(records_.size());
    const auto early = [&](std::uint32_t i) {
      const Record& record = records_[i];
      return record.created_at < start || (after && OpCursor{record.created_at, record.stored_at} <= *after);
    };
    std::vector<std::uint32_t> out;
    for (const auto& run : by_time_.range(early, [&](std::uint32_t i) { return records_[i].created_at >= end; })) {
      const auto n = std::min(run.size(), most);
      const auto middle = static_cast<std::ptrdiff_t>(out.size());
      out.insert(out.end(), run.begin(), run.begin() + static_cast<std::ptrdiff_t>(n));
      std::inplace_merge(out.begin(), out.begin() + middle, out.end(), ByTime{&records_});
      out.resize(std::min(out.size(), most));
    }
    return out;
  }

  Result<OpPage> list(const OpListQuery& query) {
    if (query.limit == 0) return make_error(Errc::invalid_argument, "a list of at most 0 ops");
    if (query.stop.stop_requested()) return store::stopped();
    OpPage out;
    if (query.arc.empty() || query.start >= query.end) return out;
    const auto found = created_in(query.start, query.end, query.after, kMostLookedAt);
    for (const std::uint32_t i : found) {
      const Record& record = records_[i];
      const OpCursor at{record.created_at, record.stored_at};
      if (query.arc.contains(record.loc)) out.ops.push_back(record_of(record));
      // A full page may be the last one: the next one says so.
      if (out.ops.size() == query.limit || (i == found.back() && found.size() == kMostLookedAt)) {
        out.next = at;
        break;
      }
    }
    return out;
  }

  Result<OpSumsPage> sum(const OpSumsQuery& query) {
    store::OpSums sums(query);
    if (auto ok = sums.check(); !ok) return ok.error();
    std::size_t left = kMostLookedAt;
    while (left > 0 && sums.next_range()) {
      --left;
      const auto found = created_in(sums.range().start, sums.range().end, query.after, left);
      for (const std::uint32_t i : found) {
        const Record& record = records_[i];
        sums.add(record.loc, record.op_id.view());
        sums.passed({record.created_at, record.stored_at});
      }
      left -= found.size();
      if (query.stop.stop_requested()) return store::stopped();
    }
    return sums.page(left == 0);
  }

  template <class T>
  void complete(Handler<T> done, Result<T> result) {
    assert_on_strand(runtime_, "a member of OpStore");
    runtime_.post([alive = lifetime_.weak(), done = std::move(done), result = std::move(result)]() mutable {
      if (const auto hold = alive.lock()) done(std::move(result));
    });
  }

  std::optional<std::uint32_t> find(const OpId& op_id) const { return find(op_id, keyed_hash(op_id.view())); }
  std::optional<std::uint32_t> find(const OpId& op_id, std::uint64_t hash) const {
    return ids_.find(hash, [&](std::uint32_t i) { return records_[i].op_id == op_id; });
  }

  Result<OpDescription> describe(const Bytes& op) const {
    if (auto fits = store::check_op_size(op.size(), max_op_bytes_); !fits) return fits.error();
    return call_for_result("the op policy", [&] { return policy_->describe(op); });
  }

  /// `hash` is that of its id.
  void store(const OpDescription& description, std::uint64_t hash, const Bytes& op, Timestamp now, ProcessedOps& out) {
    K2_ASSERT(records_.size() < IdTable::kMaxRecords);
    const auto held = ids_.find_or_insert(hash, records_.size(),
                                          [&](std::uint32_t i) { return records_[i].op_id == description.op_id; });
    if (held) {
      out.stored.push_back({records_[*held].created_at, description.op_id});
      return;
    }
    Record& record = records_.append();
    record.op_id = description.op_id;
    record.created_at = description.created_at;
    record.loc = policy_->location(description.op_id.view());
    record.stored_at = clock_.next(now);
    payloads_.put(op, record);
    bytes_ += op.size();
    if (!pending_.empty()) pending_.remove_op(description.op_id);
    out.stored.push_back({description.created_at, description.op_id});
    out.newly_stored.push_back(description.op_id);
    out.bytes_stored += op.size();
  }

  /// The first record stored at or after `start`.
  std::uint32_t first_stored_at(Timestamp start) const {
    std::uint32_t low = 0;
    std::uint32_t high = records_.size();
    while (low < high) {
      const std::uint32_t middle = low + (high - low) / 2;
      if (records_[middle].stored_at < start) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  Hits place_hits(const DhtArc& arc) {
    by_place_.update(records_.size());
    const auto between = [this](std::uint32_t first, std::uint32_t last) {
      return by_place_.range([&](std::uint32_t i) { return records_[i].loc < first; },
                             [&](std::uint32_t i) { return records_[i].loc > last; });
    };
    if (arc.start() <= arc.end()) return between(arc.start(), arc.end());
    if (arc.start() - arc.end() == 1) return between(0, UINT32_MAX);
    Hits out = between(arc.start(), UINT32_MAX);
    for (const auto& run : between(0, arc.end())) out.push_back(run);
    return out;
  }

  template <class Wanted>
  static void collect(const Hits& hits, std::vector<std::uint32_t>& out, Wanted wanted) {
    for (const auto& run : hits) std::copy_if(run.begin(), run.end(), std::back_inserter(out), wanted);
  }

  std::optional<Timestamp> earliest(const DhtArc& arc) {
    std::optional<Timestamp> out;
    if (arc.empty()) return out;
    const auto none = [](std::uint32_t) { return false; };
    const auto offer = [&](std::uint32_t i) {
      if (!out || records_[i].created_at < *out) out = records_[i].created_at;
    };
    // By time up to the first hit (about one step for each arc of this size on the ring), or all of the arc, whichever
    // is probably shorter. With evenly spread ops: by time costs ring/span, by location count*span/ring.
    const double share = (static_cast<double>(arc.span()) + 1) / 4294967296.0;
    if (share * share * records_.size() >= 1) {
      by_time_.update(records_.size());
      for (const auto& run : by_time_.range(none, none)) {
        const auto it =
            std::find_if(run.begin(), run.end(), [&](std::uint32_t i) { return arc.contains(records_[i].loc); });
        if (it != run.end()) offer(*it);
      }
    } else {
      for (const auto& run : place_hits(arc)) std::for_each(run.begin(), run.end(), offer);
    }
    return out;
  }

  const std::map<std::uint64_t, Bytes>* slice_hashes_of(const DhtArc& arc) const {
    if (arc.empty()) return nullptr;
    const auto it = slice_hashes_.find({arc.start(), arc.end()});
    return it == slice_hashes_.end() ? nullptr : &it->second;
  }

  Runtime& runtime_;
  std::shared_ptr<const OpPolicy> policy_;
  const std::uint64_t max_op_bytes_;
  Records records_;
  Payloads payloads_;
  IdTable ids_;
  LazyIndex<ByTime> by_time_;
  LazyIndex<ByPlace> by_place_;
  store::StoredClock clock_;
  std::uint64_t bytes_ = 0;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::map<std::uint64_t, Bytes>> slice_hashes_;
  store::PendingSources pending_;
  Subscribers<OpStoreEvents> events_;
  Lifetime lifetime_;
};

}  // namespace

std::shared_ptr<OpStore> make_memory_op_store(Runtime& runtime, std::shared_ptr<const OpPolicy> policy,
                                              std::uint64_t max_op_bytes) {
  return std::make_shared<MemoryOpStore>(runtime, std::move(policy), max_op_bytes);
}

}  // namespace kitsune2
