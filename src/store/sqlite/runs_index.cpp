// Runs in a table: what a connection reads of them, and what the writer adds.
#include "store/sqlite/runs_index.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "store/byte_sum.hpp"

namespace kitsune2::sqlite {
namespace {

/// Work of one idle transaction, in entries: some 2 MB of blocks.
constexpr std::size_t kIdleWork = 32'768;
constexpr std::size_t kSumBytes = 8;
/// Rows with the same id that are remembered while the index is behind. A sound file has one.
constexpr std::size_t kMostCopies = 4;

}  // namespace

// ---------------------------------------------------------------- TableSlots

TableSlots::TableSlots(const Connection& connection)
    : db_(connection.handle()),
      path_(connection.path()),
      read_(connection.later("SELECT data FROM slot WHERE n=?1")),
      write_(
          connection.later("INSERT INTO slot(n, data) VALUES(?1,?2) ON CONFLICT(n) DO UPDATE SET data=excluded.data")) {
}

Result<void> TableSlots::read(std::uint64_t slot, std::span<std::uint8_t> out) {
  const Use use(read_);
  const int rc = use->bind(1, static_cast<std::int64_t>(slot)).step();
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) return error_of(db_, path_, rc);
  const ByteView data = rc == SQLITE_ROW ? use->blob(0) : ByteView();
  if (data.size() != out.size()) {
    return make_error(Errc::corrupt, path_ + ": slot " + std::to_string(slot) + " of the index is not there");
  }
  std::memcpy(out.data(), data.data(), out.size());
  return {};
}

Result<void> TableSlots::write(std::uint64_t slot, ByteView block) {
  const Use use(write_);
  const int rc = use->bind(1, static_cast<std::int64_t>(slot)).bind(2, block).step();
  if (rc != SQLITE_DONE) return error_of(db_, path_, rc);
  return {};
}

// ------------------------------------------------------------------- IdInRun

IdInRun::IdInRun(ByteView id) : id_(id) {
  if (id.size() < runs::kLongestId) return;
  shortened_.resize(runs::kLongestId);
  std::copy_n(id.begin(), runs::kLongestId - kSumBytes, shortened_.begin());
  runs::save(shortened_.data() + runs::kLongestId - kSumBytes, store::ByteSum(id.size()).add(id).value());
  id_ = shortened_;
}

// ----------------------------------------------------------------- RunsIndex

std::unique_ptr<RunsIndex> RunsIndex::make(const Connection& connection, const OpPolicy* policy, bool may_write,
                                           const RunsShared& shared) {
  std::unique_ptr<RunsIndex> out(new RunsIndex(connection, policy, shared));
  out->prepare(connection, may_write);
  return out;
}

void RunsIndex::prepare(const Connection& connection, bool may_write) {
  const std::pair<Statement*, const char*> reading[] = {
      {&version_, "PRAGMA data_version"},
      {&manifest_, "SELECT data FROM manifest"},
      {&slot_end_, "SELECT max(n)+1 FROM slot"},
      {&dropped_, "SELECT seq, stored_at FROM dropped WHERE seq>?1 ORDER BY seq"},
      {&rows_, "SELECT stored_at, loc, id, created_at, size FROM op WHERE stored_at>?1 ORDER BY stored_at"},
      {&id_at_, "SELECT id FROM op WHERE stored_at=?1"},
      // Those that the index does not have yet: each goes through the rows, whatever else it could take.
      {&rows_of_id_,
       "SELECT stored_at, created_at, size FROM op WHERE stored_at>?1 AND loc=?2 AND id=?3 AND stored_at IS NOT ?4"},
      {&ids_of_rows_, "SELECT id, stored_at, created_at, size, loc FROM op WHERE stored_at>?1"},
      {&rows_by_time_,
       "SELECT stored_at, loc, id, created_at, size FROM op WHERE stored_at>?1"
       " AND (created_at, stored_at)>=(?2,?3) AND created_at<?4 ORDER BY created_at, stored_at LIMIT ?5"},
      {&count_rows_in_time_,
       "SELECT count(*) FROM (SELECT 1 FROM op WHERE stored_at>?1 AND created_at>=?2 AND created_at<?3 LIMIT ?4)"},
      {&rows_by_place_,
       "SELECT stored_at, loc, id, created_at, size FROM op WHERE stored_at>?1"
       " AND loc BETWEEN ?2 AND ?3 AND created_at BETWEEN ?4 AND ?5 AND stored_at>=?6"},
  };
  const std::pair<Statement*, const char*> writing[] = {
      {&random_, "SELECT random()"},
      {&any_row_, "SELECT EXISTS(SELECT 1 FROM op)"},
      {&all_rows_, "SELECT count(*), total(length(id)+loc+created_at+size) FROM op"},
      {&put_manifest_, "INSERT OR REPLACE INTO manifest(one, data) VALUES(1,?1)"},
      {&put_dropped_, "INSERT INTO dropped(stored_at) VALUES(?1)"},
      {&remove_slots_, "DELETE FROM slot"},
  };
  for (const auto& [statement, sql] : reading) *statement = connection.later(sql);
  if (!may_write) return;
  for (const auto& [statement, sql] : writing) *statement = connection.later(sql);
}

