// A TCP or TLS connection as a stream of bytes with bounds, and the listener that accepts them. No Asio in here.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "kitsune2/asio_runtime.hpp"
#include "net/byte_buffer.hpp"
#include "net/tls.hpp"

namespace kitsune2::net {

/// An IP address: 16 bytes, IPv4 mapped into IPv6.
struct IpAddress {
  std::array<std::uint8_t, 16> bytes{};
  static std::optional<IpAddress> parse(std::string_view text);
  bool is_v4() const;
  std::string to_string() const;
  /// What limits are counted by: an IPv4 address, or the /64 of an IPv6 one. *Rationale*: one subscriber has a whole
  /// /64. In ::/64 (::1) it is the address itself, because all zeros stand for this process.
  IpAddress limit_key() const;
  friend bool operator==(const IpAddress&, const IpAddress&) = default;
};

/// Bytes that have come in. They may be changed in place; `owner` keeps them alive beyond the call.
struct Incoming {
  std::uint8_t* data;
  std::size_t size;
  const std::shared_ptr<std::uint8_t[]>& owner;
};

/// What a connection tells its owner. On the strand, never from inside a call to the connection.
class ConnEvents {
 public:
  virtual ~ConnEvents() = default;
  /// Connected, and the TLS handshake is done.
  virtual void on_connected() {}
  /// Returns how many bytes it used up; the rest comes again with what follows it.
  virtual std::size_t on_data(const Incoming& in) = 0;
  /// The operating system took some of the output; `queued` bytes are left.
  virtual void on_sent(std::size_t queued) { static_cast<void>(queued); }
  /// The last call, exactly once. Errc::disconnected: the other side closed (no loss of what it sent before).
  virtual void on_closed(const Error& why) = 0;
};

/// One connection. Strand only. It keeps its events object alive until `on_closed`, and itself while it is open.
class Conn {
 public:
  virtual ~Conn() = default;
  /// Output: append here, then call `flush`. Unbounded by itself: the owner looks at `queued()`.
  virtual ByteBuffer& out() = 0;
  /// Sends what was appended, together with what others append in this turn of the loop.
  virtual void flush() = 0;
  /// Bytes not yet handed to the operating system.
  virtual std::size_t queued() const = 0;
  /// No on_data until `resume`. What has come in already is kept (at most one read buffer); the socket is not read.
  virtual void pause() = 0;
  virtual void resume() = 0;
  /// Sends what is queued, then closes; on_closed(`why`) follows. Nothing comes in any more. Takes at most `linger`.
  virtual void close(Error why, Duration linger = std::chrono::seconds(2)) = 0;
  /// Closes now; on_closed(`why`) follows.
  virtual void abort(Error why) = 0;
  virtual const IpAddress& remote_ip() const = 0;
  /// "host:port" of the other side.
  virtual const std::string& remote() const = 0;
  /// Since when output has waited without any of it being taken; nullopt: none waits.
  virtual std::optional<Time> stalled_since() const = 0;
};

struct ConnectTarget {
  std::string host;  ///< without brackets
  std::uint16_t port = 0;
  std::shared_ptr<TlsContext> tls;  ///< null: plain
};

/// An address that has not answered after this long is left for the next one. *Rationale*: the system repeats the first
/// packet after 1, 3 and 7 s, and then only after 15 and 31 s. A new attempt finds a host that came back sooner.
inline constexpr Duration kTcpConnectLimit = std::chrono::seconds(8);

/// Resolves, connects (each address in turn), and does the TLS handshake. `timeout` covers all of it.
/// Failures come to on_closed: Errc::peer_unresponsive with the step and the reason, Errc::timed_out.
std::shared_ptr<Conn> connect(AsioRuntime& runtime, ConnectTarget target, Duration timeout,
                              std::shared_ptr<ConnEvents> events);

/// Splits "host:port" and "[v6]:port". Errc::invalid_argument.
Result<std::pair<std::string, std::uint16_t>> split_host_port(std::string_view text);

/// A listening socket. When the process has no file descriptors left it waits and goes on by itself.
class Listener {
 public:
  /// Makes the events object of an accepted connection; null refuses it (it is closed at once).
  /// With TLS, on_connected comes after the handshake.
  using Accept = std::function<std::shared_ptr<ConnEvents>(const std::shared_ptr<Conn>&)>;

  /// `address`: "host:port". Errc::already_exists: the port is taken; Errc::io; Errc::invalid_argument.
  /// Any thread; `stop` and everything else: strand only.
  static Result<std::shared_ptr<Listener>> listen(AsioRuntime& runtime, const std::string& address,
                                                  std::shared_ptr<TlsContext> tls, Accept accept);
  virtual ~Listener() = default;
  /// "host:port" with the real port.
  virtual const std::string& address() const = 0;
  /// For connections accepted from now on.
  virtual void set_tls(std::shared_ptr<TlsContext> tls) = 0;
  /// Begins to accept.
  virtual void start() = 0;
  virtual void stop() = 0;
};

}  // namespace kitsune2::net
