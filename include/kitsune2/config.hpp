// Configuration: Kitsune2's JSON, with one camelCase section per module.
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

/// Config section `coreFetch`. The first five keys have the JSON names and defaults of kitsune2 0.2.2.
struct CoreFetchConfig {
  /// How many requests (messages) may be under way to one peer at a time. 1..255.
  std::uint32_t parallel_request_count = 2;
  /// An op that was requested and has not arrived after this time is overdue and is requested again, from its next
  /// source if there is one. ms, 1..86'400'000.
  std::uint32_t re_insert_outgoing_request_delay_ms = 2'000;
  /// The first and the longest back-off of an unresponsive peer, in ms; the interval doubles in between.
  std::uint32_t first_back_off_interval_ms = 20'000;
  std::uint32_t last_back_off_interval_ms = 600'000;
  /// After how many intervals the peer's requests are dropped. 1..64.
  std::uint32_t num_back_off_intervals = 4;

  // --- ours; no counterpart in 0.2.2
  /// How many request messages may be under way to one distant peer, and how many bytes they may request; its round
  /// trip and rate decide how many are. A parallel_request_count other than the default is obeyed as it is.
  std::uint32_t max_parallel_request_count = 1024;
  std::uint64_t max_window_bytes = 32U << 20;
  /// The most op ids in a request (never over 15 KiB of them: that needs no permit), and the payload it aims at.
  std::uint32_t max_ids_per_request = 512;
  std::uint32_t target_request_bytes = 4U << 20;
  /// The most payload bytes in one response message; a larger answer is sent as several.
  std::uint32_t max_response_bytes = 4U << 20;
  /// The same for ops over 15 KiB to a peer so distant that waiting for the permits of such messages would take much of
  /// the time. No more than max_response_bytes, if that is not at its default.
  std::uint32_t max_far_response_bytes = 32U << 20;
  /// How many requests (messages) of one peer may wait for an answer; more are dropped and counted. Their memory is
  /// bounded as well. The number is large because a stock node sends one message per op, all at the same time, and from
  /// 0.3 on only once.
  std::uint32_t max_incoming_requests_per_peer = 16'384;
  /// The most pending (op, peer) pairs, in total and per peer. `request_ops` beyond it: Errc::overloaded, adds nothing.
  std::uint64_t max_pending = 50'000'000;
  std::uint64_t max_pending_per_peer = 10'000'000;
  /// The memory, in bytes, for requests that peers caused by publish and gossip; see FetchLoad. Offers beyond it are
  /// not accepted, nor those of one peer beyond a quarter of what the others leave, nor those of newcomers beyond a
  /// fifth together. *Rationale*: offers cost a peer nothing. The application's own: max_pending only.
  std::uint64_t max_offered_bytes = 1U << 30;
  /// Whether to store ops that were not requested, as kitsune2 0.2.2 does. False: they are rejected and counted.
  bool accept_unsolicited = false;
  /// Whether to keep open requests in the op store, so that they survive a restart. No effect with a store that is not
  /// durable (`OpStore::is_durable`), where they would only take memory.
  bool persist_pending = true;
};

/// Config section `corePublish`. 0.2.2 has no keys here.
struct CorePublishConfig {
  std::uint32_t max_metadata_bytes = 1024;   ///< of one op, published or received; `PublishOp`
  std::uint32_t max_ids_per_message = 4096;  ///< a longer publish is split
};

/// Config section `peerBudget`, ours: how much work one peer, one address group and all newcomers together may cause,
/// in milliseconds of one core per second, and in one burst. What turns out useful is given back. See `PeerBudget`.
struct PeerBudgetConfig {
  std::uint32_t peer_ms_per_second = 100;
  std::uint32_t peer_burst_ms = 5'000;
  std::uint32_t group_ms_per_second = 200;
  std::uint32_t group_burst_ms = 20'000;
  std::uint32_t newcomers_ms_per_second = 250;
  std::uint32_t newcomers_burst_ms = 20'000;
  /// How long a peer that goes on over its budget is put aside; doubles with each repetition, up to the longest.
  std::uint32_t first_aside_ms = 60'000;
  std::uint32_t longest_aside_ms = 3'600'000;
};

