// The transport over the relay in a configuration.
#include "node/builder/relay_transport.hpp"

#include <sodium.h>

#include <array>
#include <utility>

#include "core/relay_url.hpp"
#include "kitsune2/dialect.hpp"
#include "kitsune2/transport_iroh.hpp"
#include "node/bootstrap/relay_access.hpp"
#include "node/bootstrap/token_client.hpp"
#include "node/builder/store_paths.hpp"
#include "node/config/config_table.hpp"
#include "transport/iroh/built.hpp"
#include "transport/iroh/endpoint_url.hpp"
#include "transport/tx5/peer_addresses.hpp"
#include "transport/tx5/tx5_transport.hpp"
#include "wire/key_file.hpp"

namespace kitsune2 {

namespace {

bool over_iroh(const Config& config) { return uses_iroh(config.network.spoken()); }

/// The endpoint's key: one for each start, as in the reference, unless it is to be kept.
Result<std::array<std::uint8_t, 32>> endpoint_seed(Runtime& strand, const Config& config, const std::string& data_dir) {
  if (config.iroh_transport.keep_endpoint_key && !data_dir.empty()) return load_or_create_seed(node_key_path(data_dir));
  std::array<std::uint8_t, 32> seed{};
  strand.random_bytes(seed);
  return seed;
}

/// Null: the relay is open to everyone.
RelayAccess access_to_relay(Runtime& strand, const Config& config,
                            const std::function<std::shared_ptr<HttpClient>(TlsOptions)>& http_client) {
  const auto& material = config.iroh_transport.auth_material_relay_base64;
  const auto relay = iroh::relay_of(config.iroh_transport);
  if (!material || !relay) return nullptr;  // without a relay there will be no transport
  TlsOptions tls;
  tls.ca_file = config.network.tls_ca_file;
  RelayAccessOptions options;
  options.server = (relay->uses_tls() ? "https://" : "http://") + std::string(relay->addr());
  options.material = auth_material(*material).value();  // the configuration was checked
  options.interval = std::chrono::seconds(config.iroh_transport.relay_keepalive_interval_s);
  options.has_keepalive = offers_relay_v2(config.network.spoken());  // it came with that version
  return make_relay_access(strand, http_client(std::move(tls)), std::move(options));
}

}  // namespace

bool names_relay(const Config& config) {
  return over_iroh(config) ? config.iroh_transport.relay_url.has_value()
                           : !config_table::is_placeholder(config.tx5_transport.server_url);
}

Result<Url> relay_of(const Config& config) {
  if (over_iroh(config)) return iroh::relay_of(config.iroh_transport);
  auto url = canonical_relay_url(config.tx5_transport.server_url);
  if (!url) return url.error().context("tx5Transport.serverUrl");
  return url;
}

void set_relay(Config& config, const Url& relay, bool plain_text) {
  const bool allow = plain_text && !relay.uses_tls();
  if (over_iroh(config)) {
    config.iroh_transport.relay_url = relay.to_string();
    if (allow) config.iroh_transport.relay_allow_plain_text = true;
  } else {
    config.tx5_transport.server_url = relay.to_string();
    if (allow) config.tx5_transport.signal_allow_plain_text = true;
  }
}

Result<void> check_relay(const Config& config) {
  auto relay = over_iroh(config) ? iroh::relay_of(config.iroh_transport) : tx5::relay_of(config.tx5_transport);
  return relay ? Result<void>() : relay.error();
}

void use_relay_transport(Builder& builder, std::function<std::shared_ptr<WsConnector>()> connector,
                         std::function<std::shared_ptr<HttpClient>(TlsOptions)> http_client, std::string data_dir,
                         std::shared_ptr<UdpBinder> binder, std::function<std::uint64_t(const Url&)> usefulness) {
  // What a relay inside the node knows about its peers' addresses.
  const auto addresses = std::make_shared<tx5::PeerAddresses>();
  builder.address_group = [addresses](const Url& peer) { return addresses->group_of(peer); };
  builder.transport = [connector = std::move(connector), http_client = std::move(http_client),
                       usefulness = std::move(usefulness), data_dir = std::move(data_dir), binder = std::move(binder),
                       addresses](Runtime& strand, const Config& c) -> Result<std::unique_ptr<TransportBackend>> {
    if (over_iroh(c)) {
      auto seed = endpoint_seed(strand, c, data_dir);
      if (!seed) return seed.error();
      auto made = iroh::make_transport_of_node(strand, connector(), c, *seed, access_to_relay(strand, c, http_client),
                                               binder, {addresses, usefulness});
      sodium_memzero(seed->data(), seed->size());
      return made;
    }
    auto made = tx5::Tx5Transport::create(strand, connector(), c.tx5_transport, tx5::LinkLimits{}, c.network);
    if (!made) return made.error();
    (*made)->note_addresses(addresses);
    if (usefulness) (*made)->judge_by(usefulness);
    return std::unique_ptr<TransportBackend>(std::move(*made));
  };
}

}  // namespace kitsune2
