// The reading side of the durable op store: queries on a thread of its own.
#include <algorithm>
#include <array>
#include <boost/unordered/unordered_flat_set.hpp>
#include <limits>
#include <map>

#include "core/buffer.hpp"
#include "core/callback.hpp"
#include "store/op_sums.hpp"
#include "store/sqlite/op_db.hpp"
#include "store/sqlite/op_schema.hpp"

namespace kitsune2::sqlite {
namespace {

/// An arc as one or two ranges of locations.
struct Ranges {
  std::array<PlaceQuery, 2> range;
  std::size_t count = 0;
};

Ranges ranges_of(const DhtArc& arc) {
  Ranges out;
  if (arc.empty()) return out;
  if (arc.start() <= arc.end()) {
    out.range[out.count++] = {.first = arc.start(), .last = arc.end()};
  } else {
    out.range[out.count++] = {.first = arc.start()};
    out.range[out.count++] = {.last = arc.end()};
  }
  return out;
}

double share_of(const DhtArc& arc) { return (static_cast<double>(arc.span()) + 1) / 4294967296.0; }

/// Steps through the rows of a bound statement until `row` returns false.
template <class Row>
Result<void> each_row(Connection& connection, const Use& use, Row row) {
  int rc = 0;
  while ((rc = use->step()) == SQLITE_ROW) {
    if (!row()) return {};
  }
  if (rc != SQLITE_DONE) return connection.error(rc);
  return {};
}

/// A statement whose rows are looked at one after the other, as long as they are the wanted ones.
class Walk {
 public:
  Walk() = default;
  ~Walk() { end(); }
  Walk(const Walk&) = delete;
  Walk& operator=(const Walk&) = delete;

  bool is_on() const { return statement_ != nullptr; }
  void begin(Statement& statement, std::int64_t from) {
    end();
    statement_ = &statement;
    statement_->bind(1, from);
  }
  void end() {
    if (statement_ != nullptr) std::exchange(statement_, nullptr)->reset();
  }
  Statement* operator->() const { return statement_; }

 private:
  Statement* statement_ = nullptr;
};

constexpr std::size_t kLargeOp = 64U << 10;

/// Copies of small blobs, which share buffers: they are sent together, most likely.
class Copies {
 public:
  /// `left`: so many of about this size may follow, this one included.
  Bytes add(ByteView bytes, std::size_t left) {
    if (room_.size() - used_ < bytes.size()) {
      const std::size_t size = std::max(bytes.size(), std::min(kBuffer, left * bytes.size()));
      const auto storage = make_buffer(size);
      room_ = Bytes::share(storage, {storage.get(), size});
      at_ = storage.get();
      used_ = 0;
    }
    std::copy(bytes.begin(), bytes.end(), at_ + used_);
    used_ += bytes.size();
    return room_.slice(used_ - bytes.size(), bytes.size());
  }

 private:
  static constexpr std::size_t kBuffer = 256U << 10;
  Bytes room_;
  std::uint8_t* at_ = nullptr;  ///< the beginning of `room_`
  std::size_t used_ = 0;
};

/// Finds ops one after the other. What was stored together is asked for together and in that order, most likely: once
/// two ops were neighbours, the next row is looked at first, which costs a quarter of the index.
class InOrder {
 public:
  InOrder(Connection& connection, OpIndex& index, Statement& by_stored)
      : connection_(connection), index_(index), rows_(by_stored) {}
  ~InOrder() { rows_.reset(); }
  InOrder(const InOrder&) = delete;
  InOrder& operator=(const InOrder&) = delete;

  /// nullopt: not held.
  Result<std::optional<Place>> find(const OpId& op_id) {
    if (walking_) {
      const int rc = rows_.step();
      if (rc != SQLITE_ROW && rc != SQLITE_DONE) return connection_.error(rc);
      if (rc == SQLITE_ROW && std::ranges::equal(rows_.blob(2), op_id.view())) {
        is_at_row_ = true;
        return std::optional(
            Place{rows_.int64(0), static_cast<std::uint64_t>(rows_.int64(3)), Timestamp{rows_.int64(4)}});
      }
      stop();
      last_ = INT64_MAX;
    }
    const auto found = index_.find(op_id.view());
    if (!found) return found.error();
    if (!*found) return std::optional<Place>();
    const Place place{(*found)->stored_at, (*found)->size, (*found)->created_at};
    walking_ = last_ < INT64_MAX - 1 && place.stored_at == last_ + 1;
    if (walking_) rows_.bind(1, place.stored_at + 1);
    last_ = place.stored_at;
    is_at_row_ = false;
    return std::optional(place);
  }
  /// The bytes of the op found last, if its row was looked at and has them. Valid until the next call.
  ByteView bytes() const { return is_at_row_ ? rows_.blob(5) : ByteView(); }

