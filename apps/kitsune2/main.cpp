// kitsune2: the command line.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "cli.hpp"
#include "completion.hpp"
#include "kitsune2/files.hpp"
#include "kitsune2/version.hpp"
#include "node/builder/dialect_choice.hpp"
#include "relay_config.hpp"

namespace kitsune2::cli {
namespace {

constexpr const char* kExitCodes =
    "Exit codes: 0 done; 1 failed; 2 wrong use (command line, link, configuration); 3 timed out; 4 incomplete: no\n"
    "source has some of the ops; 5 some files could not be read or written; 6 disk full; 7 corrupt data; 8 a port or\n"
    "data directory is in use; 130 interrupted.";
constexpr const char* kWhereExitCodes = "Exit codes: 0 is success; kitsune2 --help lists the others.";

void add_common(CLI::App& app, Common& common) {
  app.add_option("--log-level", common.log_level, "Least severe level that is logged to stderr")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  app.add_option("--log-format", common.log_format,
                 "Log format; json writes one object per line, also for notes and errors")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.add_flag("--json", common.json, "Print JSON to stdout, one object per line, instead of text");
  app.add_flag("-q,--quiet", common.quiet, "Show no progress and no notes");
  app.footer(kWhereExitCodes);
}

void add_network(CLI::App& app, std::string& network, const std::string& otherwise) {
  app.add_option("--network", network, "Range of kitsune2 versions to speak with [" + otherwise + ']')
      ->check(CLI::IsMember(network_names()));
}

std::string default_network() { return std::string(to_string(default_dialect())); }

void add_node(CLI::App& app, Common& common, NodeArgs& node, const std::string& network) {
  app.add_option("--data", node.data, "Folder for this node's database and key; created if missing")
      ->required()
      ->type_name("DIR");
  add_network(app, node.network, network);
  app.add_option("--tls-ca", node.tls_ca, "Certificate (PEM) to trust for wss and https, in addition to the system's")
      ->type_name("FILE");
  app.add_option("--admin", node.admin, "Serve /metrics and /healthz at this address; no authentication, use loopback")
      ->type_name("HOST:PORT");
  app.add_option("--config", common.config_file, "Configuration file in Kitsune2's JSON (see kitsune2 config)")
      ->type_name("FILE");
}

template <class T>
void add_optional(CLI::App& app, const std::string& name, std::optional<T>& value, const std::string& help) {
  app.add_option(name, value, help)->type_name("N");
}

void add_relay(CLI::App& root, Common& common, RelayArgs& args) {
  auto& app = *root.add_subcommand("relay", "Run a relay and bootstrap server");
  app.add_option("--listen", args.listen,
                 "Address to listen on; may be repeated [127.0.0.1:0; with --production 0.0.0.0:443 and [::]:443]")
      ->type_name("HOST:PORT");
  app.add_option("--tls-cert", args.tls_cert, "Certificate chain (PEM); reread every hour and on SIGHUP")
      ->type_name("FILE");
  app.add_option("--tls-key", args.tls_key, "Private key of --tls-cert (PEM)")->type_name("FILE");
  app.add_option("--admin", args.admin, "Serve /metrics and /healthz at this address; no authentication, use loopback")
      ->type_name("HOST:PORT");
  app.add_flag("--production", args.production, "Defaults for a public server: port 443, slower pruning");
  add_optional(app, "--max-entries-per-space", args.max_entries_per_space, "Agent infos kept per space [32]");
  add_optional(app, "--prune-interval-ms", args.prune_interval_ms,
               "Interval for removing expired infos [10000; with --production 60000]");
  app.add_flag("--no-sbd", args.no_sbd, "No relay for dialect 0.2 (sbd)");
  app.add_option("--allowed-origins", args.allowed_origins,
                 "Web pages that may use the bootstrap server, by origin; may be repeated [all]")
      ->type_name("ORIGIN");
  app.add_option(
         "--quic-bind-addr", args.quic_bind_addr,
         "UDP address at which address discovery is refused at once; \"\": none [port 7842 where --listen is not "
         "loopback]")
      ->type_name("HOST:PORT");
  app.add_option("--authentication-hook-server", args.authentication_hook_server,
                 "Server that decides who may use this one; clients then need a token [anyone may]")
      ->type_name("URL");
  add_optional(app, "--auth-token-idle-millis", args.auth_token_idle_millis,
               "How long a token is good after its last use [300000]");
  app.add_option("--otlp-endpoint", args.otlp_endpoint, "No effect but a warning: scrape /metrics of --admin instead")
      ->type_name("URL");
  app.add_flag("--no-iroh", args.no_iroh, "No relay for dialect 0.5 (iroh)");
  add_optional(app, "--relay-client-rx-bytes-per-second", args.relay_client_rx_bytes_per_second,
               "Bytes per second that one client of dialect 0.5 may send [no limit]");
  add_optional(app, "--relay-client-rx-burst-bytes", args.relay_client_rx_burst_bytes,
               "Bytes that it may send at once [a tenth of the rate]");
  app.add_option("--sbd-trusted-ip-header", args.trusted_ip_header,
                 "Behind a proxy: the HTTP header that has the client's address")
      ->type_name("NAME");
  add_optional(app, "--sbd-limit-clients", args.limit_clients, "Maximum number of relay clients [32768]");
  app.add_flag("--sbd-disable-rate-limiting", args.disable_rate_limiting, "Do not limit the rate of clients");
  add_optional(app, "--sbd-limit-ip-kbps", args.limit_ip_kbps, "Kilobits per second for each client address [1000000]");
  add_optional(app, "--sbd-limit-ip-byte-burst", args.limit_ip_byte_burst,
               "Bytes that a client address may send at once [16777216]");
  add_optional(app, "--sbd-limit-idle-millis", args.limit_idle_millis,
               "Disconnect a client that has sent nothing for this long [10000]");
  add_optional(app, "--limit-ip-connections", args.limit_ip_connections,
               "Maximum number of TCP connections per address [4096]");
  add_optional(app, "--limit-connections", args.limit_connections, "Maximum number of TCP connections [34000]");
  app.add_option("--config", common.config_file, "JSON file with more of these options; reread on SIGHUP")
      ->type_name("FILE");
  add_optional(app, "--worker-thread-count", args.worker_threads, "No effect; accepted as by kitsune2-bootstrap-srv");
  add_optional(app, "--request-listen-duration-ms", args.request_listen_ms,
               "No effect; accepted as by kitsune2-bootstrap-srv");
  add_common(app, common);
}

void add_share(CLI::App& root, Common& common, ShareArgs& args) {
  auto& app = *root.add_subcommand(
      "share", "Share files and folders: store them as ops, print a link and serve them until interrupted");
  app.add_option("PATH", args.paths,
                 "What to share: the contents of one folder; or files and several folders, each under its own name")
      ->required();
  add_node(app, common, args.node, "that of --data, of a new one " + default_network());
  auto* relay = app.add_option("--relay", args.node.relay, "Relay and bootstrap server to use")->type_name("URL");
  auto* listen =
      app.add_option("--listen", args.listen, "Run a relay inside this node, at this address")->type_name("HOST:PORT");
  listen->excludes(relay);
  app.add_option("--tls-cert", args.tls_cert, "Certificate (PEM) for --listen")->needs(listen)->type_name("FILE");
  app.add_option("--tls-key", args.tls_key, "Private key of --tls-cert (PEM)")->needs(listen)->type_name("FILE");
  app.add_option("--public", args.public_address, "Address at which others reach --listen, if it differs")
      ->needs(listen)
      ->type_name("HOST:PORT");
  app.add_option("--space", args.space,
                 "Name of the space to share in; sharers in one space serve a fetch together [one of its own]")
      ->type_name("NAME");
  app.add_flag("--mtime", args.mtime, "Also share modification times (the link then depends on them)");
  app.add_flag("--strict", args.strict, "Share nothing if something cannot be read");
  add_common(app, common);
}

void add_fetch(CLI::App& root, Common& common, FetchArgs& args) {
  auto& app = *root.add_subcommand(
      "fetch", "Fetch the share that a link names and write it to a folder; resumes where it stopped");
  app.add_option("LINK", args.link, "The link that share printed")->required();
  add_node(app, common, args.node, "the link's");
  app.add_option("--out", args.out, "Folder to write to; created if missing")->required()->type_name("DIR");
  app.add_option("--relay", args.node.relay, "Relay to use instead of the link's")->type_name("URL");
  app.add_flag("--overwrite", args.overwrite, "Replace existing files that differ");
  app.add_option("--timeout", args.timeout_s, "Give up after receiving nothing for this long; 0: never")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.0, 1e9))
      ->capture_default_str();
  app.add_option("--missing-after", args.missing_after_s, "Give up on ops that no live source has had for this long")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.2, 1e9))
      ->capture_default_str();
  add_common(app, common);
}

