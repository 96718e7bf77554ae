// The writing side of the durable op store: the contents of a commit, and how they are written.
#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "core/callback.hpp"
#include "store/sqlite/op_db.hpp"
#include "store/sqlite/op_schema.hpp"

namespace kitsune2::sqlite {
namespace {

// Figures: docs/store-format.md, "Pragmas".
constexpr const char* kPragmas =
    "PRAGMA synchronous=FULL;"
    "PRAGMA wal_autocheckpoint=0;"
    "PRAGMA secure_delete=OFF;"
    "PRAGMA temp_store=MEMORY;";

/// The ids looked at in one step of compaction, about 10 ms.
constexpr std::size_t kCompactionStep = 8 * kIdsPerPendingRow;

/// The WAL is copied into the database when it has this many bytes. The longer it is, the more changes of an index page
/// are copied together, and the less often a fetch is delayed by it (decisions/0016). In a small database it is an
/// eighth of its limit, but at least kLeastWalBytes.
constexpr std::uint64_t kWalBytes = 128U << 20;
constexpr std::uint64_t kLeastWalBytes = 32U << 20;
/// In version 2 nothing is gained by a long WAL: hardly a page is changed twice. So it is copied when it has this many
/// bytes, or those of two commits: what a copy adds to a call is then no more than a few commits take
/// (decisions/0038). With commits of more than this, which large ops make, it may have all of kWalBytes.
constexpr std::uint64_t kRunsWalBytes = 8U << 20;

/// Requests that are known to be kept, about 24 bytes each. When there are more, all are forgotten: what is requested
/// again then takes room twice, until it is compacted.
constexpr std::size_t kMostRequestsKnown = 1U << 20U;

/// From so many ops on version 1 has the large cache: every op hits another leaf of op_by_loc, and the leaves of fewer
/// ops fit into the usual one. Not from the start, because large ops would fill it with pages that nobody needs again.
constexpr std::uint64_t kManyOps = 65'536;

/// For files without runs, and with them.
const char* select_data_at(int version) {
  static const std::string kTexts[] = {
      std::string("SELECT ") + data_column(kTablesFormat.version) + " FROM op WHERE stored_at=?1",
      std::string("SELECT ") + data_column(kRunsFormat.version) + " FROM op WHERE stored_at=?1",
      std::string("SELECT ") + data_column(kLargeFormat.version) + " FROM op WHERE stored_at=?1"};
  return kTexts[has_large(version) ? 2 : has_runs(version) ? 1 : 0].c_str();
}
/// Bytes that are not in the row, whether there is one or not.
const char* select_stray_data(int version) {
  return has_large(version) ? "SELECT data FROM op_data WHERE stored_at=?1"
                              " UNION ALL SELECT k2_large(at, bytes) FROM op_place WHERE stored_at=?1"
                            : "SELECT data FROM op_data WHERE stored_at=?1";
}

int on_wal_commit(void* frames, sqlite3* /*db*/, const char* /*name*/, int count) {
  *static_cast<int*>(frames) = count;
  return SQLITE_OK;
}

}  // namespace

// ---------------------------------------------------------------- OpWriter

OpWriter::OpWriter() : wal_frames_(std::make_unique<int>(0)) {}

Result<OpWriter> OpWriter::open(const std::string& path, const OpFileOptions& options) {
  OpWriter out;
  const std::uint64_t max_database_bytes = options.max_database_bytes;
  out.vfs_ = options.vfs ? options.vfs : std::make_shared<GatherVfs>(nullptr);
  auto connection = Connection::open(path, Connection::Mode::write, out.vfs_->name());
  if (!connection) return connection.error();
  out.connection_ = std::move(*connection);
  Connection& c = out.connection_;
  // The page size matters only for a new file; the format is checked before anything is changed.
  if (auto ok = c.run("PRAGMA page_size=16384"); !ok) return ok.error();
  const auto version = open_op_format(c, options.for_new);
  if (!version) return version.error();
  out.version_ = *version;
  if (auto ok = c.run("PRAGMA journal_mode=WAL"); !ok) return ok.error();
  if (auto ok = c.run(kPragmas); !ok) return ok.error();
  const auto page_size = c.number("PRAGMA page_size");
  if (!page_size) return page_size.error();
  const auto page_bytes = out.page_bytes_ = static_cast<std::uint64_t>(*page_size);
  const auto wal_bytes =
      max_database_bytes > 0 ? std::clamp(max_database_bytes / 8, kLeastWalBytes, kWalBytes) : kWalBytes;
  const auto frames = [&](std::uint64_t b) { return static_cast<int>(b / std::max<std::uint64_t>(page_bytes, 512)); };
  out.most_frames_ = frames(wal_bytes);
  out.short_frames_ = frames(kRunsWalBytes);
  // The space to which it has grown beside a slow reader is freed.
  const auto keep = "PRAGMA journal_size_limit=" + std::to_string(wal_bytes);
  if (auto ok = c.run(keep.c_str()); !ok) return ok.error();
  out.most_bytes_ = max_database_bytes;
  if (auto ok = out.open_large(options); !ok) return ok.error();
  if (auto ok = out.limit_database(); !ok) return ok.error();
  sqlite3_wal_hook(c.handle(), on_wal_commit, out.wal_frames_.get());
  out.policy_ = options.policy;
  out.shared_ = {options.merge_rules, options.blocks, options.shelf};
  out.sums_ = KeptSums(options.sums_rules);
  if (auto ok = out.take_version(*version); !ok) return ok.error();

  auto last = c.number("SELECT max(stored_at) FROM op");
  if (!last) return last.error();
  if (out.runs_ != nullptr) last = std::max(*last, out.runs_->latest());
  if (*last > store::StoredClock::kLatest.micros / 2 * 3)
    return make_error(Errc::corrupt, path + ": impossible time of storing");
  out.now_.clock = store::StoredClock(Timestamp{*last});
  const auto ops = c.number("SELECT ops FROM totals");
  if (!ops) return ops.error();
  const auto bytes = c.number("SELECT bytes FROM totals");
  if (!bytes) return bytes.error();
  if (*ops < 0 || *bytes < 0) return make_error(Errc::corrupt, path + ": damaged row in table totals");
  out.now_.totals = {static_cast<std::uint64_t>(*ops), static_cast<std::uint64_t>(*bytes)};
  out.before_ = out.now_;
  const auto any_pending = c.number("SELECT EXISTS(SELECT 1 FROM pending)");
  if (!any_pending) return any_pending.error();
  if (*any_pending != 0) out.compacting_after_ = 0;  // unknown how much of it is stored by now
  const auto pending_bytes = c.number("SELECT sum(length(ids)) FROM pending");
  if (!pending_bytes) return pending_bytes.error();
  out.now_.pending_bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(*pending_bytes, 0));
  const auto last_row = c.number("SELECT max(seq) FROM pending");
  if (!last_row) return last_row.error();
  if (*last_row < 0 || *last_row > INT64_MAX / 2) {
    return make_error(Errc::corrupt, path + ": damaged row in table pending");
  }
  out.now_.last_pending_row = *last_row;
  out.connection_.let_pages_go();
  return out;
}