 private:
  void stop() {
    rows_.reset();
    walking_ = is_at_row_ = false;
  }

  Connection& connection_;
  OpIndex& index_;
  Statement& rows_;
  bool walking_ = false;           ///< `rows_` is before the row that may be the next op
  bool is_at_row_ = false;         ///< `rows_` is at the row of the op found last
  std::int64_t last_ = INT64_MAX;  ///< the op found last; INT64_MAX: none
};

/// For files without runs, with them, and with a file of large ops.
std::size_t kind_of(int version) { return has_large(version) ? 2 : has_runs(version) ? 1 : 0; }
const char* select_stored_data(int version) {
  static const std::string kTexts[] = {
      "SELECT stored_at, data FROM op_data WHERE stored_at=?1",
      std::string("SELECT stored_at, ") + data_column(kRunsFormat.version) + " FROM op WHERE stored_at=?1",
      std::string("SELECT stored_at, ") + data_column(kLargeFormat.version) + " FROM op WHERE stored_at=?1"};
  return kTexts[kind_of(version)].c_str();
}
const char* select_data_from(int version) {
  static const std::string kFrom = " FROM op WHERE stored_at>=?1 ORDER BY stored_at";
  static const std::string kTexts[] = {"SELECT stored_at, data FROM op_data WHERE stored_at>=?1 ORDER BY stored_at",
                                       std::string("SELECT stored_at, ") + data_column(kRunsFormat.version) + kFrom,
                                       std::string("SELECT stored_at, ") + data_column(kLargeFormat.version) + kFrom};
  return kTexts[kind_of(version)].c_str();
}
const char* select_by_stored(int version) {
  return has_runs(version)
             ? "SELECT stored_at, loc, id, size, created_at, data FROM op WHERE stored_at>=?1 ORDER BY stored_at"
             : "SELECT stored_at, loc, id, size, created_at, NULL FROM op WHERE stored_at>=?1 ORDER BY stored_at";
}

/// Asked with the number of rows that are left, or were looked at; looks at the token now and then.
bool is_stopped(const std::stop_token& stop, std::size_t rows) { return rows % 256 == 0 && stop.stop_requested(); }

}  // namespace

class OpReader::Snapshot {
 public:
  explicit Snapshot(OpReader& reader) : connection_(reader.connection_), large_(*reader.large_) {
    if (reader.uses_ <= kFewUses && ++reader.uses_ > kFewUses) {
      static_cast<void>(connection_.set_cache(Connection::Cache::usual));
    }
    started_ = connection_.run("BEGIN");
    if (started_) started_ = reader.follow_version();
    if (started_) started_ = reader.index_->refresh();
  }
  ~Snapshot() {
    connection_.roll_back();
    large_.close();
  }
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;
  const Result<void>& started() const { return started_; }

