// A bounded TCP or TLS connection as a stream of bytes, and the listener that accepts them. Without Asio.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "kitsune2/asio_runtime.hpp"
#include "net/byte_buffer.hpp"
#include "net/tls.hpp"

namespace kitsune2::net {

/// An IP address in 16 bytes; IPv4 is mapped into IPv6.
struct IpAddress {
  std::array<std::uint8_t, 16> bytes{};
  static std::optional<IpAddress> parse(std::string_view text);
  bool is_v4() const;
  std::string to_string() const;
  /// The key by which limits count: an IPv4 address, or the /64 of an IPv6 address. *Rationale*: one subscriber has a
  /// whole /64. In ::/64 (::1) it is the address itself, because all zeros stand for this process.
  IpAddress limit_key() const;
  friend bool operator==(const IpAddress&, const IpAddress&) = default;
};

/// Bytes that have arrived. They may be changed in place; `owner` keeps them alive beyond the call.
struct Incoming {
  std::uint8_t* data;
  std::size_t size;
  const std::shared_ptr<std::uint8_t[]>& owner;
};

/// What a connection reports to its owner. Called on the strand, never from within a call to the connection.
class ConnEvents {
 public:
  virtual ~ConnEvents() = default;
  /// The connection, including TLS, is established.
  virtual void on_connected() {}
  /// Bytes have arrived. Returns how many were used; the rest is passed again together with what follows.
  virtual std::size_t on_data(const Incoming& in) = 0;
  /// The operating system has accepted some of the output; `queued` bytes are left.
  virtual void on_sent(std::size_t queued) { static_cast<void>(queued); }
  /// The last call, exactly once. Errc::disconnected: the other side closed, and everything it had sent was delivered.
  virtual void on_closed(const Error& why) = 0;
};

/// A connection. Strand only. Keeps its events object alive until `on_closed`, and itself alive while it is open.
class Conn {
 public:
  virtual ~Conn() = default;
  /// The output buffer: append to it, then call `flush`. It has no bound of its own; the owner watches `queued()`.
  virtual ByteBuffer& out() = 0;
  /// Sends what was appended, together with the output of others in this turn of the loop.
  virtual void flush() = 0;
  /// Passes what was appended to the operating system now, as far as it takes it. Reports nothing inside this call:
  /// what became of it is told in this turn of the loop, as after `flush`. For much output: it is copied while it is in
  /// the processor's cache, and `queued` is small again. A connection may treat it as `flush`.
  virtual void send_now() { flush(); }
  /// Appends `bytes`, then as `send_now`. What the operating system takes of them at once is not copied before.
  virtual void send_now(ByteView bytes) {
    out().append(bytes);
    send_now();
  }
  /// The bytes that were not yet passed to the operating system.
  virtual std::size_t queued() const = 0;
  /// Stops on_data until `resume`. Keeps what has arrived (at most one read buffer), and does not read the socket.
  virtual void pause() = 0;
  virtual void resume() = 0;
  /// Sends what is queued, then closes and calls on_closed(`why`). No more input is delivered. Takes at most `linger`.
  /// Meanwhile what comes is read and dropped, so that the other side gets what was sent; but of a connection that was
  /// accepted at most 64 KiB. *Rationale*: a client that is sent away could go on sending as fast as the line takes it,
  /// and that costs more than all it may send before.
  virtual void close(Error why, Duration linger = std::chrono::seconds(2)) = 0;
  /// Closes now, and calls on_closed(`why`).
  virtual void abort(Error why) = 0;
  virtual const IpAddress& remote_ip() const = 0;
  /// The other side's "host:port".
  virtual const std::string& remote() const = 0;
  /// Keying material of the TLS session, see KeyExporter. False: the connection has no TLS, or is not established.
  virtual bool export_key(std::string_view /*label*/, ByteView /*context*/, std::span<std::uint8_t> /*out*/) const {
    return false;
  }
  /// Since when the waiting output has not moved at all; nullopt if none is waiting.
  virtual std::optional<Time> stalled_since() const = 0;
};

struct ConnectTarget {
  std::string host;  ///< without brackets
  std::uint16_t port = 0;
  std::shared_ptr<TlsContext> tls;  ///< null: plain
};

/// An address that has not answered after this time is given up for the next one. *Rationale*: the system repeats the
/// first packet after 1, 3 and 7 s, then only after 15 and 31 s. A new attempt finds a host that came back sooner.
inline constexpr Duration kTcpConnectLimit = std::chrono::seconds(8);

/// Resolves, connects (trying each address in turn) and does the TLS handshake, all within `timeout`. Failures arrive
/// at on_closed: Errc::peer_unresponsive with the step and the reason, or Errc::timed_out.
std::shared_ptr<Conn> connect(AsioRuntime& runtime, ConnectTarget target, Duration timeout,
                              std::shared_ptr<ConnEvents> events);

/// Splits "host:port" and "[v6]:port". Errc::invalid_argument.
Result<std::pair<std::string, std::uint16_t>> split_host_port(std::string_view text);

/// A listening socket. When the process has no file descriptors left, it waits and continues on its own.
class Listener {
 public:
  /// Makes the events object of an accepted connection; null refuses it, which closes it at once. With TLS,
  /// on_connected is called after the handshake.
  using Accept = std::function<std::shared_ptr<ConnEvents>(const std::shared_ptr<Conn>&)>;

  /// `address`: "host:port". Errors: Errc::already_exists (the port is taken), Errc::io, Errc::invalid_argument. Any
  /// thread; `stop` and everything else: strand only.
  static Result<std::shared_ptr<Listener>> listen(AsioRuntime& runtime, const std::string& address,
                                                  std::shared_ptr<TlsContext> tls, Accept accept);
  virtual ~Listener() = default;
  /// "host:port" with the actual port.
  virtual const std::string& address() const = 0;
  /// For connections that are accepted from now on.
  virtual void set_tls(std::shared_ptr<TlsContext> tls) = 0;
  /// Starts accepting.
  virtual void start() = 0;
  virtual void stop() = 0;
};

}  // namespace kitsune2::net
