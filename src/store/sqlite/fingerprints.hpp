// What ops looked like when they last had their ids: tells bytes that have not changed from those that must be hashed.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstring>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "kitsune2/op_policy.hpp"

namespace kitsune2::sqlite {

/// A sum of an op's bytes, id and time, some ten times as fast as SHA-256. It finds what disks do to bytes, not what an
/// attacker does; nobody but this process keeps it.
inline std::uint64_t fingerprint(ByteView op_id, Timestamp created_at, ByteView bytes) {
  constexpr std::uint64_t kOdd[] = {0x9e37'79b9'7f4a'7c15U, 0xbf58'476d'1ce4'e5b9U, 0x94d0'49bb'1331'11ebU,
                                    0xd6e8'feb8'6659'fd93U};
  const auto mixed = [](std::uint64_t a, std::uint64_t b) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
  };
  const auto word = [](const std::uint8_t* from, std::size_t size) {
    std::uint64_t out = 0;
    std::memcpy(&out, from, size);
    return out;
  };
  // Four sums side by side, so that a multiplication need not wait for the one before.
  std::uint64_t sums[4];
  for (std::size_t i = 0; i < 4; ++i) sums[i] = kOdd[i] ^ static_cast<std::uint64_t>(created_at.micros);
  const auto add = [&](ByteView data) {
    const std::uint8_t* p = data.data();
    std::size_t left = data.size();
    for (; left >= 64; left -= 64, p += 64) {
      for (std::size_t i = 0; i < 4; ++i) {
        sums[i] = mixed(word(p + 16 * i, 8) ^ sums[i], word(p + 16 * i + 8, 8) ^ kOdd[i]) + sums[i];
      }
    }
    for (std::size_t i = 0; left > 0; i = (i + 1) % 4) {
      const std::size_t size = std::min<std::size_t>(left, 8);
      sums[i] = mixed(word(p, size) ^ sums[i], kOdd[i]) + (left << i);
      left -= size;
      p += size;
    }
  };
  add(op_id);
  add(bytes);
  std::uint64_t out = bytes.size();
  for (const std::uint64_t sum : sums) out = mixed(out ^ kOdd[0], sum ^ kOdd[1]) + sum;
  return out;
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
