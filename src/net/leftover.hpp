// Input that has come and was not used yet.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace kitsune2::net {

/// The end of what a connection's owner was given and did not use: it comes again, before what comes next.
class Leftover {
 public:
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  /// To the front of a read buffer, where `size()` bytes of room were left for it.
  void copy_to(std::uint8_t* front) const {
    if (!bytes_.empty()) std::memcpy(front, bytes_.data(), bytes_.size());
  }
  void clear() { bytes_.clear(); }
  void release() { std::vector<std::uint8_t>().swap(bytes_); }
  /// Keeps what is behind `used`; memory that a large one took is given back with the next that is used up.
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
