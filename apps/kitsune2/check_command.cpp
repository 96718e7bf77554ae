// `kitsune2 check`: reads every op of a data folder and checks it against its id. The node may be running.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "cli.hpp"
#include "databases.hpp"
#include "kitsune2/files.hpp"
#include "kitsune2/sqlite_store.hpp"

namespace kitsune2::cli {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kNamed = 20;  ///< the most damaged ops that are listed; JSON lists all

/// The output while one database is read.
class CheckDisplay {
 public:
  CheckDisplay(Output& out, std::string space) : out_(out), space_(std::move(space)) {}

  bool show(const SqliteCheckProgress& p) {
    const double seconds = std::max(std::chrono::duration<double>(Clock::now() - start_).count(), 0.001);
    const double rate = static_cast<double>(p.bytes) / seconds;
    const double all = static_cast<double>(std::max(p.total_bytes, p.bytes));
    const double left = rate > 0 ? (all - static_cast<double>(p.bytes)) / rate : INFINITY;
    char percent[16];
    std::snprintf(percent, sizeof percent, "%.0f%%",
                  all > 0 ? std::floor(static_cast<double>(p.bytes) / all * 100) : 100);
    std::string line = "checking: " + std::string(percent) + ", " + human_bytes(static_cast<double>(p.bytes)) + " of " +
                       human_bytes(all) + ", " + human_bytes(rate) + "/s";
    if (std::isfinite(left)) line += ", " + human_time(left) + " left";
    if (p.faults > 0) line += ", " + counted(p.faults, "fault");
    out_.status(line);
    if (Clock::now() - last_line_ < std::chrono::seconds(out_.json() ? 1 : 5)) return true;
    last_line_ = Clock::now();
    if (!out_.terminal()) out_.note(line);
    JsonLine event("progress");
    event.add("phase", "checking")
        .add("space", space_)
        .add("ops", p.ops)
        .add("bytes", p.bytes)
        .add("ops_in_all", p.total_ops)
        .add("bytes_in_all", p.total_bytes)
        .add("faults", p.faults)
        .add("bytes_per_second", rate);
    if (std::isfinite(left)) event.add("seconds_left", left);
    out_.event(event);
    return true;
  }