/// Statements and indexes for a version, once the file has it.
Result<void> OpWriter::take_version(int version) {
  version_ = version;
  is_stale_ = true;
  least_frames_ = has_runs(version_) ? short_frames_ : most_frames_;
  auto ok = prepare_index();
  if (ok) prepare();
  if (ok) is_stale_ = false;
  return ok;
}

Result<void> OpWriter::prepare_index() {
  if (has_runs(version_) && !runs_) {
    runs_ = RunsIndex::make(connection_, policy_, true, shared_);
    runs_->make_beside(has_tables());
    if (auto ok = load_index(); !ok) {
      runs_.reset();
      return ok;
    }
  }
  if (!has_tables()) {
    index_ = runs_.get();
    tables_.reset();
    return {};
  }
  tables_ = make_table_index(connection_, policy_);
  index_ = tables_.get();
  return {};
}

void OpWriter::prepare() {
  const std::pair<Statement*, const char*> all[] = {
      {&insert_op_, runs_ == nullptr
                        ? "INSERT INTO op(stored_at, loc, id, created_at, size) VALUES(?1,?2,?3,?4,?5)"
                        : "INSERT INTO op(stored_at, loc, id, created_at, size, data) VALUES(?1,?2,?3,?4,?5,?6)"},
      {&insert_data_, "INSERT INTO op_data(stored_at, data) VALUES(?1,?2)"},
      {&set_totals_, "UPDATE totals SET ops=?1, bytes=?2"},
      {&put_slice_hash_, "INSERT OR REPLACE INTO slice_hash(arc_start, arc_end, slice, hash) VALUES(?1,?2,?3,?4)"},
      {&find_source_, "SELECT number FROM source WHERE url=?1"},
      {&insert_source_, "INSERT INTO source(url) VALUES(?1)"},
      {&remove_source_, "DELETE FROM source WHERE number=?1"},
      {&remove_unused_sources_, "DELETE FROM source WHERE number NOT IN (SELECT source FROM pending)"},
      {&insert_pending_, "INSERT INTO pending(source, ids, seq) VALUES(?1,?2,?3)"},
      {&bytes_of_source_, "SELECT sum(length(ids)) FROM pending INDEXED BY pending_by_source WHERE source=?1"},
      {&remove_pending_, "DELETE FROM pending WHERE source=?1"},
      {&list_pending_, "SELECT seq, ids, source FROM pending WHERE seq>?1 ORDER BY seq"},
      {&list_pending_of_, "SELECT seq, ids FROM pending INDEXED BY pending_by_source WHERE source=?1 ORDER BY seq"},
      {&update_pending_, "UPDATE pending SET ids=?2 WHERE seq=?1"},
      {&remove_pending_row_, "DELETE FROM pending WHERE seq=?1"},
      {&op_at_, "SELECT loc, id, created_at, size FROM op WHERE stored_at=?1"},
      {&data_at_, select_data_at(version_)},
      {&stray_data_, select_stray_data(version_)},
      {&remove_op_, "DELETE FROM op WHERE stored_at=?1"},
      {&remove_data_, "DELETE FROM op_data WHERE stored_at=?1"},
      {&set_entry_, "UPDATE op SET loc=?2, created_at=?3, size=?4 WHERE stored_at=?1"},
      {&move_entry_, "UPDATE op SET stored_at=?2 WHERE stored_at=?1"},
      {&move_data_, "UPDATE op_data SET stored_at=?2 WHERE stored_at=?1"},
      {&get_sums_, kSelectSums},
      {&put_sums_, "INSERT OR REPLACE INTO meta(key, value) VALUES('sums_dht', ?1)"},
      {&remove_sums_, "DELETE FROM meta WHERE key='sums_dht'"},
      {&remove_old_sums_, "DELETE FROM meta WHERE key='dht_sums'"},
      {&last_op_, "SELECT stored_at, id FROM op ORDER BY stored_at DESC LIMIT 1"},
      {&ops_between_,
       "SELECT stored_at, loc, id, created_at, size FROM op WHERE stored_at>?1 AND stored_at<=?2 ORDER BY stored_at"},
      {&begin_, "BEGIN IMMEDIATE"},
      {&commit_, "COMMIT"},
      {&page_count_, "PRAGMA page_count"},
      {&insert_place_, "INSERT INTO op_place(stored_at, at, bytes) VALUES(?1,?2,?3)"},
      {&remove_place_, "DELETE FROM op_place WHERE stored_at=?1"},
      {&move_place_, "UPDATE op_place SET stored_at=?2 WHERE stored_at=?1"},
  };
  for (const auto& [statement, sql] : all) *statement = connection_.later(sql);
}

