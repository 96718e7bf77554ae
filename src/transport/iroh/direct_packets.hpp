// What two nodes say to each other about direct paths: offers inside the connection, pings and pongs beside it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"
#include "transport/datagram_filter.hpp"
#include "transport/iroh/relay_frames.hpp"
#include "transport/udp.hpp"

namespace kitsune2::iroh {

// --- inside the connection

/// A field of K2Proto that stock nodes skip. In a preflight, empty: the sender knows direct paths. In a message that
/// has nothing else, and so has no type for a stock node: an offer.
inline constexpr std::uint32_t kDirectField = 1000;

/// Where a node can be reached, and by what it knows a ping that is for it. For the peer's eyes only.
struct DirectOffer {
  static constexpr std::size_t kMaxAddresses = 8;
  std::array<std::uint8_t, 8> name{};  ///< which offer a ping is about
  std::array<std::uint8_t, 32> key{};  ///< with which pings to this node and its pongs are authenticated
  std::vector<UdpAddress> addresses;   ///< of more than kMaxAddresses the first ones are sent and read
};

Bytes with_direct_mark(const Bytes& preflight);
bool has_direct_mark(const Bytes& preflight);
/// Whether the message has kDirectField and nothing else: an offer, perhaps one that cannot be read.
bool is_direct_offer(ByteView message);
Bytes encode_offer(const DirectOffer& offer);
/// Errc::malformed; Errc::unsupported (another version).
Result<DirectOffer> decode_offer(const Bytes& message);

// --- beside it, over UDP and through the relay

/// A ping asks whether the owner of an offer is at an address, and a pong answers it. Those of the relay measure the
/// way through it; they have kinds of their own, so that nobody on one way can use what was sent on the other one. Of
/// QUIC packets one in 2^32 begins like them, if a peer leaves out the bit that all others have (RFC 9287); it is lost.
struct DirectProbe {
  enum class Kind : std::uint8_t { ping = 1, pong = 2, relay_ping = 3, relay_pong = 4 };
  static constexpr std::size_t kBytes = 4 + 1 + 8 + 8 + 16;
  Kind kind = Kind::ping;
  std::array<std::uint8_t, 8> name{};   ///< of the offer that is pinged, in both
  std::array<std::uint8_t, 8> nonce{};  ///< of the ping, repeated in its pong
};

/// Between whom a ping and its pong are. They are not sent, but authenticated: an offer that was told to one peer is of
/// no use to another one, to whom that peer passes it on as its own.
struct ProbeEnds {
  EndpointId pinger{};
  EndpointId pinged{};
};

/// What a datagram is, by its first bytes.
enum class DatagramKind : std::uint8_t {
  quic,   ///< or nonsense
  probe,  ///< of ours, to find a direct path
  disco,  ///< what iroh 0.95 sends for the same purpose, sealed for itself
  nonsense
};
DatagramKind kind_of(ByteView datagram);
bool is_probe(ByteView datagram);

/// What a peer may send to this node's UDP socket, and where it has the name that this node has made up: a ping in that
/// of the offer, a pong in the ping's nonce, QUIC in that of the connection. Packets of a QUIC handshake are not among
/// it, because a connection that was not open before is not heard there.
DatagramFilter::Shapes direct_shapes();
/// The place of each shape in it.
inline constexpr std::size_t kQuicShape = 0, kPingShape = 1, kPongShape = 2;

/// Cuts `content` at `segment_bytes` (not 0) and calls `take(kind, run)`: with each probe, and with as many datagrams
/// of QUIC as follow each other, which are still to be cut. `judge`: what a datagram is.
template <typename Take, typename Judge = DatagramKind (*)(ByteView)>
void for_each_run(ByteView content, std::size_t segment_bytes, Take&& take, Judge&& judge = kind_of) {
  const auto length_at = [&](std::size_t at) { return std::min(segment_bytes, content.size() - at); };
  const auto kind_at = [&](std::size_t at) { return judge(content.subspan(at, length_at(at))); };
  for (std::size_t at = 0; at < content.size();) {
    const DatagramKind kind = kind_at(at);
    std::size_t end = at + length_at(at);
    while (kind == DatagramKind::quic && end < content.size() && kind_at(end) == DatagramKind::quic)
      end += length_at(end);
    take(kind, content.subspan(at, end - at));
    at = end;
  }
}
/// `size`: zeros follow up to it; at least kBytes. They are authenticated, too.
Bytes encode_probe(const DirectProbe& probe, const ProbeEnds& ends, const std::array<std::uint8_t, 32>& key,
                   std::size_t size);
/// nullopt: not a probe. Nobody has authenticated it yet.
std::optional<DirectProbe> decode_probe(ByteView datagram);
/// Whether somebody who knows the key of the offer has made it, for a ping between these two.
bool is_authentic(ByteView datagram, const ProbeEnds& ends, const std::array<std::uint8_t, 32>& key);

}  // namespace kitsune2::iroh
