// The check of a whole op store: reads every op in short pieces and compares it with what the policy says.
#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "core/callback.hpp"
#include "kitsune2/sqlite_store.hpp"
#include "store/sqlite/file_lock.hpp"
#include "store/sqlite/op_db.hpp"
#include "store/sqlite/op_schema.hpp"
#include "store/sqlite/runs_check.hpp"

namespace kitsune2 {
namespace {

using sqlite::Connection;
using sqlite::Statement;
using sqlite::Use;
using Clock = std::chrono::steady_clock;

/// A piece is read in one transaction; a longer one would keep the owner's WAL from restarting.
constexpr std::uint64_t kPieceBytes = 4U << 20;
constexpr std::size_t kPieceOps = 2'000;
/// The faults repaired in one transaction.
constexpr std::size_t kRepairedAtOnce = 1'024;
constexpr auto kProgressEvery = std::chrono::milliseconds(100);

Error other_policy(const std::string& path, const SqliteOpStoreInfo& info, const OpPolicy& policy) {
  return make_error(Errc::already_exists,
                    path + ": this store is of policy " + info.policy + ", not of " + std::string(policy.name()));
}

class Check {
 public:
  Check(Connection connection, int version, const OpPolicy& policy, const SqliteCheckOptions& options,
        const runs::MergeRules& rules)
      : large_(connection.path(), nullptr),
        connection_(std::move(connection)),
        policy_(policy),
        options_(options),
        rules_(rules),
        version_(version) {
    large_.may_be_missing();
  }

  /// Whether the owner has converted the store meanwhile.
  bool is_of_another_version() {
    const auto version = connection_.number("PRAGMA user_version");
    return version && *version != version_;
  }

  Result<SqliteCheckReport> run() {
    auto ok = prepare();
    if (ok) ok = read_totals();
    while (ok && !at_end_) {
      ok = read_piece();
      if (ok) ok = pause();
    }
    if (ok) ok = compare_sums();
    if (ok && runs_check_) ok = compare_runs();
    report_.index_was_compared = !skips_index_;
    if (ok) ok = compare_totals();
    if (ok) ok = report_progress();
    if (ok) return report_;
    if (ok.error().code != Errc::corrupt) return ok.error();
    return make_error(Errc::corrupt, ok.error().message + " (after " + std::to_string(report_.ops) + " of " +
                                         std::to_string(progress_.total_ops) +
                                         " ops; docs/operations.md says what can be done)");
  }

 private:
  Result<void> prepare() {
    if (auto ok = sqlite::add_large_function(connection_, large_); !ok) return ok;
    if (has_runs()) {
      auto runs = sqlite::RunsIndex::make(connection_, &policy_, false, {rules_});
      runs_ = runs.get();
      index_ = std::move(runs);
    } else {
      index_ = sqlite::make_table_index(connection_, &policy_);
    }
    const std::string row = std::string("SELECT stored_at, loc, id, created_at, size, ") +
                            sqlite::data_column(version_) + (sqlite::has_runs(version_) ? ", data IS NULL" : ", 1") +
                            " FROM op";
    const std::string within = " WHERE stored_at>?1 AND stored_at<=?2";
    const auto count_in = [&](const char* table) {
      return std::string("(SELECT count(*) FROM ") + table + within + ")";
    };
    const auto orphans_in = [&](const std::string& table, const char* bytes) {
      return "SELECT stored_at, " + std::string(bytes) + " FROM " + table + within +
             " AND NOT EXISTS (SELECT 1 FROM op WHERE op.stored_at=" + table + ".stored_at)";
    };
    std::string count = "SELECT " + count_in("op_data");
    std::string orphans = orphans_in("op_data", "length(data)");
    if (sqlite::has_large(version_)) {
      count += "+" + count_in("op_place");
      orphans += " UNION ALL " + orphans_in("op_place", "bytes");
    }
    const std::string rows = row + " WHERE stored_at>?1 ORDER BY stored_at";
    const std::string row_at = row + " WHERE stored_at=?1";
    Statement listed;
    const std::pair<Statement*, const char*> all[] = {
        {&rows_, rows.c_str()},
        {&row_at_, row_at.c_str()},
        {&listed, sqlite::RunsCheck::kRows},
        {&count_data_, count.c_str()},
        {&orphans_, orphans.c_str()},
        {&counted_, has_runs() ? "SELECT count(*), coalesce(sum(size), 0) FROM op"
                               : "SELECT count(*), coalesce(sum(size), 0) FROM op INDEXED BY op_by_time"},
        {&totals_, "SELECT ops, bytes FROM totals"},
        {&kept_sums_, sqlite::kSelectSums},
    };
    for (const auto& [statement, sql] : all) {
      auto prepared = connection_.prepare(sql);
      if (!prepared) return prepared.error();
      *statement = std::move(*prepared);
    }
    if (runs_ == nullptr) return {};
    runs_check_.emplace(
        *runs_, std::move(listed), [this](std::int64_t stored_at) { return read_row(stored_at); },
        [this](sqlite::RunsCheck::Fault fault) {
          add({std::move(fault.op_id), Timestamp{fault.stored_at}, fault.size, false, std::move(fault.what)});
        });
    return {};
  }