/// Reads what the runs have in memory. Where they cannot be read they are started anew: the rows have all of it.
Result<void> OpWriter::load_index() {
  auto ok = connection_.run("BEGIN IMMEDIATE");
  if (!ok) return ok;
  ok = runs_->load();
  if (!ok && ok.error().code == Errc::corrupt) {
    ok = begin_again();
    // Where the old indexes answer, rows that cannot be read are not needed.
    if (ok && !has_tables()) ok = runs_->check_rows();
    if (ok) ok = runs_->start_anew();
    if (ok) ok = connection_.run("COMMIT");
    if (ok) runs_->committed();
  }
  connection_.roll_back();
  return ok;
}

Result<void> OpWriter::bind_to(const SpaceId& space, std::string_view policy) {
  auto get = connection_.prepare("SELECT value FROM meta WHERE key=?1");
  if (!get) return get.error();
  auto put = connection_.prepare("INSERT INTO meta(key, value) VALUES(?1,?2)");
  if (!put) return put.error();
  if (auto ok = begin(); !ok) return ok;
  const auto settle = [&](std::string_view key, ByteView value, auto as_shown) -> Result<void> {
    const Use use(*get);
    const int rc = use->bind_text(1, key).step();
    if (rc == SQLITE_DONE) {
      put->bind_text(1, key).bind(2, value);
      return finish(*put);
    }
    if (rc != SQLITE_ROW) return connection_.error(rc);
    const ByteView held = use->blob(0);
    if (as_text(held) == as_text(value)) return {};
    return make_error(Errc::already_exists, connection_.path() + ": this store is of " + std::string(key) + " " +
                                                as_shown(held) + ", not of " + as_shown(value));
  };
  auto ok = settle("space", space.view(), [](ByteView bytes) { return to_base64url(bytes); });
  if (ok) ok = settle("policy", as_bytes(policy), [](ByteView bytes) { return std::string(as_text(bytes)); });
  if (ok) ok = commit();
  if (!ok) roll_back();
  return ok;
}

Result<void> OpWriter::finish(Statement& statement) {
  const Use use(statement);
  const int rc = use->step();
  if (rc != SQLITE_DONE) return connection_.error(rc);
  return {};
}

Result<void> OpWriter::begin() {
  before_ = now_;
  remembered_.clear();
  if (distrusted_ && !distrust()) {
    return make_error(Errc::io, connection_.path() +
                                    ": nothing is written, since a sync of the database failed and what it has not "
                                    "taken cannot be written again yet");
  }
  if (is_stale_) {
    if (auto ok = take_version(version_); !ok) return ok;
  }
  auto ok = finish(begin_);
  if (ok && uses_ <= kFewUses) {
    ++uses_;
    fit_cache();
  }
  if (!ok || runs_ == nullptr) return ok;
  // Also if only a merge has met the damage, which is then rolled back, and loaded again without a look at its blocks.
  const bool was_damaged = runs_->is_damaged();
  ok = runs_->begin();
  if (!ok || runs_->has_bad_rows()) {
    if (auto again = begin_again(); !again) return again;
  }
  // What is being made keeps nobody from storing: `convert` tells of it.
  if (has_tables()) ok = {};
  if ((!was_damaged && !runs_->is_damaged()) || !may_make_indexes_anew()) return ok;
  now_.indexes_made_anew = true;
  const auto anew = start_runs_anew();
  // If it was not even begun, since there are rows that cannot be read, what does not need the damaged part goes on.
  return !anew && ok && runs_->is_loaded() ? begin_again() : anew;
}

void OpWriter::fit_cache() {
  using Cache = Connection::Cache;
  const bool is_used = uses_ > kFewUses || now_.totals.ops - before_.totals.ops > kFewUses;
  auto wanted = cache_;
  if (is_used || cache_ != Cache::small)
    wanted = has_tables() && now_.totals.ops >= kManyOps ? Cache::large : Cache::usual;
  if (wanted != cache_ && connection_.set_cache(wanted)) cache_ = wanted;
}

void OpWriter::rest() {
  uses_ = 0;
  cache_ = Connection::Cache::small;
  prepare();
  for (OpIndex* index : {tables_.get(), static_cast<OpIndex*>(runs_.get())}) {
    if (index != nullptr) index->let_go();
  }
  connection_.let_pages_go();
}

