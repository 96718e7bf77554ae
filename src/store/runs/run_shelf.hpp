// The runs that a store has open, for those of its connections that only read.
#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "store/runs/run.hpp"

namespace kitsune2::runs {

/// Whoever writes puts the runs of a manifest there when that is durable, never before: until then a run may be rolled
/// back, and its number comes again. So fences and filters of a store are read, and kept in memory, once. Any thread.
class RunShelf {
 public:
  /// In place of those before.
  void put(std::vector<std::shared_ptr<const Run>> runs) {
    const std::lock_guard lock(mutex_);
    runs_.swap(runs);
  }
  /// Null: it is not there.
  std::shared_ptr<const Run> find(const RunInfo& info) const {
    const std::lock_guard lock(mutex_);
    const auto it = std::find_if(runs_.begin(), runs_.end(), [&](const auto& run) { return run->info() == info; });
    return it != runs_.end() ? *it : nullptr;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const Run>> runs_;
};

}  // namespace kitsune2::runs