  Result<void> read_totals() {
    const Use use(totals_);
    const int rc = use->step();
    if (rc != SQLITE_ROW) return rc == SQLITE_DONE ? Result<void>() : connection_.error(rc);
    progress_.total_ops = static_cast<std::uint64_t>(std::max<std::int64_t>(use->int64(0), 0));
    progress_.total_bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(use->int64(1), 0));
    return {};
  }

  Result<void> read_piece() {
    if (auto ok = begin(); !ok) return ok;
    if (auto ok = index_->refresh(); !ok && !is_index_damage(ok.error())) {
      connection_.roll_back();
      return ok;
    }
    if (runs_check_ && last_ == INT64_MIN) runs_check_->begin();
    if (last_ == INT64_MIN) begin_sums();
    // An index that is being made has not all ops yet.
    if (runs_ != nullptr && runs_->is_behind()) skips_index_ = true;
    const std::uint64_t ops = report_.ops, bytes = report_.bytes;
    const std::int64_t begin = last_;
    with_data_ = 0;
    Result<void> ok;
    {
      const Use use(rows_);
      use->bind(1, last_);
      int rc = SQLITE_ROW;
      while (ok && report_.ops - ops < kPieceOps && report_.bytes - bytes < kPieceBytes) {
        if ((rc = use->step()) != SQLITE_ROW) break;
        ok = look_at(use);
      }
      at_end_ = rc == SQLITE_DONE;
      if (ok && rc != SQLITE_ROW && rc != SQLITE_DONE) ok = connection_.error(rc);
    }
    if (ok) ok = find_orphans(begin, at_end_ ? INT64_MAX : last_);
    connection_.roll_back();
    return ok;
  }

  /// Data without an entry is no op to the store, though it may be one that has lost it.
  Result<void> find_orphans(std::int64_t begin, std::int64_t end) {
    {
      const Use use(count_data_);
      use->bind(1, begin).bind(2, end);
      if (const int rc = use->step(); rc != SQLITE_ROW) return connection_.error(rc);
      if (use->int64(0) == with_data_) return {};
    }
    const Use use(orphans_);
    use->bind(1, begin).bind(2, end);
    int rc = 0;
    while ((rc = use->step()) == SQLITE_ROW) {
      add({{}, Timestamp{use->int64(0)}, static_cast<std::uint64_t>(use->int64(1)), false, "data without an entry"});
    }
    if (rc != SQLITE_DONE) return connection_.error(rc);
    return {};
  }

  Result<void> look_at(const Use& use) {
    last_ = use->int64(0);
    ++report_.ops;
    report_.bytes += use->blob(5).size();
    if (!use->is_null(5) && use->int64(6) == 1) ++with_data_;
    add_to_sums(indexed(use));
    auto fault = judge(use);
    if (!fault) return fault.error();
    if (runs_check_) {
      runs_check_->add_row(indexed(use));
    } else if (fault->what.empty()) {
      auto what = look_into_indexes(*fault, Timestamp{use->int64(3)});
      if (!what) return what.error();
      fault->what = std::move(*what);
    }
    if (!fault->what.empty()) add(std::move(*fault));
    return {};
  }

  static sqlite::IndexedOp indexed(const Use& row) {
    return {static_cast<std::uint32_t>(row->int64(1)), row->int64(4), row->int64(3), row->int64(0), row->blob(2)};
  }

