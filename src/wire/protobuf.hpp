// A small protobuf codec: reads without copying, writes in one pass into one allocation.
//
// Why not libprotobuf: docs/decisions/0001-own-protobuf-codec.md. The messages themselves are in proto/*.proto.
#pragma once

#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/buffer.hpp"
#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::wire {

/// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates, nothing above U+10FFFF).
bool is_utf8(std::string_view text) noexcept;

/// The bytes `part` of `whole`, sharing its storage. `part` must be a view into `whole`, or empty.
inline Bytes slice_of(const Bytes& whole, ByteView part) {
  if (part.empty()) return {};
  return whole.slice(static_cast<std::size_t>(part.data() - whole.data()), part.size());
}

enum class WireType : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, start_group = 3, end_group = 4, fixed32 = 5 };

/// Walks through the fields of one message. Pure; never reads outside its view; never throws.
///
/// *Rules*.
///  P1  These are errors: truncation, varints over 64 bits (tags and lengths: over 32), field number 0, wire types 3, 4
///      (groups), 6 and 7, and reading a field as another wire type than it has. Rationale: no message of kitsune2
///      contains them, so a peer that sends one is broken or hostile.
///  P2  Fields that the caller does not read are skipped.
///  P3  Numbers of 32 bits are the low half of the varint, and a bool is "not 0", as in every protobuf implementation.
///  P4  After the first error, `next` always returns false, and `ok` is false.
/// Use: `while (r.next()) switch (r.field()) {…}` and then `if (!r.ok())`. Cost: a few nanoseconds per field.
class ProtoReader {
 public:
  ProtoReader() = default;
  explicit ProtoReader(ByteView message) noexcept : pos_(message.data()), end_(message.data() + message.size()) {}

  /// Moves to the next field. Returns false at the end of the message or after an error.
  bool next() noexcept {
    if (pos_ == end_ || error_ != nullptr) return false;
    std::uint32_t tag = 0;
    if (!read_varint32(tag)) return false;
    field_ = tag >> 3;
    type_ = static_cast<WireType>(tag & 7U);
    if (field_ == 0) return fail("field number 0");
    switch (type_) {
      case WireType::varint:
        return read_varint64(number_);
      case WireType::bytes: {
        std::uint32_t length = 0;
        if (!read_varint32(length)) return false;
        return take(length);
      }
      case WireType::fixed64:
        return take(8);
      case WireType::fixed32:
        return take(4);
      default:
        return fail("unsupported wire type");
    }
  }

  std::uint32_t field() const noexcept { return field_; }
  WireType type() const noexcept { return type_; }

  /// The value of a varint field; 0 and an error for any other field.
  std::uint64_t varint() noexcept {
    if (type_ == WireType::varint) return number_;
    fail("wrong wire type");
    return 0;
  }
  std::uint32_t uint32() noexcept { return static_cast<std::uint32_t>(varint()); }
  std::int32_t int32() noexcept { return static_cast<std::int32_t>(uint32()); }
  std::int64_t int64() noexcept { return static_cast<std::int64_t>(varint()); }
  bool boolean() noexcept { return varint() != 0; }

  /// The value of a bytes, string or message field, inside the message; empty and an error for any other field.
  ByteView bytes() noexcept {
    if (type_ == WireType::bytes) return view_;
    fail("wrong wire type");
    return {};
  }
  /// The same for a string field, with an error if it is not UTF-8.
  std::string_view text() noexcept {
    const std::string_view out = as_text(bytes());
    if (!is_utf8(out)) fail("a string that is not UTF-8");
    return out;
  }
  /// Passes each number of a repeated number field, packed or not, to `take_one(uint64)`, which returns false to stop
  /// with an error of its own (see `fail`).
  template <class F>
  void numbers(F take_one) {
    if (type_ == WireType::varint) {
      take_one(number_);
      return;
    }
    ProtoReader packed(bytes());
    std::uint64_t value = 0;
    while (packed.pos_ != packed.end_) {
      if (!packed.read_varint64(value)) {
        fail(packed.error_);
        return;
      }
      if (!take_one(value)) return;
    }
  }

  bool ok() const noexcept { return error_ == nullptr; }
  /// What was wrong, as a literal; nullptr if nothing was.
  const char* what() const noexcept { return error_; }
  /// Ends the walk with an error. `why` is a literal. The first error stays. Always returns false.
  bool fail(const char* why, Errc code = Errc::malformed) noexcept {
    if (error_ == nullptr) {
      error_ = why;
      code_ = code;
    }
    return false;
  }
  /// "<message>: field <n>: <what>"
  Error error(std::string_view message) const {
    std::string text(message);
    text += ": field " + std::to_string(field_) + ": ";
    text += error_ != nullptr ? error_ : "no error";
    return {code_, std::move(text)};
  }

 private:
  bool take(std::size_t length) noexcept {
    if (static_cast<std::size_t>(end_ - pos_) < length) return fail("truncated");
    view_ = {pos_, length};
    pos_ += length;
    return true;
  }
  bool read_varint32(std::uint32_t& out) noexcept {
    if (pos_ != end_ && *pos_ < 0x80) {
      out = *pos_++;
      return true;
    }
    return read_long_varint32(out);
  }
  bool read_varint64(std::uint64_t& out) noexcept {
    if (pos_ != end_ && *pos_ < 0x80) {
      out = *pos_++;
      return true;
    }
    return read_long_varint64(out);
  }
  bool read_long_varint32(std::uint32_t& out) noexcept;
  bool read_long_varint64(std::uint64_t& out) noexcept;

