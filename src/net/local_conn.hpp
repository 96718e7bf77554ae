// A connection inside the process, by which a node reaches the relay that it runs itself.
#pragma once

#include <memory>
#include <mutex>

#include "net/conn.hpp"

namespace kitsune2::net {

/// The entrance to a server in this process, beside its listeners. Any thread, except `shut`.
class LocalDoor {
 public:
  /// `accept` is called on the strand of `server`, like a Listener's. `server` must exist until `shut`.
  LocalDoor(AsioRuntime& server, Listener::Accept accept) : server_(&server), accept_(std::move(accept)) {}

  /// Refuses connections from now on. On the server's strand.
  void shut();

 private:
  friend class LocalConn;
  std::mutex mutex_;
  AsioRuntime* server_;  // guarded; null: shut
  Listener::Accept accept_;
};

/// The same rules as for `connect` to a socket, but without resolving, TLS and system calls: bytes are copied from one
/// end's buffer to the other's. The server sees the address `IpAddress{}`, which no socket has. *Bounds*: `queued()`
/// counts what the other end has not received yet, so the owners' bounds apply to it.
std::shared_ptr<Conn> connect(AsioRuntime& runtime, const std::shared_ptr<LocalDoor>& door,
                              std::shared_ptr<ConnEvents> events);

}  // namespace kitsune2::net
