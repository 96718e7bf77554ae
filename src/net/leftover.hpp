// Input that has arrived and was not used yet.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace kitsune2::net {

/// The rest of the input that a connection's owner did not use; it is passed again before the next input.
class Leftover {
 public:
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  /// Copies it to the front of a read buffer that has room for `size()` bytes there.
  void copy_to(std::uint8_t* front) const {
    if (!bytes_.empty()) std::memcpy(front, bytes_.data(), bytes_.size());
  }
  void clear() { bytes_.clear(); }
  void release() { std::vector<std::uint8_t>().swap(bytes_); }
  /// Keeps what follows `used`. Memory of a large rest is freed when a later one is used up.
  void keep(const std::uint8_t* data, std::size_t used, std::size_t size) {
    if (used < size) {
      bytes_.assign(data + used, data + size);
    } else if (bytes_.capacity() > kKeep) {
      release();
    }
  }

 private:
  static constexpr std::size_t kKeep = 64U << 10;
  std::vector<std::uint8_t> bytes_;
};

}  // namespace kitsune2::net
