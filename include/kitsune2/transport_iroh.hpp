// The iroh transport: how this node communicates with stock kitsune2 0.4 and 0.5 nodes.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "kitsune2/config.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/transport.hpp"

namespace kitsune2 {

class UdpBinder;    // src/transport/udp.hpp
class WsConnector;  // src/transport/ws.hpp

/// How an endpoint gets the right to use a relay that asks for authentication. Called on the strand before each
/// connection to the relay. `endpoint`: its public key. `refused`: the relay has refused what was given last. `done`
/// must be called once: with the token to present (empty: none), or with the reason why there is none; then the relay
/// is tried again later, as if it had refused the connection.
using RelayAccess =
    std::function<void(const std::array<std::uint8_t, 32>& endpoint, bool refused, Handler<std::string> done)>;

/// A backend that speaks the frames of kitsune2 0.4 and 0.5 over QUIC (TLS 1.3 with raw public keys) through an iroh
/// relay, protocol versions 1 and 2.
///
/// The node's url is `<relayUrl>/<endpoint id>`, where the id is the public key of `key_seed` in hexadecimal. It stays
/// the same when the relay was lost and is back. A peer's url is bound to the key that its connection proves. All peers
/// must be on the same relay, written in the same way. Without the relay a message to a peer that is not connected
/// completes with Errc::disconnected; connections outlive an interruption of less than a minute. The relay is tried
/// again after 0.25 s, doubling to 8 s, and sooner when `TransportBackend::on_server_answered` reports that the network
/// works. Details: docs/protocol-iroh.md. Rust counterpart: `IrohTransportFactory`.
///
/// `key_seed`: 32 bytes from which the endpoint's Ed25519 key is made; whoever has them can be this endpoint. A fresh
/// one for each start is what the reference uses.
///
/// `access`: null if the relay is open to everyone.
///
/// `binder`: for direct paths (`directPaths`), which only nodes of this implementation have among each other; null:
/// none, whatever the configuration says. If the socket cannot be opened, everything goes through the relay, and the
/// log says why.
///
/// Errc::invalid_config names the key: `relayUrl` is not set or is not a relay's url, or is not encrypted without
/// `relayAllowPlainText`; a number is out of range. Errc::unsupported: the TLS library has no Ed25519, or the library
/// was built without QUIC. `network` has the trust root for TLS, and the dialect (0.5, if it is set to one that does
/// not use iroh). `runtime` must outlive the backend.
Result<std::unique_ptr<TransportBackend>> make_iroh_transport(Runtime& runtime, std::shared_ptr<WsConnector> connector,
                                                              const IrohTransportConfig& config,
                                                              const std::array<std::uint8_t, 32>& key_seed,
                                                              const NetworkConfig& network = {},
                                                              RelayAccess access = nullptr,
                                                              std::shared_ptr<UdpBinder> binder = nullptr);

}  // namespace kitsune2