Result<void> OpWriter::commit() {
  if (now_.totals.ops != before_.totals.ops || std::exchange(now_.totals_changed, false)) {
    set_totals_.bind(1, static_cast<std::int64_t>(now_.totals.ops))
        .bind(2, static_cast<std::int64_t>(now_.totals.bytes));
    if (auto ok = finish(set_totals_); !ok) return ok;
  }
  if (now_.rows_changed) {
    if (auto ok = finish(remove_sums_); !ok) return ok;
  }
  if (runs_ != nullptr) {
    if (auto ok = runs_->step(); !ok) return ok;
  }
  if (auto ok = sync_large(); !ok) return ok;
  if (auto ok = finish(commit_); !ok) return ok;
  end_large(true);
  if (runs_ != nullptr) runs_->committed();
  std::exchange(now_.rows_changed, false) ? sums_.forget() : sums_.committed();
  fit_cache();
  note_compaction();
  return {};
}

void OpWriter::roll_back() {
  connection_.roll_back();
  end_large(false);
  sums_.roll_back();
  if (runs_ != nullptr) runs_->roll_back();
  now_ = before_;
  sources_.clear();
  for (const auto& [source, hash] : remembered_) forget_request(source, hash);
  remembered_.clear();
}

Result<void> OpWriter::merge() {
  auto ok = begin();
  if (ok) ok = runs_->step_idle();
  return end_own(std::move(ok));
}

Result<void> OpWriter::end_own(Result<void> ok) {
  if (ok) ok = finish(commit_);
  if (!ok) {
    roll_back();
  } else if (runs_ != nullptr) {
    runs_->committed();
  }
  return ok;
}

Result<void> OpWriter::catch_up(std::size_t ops) {
  auto ok = begin();
  if (ok) {
    const auto done = runs_->catch_up(2 * ops);
    if (!done) ok = done.error();
  }
  if (ok) ok = finish(commit_);
  if (ok) {
    runs_->committed();
    return {};
  }
  const bool slots_failed = runs_->slots_failed();
  roll_back();
  // What is lost when rows cannot be read does not come back, and what the index has of the others stays.
  if (!slots_failed || std::exchange(slots_removed_, true)) return ok;
  // Slots that SQLite cannot write any more are removed, if it can do that.
  auto removed = begin();
  if (removed) removed = runs_->start_anew(true);
  return end_own(std::move(removed));
}

Result<void> OpWriter::convert(std::size_t ops) {
  int next = version_;
  auto ok = begin();
  if (ok && version_ == kTablesFormat.version) {
    next = kConvertingFormat.version;
    ok = connection_.run(kStartConversion);
  } else if (ok && version_ == kConvertingFormat.version) {
    const auto done = runs_->catch_up(2 * ops);
    if (!done) ok = done.error();
    if (done && *done) {
      next = kConvertedFormat.version;
      ok = connection_.run(kSwitchToRuns);
    }
  } else if (ok && version_ == kConvertedFormat.version) {
    next = kRunsFormat.version;
    ok = connection_.run(kEndConversion);
  }
  ok = end_own(std::move(ok));
  if (!ok || next == version_) return ok;
  if (runs_) runs_->make_beside(next == kConvertingFormat.version);
  return take_version(next);
}

Result<OpWriter::Room> OpWriter::room_for_conversion() {
  const auto pages = connection_.number("PRAGMA page_count");
  if (!pages) return pages.error();
  const auto page_bytes = connection_.number("PRAGMA page_size");
  if (!page_bytes) return page_bytes.error();
  const auto id_bytes = connection_.number("SELECT length(id) FROM op LIMIT 1");
  if (!id_bytes) return id_bytes.error();
  // An entry in two orders, with its part of fences and filter; as much again while runs are merged; and the WAL.
  const auto id = std::min(static_cast<std::uint64_t>(std::max<std::int64_t>(*id_bytes, 0)), std::uint64_t{254});
  const std::uint64_t runs = now_.totals.ops * (id + 31) * 4;
  return Room{runs + std::min(runs, kLeastWalBytes) + (256U << 10U),
              static_cast<std::uint64_t>(*pages) * static_cast<std::uint64_t>(*page_bytes)};
}

// ------------------------------------------------------------------ damage

Result<void> OpWriter::start_runs_anew() {
  auto ok = runs_->check_rows();
  if (ok) ok = runs_->start_anew();
  indexes_stay_ = !ok;
  return ok;
}

/// Those that answer.
Result<void> OpWriter::make_indexes_anew() {
  now_.indexes_made_anew = true;
  if (!has_tables()) return start_runs_anew();
  auto ok = connection_.run("REINDEX op_by_loc; REINDEX op_by_time");
  // Even though it is rolled back: each attempt costs as much as the store is large.
  indexes_stay_ = !ok;
  return ok;
}

Result<Examined> OpWriter::examine(const std::vector<Suspect>& suspects, const OpPolicy& policy) {
  Examined out;
  if (auto ok = expect_all(suspects); !ok) return ok.error();
  for (std::size_t i = 0; i < suspects.size(); ++i) {
    const Suspect& suspect = suspects[i];
    if (suspect.stored_at == kSums) {
      now_.rows_changed = true;
      ++out.mended;
      continue;
    }
    if (suspect.stored_at == kWholeIndex) {
      if (!may_make_indexes_anew()) continue;  // it has been done since a reader met the damage
      auto ok = make_indexes_anew();
      if (ok) ok = expect_all(std::span(suspects).subspan(i));
      if (!ok) return ok.error();
      ++out.mended;
      continue;
    }
    auto agree = drop_or_mend(suspect, policy, out);
    const bool only_indexes = agree ? !*agree : agree.error().code == Errc::corrupt;
    if (only_indexes && may_make_indexes_anew()) {
      auto ok = make_indexes_anew();
      if (ok) ok = expect_all(std::span(suspects).subspan(i));
      if (!ok) return ok.error();
      agree = drop_or_mend(suspect, policy, out);
      indexes_stay_ = !agree;
      ++out.mended;
    }
    if (!agree) return agree.error();
  }
  // What the wrong entries said was never counted.
  if (out.sizes_were_wrong) {
    if (auto ok = recount(); !ok) return ok.error();
  }
  return out;
}

