// A sorted index over records that are only appended. It is updated when it is queried.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace kitsune2::store {

/// Record numbers in the order `Less`, as a few sorted runs, each at least twice as long as the next. Appending a
/// record costs nothing; `update` costs amortised O(log n) per record appended since the last one. *Rationale*: ops
/// arrive by the hundred thousand, but are queried by time or location once per gossip round; a tree would cost an
/// allocation and a search for every op.
template <class Less>
class LazyIndex {
 public:
  explicit LazyIndex(Less less) : less_(std::move(less)) {}

  /// Includes the records up to `count`.
  void update(std::uint32_t count) {
    if (indexed_ == count) return;
    std::vector<std::uint32_t> run(count - indexed_);
    std::iota(run.begin(), run.end(), indexed_);
    std::sort(run.begin(), run.end(), less_);
    indexed_ = count;
    while (!runs_.empty() && runs_.back().size() < 2 * run.size()) {
      std::vector<std::uint32_t> merged(runs_.back().size() + run.size());
      std::merge(runs_.back().begin(), runs_.back().end(), run.begin(), run.end(), merged.begin(), less_);
      runs_.pop_back();
      run = std::move(merged);
    }
    runs_.push_back(std::move(run));
  }

  /// The records of each run that are not `before` and not `after` the range; both must agree with `Less`.
  template <class Before, class After>
  std::vector<std::span<const std::uint32_t>> range(Before before, After after) const {
    std::vector<std::span<const std::uint32_t>> out;
    for (const auto& run : runs_) {
      const auto first = std::partition_point(run.begin(), run.end(), before);
      const auto last = std::partition_point(first, run.end(), [&](std::uint32_t r) { return !after(r); });
      if (first != last) out.emplace_back(first, last);
    }
    return out;
  }

 private:
  Less less_;
  std::vector<std::vector<std::uint32_t>> runs_;
  std::uint32_t indexed_ = 0;
};

}  // namespace kitsune2::store