/// Config section `coreBootstrap` of 0.2.2.
struct CoreBootstrapConfig {
  /// "http://host:port" or "https://…". As in 0.2.2, the default is a placeholder that must be replaced.
  std::string server_url = "<https://your.bootstrap.url>";
  std::uint32_t backoff_min_ms = 5'000;
  std::uint32_t backoff_max_ms = 300'000;
  /// What the server's authentication asks for, in base64 with padding; nullopt: it asks for nothing. Of 0.5.3.
  std::optional<std::string> auth_material_base64;
  // --- ours
  std::uint32_t max_response_bytes = 1U << 20;  ///< a longer answer of the server is refused
  /// How long `stop` waits for the server to accept the last infos, the tombstones of agents that leave.
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

/// Config section `network`, ours: settings for every connection of the node, whatever the transport.
struct NetworkConfig {
  /// The dialect that the node speaks. Not set: a `Node` chooses as NodeOptions::dialect says; modules that are put
  /// together without a `Node` speak 0.2.
  std::optional<Dialect> dialect = {};
  Dialect spoken() const { return dialect.value_or(Dialect::v0_2); }
  std::string tls_ca_file;  ///< extra trust root, PEM, for relays and bootstrap servers with TLS
};

/// The values that a number in the configuration may have, both ends included.
struct KeyRange {
  std::uint64_t least = 0, most = 0;
  constexpr bool contains(std::uint64_t value) const { return least <= value && value <= most; }
  /// What is wrong with `value`; empty: nothing.
  std::string fault(std::uint64_t value) const;
};

/// Config section `tx5Transport` of 0.2.2. The keys for WebRTC are accepted and kept without effect: relay only.
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
  std::uint64_t message_size_max = 64U << 20;  ///< a larger incoming message is refused and its connection closed
  std::uint64_t max_queue_bytes_per_peer = 64U << 20;
  std::uint32_t max_peers = 4096;
};