 private:
  Output& out_;
  const std::string space_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_line_ = start_;
};

void say_faults(Output& out, const std::string& space, const SqliteCheckReport& report) {
  std::size_t said = 0;
  for (const auto& fault : report.faults) {
    const std::string op = fault.is_of_index()   ? "the index"
                           : fault.is_of_sums()  ? "the sums of all ops for gossip"
                           : fault.op_id.empty() ? "an op without an entry"
                                                 : "op " + fault.op_id.to_string();
    if (++said <= kNamed) out.warn("kitsune2: " + op + ": " + files::printable(fault.what));
    out.event(JsonLine("fault")
                  .add("space", space)
                  .add("op", fault.op_id.empty() ? std::string() : fault.op_id.to_string())
                  .add("size", fault.size)
                  .add_bool("lost", fault.is_lost)
                  .add("what", fault.what));
  }
  const std::uint64_t all = report.lost + report.wrong_entries;
  if (all > kNamed) out.warn("kitsune2: … and " + std::to_string(all - kNamed) + " more");
}

/// Repairs what `report` lists, as long as that helps: a report lists only a part of many faults. Reports what remains.
Result<void> repair(Output& out, const std::string& path, const std::string& space, SqliteCheckReport report,
                    const SqliteCheckOptions& options) {
  const auto policy = make_sha256_policy();
  SqliteRepairReport all;
  for (;;) {
    auto repaired = repair_sqlite_op_store(path, *policy, report.faults);
    if (!repaired) return repaired.error();
    all.dropped += repaired->dropped;
    all.mended += repaired->mended;
    const std::uint64_t before = report.lost + report.wrong_entries;
    auto again = check_sqlite_op_store(path, *policy, options);
    out.clear_status();
    if (!again) return again.error();
    report = std::move(*again);
    if (report.is_intact() || report.lost + report.wrong_entries >= before) break;
  }
  const std::uint64_t left = report.lost + report.wrong_entries;
  out.note(counted(all.dropped, "damaged op") + " dropped, " + std::to_string(all.mended) + " corrected");
  if (!report.is_intact()) {
    out.warn("kitsune2: " + counted(left, "fault") + " could not be repaired" +
             (report.totals_agree ? "" : ", and the totals are wrong"));
    say_faults(out, space, report);
  }
  out.event(JsonLine("check_repair")
                .add("space", space)
                .add("dropped", all.dropped)
                .add("mended", all.mended)
                .add("left", left)
                .add_bool("intact", report.is_intact()));
  return {};
}

/// Checks one database. Returns true if nothing is wrong with it.
Result<bool> check_one(Output& out, const std::string& path, std::uint64_t bytes_per_second, bool and_repair) {
  auto info = read_sqlite_op_store_info(path);
  if (!info) return info.error();
  const std::string space = info->space.to_string();
  const auto start = Clock::now();
  CheckDisplay display(out, space);
  SqliteCheckOptions options;
  options.bytes_per_second = bytes_per_second;
  options.on_progress = [&](const SqliteCheckProgress& p) { return display.show(p); };
  auto report = check_sqlite_op_store(path, *make_sha256_policy(), options);
  out.clear_status();
  if (!report) return report.error();
  say_faults(out, space, *report);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const std::string what = "space \"" + files::printable(as_text(info->space.view())) +
                           "\": " + std::to_string(report->ops) + " ops, " +
                           human_bytes(static_cast<double>(report->bytes)) + ", ";
  if (report->is_intact()) {
    out.result(what + "intact" + (report->index_was_compared ? "" : "; the index is being made and was not compared") +
               (report->sums_were_compared ? "; the sums for gossip are right" : ""));
  } else {
    std::string faults =
        counted(report->lost, "op") + " damaged, " + std::to_string(report->wrong_entries) + " with a wrong entry";
    if (!report->totals_agree) faults += ", the totals are wrong";
    if (!report->sums_agree) faults += ", the sums for gossip are wrong";
    out.result(what + faults);
  }
  out.event(JsonLine("checked")
                .add("space", space)
                .add("ops", report->ops)
                .add("bytes", report->bytes)
                .add("lost", report->lost)
                .add("wrong_entries", report->wrong_entries)
                .add_bool("totals_agree", report->totals_agree)
                .add_bool("index_compared", report->index_was_compared)
                .add_bool("sums_agree", report->sums_agree)
                .add_bool("sums_compared", report->sums_were_compared)
                .add_bool("intact", report->is_intact())
                .add("seconds", seconds));
  if (!report->is_intact() && and_repair) {
    if (auto repaired = repair(out, path, space, std::move(*report), options); !repaired) return repaired.error();
    return false;
  }
  return report->is_intact();
}

}  // namespace

int run_check(const Common& common, const CheckArgs& args) {
  Output out(common);
  std::error_code error;
  if (!std::filesystem::is_directory(args.data, error)) {
    out.error(make_error(Errc::invalid_argument, args.data + ": no such folder"));
    return kUsage;
  }
  auto databases = databases_of(args.data);
  if (!databases) return out.error(databases.error());
  const auto rate = static_cast<std::uint64_t>(args.rate_mib * 1048576);
  std::uint64_t damaged = 0;
  for (const auto& path : *databases) {
    auto intact = check_one(out, path, rate, args.repair);
    if (!intact && intact.error().code == Errc::not_found) continue;  // removed meanwhile, or not created yet
    if (!intact && intact.error().code != Errc::corrupt) return out.error(intact.error());
    if (!intact) out.error(intact.error());
    if (!intact || !*intact) ++damaged;
  }
  out.event(JsonLine("check")
                .add("spaces", static_cast<std::uint64_t>(databases->size()))
                .add("damaged_spaces", damaged)
                .add("exit", static_cast<std::uint64_t>(damaged > 0 ? kCorrupt : kOk)));
  if (damaged == 0) return kOk;
  out.note("share the intact folder again, or fetch the link again: what is damaged is replaced");
  return kCorrupt;
}

}  // namespace kitsune2::cli