void TableSlots::let_go() {
  read_.let_go();
  write_.let_go();
}

void RunsIndex::let_go() {
  slots_.let_go();
  for (Statement* statement : {&version_, &manifest_, &slot_end_, &dropped_, &rows_, &id_at_, &rows_of_id_,
                               &rows_by_time_, &count_rows_in_time_, &rows_by_place_, &ids_of_rows_, &random_,
                               &any_row_, &all_rows_, &put_manifest_, &put_dropped_, &remove_slots_}) {
    statement->let_go();
  }
}

Error RunsIndex::failed(Error error) {
  damaged_ = damaged_ || error.code == Errc::corrupt;
  return error;
}

Result<std::int64_t> RunsIndex::number(Statement& statement) {
  const Use use(statement);
  const int rc = use->step();
  if (rc != SQLITE_ROW) return error(rc);
  return use->int64(0);
}

Result<void> RunsIndex::finish(Statement& statement) {
  const Use use(statement);
  const int rc = use->step();
  if (rc != SQLITE_DONE) return error(rc);
  return {};
}

// ------------------------------------------------------------------- reading

Result<runs::Manifest> RunsIndex::read_manifest() {
  const auto slots = number(slot_end_);
  if (!slots) return slots.error();
  const Use use(manifest_);
  const int rc = use->step();
  if (rc == SQLITE_DONE) return make_error(Errc::corrupt, path() + ": the manifest of the index is not there");
  if (rc != SQLITE_ROW) return error(rc);
  const ByteView bytes = use->blob(0);
  auto out = runs::Manifest::decode(bytes, static_cast<std::uint64_t>(std::max<std::int64_t>(*slots, 0)));
  if (!out) return make_error(out.error().code, path() + ": " + out.error().message);
  manifest_bytes_.assign(bytes.begin(), bytes.end());
  return out;
}

Result<void> RunsIndex::read_dropped() {
  const Use use(dropped_);
  use->bind(1, last_dropped_);
  int rc = 0;
  while ((rc = use->step()) == SQLITE_ROW) {
    index_.drop(use->int64(1));
    last_dropped_ = use->int64(0);
    latest_ = std::max(latest_, use->int64(1));
  }
  if (rc != SQLITE_DONE) return error(rc);
  return {};
}

/// As the row says; what is wrong in it is found by those who read it.
static IndexedOp op_of(const Use& row) {
  return {static_cast<std::uint32_t>(row->int64(1)), row->int64(4), row->int64(3), row->int64(0), row->blob(2)};
}

void RunsIndex::add_row(const Use& row) { put(op_of(row)); }

