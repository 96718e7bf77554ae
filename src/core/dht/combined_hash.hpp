// The hash of a set of ops: the XOR of their ids.
#pragma once

#include <boost/container/small_vector.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

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
  CombinedHash(const CombinedHash&) = default;
  CombinedHash& operator=(const CombinedHash&) = default;
  CombinedHash(CombinedHash&& other) noexcept : words_(std::move(other.words_)), size_(std::exchange(other.size_, 0)) {}
  CombinedHash& operator=(CombinedHash&& other) noexcept {
    words_ = std::move(other.words_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }
  ~CombinedHash() = default;
  explicit CombinedHash(ByteView bytes) { assign(bytes); }

  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  ByteView view() const { return {reinterpret_cast<const std::uint8_t*>(words_.data()), size_}; }

  void combine(ByteView other) {
    if (other.empty()) return;
    if (size_ == 0) return assign(other);
    K2_ASSERT(other.size() == size_);
    Word* word = words_.data();
    const std::uint8_t* bytes = other.data();
    std::size_t left = size_;
    if (left == 32) {  // the usual length: no loop
      for (std::size_t i = 0; i < 4; ++i) word[i] ^= read(bytes + i * kWord, kWord);
      return;
    }
    for (; left >= kWord; left -= kWord, bytes += kWord) *word++ ^= read(bytes, kWord);
    if (left > 0) *word ^= read(bytes, left);
  }
  void combine(const CombinedHash& other) { combine(other.view()); }

  friend bool operator==(const CombinedHash& a, const CombinedHash& b) {
    return as_text(a.view()) == as_text(b.view());
  }

 private:
  using Word = std::uint64_t;
  static constexpr std::size_t kWord = sizeof(Word);

  static Word read(const std::uint8_t* bytes, std::size_t size) {
    Word out = 0;
    std::memcpy(&out, bytes, size);
    return out;
  }
  void assign(ByteView bytes) {
    size_ = bytes.size();
    words_.resize((size_ + kWord - 1) / kWord);
    if (size_ > 0) std::memcpy(words_.data(), bytes.data(), size_);
  }

  // The bytes, as words because each op is combined twice: the XOR of words is that of their bytes, in either order.
  // Holochain's ids have 36 bytes, those of other hosts have 32.
  boost::container::small_vector<Word, 5> words_;
  std::size_t size_ = 0;
};

}  // namespace kitsune2::dht
