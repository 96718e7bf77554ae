// Immutable, shared byte strings: the one payload type of the library.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kitsune2/abi.hpp"

namespace kitsune2 {

/// Borrowed bytes. Valid only as long as what it points into.
using ByteView = std::span<const std::uint8_t>;

/// Views text as bytes. `text` must outlive the result.
inline ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// Views bytes as text. No check for UTF-8. `bytes` must outlive the result.
inline std::string_view as_text(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// An immutable byte string that shares its storage.
///
/// Copying is a reference count, slicing is free: a message that came from the network is
/// handed to the codec, the store and the application without its bytes being copied.
/// *Rule*: a slice keeps the whole buffer alive. What is kept for long (ids, a cache) takes a copy with `compact()`.
/// Thread rule: values are independent; distinct `Bytes` over one buffer may be used from distinct threads.
class Bytes {
 public:
  Bytes() = default;

  /// Takes over `storage`; no copy of its bytes.
  explicit Bytes(std::vector<std::uint8_t> storage);
  /// Takes over `storage`; no copy of its bytes.
  explicit Bytes(std::string storage);

  /// A private copy of `view`.
  static Bytes copy_of(ByteView view);
  static Bytes copy_of(std::string_view text) { return copy_of(as_bytes(text)); }

  /// Bytes inside a buffer that `owner` keeps alive.
  static Bytes share(std::shared_ptr<const void> owner, ByteView view) {
    Bytes out;
    out.owner_ = std::move(owner);
    out.data_ = view.data();
    out.size_ = view.size();
    return out;
  }

  const std::uint8_t* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  const std::uint8_t* begin() const noexcept { return data_; }
  const std::uint8_t* end() const noexcept { return data_ + size_; }
  std::uint8_t operator[](std::size_t i) const noexcept { return data_[i]; }

  ByteView view() const noexcept { return {data_, size_}; }
  operator ByteView() const noexcept { return view(); }  // NOLINT(google-explicit-constructor)
  std::string_view text() const noexcept { return as_text(view()); }
  std::string str() const { return std::string(text()); }

  /// The bytes `[offset, offset + length)`, sharing the storage. Both are cut to what is there.
  Bytes slice(std::size_t offset, std::size_t length = SIZE_MAX) const;

  /// A copy that does not keep a larger buffer alive.
  Bytes compact() const { return copy_of(view()); }

  friend bool operator==(const Bytes& a, const Bytes& b) noexcept {
    return a.size_ == b.size_ && (a.size_ == 0 || std::memcmp(a.data_, b.data_, a.size_) == 0);
  }
  friend std::strong_ordering operator<=>(const Bytes& a, const Bytes& b) noexcept { return a.text() <=> b.text(); }

 private:
  std::shared_ptr<const void> owner_;
  const std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Bytes in several pieces, one after the other: a message whose large parts are sent from where they lie.
/// Thread rule: as for Bytes.
class ByteChain {
 public:
  ByteChain() = default;
  ByteChain(Bytes whole) { append(std::move(whole)); }  // NOLINT(google-explicit-constructor)

  /// No effect for empty bytes.
  void append(Bytes piece);
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  std::span<const Bytes> pieces() const noexcept { return pieces_; }
  /// All of it in one: a single piece as it is, several are copied.
  Bytes joined() const;

 private:
  std::vector<Bytes> pieces_;
  std::size_t size_ = 0;
};

/// Lower-case hexadecimal.
std::string to_hex(ByteView bytes);
/// URL-safe base64 without padding, as in URLs, agent infos and bootstrap paths.
std::string to_base64url(ByteView bytes);
/// The bytes of URL-safe base64 without padding. False: a foreign character, padding, an impossible length or
/// trailing bits that are not zero; `out` is then unspecified.
bool from_base64url(std::string_view text, std::vector<std::uint8_t>& out);

}  // namespace kitsune2
