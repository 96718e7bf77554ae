// Addresses of UDP: their texts, and what they are good for.
#include "transport/udp.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace kitsune2 {
namespace {

constexpr std::array<std::uint8_t, 12> kV4Prefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

AddressScope scope_of_v4(std::uint8_t a, std::uint8_t b, std::uint8_t c) {
  if (a == 0 || a >= 224 || (a == 169 && b == 254)) return AddressScope::nonsense;
  if (a == 127) return AddressScope::loopback;
  if (a == 10 || (a == 172 && (b & 0xf0U) == 16) || (a == 192 && b == 168) || (a == 100 && (b & 0xc0U) == 64))
    return AddressScope::local;
  // For examples, for protocols, and for measuring.
  const bool is_for_texts = (a == 192 && b == 0 && (c == 0 || c == 2)) || (a == 198 && b == 51 && c == 100) ||
                            (a == 203 && b == 0 && c == 113) || (a == 198 && (b & 0xfeU) == 18);
  return is_for_texts ? AddressScope::nonsense : AddressScope::global;
}

}  // namespace

UdpAddress UdpAddress::v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d, std::uint16_t port) {
  UdpAddress out;
  std::ranges::copy(kV4Prefix, out.ip.begin());
  out.ip[12] = a;
  out.ip[13] = b;
  out.ip[14] = c;
  out.ip[15] = d;
  out.port = port;
  return out;
}

bool UdpAddress::is_v4() const { return std::equal(kV4Prefix.begin(), kV4Prefix.end(), ip.begin()); }

std::optional<UdpAddress> UdpAddress::parse(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon + 1 == text.size()) return std::nullopt;
  UdpAddress out;
  const char* const end = text.data() + text.size();
  const auto number = std::from_chars(text.data() + colon + 1, end, out.port);
  if (number.ec != std::errc() || number.ptr != end) return std::nullopt;
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    return inet_pton(AF_INET6, host.c_str(), out.ip.data()) == 1 ? std::optional(out) : std::nullopt;
  }
  std::ranges::copy(kV4Prefix, out.ip.begin());
  return inet_pton(AF_INET, host.c_str(), out.ip.data() + kV4Prefix.size()) == 1 ? std::optional(out) : std::nullopt;
}

std::string UdpAddress::to_string() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (is_v4()) {
    inet_ntop(AF_INET, ip.data() + kV4Prefix.size(), text.data(), text.size());
    return std::string(text.data()) + ":" + std::to_string(port);
  }
  inet_ntop(AF_INET6, ip.data(), text.data(), text.size());
  return "[" + std::string(text.data()) + "]:" + std::to_string(port);
}

std::string fault_of_address(const std::string& text) {
  if (UdpAddress::parse(text)) return {};
  return "must be like 192.0.2.1:7000 or [2001:db8::1]:7000, got \"" + text + '"';
}

AddressScope scope_of(const UdpAddress& address) {
  const auto& ip = address.ip;
  if (address.port == 0) return AddressScope::nonsense;
  if (address.is_v4()) return scope_of_v4(ip[12], ip[13], ip[14]);
  if (std::all_of(ip.begin(), ip.end() - 1, [](std::uint8_t byte) { return byte == 0; }) && ip[15] == 1)
    return AddressScope::loopback;
  if ((ip[0] & 0xfeU) == 0xfc) return AddressScope::local;
  // What is given out (2000::/3), without the prefixes that carry IPv4 addresses inside or are for texts.
  const bool is_given_out = (ip[0] & 0xe0U) == 0x20;
  const bool is_6to4 = ip[0] == 0x20 && ip[1] == 0x02;
  const bool is_special = ip[0] == 0x20 && ip[1] == 0x01 && (ip[2] & 0xfeU) == 0;  // 2001::/23, Teredo too
  const bool is_for_texts = ip[0] == 0x20 && ip[1] == 0x01 && ip[2] == 0x0d && ip[3] == 0xb8;
  return is_given_out && !is_6to4 && !is_special && !is_for_texts ? AddressScope::global : AddressScope::nonsense;
}

}  // namespace kitsune2