 private:
  Connection& connection_;
  SegmentFile& large_;
  Result<void> started_;
};

Result<OpReader> OpReader::open(const std::string& path, bool read_only, const char* vfs, const OpPolicy* policy,
                                const RunsShared& runs) {
  auto connection = Connection::open(path, read_only ? Connection::Mode::read_only : Connection::Mode::read, vfs);
  if (!connection) return connection.error();
  OpReader out;
  out.connection_ = std::move(*connection);
  out.policy_ = policy;
  out.shared_ = runs;
  out.large_ = std::make_unique<SegmentFile>(path, GatherVfs::below(vfs));
  if (auto ok = add_large_function(out.connection_, *out.large_); !ok) return ok.error();
  const auto version = open_op_format(out.connection_, nullptr);
  if (!version) return version.error();
  out.version_ = *version;
  if (auto ok = out.connection_.run("PRAGMA temp_store=MEMORY"); !ok) return ok.error();
  out.prepare();
  out.connection_.let_pages_go();
  return out;
}

void OpReader::rest() {
  uses_ = 0;
  prepare();
  connection_.let_pages_go();
}

void OpReader::prepare() {
  if (answers_from_runs(version_)) {
    index_ = RunsIndex::make(connection_, policy_, false, shared_);
  } else {
    index_ = make_table_index(connection_, policy_);
  }
  const std::pair<Statement*, const char*> all[] = {
      {&data_, select_stored_data(version_)},
      {&data_from_, select_data_from(version_)},
      {&totals_, "SELECT ops, bytes FROM totals"},
      {&last_, "SELECT max(stored_at) FROM op"},
      {&by_stored_, select_by_stored(version_)},
      {&count_since_, "SELECT count(*) FROM (SELECT 1 FROM op WHERE stored_at>=?1 LIMIT ?2)"},
      {&slice_count_, "SELECT max(slice) FROM slice_hash WHERE arc_start=?1 AND arc_end=?2"},
      {&slice_, "SELECT hash FROM slice_hash WHERE arc_start=?1 AND arc_end=?2 AND slice=?3"},
      {&slices_, "SELECT slice, hash FROM slice_hash WHERE arc_start=?1 AND arc_end=?2 ORDER BY slice"},
      {&pending_from_,
       "SELECT pending.seq, source.url, pending.ids FROM pending JOIN source ON source.number=pending.source"
       " WHERE pending.seq>?1 ORDER BY pending.seq"},
      {&meta_, "SELECT value FROM meta WHERE key=?1"},
      {&user_version_, "PRAGMA user_version"},
      {&place_, "SELECT at, bytes FROM op_place WHERE stored_at=?1"},
  };
  for (const auto& [statement, sql] : all) *statement = connection_.later(sql);
}

/// A file of version 1 is converted while it is read, and one of version 2 gets its first large op.
Result<void> OpReader::follow_version() {
  if (has_large(version_)) return {};
  int version = 0;
  {
    const Use use(user_version_);
    if (const int rc = use->step(); rc != SQLITE_ROW) return connection_.error(rc);
    version = static_cast<int>(use->int64(0));
  }
  if (version == version_) return {};
  if (version < 1 || version > kLargeFormat.version) {
    return make_error(Errc::unsupported,
                      connection_.path() + ": another program has made it version " + std::to_string(version));
  }
  version_ = version;
  prepare();
  return {};
}

Error OpReader::damaged(const char* table) const {
  return make_error(Errc::corrupt, connection_.path() + ": damaged row in table " + table);
}

Result<SqliteOpStoreInfo> OpReader::info() {
  SqliteOpStoreInfo out;
  for (const bool space : {true, false}) {
    const Use use(meta_);
    const int rc = use->bind_text(1, space ? "space" : "policy").step();
    if (rc == SQLITE_DONE) return make_error(Errc::not_found, connection_.path() + ": the store was never used");
    if (rc != SQLITE_ROW) return connection_.error(rc);
    if (space) {
      out.space = SpaceId(use->blob(0));
    } else {
      out.policy = use->text(0);
    }
  }
  return out;
}

// --------------------------------------------------------------------- ops

std::vector<Suspect> OpReader::take_suspects() {
  auto out = std::exchange(suspects_, {});
  if (index_->is_damaged()) out.push_back({kWholeIndex, OpId()});
  return out;
}

void OpReader::suspect(std::int64_t stored_at, ByteView op_id) {
  // More than this in one call: the next ones find the rest.
  if (suspects_.size() < kMostSuspects) suspects_.push_back({stored_at, OpId(op_id)});
}

bool OpReader::is_intact(const Place& place, const MetaOp& op, ByteView bytes) {
  if (policy_ == nullptr) return bytes.size() == place.size;
  std::uint64_t print = 0;
  const bool is_large = prints_ != nullptr && bytes.size() >= Fingerprints::kLeastBytes && bytes.size() == place.size;
  if (is_large) {
    print = fingerprint(op.op_id.view(), place.created_at, bytes);
    if (prints_->get(place.stored_at) == print) return true;
  }
  const auto found = call_for_result("the op policy", [&] { return policy_->describe(bytes); });
  if (!found && !is_damage(found.error())) return false;
  const bool intact = found && found->op_id == op.op_id;
  if (!intact || bytes.size() != place.size || found->created_at != place.created_at) {
    suspect(place.stored_at, op.op_id.view());
  } else if (is_large) {
    prints_->put({{place.stored_at, print}});
  }
  return intact;
}

/// An entry that cannot be right is looked at later.
bool OpReader::is_plausible(const IndexedOp& op) {
  if (index_->is_plausible(op)) return true;
  suspect(op.stored_at, op.id);
  return false;
}

Result<std::vector<MetaOp>> OpReader::retrieve_ops(const std::vector<OpId>& op_ids, std::uint64_t max_bytes) {
  const Snapshot snapshot(*this);
  if (!snapshot.started()) return snapshot.started().error();
  std::vector<MetaOp> out;
  std::vector<Place> places;  // of `out`
  if (auto ok = index_->expect(op_ids); !ok) return ok.error();
  boost::unordered_flat_set<std::int64_t> given;
  // Where all of a piece is damaged the next one is given: nothing would mean that nothing is held.
  for (std::size_t next = 0; out.empty() && next < op_ids.size();) {
    std::uint64_t bytes = 0;
    places.clear();
    Copies copies;
    InOrder in_order(connection_, *index_, by_stored_);
    for (; next < op_ids.size(); ++next) {
      const OpId& op_id = op_ids[next];
      const auto found = in_order.find(op_id);
      if (!found) return found.error();
      if (!*found || given.contains((*found)->stored_at)) continue;
      // What cannot be a size says nothing of how much there is.
      const std::uint64_t size = is_size(static_cast<std::int64_t>((*found)->size)) ? (*found)->size : 0;
      if (!out.empty() && (bytes >= max_bytes || size > max_bytes - bytes)) break;
      given.insert((*found)->stored_at);
      bytes += size;
      const ByteView seen = in_order.bytes();
      const bool is_read = !seen.empty() && seen.size() == size && size < kLargeOp;
      out.push_back({op_id, is_read ? copies.add(seen, op_ids.size() - next) : Bytes()});
      places.push_back(**found);
    }
    const auto read = read_data(places, max_bytes, out);
    if (!read) return read.error();
  }
  return out;
}

/// One op by itself, whatever its entry says of its size. False: it is damaged.
Result<bool> OpReader::read_alone(const Place& place, MetaOp& op) {
  const Use use(data_);
  const int rc = use->bind(1, place.stored_at).step();
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) return connection_.error(rc);
  if (rc == SQLITE_DONE) {
    suspect(place.stored_at, op.op_id.view());
    return false;
  }
  if (!is_intact(place, op, use->blob(1))) return false;
  op.op_data = Bytes::copy_of(use->blob(1));
  return true;
}

