// Reads and writes offers, pings and pongs.
#include "transport/iroh/direct_packets.hpp"

#include <sodium.h>

#include <algorithm>

#include "wire/protobuf.hpp"

namespace kitsune2::iroh {
namespace {

constexpr std::uint8_t kOfferVersion = 1;
constexpr std::size_t kAddressBytes = 18;
constexpr std::size_t kOfferHead = 1 + 8 + 32;
constexpr std::array<std::uint8_t, 4> kMagic = {0x1b, 'k', '2', 'd'};  ///< 0x40 is not in the first byte
constexpr std::array<std::uint8_t, 6> kDisco = {0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac};
constexpr std::size_t kMacAt = 4 + 1 + 8 + 8;
constexpr std::size_t kMacBytes = 16;

/// The tag of kDirectField with the wire type of bytes, as a varint.
constexpr std::array<std::uint8_t, 2> kTag = {(((kDirectField << 3U) | 2U) & 0x7fU) | 0x80U,
                                              (kDirectField << 3U) >> 7U};

using Mac = std::array<std::uint8_t, kMacBytes>;

/// Over both ends and all of the datagram but itself.
Mac mac_of(ByteView datagram, const ProbeEnds& ends, const std::array<std::uint8_t, 32>& key) {
  crypto_generichash_state state;
  Mac out{};
  crypto_generichash_init(&state, key.data(), key.size(), out.size());
  crypto_generichash_update(&state, ends.pinger.data(), ends.pinger.size());
  crypto_generichash_update(&state, ends.pinged.data(), ends.pinged.size());
  crypto_generichash_update(&state, datagram.data(), kMacAt);
  crypto_generichash_update(&state, datagram.data() + DirectProbe::kBytes, datagram.size() - DirectProbe::kBytes);
  crypto_generichash_final(&state, out.data(), out.size());
  return out;
}

}  // namespace

Bytes with_direct_mark(const Bytes& preflight) {
  return wire::build([&](auto& sink) {
    sink.raw(preflight);
    wire::put_item(sink, kDirectField, {});
  });
}

bool has_direct_mark(const Bytes& preflight) {
  wire::ProtoReader reader(preflight.view());
  bool found = false;
  while (reader.next()) found = found || reader.field() == kDirectField;
  return reader.ok() && found;
}

bool is_direct_offer(ByteView message) {
  // Nearly all messages are others, and are not walked through.
  if (message.size() <= kTag.size() || !std::equal(kTag.begin(), kTag.end(), message.begin())) return false;
  wire::ProtoReader reader(message);
  std::size_t fields = 0;
  while (reader.next()) {
    if (++fields > 1) return false;
  }
  return reader.ok() && fields == 1;
}

Bytes encode_offer(const DirectOffer& offer) {
  std::vector<std::uint8_t> body{kOfferVersion};
  body.insert(body.end(), offer.name.begin(), offer.name.end());
  body.insert(body.end(), offer.key.begin(), offer.key.end());
  for (std::size_t i = 0; i < std::min(offer.addresses.size(), DirectOffer::kMaxAddresses); ++i) {
    const UdpAddress& address = offer.addresses[i];
    body.insert(body.end(), address.ip.begin(), address.ip.end());
    body.push_back(static_cast<std::uint8_t>(address.port >> 8U));
    body.push_back(static_cast<std::uint8_t>(address.port));
  }
  return wire::build([&](auto& sink) { wire::put_item(sink, kDirectField, body); });
}

Result<DirectOffer> decode_offer(const Bytes& message) {
  wire::ProtoReader reader(message.view());
  ByteView body;
  while (reader.next()) {
    if (reader.field() == kDirectField) body = reader.bytes();
  }
  if (!reader.ok()) return reader.error("offer");
  if (body.empty()) return make_error(Errc::malformed, "offer: it is empty");
  if (body.front() != kOfferVersion) return make_error(Errc::unsupported, "offer: another version");
  if (body.size() < kOfferHead || (body.size() - kOfferHead) % kAddressBytes != 0)
    return make_error(Errc::malformed, "offer: a wrong size");
  DirectOffer out;
  std::copy_n(body.begin() + 1, out.name.size(), out.name.begin());
  std::copy_n(body.begin() + 9, out.key.size(), out.key.begin());
  for (std::size_t at = kOfferHead; at < body.size() && out.addresses.size() < DirectOffer::kMaxAddresses;
       at += kAddressBytes) {
    UdpAddress address;
    std::copy_n(body.begin() + static_cast<std::ptrdiff_t>(at), address.ip.size(), address.ip.begin());
    address.port = static_cast<std::uint16_t>((body[at + 16] << 8U) | body[at + 17]);
    out.addresses.push_back(address);
  }
  return out;
}

DatagramKind kind_of(ByteView datagram) {
  const auto begins_with = [&](const auto& first) {
    return datagram.size() >= first.size() && std::equal(first.begin(), first.end(), datagram.begin());
  };
  return begins_with(kMagic) ? DatagramKind::probe : begins_with(kDisco) ? DatagramKind::disco : DatagramKind::quic;
}

bool is_probe(ByteView datagram) { return kind_of(datagram) == DatagramKind::probe; }

DatagramFilter::Shapes direct_shapes() {
  constexpr std::uint32_t kProbe =
      std::uint32_t{kMagic[0]} << 24U | std::uint32_t{kMagic[1]} << 16U | std::uint32_t{kMagic[2]} << 8U | kMagic[3];
  constexpr auto kPing = static_cast<std::uint16_t>(DirectProbe::Kind::ping);
  constexpr auto kPong = static_cast<std::uint16_t>(DirectProbe::Kind::pong);
  // A QUIC packet with a short header: the name, and what header protection needs (RFC 9001, 5.4.2).
  constexpr std::uint8_t kQuicBytes = 1 + DatagramFilter::kNameBytes + 4 + 16;
  // Its first bit is 0; the second one may be anything (RFC 9287).
  return {{{0x80000000, 0, DatagramFilter::kAny, kQuicBytes, 1},
           {0xffffffff, kProbe, kPing, DirectProbe::kBytes, 5},
           {0xffffffff, kProbe, kPong, DirectProbe::kBytes, 13}}};
}

Bytes encode_probe(const DirectProbe& probe, const ProbeEnds& ends, const std::array<std::uint8_t, 32>& key,
                   std::size_t size) {
  std::vector<std::uint8_t> out(std::max(size, DirectProbe::kBytes));
  auto at = std::copy(kMagic.begin(), kMagic.end(), out.begin());
  *at++ = static_cast<std::uint8_t>(probe.kind);
  at = std::copy(probe.name.begin(), probe.name.end(), at);
  at = std::copy(probe.nonce.begin(), probe.nonce.end(), at);
  const Mac mac = mac_of(out, ends, key);
  std::copy(mac.begin(), mac.end(), at);
  return Bytes(std::move(out));
}

std::optional<DirectProbe> decode_probe(ByteView datagram) {
  if (!is_probe(datagram) || datagram.size() < DirectProbe::kBytes) return std::nullopt;
  const std::uint8_t kind = datagram[4];
  if (kind < static_cast<std::uint8_t>(DirectProbe::Kind::ping) ||
      kind > static_cast<std::uint8_t>(DirectProbe::Kind::relay_pong))
    return std::nullopt;
  DirectProbe out;
  out.kind = static_cast<DirectProbe::Kind>(kind);
  std::copy_n(datagram.begin() + 5, out.name.size(), out.name.begin());
  std::copy_n(datagram.begin() + 13, out.nonce.size(), out.nonce.begin());
  return out;
}

bool is_authentic(ByteView datagram, const ProbeEnds& ends, const std::array<std::uint8_t, 32>& key) {
  if (datagram.size() < DirectProbe::kBytes) return false;
  const Mac mac = mac_of(datagram, ends, key);
  return sodium_memcmp(mac.data(), datagram.data() + kMacAt, mac.size()) == 0;
}

}  // namespace kitsune2::iroh
