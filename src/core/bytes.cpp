// Byte strings, chains of them, and their hex and base64url texts.
#include "kitsune2/bytes.hpp"

#include <algorithm>
#include <array>

#include "core/buffer.hpp"

namespace kitsune2 {

Bytes::Bytes(std::vector<std::uint8_t> storage) {
  if (storage.empty()) return;
  auto owner = std::make_shared<const std::vector<std::uint8_t>>(std::move(storage));
  data_ = owner->data();
  size_ = owner->size();
  owner_ = std::move(owner);
}

Bytes::Bytes(std::string storage) {
  if (storage.empty()) return;
  auto owner = std::make_shared<const std::string>(std::move(storage));
  data_ = as_bytes(*owner).data();
  size_ = owner->size();
  owner_ = std::move(owner);
}

Bytes Bytes::copy_of(ByteView view) {
  if (view.empty()) return {};
  // One allocation holds the count and the bytes.
  std::shared_ptr<std::uint8_t[]> owner = std::make_shared_for_overwrite<std::uint8_t[]>(view.size());
  std::memcpy(owner.get(), view.data(), view.size());
  const ByteView inside{owner.get(), view.size()};
  return share(std::move(owner), inside);
}

Bytes Bytes::slice(std::size_t offset, std::size_t length) const {
  offset = std::min(offset, size_);
  length = std::min(length, size_ - offset);
  if (length == 0) return {};
  return share(owner_, {data_ + offset, length});
}

void ByteChain::append(Bytes piece) {
  if (piece.empty()) return;
  size_ += piece.size();
  pieces_.push_back(std::move(piece));
}

Bytes ByteChain::joined() const {
  if (pieces_.empty()) return {};
  if (pieces_.size() == 1) return pieces_.front();
  auto storage = make_buffer(size_);
  std::uint8_t* to = storage.get();
  for (const Bytes& piece : pieces_) to = std::copy(piece.begin(), piece.end(), to);
  const ByteView all{storage.get(), size_};
  return Bytes::share(std::move(storage), all);
}

std::string to_hex(ByteView bytes) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out(bytes.size() * 2, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    out[2 * i] = kDigits[bytes[i] >> 4U];
    out[2 * i + 1] = kDigits[bytes[i] & 15U];
  }
  return out;
}

namespace {

constexpr std::string_view kBase64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr std::uint8_t kNoDigit = 0xff;

constexpr std::array<std::uint8_t, 256> kBase64Values = [] {
  std::array<std::uint8_t, 256> values{};
  values.fill(kNoDigit);
  for (std::size_t i = 0; i < kBase64Digits.size(); ++i) {
    values[static_cast<std::uint8_t>(kBase64Digits[i])] = static_cast<std::uint8_t>(i);
  }
  return values;
}();

}  // namespace

std::string to_base64url(ByteView bytes) {
  std::string out;
  out.reserve((bytes.size() * 4 + 2) / 3);
  std::uint32_t bits = 0;
  unsigned count = 0;
  for (const std::uint8_t byte : bytes) {
    bits = (bits << 8U) | byte;
    count += 8;
    while (count >= 6) {
      count -= 6;
      out.push_back(kBase64Digits[(bits >> count) & 63U]);
    }
  }
  if (count > 0) out.push_back(kBase64Digits[(bits << (6 - count)) & 63U]);
  return out;
}

bool from_base64url(std::string_view text, std::vector<std::uint8_t>& out) {
  out.clear();
  if (text.size() % 4 == 1) return false;
  out.reserve(text.size() / 4 * 3 + 2);
  std::uint32_t bits = 0;
  unsigned count = 0;
  for (const char c : text) {
    const std::uint8_t value = kBase64Values[static_cast<std::uint8_t>(c)];
    if (value == kNoDigit) return false;
    bits = (bits << 6U) | value;
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<std::uint8_t>(bits >> count));
    }
  }
  return (bits & ((1U << count) - 1)) == 0;
}

}  // namespace kitsune2