/// Straight into the memory of the message. nullopt: there are no bytes of this size.
Result<std::optional<Bytes>> OpReader::read_large(const Place& place, BlobReader& blobs) {
  const auto size = static_cast<std::size_t>(place.size);
  std::optional<std::uint64_t> at;  // in the file of large ops
  if (has_large(version_)) {
    const Use use(place_);
    const int rc = use->bind(1, place.stored_at).step();
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return connection_.error(rc);
    if (rc == SQLITE_ROW && (use->int64(0) < 0 || use->int64(1) != static_cast<std::int64_t>(size))) {
      return std::optional<Bytes>();
    }
    if (rc == SQLITE_ROW) at = static_cast<std::uint64_t>(use->int64(0));
  }
  const auto there = at ? large_->has(*at, size) : Result<bool>(true);
  if (!there) return there.error();
  if (!*there) return std::optional<Bytes>();
  if (!at) {
    const auto found = blobs.seek(place.stored_at);
    if (!found) return found.error();
    if (*found != size) return std::optional<Bytes>();
  }
  auto storage = make_buffer(size);
  if (at) {
    const auto read = large_->read(*at, storage.get(), size);
    if (!read) return read.error();
    if (!*read) return std::optional<Bytes>();
  } else if (auto ok = blobs.read(storage.get()); !ok) {
    return ok.error();
  }
  const ByteView view{storage.get(), size};
  return std::optional(Bytes::share(std::move(storage), view));
}

