// Reads and writes the fields of protobuf messages.
#include "wire/protobuf.hpp"

namespace kitsune2::wire {

bool is_utf8(std::string_view text) noexcept {
  const auto* p = reinterpret_cast<const std::uint8_t*>(text.data());
  const auto* const end = p + text.size();
  const auto continues = [&](std::ptrdiff_t at) { return (p[at] & 0xC0U) == 0x80U; };
  while (p != end) {
    const std::ptrdiff_t left = end - p;
    const std::uint8_t first = *p;
    if (first < 0x80) {
      p += 1;
    } else if (first >= 0xC2 && first <= 0xDF) {
      if (left < 2 || !continues(1)) return false;
      p += 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
      if (left < 3 || !continues(1) || !continues(2)) return false;
      if (first == 0xE0 && p[1] < 0xA0) return false;  // overlong
      if (first == 0xED && p[1] > 0x9F) return false;  // surrogates
      p += 3;
    } else if (first >= 0xF0 && first <= 0xF4) {
      if (left < 4 || !continues(1) || !continues(2) || !continues(3)) return false;
      if (first == 0xF0 && p[1] < 0x90) return false;  // overlong
      if (first == 0xF4 && p[1] > 0x8F) return false;  // above U+10FFFF
      p += 4;
    } else {
      return false;
    }
  }
  return true;
}

bool ProtoReader::read_long_varint32(std::uint32_t& out) noexcept {
  std::uint32_t value = 0;
  for (unsigned shift = 0; shift < 35; shift += 7) {
    if (pos_ == end_) return fail("truncated");
    const std::uint8_t byte = *pos_++;
    if (shift == 28 && byte > 0x0F) return fail("a length or tag over 32 bits");
    value |= static_cast<std::uint32_t>(byte & 0x7FU) << shift;
    if (byte < 0x80) {
      out = value;
      return true;
    }
  }
  return fail("a length or tag over 32 bits");
}

bool ProtoReader::read_long_varint64(std::uint64_t& out) noexcept {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 70; shift += 7) {
    if (pos_ == end_) return fail("truncated");
    const std::uint8_t byte = *pos_++;
    if (shift == 63 && byte > 0x01) return fail("a number over 64 bits");
    value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
    if (byte < 0x80) {
      out = value;
      return true;
    }
  }
  return fail("a number over 64 bits");
}

}  // namespace kitsune2::wire
