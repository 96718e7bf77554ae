// Which runs are merged, and merging in small steps. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "store/runs/run.hpp"

namespace kitsune2::runs {

struct MergeRules {
  std::size_t newest = 32'768;  ///< entries in memory that become a run
  /// As many runs of one level become one run. *Rationale* of 8: an entry is written once a level, and an id that is
  /// not held is looked for in up to seven filters a level.
  std::size_t fan_in = 8;
  /// Runs that would have more together stay as they are. *Rationale*: bounds what one merge needs of disk and memory.
  std::uint64_t most_entries = std::uint64_t{1} << 25U;
  /// A step does at least so much, in entries, or waits: a call of one op must not write a piece of a block.
  std::size_t least_work = 1'024;
  /// Ops in no run that are kept in memory, at most, when the index is opened or followed. *Rationale*: more than a
  /// crash leaves, unless a single call had more.
  std::size_t most_read = 131'072;
  /// Ops that an index which is behind takes in one transaction, at least: some 20 ms.
  std::size_t caught_up_at_once = 4'096;
};

/// The level of a run: 0 up to `newest` entries, and one more for each `fan_in` times as many.
std::size_t level_of(std::uint64_t entries, const MergeRules& rules);

/// Which of the runs of one order are merged next, as indices in `entries`, which has the sizes of those that are in no
/// merge yet, the oldest first: the oldest `fan_in` of the lowest level that has so many. Empty: none.
std::vector<std::size_t> choose_merge(std::span<const std::uint64_t> entries, const MergeRules& rules);

/// Writes one run from several inputs, a step at a time. It can be dropped at any time: what it wrote is in slots that
/// no manifest names.
class MergeJob {
 public:
  /// `is_held(stored_at)`: whether the op is still there; others are left out.
  using IsHeld = std::function<bool(std::int64_t stored_at)>;

  MergeJob(std::vector<std::unique_ptr<Cursor>> inputs, std::unique_ptr<RunBuilder> builder, IsHeld is_held);

  /// Takes what it does from `budget`, in entries; a block counts as kEntriesABlock. True: the run is complete, and may
  /// have no entries (then it has no blocks either).
  Result<bool> step(std::size_t& budget);
  static constexpr std::size_t kEntriesABlock = 256;

  RunBuilder& builder() { return *builder_; }

 private:
  std::size_t smallest() const;

  std::vector<std::unique_ptr<Cursor>> inputs_;  ///< those that are not at their end
  std::vector<Fence> fences_;                    ///< of their entries
  std::unique_ptr<RunBuilder> builder_;
  IsHeld is_held_;
  Order order_;
};

}  // namespace kitsune2::runs
