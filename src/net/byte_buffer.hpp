// A growing byte queue with raw space at its end, from which sockets write.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>

#include "kitsune2/bytes.hpp"

namespace kitsune2::net {

/// A queue of bytes: appended at the end, taken from the front. New space is not zeroed. Amortised O(1) per byte. The
/// storage is freed when the buffer runs empty and is larger than `kKeep`.
class ByteBuffer {
 public:
  static constexpr std::size_t kKeep = 512U << 10;

  std::size_t size() const { return end_ - begin_; }
  bool empty() const { return begin_ == end_; }
  const std::uint8_t* data() const { return storage_.get() + begin_; }
  std::size_t capacity() const { return capacity_; }

  /// Appends `n` bytes of space and returns them. Valid until the next call.
  std::uint8_t* extend(std::size_t n) {
    if (capacity_ - end_ < n) make_room(n);
    std::uint8_t* out = storage_.get() + end_;
    end_ += n;
    return out;
  }
  /// Removes the last `n` bytes of `extend`.
  void retract(std::size_t n) { end_ -= n; }
  void append(ByteView bytes) {
    if (!bytes.empty()) std::memcpy(extend(bytes.size()), bytes.data(), bytes.size());
  }
  void consume(std::size_t n) {
    begin_ += n;
    if (begin_ != end_) return;
    begin_ = end_ = 0;
    if (capacity_ > kKeep) release();
  }
  /// Empties the buffer and frees its storage.
  void release() {
    storage_.reset();
    begin_ = end_ = capacity_ = 0;
  }

 private:
  void make_room(std::size_t n) {
    const std::size_t used = size();
    if (storage_ && capacity_ - used >= n && begin_ >= capacity_ / 2) {
      std::memmove(storage_.get(), data(), used);
    } else {
      std::size_t grown = capacity_ < 1024 ? 1024 : capacity_ * 2;
      while (grown - used < n) grown *= 2;
      std::unique_ptr<std::uint8_t[]> bigger(new std::uint8_t[grown]);
      if (used > 0) std::memcpy(bigger.get(), data(), used);
      storage_ = std::move(bigger);
      capacity_ = grown;
    }
    begin_ = 0;
    end_ = used;
  }

  std::unique_ptr<std::uint8_t[]> storage_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace kitsune2::net