Result<void> OpWriter::recount() {
  const auto ops = connection_.number("SELECT count(*) FROM op");
  if (!ops) return ops.error();
  const auto bytes =
      connection_.number(has_tables() ? "SELECT sum(size) FROM op INDEXED BY op_by_time" : "SELECT sum(size) FROM op");
  if (!bytes) return bytes.error();
  now_.totals = {static_cast<std::uint64_t>(*ops), static_cast<std::uint64_t>(std::max<std::int64_t>(*bytes, 0))};
  now_.totals_changed = true;
  return {};
}

/// The bytes at a time of storing, and what the policy says of them.
Result<OpWriter::Looked> OpWriter::look_at(Statement& data, std::int64_t stored_at, const OpPolicy& policy) {
  Looked out;
  const Use use(data);
  const int rc = use->bind(1, stored_at).step();
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) return connection_.error(rc);
  if (rc == SQLITE_DONE) return out;
  out.has_row = true;
  if (use->is_null(0)) return out;
  out.bytes = use->blob(0).size();
  auto described = call_for_result("the op policy", [&] { return policy.describe(use->blob(0)); });
  if (described) {
    out.op = std::move(*described);
  } else {
    out.is_unclear = !is_damage(described.error());
  }
  return out;
}

/// What there is, as the index says, of an op whose bytes are intact at `stored_at`. If it is damaged it is removed.
Result<OpWriter::Copy> OpWriter::other_copy(std::int64_t stored_at, const OpId& op_id, const OpPolicy& policy,
                                            Examined& out) {
  const auto held = has_tables() ? index_->find(op_id.view()) : runs_->find_besides(op_id.view(), stored_at);
  if (!held) return held.error();
  if (!*held || (*held)->stored_at == stored_at) return Copy::none;
  const std::int64_t other = (*held)->stored_at;
  {
    const Use use(op_at_);
    const int rc = use->bind(1, other).step();
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return connection_.error(rc);
    if (rc == SQLITE_DONE || !std::ranges::equal(use->blob(1), op_id.view())) return Copy::of_index_only;
  }
  const auto looked = look_at(data_at_, other, policy);
  if (!looked) return looked.error();
  if (looked->is_unclear) return Copy::unclear;
  if (looked->is(op_id)) return Copy::intact;
  if (auto ok = remove(other); !ok) return ok.error();
  out.sizes_were_wrong = true;
  ++out.mended;
  return Copy::none;
}

/// Returns false if an index differs from the table.
Result<bool> OpWriter::drop_or_mend(const Suspect& suspect, const OpPolicy& policy, Examined& out) {
  const std::int64_t stored_at = suspect.stored_at;
  OpRecord entry;
  std::int64_t location = 0, size = 0;
  bool has_row = false;
  {
    const Use use(op_at_);
    const int rc = use->bind(1, stored_at).step();
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return connection_.error(rc);
    has_row = rc == SQLITE_ROW;
    if (has_row) {
      location = use->int64(0);
      entry.op_id = OpId(use->blob(1));
      entry.created_at = Timestamp{use->int64(2)};
      size = use->int64(3);
    }
  }
  if (!has_row) return look_for_row(suspect, policy, out);
  entry.location = static_cast<std::uint32_t>(location);
  entry.size = static_cast<std::uint64_t>(std::max<std::int64_t>(size, 0));
  const auto looked = look_at(data_at_, stored_at, policy);
  if (!looked) return looked.error();
  if (looked->is_unclear) return true;
  const bool size_is_wrong = size != static_cast<std::int64_t>(looked->bytes);
  if (looked->is(entry.op_id)) {
    const OpRecord right{entry.op_id, looked->op->created_at, index_->location(entry.op_id.view()), looked->bytes};
    bool is_right = location == std::int64_t{right.location} && !size_is_wrong && entry.created_at == right.created_at;
    if (is_right) {
      auto agree = indexes_agree(stored_at, right);
      if (!agree || has_tables()) return agree;
      is_right = *agree;
    }
    out.sizes_were_wrong = out.sizes_were_wrong || size_is_wrong;
    return mend(stored_at, right, is_right, policy, out);
  }
  if (auto ok = remove(stored_at); !ok) return ok.error();
  now_.totals.ops -= std::min<std::uint64_t>(1, now_.totals.ops);
  now_.totals.bytes -= std::min(entry.size, now_.totals.bytes);
  now_.totals_changed = true;
  out.sizes_were_wrong = out.sizes_were_wrong || size_is_wrong;
  if (looked->is(suspect.op_id)) {
    // The bytes are right; the id in the entry is damaged.
    entry.op_id = suspect.op_id;
    entry.location = index_->location(entry.op_id.view());
  }
  out.dropped.push_back(std::move(entry));
  return true;
}

