// Blocks of runs that were read and checked lately.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "store/runs/block.hpp"

namespace kitsune2::runs {

/// A block of entries with bytes of its own, as it was found to be sealed. Nobody changes it.
struct CheckedBlock {
  BlockBytes bytes = BlockBytes(kBlockBytes);
  EntryView view;  ///< of `bytes`
};

/// Keeps blocks, so that a look-up need not copy and sum up 16 KiB each time. A run never changes, so what was right
/// once is the right answer later, whatever the disk has made of it meanwhile; that is found when the block is read
/// again: by a merge, by a check, by the next start, or when it was forgotten.
///
/// Any thread. It forgets a block that was not asked for in the last turn of a hand that goes round.
class BlockCache {
 public:
  struct Key {
    std::uint64_t run = 0;  ///< Run::key
    std::uint32_t block = 0;
    friend bool operator==(const Key&, const Key&) = default;
  };

  explicit BlockCache(std::size_t most_blocks) : most_(most_blocks) {}

  /// Null: it is not kept.
  std::shared_ptr<const CheckedBlock> find(const Key& key);
  void keep(const Key& key, std::shared_ptr<const CheckedBlock> block);
  std::size_t size() const;

 private:
  struct KeyHash {
    using is_avalanching = void;
    std::size_t operator()(const Key& key) const;
  };
  struct Kept {
    Key key;
    std::shared_ptr<const CheckedBlock> block;
    bool is_used = false;  ///< since the hand was there
  };

  const std::size_t most_;
  mutable std::mutex mutex_;
  std::vector<Kept> kept_;
  boost::unordered_flat_map<Key, std::size_t, KeyHash> where_;  ///< in `kept_`
  std::size_t hand_ = 0;
};

}  // namespace kitsune2::runs
