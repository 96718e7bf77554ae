// Configuration: Kitsune2's JSON, one camelCase section per module.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "kitsune2/dialect.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2 {

/// Config section `coreFetch`. The first five keys, their defaults and JSON names are kitsune2 0.2.2's.
struct CoreFetchConfig {
  /// How many requests (messages) may be under way to one peer at once. 1..255.
  std::uint32_t parallel_request_count = 2;
  /// An op that was asked for and has not come after this long is overdue and is asked for again, from its next source
  /// if it has one. ms, 1..86'400'000.
  std::uint32_t re_insert_outgoing_request_delay_ms = 2'000;
  /// First and longest back-off of an unresponsive peer, ms; the interval doubles in between.
  std::uint32_t first_back_off_interval_ms = 20'000;
  std::uint32_t last_back_off_interval_ms = 600'000;
  /// How many intervals until the peer's requests are dropped. 1..64.
  std::uint32_t num_back_off_intervals = 4;

  // --- ours; no counterpart in 0.2.2
  /// Request messages that may be under way to one peer that is far away, and the bytes that they ask for: as many as
  /// its round trip and its rate call for. A parallel_request_count other than its default is obeyed as it is.
  std::uint32_t max_parallel_request_count = 1024;
  std::uint64_t max_window_bytes = 32U << 20;
  /// Most op ids in a request message (never over 15 KiB of them: it needs no permit), and the payload it aims at.
  std::uint32_t max_ids_per_request = 512;
  std::uint32_t target_request_bytes = 4U << 20;
  /// Most payload bytes in one response message; a larger answer is sent as several.
  std::uint32_t max_response_bytes = 4U << 20;
  /// The same for ops over 15 KiB to a peer so far away that waiting for the permit of such a message would take much
  /// of the time. No more than max_response_bytes, if that is not at its default.
  std::uint32_t max_far_response_bytes = 32U << 20;
  /// Requests (messages) from one peer that may wait for an answer; more are dropped and counted. The memory for them
  /// is bounded, too. Large, since a stock node asks for each op in a message of its own, for all of them at once, and
  /// from 0.3 on only once.
  std::uint32_t max_incoming_requests_per_peer = 16'384;
  /// Pending (op, peer) pairs, in all and of one peer; `request_ops` beyond it is Errc::overloaded and adds nothing.
  std::uint64_t max_pending = 50'000'000;
  std::uint64_t max_pending_per_peer = 10'000'000;
  /// Memory for requests that peers caused by publish and gossip, bytes; see FetchLoad. What would go beyond it is not
  /// taken, and of one peer not what would be more than a quarter of what the others leave. *Rationale*: offers cost a
  /// peer nothing. The application's own requests are bounded by max_pending only.
  std::uint64_t max_offered_bytes = 1U << 30;
  /// Store ops that were not asked for, as kitsune2 0.2.2 does. Off: they are rejected and counted.
  bool accept_unsolicited = false;
  /// Keep open requests in the op store, so that they survive a restart. No effect with a store that is not durable
  /// (`OpStore::is_durable`): there they would only take memory.
  bool persist_pending = true;
};

/// Config section `corePublish`. Ours: 0.2.2 has no keys here.
struct CorePublishConfig {
  std::uint32_t max_ids_per_message = 4096;  ///< a longer publish is split
};

/// Config section `peerBudget`. Ours: how much work one peer, one address and all newcomers together may cause, in
/// milliseconds of one core a second, and how much at once. What turns out useful is given back. See `PeerBudget`.
struct PeerBudgetConfig {
  std::uint32_t peer_ms_per_second = 100;
  std::uint32_t peer_burst_ms = 5'000;
  std::uint32_t group_ms_per_second = 200;
  std::uint32_t group_burst_ms = 20'000;
  std::uint32_t newcomers_ms_per_second = 250;
  std::uint32_t newcomers_burst_ms = 20'000;
  /// How long who goes on over its budget is put aside; doubled each time, up to the longest.
  std::uint32_t first_aside_ms = 60'000;
  std::uint32_t longest_aside_ms = 3'600'000;
};

/// Config section `coreBootstrap` of 0.2.2.
struct CoreBootstrapConfig {
  /// "http://host:port" or "https://…". The default is a placeholder that must be replaced, as in 0.2.2.
  std::string server_url = "<https://your.bootstrap.url>";
  std::uint32_t backoff_min_ms = 5'000;
  std::uint32_t backoff_max_ms = 300'000;
  // --- ours
  std::uint32_t max_response_bytes = 1U << 20;  ///< a longer answer of the server is refused
  /// How long a stop waits for the server to take the last infos, the tombstones of agents that leave.
  std::uint32_t stop_patience_ms = 2'000;
};

/// Config section `coreSpace` of 0.2.2.
struct CoreSpaceConfig {
  std::uint32_t re_sign_freq_ms = 60'000;
  std::uint32_t re_sign_expire_time_ms = 300'000;
};

/// Config section `memBootstrap` of 0.2.2.
struct MemBootstrapConfig {
  std::string test_id = "default";
  std::uint32_t poll_freq_ms = 5'000;
};

/// Config section `network`. Ours: what holds for every connection of the node, whatever the transport.
struct NetworkConfig {
  /// What the node speaks. One that this version cannot speak (`is_built`) is refused.
  Dialect dialect = Dialect::v0_2;
  std::string tls_ca_file;  ///< extra trust root, PEM, for relays and bootstrap servers with TLS
};