/// The same where there is no row.
Result<bool> OpWriter::look_for_row(const Suspect& suspect, const OpPolicy& policy, Examined& out) {
  const std::int64_t stored_at = suspect.stored_at;
  const auto looked = look_at(stray_data_, stored_at, policy);
  if (!looked) return looked.error();
  if (looked->is_unclear) return true;
  auto held = Copy::intact;
  if (looked->op) {
    const auto copy = other_copy(stored_at, looked->op->op_id, policy, out);
    if (!copy) return copy.error();
    held = *copy;
  }
  if (held == Copy::unclear) return true;
  if (held == Copy::of_index_only) return false;
  if (held == Copy::none) {
    auto agree = put_row_back(stored_at, *looked->op, looked->bytes, out);
    if (!agree || !*agree || looked->is(suspect.op_id)) return agree;
  } else if (looked->has_row) {
    if (auto ok = remove_data(stored_at); !ok) return ok.error();
  }
  if (suspect.op_id.empty()) return true;
  const auto indexed = index_->find(suspect.op_id.view());
  if (!indexed) return indexed.error();
  if (!*indexed || (*indexed)->stored_at != stored_at) return true;
  if (has_tables()) return false;
  // An entry of the index without an op.
  if (auto ok = runs_->drop(stored_at); !ok) return ok.error();
  ++out.mended;
  return true;
}

/// Of an op whose bytes are there. In runs, and where the index does not name it, the op has a new time of storing, so
/// that peers who ask for what is new learn of it.
Result<bool> OpWriter::put_row_back(std::int64_t stored_at, const OpDescription& op, std::size_t bytes, Examined& out) {
  const auto held = index_->find(op.op_id.view());
  if (!held) return held.error();
  now_.rows_changed = true;
  const bool is_named = *held && (*held)->stored_at == stored_at;
  std::int64_t at = stored_at;
  if (runs_ != nullptr || !is_named || Timestamp{stored_at} >= now_.clock.bookmark()) {
    at = now_.clock.next(Timestamp{}).micros;
    if (auto ok = move_data(stored_at, at); !ok) return ok.error();
  }
  const OpRecord entry{op.op_id, op.created_at, index_->location(op.op_id.view()), bytes};
  const auto size = static_cast<std::int64_t>(bytes);
  insert_op_.bind(1, at).bind(2, std::int64_t{entry.location}).bind(3, op.op_id.view());
  insert_op_.bind(4, op.created_at.micros).bind(5, size);
  if (runs_ != nullptr) insert_op_.bind_null(6);
  if (auto ok = finish(insert_op_); !ok) return ok.error();
  out.sizes_were_wrong = true;  // the totals may count it, or not
  ++out.mended;
  if (runs_ == nullptr) return indexes_agree(at, entry);
  if (auto ok = runs_->drop(stored_at); !ok) return ok.error();
  runs_->add({entry.location, size, op.created_at.micros, at, op.op_id.view()});
  return true;
}

Result<void> OpWriter::remove(std::int64_t stored_at) {
  now_.rows_changed = true;
  remove_op_.bind(1, stored_at);
  if (auto ok = finish(remove_op_); !ok) return ok;
  if (auto ok = remove_data(stored_at); !ok) return ok;
  return runs_ != nullptr ? runs_->drop(stored_at) : Result<void>();
}

/// Corrects the entry of an op whose bytes are right, unless that is right too. A run cannot be corrected, so there the
/// op is stored again; there it may also be held twice, and then the other one stays. Returns false if an index differs
/// from the table.
Result<bool> OpWriter::mend(std::int64_t stored_at, const OpRecord& entry, bool is_right, const OpPolicy& policy,
                            Examined& out) {
  auto other = Copy::none;
  if (runs_ != nullptr) {
    const auto copy = other_copy(stored_at, entry.op_id, policy, out);
    if (!copy) return copy.error();
    other = *copy;
  }
  if (other == Copy::unclear) return true;
  if (other == Copy::of_index_only) return false;
  if (other == Copy::none && is_right) return true;
  ++out.mended;
  if (other == Copy::intact) {
    out.sizes_were_wrong = true;
    if (auto ok = remove(stored_at); !ok) return ok.error();
    return true;
  }
  const auto size = static_cast<std::int64_t>(entry.size);
  now_.rows_changed = true;
  set_entry_.bind(1, stored_at).bind(2, std::int64_t{entry.location}).bind(3, entry.created_at.micros);
  if (auto ok = finish(set_entry_.bind(4, size)); !ok) return ok.error();
  if (runs_ == nullptr) return true;
  const std::int64_t again = now_.clock.next(Timestamp{stored_at}).micros;
  if (auto ok = finish(move_entry_.bind(1, stored_at).bind(2, again)); !ok) return ok.error();
  if (auto ok = move_data(stored_at, again); !ok) return ok.error();
  if (auto ok = runs_->drop(stored_at); !ok) return ok.error();
  runs_->add({entry.location, size, entry.created_at.micros, again, entry.op_id.view()});
  return true;
}

Result<bool> OpWriter::indexes_agree(std::int64_t stored_at, const OpRecord& entry) {
  const auto by_id = index_->find(entry.op_id.view());
  if (!by_id) return by_id.error();
  if (!*by_id || (*by_id)->stored_at != stored_at || (*by_id)->size != entry.size ||
      (*by_id)->created_at != entry.created_at) {
    return false;
  }
  return index_->has_in_time(
      {entry.location, static_cast<std::int64_t>(entry.size), entry.created_at.micros, stored_at, entry.op_id.view()});
}

