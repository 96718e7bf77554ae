#include <cmath>

#include "node_setup.hpp"

namespace kitsune2::cli {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Result<files::Link> link_for(const std::string& relay, const SpaceId& space, const OpId& root) {
  auto url = Url::parse(relay);
  if (!url) return url.error().context("relay");
  files::Link link;
  link.space = space;
  link.root = root;
  link.tls = url->uses_tls();
  link.host = std::string(url->host());
  link.port = url->port();
  return link;
}

/// Where the relay is, by the command line: what is wrong is said before anything is read or opened.
Result<void> place_relay(const ShareArgs& args, NodeOptions& options) {
  if (args.tls_cert.empty() != args.tls_key.empty()) {
    return make_error(Errc::invalid_argument, "--tls-cert and --tls-key go together");
  }
  if (!args.node.relay.empty()) {
    auto url = relay_url(args.node.relay);
    if (!url) return url.error();
    options.relay = *url;
    return {};
  }
  if (args.listen.empty()) {
    if (options.config.tx5_transport.server_url != Config::defaults().tx5_transport.server_url) return {};
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
    if (others->second == 0) return make_error(Errc::invalid_argument, "--public: port 0 is no place to call");
    options.relay = (args.tls_cert.empty() ? "ws://" : "wss://") + args.public_address;
  } else if (address->first == "0.0.0.0" || address->first == "::") {
    return make_error(Errc::invalid_argument,
                      "--listen at all addresses: say with --public HOST:PORT by which one others reach it");
  }
  return {};
}

}  // namespace

int run_share(const Common& common, const ShareArgs& args, Signals& signals) {
  Output out(common);
  signals.end_late_with(kInterrupted);
  auto options = node_options(common, args.node);
  if (!options) return out.error(options.error());
  if (auto placed = place_relay(args, *options); !placed) return out.error(placed.error());
  if (args.space.size() > 1024) return out.error(make_error(Errc::invalid_argument, "--space: over 1024 bytes"));
  auto running = RunningNode::start(std::move(*options), SpaceId::from_text(args.space), "share");
  if (!running) return out.error(running.error());
  RunningNode& node = **running;
  const SpaceId space = node.space()->id();

  files::ShareOptions share;
  share.mtime = args.mtime;
  share.exclude = {args.node.data};
  share.issue = [&](const files::PathIssue& issue) {
    out.warn("kitsune2: " + std::string(to_string(issue.kind)) + ": " + files::printable(issue.path) + ": " +
             issue.reason);
    out.event(JsonLine("issue").add("kind", to_string(issue.kind)).add("path", issue.path).add("reason", issue.reason));
  };
  const auto start = Clock::now();
  auto last_line = start;
  share.progress = [&](const files::ShareProgress& p) {
    const double seconds = seconds_since(start);
    const std::string line = "reading: " + std::to_string(p.files) + " files, " +
                             human_bytes(static_cast<double>(p.bytes)) + ", " +
                             human_bytes(static_cast<double>(p.bytes) / std::max(seconds, 0.001)) + "/s";
    out.status(line);
    if (Clock::now() - last_line < std::chrono::seconds(out.json() ? 1 : 5)) return;
    last_line = Clock::now();
    if (!out.terminal()) out.note(line);
    out.event(JsonLine("progress").add("phase", "reading").add("files", p.files).add("bytes", p.bytes));
  };
  auto report = files::share_paths(node.node().runtime(), node.space()->op_store(), args.paths, share, signals.token());
  out.clear_status();
  if (!report) {
    if (report.error().code != Errc::cancelled) return out.error(report.error());
    return out.error(make_error(Errc::cancelled, "interrupted before there was a link; nothing is served"));
  }
  if (args.strict && report->failed > 0) {
    out.error(make_error(Errc::io,
                         std::to_string(report->failed) + " paths could not be read (--strict): nothing is shared"));
    return kPathTrouble;
  }
  auto link = link_for(node.node().relay_url(), space, report->root);
  if (!link) return out.error(link.error());
  if (auto joined = node.join(DhtArc::full()); !joined) return out.error(joined.error());

  out.note("stored " + std::to_string(report->folder.files) + " files in " + std::to_string(report->folder.dirs) +
           " folders, " + human_bytes(static_cast<double>(report->folder.bytes)) + ", as " +
           std::to_string(report->ops) + " ops (" + std::to_string(report->new_ops) + " new) in " +
           human_time(seconds_since(start)));
  out.result(link->to_string());
  out.event(JsonLine("shared")
                .add("link", link->to_string())
                .add("root", report->root.to_string())
                .add("space", space.to_string())
                .add("relay", node.node().relay_url())
                .add("files", report->folder.files)
                .add("dirs", report->folder.dirs)
                .add("bytes", report->folder.bytes)
                .add("ops", report->ops)
                .add("new_ops", report->new_ops)
                .add("new_bytes", report->new_bytes)
                .add("skipped", report->skipped)
                .add("failed", report->failed)
                .add("seconds", seconds_since(start)));
  if (report->failed > 0) {
    out.warn("kitsune2: " + std::to_string(report->failed) + " paths could not be read; the link is without them");
  }

  // Serve until a signal comes, saying what changes.
  signals.end_late_with(report->failed > 0 ? kPathTrouble : kOk);
  std::string url, said_offline;
  std::uint64_t served = 0;
  const auto serving_since = Clock::now();
  while (!signals.wait(std::chrono::milliseconds(500))) {
    FetchStats stats;
    std::string now_url;
    std::optional<TransportFailure> failure;
    node.node().run([&] {
      stats = node.space()->fetch().stats();
      if (const auto at = node.space()->current_url()) now_url = at->to_string();
      failure = node.space()->transport_failure();
    });
    if (!now_url.empty() && now_url != url) {
      out.note("serving at " + now_url + "; Ctrl-C ends it");
      out.event(JsonLine("online").add("url", now_url));
      said_offline.clear();
    }
    // At the start it takes a moment to connect: that is no news.
    if (now_url.empty() && (failure || Clock::now() - serving_since > std::chrono::seconds(3))) {
      const std::string why = failure ? files::printable(failure->error.message) : "no answer yet";
      if (why != said_offline) {
        out.warn("kitsune2: the relay " + node.node().relay_url() + " cannot be reached: " + why + "; still trying");
        out.event(JsonLine("offline").add("relay", node.node().relay_url()).add("reason", why));
        said_offline = why;
      }
    }
    url = now_url;
    if (stats.ops_served != served) {
      served = stats.ops_served;
      out.status("served " + std::to_string(stats.ops_served) + " ops, " +
                 human_bytes(static_cast<double>(stats.bytes_served)));
      out.event(JsonLine("served").add("ops", stats.ops_served).add("bytes", stats.bytes_served));
    }
  }
  out.clear_status();
  out.note("stopping");
  const bool trouble = report->failed > 0;
  node.stop();
  return trouble ? kPathTrouble : kOk;
}

}  // namespace kitsune2::cli