  /// What is wrong with an op by its row and its bytes; nothing is said if nothing is, or the policy cannot judge it.
  Result<SqliteStoreFault> judge(const Use& use) {
    SqliteStoreFault fault{OpId(use->blob(2)), Timestamp{use->int64(0)}, 0, false, {}};
    const ByteView data = use->blob(5);
    const std::int64_t size = use->int64(4);
    fault.size = static_cast<std::uint64_t>(std::max<std::int64_t>(size, 0));
    const auto found = call_for_result("the op policy", [&] { return policy_.describe(data); });
    if (!use->is_null(5) && !found && !sqlite::is_damage(found.error())) {
      if (found.error().code == Errc::too_large) return fault;
      return found.error();
    }
    if (use->is_null(5)) {
      fault.is_lost = true;
      fault.what = "its data is not there";
    } else if (!found || found->op_id != fault.op_id) {
      fault.is_lost = true;
      fault.what = found ? "its data has another id: " + found->op_id.to_string()
                         : "its data is no op: " + found.error().message;
    } else if (size < 0 || fault.size != data.size()) {
      fault.what = "its entry says " + std::to_string(size) + " bytes, it has " + std::to_string(data.size());
    } else if (found->created_at.micros != use->int64(3)) {
      fault.what = "its entry has another time of creation";
    } else if (use->int64(1) != std::int64_t{policy_.location(fault.op_id.view())}) {
      fault.what = "its entry has another place";
    }
    return fault;
  }

  // --------------------------------------------------------------- sums for a DHT model

  /// The row as it is now. Without a value: it is there, and damaged.
  struct KeptRow {
    bool is_there = false;
    std::optional<store::DhtSumsRow> row;
  };
  Result<KeptRow> read_sums_row() {
    const Use use(kept_sums_);
    const int rc = use->step();
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return connection_.error(rc);
    if (rc == SQLITE_DONE || use->text(0) != sqlite::kSumsKey) return KeptRow();
    return KeptRow{true, store::DhtSumsRow::decode(use->blob(1))};
  }
  /// In the transaction of the first piece: the owner may write another row meanwhile, but this one was right for the
  /// ops up to its `covered`, or is wrong.
  void begin_sums() {
    auto kept = read_sums_row();
    if (!kept || !kept->is_there) return;
    sums_are_damaged_ = !kept->row;
    kept_ = std::move(kept->row);
    if (kept_) own_sums_.clear(kept_->boundary_unit);
  }
  /// As a store that makes them does.
  void add_to_sums(const sqlite::IndexedOp& op) {
    if (!kept_ || op.stored_at > kept_->covered) return;
    if (index_->is_plausible(op)) {
      if (!own_sums_.add(op.location, Timestamp{op.created_at}, op.id)) sums_have_other_ids_ = true;
    } else {
      own_sums_.add_apart();
    }
  }
  Result<void> compare_sums() {
    if (!kept_ && !sums_are_damaged_) return {};
    std::string what = "they cannot be read";
    if (kept_) {
      report_.sums_were_compared = true;
      const auto own = own_sums_.with({}, kept_->boundary_unit);
      if (!sums_have_other_ids_ && own && *own == kept_->sums) return {};
      what = "they are of " + std::to_string(kept_->ops) + " ops, and not those of the " +
             std::to_string(own_sums_.ops()) + " that are there";
    }
    // They may be gone, since the owner has dropped an op; it may have made new ones since.
    if (auto ok = begin(); !ok) return ok;
    const auto now = read_sums_row();
    connection_.roll_back();
    if (!now) return now.error();
    const bool is_same = kept_ ? now->row && now->row->salt == kept_->salt : now->is_there && !now->row;
    if (!is_same) {
      report_.sums_were_compared = false;
      return {};
    }
    report_.sums_agree = false;
    add({{}, Timestamp{sqlite::kSums}, 0, false, std::move(what)});
    return {};
  }

  Result<std::optional<sqlite::RunsCheck::Row>> read_row(std::int64_t stored_at) {
    const Use use(row_at_);
    const int rc = use->bind(1, stored_at).step();
    if (rc == SQLITE_DONE) return std::optional<sqlite::RunsCheck::Row>();
    if (rc != SQLITE_ROW) return connection_.error(rc);
    const auto fault = judge(use);
    if (!fault) return fault.error();
    const sqlite::IdInRun id(use->blob(2));
    return std::optional(sqlite::RunsCheck::Row{
        fault->op_id, sqlite::OwnEntry(sqlite::RunsIndex::entry_of(indexed(use), id)), fault->what.empty()});
  }

