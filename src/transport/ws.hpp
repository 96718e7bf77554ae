// WebSocket as the transports over relays use it. Implemented over sockets in src/net, and in virtual time for tests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kitsune2/bytes.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2 {

/// The events of a WebSocket connection. Called on the runtime's strand, never from within a call to the connection.
struct WsHandlers {
  std::function<void()> on_open;
  std::function<void(Bytes message)> on_message;  ///< a whole binary (or text) message
  /// The last call, exactly once: the connection failed, the peer closed it or answers no ping (Errc::timed_out), an
  /// error occurred, or `close()` was called (Errc::cancelled).
  std::function<void(Error why)> on_close;
  /// After a refused `send`, the send queue has fallen below half of its bound.
  std::function<void()> on_writable;
};

/// One WebSocket connection. Strand only.
class WsConnection {
 public:
  virtual ~WsConnection() = default;
  /// Queues a binary message. Returns false, queueing nothing, if not
  /// open or `max_queue_bytes` are queued already.
  virtual bool send(Bytes message) = 0;
  /// Bytes that are queued and not yet passed to the operating system.
  virtual std::size_t queued_bytes() const = 0;
  /// Starts closing; on_close follows. No-op when closed.
  virtual void close() = 0;
  /// The subprotocol that the server has chosen of those that were offered; empty: none, or not open yet.
  virtual std::string_view protocol() const { return {}; }
  /// Whether the server is in this process, so that what it says about other connections can be believed.
  virtual bool is_in_process() const { return false; }
};

/// How to check that a server is still there (net::PingWatch has the rules).
struct WsPings {
  Duration quiet = std::chrono::seconds(10);   ///< a ping is sent when nothing has arrived for this long; zero: none
  Duration answer = std::chrono::seconds(20);  ///< the connection is closed when nothing arrives for this long after it
};

/// Fills `out` with keying material that both ends of this TLS session can export, and nobody else, for `label` and
/// `context` (RFC 5705). False: there is none, because the connection has no TLS.
using KeyExporter = std::function<bool(std::string_view label, ByteView context, std::span<std::uint8_t> out)>;

struct WsOptions {
  std::size_t max_message_bytes = 20'000;  ///< a larger incoming message closes the connection
  std::size_t max_queue_bytes = 4U << 20;
  Duration handshake_timeout = std::chrono::seconds(30);
  WsPings pings;
  std::string protocols;     ///< subprotocols to offer, with commas, the best one first; empty: none
  std::string bearer_token;  ///< that is presented to the server; empty: none. Never logged
  /// With TLS: returns further headers of the request, each as "Name: value\r\n". Called once, when TLS is established;
  /// the exporter is valid during the call.
  std::function<std::string(const KeyExporter& exporter)> tls_headers;
  std::string tls_ca_file;  ///< PEM; empty: the system's
  bool tls_verify = true;   ///< only an explicit user option may turn this off
};

/// Opens client connections.
class WsConnector {
 public:
  virtual ~WsConnector() = default;
  /// `url`: ws://host:port/path or wss://…; need not be a canonical kitsune2 url.
  virtual std::shared_ptr<WsConnection> connect(const std::string& url, const WsOptions& options,
                                                WsHandlers handlers) = 0;
};

}  // namespace kitsune2
