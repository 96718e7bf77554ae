// For tests of the wire: hexadecimal, random bytes, mutations.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "kitsune2/bytes.hpp"

namespace kitsune2::wire::test {

inline Bytes from_hex(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::vector<std::uint8_t> out;
  out.reserve(hex.size() / 2);
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    out.push_back(static_cast<std::uint8_t>(digit(hex[i]) * 16 + digit(hex[i + 1])));
  }
  return Bytes(std::move(out));
}

inline Bytes from_b64(std::string_view text) {
  std::vector<std::uint8_t> out;
  return from_base64url(text, out) ? Bytes(std::move(out)) : Bytes{};
}

/// Seeded, so that it is the same on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t below(std::uint64_t n) { return engine_() % n; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  /// Small numbers, large ones, and the edges between varint lengths.
  std::uint64_t number() {
    switch (below(4)) {
      case 0:
        return below(3);
      case 1:
        return below(1000);
      case 2:
        return (std::uint64_t{1} << (7 * below(10))) - below(2);
      default:
        return engine_();
    }
  }
  std::string bytes(std::size_t size) {
    std::string out(size, '\0');
    for (char& c : out) c = static_cast<char>(engine_());
    return out;
  }
  /// `message` with one to three changes of single bytes, lengths or order.
  std::string mutated(std::string message, const std::string& other) {
    for (std::uint64_t n = 1 + below(3); n > 0; --n) {
      const std::size_t at = message.empty() ? 0 : below(message.size());
      switch (below(message.empty() ? 1 : 8)) {
        case 0:
          message.insert(at, bytes(1 + below(3)));
          break;
        case 1:
          message.erase(at, 1 + below(4));
          break;
        case 2:
          message.resize(at);
          break;
        case 3:
          message[at] = static_cast<char>(message[at] ^ static_cast<char>(1U << below(8)));
          break;
        case 4:
          message.insert(at, message.substr(at, 1 + below(40)));
          break;
        case 5:
          message[at] = static_cast<char>(below(2) == 0 ? 0x80 : 0xFF);
          break;
        case 6:
          if (!other.empty()) message.insert(at, other.substr(below(other.size()), 1 + below(40)));
          break;
        default:
          message[at] = static_cast<char>(engine_());
          break;
      }
    }
    return message;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace kitsune2::wire::test