/// As many as are kept in memory.
Result<void> RunsIndex::read_rows() {
  const Use use(rows_);
  use->bind(1, last_row_);
  int rc = 0;
  while ((rc = use->step()) == SQLITE_ROW && index_.newest() < rules_.most_read) add_row(use);
  // From rows that cannot be read on, it is behind: what needs one of them fails, and nothing else does.
  const bool can_read = rc == SQLITE_ROW || rc == SQLITE_DONE;
  if (!can_read && error(rc).code != Errc::corrupt) return error(rc);
  bad_rows_ = !can_read;
  behind_ = rc != SQLITE_DONE;
  return {};
}

Result<void> RunsIndex::refresh() {
  expected_.clear();
  const auto version = number(version_);
  if (!version) return version.error();
  if (seen_ == *version) return {};
  bool is_known = false;
  {
    const Use use(manifest_);
    is_known =
        !manifest_bytes_.empty() && use->step() == SQLITE_ROW && std::ranges::equal(use->blob(0), manifest_bytes_);
  }
  if (!is_known) {
    const auto manifest = read_manifest();
    const bool is_new = manifest && manifest->salt != index_.manifest().salt;
    Result<void> ok;
    if (manifest) {
      ok = index_.follow(*manifest);
    } else {
      ok = manifest.error();
    }
    if (!ok) {
      manifest_bytes_.clear();
      return failed(ok.error());
    }
    last_row_ = is_new ? manifest->covered : std::max(last_row_, manifest->covered);
    damaged_ = false;
  }
  if (auto ok = read_dropped(); !ok) return ok;
  if (auto ok = read_rows(); !ok) return ok;
  index_.committed();
  seen_ = *version;
  return {};
}

Result<void> RunsIndex::expect(const std::vector<OpId>& op_ids) {
  if (!behind_ || op_ids.empty()) return {};
  expected_.clear();
  for (const OpId& op_id : op_ids) expected_.try_emplace(op_id);
  ++passes_;
  const Use use(ids_of_rows_);
  use->bind(1, last_row_);
  int rc = 0;
  while ((rc = use->step()) == SQLITE_ROW) {
    const auto it = expected_.find(OpId(use->blob(0)));
    if (it == expected_.end() || use->int64(4) != std::int64_t{location(use->blob(0))}) continue;
    Expected& expected = it->second;
    expected.has_all = expected.rows.size() < kMostCopies;
    if (!expected.has_all) continue;
    expected.rows.push_back({use->int64(1), Timestamp{use->int64(2)}, static_cast<std::uint64_t>(use->int64(3))});
  }
  if (rc == SQLITE_DONE) return {};
  expected_.clear();
  return error(rc);
}

/// Among those that the index does not have yet.
Result<std::optional<OpIndex::Found>> RunsIndex::find_in_rows(ByteView op_id, std::optional<std::int64_t> besides) {
  if (!behind_) return std::optional<Found>();
  if (const auto it = expected_.find(OpId(op_id)); it != expected_.end()) {
    for (const Found& row : it->second.rows) {
      if (row.stored_at != besides) return std::optional(row);
    }
    if (it->second.has_all) return std::optional<Found>();
  }
  ++passes_;
  const Use use(rows_of_id_);
  use->bind(1, last_row_).bind(2, std::int64_t{location(op_id)}).bind(3, op_id);
  besides ? use->bind(4, *besides) : use->bind_null(4);
  const int rc = use->step();
  if (rc == SQLITE_DONE) return std::optional<Found>();
  if (rc != SQLITE_ROW) return error(rc);
  return std::optional(Found{use->int64(0), Timestamp{use->int64(1)}, static_cast<std::uint64_t>(use->int64(2))});
}

Result<std::optional<OpIndex::Found>> RunsIndex::find_besides(ByteView op_id, std::optional<std::int64_t> stored_at) {
  const IdInRun id(op_id);
  std::optional<Error> unread;
  runs::RunIndex::Accept is_meant;
  const bool is_shortened = IdInRun::is_shortened(id.view());
  if (is_shortened || stored_at) {
    is_meant = [&](std::int64_t at) {
      if (at == stored_at) return false;
      if (!is_shortened) return true;
      const Use use(id_at_);
      const int rc = use->bind(1, at).step();
      if (rc != SQLITE_ROW && rc != SQLITE_DONE) unread = error(rc);
      return rc == SQLITE_ROW && std::ranges::equal(use->blob(0), op_id);
    };
  }
  const auto found = index_.find(location(op_id), id.view(), is_meant);
  if (unread) return *unread;
  if (!found) return failed(found.error());
  if (!*found) return find_in_rows(op_id, stored_at);
  return std::optional(Found{(*found)->stored_at, Timestamp{(*found)->created_at}, (*found)->size});
}

