// UDP as a transport uses it. Implemented over a socket in src/net, and in virtual time for tests.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "transport/datagram_filter.hpp"

namespace kitsune2 {

/// An address and a port. IPv4 is written as IPv6 (::ffff:a.b.c.d), so that there is one form of each address.
struct UdpAddress {
  std::array<std::uint8_t, 16> ip{};
  std::uint16_t port = 0;
  auto operator<=>(const UdpAddress&) const = default;

  static UdpAddress v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d, std::uint16_t port);
  /// "1.2.3.4:5" or "[::1]:5"; no names. nullopt: neither.
  static std::optional<UdpAddress> parse(const std::string& text);
  std::string to_string() const;
  bool is_v4() const;
};

/// What an address is good for (RFC 6890).
enum class AddressScope : std::uint8_t {
  nonsense,  ///< multicast, broadcast, unspecified, link-local, port 0: nothing may be sent there
  loopback,  ///< this machine
  local,     ///< a private network, or that of a provider behind NAT
  global
};
AddressScope scope_of(const UdpAddress& address);
/// What is wrong with an address in a configuration; empty: nothing.
std::string fault_of_address(const std::string& text);

/// The events of a socket. Called on the runtime's strand, never from within a call to the socket.
struct UdpHandlers {
  /// Datagrams of one sender: `content`, not empty, cut at `segment_bytes`, of which the last one may be shorter. They
  /// are the socket's, and valid during the call: of what strangers send nothing is copied.
  std::function<void(const UdpAddress& from, ByteView content, std::size_t segment_bytes)> on_datagrams;
  /// The network says that what was sent to the address does not arrive. Anybody may have forged that.
  std::function<void(const UdpAddress& to)> on_unreachable;
  /// After a refused `send` there is room again.
  std::function<void()> on_writable;
};

/// One socket. Strand only. No call after `close`.
class UdpSocket {
 public:
  virtual ~UdpSocket() = default;
  /// Sends `content`, cut at `segment_bytes` (at most 10 pieces). False: there is no room now, and nothing or a part
  /// was sent. What the system cannot send at all is dropped; `on_unreachable` may say so.
  virtual bool send(const UdpAddress& to, ByteView content, std::size_t segment_bytes) = 0;
  /// The addresses of this machine under which the socket can be reached, with its port.
  virtual std::vector<UdpAddress> addresses() const = 0;
  /// What the filter does not let in is dropped before it takes room of the socket, where the system can do that. Of
  /// several datagrams that come together only the first one may have been judged, so the owner asks the filter, too.
  virtual void let_in_only(const DatagramFilter&) {}
  virtual void close() = 0;
};

class UdpBinder {
 public:
  virtual ~UdpBinder() = default;
  /// `address`: where to listen; port 0: a free one. Error: Errc::already_exists (the port is taken), Errc::io.
  virtual Result<std::shared_ptr<UdpSocket>> bind(const UdpAddress& address, UdpHandlers handlers) = 0;
};

}  // namespace kitsune2
