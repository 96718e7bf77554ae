// Lists of byte strings inside a received message, walked in place without allocations.
#pragma once

#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/ids.hpp"
#include "wire/protobuf.hpp"

namespace kitsune2::wire {

/// The most that a decoder accepts in one message. Beyond a limit: Errc::too_large. *Rationale*: an element can have
/// three bytes on the wire, and costs much more to keep than to send.
struct WireLimits {
  std::size_t max_items = 1U << 20;    ///< ids, ops, hashes and numbers, in all lists of the message together
  std::size_t max_id_bytes = 1024;     ///< one id or hash
  std::size_t max_name_bytes = 256;    ///< a module name
  std::size_t max_text_bytes = 65536;  ///< an agent info or a reason
  /// Unknown fields, and earlier values of fields that occur repeatedly. *Rationale*: keeping a part of a message keeps
  /// all of it; bounds that count the content would not see 64 MiB beside one id.
  std::size_t max_unknown_bytes = 4096;
};

/// Whether a message of `size` bytes has more than a little beside `content` bytes in `parts` parts.
inline bool is_padded(std::size_t size, std::size_t content, std::size_t parts, std::size_t part_header,
                      const WireLimits& limits) {
  return size > content + parts * part_header + limits.max_unknown_bytes;
}
inline Error padded(std::string_view name) {
  return make_error(Errc::too_large, std::string(name) + ": more beside the content than it may have");
}

/// Repeated field 1 of a message that was checked before: its elements in order. Holds the message. `field` in the
/// constructor is 0 for elements that are byte strings; otherwise each element is a message, and its field of that
/// number is meant (FetchResponse.ops). Immutable.
class CheckedList {
 public:
  class iterator {
   public:
    using value_type = ByteView;
    using difference_type = std::ptrdiff_t;
    iterator() = default;
    iterator(ByteView message, std::uint32_t field) : reader_(message), field_(field) { advance(); }
    ByteView operator*() const noexcept { return value_; }
    iterator& operator++() {
      advance();
      return *this;
    }
    void operator++(int) { advance(); }
    friend bool operator==(const iterator& a, std::default_sentinel_t) noexcept { return a.done_; }

   private:
    void advance() {
      while (reader_.next()) {
        if (reader_.field() != 1) continue;
        value_ = reader_.bytes();
        if (field_ != 0) value_ = inside(value_);
        return;
      }
      done_ = true;
    }
    ByteView inside(ByteView element) const {
      ProtoReader reader(element);
      ByteView out;
      while (reader.next()) {
        if (reader.field() == field_) out = reader.bytes();
      }
      return out;
    }
    ProtoReader reader_;
    ByteView value_;
    std::uint32_t field_ = 0;
    bool done_ = false;
  };

  CheckedList() = default;
  /// Only for decoders that have checked `message` and counted `size` elements.
  CheckedList(Bytes message, std::uint32_t field, std::size_t size, std::size_t total_bytes)
      : message_(std::move(message)), field_(field), size_(size), total_bytes_(total_bytes) {}

  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  /// Sum of the elements' sizes.
  std::size_t total_bytes() const noexcept { return total_bytes_; }
  /// The size of the message that this holds.
  std::size_t message_bytes() const noexcept { return message_.size(); }
  /// The same elements, in a copy of the message that keeps no other memory.
  CheckedList copied() const { return CheckedList(Bytes::copy_of(message_.view()), field_, size_, total_bytes_); }
  iterator begin() const { return iterator(message_.view(), field_); }
  std::default_sentinel_t end() const noexcept { return {}; }

  /// All elements as slices, which keep the message alive: one allocation, and no payload is copied.
  std::vector<Bytes> slices() const {
    std::vector<Bytes> out;
    out.reserve(size_);
    for (const ByteView item : *this) out.push_back(slice_of(message_, item));
    return out;
  }
  /// All elements as ids, which own their bytes (no allocation for ids up to 39 bytes).
  template <class IdType>
  std::vector<IdType> ids() const {
    std::vector<IdType> out;
    out.reserve(size_);
    for (const ByteView item : *this) out.emplace_back(item);
    return out;
  }

 private:
  Bytes message_;
  std::uint32_t field_ = 0;
  std::size_t size_ = 0;
  std::size_t total_bytes_ = 0;
};

/// Op ids: each 1 byte to WireLimits::max_id_bytes.
using IdList = CheckedList;
/// The data of ops, or the host's metadata for them; may be empty.
using DataList = CheckedList;

/// The form of one op in a list.
enum class OpForm {
  data,         ///< {1: data}
  id_and_data,  ///< {1: id, 2: data}
};
/// The ids, if they are in the message, and the data of the same ops.
struct OpLists {
  IdList ids;
  DataList data;
};

/// Checks a message whose field 1 is a list of ids. `name` is for the error.
Result<IdList> check_id_list(Bytes message, const WireLimits& limits, std::string_view name);
/// Checks a message whose field 1 is a list of ops.
Result<OpLists> check_op_lists(Bytes message, OpForm form, const WireLimits& limits, std::string_view name);

}  // namespace kitsune2::wire