Result<bool> RunsIndex::give(const runs::Entry& entry, const Row& row) {
  IndexedOp op{entry.location, std::int64_t{entry.size}, entry.created_at, entry.stored_at, entry.id};
  if (!IdInRun::is_shortened(entry.id)) return row(op);
  const Use use(id_at_);
  const int rc = use->bind(1, entry.stored_at).step();
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) return error(rc);
  if (rc == SQLITE_ROW) op.id = use->blob(0);
  return row(op);
}

Result<void> RunsIndex::by_time(Timestamp start, Timestamp end, const std::optional<OpCursor>& after, std::size_t most,
                                const Row& row) {
  runs::Entry from{0, 0, start.micros, INT64_MIN, {}};
  if (after && after->created_at >= start) {
    from.created_at = after->created_at.micros;
    from.stored_at = after->stored_at.micros;
    if (from.stored_at < INT64_MAX) {
      ++from.stored_at;
    } else if (from.created_at < INT64_MAX) {
      ++from.created_at;
      from.stored_at = INT64_MIN;
    } else {
      return {};
    }
  }
  const auto cursor = index_.scan(runs::Order::by_time, from);
  const Use rows(rows_by_time_);
  int rc = SQLITE_DONE;
  if (behind_) {
    rows->bind(1, last_row_).bind(2, from.created_at).bind(3, from.stored_at).bind(4, end.micros);
    rc = rows->bind(5, static_cast<std::int64_t>(std::min<std::size_t>(most, INT64_MAX))).step();
  }
  for (; most > 0; --most) {
    while (!cursor->at_end() && !index_.is_held(cursor->entry().stored_at)) cursor->next();
    if (cursor->error()) return failed(*cursor->error());
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return error(rc);
    const bool has_entry = !cursor->at_end() && cursor->entry().created_at < end.micros;
    if (!has_entry && rc == SQLITE_DONE) return {};
    const bool is_row = rc == SQLITE_ROW &&
                        (!has_entry || runs::compare(runs::Order::by_time, {0, 0, rows->int64(3), rows->int64(0), {}},
                                                     cursor->entry()) < 0);
    const auto more = is_row ? Result<bool>(row(op_of(rows))) : give(cursor->entry(), row);
    if (!more) return more.error();
    if (!*more) return {};
    if (is_row) {
      rc = rows->step();
    } else {
      cursor->next();
    }
  }
  return {};
}

Result<std::uint64_t> RunsIndex::count_in_time(Timestamp start, Timestamp end, std::uint64_t most) {
  std::uint64_t out = 0;
  const auto cursor = index_.scan(runs::Order::by_time, {0, 0, start.micros, INT64_MIN, {}});
  for (; out < most && !cursor->at_end() && cursor->entry().created_at < end.micros; cursor->next()) {
    out += index_.is_held(cursor->entry().stored_at) ? 1 : 0;
  }
  if (cursor->error()) return failed(*cursor->error());
  if (!behind_ || out >= most) return out;
  const Use use(count_rows_in_time_);
  use->bind(1, last_row_).bind(2, start.micros).bind(3, end.micros);
  const int rc = use->bind(4, static_cast<std::int64_t>(std::min<std::uint64_t>(most - out, INT64_MAX))).step();
  if (rc != SQLITE_ROW) return error(rc);
  return out + static_cast<std::uint64_t>(use->int64(0));
}

