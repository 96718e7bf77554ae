#include <cmath>

#include "node_setup.hpp"

namespace kitsune2::cli {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Result<files::Link> link_for(const ShareArgs& args, const std::string& relay, const SpaceId& space, const OpId& root) {
  files::Link link;
  link.space = space;
  link.root = root;
  auto url = Url::parse(relay);
  if (!url) return url.error().context("relay");
  link.tls = url->uses_tls();
  link.host = std::string(url->host());
  link.port = url->port();
  if (!args.public_address.empty()) {
    auto address = files::parse_host_port(args.public_address);
    if (!address) return address.error().context("--public");
    link.host = address->first;
    link.port = address->second;
  }
  return link;
}

/// Says what is wrong before anything is read or opened.
Result<void> check(const ShareArgs& args) {
  if (args.tls_cert.empty() != args.tls_key.empty()) {
    return make_error(Errc::invalid_argument, "--tls-cert and --tls-key go together");
  }
  if (!args.public_address.empty()) {
    auto address = files::parse_host_port(args.public_address);
    if (!address) return address.error().context("--public");
    if (address->second == 0) return make_error(Errc::invalid_argument, "--public: port 0 is no place to call");
  }
  if (!args.listen.empty()) {
    if (auto address = files::parse_host_port(args.listen); !address) return address.error().context("--listen");
  }
  return {};
}

}  // namespace

int run_share(const Common& common, const ShareArgs& args, Signals& signals) {
  Output out(common);
  if (auto valid = check(args); !valid) return out.error(valid.error());
  auto options = node_options(common, args.node);
  if (!options) return out.error(options.error());
  if (!args.node.relay.empty()) {
    auto url = relay_url(args.node.relay);
    if (!url) return out.error(url.error());
    options->relay = *url;
  } else if (!args.listen.empty()) {
    options->listen = args.listen;
    options->tls_cert_file = args.tls_cert;
    options->tls_key_file = args.tls_key;
  } else if (options->config.tx5_transport.server_url == Config::defaults().tx5_transport.server_url) {
    return out.error(make_error(Errc::invalid_argument, "share needs --relay URL or --listen HOST:PORT"));
  }
  const std::string name = args.space.empty() ? std::string(files::kDefaultSpace) : args.space;
  if (name.size() > 1024) return out.error(make_error(Errc::invalid_argument, "--space: over 1024 bytes"));
  const SpaceId space = SpaceId::from_text(name);
  auto running = RunningNode::start(std::move(*options), space, "share");
  if (!running) return out.error(running.error());
  RunningNode& node = **running;

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
  if (!report) return out.error(report.error());
  if (args.strict && report->failed > 0) {
    out.error(make_error(Errc::io,
                         std::to_string(report->failed) + " paths could not be read (--strict): nothing is shared"));
    return kPathTrouble;
  }
  auto link = link_for(args, node.node().relay_url(), space, report->root);
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
  std::string url;
  std::uint64_t served = 0;
  auto last_status = Clock::now();
  while (!signals.wait(std::chrono::milliseconds(500))) {
    FetchStats stats;
    std::string now_url;
    node.node().run([&] {
      stats = node.space()->fetch().stats();
      if (const auto at = node.space()->current_url()) now_url = at->to_string();
    });
    if (now_url != url) {
      if (now_url.empty()) {
        out.warn("kitsune2: the relay " + node.node().relay_url() + " is not reachable; trying again");
        out.event(JsonLine("offline"));
      } else {
        out.note("serving at " + now_url + "; Ctrl-C ends it");
        out.event(JsonLine("online").add("url", now_url));
      }
      url = now_url;
    } else if (url.empty() && last_status != Clock::time_point::max() &&
               Clock::now() - last_status > std::chrono::seconds(5)) {
      out.warn("kitsune2: the relay " + node.node().relay_url() + " is not reachable yet; trying on");
      last_status = Clock::time_point::max();
    }
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
