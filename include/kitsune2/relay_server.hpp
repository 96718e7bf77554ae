// The relay and bootstrap server, which runs alone (`kitsune2 relay`) or inside a node, and the admin endpoint.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kitsune2/error.hpp"
#include "kitsune2/log.hpp"

namespace kitsune2 {

class AsioRuntime;
namespace net {
class LocalDoor;  // src/net/local_conn.hpp
}

/// Options of the relay server. Names, units and meanings are those of the reference's command-line flags, where there
/// is one (kitsune2-bootstrap-srv 0.2.2 and sbd-server 0.1.0). In limits that are "ours", 0 means "no limit".
struct RelayServerOptions {
  /// "host:port" for each, "[::1]:443" for IPv6; port 0 picks a free one. `--listen`
  std::vector<std::string> listen = {"127.0.0.1:0"};
  /// PEM files: both or neither. Read again every hour and by `reload`, so that a renewed certificate takes effect.
  /// `--tls-cert`, `--tls-key`
  std::string tls_cert;
  std::string tls_key;

  // --- bootstrap
  /// When a space is full, the address with the most entries in it loses one.
  std::uint32_t max_entries_per_space = 32;
  std::uint32_t prune_interval_ms = 10'000;
  std::uint32_t max_spaces = 10'000;  ///< ours: when full, the address with the most loses one
  /// Origins of web pages that may read the bootstrap server's answers; empty: all. `--allowed-origins`
  std::vector<std::string> allowed_origins = {};
  std::uint64_t max_bootstrap_bytes = 64ULL << 20;  ///< ours: bytes of all infos held; the same rule

  // --- sbd
  bool no_sbd = false;            ///< bootstrap only
  std::string trusted_ip_header;  ///< behind a proxy: the header with the client's address
  std::uint32_t limit_clients = 32'768;
  bool disable_rate_limiting = false;  ///< clients are told 1 ns per byte
  /// Kilobits per second for each client address. The reference's default is 1000; ours is a thousand times that.
  std::uint32_t limit_ip_kbps = 1'000'000;
  /// The reference's default is 262144. At our rate that is 2 ms, less than a machine under load may sleep.
  std::uint32_t limit_ip_byte_burst = 16U << 20;
  std::uint32_t limit_idle_millis = 10'000;  ///< also the limit of the sbd handshake

  // --- the relay of dialect 0.5 (iroh's), beside sbd on the same port. limit_clients, disable_rate_limiting,
  // limit_ip_kbps, limit_ip_byte_burst, limit_all_queue_bytes and slow_receiver_millis hold for it as well, each of the
  // two relays by itself; a client over a rate is not closed there but read later.
  bool no_iroh = false;  ///< no such relay
  /// What one client may send on the average, and at once; 0: no limit, and a tenth of the rate.
  /// `--relay-client-rx-bytes-per-second`, `--relay-client-rx-burst-bytes`
  std::uint32_t relay_client_rx_bytes_per_second = 0;
  std::uint32_t relay_client_rx_burst_bytes = 0;
  /// "host:port" of UDP sockets on which attempts to learn one's address by QUIC are refused at once; a stock node asks
  /// at port 7842 of its relay's host and waits 3 s if nobody answers. One that is taken is logged as a warning and is
  /// no error. `--quic-bind-addr`
  std::vector<std::string> quic_listen = {};

  /// "http://host[:port]" or "https://…" of the server that decides who may use this one: a client's PUT /authenticate
  /// is passed on to it, and /bootstrap and both relays want the token that it gives. Empty: anyone may.
  /// `--authentication-hook-server`
  std::string authentication_hook_server = {};
  /// A token of the hook server ends when it has not been used for this long. `--auth-token-idle-millis`; in the
  /// reference only the library has it (AuthConfig::auth_token_idle_timeout).
  std::uint32_t auth_token_idle_millis = 300'000;

