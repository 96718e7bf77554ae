// A run: entries in order that never change, in blocks, with fences to find a block by and a filter. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "store/runs/block_cache.hpp"
#include "store/runs/filter.hpp"

namespace kitsune2::runs {

/// Slots `first` to `first + count - 1`.
struct Extent {
  std::uint64_t first = 0;
  std::uint32_t count = 0;
  friend bool operator==(const Extent&, const Extent&) = default;
};

/// What a manifest says of a run.
struct RunInfo {
  std::uint64_t number = 0;  ///< no two runs of a store ever have the same
  Order order = Order::by_place;
  std::uint64_t entries = 0;
  std::uint32_t entry_blocks = 0;
  std::vector<Extent> slots;  ///< of all blocks: entries, then fences, then the filter
  friend bool operator==(const RunInfo&, const RunInfo&) = default;

  std::uint32_t blocks() const;
};

inline constexpr std::size_t kFencesPerBlock = kBlockBody / 16;
inline constexpr std::size_t kLinesPerBlock = kBlockBody / sizeof(Filter::Line);

/// A run that is open: its fences and its filter are in memory, about 2.1 bytes an entry by place, and 0.1 by time.
class Run {
 public:
  Run(RunInfo info, std::vector<Fence> fences, Filter filter);
  /// Reads fences and filter. Errc::corrupt, or an error of the file.
  static Result<std::shared_ptr<const Run>> open(RunInfo info, BlockFile& file);

  const RunInfo& info() const { return info_; }
  /// No two objects of the process ever have the same. *Rationale*: a number may come again, when a transaction that
  /// has made a run is rolled back.
  std::uint64_t key() const { return key_; }
  bool may_have(std::uint64_t hash) const { return filter_.may_have(hash); }
  void prefetch(std::uint64_t hash) const { filter_.prefetch(hash); }
  /// The block in which the first entry lies that is not before `key`, or else the one before it.
  std::uint32_t block_of(const Fence& key) const;
  /// Reads an entry block into `out`, which has kBlockBytes.
  Result<EntryView> read(BlockFile& file, std::uint32_t index, std::span<std::uint8_t> out) const;

 private:
  std::uint64_t slot_of(std::uint32_t index) const;

  RunInfo info_;
  const std::uint64_t key_;
  std::vector<std::uint32_t> first_of_extent_;  ///< the index of the first block of each
  std::vector<Fence> fences_;
  Filter filter_;
};

/// Goes through entries in order. It says that it is at its end when it has failed, too: `error` tells.
class Cursor {
 public:
  virtual ~Cursor() = default;
  virtual bool at_end() const = 0;
  /// Valid until the cursor moves.
  virtual const Entry& entry() const = 0;
  virtual void next() = 0;
  virtual const std::optional<Error>& error() const = 0;
};

/// Through a run. Blocks that `cache` has are taken from it, and those that `seek` has gone to are kept in it; those
/// that `next` reads are not, since most of them are not asked for again soon. Null: none.
class RunCursor final : public Cursor {
 public:
  RunCursor(std::shared_ptr<const Run> run, BlockFile& file, BlockCache* cache = nullptr);

  const Run& run() const { return *run_; }
  void seek_to_first() { go_to(0); }
  /// To the first entry that is not before `key`.
  void seek(const Entry& key);
  bool at_end() const override { return at_ >= view_.size(); }
  const Entry& entry() const override { return entry_; }
  void next() override;
  const std::optional<Error>& error() const override { return error_; }

 private:
  void go_to(std::uint32_t block);
  bool read(std::uint32_t block, bool keeps);

  std::shared_ptr<const Run> run_;
  BlockFile& file_;
  BlockCache* const cache_;
  std::shared_ptr<const CheckedBlock> shared_;  ///< with the cache
  std::shared_ptr<CheckedBlock> own_;
  EntryView view_;
  std::optional<std::uint32_t> block_;  ///< the one in `view_`
  std::size_t at_ = 0;
  Entry entry_;
  std::optional<Error> error_;
};

/// Writes a run, block by block, as entries come.
class RunBuilder {
 public:
  /// Gives the slot that the next block is written to.
  using TakeSlot = std::function<std::uint64_t()>;

  /// No more than `most_entries` will come.
  RunBuilder(std::uint64_t number, Order order, std::uint64_t most_entries, std::uint64_t salt, BlockFile& file,
             TakeSlot take_slot);

  /// In order: `entry` comes after the one before. Errc::corrupt: more than `most_entries`.
  Result<void> add(const Entry& entry);
  /// Writes a part of what comes behind the entries: no more than `most_blocks`, from which those written are taken.
  /// True: the run is complete.
  Result<bool> finish(std::size_t& most_blocks);
  /// Of the complete run; `slots` are those taken so far.
  const RunInfo& info() const { return info_; }
  /// The complete run. Nothing is called after this.
  std::shared_ptr<const Run> take_run();

 private:
  Result<void> write(ByteView block);
  Result<void> seal_entries();
  void add_to_filter(std::uint64_t hash);
  void add_rest_to_filter();

  RunInfo info_;
  const std::uint64_t most_entries_;
  const std::uint64_t salt_;
  BlockFile& file_;
  TakeSlot take_slot_;
  EntryBlock block_;
  std::vector<Fence> fences_;
  Filter filter_;
  /// Hashes that the filter gets when as many more have come. *Rationale*: their lines are anywhere in the filter, and
  /// memory brings them meanwhile.
  std::array<std::uint64_t, 16> on_their_way_{};
  std::size_t hashes_ = 0;  ///< that have come
  BlockBytes tail_;
  std::size_t fences_written_ = 0, lines_written_ = 0;
};

}  // namespace kitsune2::runs
