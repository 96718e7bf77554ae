// The tx5 transport, relay only: how this node meets stock kitsune2 0.2 nodes.
#pragma once

#include <memory>

#include "kitsune2/config.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/transport.hpp"

namespace kitsune2 {

class WsConnector;  // src/transport/ws.hpp

/// A backend that speaks tx5 0.4.0 over an sbd 0.1.0 relay, encrypted end to end, without WebRTC.
///
/// The own url is `<serverUrl>/<node key>`; the key is fresh for every connection to the relay, so the url changes when
/// the relay was lost. A peer's url is bound to the key that its encryption proves. While the relay is lost, sends
/// complete with Errc::disconnected and all connections are gone. It is tried again after 0.25 s, doubling to 8 s, and
/// sooner when `TransportBackend::on_server_answered` says that the line is up. A relay that hangs is noticed within
/// half a minute, in which it is asked for a sign of life, and counts as lost.
/// Peers on other relays are reached as the reference does it: through one more connection to their relay, kept
/// while it is used. docs/protocol-tx5.md has the details. Rust counterpart: `Tx5TransportFactory`.
///
/// Errc::invalid_config, naming the key: `serverUrl` is not a relay's url; it is ws:// and `signalAllowPlainText` is
/// not set; `timeoutS`, `messageSizeMax`, `maxQueueBytesPerPeer` or `maxPeers` out of range. `network`: the trust root
/// for wss. `runtime` must outlive the backend.
Result<std::unique_ptr<TransportBackend>> make_tx5_transport(Runtime& runtime, std::shared_ptr<WsConnector> connector,
                                                             const Tx5TransportConfig& config,
                                                             const NetworkConfig& network = {});

}  // namespace kitsune2
