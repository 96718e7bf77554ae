// Notices that a peer is sent the same ops again, from a sample of their ids. Pure.
#pragma once

#include <algorithm>
#include <boost/unordered/unordered_flat_set.hpp>
#include <cstddef>
#include <cstdint>

namespace kitsune2 {

/// Remembers a sample of what one peer was sent: those ops whose hash ends in some zero bits, first none. When the
/// sample is full, it keeps those that end in one zero bit more. So it covers any number of ops in the same memory, and
/// each op in it stands for `weight` of them. The hash must be keyed, so that a peer cannot choose ops outside of the
/// sample.
class ServedSample {
 public:
  static constexpr std::size_t kMost = 256;

  /// For how many ops that were sent before a repetition stands (0: it is none, or not in the sample), and their bytes.
  struct Again {
    std::uint64_t ops = 0, bytes = 0;
  };

  /// The op with this hash, of `size` bytes, is sent. Where it stands for others, each of them counts with the average
  /// size of what was sent so far, if that is less: one large op that had to be sent twice does not stand for many.
  Again note(std::uint64_t hash, std::uint64_t size) {
    ++ops_;
    bytes_ += size;
    if ((hash & mask_) != 0) return {};
    if (!seen_.insert(hash).second) return {weight(), size + (weight() - 1) * std::min(size, bytes_ / ops_)};
    while (seen_.size() > kMost) {
      mask_ = 2 * mask_ + 1;
      boost::unordered::erase_if(seen_, [this](std::uint64_t each) { return (each & mask_) != 0; });
    }
    return {};
  }
  std::uint64_t weight() const { return mask_ + 1; }
  std::size_t size() const { return seen_.size(); }

 private:
  boost::unordered_flat_set<std::uint64_t> seen_;
  std::uint64_t mask_ = 0;
  std::uint64_t ops_ = 0, bytes_ = 0;
};

}  // namespace kitsune2
