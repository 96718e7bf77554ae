// The relay in a configuration, and the transport over it. This is the only place of a node that knows which transport
// its dialect uses.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "kitsune2/builder.hpp"
#include "kitsune2/http.hpp"
#include "transport/udp.hpp"
#include "transport/ws.hpp"

namespace kitsune2 {

/// Whether a relay has been set; by default there is none.
bool names_relay(const Config& config);
/// The relay that is set. Errc::invalid_config names the key.
Result<Url> relay_of(const Config& config);
/// Sets the relay. `plain_text`: even one without TLS, which the configuration alone does not allow.
void set_relay(Config& config, const Url& relay, bool plain_text);

/// Checks whether the transport can be made. Errc::invalid_config names the key.
Result<void> check_relay(const Config& config);
/// Gives `builder` the transport of its configuration's dialect, over the relay that is set, and that transport's
/// knowledge of where peers come from (`address_group`). `http_client`: for a relay that asks for authentication.
/// `data_dir`: where a key of the endpoint is kept, if one is; empty: none is. `binder`: opens sockets for direct
/// paths; null: there are none. `usefulness`: what a peer is worth when the node has as many connections as it may;
/// null: all are equal.
void use_relay_transport(Builder& builder, std::function<std::shared_ptr<WsConnector>()> connector,
                         std::function<std::shared_ptr<HttpClient>(TlsOptions)> http_client, std::string data_dir,
                         std::shared_ptr<UdpBinder> binder,
                         std::function<std::uint64_t(const Url&)> usefulness = nullptr);

}  // namespace kitsune2