  const std::uint8_t* pos_ = nullptr;
  const std::uint8_t* end_ = nullptr;
  const char* error_ = nullptr;
  ByteView view_;
  std::uint64_t number_ = 0;
  std::uint32_t field_ = 0;
  WireType type_ = WireType::varint;
  Errc code_ = Errc::malformed;
};

constexpr std::size_t varint_size(std::uint64_t value) noexcept {
  std::size_t n = 1;
  while (value >= 0x80) {
    value >>= 7;
    ++n;
  }
  return n;
}
/// The size of a bytes field of `length` bytes, including tag and length. `field` must be below 16.
constexpr std::size_t bytes_field_size(std::size_t length) noexcept { return 1 + varint_size(length) + length; }

/// The first pass of `build`: counts bytes.
class SizeSink {
 public:
  static constexpr bool kCounts = true;
  void varint(std::uint64_t value) noexcept { size_ += varint_size(value); }
  void raw(ByteView bytes) noexcept { size_ += bytes.size(); }
  void skip(std::size_t n) noexcept { size_ += n; }
  std::size_t size() const noexcept { return size_; }

 private:
  std::size_t size_ = 0;
};

/// The second pass of `build`: writes into memory that the first pass has measured.
class ByteSink {
 public:
  static constexpr bool kCounts = false;
  explicit ByteSink(std::uint8_t* out) noexcept : out_(out) {}
  void varint(std::uint64_t value) noexcept {
    while (value >= 0x80) {
      *out_++ = static_cast<std::uint8_t>(value | 0x80U);
      value >>= 7;
    }
    *out_++ = static_cast<std::uint8_t>(value);
  }
  void raw(ByteView bytes) noexcept {
    if (bytes.empty()) return;
    std::memcpy(out_, bytes.data(), bytes.size());
    out_ += bytes.size();
  }
  const std::uint8_t* position() const noexcept { return out_; }

 private:
  std::uint8_t* out_;
};

/// For messages in pieces: shared bytes stay where they are; everything else is written into pieces of its own.
class ChainSink {
 public:
  static constexpr bool kCounts = false;
  ChainSink() { own_.reserve(64); }
  void varint(std::uint64_t value) {
    while (value >= 0x80) {
      own_.push_back(static_cast<std::uint8_t>(value | 0x80U));
      value >>= 7;
    }
    own_.push_back(static_cast<std::uint8_t>(value));
  }
  void raw(ByteView bytes) { own_.insert(own_.end(), bytes.begin(), bytes.end()); }
  void share(const Bytes& bytes) {
    out_.append(Bytes(std::exchange(own_, {})));
    out_.append(bytes);
  }
  ByteChain finish() {
    out_.append(Bytes(std::exchange(own_, {})));
    return std::move(out_);
  }

 private:
  std::vector<std::uint8_t> own_;
  ByteChain out_;
};

template <class Sink>
void put_tag(Sink& sink, std::uint32_t field, WireType type) {
  sink.varint((static_cast<std::uint64_t>(field) << 3) | static_cast<std::uint64_t>(type));
}
/// A number field; nothing is written for 0, the default.
template <class Sink>
void put_number(Sink& sink, std::uint32_t field, std::uint64_t value) {
  if (value == 0) return;
  put_tag(sink, field, WireType::varint);
  sink.varint(value);
}
/// The same for signed numbers (negative ones take ten bytes).
template <class Sink>
void put_int64(Sink& sink, std::uint32_t field, std::int64_t value) {
  put_number(sink, field, static_cast<std::uint64_t>(value));
}
/// A bytes or string field that is written even if empty, for repeated and optional fields.
template <class Sink>
void put_item(Sink& sink, std::uint32_t field, ByteView value) {
  put_tag(sink, field, WireType::bytes);
  sink.varint(value.size());
  sink.raw(value);
}
/// A singular bytes or string field; nothing is written if it is empty, the default.
template <class Sink>
void put_bytes(Sink& sink, std::uint32_t field, ByteView value) {
  if (!value.empty()) put_item(sink, field, value);
}
template <class Sink, class List>
void put_items(Sink& sink, std::uint32_t field, const List& values) {
  for (const auto& value : values) put_item(sink, field, value);
}
/// A field with a content of exactly `size` bytes, written by `body(sink)`.
template <class Sink, class Body>
void put_sized(Sink& sink, std::uint32_t field, std::size_t size, const Body& body) {
  put_tag(sink, field, WireType::bytes);
  sink.varint(size);
  if constexpr (Sink::kCounts) {
    sink.skip(size);
  } else {
    body(sink);
  }
}
/// A message field written by `body(sink)`, even if it is empty.
template <class Sink, class Body>
void put_message(Sink& sink, std::uint32_t field, const Body& body) {
  SizeSink inner;
  body(inner);
  put_sized(sink, field, inner.size(), body);
}
/// A packed repeated number field; nothing is written for an empty list.
template <class Sink, class List>
void put_packed(Sink& sink, std::uint32_t field, const List& values) {
  if (std::empty(values)) return;
  put_message(sink, field, [&](auto& s) {
    for (const auto value : values) s.varint(value);
  });
}

/// Runs `body(sink)` twice, to measure and to write. `make_buffer` allocates the storage.
template <class Body>
Bytes build(const Body& body) {
  SizeSink measure;
  body(measure);
  const std::size_t size = measure.size();
  if (size == 0) return {};
  std::shared_ptr<std::uint8_t[]> storage = make_buffer(size);
  std::uint8_t* const data = storage.get();
  ByteSink sink(data);
  body(sink);
  K2_ASSERT(sink.position() == data + size);
  return Bytes::share(std::move(storage), ByteView(data, size));
}

}  // namespace kitsune2::wire