void add_mirror(CLI::App& root, Common& common, MirrorArgs& args) {
  auto& app = *root.add_subcommand(
      "mirror", "Hold all that is in the space of a link, and serve it to fetchers until interrupted");
  app.add_option("LINK", args.link, "The link that share printed")->required();
  add_node(app, common, args.node, "the link's");
  app.add_option("--relay", args.node.relay, "Relay to use instead of the link's")->type_name("URL");
  app.add_option("--limit", args.limit_mib, "Take in no more ops when this many MiB are held; 0: no limit")
      ->type_name("MIB")
      ->check(CLI::Range(std::uint64_t{0}, std::uint64_t{1} << 40U))
      ->capture_default_str();
  add_common(app, common);
}

void add_status(CLI::App& root, Common& common, StatusArgs& args) {
  auto& app =
      *root.add_subcommand("status", "Show what a node holds, what it still fetches from whom, who is on back-off");
  app.add_option("--data", args.data, "The node's folder; the node may be running")->required()->type_name("DIR");
  add_common(app, common);
}

void add_check(CLI::App& root, Common& common, CheckArgs& args) {
  auto& app =
      *root.add_subcommand("check", "Read all ops of a node and compare them with their ids; the node may be running");
  app.add_option("--data", args.data, "Data folder of the node")->required()->type_name("DIR");
  app.add_option("--rate", args.rate_mib, "Read at most this many MiB per second; 0: no limit")
      ->type_name("MIB")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_flag("--repair", args.repair,
               "Drop damaged ops, so that they are shared or fetched again; the node must be stopped");
  add_common(app, common);
}