/// Those that have bytes already were read when they were found.
Result<void> OpReader::read_data(std::span<const Place> places, std::uint64_t max_bytes, std::vector<MetaOp>& out) {
  std::size_t small_bytes = 0;
  const auto is_read = [&](std::size_t i) { return !out[i].op_data.empty(); };
  for (std::size_t i = 0; i < places.size(); ++i)
    small_bytes += places[i].size < kLargeOp && !is_read(i) ? places[i].size : 0;
  // The bytes of small ops share one buffer: they are sent together, most likely.
  const auto storage = make_buffer(small_bytes);
  const Bytes shared = Bytes::share(storage, {storage.get(), small_bytes});
  std::size_t offset = 0;
  std::size_t kept = 0;
  BlobReader blobs(connection_, "op_data", "data");
  Walk rows;
  const auto follows = [&](std::size_t i) {
    return i > 0 && i < places.size() && places[i - 1].size < kLargeOp && places[i].size < kLargeOp && !is_read(i) &&
           places[i - 1].stored_at < places[i].stored_at && places[i].stored_at - 1 == places[i - 1].stored_at;
  };
  std::uint64_t bytes = 0;
  /// False: entries said too little, and what follows would be too much.
  const auto keep = [&](std::size_t i, bool intact) {
    if (!intact) return true;
    bytes += out[i].op_data.size();
    if (kept > 0 && bytes > max_bytes) return false;
    if (kept != i) out[kept] = std::move(out[i]);
    ++kept;
    return true;
  };
  for (std::size_t i = 0; i < places.size(); ++i) {
    const Place& place = places[i];
    if (is_read(i)) {
      rows.end();
      if (!keep(i, is_intact(place, out[i], out[i].op_data.view()))) break;
      continue;
    }
    if (place.size >= kLargeOp) {
      std::optional<Bytes> data;
      if (is_size(static_cast<std::int64_t>(place.size))) {
        auto large = read_large(place, blobs);
        if (!large) return large.error();
        data = std::move(*large);
      }
      if (data) {
        const bool intact = is_intact(place, out[i], data->view());
        if (intact) out[i].op_data = std::move(*data);
        if (!keep(i, intact)) break;
        continue;
      }
      rows.end();
      const auto alone = read_alone(place, out[i]);
      if (!alone) return alone.error();
      if (!keep(i, *alone)) break;
      continue;
    }
    // Ops that were stored together lie one after the other, and are asked for in that order, most likely.
    if (!rows.is_on() || !follows(i)) rows.begin(follows(i + 1) ? data_from_ : data_, place.stored_at);
    const int rc = rows->step();
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return connection_.error(rc);
    const bool is_there = rc == SQLITE_ROW && rows->int64(0) == place.stored_at;
    const ByteView data = is_there ? rows->blob(1) : ByteView();
    if (!is_there || data.size() != place.size) {
      rows.end();
      const auto alone = read_alone(place, out[i]);
      if (!alone) return alone.error();
      if (!keep(i, *alone)) break;
      continue;
    }
    const bool intact = is_intact(place, out[i], data);
    if (intact) {
      std::copy(data.begin(), data.end(), storage.get() + offset);
      out[i].op_data = shared.slice(offset, data.size());
      offset += data.size();
    }
    if (!keep(i, intact)) break;
  }
  out.resize(kept);
  return {};
}

/// What the table says, which other queries read: an index may have been right where the entry is not.
Result<void> OpReader::compare_entry(const Place& place, ByteView op_id) {
  const Use use(by_stored_);
  const int rc = use->bind(1, place.stored_at).step();
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) return connection_.error(rc);
  const bool agrees =
      rc == SQLITE_ROW && use->int64(0) == place.stored_at && use->int64(1) == std::int64_t{index_->location(op_id)} &&
      std::ranges::equal(use->blob(2), op_id) && use->int64(3) == static_cast<std::int64_t>(place.size) &&
      use->int64(4) == place.created_at.micros;
  if (!agrees) suspect(place.stored_at, op_id);
  return {};
}

Result<std::vector<OpId>> OpReader::filter_out_intact_ops(const std::vector<OpId>& op_ids) {
  const Snapshot snapshot(*this);
  if (!snapshot.started()) return snapshot.started().error();
  std::vector<OpId> out;
  if (auto ok = index_->expect(op_ids); !ok) return ok.error();
  for (const OpId& op_id : op_ids) {
    const auto found = index_->find(op_id.view());
    if (!found) return found.error();
    bool intact = found->has_value();
    if (intact) {
      const Place place{(*found)->stored_at, (*found)->size, (*found)->created_at};
      MetaOp op{op_id, {}};
      const auto read = read_alone(place, op);
      if (!read) return read.error();
      intact = *read;
      if (auto ok = compare_entry(place, op_id.view()); !ok) return ok.error();
    }
    if (!intact) out.push_back(op_id);
  }
  return out;
}

Result<void> OpReader::filter_out_existing_ops(std::vector<OpId>& op_ids) {
  const Snapshot snapshot(*this);
  if (!snapshot.started()) return snapshot.started().error();
  if (auto ok = index_->expect(op_ids); !ok) return ok;
  std::optional<Error> failed;
  std::erase_if(op_ids, [&](const OpId& op_id) {
    if (failed) return false;
    const auto found = index_->find(op_id.view());
    if (!found) {
      failed = found.error();
      return false;
    }
    return found->has_value();
  });
  if (failed) return *failed;
  return {};
}

Result<std::uint64_t> OpReader::ops_in(const DhtArc& arc) {
  const auto all = stats();
  if (!all) return all.error();
  return static_cast<std::uint64_t>(share_of(arc) * static_cast<double>(all->ops));
}

