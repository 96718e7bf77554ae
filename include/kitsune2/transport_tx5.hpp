// The tx5 transport, relay only: how this node communicates with stock kitsune2 0.2 nodes.
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
/// The node's url is `<serverUrl>/<node key>`. The key is fresh for every connection to the relay, so the url changes
/// when the relay was lost. A peer's url is bound to the key that its encryption proves. Losing the relay closes all
/// connections, and sends complete with Errc::disconnected. The relay is tried again after 0.25 s, doubling to 8 s, and
/// sooner when `TransportBackend::on_server_answered` reports that the network works. A relay that hangs is pinged, and
/// counts as lost within half a minute. Peers on other relays are reached as in the reference: by an additional
/// connection to their relay, which is kept while it is used. Details: docs/protocol-tx5.md. Rust counterpart:
/// `Tx5TransportFactory`.
///
/// Errc::invalid_config names the key: `serverUrl` is not the url of a relay, or is ws:// without
/// `signalAllowPlainText`; `timeoutS`, `messageSizeMax`, `maxQueueBytesPerPeer` or `maxPeers` is out of range.
/// `network` has the trust root for wss. `runtime` must outlive the backend.
Result<std::unique_ptr<TransportBackend>> make_tx5_transport(Runtime& runtime, std::shared_ptr<WsConnector> connector,
                                                             const Tx5TransportConfig& config,
                                                             const NetworkConfig& network = {});

}  // namespace kitsune2