void add_demo(CLI::App& root, Common& common, DemoArgs& args) {
  auto& app = *root.add_subcommand("demo", "Share and fetch generated files over a relay, and compare every byte");
  app.add_option("--files", args.files, "Number of files")->check(CLI::Range(1, 100'000))->capture_default_str();
  app.add_option("--mib", args.mib, "Approximate size of all files, in MiB")
      ->check(CLI::Range(1, 10'240))
      ->capture_default_str();
  app.add_flag("--keep", args.keep, "Keep the temporary folder");
  add_network(app, args.network, default_network());
  app.add_option("--relay", args.relay, "Relay to use [one of its own]")->type_name("URL");
  add_common(app, common);
}

void add_config(CLI::App& root, Common& common, ConfigArgs& args) {
  auto& app =
      *root.add_subcommand("config", "Print the default configuration or its schema, or check a configuration file");
  auto* schema = app.add_flag("--schema", args.schema, "Print the JSON schema");
  app.add_option("--check", args.check, "Configuration file to check")->type_name("FILE")->excludes(schema);
  add_common(app, common);
}

void add_completion(CLI::App& root, Common& common, std::string& shell) {
  auto& app = *root.add_subcommand("completion", "Print a completion script for a shell");
  app.add_option("SHELL", shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  add_common(app, common);
}

/// What the command line and the file of --config say now. The command line is known to be right.
Result<RelayArgs> relay_args(const std::vector<std::string>& words) {
  CLI::App root;
  Common common;
  RelayArgs args;
  add_relay(root, common, args);
  try {
    root.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::ParseError& error) {
    return make_error(Errc::invalid_argument, error.what());
  }
  if (!common.config_file.empty()) {
    if (auto read = read_relay_config(*root.get_subcommand("relay"), common.config_file); !read) return read.error();
  }
  return args;
}

/// What the command line says about output, when it could not be parsed as a whole.
Common output_of(const std::vector<std::string>& words) {
  Common out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view arg = words[i];
    const std::string_view next = i + 1 < words.size() ? std::string_view(words[i + 1]) : std::string_view();
    if (arg == "--json") out.json = true;
    if (arg == "--log-format=json" || (arg == "--log-format" && next == "json")) out.log_format = "json";
  }
  return out;
}

std::vector<std::string> command_names(const CLI::App& root) {
  std::vector<std::string> out = {"help", "version"};
  for (const auto* command : root.get_subcommands([](const CLI::App*) { return true; })) {
    out.push_back(command->get_name());
  }
  return out;
}

std::string with_guess(const std::string& what, const std::optional<std::string>& guess) {
  return guess ? what + "; did you mean " + *guess + '?' : what;
}

/// Returns the first of `words` that is an option, but none of `app`'s.
std::optional<std::string> unknown_option(const CLI::App& app, const std::vector<std::string>& words) {
  std::map<std::string, const CLI::Option*> known;
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_snames()) known.emplace('-' + name, option);
    for (const auto& name : option->get_lnames()) {
      known.emplace("--" + name, option);
      names.push_back("--" + name);
    }
  }
  for (std::size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
    const std::string name = words[i].substr(0, words[i].find('='));
    if (const auto it = known.find(name); it != known.end()) {
      if (name.size() == words[i].size() && it->second->get_items_expected_min() > 0) ++i;  // its value
    } else if (name.starts_with("--")) {
      return with_guess("unknown option " + name, nearest(name, names));
    } else if (name.size() > 1 && name.front() == '-') {
      const auto letter = [&](char c) { return known.count({'-', c}) != 0; };  // short options may be combined
      if (!std::all_of(name.begin() + 1, name.end(), letter)) return "unknown option " + name;
    }
  }
  return std::nullopt;
}

/// Says what is wrong with the command line, in one line like every error.
int wrong_use(const CLI::App& root, const CLI::ParseError& error, const std::vector<std::string>& words) {
  const auto commands = root.get_subcommands();
  std::string what = error.what();
  if (!commands.empty()) {
    const CLI::App& command = *commands.front();
    const auto begin = std::find(words.begin(), words.end(), command.get_name());
    // CLI11 first reports what is missing, which may only be misspelt, and lists what is left over in reverse.
    if (auto unknown = unknown_option(command, {begin == words.end() ? begin : begin + 1, words.end()})) {
      what = *unknown;
    } else if (const auto rest = command.remaining(); !rest.empty()) {
      what = "unexpected argument: " + files::printable(rest.front());
    }
  } else if (!words.empty() && !words.front().starts_with('-')) {
    what =
        with_guess(files::printable(words.front()) + ": is not a command", nearest(words.front(), command_names(root)));
  } else if (auto unknown = unknown_option(root, words)) {
    what = *unknown;
  } else {
    what = "no command given";
  }
  std::replace(what.begin(), what.end(), '\n', ' ');
  what += (what.ends_with('?') ? " See kitsune2 " : "; see kitsune2 ") +
          (commands.empty() ? std::string() : commands.front()->get_name() + ' ') + "--help";
  return Output(output_of(words)).error(make_error(Errc::invalid_argument, what));
}

/// Replaces `help`, `help COMMAND` and `version` by the equivalent options. An unknown COMMAND stays, and is an error.
std::vector<std::string> plain_words(const CLI::App& root, std::vector<std::string> words) {
  if (words.empty() || (words.front() != "help" && words.front() != "version")) return words;
  if (words.front() == "version") return {"--version"};
  words.erase(words.begin());
  words.resize(std::min<std::size_t>(words.size(), 1));
  const auto names = command_names(root);
  const bool known = words.empty() || words.front().starts_with('-') ||
                     std::find(names.begin(), names.end(), words.front()) != names.end();
  if (known) words.emplace_back("--help");
  return words;
}

int run(int argc, char** argv) {
  CLI::App root{"A Kitsune2 node: share and fetch folders from peer to peer, or run a relay.", "kitsune2"};
  root.set_version_flag("--version", std::string("kitsune2 ") + version() + " (wire: kitsune2 0.2, 0.4, 0.5)");
  root.require_subcommand(1);
  root.footer(std::string("kitsune2 help COMMAND shows the options of a command.\n") + kExitCodes);
  Common common;
  RelayArgs relay;
  ShareArgs share;
  FetchArgs fetch;
  MirrorArgs mirror;
  StatusArgs status;
  CheckArgs check;
  ConfigArgs config;
  DemoArgs demo;
  std::string shell;

  add_relay(root, common, relay);
  add_share(root, common, share);
  add_fetch(root, common, fetch);
  add_mirror(root, common, mirror);
  add_status(root, common, status);
  add_check(root, common, check);
  add_demo(root, common, demo);
  add_config(root, common, config);
  add_completion(root, common, shell);

  const std::vector<std::string> words = plain_words(root, {argv + std::min(argc, 1), argv + argc});
  if (words.empty()) {
    // Not a result: a user who gives no command wants to know which exist.
    std::fputs(root.help().c_str(), stderr);
    return kUsage;
  }
  try {
    root.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::ParseError& error) {
    // --help and --version arrive here too.
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return root.exit(error);
    return wrong_use(root, error, words);
  }

  start_log(common);

  // Its thread lives as long as the process, so it is never destroyed.
  const bool has_to_tidy = root.got_subcommand("relay") || root.got_subcommand("share") ||
                           root.got_subcommand("fetch") || root.got_subcommand("mirror") || root.got_subcommand("demo");
  static Signals& signals = *new Signals(has_to_tidy ? Signals::First::stops : Signals::First::ends_here);
  if (root.got_subcommand("config")) return run_config(common, config);
  if (root.got_subcommand("completion")) {
    std::fputs(completion_script(root, shell).c_str(), stdout);
    return kOk;
  }
  if (root.got_subcommand("status")) return run_status(common, status);
  if (root.got_subcommand("check")) return run_check(common, check);
  if (root.got_subcommand("relay")) {
    const auto again = [words] { return relay_args(words); };
    const auto args = again();
    if (!args) return Output(common).error(args.error());
    return run_relay(common, *args, again, signals);
  }
  if (root.got_subcommand("share")) return run_share(common, share, signals);
  if (root.got_subcommand("fetch")) return run_fetch(common, fetch, signals);
  if (root.got_subcommand("mirror")) return run_mirror(common, mirror, signals);
  return run_demo(common, demo, signals);
}

/// Without memory a thread can do nothing but end: with a line and an exit code, not with a core dump. Everything
/// stored remains.
[[noreturn]] void end_of_memory() {
  constexpr std::string_view kLine = "kitsune2: not enough memory. Stored data is safe\n";
  static_cast<void>(::write(2, kLine.data(), kLine.size()) > 0);
  ::_exit(kFailed);
}

std::terminate_handler g_terminate = nullptr;

[[noreturn]] void terminated() {
  if (const auto thrown = std::current_exception()) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::bad_alloc&) {
      end_of_memory();
    } catch (...) {  // the previous handler says what it is
    }
  }
  g_terminate();
  std::abort();
}

}  // namespace
}  // namespace kitsune2::cli

int main(int argc, char** argv) {
  kitsune2::cli::g_terminate = std::set_terminate(kitsune2::cli::terminated);
  try {
    const int code = kitsune2::cli::run(argc, argv);
    return kitsune2::cli::stdout_lost() && code == kitsune2::cli::kOk ? kitsune2::cli::kFailed : code;
  } catch (const std::bad_alloc&) {
    kitsune2::cli::end_of_memory();
  } catch (const std::exception& error) {
    // Failures at start-up only: no descriptor for the event loop, no thread, no memory.
    using namespace kitsune2;
    const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
    return cli::Output(cli::output_of(words)).error(make_error(Errc::io, error.what()));
  }
}