Result<OpIdsInSlice> OpReader::op_hashes_in_time_slice(const DhtArc& arc, Timestamp start, Timestamp end) {
  OpIdsInSlice out;
  if (arc.empty() || start >= end) return out;
  const Snapshot snapshot(*this);
  if (!snapshot.started()) return snapshot.started().error();
  // Either index serves one condition and filters by the other. The one with fewer entries to look at: counting those
  // in time stops where the arc would be less.
  const auto in_arc = ops_in(arc);
  if (!in_arc) return in_arc.error();
  bool by_time = arc.is_full();
  if (!by_time) {
    const auto in_time = index_->count_in_time(start, end, *in_arc + 1);
    if (!in_time) return in_time.error();
    by_time = *in_time <= *in_arc;
  }
  std::vector<StoredOp> found;
  const auto take = [&](const IndexedOp& op) {
    if (!is_plausible(op)) return true;
    found.push_back({Timestamp{op.created_at}, OpId(op.id)});
    out.bytes += static_cast<std::uint64_t>(op.size);
    return true;
  };
  if (by_time) {
    auto ok = index_->by_time(start, end, {}, SIZE_MAX,
                              [&](const IndexedOp& op) { return !arc.contains(op.location) || take(op); });
    if (!ok) return ok.error();
  } else {
    const Ranges ranges = ranges_of(arc);
    for (std::size_t i = 0; i < ranges.count; ++i) {
      PlaceQuery query = ranges.range[i];
      query.first_created = start.micros;
      query.last_created = end.micros - 1;
      if (auto ok = index_->by_place(query, take); !ok) return ok.error();
    }
  }
  std::sort(found.begin(), found.end());
  // An arc like [5, 4] is everything; its two ranges do not overlap, so nothing is there twice.
  out.op_ids.reserve(found.size());
  for (StoredOp& op : found) out.op_ids.push_back(std::move(op.op_id));
  return out;
}

Result<OpPage> OpReader::list_ops(const OpListQuery& query) {
  if (query.limit == 0) return make_error(Errc::invalid_argument, "a list of at most 0 ops");
  if (query.stop.stop_requested()) return store::stopped();
  OpPage out;
  if (query.arc.empty() || query.start >= query.end) return out;
  const Snapshot snapshot(*this);
  if (!snapshot.started()) return snapshot.started().error();
  std::size_t left = OpStore::kMostLookedAt;
  auto ok = index_->by_time(query.start, query.end, query.after, left, [&](const IndexedOp& op) {
    if (is_stopped(query.stop, --left)) return false;
    if (query.arc.contains(op.location) && is_plausible(op)) {
      out.ops.push_back({OpId(op.id), Timestamp{op.created_at}, op.location, static_cast<std::uint64_t>(op.size)});
    }
    // A page that is full may be the last one: the next one says so.
    if (out.ops.size() < query.limit && left > 0) return true;
    out.next = {Timestamp{op.created_at}, Timestamp{op.stored_at}};
    return false;
  });
  if (!ok) return ok.error();
  if (query.stop.stop_requested()) return store::stopped();
  return out;
}

Result<OpSumsPage> OpReader::sum_ops(const OpSumsQuery& query) {
  store::OpSums sums(query);
  if (auto ok = sums.check(); !ok) return ok.error();
  const Snapshot snapshot(*this);
  if (!snapshot.started()) return snapshot.started().error();
  std::size_t left = OpStore::kMostLookedAt;
  while (left > 0 && sums.next_range()) {
    --left;
    if (query.stop.stop_requested()) return store::stopped();
    auto ok = index_->by_time(sums.range().start, sums.range().end, query.after, left, [&](const IndexedOp& op) {
      if (is_plausible(op)) sums.add(op.location, op.id);
      sums.passed({Timestamp{op.created_at}, Timestamp{op.stored_at}});
      return !is_stopped(query.stop, --left);
    });
    if (!ok) return ok.error();
  }
  if (query.stop.stop_requested()) return store::stopped();
  return sums.page(left == 0);
}

