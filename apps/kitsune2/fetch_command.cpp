// `kitsune2 fetch`: fetches a share and writes it to a folder.
#include <optional>
#include <tuple>

#include "fetch_text.hpp"
#include "files/places.hpp"
#include "node_setup.hpp"

namespace kitsune2::cli {

namespace {

using Clock = std::chrono::steady_clock;
using files::FetchProgress;
/// Ops that no source has are named up to so many, and counted beyond.
constexpr std::uint64_t kMostMissingSaid = 20;

std::string_view phase_name(FetchProgress::Phase phase) {
  switch (phase) {
    case FetchProgress::Phase::finding:
      return "finding";
    case FetchProgress::Phase::fetching:
      return "fetching";
    case FetchProgress::Phase::writing:
      return "writing";
  }
  return "";
}

/// Turns the engine's figures into lines.
class Display {
 public:
  explicit Display(Output& out) : out_(out) {}

  void show(const FetchProgress& p) {
    const auto now = Clock::now();
    const FetchFigures figures = meter_.look(now, p);
    const auto lines = fetch_lines(figures, out_.terminal());
    out_.status(lines);
    const State state{figures.waiting, p.wait, p.phase};
    if (state != state_) {
      state_ = state;
      state_since_ = now;
      is_news_ = true;
    }
    const auto every = out_.json() ? std::chrono::milliseconds(200) : std::chrono::milliseconds(5000);
    if (!is_news_ && now - last_line_ < every) return;
    // In a log, a wait that ends at once is not worth a line.
    if (!out_.json() && figures.waiting && now - state_since_ < kWorthALine) return;
    is_news_ = false;
    last_line_ = now;
    if (!out_.terminal()) out_.note(lines.front());
    if (out_.json()) out_.event(event_of(figures));
  }

 private:
  static constexpr std::chrono::seconds kWorthALine{1};
  using State = std::tuple<bool, files::FetchWait, FetchProgress::Phase>;

  static JsonLine event_of(const FetchFigures& figures) {
    const FetchProgress& p = figures.progress;
    JsonLine event("progress");
    event.add("phase", phase_name(p.phase))
        .add_bool("waiting", figures.waiting)
        .add("files", p.folder.files)
        .add("files_done", p.files_done)
        .add("ops", p.folder.ops)
        .add("ops_held", p.ops_held)
        .add("bytes", p.folder.bytes)
        .add("bytes_held", p.bytes_held)
        .add("bytes_arriving", p.bytes_arriving)
        .add("bytes_written", p.bytes_written)
        .add("fetched_ops", p.fetched_ops)
        .add("fetched_bytes", p.fetched_bytes)
        .add("received_bytes", p.received_bytes)
        .add("bytes_per_second", figures.rate.value_or(0))
        .add("pending", p.pending)
        .add("missing", p.missing)
        .add("sources", static_cast<std::uint64_t>(p.sources))
        .add("live_sources", static_cast<std::uint64_t>(p.live_sources));
    if (figures.waiting) event.add("waiting_for", to_string(p.wait)).add("reason", p.wait_reason);
    if (figures.seconds_left) event.add("seconds_left", *figures.seconds_left);
    return event;
  }

