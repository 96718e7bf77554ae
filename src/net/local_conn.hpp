// A connection that does not leave the process: how a node reaches the relay that it runs itself.
#pragma once

#include <memory>
#include <mutex>

#include "net/conn.hpp"

namespace kitsune2::net {

/// The way into a server of this process, beside its listeners. Any thread but for `shut`.
class LocalDoor {
 public:
  /// `accept` is called on the strand of `server`, as a Listener's. `server` outlives the time until `shut`.
  LocalDoor(AsioRuntime& server, Listener::Accept accept) : server_(&server), accept_(std::move(accept)) {}

  /// On the server's strand: lets nobody in any more.
  void shut();

 private:
  friend class LocalConn;
  std::mutex mutex_;
  AsioRuntime* server_;  // guarded; null: shut
  Listener::Accept accept_;
};

/// The same rules as for `connect` to a socket, but there is nothing to resolve, no TLS and no system call: bytes are
/// copied from one end's buffer to the other's. The server sees the address `IpAddress{}`, which no socket has.
/// *Bounds*: `queued()` counts what the other end has not taken yet, so the owners' bounds hold for it.
std::shared_ptr<Conn> connect(AsioRuntime& runtime, const std::shared_ptr<LocalDoor>& door,
                              std::shared_ptr<ConnEvents> events);

}  // namespace kitsune2::net