  Result<void> compare_runs() {
    Result<void> ok;
    for (bool complete = false; ok && !complete && !skips_index_;) {
      ok = begin();
      if (ok) ok = index_->refresh();
      // The owner may have started it anew since the last piece.
      skips_index_ = skips_index_ || (ok && runs_->is_behind());
      if (ok && !skips_index_) {
        const auto piece = runs_check_->next_piece();
        if (piece) complete = *piece;
        if (!piece) ok = piece.error();
      }
      connection_.roll_back();
      if (!ok && is_index_damage(ok.error())) ok = {};
      index_bytes_ += sqlite::RunsCheck::kPieceBytes;
      if (ok) ok = pause();
    }
    return ok;
  }

  /// Runs that cannot be read are a fault of the store, and the rest is looked at without them.
  bool is_index_damage(const Error& error) {
    if (!index_->is_damaged() || error.code != Errc::corrupt) return false;
    if (!std::exchange(skips_index_, true)) {
      add({{}, Timestamp{sqlite::kWholeIndex}, 0, false, "it cannot be read: " + error.message});
    }
    return true;
  }

  /// Of version 1. Returns what is wrong; empty if nothing is.
  Result<std::string> look_into_indexes(const SqliteStoreFault& op, Timestamp created_at) {
    const auto indexed = index_->find(op.op_id.view());
    if (!indexed) return indexed.error();
    if (!*indexed) return std::string("the index by id does not have it");
    if ((*indexed)->stored_at != op.stored_at.micros) return std::string("it is there twice");
    if ((*indexed)->size != op.size || (*indexed)->created_at != created_at) {
      return std::string("the index by id has another size or time");
    }
    const auto in_time = index_->has_in_time({policy_.location(op.op_id.view()), static_cast<std::int64_t>(op.size),
                                              created_at.micros, op.stored_at.micros, op.op_id.view()});
    if (!in_time) return in_time.error();
    if (!*in_time) return std::string("the index by time does not agree");
    return std::string();
  }

  Result<void> compare_totals() {
    if (auto ok = begin(); !ok) return ok;
    Result<void> ok;
    {
      const Use counted(counted_);
      const Use totals(totals_);
      const int first = counted->step();
      const int second = totals->step();
      if (first != SQLITE_ROW) {
        ok = connection_.error(first);
      } else if (second != SQLITE_ROW && second != SQLITE_DONE) {
        ok = connection_.error(second);
      } else {
        report_.totals_agree =
            second == SQLITE_ROW && counted->int64(0) == totals->int64(0) && counted->int64(1) == totals->int64(1);
      }
    }
    connection_.roll_back();
    return ok;
  }

  void add(SqliteStoreFault fault) {
    ++(fault.is_lost ? report_.lost : report_.wrong_entries);
    auto& faults = report_.faults;
    // One that all others follow from is repaired first, and neither it nor that of the sums is left out.
    const auto at = fault.is_of_index() || fault.is_of_sums() ? faults.begin() : faults.end();
    if (at != faults.end() || faults.size() < SqliteCheckReport::kMostFaults) faults.insert(at, std::move(fault));
    if (faults.size() > SqliteCheckReport::kMostFaults) faults.pop_back();
  }

  Result<void> report_progress() {
    progress_.ops = report_.ops;
    progress_.bytes = report_.bytes;
    progress_.faults = report_.lost + report_.wrong_entries;
    if (!options_.on_progress || options_.on_progress(progress_)) return {};
    return make_error(Errc::cancelled, "the check was stopped");
  }

  /// Keeps to the rate, and reports progress.
  Result<void> pause() {
    for (;;) {
      const auto now = Clock::now();
      if (now >= next_progress_) {
        next_progress_ = now + kProgressEvery;
        if (auto ok = report_progress(); !ok) return ok;
      }
      if (options_.bytes_per_second == 0) return {};
      const std::chrono::duration<double> due(static_cast<double>(report_.bytes + index_bytes_) /
                                              static_cast<double>(options_.bytes_per_second));
      const auto left = std::chrono::duration_cast<Clock::duration>(due) - (now - began_);
      if (left <= Clock::duration::zero()) return {};
      std::this_thread::sleep_for(std::min<Clock::duration>(left, kProgressEvery));
    }
  }