  Output& out_;
  FetchMeter meter_;
  std::optional<State> state_;
  bool is_news_ = false;
  Clock::time_point state_since_{}, last_line_{};
};

/// Says why a fetch is incomplete.
std::string what_lacks(const files::FetchReport& report) {
  std::string out;
  const auto add = [&](const std::string& what) { out += (out.empty() ? "" : ", ") + what; };
  if (report.files_failed > 0) {
    add(std::to_string(report.files_failed) + " of " + counted(report.folder.files, "file") +
        (report.files_failed == 1 ? " is" : " are") + " not written");
  }
  if (report.files_unknown > 0) {
    add(counted(report.files_unknown, report.files_failed > 0 ? "more file" : "file") +
        (report.files_unknown == 1 ? " is" : " are") + " not known by name: the list of files has gaps");
  }
  if (report.dirs_failed > 0) add(counted(report.dirs_failed, "folder") + " could not be made");
  if (report.links_failed > 0) add(counted(report.links_failed, "link") + " could not be made");
  return out;
}

/// What a fetch is to do, and whom it tells of what it meets. `missing`: counts the ops that no source has.
files::FetchOptions options_of(const FetchArgs& args, Output& out, Display& display, std::uint64_t& missing) {
  files::FetchOptions fetch;
  fetch.out_dir = args.out;
  fetch.exclude = {args.node.data};
  fetch.overwrite = args.overwrite;
  if (args.timeout_s > 0) fetch.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(args.timeout_s * 1000));
  fetch.missing_after = std::chrono::milliseconds(static_cast<std::int64_t>(args.missing_after_s * 1000));
  fetch.found = [&out](const files::FolderSummary& folder, std::optional<std::uint64_t> room) {
    std::string line = "the share has " + counted(folder.files, "file") + " in " + counted(folder.dirs, "folder") +
                       ", " + human_bytes(static_cast<double>(folder.bytes));
    if (room) line += "; the disk has room for " + human_bytes(static_cast<double>(*room));
    out.note(line);
    JsonLine event("found");
    event.add("files", folder.files)
        .add("dirs", folder.dirs)
        .add("links", folder.links)
        .add("bytes", folder.bytes)
        .add("ops", folder.ops);
    if (room) event.add("room_bytes", *room);
    out.event(event);
  };
  fetch.issue = [&out](const files::PathIssue& issue) {
    out.warn("kitsune2: " + std::string(to_string(issue.kind)) + ": " + files::printable(issue.path) + ": " +
             issue.reason);
    out.event(JsonLine("issue").add("kind", to_string(issue.kind)).add("path", issue.path).add("reason", issue.reason));
  };
  fetch.progress = [&display](const FetchProgress& progress) { display.show(progress); };
  fetch.missing_op = [&out, &missing](const OpId& id) {
    if (++missing <= kMostMissingSaid) out.warn("kitsune2: no source has op " + id.to_string());
    out.event(JsonLine("missing_op").add("op", id.to_string()));
  };
  fetch.notice = [&out](const std::string& text) {
    out.note(text);
    out.event(JsonLine("notice").add("text", text));
  };
  fetch.bad_source = [&out](const Url& source) {
    out.warn("kitsune2: source " + source.to_string() + " sends damaged or unrequested data, which is ignored");
    out.event(JsonLine("bad_source").add("source", source.to_string()));
  };
  return fetch;
}

int exit_code_of(const files::FetchReport& report) {
  if (report.complete()) return kOk;
  return report.missing_ops > 0 || report.files_unknown > 0 ? kIncomplete : kPathTrouble;
}

/// The last words of a fetch that went to its end. `url`: the node's, by which sharers count what they served this run.
void say_done(Output& out, const files::FetchReport& report, const std::string& to, const std::string& url,
              double seconds) {
  JsonLine event("done");
  event.add_bool("complete", report.complete())
      .add("files", report.folder.files)
      .add("dirs", report.folder.dirs)
      .add("bytes", report.folder.bytes)
      .add("ops", report.folder.ops)
      .add("files_written", report.files_written)
      .add("files_kept", report.files_kept)
      .add("files_failed", report.files_failed)
      .add("files_unknown", report.files_unknown)
      .add("dirs_failed", report.dirs_failed)
      .add("links", report.folder.links)
      .add("links_written", report.links_written)
      .add("links_kept", report.links_kept)
      .add("links_failed", report.links_failed)
      .add("missing_ops", report.missing_ops)
      .add("held_before_ops", report.held_before_ops)
      .add("damaged_ops", report.damaged_ops)
      .add("fetched_ops", report.fetched_ops)
      .add("fetched_bytes", report.fetched_bytes)
      .add("url", url)
      .add("seconds", seconds)
      .add("exit", static_cast<std::uint64_t>(exit_code_of(report)));
  out.event(event);
  if (!report.complete()) {
    out.warn("kitsune2: incomplete: " + what_lacks(report));
    return;
  }
  if (out.quiet()) return;
  out.result("complete: " + counted(report.folder.files, "file") + ", " +
             human_bytes(static_cast<double>(report.folder.bytes)) + " in " + to + " (" +
             std::to_string(report.files_written) + " written, " + std::to_string(report.files_kept) +
             " were there); " + std::to_string(report.fetched_ops) + " ops, " +
             human_bytes(static_cast<double>(report.fetched_bytes)) + " fetched in " + human_time(seconds));
}

/// The node's options, if the two folders are apart.
Result<NodeOptions> node_options_of(const Common& common, const FetchArgs& args, const files::Link& link) {
  auto options = node_options(common, args.node, link);
  if (!options) return options;
  if (files::overlap(args.out, args.node.data)) {
    return make_error(Errc::invalid_argument,
                      "--out " + args.out + " and --data " + args.node.data +
                          " overlap, so that a share could replace the node's own files; choose separate folders");
  }
  return options;
}

}  // namespace

int run_fetch(const Common& common, const FetchArgs& args, Signals& signals) {
  Output out(common);
  signals.end_late_with(kInterrupted);
  auto link = files::Link::parse(args.link);
  if (!link) return out.error(link.error());
  auto options = node_options_of(common, args, *link);
  if (!options) return out.error(options.error());
  const auto start = Clock::now();
  auto running = RunningNode::start(std::move(*options), link->space, "fetch", signals);
  if (!running) return out.error(running.error());
  RunningNode& node = **running;
  if (auto joined = node.join(DhtArc::none(), DhtArc::none()); !joined) return out.error(joined.error());

  Display display(out);
  std::uint64_t missing = 0;
  auto report = files::fetch_files(node.node().runtime(), node.space(), node.handler(), node.agent()->agent(),
                                   link->root, options_of(args, out, display, missing), signals.token());
  out.clear_status();
  std::string url;
  node.node().run([&] {
    if (const auto at = node.space()->current_url()) url = at->to_string();
  });
  if (!report) {
    const int code = out.error(report.error().code == Errc::cancelled
                                   ? make_error(Errc::cancelled, "interrupted; run the same command again to resume")
                                   : report.error());
    node.stop();
    return code;
  }
  if (missing > kMostMissingSaid) {
    out.warn("kitsune2: … and " + std::to_string(missing - kMostMissingSaid) + " more ops");
  }
  say_done(out, *report, args.out, url, std::chrono::duration<double>(Clock::now() - start).count());
  const int code = exit_code_of(*report);
  signals.end_late_with(code);
  node.stop();
  return code;
}

}  // namespace kitsune2::cli
