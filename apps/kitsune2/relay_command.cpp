// `kitsune2 relay`: runs the relay and bootstrap server.
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <map>
#include <nlohmann/json.hpp>

#include "cli.hpp"
#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/relay_server.hpp"
#include "log/log.hpp"
#include "server/iroh/quic_refusal.hpp"

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
  options.no_iroh = args.no_iroh;
  options.allowed_origins = args.allowed_origins;
  if (args.quic_bind_addr) {
    if (!args.quic_bind_addr->empty()) options.quic_listen = {*args.quic_bind_addr};
  } else if (!args.no_iroh) {
    options.quic_listen = server::discovery_addresses(options.listen);
  }
  options.disable_rate_limiting = args.disable_rate_limiting;
  options.trusted_ip_header = args.trusted_ip_header;
  options.authentication_hook_server = args.authentication_hook_server;
  const auto set = [](auto& to, const auto& from) {
    if (from) to = *from;
  };
  set(options.max_entries_per_space, args.max_entries_per_space);
  set(options.prune_interval_ms, args.prune_interval_ms);
  set(options.relay_client_rx_bytes_per_second, args.relay_client_rx_bytes_per_second);
  set(options.relay_client_rx_burst_bytes, args.relay_client_rx_burst_bytes);
  set(options.auth_token_idle_millis, args.auth_token_idle_millis);
  set(options.limit_clients, args.limit_clients);
  set(options.limit_ip_kbps, args.limit_ip_kbps);
  set(options.limit_ip_byte_burst, args.limit_ip_byte_burst);
  set(options.limit_idle_millis, args.limit_idle_millis);
  set(options.limit_ip_connections, args.limit_ip_connections);
  set(options.limit_connections, args.limit_connections);
  return options;
}

/// The flag for an option of RelayServerOptions, so that an error names what was typed.
std::string flag_of(const std::string& option) {
  static const std::map<std::string, std::string, std::less<>> flags = {
      {"listen", "--listen"},
      {"tls_cert", "--tls-cert"},
      {"tls_key", "--tls-key"},
      {"max_entries_per_space", "--max-entries-per-space"},
      {"prune_interval_ms", "--prune-interval-ms"},
      {"no_sbd", "--no-sbd"},
      {"no_iroh", "--no-iroh"},
      {"quic_listen", "--quic-bind-addr"},
      {"authentication_hook_server", "--authentication-hook-server"},
      {"auth_token_idle_millis", "--auth-token-idle-millis"},
      {"relay_client_rx_burst_bytes", "--relay-client-rx-burst-bytes"},
      {"trusted_ip_header", "--sbd-trusted-ip-header"},
      {"limit_clients", "--sbd-limit-clients"},
      {"disable_rate_limiting", "--sbd-disable-rate-limiting"},
      {"limit_ip_kbps", "--sbd-limit-ip-kbps"},
      {"limit_ip_byte_burst", "--sbd-limit-ip-byte-burst"},
      {"limit_idle_millis", "--sbd-limit-idle-millis"},
      {"limit_ip_connections", "--limit-ip-connections"},
      {"limit_connections", "--limit-connections"},
  };
  const auto it = flags.find(option);
  return it == flags.end() ? option : it->second;
}

Error with_flag(Error error) {
  const auto colon = error.message.find(':');
  if (error.code == Errc::invalid_argument && colon != std::string::npos) {
    error.message = flag_of(error.message.substr(0, colon)) + error.message.substr(colon);
  }
  return error;
}

/// The addresses by which others may reach a bound address: for a wildcard, the addresses of this machine.
std::vector<std::string> reached_at(const std::string& bound) {
  const bool v4 = bound.starts_with("0.0.0.0:");
  if (!v4 && !bound.starts_with("[::]:")) return {bound};
  const std::string port = bound.substr(bound.rfind(':'));
  std::vector<std::string> out;
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return {};
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_UP) == 0 || (one->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET6_ADDRSTRLEN] = {};
    if (v4 && one->ifa_addr->sa_family == AF_INET) {
      const auto* address = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
      if (::inet_ntop(AF_INET, &address->sin_addr, text, sizeof text) != nullptr) out.push_back(text + port);
    } else if (!v4 && one->ifa_addr->sa_family == AF_INET6) {
      const auto* address = reinterpret_cast<const sockaddr_in6*>(one->ifa_addr);
      if (IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr)) continue;  // it would need the name of an interface
      if (::inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof text) != nullptr) {
        out.push_back('[' + std::string(text) + ']' + port);
      }
    }
  }
  ::freeifaddrs(all);
  return out;
}