Result<void> OpWriter::store(const OpDescription& description, ByteView op, Timestamp wall_now, ProcessedOps& out,
                             std::vector<OpRecord>& records, std::vector<Fingerprints::Entry>* prints) {
  const ByteView id = description.op_id.view();
  const auto held = index_->find(id);
  if (!held) return held.error();
  if (*held) {
    out.stored.push_back({(*held)->created_at, description.op_id});
    return {};
  }
  const std::int64_t stored_at = now_.clock.next(wall_now).micros;
  const std::uint32_t location = index_->location(id);
  const auto size = static_cast<std::int64_t>(op.size());
  const bool is_apart = runs_ == nullptr || op.size() > kMostBytesInRow;
  insert_op_.bind(1, stored_at).bind(2, std::int64_t{location}).bind(3, id);
  insert_op_.bind(4, description.created_at.micros).bind(5, size);
  if (runs_ != nullptr && is_apart) insert_op_.bind_null(6);
  if (!is_apart) insert_op_.bind(6, op);
  if (auto ok = finish(insert_op_); !ok) return ok;
  if (has_large(version_) && op.size() >= least_large_bytes_) {
    if (auto ok = store_large(stored_at, op); !ok) return ok;
  } else if (is_apart) {
    insert_data_.bind(1, stored_at).bind(2, op);
    if (auto ok = finish(insert_data_); !ok) return ok;
  }
  if (runs_ != nullptr) runs_->add({location, size, description.created_at.micros, stored_at, id});
  sums_.add(location, description.created_at, id);
  ++now_.totals.ops;
  now_.totals.bytes += op.size();
  ++now_.stored_since_compaction;
  out.stored.push_back({description.created_at, description.op_id});
  out.newly_stored.push_back(description.op_id);
  out.bytes_stored += op.size();
  if (prints != nullptr && op.size() >= Fingerprints::kLeastBytes) {
    prints->emplace_back(stored_at, fingerprint(id, description.created_at, op));
  }
  records.push_back({description.op_id, description.created_at, location, op.size()});
  return {};
}

Result<void> OpWriter::store_slice_hash(const DhtArc& arc, std::uint64_t slice_index, ByteView hash) {
  put_slice_hash_.bind(1, std::int64_t{arc.start()}).bind(2, std::int64_t{arc.end()});
  put_slice_hash_.bind(3, static_cast<std::int64_t>(slice_index)).bind(4, hash);
  return finish(put_slice_hash_);
}

// ----------------------------------------------------------------- pending

/// Returns 0 if there is none.
Result<std::int64_t> OpWriter::find_source(const Url& source) {
  const Use use(find_source_);
  const int rc = use->bind_text(1, source.str()).step();
  if (rc == SQLITE_ROW) return use->int64(0);
  if (rc != SQLITE_DONE) return connection_.error(rc);
  return std::int64_t{0};
}

Result<std::int64_t> OpWriter::source_number(const Url& source) {
  if (const auto it = sources_.find(source); it != sources_.end()) return it->second;
  const auto known = find_source(source);
  if (!known) return known.error();
  std::int64_t number = *known;
  if (number == 0) {
    insert_source_.bind_text(1, source.str());
    if (auto ok = finish(insert_source_); !ok) return ok.error();
    number = sqlite3_last_insert_rowid(connection_.handle());
  }
  if (sources_.size() >= 1024) sources_.clear();
  sources_.emplace(source, number);
  return number;
}

void OpWriter::forget_requests() {
  requests_.clear();
  requests_known_ = 0;
}

/// Whether another row is known to have the request.
bool OpWriter::is_in_another_row(std::int64_t source, std::uint64_t hash, std::int64_t row) const {
  const auto known = requests_.find(source);
  if (known == requests_.end()) return false;
  const auto it = known->second.find(hash);
  return it != known->second.end() && it->second != row;
}

void OpWriter::forget_request(std::int64_t source, std::uint64_t hash) {
  const auto known = requests_.find(source);
  if (known == requests_.end()) return;
  requests_known_ -= known->second.erase(hash);
  if (known->second.empty()) requests_.erase(known);
}

void OpWriter::remember_request(std::int64_t source, std::uint64_t hash, std::int64_t row) {
  if (requests_known_ >= kMostRequestsKnown) forget_requests();
  if (requests_[source].insert_or_assign(hash, row).second) ++requests_known_;
  remembered_.emplace_back(source, hash);
}

Result<bool> OpWriter::has_room_for(const std::vector<OpId>& op_ids, const Url& source, std::uint64_t most_bytes) {
  std::int64_t number = 0;
  if (const auto it = sources_.find(source); it != sources_.end()) {
    number = it->second;
  } else {
    const auto found = find_source(source);
    if (!found) return found.error();
    number = *found;
  }
  const auto known = requests_.find(number);
  std::vector<std::uint8_t> packed;
  std::uint64_t bytes = 0;
  for (const OpId& op_id : op_ids) {
    if (known != requests_.end() && known->second.contains(keyed_hash(op_id.view()))) continue;
    packed.clear();
    pack_id(op_id, packed);
    bytes += packed.size();
  }
  return bytes == 0 || now_.pending_bytes + bytes <= most_bytes;
}

Result<void> OpWriter::add_pending(const std::vector<OpId>& op_ids, const Url& source) {
  if (op_ids.empty()) return {};
  const auto number = source_number(source);
  if (!number) return number.error();
  std::vector<std::uint8_t> row;
  std::size_t count = 0;
  const auto put = [&]() -> Result<void> {
    insert_pending_.bind(1, *number).bind(2, ByteView(row)).bind(3, ++now_.last_pending_row);
    if (auto ok = finish(insert_pending_); !ok) return ok;
    now_.pending_bytes += row.size();
    now_.pending_ids += count;
    row.clear();
    count = 0;
    return {};
  };
  for (const OpId& op_id : op_ids) {
    const std::uint64_t hash = keyed_hash(op_id.view());
    if (const auto known = requests_.find(*number); known != requests_.end() && known->second.contains(hash)) continue;
    remember_request(*number, hash, now_.last_pending_row + 1);
    pack_id(op_id, row);
    ++count;
    if (count < kIdsPerPendingRow && row.size() < kBytesPerPendingRow) continue;
    if (auto ok = put(); !ok) return ok;
  }
  return count > 0 ? put() : Result<void>();
}