Result<OpIdsBounded> OpReader::op_ids_bounded(const OpIdsQuery& query) {
  if (query.stop.stop_requested()) return store::stopped();
  const DhtArc& arc = query.arc;
  const Timestamp start = query.start;
  const Snapshot snapshot(*this);
  if (!snapshot.started()) return snapshot.started().error();
  OpIdsBounded out;
  {
    const Use use(last_);
    if (const int rc = use->step(); rc != SQLITE_ROW) return connection_.error(rc);
    out.next = store::StoredClock(Timestamp{use->int64(0)}).bookmark();
  }
  if (arc.empty()) return out;
  std::size_t looked_at = 0;
  /// False: does not fit any more.
  const auto take = [&](std::int64_t stored_at, OpId op_id, std::int64_t size) {
    if (out.bytes + static_cast<std::uint64_t>(size) > query.limit_bytes || out.op_ids.size() >= query.limit_ids) {
      out.next = Timestamp{stored_at};
      out.cut = true;
      return false;
    }
    out.bytes += static_cast<std::uint64_t>(size);
    out.op_ids.push_back(std::move(op_id));
    return true;
  };
  const auto in_arc = ops_in(arc);
  if (!in_arc) return in_arc.error();
  bool by_stored = share_of(arc) >= 0.25;
  if (!by_stored) {
    const Use use(count_since_);
    const auto limit = static_cast<std::int64_t>(*in_arc + 1);
    if (const int rc = use->bind(1, start.micros).bind(2, limit).step(); rc != SQLITE_ROW) {
      return connection_.error(rc);
    }
    by_stored = use->int64(0) < limit;
  }
  if (by_stored) {
    const Use use(by_stored_);
    use->bind(1, start.micros);
    auto ok = each_row(connection_, use, [&] {
      if (is_stopped(query.stop, ++looked_at)) return false;
      const IndexedOp op{static_cast<std::uint32_t>(use->int64(1)), use->int64(3), use->int64(4), use->int64(0),
                         use->blob(2)};
      if (!arc.contains(op.location) || !is_plausible(op)) return true;
      return take(op.stored_at, OpId(op.id), op.size);
    });
    if (!ok) return ok.error();
    if (query.stop.stop_requested()) return store::stopped();
    return out;
  }
  struct Since {
    std::int64_t stored_at;
    std::int64_t size;
    OpId op_id;
  };
  std::vector<Since> found;
  const Ranges ranges = ranges_of(arc);
  for (std::size_t i = 0; i < ranges.count; ++i) {
    PlaceQuery in_arc_since = ranges.range[i];
    in_arc_since.first_stored = start.micros;
    auto ok = index_->by_place(in_arc_since, [&](const IndexedOp& op) {
      if (is_plausible(op)) found.push_back({op.stored_at, op.size, OpId(op.id)});
      return !is_stopped(query.stop, ++looked_at);
    });
    if (!ok) return ok.error();
    if (query.stop.stop_requested()) return store::stopped();
  }
  std::sort(found.begin(), found.end(), [](const Since& a, const Since& b) { return a.stored_at < b.stored_at; });
  for (Since& op : found) {
    if (!take(op.stored_at, std::move(op.op_id), op.size)) break;
  }
  return out;
}

Result<std::optional<Timestamp>> OpReader::earliest_timestamp_in_arc(const DhtArc& arc) {
  std::optional<Timestamp> out;
  if (arc.empty()) return out;
  const Snapshot snapshot(*this);
  if (!snapshot.started()) return snapshot.started().error();
  const auto in_arc = ops_in(arc);
  if (!in_arc) return in_arc.error();
  // By time up to the first hit, about one step for each arc of this size on the ring; or all of the arc. An index that
  // is behind sorts rows by time, in memory: then only for one op.
  if (arc.is_full() || (!index_->is_behind() && share_of(arc) * static_cast<double>(*in_arc) >= 1)) {
    const std::size_t most = arc.is_full() ? 1 : SIZE_MAX;
    auto ok = index_->by_time(Timestamp::min(), Timestamp::max(), {}, most, [&](const IndexedOp& op) {
      if (!arc.contains(op.location)) return true;
      out = Timestamp{op.created_at};
      return false;
    });
    if (!ok) return ok.error();
    if (out) return out;
  }
  const Ranges ranges = ranges_of(arc);
  for (std::size_t i = 0; i < ranges.count; ++i) {
    auto ok = index_->by_place(ranges.range[i], [&](const IndexedOp& op) {
      if (!out || op.created_at < out->micros) out = Timestamp{op.created_at};
      return true;
    });
    if (!ok) return ok.error();
  }
  return out;
}

Result<OpStoreStats> OpReader::stats() {
  const Use use(totals_);
  const int rc = use->step();
  if (rc == SQLITE_DONE) return make_error(Errc::corrupt, connection_.path() + ": table totals is empty");
  if (rc != SQLITE_ROW) return connection_.error(rc);
  if (use->int64(0) < 0 || use->int64(1) < 0) return damaged("totals");
  return OpStoreStats{static_cast<std::uint64_t>(use->int64(0)), static_cast<std::uint64_t>(use->int64(1))};
}

