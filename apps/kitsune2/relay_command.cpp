#include <nlohmann/json.hpp>

#include "cli.hpp"
#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/relay_server.hpp"

namespace kitsune2::cli {

namespace {

RelayServerOptions options_of(const RelayArgs& args) {
  RelayServerOptions options;
  if (args.production) {
    options.listen = {"0.0.0.0:443", "[::]:443"};
    options.prune_interval_ms = 60'000;
  }
  if (!args.listen.empty()) options.listen = args.listen;
  options.tls_cert = args.tls_cert;
  options.tls_key = args.tls_key;
  options.no_sbd = args.no_sbd;
  options.disable_rate_limiting = args.disable_rate_limiting;
  options.trusted_ip_header = args.trusted_ip_header;
  const auto set = [](auto& to, const auto& from) {
    if (from) to = *from;
  };
  set(options.max_entries_per_space, args.max_entries_per_space);
  set(options.prune_interval_ms, args.prune_interval_ms);
  set(options.limit_clients, args.limit_clients);
  set(options.limit_ip_kbps, args.limit_ip_kbps);
  set(options.limit_ip_byte_burst, args.limit_ip_byte_burst);
  set(options.limit_idle_millis, args.limit_idle_millis);
  set(options.limit_ip_connections, args.limit_ip_connections);
  set(options.limit_connections, args.limit_connections);
  return options;
}

/// The server names its options; the user typed flags.
Error with_flag(Error error) {
  static constexpr std::pair<std::string_view, std::string_view> kFlags[] = {
      {"max_entries_per_space", "--max-entries-per-space"},
      {"prune_interval_ms", "--prune-interval-ms"},
      {"limit_clients", "--sbd-limit-clients"},
      {"limit_ip_kbps", "--sbd-limit-ip-kbps"},
      {"limit_ip_byte_burst", "--sbd-limit-ip-byte-burst"},
      {"limit_idle_millis", "--sbd-limit-idle-millis"},
      {"limit_ip_connections", "--limit-ip-connections"},
      {"limit_connections", "--limit-connections"},
  };
  for (const auto& [name, flag] : kFlags) {
    if (!error.message.starts_with(std::string(name) + ':')) continue;
    error.message.replace(0, name.size(), flag);
    break;
  }
  return error;
}

}  // namespace

int run_relay(const Common& common, const RelayArgs& args, Signals& signals) {
  Output out(common);
  if (args.tls_cert.empty() != args.tls_key.empty()) {
    return out.error(make_error(Errc::invalid_argument, "--tls-cert and --tls-key go together"));
  }
  // The server keeps a loop of its own: a slow scrape of the metrics never holds up the relay.
  auto server = RelayServer::start(options_of(args));
  if (!server) return out.error(with_flag(server.error()));
  AsioRuntime runtime;
  runtime.start();
  std::unique_ptr<AdminServer> admin;
  if (!args.admin.empty()) {
    auto started = AdminServer::start(runtime, args.admin, [&] { return (*server)->metrics(); });
    if (!started) return out.error(started.error().context("--admin"));
    admin = std::move(*started);
    out.note("metrics at http://" + admin->address() + "/metrics");
  }
  // The same lines as kitsune2-bootstrap-srv prints: scripts read them.
  out.result("#kitsune2_bootstrap_srv#running#");
  for (const auto& address : (*server)->addresses()) out.result("#kitsune2_bootstrap_srv#listening#" + address + '#');
  if (out.json()) {
    JsonLine line("listening");
    line.add_raw("addresses", nlohmann::json((*server)->addresses()).dump());
    line.add("relay", (*server)->relay_url()).add("bootstrap", (*server)->bootstrap_url());
    if (admin) line.add("admin", admin->address());
    out.event(line);
  }
  out.note("relay " + (*server)->relay_url() + ", bootstrap " + (*server)->bootstrap_url());
  while (!signals.wait(std::chrono::hours(1))) {
  }
  if (admin) admin->stop();
  (*server)->stop();
  runtime.stop();
  return kOk;
}

}  // namespace kitsune2::cli