/// For people: what is bound, and the urls by which nodes reach it.
void tell_addresses(Output& out, const RelayServer& server, const RelayArgs& args) {
  const std::string tls = server.uses_tls() ? "s" : "";
  const auto urls_at = [&](const std::string& place) {
    std::string urls;
    if (!args.no_sbd) urls.append("relay ws").append(tls).append("://").append(place).append(", ");
    urls.append("bootstrap http").append(tls).append("://").append(place);
    if (!args.no_iroh) urls.append(", relay of 0.5 http").append(tls).append("://").append(place).append("/relay");
    return urls;
  };
  for (const std::string& bound : server.addresses()) {
    const auto places = reached_at(bound);
    const bool wildcard = places.size() != 1 || places.front() != bound;
    if (wildcard) out.note(std::string("listening at ").append(bound).append(" (all addresses of this machine)"));
    for (const std::string& place : places) {
      out.note(urls_at(place));
    }
    const std::string port = bound.substr(bound.rfind(':'));
    const std::string here = (bound.front() == '[' ? "[::1]" : "127.0.0.1") + port;
    if (wildcard) {
      out.note("from this machine only: " + urls_at(here));
    }
  }
}

constexpr const char* kTlsTogether = "--tls-cert and --tls-key must be given together";

/// SIGHUP: reads the command line, the file of --config and the certificates again.
void reload(RelayServer& server, const std::function<Result<RelayArgs>()>& again, const RelayArgs& started) {
  const auto args = again();
  const auto refused = [](const std::string& why) { log::error("relay", "SIGHUP: nothing is changed: " + why); };
  if (!args) return refused(args.error().message);
  if (args->tls_cert.empty() != args->tls_key.empty()) return refused(kTlsTogether);
  const auto kept = server.reload(options_of(*args));
  if (!kept) return refused(with_flag(kept.error()).message);
  std::string later;
  const auto add = [&](const std::string& flag) { later += (later.empty() ? "" : ", ") + flag; };
  for (const std::string& option : *kept) add(flag_of(option));
  if (args->admin != started.admin) add("--admin");
  if (!later.empty()) log::warn("relay", "SIGHUP: these need a restart: " + later);
  log::info("relay", "SIGHUP: limits and certificate reloaded");
}

}  // namespace

int run_relay(const Common& common, const RelayArgs& args, const std::function<Result<RelayArgs>()>& again,
              Signals& signals) {
  Output out(common);
  if (args.tls_cert.empty() != args.tls_key.empty()) {
    return out.error(make_error(Errc::invalid_argument, kTlsTogether));
  }
  if (!args.otlp_endpoint.empty()) {
    out.warn(
        "--otlp-endpoint: metrics are not pushed; scrape /metrics of --admin instead, where they have the same names");
  }
  // The server has a loop of its own, so that a slow scrape of the metrics never delays the relay.
  auto server = RelayServer::start(options_of(args));
  if (!server) return out.error(with_flag(server.error()));
  AsioRuntime runtime;
  runtime.start();
  std::unique_ptr<AdminServer> admin;
  if (!args.admin.empty()) {
    auto started =
        AdminServer::start(runtime, args.admin, [&] { return (*server)->metrics() + AdminServer::process_metrics(); });
    if (!started) {
      Error error = started.error();
      if (error.message.starts_with("admin: ")) error.message.insert(0, "--");
      return out.error(error);
    }
    admin = std::move(*started);
    out.note("metrics at http://" + admin->address() + "/metrics");
  }
  // The same lines as kitsune2-bootstrap-srv prints, because scripts read them.
  out.result("#kitsune2_bootstrap_srv#running#");
  for (const auto& address : (*server)->addresses()) out.result("#kitsune2_bootstrap_srv#listening#" + address + '#');
  if (out.json()) {
    JsonLine line("listening");
    line.add_raw("addresses", nlohmann::json((*server)->addresses()).dump());
    line.add("relay", args.no_sbd ? std::string() : (*server)->relay_url());
    line.add("bootstrap", (*server)->bootstrap_url());
    line.add("iroh_relay", args.no_iroh ? std::string() : (*server)->iroh_relay_url());
    std::vector<std::string> reached;
    for (const auto& bound : (*server)->addresses()) {
      for (auto& place : reached_at(bound)) reached.push_back(std::move(place));
    }
    line.add_raw("reached_at", nlohmann::json(reached).dump());
    if (admin) line.add("admin", admin->address());
    out.event(line);
  }
  tell_addresses(out, **server, args);
  signals.on_hangup([&] { reload(**server, again, args); });
  while (!signals.wait(std::chrono::hours(1))) {
  }
  signals.on_hangup(nullptr);
  if (admin) admin->stop();  // it reads the relay's counters
  (*server)->stop();
  runtime.stop();
  return kOk;
}

}  // namespace kitsune2::cli