Result<void> OpWriter::remove_pending_source(const Url& source) {
  const auto number = find_source(source);
  if (!number) return number.error();
  if (*number == 0) return {};
  sources_.erase(source);
  if (const auto it = requests_.find(*number); it != requests_.end()) {
    requests_known_ -= it->second.size();
    requests_.erase(it);
  }
  {
    const Use use(bytes_of_source_);
    if (const int rc = use->bind(1, *number).step(); rc != SQLITE_ROW) return connection_.error(rc);
    const auto bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(use->int64(0), 0));
    now_.pending_bytes -= std::min(bytes, now_.pending_bytes);
  }
  remove_pending_.bind(1, *number);
  if (auto ok = finish(remove_pending_); !ok) return ok;
  remove_source_.bind(1, *number);
  return finish(remove_source_);
}

Result<void> OpWriter::remove_pending(const std::vector<OpId>& op_ids, const Url& source) {
  const auto number = find_source(source);
  if (!number) return number.error();
  if (*number == 0 || op_ids.empty()) return {};
  std::unordered_set<std::string_view> gone;
  for (const OpId& op_id : op_ids) {
    gone.insert(as_text(op_id.view()));
    forget_request(*number, keyed_hash(op_id.view()));
  }
  std::vector<PendingRow> rows;
  Result<void> ok;
  {
    const Use use(list_pending_of_);
    use->bind(1, *number);
    int rc = 0;
    while ((rc = use->step()) == SQLITE_ROW) {
      PendingRow row{use->int64(0), {}, 0, use->blob(1).size()};
      const bool intact = unpack_ids(use->blob(1), [&](ByteView id) {
        if (gone.contains(as_text(id))) {
          ++row.dropped;
        } else {
          pack_id(id, row.left);
        }
      });
      if (!intact) ++row.dropped;
      if (row.dropped > 0) rows.push_back(std::move(row));
    }
    if (rc != SQLITE_DONE) ok = connection_.error(rc);
  }
  return ok ? put_back(rows) : ok;
}

/// Writes rows again, without the ids that were dropped.
Result<void> OpWriter::put_back(const std::vector<PendingRow>& rows) {
  Result<void> ok;
  for (const PendingRow& row : rows) {
    if (!ok || row.dropped == 0) continue;
    now_.pending_bytes -= std::min<std::uint64_t>(row.bytes - std::min(row.bytes, row.left.size()), now_.pending_bytes);
    if (row.left.empty()) {
      remove_pending_row_.bind(1, row.seq);
      ok = finish(remove_pending_row_);
    } else {
      update_pending_.bind(1, row.seq).bind(2, ByteView(row.left));
      ok = finish(update_pending_);
    }
  }
  return ok;
}

void OpWriter::note_compaction() {
  // A pass costs a look-up for each pending id, so at least a quarter as many ops must have been stored since the last
  // one.
  if (compacting_after_ < 0 && now_.pending_ids > 0 && now_.stored_since_compaction * 4 >= now_.pending_ids) {
    compacting_after_ = 0;
  }
}

Result<void> OpWriter::compact_pending() {
  if (compacting_after_ < 0) return {};
  if (compacting_after_ == 0) {
    now_.stored_since_compaction = 0;
    now_.pending_ids = 0;
  }
  std::vector<PendingRow> rows;
  std::size_t looked_at = 0;
  std::size_t left = 0;
  std::int64_t last = -1;  // the row that this step has reached; -1: past the end
  Result<void> ok = begin();
  if (ok) {
    const Use use(list_pending_);
    use->bind(1, compacting_after_);
    int rc = 0;
    while (ok && looked_at < kCompactionStep && (rc = use->step()) == SQLITE_ROW) {
      PendingRow row{use->int64(0), {}, 0, use->blob(1).size()};
      const std::int64_t source = use->int64(2);
      const bool intact = unpack_ids(use->blob(1), [&](ByteView id) {
        ++looked_at;
        if (!ok) return;
        const auto held = index_->find(id);
        if (!held) {
          ok = held.error();
        } else if (*held) {
          ++row.dropped;
          forget_request(source, keyed_hash(id));
        } else if (is_in_another_row(source, keyed_hash(id), row.seq)) {
          ++row.dropped;
        } else {
          ++left;
          pack_id(id, row.left);
          remember_request(source, keyed_hash(id), row.seq);
        }
      });
      if (!intact) ++row.dropped;  // what follows the damage cannot be read, now or later
      last = row.seq;
      rows.push_back(std::move(row));
    }
    if (ok && rc != SQLITE_ROW && rc != SQLITE_DONE) ok = connection_.error(rc);
    if (rc == SQLITE_DONE) last = -1;
  }
  if (ok) ok = put_back(rows);
  if (ok && last < 0) {
    ok = finish(remove_unused_sources_);
    sources_.clear();
  }
  now_.pending_ids += left;
  if (ok) ok = finish(commit_);
  if (!ok) {
    roll_back();
    last = -1;  // the next stored ops start it again
  }
  compacting_after_ = last;
  return ok;
}

}  // namespace kitsune2::sqlite
