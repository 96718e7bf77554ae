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
  /// Keeps what follows `used`, and not much more memory than that takes: a client that has sent much once would
  /// otherwise occupy it for as long as it is connected.
  void keep(const std::uint8_t* data, std::size_t used, std::size_t size) {
    const std::size_t rest = size - used;
    if (bytes_.capacity() > 2 * rest + kSpare) release();
    bytes_.assign(data + used, data + size);
  }
  std::size_t memory() const { return bytes_.capacity(); }

 private:
  static constexpr std::size_t kSpare = 4U << 10;
  std::vector<std::uint8_t> bytes_;
};

}  // namespace kitsune2::net
