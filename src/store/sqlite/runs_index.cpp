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
/// Rows that are added between two steps of a rebuild.
constexpr std::size_t kRebuiltAtOnce = 4'096;
constexpr std::size_t kSumBytes = 8;

}  // namespace

// ---------------------------------------------------------------- TableSlots

Result<void> TableSlots::prepare(Connection& connection, bool may_write) {
  auto read = connection.prepare("SELECT data FROM slot WHERE n=?1");
  if (!read) return read.error();
  read_ = std::move(*read);
  if (!may_write) return {};
  auto write =
      connection.prepare("INSERT INTO slot(n, data) VALUES(?1,?2) ON CONFLICT(n) DO UPDATE SET data=excluded.data");
  if (!write) return write.error();
  write_ = std::move(*write);
  return {};
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

Result<std::unique_ptr<RunsIndex>> RunsIndex::make(Connection& connection, const OpPolicy* policy, bool may_write,
                                                   const runs::MergeRules& rules) {
  std::unique_ptr<RunsIndex> out(new RunsIndex(connection, policy, rules));
  if (auto ok = out->prepare(connection, may_write); !ok) return ok.error();
  return out;
}

Result<void> RunsIndex::prepare(Connection& connection, bool may_write) {
  if (auto ok = slots_.prepare(connection, may_write); !ok) return ok;
  const std::pair<Statement*, const char*> reading[] = {
      {&version_, "PRAGMA data_version"},
      {&manifest_, "SELECT data FROM manifest"},
      {&slot_end_, "SELECT max(n)+1 FROM slot"},
      {&dropped_, "SELECT seq, stored_at FROM dropped WHERE seq>?1 ORDER BY seq"},
      {&rows_, "SELECT stored_at, loc, id, created_at, size FROM op WHERE stored_at>?1 ORDER BY stored_at"},
      {&id_at_, "SELECT id FROM op WHERE stored_at=?1"},
  };
  const std::pair<Statement*, const char*> writing[] = {
      {&random_, "SELECT random()"},
      {&put_manifest_, "INSERT OR REPLACE INTO manifest(one, data) VALUES(1,?1)"},
      {&put_dropped_, "INSERT INTO dropped(stored_at) VALUES(?1)"},
      {&remove_slots_, "DELETE FROM slot"},
  };
  const auto prepare_all = [&](const auto& all) -> Result<void> {
    for (const auto& [statement, sql] : all) {
      auto prepared = connection.prepare(sql);
      if (!prepared) return prepared.error();
      *statement = std::move(*prepared);
    }
    return {};
  };
  if (auto ok = prepare_all(reading); !ok) return ok;
  return may_write ? prepare_all(writing) : Result<void>();
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
void RunsIndex::add_row(const Use& row) {
  add({static_cast<std::uint32_t>(row->int64(1)), row->int64(4), row->int64(3), row->int64(0), row->blob(2)});
}

Result<void> RunsIndex::read_rows() {
  const Use use(rows_);
  use->bind(1, last_row_);
  int rc = 0;
  while ((rc = use->step()) == SQLITE_ROW) {
    add_row(use);
  }
  if (rc != SQLITE_DONE) return error(rc);
  return {};
}

Result<void> RunsIndex::refresh() {
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
  if (!*found) return std::optional<Found>();
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
  for (; most > 0 && !cursor->at_end() && cursor->entry().created_at < end.micros; cursor->next()) {
    if (!index_.is_held(cursor->entry().stored_at)) continue;
    --most;
    const auto more = give(cursor->entry(), row);
    if (!more) return more.error();
    if (!*more) return {};
  }
  if (cursor->error()) return failed(*cursor->error());
  return {};
}

Result<std::uint64_t> RunsIndex::count_in_time(Timestamp start, Timestamp end, std::uint64_t most) {
  std::uint64_t out = 0;
  const auto cursor = index_.scan(runs::Order::by_time, {0, 0, start.micros, INT64_MIN, {}});
  for (; out < most && !cursor->at_end() && cursor->entry().created_at < end.micros; cursor->next()) {
    out += index_.is_held(cursor->entry().stored_at) ? 1 : 0;
  }
  if (cursor->error()) return failed(*cursor->error());
  return out;
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
  return {};
}

Result<bool> RunsIndex::has_in_time(const IndexedOp& op) {
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
  stepped_ = stale_ = damaged_ = false;
  return {};
}

Result<void> RunsIndex::rebuild() {
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
  if (auto ok = finish(remove_slots_); !ok) return ok;
  // With what is dropped, since rows may have it.
  last_row_ = INT64_MIN;
  last_dropped_ = INT64_MIN;
  latest_ = INT64_MIN;
  if (auto ok = index_.load(manifest); !ok) return ok;
  stepped_ = true;
  if (auto ok = read_dropped(); !ok) return ok;
  {
    const Use use(rows_);
    use->bind(1, last_row_);
    int rc = 0;
    std::size_t added = 0;
    while ((rc = use->step()) == SQLITE_ROW) {
      add_row(use);
      if (++added % kRebuiltAtOnce != 0) continue;
      if (auto ok = index_.step(); !ok) return ok.error();
      index_.committed();  // of this transaction nothing is kept, or all
    }
    if (rc != SQLITE_DONE) return error(rc);
  }
  if (auto ok = index_.step(); !ok) return ok.error();
  if (auto ok = put_manifest(); !ok) return ok;
  stale_ = damaged_ = false;
  return {};
}

Result<void> RunsIndex::begin() {
  stepped_ = false;
  if (stale_) {
    if (auto ok = load(); !ok) return ok;
  }
  index_.begin();
  return {};
}

void RunsIndex::add(const IndexedOp& op) {
  const IdInRun id(op.id);
  index_.add(entry_of(op, id));
  last_row_ = std::max(last_row_, op.stored_at);
  latest_ = std::max(latest_, op.stored_at);
}

Result<void> RunsIndex::drop(std::int64_t stored_at) {
  put_dropped_.bind(1, stored_at);
  if (auto ok = finish(put_dropped_); !ok) return ok;
  index_.drop(stored_at);
  return {};
}

Result<void> RunsIndex::put_manifest() {
  const auto bytes = index_.manifest().encode();
  put_manifest_.bind(1, ByteView(bytes));
  return finish(put_manifest_);
}

Result<void> RunsIndex::step() {
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
