// Configuration: Kitsune2's JSON, one camelCase section per module.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "kitsune2/error.hpp"
#include "kitsune2/fetch.hpp"

namespace kitsune2 {

/// Config section `corePublish`. Ours: 0.2.2 has no keys here.
struct CorePublishConfig {
  std::uint32_t max_ids_per_message = 4096;  ///< a longer publish is split
};

/// Config section `coreBootstrap` of 0.2.2.
struct CoreBootstrapConfig {
  /// "http://host:port" or "https://…". The default is a placeholder that must be replaced, as in 0.2.2.
  std::string server_url = "<https://your.bootstrap.url>";
  std::uint32_t backoff_min_ms = 5'000;
  std::uint32_t backoff_max_ms = 300'000;
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

/// Config section `tx5Transport` of 0.2.2 (webrtcConfig is accepted and ignored: relay only).
struct Tx5TransportConfig {
  std::string server_url = "<wss://your.sbd.url>";
  bool signal_allow_plain_text = false;
  std::uint32_t timeout_s = 60;
  // --- ours
  std::uint64_t message_size_max = 64U << 20;  ///< a larger incoming message is refused, its connection closed
  std::uint64_t max_queue_bytes_per_peer = 64U << 20;
  std::uint32_t max_peers = 4096;
  std::string tls_ca_file;  ///< extra trust root, PEM
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
/// JSON: `{"coreFetch":{…},"coreBootstrap":{…},…}`. Unknown sections are kept and handed back (applications add their
/// own); an unknown key inside a known section, a wrong type or a value out of range is Errc::invalid_config naming the
/// key
/// ("coreFetch.parallelRequestCount: …").
struct Config {
  CoreFetchConfig core_fetch;
  CorePublishConfig core_publish;
  CoreBootstrapConfig core_bootstrap;
  CoreSpaceConfig core_space;
  MemBootstrapConfig mem_bootstrap;
  Tx5TransportConfig tx5_transport;
  K2GossipConfig k2_gossip;
  /// Sections of the application, as one JSON object text.
  std::string application = "{}";

  static Config defaults() { return {}; }
  /// Defaults, overlaid with `json`.
  static Result<Config> parse(std::string_view json);
  static Result<Config> load_file(const std::string& path);
  /// Checks the ranges of all sections.
  Result<void> validate() const;
  /// Pretty JSON with every key.
  std::string to_json() const;
  /// JSON schema (draft 2020-12) of the above.
  static std::string json_schema();
};

}  // namespace kitsune2
