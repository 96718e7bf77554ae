// The real WsConnector: WebSocket over TCP or TLS.
#pragma once

#include <memory>
#include <string>

#include "net/local_conn.hpp"
#include "transport/ws.hpp"

namespace kitsune2 {

class AsioRuntime;

/// `runtime` must outlive the connector and its connections. Sent bytes are copied once (into the masked frame).
/// Received messages of 4 KiB and more are slices of the read buffer, so make a compact copy of whatever is kept for
/// long. Errors in on_close: Errc::invalid_argument (the url), Errc::peer_unresponsive (resolve, connect, TLS, upgrade;
/// the message says which, and why), Errc::timed_out (handshake), Errc::too_large, Errc::peer_fault (broken frames),
/// Errc::disconnected (closed by the peer, with its reason), Errc::cancelled.
std::unique_ptr<WsConnector> make_ws_connector(AsioRuntime& runtime);

/// The same, but urls that begin with `origin` ("ws://host:port", as the caller writes it) use `door`, even wss ones: a
/// connection inside the process needs no TLS.
std::unique_ptr<WsConnector> make_ws_connector(AsioRuntime& runtime, std::string origin,
                                               std::shared_ptr<net::LocalDoor> door);

}  // namespace kitsune2