Result<void> RunsIndex::by_place(const PlaceQuery& query, const Row& row) {
  const auto cursor = index_.scan(runs::Order::by_place, {query.first, 0, INT64_MIN, INT64_MIN, {}});
  for (; !cursor->at_end() && cursor->entry().location <= query.last; cursor->next()) {
    const runs::Entry& entry = cursor->entry();
    if (entry.created_at < query.first_created || entry.created_at > query.last_created ||
        entry.stored_at < query.first_stored || !index_.is_held(entry.stored_at)) {
      continue;
    }
    const auto more = give(entry, row);
    if (!more) return more.error();
    if (!*more) return {};
  }
  if (cursor->error()) return failed(*cursor->error());
  if (!behind_) return {};
  const Use use(rows_by_place_);
  use->bind(1, last_row_).bind(2, std::int64_t{query.first}).bind(3, std::int64_t{query.last});
  use->bind(4, query.first_created).bind(5, query.last_created).bind(6, query.first_stored);
  int rc = 0;
  while ((rc = use->step()) == SQLITE_ROW) {
    if (!row(op_of(use))) return {};
  }
  if (rc != SQLITE_DONE) return error(rc);
  return {};
}

Result<bool> RunsIndex::has_in_time(const IndexedOp& op) {
  // Until the index has it there is only the row.
  if (behind_ && op.stored_at > last_row_) return true;
  const IdInRun id(op.id);
  return has(runs::Order::by_time, entry_of(op, id));
}

runs::Entry RunsIndex::entry_of(const IndexedOp& op, const IdInRun& id) {
  // A size that is none of an op's stays one that is not.
  const auto most = static_cast<std::int64_t>(UINT32_MAX);
  const auto size = static_cast<std::uint32_t>(op.size < 0 ? most : std::min(op.size, most));
  return {op.location, size, op.created_at, op.stored_at, id.view()};
}

Result<void> RunsIndex::each_entry(runs::Order order, const runs::Entry& from, const EntryRow& row) {
  const auto cursor = index_.scan(order, from);
  for (; !cursor->at_end(); cursor->next()) {
    if (!row(cursor->entry(), index_.is_held(cursor->entry().stored_at))) return {};
  }
  if (cursor->error()) return failed(*cursor->error());
  return {};
}

Result<bool> RunsIndex::has(runs::Order order, const runs::Entry& entry) {
  bool found = false;
  const auto ok = each_entry(order, entry, [&](const runs::Entry& next, bool counts) {
    if (runs::compare(order, next, entry) != 0) return false;
    found = counts && next.location == entry.location && next.size == entry.size &&
            next.created_at == entry.created_at && runs::compare(next.id, entry.id) == 0;
    return !found;  // in a damaged index there may be several with one key
  });
  if (!ok) return ok.error();
  return found;
}

// ------------------------------------------------------------------- writing

Result<void> RunsIndex::load() {
  stale_ = true;
  const auto manifest = read_manifest();
  if (!manifest) return failed(manifest.error());
  if (auto ok = index_.load(*manifest); !ok) return failed(ok.error());
  last_row_ = manifest->covered;
  last_dropped_ = INT64_MIN;
  latest_ = manifest->covered;
  if (auto ok = read_dropped(); !ok) return ok;
  if (auto ok = read_rows(); !ok) return ok;
  index_.committed();
  fill_shelf();
  stepped_ = stale_ = damaged_ = false;
  return {};
}

/// What the index has is durable.
void RunsIndex::fill_shelf() {
  if (!shelf_) return;
  if (auto runs = index_.take_changed_runs()) shelf_->put(std::move(*runs));
}

Result<void> RunsIndex::check_rows() {
  const auto rows = number(all_rows_);
  if (!rows) return rows.error();
  return {};
}

