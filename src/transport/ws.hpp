// WebSocket as the tx5 transport sees it. Implemented over Beast in src/net, over virtual time in kitsune2::testing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "kitsune2/bytes.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2 {

/// What a WebSocket connection tells its owner: on the runtime's strand, never from inside a call to the connection.
struct WsHandlers {
  std::function<void()> on_open;
  std::function<void(Bytes message)> on_message;  ///< one binary (or text) message, whole
  /// The last call, exactly once: could not connect, the peer closed, it answers no ping (Errc::timed_out), an error,
  /// or `close()` was called (Errc::cancelled).
  std::function<void(Error why)> on_close;
  /// The send queue went below half of its bound after a `send` was refused.
  std::function<void()> on_writable;
};

/// One WebSocket connection. Strand only.
class WsConnection {
 public:
  virtual ~WsConnection() = default;
  /// Queues one binary message. False: not open, or the queue holds `max_queue_bytes` already; nothing was queued.
  virtual bool send(Bytes message) = 0;
  /// Bytes queued and not yet handed to the operating system.
  virtual std::size_t queued_bytes() const = 0;
  /// Starts closing; on_close follows. No-op when closed.
  virtual void close() = 0;
  /// Whether the server is in this process: what it says of other connections is to be believed.
  virtual bool is_in_process() const { return false; }
};

/// How a server is asked whether it is still there (net::PingWatch has the rules).
struct WsPings {
  Duration quiet = std::chrono::seconds(10);   ///< a ping goes out when nothing has come for this long; zero: none
  Duration answer = std::chrono::seconds(20);  ///< the connection is closed when nothing comes for this long after it
};

struct WsOptions {
  std::size_t max_message_bytes = 20'000;  ///< a larger incoming message closes the connection
  std::size_t max_queue_bytes = 4U << 20;
  Duration handshake_timeout = std::chrono::seconds(30);
  WsPings pings;
  std::string tls_ca_file;  ///< PEM; empty: the system's
  bool tls_verify = true;   ///< only ever turned off by an explicit user option
};

/// Opens client connections.
class WsConnector {
 public:
  virtual ~WsConnector() = default;
  /// `url`: ws://host:port/path or wss://…; not necessarily a canonical kitsune2 url.
  virtual std::shared_ptr<WsConnection> connect(const std::string& url, const WsOptions& options,
                                                WsHandlers handlers) = 0;
};

}  // namespace kitsune2
