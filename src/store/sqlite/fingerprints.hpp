// What ops looked like when they last had their ids: tells bytes that have not changed from those that must be hashed.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "kitsune2/op_policy.hpp"
#include "store/byte_sum.hpp"

namespace kitsune2::sqlite {

/// A sum of an op's bytes, id and time. Nobody but this process keeps it.
inline std::uint64_t fingerprint(ByteView op_id, Timestamp created_at, ByteView bytes) {
  return store::ByteSum(static_cast<std::uint64_t>(created_at.micros)).add(op_id).add(bytes).value();
}

/// The fingerprints of ops that had their ids, by time of storing: written by both threads of a store. *Rationale*: an
/// op that is served to many is hashed once, and one that this process stored not at all. Whatever does not match, or
/// is not known, is hashed.
class Fingerprints {
 public:
  /// The hash of smaller ops costs as little.
  static constexpr std::size_t kLeastBytes = 512;
  /// About 32 MiB. When there are more all are forgotten.
  static constexpr std::size_t kMost = 1U << 20U;
  using Entry = std::pair<std::int64_t, std::uint64_t>;

  void put(const std::vector<Entry>& entries) {
    if (entries.empty()) return;
    const std::lock_guard lock(mutex_);
    for (const auto& [stored_at, print] : entries) {
      if (known_.size() >= kMost) known_.clear();
      known_.insert_or_assign(stored_at, print);
    }
  }
  std::optional<std::uint64_t> get(std::int64_t stored_at) const {
    const std::lock_guard lock(mutex_);
    const auto it = known_.find(stored_at);
    return it == known_.end() ? std::nullopt : std::optional(it->second);
  }

 private:
  mutable std::mutex mutex_;
  boost::unordered_flat_map<std::int64_t, std::uint64_t> known_;
};

}  // namespace kitsune2::sqlite