  // --- ours
  std::uint32_t limit_ip_connections = 4096;  ///< TCP connections of one address (IPv6: one /64)
  std::uint32_t limit_connections = 34'000;   ///< TCP connections in total
  /// Bytes that may wait for one receiver. Beyond that, its senders are not read from.
  std::uint32_t limit_send_queue_bytes = 1U << 20;
  /// Bytes that may wait for all receivers together. With less than half of it free, each receiver may have an eighth
  /// of the free part. With nothing free, the receiver that has taken nothing for longest is closed. As much again is
  /// kept of messages that clients have begun; beyond that, those go that hold the most for the longest time.
  std::uint64_t limit_all_queue_bytes = 128ULL << 20;
  /// The share of the server's time for HTTP requests and new connections; anything beyond it waits. A relay inside a
  /// node has 20.
  std::uint32_t limit_http_percent = 50;
  /// A receiver that keeps senders waiting and takes less than `slow_receiver_bytes` in this time is closed. So one
  /// slow receiver can hold up a sender's traffic to others for this time at most.
  std::uint32_t slow_receiver_millis = 2'000;
  std::uint32_t slow_receiver_bytes = 64U << 10;
  std::uint32_t http_header_millis = 10'000;  ///< for the TLS handshake and the head of the request
  std::uint32_t http_body_millis = 10'000;
  std::uint32_t http_idle_millis = 30'000;    ///< between requests on one connection
  std::uint32_t write_stall_millis = 30'000;  ///< a client that takes nothing for this long is closed
  /// Receives the log lines of a server with a thread of its own. On a given runtime they go to the runtime's log.
  LogOptions log = {};
};

/// Figures of the relay of dialect 0.5 since the start. "Packets" are frames of datagrams, one or several in each.
struct IrohRelayStats {
  std::uint64_t clients = 0;       ///< gauge: open connections, also during the handshake
  std::uint64_t queued_bytes = 0;  ///< gauge: bytes waiting for all clients
  std::uint64_t accepts = 0;       ///< handshakes finished
  std::uint64_t disconnects = 0;   ///< of those
  std::uint64_t packets_received = 0;
  std::uint64_t bytes_received = 0;  ///< contents of packets
  std::uint64_t packets_sent = 0;
  std::uint64_t bytes_sent = 0;
  std::uint64_t dropped_absent = 0;      ///< packets to a key that is not connected
  std::uint64_t dropped_full = 0;        ///< packets to a client whose queue was full
  std::uint64_t dropped_unwritable = 0;  ///< packets without content, and those of the largest size
  std::uint64_t pings_received = 0;
  std::uint64_t pongs_sent = 0;
  std::uint64_t rate_waits = 0;       ///< times a client was read later because of a rate
  std::uint64_t rate_waiters = 0;     ///< clients to which that happened
  std::uint64_t rate_wait_bytes = 0;  ///< the bytes that waited
  /// (reason, count) with every reason present.
  std::vector<std::pair<std::string, std::uint64_t>> rejects;
};

/// Figures of the authentication since the start.
struct AuthStats {
  /// Outcomes of PUT /authenticate.
  std::uint64_t accepted = 0, pending = 0, refused = 0;
  std::uint64_t failed = 0;        ///< the hook server could not be reached, or its answer makes no sense
  std::uint64_t busy = 0;          ///< the hook server was not asked: too many wait for it. Or no place for a token
  std::uint64_t unauthorized = 0;  ///< other requests without a good token
  std::uint64_t tokens = 0;        ///< gauge: tokens of the hook server that are good
  std::uint64_t keys = 0;          ///< gauge: endpoints on the list of those that had one
  std::uint64_t calls = 0;         ///< gauge: calls to the hook server that are under way
  std::uint64_t waiting = 0;       ///< gauge: clients that wait for one
};

/// Figures since the start. All but the gauges only grow.
struct RelayServerStats {
  std::uint64_t connections = 0;      ///< gauge: open TCP connections
  std::uint64_t relay_clients = 0;    ///< gauge: open sbd connections, also during the handshake
  std::uint64_t accepted = 0;         ///< TCP connections accepted
  std::uint64_t handshakes = 0;       ///< sbd handshakes finished
  std::uint64_t forwards = 0;         ///< messages forwarded
  std::uint64_t forward_bytes = 0;    ///< their bytes, including headers
  std::uint64_t dropped_unknown = 0;  ///< messages to a key that is not connected
  std::uint64_t sender_waits = 0;     ///< times a sender was not read from because a receiver's queue was full
  std::uint64_t queued_bytes = 0;     ///< gauge: bytes waiting for all receivers
  std::uint64_t http_requests = 0;
  std::uint64_t http_waits = 0;      ///< requests that had to wait for their turn
  std::uint64_t http_blamed = 0;     ///< clients that broke a rule: others go before their address for a minute
  std::uint64_t bootstrap_puts = 0;  ///< accepted
  std::uint64_t bootstrap_gets = 0;
  std::uint64_t bootstrap_spaces = 0;   ///< gauge
  std::uint64_t bootstrap_entries = 0;  ///< gauge
  std::uint64_t bootstrap_evicted = 0;  ///< spaces dropped to make room for others
  std::uint64_t log_left_out = 0;       ///< lines that were left out because there were too many of their kind
  /// (reason, count) with every reason present: "bad_signature", "rate_limited", "slow_receiver", "limit_ip", …
  std::vector<std::pair<std::string, std::uint64_t>> rejects;
  IrohRelayStats iroh;
  AuthStats auth;
};

/// A running relay and bootstrap server. It answers `GET /health`, `GET /bootstrap/<space>`, `PUT
/// /bootstrap/<space>/<agent>`, `PUT /authenticate`, and with a WebSocket `GET /<node key>` (docs/protocol-relay.md)
/// and `GET /relay` (docs/protocol-iroh.md). Thread rule: any thread, but only one at a time, and not from inside a
/// callback or destructor of another object of its runtime.
class RelayServer {
 public:
  /// Listens on `runtime`'s loop. The runtime must have been started and must outlive the server. Errors:
  /// Errc::invalid_argument (names the option), Errc::already_exists (the port is taken; names host:port), Errc::io (an
  /// address that is not this machine's; a TLS file, which is named).
  static Result<std::unique_ptr<RelayServer>> start(AsioRuntime& runtime, const RelayServerOptions& options);
  /// The same on a thread of its own.
  static Result<std::unique_ptr<RelayServer>> start(const RelayServerOptions& options);
  ~RelayServer();