// ------------------------------------------------------------ slice hashes

Result<std::uint64_t> OpReader::slice_hash_count(const DhtArc& arc) {
  if (arc.empty()) return std::uint64_t{0};
  const Use use(slice_count_);
  const int rc = use->bind(1, std::int64_t{arc.start()}).bind(2, std::int64_t{arc.end()}).step();
  if (rc != SQLITE_ROW) return connection_.error(rc);
  if (use->is_null(0)) return std::uint64_t{0};
  if (use->int64(0) < 0) return damaged("slice_hash");
  return static_cast<std::uint64_t>(use->int64(0)) + 1;
}

Result<std::optional<Bytes>> OpReader::slice_hash(const DhtArc& arc, std::uint64_t slice_index) {
  std::optional<Bytes> out;
  if (arc.empty() || slice_index > static_cast<std::uint64_t>(INT64_MAX)) return out;
  const Use use(slice_);
  use->bind(1, std::int64_t{arc.start()})
      .bind(2, std::int64_t{arc.end()})
      .bind(3, static_cast<std::int64_t>(slice_index));
  const int rc = use->step();
  if (rc == SQLITE_ROW) {
    out = Bytes::copy_of(use->blob(0));
  } else if (rc != SQLITE_DONE) {
    return connection_.error(rc);
  }
  return out;
}

Result<std::vector<std::pair<std::uint64_t, Bytes>>> OpReader::slice_hashes(const DhtArc& arc) {
  std::vector<std::pair<std::uint64_t, Bytes>> out;
  if (arc.empty()) return out;
  const Use use(slices_);
  use->bind(1, std::int64_t{arc.start()}).bind(2, std::int64_t{arc.end()});
  bool intact = true;
  auto ok = each_row(connection_, use, [&] {
    intact = use->int64(0) >= 0;
    out.emplace_back(static_cast<std::uint64_t>(use->int64(0)), Bytes::copy_of(use->blob(1)));
    return intact;
  });
  if (!ok) return ok.error();
  if (!intact) return damaged("slice_hash");
  return out;
}

// ----------------------------------------------------------------- pending

Result<std::vector<std::pair<Url, std::vector<OpId>>>> OpReader::pending() {
  auto page = pending_page(0, SIZE_MAX);
  if (!page) return page.error();
  return std::move(page->requests);
}

Result<PendingPage> OpReader::pending_page(std::uint64_t after, std::size_t limit) {
  PendingPage out;
  if (after > static_cast<std::uint64_t>(INT64_MAX)) return out;
  const Snapshot snapshot(*this);
  if (!snapshot.started()) return snapshot.started().error();
  std::map<std::string, std::vector<OpId>, std::less<>> by_url;
  std::size_t looked_at = 0;
  std::optional<Error> failed;
  const Use use(pending_from_);
  use->bind(1, static_cast<std::int64_t>(after));
  auto ok = each_row(connection_, use, [&] {
    if (looked_at >= std::max<std::size_t>(limit, 1)) return false;
    auto it = by_url.find(use->text(1));
    if (it == by_url.end()) it = by_url.try_emplace(std::string(use->text(1))).first;
    std::vector<OpId> ids;
    const bool is_behind = index_->is_behind();
    if (is_behind) static_cast<void>(unpack_ids(use->blob(2), [&](ByteView id) { ids.emplace_back(id); }));
    if (auto expected = index_->expect(ids); !expected) failed = expected.error();
    const auto take = [&](ByteView id) {
      ++looked_at;
      if (failed) return;
      const auto found = index_->find(id);
      if (!found) {
        failed = found.error();
      } else if (!*found) {
        it->second.emplace_back(id);
      }
    };
    // What comes behind damage cannot be read: its peers will name it again.
    static_cast<void>(unpack_ids(use->blob(2), take));
    out.next = static_cast<std::uint64_t>(use->int64(0));
    return !failed;
  });
  if (!ok) return ok.error();
  if (failed) return *failed;
  if (looked_at < std::max<std::size_t>(limit, 1)) out.next.reset();
  for (auto& [text, op_ids] : by_url) {
    auto url = Url::parse(text, kAnyUrlForm);
    if (!url) continue;
    std::sort(op_ids.begin(), op_ids.end());
    op_ids.erase(std::unique(op_ids.begin(), op_ids.end()), op_ids.end());
    if (!op_ids.empty()) out.requests.emplace_back(std::move(*url), std::move(op_ids));
  }
  return out;
}

}  // namespace kitsune2::sqlite
