// Writes the packet by which the relay refuses QUIC, and says where it is asked.
#include "server/iroh/quic_refusal.hpp"

#include <algorithm>
#include <utility>

namespace kitsune2::server {

std::optional<Bytes> refuse_quic(ByteView datagram) {
  constexpr std::size_t kLeastFirstDatagram = 1200;
  constexpr std::size_t kMostIdBytes = 20;
  constexpr std::uint8_t kLongHeader = 0x80;
  constexpr std::uint8_t kQuicBit = 0x40;  // not demanded here by the RFC, but by the library of stock nodes
  if (datagram.size() < kLeastFirstDatagram || (datagram[0] & kLongHeader) == 0) return std::nullopt;
  const ByteView version = datagram.subspan(1, 4);
  if (version[0] == 0 && version[1] == 0 && version[2] == 0 && version[3] == 0) return std::nullopt;
  const std::size_t to_size = datagram[5];
  if (to_size > kMostIdBytes) return std::nullopt;
  const ByteView to = datagram.subspan(6, to_size);
  const std::size_t from_size = datagram[6 + to_size];
  if (from_size > kMostIdBytes) return std::nullopt;
  const ByteView from = datagram.subspan(7 + to_size, from_size);

  std::vector<std::uint8_t> out;
  out.reserve(7 + to_size + from_size + 4);
  out.push_back(kLongHeader | kQuicBit);
  out.insert(out.end(), 4, 0);  // the version that says what this packet is
  out.push_back(datagram[6 + to_size]);
  out.insert(out.end(), from.begin(), from.end());
  out.push_back(datagram[5]);
  out.insert(out.end(), to.begin(), to.end());
  out.insert(out.end(), 4, version[0] == 0x1a ? 0x2a : 0x1a);  // reserved: 0x?a?a?a?a
  return Bytes(std::move(out));
}

std::vector<std::string> discovery_addresses(const std::vector<std::string>& listen) {
  constexpr const char* kPort = "7842";
  std::vector<std::string> out;
  for (const std::string& address : listen) {
    const std::string host = address.substr(0, address.rfind(':'));
    const bool is_name = host.find_first_not_of("0123456789.") != std::string::npos && !host.starts_with('[');
    const bool loopback = host.starts_with("127.") || host == "[::1]";
    std::string there = host + ':' + kPort;
    if (!loopback && !is_name && std::find(out.begin(), out.end(), there) == out.end()) out.push_back(std::move(there));
  }
  return out;
}

}  // namespace kitsune2::server