  /// The first bound address, "host:port" with the actual port.
  const std::string& address() const;
  const std::vector<std::string>& addresses() const;
  bool uses_tls() const;
  /// "ws://host:port" or "wss://…", for the configuration of nodes. For a wildcard address: the loopback one.
  std::string relay_url() const;
  /// "http://host:port/relay" or "https://…", for nodes of dialect 0.5.
  std::string iroh_relay_url() const;
  /// "http://host:port" or "https://…".
  std::string bootstrap_url() const;
  /// For a node in this process that uses this server: connections through the door have no rate limit.
  std::shared_ptr<net::LocalDoor> local_door() const;
  /// A snapshot of the figures.
  RelayServerStats stats() const;
  /// The figures as Prometheus text, with metric names "kitsune2_relay_…".
  std::string metrics() const;
  /// Changes the options of the running server: certificate and key (read from the files in `options`),
  /// max_entries_per_space, prune_interval_ms, limit_clients, disable_rate_limiting, limit_ip_kbps,
  /// limit_ip_byte_burst, limit_idle_millis (for new clients), limit_ip_connections, limit_connections,
  /// relay_client_rx_bytes_per_second, relay_client_rx_burst_bytes. A lower limit
  /// closes nothing: it holds for new connections, and a lower rate or burst from 10 s on. Returns the names of other
  /// options that differ; they keep their value until a restart. Errors: those of `start`; nothing is changed then.
  Result<std::vector<std::string>> reload(const RelayServerOptions& options);
  /// Stops listening, so that newcomers are refused; closes all connections (WebSocket close 1001; a request under way
  /// is answered with 503), waits up to `patience` until the peers have gone, and drops the rest. Does not wait when
  /// called on the runtime's strand. No effect the second time. The destructor stops without patience.
  void stop(std::chrono::milliseconds patience = std::chrono::milliseconds(900));

 private:
  struct Impl;
  explicit RelayServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// `GET /metrics` and `GET /healthz` for operators. No TLS, no authentication: keep it on loopback or behind a proxy.
class AdminServer {
 public:
  /// Returns the Prometheus text for /metrics. Called on the runtime's strand.
  using Metrics = std::function<std::string()>;
  /// Whether the node is healthy (200) or not (503), and the text of /healthz. Called on the runtime's strand.
  struct Health {
    bool ok = true;
    std::string text = "ok\n";
  };

  /// `listen` without a host (":9100" or "9100") means loopback. Errors: those of `RelayServer::start`.
  static Result<std::unique_ptr<AdminServer>> start(AsioRuntime& runtime, const std::string& listen, Metrics metrics,
                                                    std::function<Health()> health = {});
  ~AdminServer();
  /// `kitsune2_build_info` and `process_…` as Prometheus text, to be appended to what `Metrics` returns. Any thread.
  static std::string process_metrics();
  const std::string& address() const;
  /// No effect the second time.
  void stop();

 private:
  struct Impl;
  explicit AdminServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kitsune2
