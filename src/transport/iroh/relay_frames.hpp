// Frames of the iroh relay protocol, versions 1 and 2: the messages between a client and its relay, one frame in each
// binary WebSocket message.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::iroh {

/// The versions differ in the frame by which a relay reports trouble: Health in 1, Status in 2.
enum class RelayVersion { v1, v2 };

/// The versions that a client offers in Sec-WebSocket-Protocol, the newest first.
inline constexpr std::string_view kOfferedVersions = "iroh-relay-v2, iroh-relay-v1";
/// The name of a version in that header.
std::string_view to_string(RelayVersion version);
/// For a server: the newest version in the values of the header (each a list with commas). nullopt: none is known,
/// which means version 1 without an echo. A client that gets no echo speaks version 1, too.
std::optional<RelayVersion> newest_version(const std::vector<std::string>& offered);

/// The Ed25519 public key that identifies a client of the relay.
using EndpointId = std::array<std::uint8_t, 32>;
using PingPayload = std::array<std::uint8_t, 8>;

// --- handshake: challenge, answer, verdict

struct ServerChallenge {
  std::array<std::uint8_t, 16> challenge{};
  friend bool operator==(const ServerChallenge&, const ServerChallenge&) = default;
};
/// The signature is over BLAKE3's derive_key of the challenge.
struct ClientAuth {
  EndpointId key{};
  std::array<std::uint8_t, 64> signature{};
  friend bool operator==(const ClientAuth&, const ClientAuth&) = default;
};
struct ServerConfirmsAuth {
  friend bool operator==(const ServerConfirmsAuth&, const ServerConfirmsAuth&) = default;
};
struct ServerDeniesAuth {
  std::string reason;  ///< UTF-8
  friend bool operator==(const ServerDeniesAuth&, const ServerDeniesAuth&) = default;
};

// --- afterwards

/// One QUIC packet, or several of the same size: for `peer` on the way to the relay, from it on the way back.
struct Datagrams {
  EndpointId peer{};
  std::uint8_t ecn = 0;  ///< two bits
  /// 0: the content is one datagram, in a frame of its own type. Otherwise it is a batch, cut at this size; the last
  /// datagram may be shorter, and a size above that of the content means one datagram.
  std::uint16_t segment_size = 0;
  /// A server drops a frame without content instead of passing it on.
  Bytes content;
  friend bool operator==(const Datagrams&, const Datagrams&) = default;

  /// The datagrams, as slices.
  std::vector<Bytes> split() const;
};
/// A client to which we sent something has left the relay.
struct EndpointGone {
  EndpointId id{};
  friend bool operator==(const EndpointGone&, const EndpointGone&) = default;
};
/// Must be answered by a Pong with the same payload, before anything else.
struct Ping {
  PingPayload payload{};
  friend bool operator==(const Ping&, const Ping&) = default;
};
struct Pong {
  PingPayload payload{};
  friend bool operator==(const Pong&, const Pong&) = default;
};
/// Version 1: what is wrong with this connection, for people. Empty: the problem is over.
struct Health {
  std::string problem;  ///< UTF-8
  friend bool operator==(const Health&, const Health&) = default;
};
/// The relay is going to restart.
struct Restarting {
  std::uint32_t reconnect_in_ms = 0;
  std::uint32_t try_for_ms = 0;
  friend bool operator==(const Restarting&, const Restarting&) = default;
};
/// Version 2.
struct Status {
  static constexpr std::uint8_t kHealthy = 0;
  static constexpr std::uint8_t kSameIdElsewhere = 1;  ///< another connection with this id receives what is sent to it
  static constexpr std::uint8_t kRateLimited = 2;
  std::uint8_t code = 0;  ///< others must be ignored
  friend bool operator==(const Status&, const Status&) = default;
};

/// Ours, and only inside a process: the address from which `id` is connected to the relay.
struct PeerAddress {
  EndpointId id{};
  std::array<std::uint8_t, 16> address{};  ///< IPv4 is mapped into IPv6
  friend bool operator==(const PeerAddress&, const PeerAddress&) = default;
};

using RelayFrame = std::variant<ServerChallenge, ClientAuth, ServerConfirmsAuth, ServerDeniesAuth, Datagrams,
                                EndpointGone, Ping, Pong, Health, Restarting, Status, PeerAddress>;

/// The side that wrote a frame. Each side has frames of its own; only pings go both ways.
enum class Sender { client, relay };

/// The longest frame without its type; longer ones are refused.
inline constexpr std::size_t kMaxRelayBody = 65'536;
/// The most that a frame of datagrams carries. A byte less than fits: the reference takes a body of kMaxRelayBody bytes
/// and cannot write it again, so its relay drops the receiver's connection.
inline constexpr std::size_t kMaxDatagramBytes = kMaxRelayBody - 33 - 1;
inline constexpr std::size_t kMaxBatchBytes = kMaxRelayBody - 35 - 1;

/// Decodes one binary message. Errc::malformed: a type that is unknown, does not exist in
/// this version or is not the sender's, or a body of a wrong size; Errc::too_large. Either
/// ends the connection. Contents are slices of `message`.
Result<RelayFrame> decode_relay_frame(RelayVersion version, Sender sender, const Bytes& message);

/// `sender` selects between the two types of datagrams. The caller must respect kMaxDatagramBytes, kMaxBatchBytes and
/// its version; content of 0 bytes is not a frame (both abort).
Bytes encode_relay_frame(Sender sender, const RelayFrame& frame);

}  // namespace kitsune2::iroh
