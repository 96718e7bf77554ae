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

/// Borrowed bytes, valid only as long as what they point into.
using ByteView = std::span<const std::uint8_t>;

/// Views text as bytes. `text` must outlive the result.
inline ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// Views bytes as text. No check for UTF-8. `bytes` must outlive the result.
inline std::string_view as_text(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// An immutable byte string that shares its storage.
///
/// Copying costs a reference count, and slicing costs nothing: a message from the network reaches the codec, the store
/// and the application without a copy. *Rule*: a slice keeps the whole buffer alive. Whatever is kept for long (ids, a
/// cache) should be copied with `compact()`.
/// Thread rule: values are independent; several threads may use different `Bytes` over the same buffer.
class Bytes {
 public:
  Bytes() = default;

  /// Takes over `storage` without copying its bytes.
  explicit Bytes(std::vector<std::uint8_t> storage);
  /// Takes over `storage` without copying its bytes.
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

  /// The bytes `[offset, offset + length)`, sharing the storage. Both bounds are clipped to the size.
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

/// A sequence of pieces that form one message; large parts are sent from where they lie.
/// Thread rule: as for Bytes.
class ByteChain {
 public:
  ByteChain() = default;
  ByteChain(Bytes whole) { append(std::move(whole)); }  // NOLINT(google-explicit-constructor)

  /// No effect if `piece` is empty.
  void append(Bytes piece);
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  std::span<const Bytes> pieces() const noexcept { return pieces_; }
  /// All pieces as one. A single piece is returned as it is; several are copied.
  Bytes joined() const;

 private:
  std::vector<Bytes> pieces_;
  std::size_t size_ = 0;
};

/// Lower-case hexadecimal.
std::string to_hex(ByteView bytes);
/// URL-safe base64 without padding, as in URLs, agent infos and bootstrap paths.
std::string to_base64url(ByteView bytes);
/// Decodes URL-safe base64 without padding. Returns false for a foreign character, padding, an impossible length or
/// non-zero trailing bits; `out` is then unspecified.
bool from_base64url(std::string_view text, std::vector<std::uint8_t>& out);

}  // namespace kitsune2
