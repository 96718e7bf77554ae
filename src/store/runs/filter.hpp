// Says of most ids that a run does not have that it does not have them.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "store/byte_sum.hpp"

namespace kitsune2::runs {

/// The hash of an id that filters take. `salt` is the store's own, so that nobody who may choose ids can choose which
/// of them filters take for others.
inline std::uint64_t filter_hash(std::uint64_t salt, ByteView id) { return store::ByteSum(salt).add(id).value(); }

/// A split block Bloom filter: an id sets one bit in each of the eight words of one line, so a question is one cache
/// miss. With kBitsPerId of them about one of 700 ids that were not added is taken for one that was. *Rationale* of 16:
/// each such id costs a block that is read, and an op that is stored is asked for in up to 19 filters of a store of ten
/// million; with 12 it was one of 200.
class Filter {
 public:
  struct alignas(32) Line : std::array<std::uint32_t, 8> {};
  static constexpr std::size_t kBitsPerId = 16;

  Filter() = default;
  explicit Filter(std::vector<Line> lines) : lines_(std::move(lines)) {}
  static std::size_t lines_for(std::uint64_t ids) {
    return static_cast<std::size_t>((ids * kBitsPerId + 8 * sizeof(Line) - 1) / (8 * sizeof(Line)));
  }

  void add(std::uint64_t hash) {
    if (lines_.empty()) return;
    Line& line = lines_[place(hash)];
    for (std::size_t i = 0; i < line.size(); ++i) line[i] |= bit(hash, i);
  }
  /// Has memory fetch what `may_have` will look at.
  void prefetch(std::uint64_t hash) const {
    if (!lines_.empty()) __builtin_prefetch(&lines_[place(hash)]);
  }
  /// The same for `add`.
  void prefetch_for_add(std::uint64_t hash) const {
    if (!lines_.empty()) __builtin_prefetch(&lines_[place(hash)], 1);
  }
  /// Without lines: true.
  bool may_have(std::uint64_t hash) const {
    if (lines_.empty()) return true;
    const Line& line = lines_[place(hash)];
    std::uint32_t missing = 0;
    for (std::size_t i = 0; i < line.size(); ++i) missing |= ~line[i] & bit(hash, i);
    return missing == 0;
  }
  const std::vector<Line>& lines() const { return lines_; }

 private:
  std::size_t place(std::uint64_t hash) const {
    return static_cast<std::size_t>(((hash >> 32U) * lines_.size()) >> 32U);
  }
  static std::uint32_t bit(std::uint64_t hash, std::size_t word) {
    constexpr std::uint32_t kOdd[] = {0x47b6137bU, 0x44974d91U, 0x8824ad5bU, 0xa2b7289dU,
                                      0x705495c7U, 0x2df1424bU, 0x9efc4947U, 0x5c6bfb31U};
    return 1U << ((static_cast<std::uint32_t>(hash) * kOdd[word]) >> 27U);
  }
  std::vector<Line> lines_;
};

}  // namespace kitsune2::runs