/// Config section `irohTransport` of 0.5.3, for the dialects that use iroh.
struct IrohTransportConfig {
  static constexpr KeyRange kMaxFrameBytes{16'384, 1U << 29};
  static constexpr KeyRange kConnectTimeoutS{1, 86'400};
  static constexpr KeyRange kMaxQueueBytesPerPeer{16'384, 1ULL << 40};
  static constexpr KeyRange kMaxPeers{1, 1U << 20};

  /// "https://host:port/path" of the relay, as all peers write it. In the reference null means the public relays of a
  /// third party; here it is an error to build a node of such a dialect without it.
  std::optional<std::string> relay_url;
  bool relay_allow_plain_text = false;
  std::uint64_t max_frame_bytes = 100U << 20;  ///< a larger frame of a peer is refused with the stream that brings it
  std::uint32_t connect_timeout_s = 60;
  /// What the authentication of the relay's server asks for, in base64 with padding; nullopt: it asks for nothing.
  std::optional<std::string> auth_material_relay_base64;
  std::uint32_t relay_keepalive_interval_s = 120;  ///< no effect without auth material
  // --- ours
  std::uint64_t max_queue_bytes_per_peer = 64U << 20;
  std::uint32_t max_peers = 4096;
  /// Whether the endpoint's key, and with it the node's url, is the same at each start: it is kept in the data folder,
  /// in "node.key" (0600). False: a fresh one for each start, as in the reference. No effect without a data folder.
  bool keep_endpoint_key = false;
  /// Whether datagrams to other nodes of this kind go by UDP where that works, beside the relay. Peers that have been
  /// heard in a common space are told this node's addresses then. False: no UDP socket is opened.
  bool direct_paths = true;
  /// "host:port" of the UDP socket, the host an address. Null: all addresses (loopback, if the relay is on loopback)
  /// and a free port.
  std::optional<std::string> direct_bind_address;
  /// "host:port" under which the socket is reached from outside, for example at a port that a router forwards.
  std::optional<std::string> direct_external_address;
};

/// Config section `k2Gossip` of 0.2.2.
struct K2GossipConfig {
  std::uint32_t max_gossip_op_bytes = 100U << 20;
  std::uint32_t max_request_gossip_op_bytes = 100U << 20;
  std::optional<std::uint32_t> initial_initiate_interval_ms;  ///< nullopt: 5'000 in dialect 0.2, 1'000 in later ones
  std::uint32_t initiate_interval_ms = 120'000;
  std::uint32_t initiate_jitter_ms = 10'000;
  std::uint32_t min_initiate_interval_ms = 300'000;
  /// A peer may start `factor` * `window_count` rounds in `window_count` times the initiate interval. From 0.2.8 on.
  std::uint32_t initiate_burst_factor = 3;
  std::uint32_t initiate_burst_window_count = 5;
  std::uint32_t round_timeout_ms = 15'000;
  std::uint32_t max_concurrent_accepted_rounds = 10;
};

/// A node's whole configuration, a value made of plain structs. JSON: `{"coreFetch":{…},"coreBootstrap":{…},…}`, UTF-8,
/// no comments. docs/configuration.md lists every key.
///
/// *Rules*.
///  C1  Unknown sections are kept and returned, because applications add their own, unless the name differs from a
///      known one by at most two letters.
///  C2  An unknown key in a known section, a duplicate key, a wrong type or a value out of range is
///      Errc::invalid_config. The message names the key ("coreFetch.parallelRequestCount: …") and, if it is unknown,
///      the nearest known one. *Rationale*: a misspelt key that is ignored is found months later.
///  C3  The values in the section of a transport that the dialect does not use are not judged, as long as they have the
///      right type. *Rationale*: one file may serve nodes of several dialects. If the dialect is not set, `parse`,
///      `load_file` and `overlaid` judge neither of the two, since the node's folder may decide: `Node::start` judges
///      the one that it uses. `validate` judges both.
struct Config {
  CoreFetchConfig core_fetch;
  CorePublishConfig core_publish;
  PeerBudgetConfig peer_budget;
  CoreBootstrapConfig core_bootstrap;
  CoreSpaceConfig core_space;
  MemBootstrapConfig mem_bootstrap;
  NetworkConfig network;
  Tx5TransportConfig tx5_transport;
  IrohTransportConfig iroh_transport;
  K2GossipConfig k2_gossip;
  /// The sections of the application, as the text of one JSON object.
  std::string application = "{}";

  /// The longest JSON text that is accepted, in bytes, and the deepest nesting.
  static constexpr std::size_t kMaxJsonBytes = 1U << 20;
  static constexpr int kMaxJsonDepth = 32;

  static Config defaults() { return {}; }
  /// The defaults, overlaid with `json`.
  static Result<Config> parse(std::string_view json);
  /// The same from a file. Errors name the path.
  static Result<Config> load_file(const std::string& path);
  /// This configuration, overlaid with `json`.
  Result<Config> overlaid(std::string_view json) const;
  /// Checks the ranges of all sections, and that urls are urls. Accepts a placeholder url: only the module that is
  /// built knows whether it needs one (`Builder::build`).
  Result<void> validate() const;
  /// Pretty JSON with every key.
  std::string to_json() const;
  /// JSON schema (draft 2020-12) of the above.
  static std::string json_schema();
  /// The tables of docs/configuration.md.
  static std::string reference_markdown();
};

/// The configuration of a running node, and how to change it. Strand only. Rust counterpart:
/// `Config::set_module_config` and `register_entry_update_cb`. Unlike there, changing a key that no module would notice
/// is an error, not only a warning. docs/configuration.md marks the keys that can change.
class RuntimeConfig {
 public:
  explicit RuntimeConfig(Config initial = {});
  ~RuntimeConfig();
  RuntimeConfig(const RuntimeConfig&) = delete;
  RuntimeConfig& operator=(const RuntimeConfig&) = delete;

  const Config& current() const { return current_; }
  /// Applies `json` over the current configuration and then calls back for each key whose value changed, in the order
  /// of registration. All or nothing: Errc::invalid_config names the key that is wrong, or that differs and cannot
  /// change while the node runs. Sections of the application can always change.
  Result<void> update(std::string_view json);
  /// Calls `callback` now, within this call, and after every change of `key` ("k2Gossip.initiateIntervalMs"; a section
  /// name for all its keys) until the returned subscription is dropped. Returns null for a key that does not exist or
  /// cannot change.
  std::shared_ptr<void> on_update(std::string_view key, std::function<void(const Config&)> callback);

 private:
  struct Subscriptions;
  Config current_;
  std::shared_ptr<Subscriptions> subscriptions_;
};

}  // namespace kitsune2
