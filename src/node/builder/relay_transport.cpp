// The transport over the relay in a configuration.
#include "node/builder/relay_transport.hpp"

#include <utility>

#include "core/relay_url.hpp"
#include "node/config/config_table.hpp"
#include "transport/tx5/peer_addresses.hpp"
#include "transport/tx5/tx5_transport.hpp"

namespace kitsune2 {

// tx5 is the only transport that is built; the configuration refuses other dialects.

bool names_relay(const Config& config) { return !config_table::is_placeholder(config.tx5_transport.server_url); }

Result<Url> relay_of(const Config& config) {
  auto url = canonical_relay_url(config.tx5_transport.server_url);
  if (!url) return url.error().context("tx5Transport.serverUrl");
  return url;
}

void set_relay(Config& config, const Url& relay, bool plain_text) {
  config.tx5_transport.server_url = relay.to_string();
  if (plain_text && !relay.uses_tls()) config.tx5_transport.signal_allow_plain_text = true;
}

Result<void> check_relay(const Config& config) {
  auto relay = tx5::relay_of(config.tx5_transport);
  return relay ? Result<void>() : relay.error();
}

void use_relay_transport(Builder& builder, std::function<std::shared_ptr<WsConnector>()> connector,
                         std::function<std::uint64_t(const Url&)> usefulness) {
  // What a relay inside the node knows about its peers' addresses.
  const auto addresses = std::make_shared<tx5::PeerAddresses>();
  builder.address_group = [addresses](const Url& peer) { return addresses->group_of(peer); };
  builder.transport = [connector = std::move(connector), usefulness = std::move(usefulness), addresses](
                          Runtime& strand, const Config& c) -> Result<std::unique_ptr<TransportBackend>> {
    auto made = tx5::Tx5Transport::create(strand, connector(), c.tx5_transport, tx5::LinkLimits{}, c.network);
    if (!made) return made.error();
    (*made)->note_addresses(addresses);
    if (usefulness) (*made)->judge_by(usefulness);
    return std::unique_ptr<TransportBackend>(std::move(*made));
  };
}

}  // namespace kitsune2
