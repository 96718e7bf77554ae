// Notices that a peer is sent the same ops again, from a sample of their ids. Pure.
#pragma once

#include <algorithm>
#include <boost/unordered/unordered_flat_set.hpp>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kitsune2 {

/// Remembers a sample of what one peer has taken: those ops whose hash ends in some zero bits, first none. When the
/// sample is full, it keeps those that end in one zero bit more. So it covers any number of ops in the same memory, and
/// each op in it stands for `weight` of them. The hash must be keyed, so that a peer cannot choose ops outside of the
/// sample. What was read for it, and could not be sent, does not count: the peer has to ask for that once more.
class ServedSample {
 public:
  static constexpr std::size_t kMost = 256;

  struct Op {
    std::uint64_t hash = 0, size = 0;
  };

  /// For how many ops that were sent before a repetition stands (0: it is none, or not in the sample), and their bytes.
  struct Again {
    std::uint64_t ops = 0, bytes = 0;
  };

  /// Whether the op with this hash belongs to the sample. If not, it will not later either.
  bool covers(std::uint64_t hash) const { return (hash & mask_) == 0; }
  /// The peer has taken a response with so many ops and bytes, of which `covered` were covered when it was read. Where
  /// one stands for others, each of them counts with the average size of what was taken so far, if that is less: one
  /// large op that had to be sent twice does not stand for many.
  Again took(std::uint64_t ops, std::uint64_t bytes, std::span<const Op> covered) {
    ops_ += ops;
    bytes_ += bytes;
    Again out;
    for (const Op& op : covered) {
      if (!covers(op.hash)) continue;
      if (seen_.insert(op.hash).second) {
        make_room();
      } else {
        out.ops += weight();
        out.bytes += op.size + (weight() - 1) * std::min(op.size, bytes_ / ops_);
      }
    }
    return out;
  }
  std::uint64_t weight() const { return mask_ + 1; }
  std::size_t size() const { return seen_.size(); }

 private:
  void make_room() {
    while (seen_.size() > kMost) {
      mask_ = 2 * mask_ + 1;
      boost::unordered::erase_if(seen_, [this](std::uint64_t each) { return !covers(each); });
    }
  }

  boost::unordered_flat_set<std::uint64_t> seen_;
  std::uint64_t mask_ = 0;
  std::uint64_t ops_ = 0, bytes_ = 0;
};

}  // namespace kitsune2