/// The values that a number of the configuration may have, ends included.
struct KeyRange {
  std::uint64_t least = 0, most = 0;
  constexpr bool contains(std::uint64_t value) const { return least <= value && value <= most; }
};

/// Config section `tx5Transport` of 0.2.2. What concerns WebRTC is accepted, kept and has no effect: relay only.
struct Tx5TransportConfig {
  static constexpr KeyRange kTimeoutS{1, 86'400};
  static constexpr KeyRange kMessageSizeMax{16'384, 1U << 29};
  static constexpr KeyRange kMaxQueueBytesPerPeer{16'384, 1ULL << 40};
  static constexpr KeyRange kMaxPeers{1, 1U << 20};

  std::string server_url = "<wss://your.sbd.url>";
  bool signal_allow_plain_text = false;
  std::uint32_t timeout_s = 60;
  std::string webrtc_config = R"({"iceServers":[],"iceTransportPolicy":"All"})";  ///< a JSON object
  bool tracing_enabled = false;
  std::optional<std::uint32_t> ephemeral_udp_port_min, ephemeral_udp_port_max;
  // --- ours
  std::uint64_t message_size_max = 64U << 20;  ///< a larger incoming message is refused, its connection closed
  std::uint64_t max_queue_bytes_per_peer = 64U << 20;
  std::uint32_t max_peers = 4096;
};

/// Config section `k2Gossip` of 0.2.2.
struct K2GossipConfig {
  std::uint32_t max_gossip_op_bytes = 100U << 20;
  std::uint32_t max_request_gossip_op_bytes = 100U << 20;
  std::uint32_t initial_initiate_interval_ms = 5'000;
  std::uint32_t initiate_interval_ms = 120'000;
  std::uint32_t initiate_jitter_ms = 10'000;
  std::uint32_t min_initiate_interval_ms = 300'000;
  std::uint32_t round_timeout_ms = 15'000;
  std::uint32_t max_concurrent_accepted_rounds = 10;
};

/// A node's whole configuration. A value; sections are plain structs.
/// JSON: `{"coreFetch":{…},"coreBootstrap":{…},…}`, UTF-8, no comments. docs/configuration.md lists every key.
///
/// *Rules*. C1: unknown sections are kept and returned (applications add their own), unless their name is two letters
/// or less from a known one. C2: an unknown key inside a known section, a key given twice, a wrong type or a value out
/// of range is Errc::invalid_config naming the key ("coreFetch.parallelRequestCount: …") and, for an unknown one, the
/// nearest that exists. *Rationale*: a misspelt key that is ignored is found months later.
struct Config {
  CoreFetchConfig core_fetch;
  CorePublishConfig core_publish;
  PeerBudgetConfig peer_budget;
  CoreBootstrapConfig core_bootstrap;
  CoreSpaceConfig core_space;
  MemBootstrapConfig mem_bootstrap;
  NetworkConfig network;
  Tx5TransportConfig tx5_transport;
  K2GossipConfig k2_gossip;
  /// Sections of the application, as one JSON object text.
  std::string application = "{}";

  /// Longest JSON text that is taken, in bytes, and how deep it may be nested.
  static constexpr std::size_t kMaxJsonBytes = 1U << 20;
  static constexpr int kMaxJsonDepth = 32;

  static Config defaults() { return {}; }
  /// Defaults, overlaid with `json`.
  static Result<Config> parse(std::string_view json);
  /// The same from a file. Errors name the path.
  static Result<Config> load_file(const std::string& path);
  /// This configuration, overlaid with `json`.
  Result<Config> overlaid(std::string_view json) const;
  /// Checks the ranges of all sections, and that urls are urls. A placeholder url passes: whether one is needed is
  /// known to the module that is built (`Builder::build`).
  Result<void> validate() const;
  /// Pretty JSON with every key.
  std::string to_json() const;
  /// JSON schema (draft 2020-12) of the above.
  static std::string json_schema();
  /// The tables of docs/configuration.md.
  static std::string reference_markdown();
};

/// The configuration of a running node, and how it is changed. Strand only.
/// Rust counterpart: `Config::set_module_config` and `register_entry_update_cb`. Unlike there, a change of a key that
/// nobody would hear is an error and not only a warning; docs/configuration.md marks the keys that can change.
class RuntimeConfig {
 public:
  explicit RuntimeConfig(Config initial = {});
  ~RuntimeConfig();
  RuntimeConfig(const RuntimeConfig&) = delete;
  RuntimeConfig& operator=(const RuntimeConfig&) = delete;

  const Config& current() const { return current_; }
  /// Applies `json` over the current configuration and calls back for each key whose value changed, in the order of
  /// registration, after all have been set. All or nothing: Errc::invalid_config naming the key that is wrong, or that
  /// differs and cannot change while the node runs. Sections of the application may always change.
  Result<void> update(std::string_view json);
  /// Calls `callback` now, inside this call, and after every change of `key` ("k2Gossip.initiateIntervalMs"; a section
  /// name for all of its keys) until the returned subscription is dropped. Null for a key that does not exist or cannot
  /// change.
  std::shared_ptr<void> on_update(std::string_view key, std::function<void(const Config&)> callback);

 private:
  struct Subscriptions;
  Config current_;
  std::shared_ptr<Subscriptions> subscriptions_;
};

}  // namespace kitsune2
