// `kitsune2 share`: shares files and folders, and serves them until a signal comes.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <ctime>
#include <set>

#include "files/shares.hpp"
#include "node/builder/dialect_choice.hpp"
#include "node/builder/relay_transport.hpp"
#include "node_setup.hpp"
#include "serving_display.hpp"

namespace kitsune2::cli {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// `relay`: as the node gives it, in canonical form.
Result<files::Link> link_for(std::string relay, Dialect network, const SpaceId& space, const OpId& root) {
  if (relay.ends_with('/')) relay.pop_back();  // behind the path of an iroh relay
  auto url = Url::parse(relay, url_form(network));
  if (!url) return url.error().context("relay");
  files::Link link;
  link.space = space;
  link.root = root;
  link.tls = url->uses_tls();
  link.host = std::string(url->host());
  link.port = url->port();
  link.network = network;
  if (uses_iroh(network)) {
    const std::size_t path = relay.find('/', relay.find("://") + 3);
    link.relay_path = path == std::string::npos ? "" : relay.substr(path + 1);
  }
  if (!files::Link::parse(link.to_string())) {
    return make_error(Errc::invalid_argument,
                      "the relay's path cannot be written in a link: " + files::printable(relay));
  }
  return link;
}

/// The url of a relay inside the sharer, which others reach at `address`.
std::string relay_inside(const std::string& address, bool tls, Dialect network) {
  if (!uses_iroh(network)) return (tls ? "wss://" : "ws://") + address;
  return (tls ? "https://" : "http://") + address + '/' + std::string(files::Link::kRelayPath);
}

/// Sets the relay from the command line, so that errors are reported before anything is read or opened.
Result<void> place_relay(const ShareArgs& args, NodeOptions& options) {
  if (args.tls_cert.empty() != args.tls_key.empty()) {
    return make_error(Errc::invalid_argument, "--tls-cert and --tls-key must be given together");
  }
  if (!args.node.relay.empty()) {
    const Dialect network = options.config.network.spoken();
    auto url = relay_url(args.node.relay, network,
                         args.node.network.empty() ? because_of_folder(network, args.node.data) : std::string());
    if (!url) return url.error();
    options.relay = *url;
    return {};
  }
  if (args.listen.empty()) {
    if (names_relay(options.config)) return {};
    return make_error(Errc::invalid_argument, "share needs --relay URL or --listen HOST:PORT");
  }
  auto address = files::parse_host_port(args.listen);
  if (!address) return address.error().context("--listen");
  options.listen = args.listen;
  options.tls_cert_file = args.tls_cert;
  options.tls_key_file = args.tls_key;
  if (!args.public_address.empty()) {
    auto others = files::parse_host_port(args.public_address);
    if (!others) return others.error().context("--public");
    if (others->second == 0) return make_error(Errc::invalid_argument, "--public: nobody can connect to port 0");
    options.relay = relay_inside(args.public_address, !args.tls_cert.empty(), options.config.network.spoken());
  } else if (address->first == "0.0.0.0" || address->first == "::") {
    return make_error(Errc::invalid_argument,
                      "--listen on all addresses needs --public HOST:PORT, the address at which others reach it");
  }
  return {};
}

/// The most earlier shares that are served beside the new one. *Rationale*: each takes two threads and about ten
/// descriptors.
constexpr std::size_t kMostEarlier = 32;

std::string utc(Timestamp when) {
  const auto seconds = static_cast<std::time_t>(when.micros / 1'000'000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char buffer[40];
  std::strftime(buffer, sizeof buffer, "%Y-%m-%d %H:%M UTC", &parts);
  return buffer;
}

std::string count_of(const files::FolderSummary& folder) {
  std::string out = counted(folder.files, "file") + " in " + counted(folder.dirs, "folder");
  if (folder.links > 0) out += ", " + counted(folder.links, "link");
  return out + ", " + human_bytes(static_cast<double>(folder.bytes));
}

/// Makes links of earlier runs work again. Returns the op stores of their spaces.
std::vector<std::shared_ptr<OpStore>> serve_earlier(RunningNode& node, const files::HeldShares& held, Output& out) {
  std::vector<std::shared_ptr<OpStore>> stores;
  std::size_t left_out = 0;
  const auto not_served = [&](const std::string& reason) { out.event(JsonLine("not_served").add("reason", reason)); };
  for (const auto& error : held.unreadable) {
    out.warn("kitsune2: an earlier share is not served: " + error.message);
    not_served(error.message);
  }
  std::set<SpaceId> failed;
  for (const auto& share : held.shares) {
    if (failed.count(share.space) != 0) continue;
    if (!node.is_open(share.space)) {
      if (stores.size() == kMostEarlier) {
        ++left_out;
        continue;
      }
      auto ready = node.open(share.space);
      if (ready) ready = node.join(DhtArc::full(), DhtArc::full());
      if (!ready) {
        failed.insert(share.space);
        out.warn("kitsune2: an earlier share is not served: " + ready.error().message);
        not_served(ready.error().message);
        continue;
      }
      stores.emplace_back(node.space(), &node.space()->op_store());
    }
    static_cast<void>(node.open(share.space));  // makes it the current one
    auto stats = node.node().wait<OpStoreStats>([&](auto done) { node.space()->op_store().stats(done); });
    const auto ops = stats ? stats->ops : 0;
    out.note("still serving " + share.root.to_string() + " of " + utc(share.shared_at) + ": " + count_of(share.folder) +
             (share.own
                  ? ", " + std::to_string(ops) + " ops"
                  : " (in the space that earlier versions used for all shares, " + std::to_string(ops) + " ops)"));
    out.event(JsonLine("earlier")
                  .add("root", share.root.to_string())
                  .add("space", share.space.to_string())
                  .add("shared_at", share.shared_at.to_string())
                  .add("files", share.folder.files)
                  .add("dirs", share.folder.dirs)
                  .add("links", share.folder.links)
                  .add("bytes", share.folder.bytes)
                  .add("ops", ops)
                  .add_bool("own_space", share.own));
  }
  if (left_out > 0) {
    const std::string what = counted(left_out, "older share") + (left_out == 1 ? " is" : " are") +
                             " not served (the limit is " + std::to_string(kMostEarlier) + ')';
    out.warn("kitsune2: " + what);
    not_served(what);
  }
  return stores;
}

/// Turns progress and problems into lines.
class ShareDisplay {
 public:
  ShareDisplay(Output& out, bool each_link) : out_(out), each_link_(each_link) {}

  void issue(const files::PathIssue& issue) {
    if (!issue.link || each_link_) {
      out_.warn("kitsune2: " + std::string(to_string(issue.kind)) + ": " + files::printable(issue.path) + ": " +
                issue.reason);
    }
    out_.event(
        JsonLine("issue").add("kind", to_string(issue.kind)).add("path", issue.path).add("reason", issue.reason));
  }

  void progress(const files::ShareProgress& p) {
    const double seconds = std::max(seconds_since(start_), 0.001);
    const double bytes = static_cast<double>(p.bytes), all = static_cast<double>(p.bytes_in_all);
    const double rate = bytes / seconds;
    const double left = rate > 0 ? (all - bytes) / rate : INFINITY;
    char percent[16];
    std::snprintf(percent, sizeof percent, "%.0f%%", all > 0 ? std::floor(bytes / all * 100) : 100.0);
    const std::string line = "reading: " + std::string(percent) + ", " + human_bytes(bytes) + " of " +
                             human_bytes(all) + ", " + std::to_string(p.files) + " of " +
                             counted(p.files_in_all, "file") + ", " + human_bytes(rate) + "/s" +
                             (std::isfinite(left) ? ", " + human_time(left) + " left" : "");
    out_.status(line);
    if (Clock::now() - last_line_ < std::chrono::seconds(out_.json() ? 1 : 5)) return;
    last_line_ = Clock::now();
    if (!out_.terminal()) out_.note(line);
    JsonLine event("progress");
    event.add("phase", "reading")
        .add("files", p.files)
        .add("bytes", p.bytes)
        .add("files_in_all", p.files_in_all)
        .add("bytes_in_all", p.bytes_in_all)
        .add("bytes_per_second", rate);
    if (std::isfinite(left)) event.add("seconds_left", left);
    out_.event(event);
  }

  void warn(const std::string& text) { out_.warn(text); }

  /// The progress of checking a share of an earlier run.
  void checking(const SqliteCheckProgress& p) {
    const std::string line = "comparing what is stored already: " + human_bytes(static_cast<double>(p.bytes)) + " of " +
                             human_bytes(static_cast<double>(p.total_bytes));
    out_.status(line);
    if (Clock::now() - last_line_ < std::chrono::seconds(out_.json() ? 1 : 5)) return;
    last_line_ = Clock::now();
    if (!out_.terminal()) out_.note(line);
    out_.event(JsonLine("progress").add("phase", "comparing").add("bytes", p.bytes).add("bytes_in_all", p.total_bytes));
  }

 private:
  Output& out_;
  const bool each_link_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_line_ = start_;
};

/// Stores the share and opens its space. If `strict` prevented the share, no space is opened.
Result<files::ShareReport> store_share(RunningNode& node, const ShareArgs& args, const files::HeldShares& held,
                                       const files::ShareOptions& options, ShareDisplay& display,
                                       const std::stop_token& stop) {
  if (!args.space.empty()) {
    if (auto opened = node.open(SpaceId::from_text(args.space)); !opened) return opened.error();
    return files::share_paths(node.node().runtime(), node.space()->op_store(), args.paths, options, stop);
  }
  auto made = files::share_alone(node.node().runtime(), args.node.data, *node.key(), held.shares, args.paths,
                                 args.strict, options, stop);
  if (!made) return made.error();
  if (made->space.empty()) return made->report;
  if (auto opened = node.open(made->space); !opened) return opened.error();
  if (!made->held) return made->report;
  auto damaged = files::damaged_in(args.node.data, made->space, [&](const SqliteCheckProgress& p) {
    display.checking(p);
    return !stop.stop_requested();
  });
  if (!damaged && damaged.error().code == Errc::corrupt) {
    display.warn("kitsune2: " + files::printable(damaged.error().message) + "; what can be read is served");
    return made->report;
  }
  if (!damaged) return damaged.error();
  if (*damaged == 0) return made->report;
  auto repaired = files::repair_paths(node.node().runtime(), node.space()->op_store(), made->report.root, args.paths,
                                      options, stop);
  if (!repaired) return repaired.error();
  made->report.new_ops = made->report.repaired_ops = *repaired;
  return made->report;
}

/// Prints the result: the link and what it gives access to.
void say_shared(Output& out, const files::ShareReport& report, const files::Link& link, const std::string& relay,
                double seconds) {
  out.note("stored " + count_of(report.folder) + ", as " + std::to_string(report.ops) + " ops (" +
           std::to_string(report.new_ops) + " new) in " + human_time(seconds));
  if (report.twice_ops > 0) {
    out.note(
        std::to_string(report.twice_ops) + " of the new ops (" + human_bytes(static_cast<double>(report.twice_bytes)) +
        ") are in earlier shares too: each share keeps its own copy, so that its link gives access to nothing else");
  }
  if (report.repaired_ops > 0) {
    out.warn("kitsune2: " + counted(report.repaired_ops, "op") + " of the store " +
             (report.repaired_ops == 1 ? "was" : "were") + " damaged, and stored anew from what is shared");
  }
  out.result(link.to_string());
  out.event(JsonLine("shared")
                .add("link", link.to_string())
                .add("root", report.root.to_string())
                .add("space", link.space.to_string())
                .add("relay", relay)
                .add("files", report.folder.files)
                .add("dirs", report.folder.dirs)
                .add("links", report.folder.links)
                .add("bytes", report.folder.bytes)
                .add("ops", report.ops)
                .add("new_ops", report.new_ops)
                .add("new_bytes", report.new_bytes)
                .add("repaired_ops", report.repaired_ops)
                .add("twice_ops", report.twice_ops)
                .add("twice_bytes", report.twice_bytes)
                .add("skipped", report.skipped)
                .add("links_left_out", report.links_left_out)
                .add("failed", report.failed)
                .add("seconds", seconds));
}

/// Learns of damaged ops in the served spaces, and replaces those of the new share from the shared files.
class Repairer {
 public:
  Repairer(RunningNode& node, Output& out, const OpId& root, const std::vector<std::string>& paths,
           const files::ShareOptions& options)
      : node_(node), out_(out), root_(root), paths_(paths), options_(options) {
    node_.node().run([&] {
      for (const auto& space : node_.spaces()) {
        OpStoreEvents events;
        const bool own = space == node_.space();
        events.ops_damaged = [counts = counts_, own](const std::vector<OpRecord>& ops) {
          (own ? counts->own : counts->other) += ops.size();
        };
        subscriptions_.push_back(space->op_store().subscribe(std::move(events)));
      }
    });
  }
  ~Repairer() {
    node_.node().run([&] { subscriptions_.clear(); });
  }
  Repairer(const Repairer&) = delete;
  Repairer& operator=(const Repairer&) = delete;

  void look(const std::stop_token& stop) {
    const std::uint64_t own = counts_->own.exchange(0), other = counts_->other.exchange(0);
    if (own + other == 0) return;
    out_.warn("kitsune2: " + counted(own + other, "op") + " damaged on the disk, not served");
    out_.event(JsonLine("damaged").add("ops", own + other));
    if (other > 0) {
      out_.warn("kitsune2: " + counted(other, "damaged op") +
                " of earlier shares; sharing them again replaces what is damaged");
    }
    if (own == 0) return;
    auto repaired =
        files::repair_paths(node_.node().runtime(), node_.space()->op_store(), root_, paths_, options_, stop);
    if (repaired) {
      counts_->own = 0;  // found on the way, and replaced
      out_.note(counted(*repaired, "op") + " stored anew from what is shared");
      out_.event(JsonLine("repaired").add("ops", *repaired));
    } else if (repaired.error().code != Errc::cancelled) {
      out_.warn("kitsune2: damaged ops could not be replaced: " + files::printable(repaired.error().message));
      out_.event(JsonLine("not_repaired").add("reason", repaired.error().message));
    }
  }

 private:
  struct Counts {
    std::atomic<std::uint64_t> own{0}, other{0};
  };
  RunningNode& node_;
  Output& out_;
  const OpId root_;
  const std::vector<std::string>& paths_;
  const files::ShareOptions& options_;
  const std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
  std::vector<std::shared_ptr<void>> subscriptions_;
};

/// Serves until a signal comes.
void serve(RunningNode& node, Output& out, Repairer& repairer, Signals& signals) {
  ServingDisplay display(node, out);
  while (!signals.wait(std::chrono::milliseconds(500))) {
    display.look();
    repairer.look(signals.token());
  }
}

void say_left_out(Output& out, const Common& common, std::uint64_t links) {
  if (links == 0 || common.log_level == "debug" || common.log_level == "trace") return;
  out.warn("kitsune2: " + std::to_string(links) +
           (links == 1 ? " link that leads out of the folder, or that the format cannot keep, was left out"
                       : " links that lead out of the folder, or that the format cannot keep, were left out") +
           "; --log-level debug names them");
}

}  // namespace

int run_share(const Common& common, const ShareArgs& args, Signals& signals) {
  Output out(common);
  signals.end_late_with(kInterrupted);
  auto options = node_options(common, args.node);
  if (!options) return out.error(options.error());
  if (auto placed = place_relay(args, *options); !placed) return out.error(placed.error());
  if (args.space.size() > 1024) return out.error(make_error(Errc::invalid_argument, "--space: over 1024 bytes"));
  auto running = RunningNode::start(std::move(*options), SpaceId(), "share", signals);
  if (!running) return out.error(running.error());
  RunningNode& node = **running;
  // Whether the relay's address can stand in a link is known before anything is stored.
  const OpId any_root = OpId::from_text(std::string(32, '.'));
  if (auto can = link_for(node.node().relay_url(), node.network(), SpaceId::from_text("any"), any_root); !can)
    return out.error(can.error());
  auto held = files::find_shares(args.node.data, *node.key());
  if (!held) return out.error(held.error());

  ShareDisplay display(out, common.log_level == "debug" || common.log_level == "trace");
  files::ShareOptions share;
  share.mtime = args.mtime;
  share.exclude = {args.node.data};
  share.elsewhere = serve_earlier(node, *held, out);
  share.issue = [&](const files::PathIssue& issue) { display.issue(issue); };
  share.progress = [&](const files::ShareProgress& p) { display.progress(p); };
  const auto start = Clock::now();
  auto report = store_share(node, args, *held, share, display, signals.token());
  share.elsewhere.clear();
  out.clear_status();
  if (!report) {
    if (report.error().code != Errc::cancelled) return out.error(report.error());
    return out.error(make_error(Errc::cancelled, "interrupted before the share was complete; nothing is served"));
  }
  say_left_out(out, common, report->links_left_out);
  if (args.strict && report->failed > 0) {
    return out.error(
        make_error(Errc::io, counted(report->failed, "path") + " could not be read (--strict): nothing is shared"),
        kPathTrouble);
  }
  const SpaceId space = node.space()->id();
  auto link = link_for(node.node().relay_url(), node.network(), space, report->root);
  if (!link) return out.error(link.error());
  // It has made the ops itself, so it claims to hold all.
  if (auto joined = node.join(DhtArc::full(), DhtArc::full()); !joined) return out.error(joined.error());

  say_shared(out, *report, *link, node.node().relay_url(), seconds_since(start));
  if (stdout_lost()) return kFailed;  // nobody has the link
  if (report->failed > 0) {
    out.warn("kitsune2: " + counted(report->failed, "path") + " could not be read; the link is without " +
             (report->failed == 1 ? "it" : "them"));
  }

  signals.end_late_with(report->failed > 0 ? kPathTrouble : kOk);
  {
    Repairer repairer(node, out, report->root, args.paths, share);
    serve(node, out, repairer, signals);
  }
  out.clear_status();
  out.note("stopping");
  const bool trouble = report->failed > 0;
  node.stop();
  return trouble ? kPathTrouble : kOk;
}

}  // namespace kitsune2::cli
