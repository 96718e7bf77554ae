// The hash of a set of ops: the XOR of their ids.
#pragma once

#include <boost/container/small_vector.hpp>
#include <cstddef>
#include <cstdint>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::dht {

/// The XOR of op ids. The hash of no ops has no bytes, unlike a XOR that happens to be all zeros; combined with another
/// hash it gives that one. All ids of a model have one length; combining hashes of different lengths is a bug. Source:
/// the reference's kitsune2_dht, `hash.rs`.
///
/// *Limit*. An attacker who can create many ops can choose ids whose XOR is any value, so that two nodes appear to be
/// in sync and are not. The wire protocol of the reference allows nothing better; docs/security.md says so.
class CombinedHash {
 public:
  CombinedHash() = default;
  explicit CombinedHash(ByteView bytes) : bytes_(bytes.begin(), bytes.end()) {}

  bool empty() const { return bytes_.empty(); }
  std::size_t size() const { return bytes_.size(); }
  ByteView view() const { return {bytes_.data(), bytes_.size()}; }

  void combine(ByteView other) {
    if (other.empty()) return;
    if (bytes_.empty()) {
      bytes_.assign(other.begin(), other.end());
      return;
    }
    K2_ASSERT(other.size() == bytes_.size());
    for (std::size_t i = 0; i < other.size(); ++i) bytes_[i] ^= other[i];
  }
  void combine(const CombinedHash& other) { combine(other.view()); }

  friend bool operator==(const CombinedHash& a, const CombinedHash& b) {
    return as_text(a.view()) == as_text(b.view());
  }

 private:
  // Holochain's ids have 36 bytes, those of other hosts have 32.
  boost::container::small_vector<std::uint8_t, 36> bytes_;
};

}  // namespace kitsune2::dht