Result<void> RunsIndex::start_anew(bool remove_slots) {
  stale_ = true;
  runs::Manifest manifest;
  const auto salt = number(random_);
  if (!salt) return salt.error();
  manifest.salt = static_cast<std::uint64_t>(*salt);
  // Where the old numbers are not known, the new ones begin beyond any that can have been reached.
  const auto old = read_manifest();
  const auto some = number(random_);
  if (!some) return some.error();
  const std::uint64_t beyond = (std::uint64_t{1} << 40U) + (static_cast<std::uint64_t>(*some) >> 24U);
  manifest.next_number = old ? old->next_number : beyond;
  if (remove_slots) {
    if (auto ok = finish(remove_slots_); !ok) return ok;
  }
  // With what is dropped, since rows may have it.
  last_row_ = INT64_MIN;
  last_dropped_ = INT64_MIN;
  if (auto ok = index_.load(manifest); !ok) return ok;
  stepped_ = true;
  if (auto ok = read_dropped(); !ok) return ok;
  if (auto ok = put_manifest(); !ok) return ok;
  const auto any = number(any_row_);
  if (!any) return any.error();
  expected_.clear();
  stale_ = damaged_ = false;
  behind_ = *any != 0;
  return {};
}

Result<bool> RunsIndex::catch_up(std::size_t least) {
  if (stale_) {
    if (auto ok = load(); !ok) return ok.error();
    index_.begin();
  }
  stepped_ = true;
  expected_.clear();
  {
    const Use use(rows_);
    use->bind(1, last_row_);
    int rc = SQLITE_ROW;
    for (std::size_t rows = std::max(least, rules_.caught_up_at_once); rows > 0 && (rc = use->step()) == SQLITE_ROW;
         --rows)
      add_row(use);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return error(rc);
    behind_ = rc == SQLITE_ROW;
  }
  const auto changed = index_.step();
  if (!changed) {
    slots_failed_ = changed.error().code == Errc::corrupt;
    return failed(changed.error());
  }
  if (*changed) {
    if (auto ok = put_manifest(); !ok) return ok.error();
  }
  return !behind_;
}

Result<void> RunsIndex::begin() {
  stepped_ = slots_failed_ = bad_rows_ = false;
  expected_.clear();
  if (stale_) {
    if (auto ok = load(); !ok) return ok;
  }
  index_.begin();
  return {};
}

void RunsIndex::add(const IndexedOp& op) {
  latest_ = std::max(latest_, op.stored_at);
  if (!is_behind()) return put(op);
  // Its row comes in its turn.
  if (is_made_beside_) return;
  // One that was not expected may be there more than once.
  const auto [it, is_new] = expected_.try_emplace(OpId(op.id));
  it->second.has_all = it->second.has_all && !is_new;
  it->second.rows.push_back({op.stored_at, Timestamp{op.created_at}, static_cast<std::uint64_t>(op.size)});
}

void RunsIndex::put(const IndexedOp& op) {
  const IdInRun id(op.id);
  index_.add(entry_of(op, id));
  last_row_ = std::max(last_row_, op.stored_at);
  latest_ = std::max(latest_, op.stored_at);
}

Result<void> RunsIndex::drop(std::int64_t stored_at) {
  put_dropped_.bind(1, stored_at);
  if (auto ok = finish(put_dropped_); !ok) return ok;
  index_.drop(stored_at);
  for (auto& [op_id, expected] : expected_) {
    std::erase_if(expected.rows, [&](const Found& row) { return row.stored_at == stored_at; });
  }
  return {};
}

Result<void> RunsIndex::put_manifest() {
  const auto bytes = index_.manifest().encode();
  put_manifest_.bind(1, ByteView(bytes));
  return finish(put_manifest_);
}

Result<void> RunsIndex::step() {
  if (is_behind()) return {};  // it has added nothing
  stepped_ = true;
  const auto changed = index_.step();
  if (!changed) return failed(changed.error());
  return *changed ? put_manifest() : Result<void>();
}

Result<void> RunsIndex::step_idle() {
  stepped_ = true;
  const auto changed = index_.step_idle(kIdleWork);
  if (!changed) return failed(changed.error());
  return *changed ? put_manifest() : Result<void>();
}

void RunsIndex::committed() {
  index_.committed();
  fill_shelf();
  stepped_ = false;
}

void RunsIndex::roll_back() {
  if (stepped_) {
    stale_ = true;
    return;
  }
  index_.forget_added();
}

}  // namespace kitsune2::sqlite