  sqlite::SegmentFile large_;  ///< destroyed after the connection
  Connection connection_;
  const OpPolicy& policy_;
  const SqliteCheckOptions& options_;
  const runs::MergeRules& rules_;
  bool has_runs() const { return sqlite::answers_from_runs(version_); }
  /// Begins a transaction. The owner may have converted the store since the last one.
  Result<void> begin() {
    if (auto ok = connection_.run("BEGIN"); !ok) return ok;
    if (!is_of_another_version()) return {};
    connection_.roll_back();
    return make_error(Errc::io, connection_.path() + ": the store is being converted");
  }

  const int version_;  ///< of the schema
  std::unique_ptr<sqlite::OpIndex> index_;
  sqlite::RunsIndex* runs_ = nullptr;  ///< `index_`, in version 2
  std::optional<sqlite::RunsCheck> runs_check_;
  std::uint64_t index_bytes_ = 0;  ///< read of runs
  Statement rows_, row_at_, count_data_, orphans_, counted_, totals_;
  std::int64_t last_ = INT64_MIN;
  bool at_end_ = false;
  bool skips_index_ = false;    ///< it is damaged, or is being made
  std::int64_t with_data_ = 0;  ///< of the entries of this piece
  Statement kept_sums_;
  std::optional<store::DhtSumsRow> kept_;  ///< as it was at the beginning
  bool sums_are_damaged_ = false;
  store::DhtSumCells own_sums_;  ///< of the ops that are in these
  bool sums_have_other_ids_ = false;
  SqliteCheckReport report_;
  SqliteCheckProgress progress_;
  const Clock::time_point began_ = Clock::now();
  Clock::time_point next_progress_ = began_;
};

}  // namespace

namespace sqlite {

Result<SqliteCheckReport> check_op_store(const std::string& path, const OpPolicy& policy,
                                         const SqliteCheckOptions& options, const runs::MergeRules& rules) {
  const auto info = read_sqlite_op_store_info(path);
  if (!info) return info.error();
  if (info->policy != policy.name()) return other_policy(path, *info, policy);
  // While it is converted it has three other versions one after the other. The check begins again with each.
  for (int tries = 1;; ++tries) {
    auto connection = Connection::open(path, Connection::Mode::read_only);
    if (!connection) return connection.error();
    const auto version = sqlite::open_op_format(*connection, nullptr);
    if (!version) return version.error();
    Check check(std::move(*connection), *version, policy, options, rules);
    auto report = check.run();
    if (report || tries == 4 || !check.is_of_another_version()) return report;
  }
}

}  // namespace sqlite

Result<SqliteCheckReport> check_sqlite_op_store(const std::string& path, const OpPolicy& policy,
                                                const SqliteCheckOptions& options) {
  return sqlite::check_op_store(path, policy, options, {});
}

Result<SqliteRepairReport> repair_sqlite_op_store(const std::string& path, const OpPolicy& policy,
                                                  const std::vector<SqliteStoreFault>& faults) {
  const auto info = read_sqlite_op_store_info(path);
  if (!info) return info.error();
  if (info->policy != policy.name()) return other_policy(path, *info, policy);
  const auto lock = sqlite::FileLock::take(path);
  if (!lock) return lock.error();
  auto writer = sqlite::OpWriter::open(path, {.policy = &policy, .large_may_be_missing = true});
  if (!writer) return writer.error();
  SqliteRepairReport report;
  std::size_t next = 0;
  const auto catch_up = [&]() -> Result<void> {
    Result<void> ok;
    while (ok && writer->is_behind()) ok = writer->catch_up();
    return ok;
  };
  do {
    // With an index that is complete: otherwise each fault would have it go through rows.
    auto ok = catch_up();
    if (!ok) return ok.error();
    std::vector<sqlite::Suspect> piece;
    while (next < faults.size() && piece.size() < kRepairedAtOnce) {
      const SqliteStoreFault& fault = faults[next++];
      piece.push_back({fault.stored_at.micros, fault.op_id});
      if (fault.is_of_index()) break;
    }
    ok = writer->begin();
    Result<sqlite::Examined> looked = sqlite::Examined();
    if (ok) {
      looked = writer->examine(piece, policy);
      if (!looked) ok = looked.error();
    }
    if (ok && next == faults.size()) ok = writer->recount();
    if (ok) ok = writer->commit();
    if (!ok) {
      writer->roll_back();
      return ok.error();
    }
    report.dropped += looked->dropped.size();
    report.mended += looked->mended;
  } while (next < faults.size());
  if (auto ok = catch_up(); !ok) return ok.error();
  return report;
}

}  // namespace kitsune2
