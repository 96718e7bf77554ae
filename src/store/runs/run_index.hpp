// An index of ops by id, place and time whose cost does not grow with what it holds. Pure: told what is stored, it says
// what is to be written.
#pragma once

#include <boost/unordered/unordered_flat_set.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "store/runs/manifest.hpp"
#include "store/runs/merge.hpp"
#include "store/runs/newest.hpp"
#include "store/runs/run_shelf.hpp"

namespace kitsune2::runs {

/// Goes through the entries of several cursors in order.
class MergedCursor final : public Cursor {
 public:
  MergedCursor(Order order, std::vector<std::unique_ptr<Cursor>> inputs);
  bool at_end() const override { return best_ == nullptr; }
  const Entry& entry() const override { return best_->entry(); }
  void next() override;
  const std::optional<Error>& error() const override { return error_; }

 private:
  void choose();
  Order order_;
  std::vector<std::unique_ptr<Cursor>> inputs_;
  Cursor* best_ = nullptr;
  std::optional<Error> error_;
};

/// The index: the newest ops in memory, the others in runs.
///
/// *Rules*.
///  I1  `add` comes in the order of storing. What is added is found at once.
///  I2  When there are `newest` of them they are put aside and become two runs, one by place and one by time; eight
///      runs of one size become one. All of it happens in `step`, a little for each op that was added, so no call does
///      much at once.
///  I3  The owner writes an op's row, the blocks and the manifest in one transaction, between `begin` and `committed`.
///      If that fails it calls `load` with what is durable, and adds again the ops that are not covered.
///  I4  Slots that a merge has freed are written over only after the manifest that no longer names them is durable.
///  I5  A dropped op is never found again; merges leave it out.
///  I6  Opening needs the manifest, fences and filters, and the rows of what is not covered: two times `newest` at
///      most, and those of one call.
class RunIndex {
 public:
  /// `file` stays longer. Look-ups and queries share `cache`, if there is one; merges read each block once. Runs that
  /// `shelf` has are not opened again.
  explicit RunIndex(BlockFile& file, const MergeRules& rules = {}, std::shared_ptr<BlockCache> cache = nullptr,
                    std::shared_ptr<const RunShelf> shelf = nullptr);

  /// Starts with the runs of `manifest`; nothing newer is known, and what was dropped since `begin` is not. Runs that
  /// are open are not read again.
  Result<void> load(const Manifest& manifest);
  /// For a reader that goes on: takes the runs of a later manifest and keeps of the newest what it does not cover. One
  /// with another salt is of an index that was made anew and may cover less: nothing newer is known then.
  Result<void> follow(const Manifest& manifest);

  void begin();
  void add(const Entry& entry);
  /// The op of the row `stored_at` is no longer held.
  void drop(std::int64_t stored_at);
  /// Forgets what was added and dropped since `begin`. Not after a `step`: then `load`.
  void forget_added();
  /// Merges a little: for each op added since the last time, what merging costs on average and some more. True: the
  /// manifest has changed and is to be written in this transaction.
  Result<bool> step();
  /// The same without new ops, for an idle store: about `entries` of work.
  Result<bool> step_idle(std::size_t entries);
  bool has_work() const { return !jobs_.empty() || newest_->size() >= rules_.newest; }
  void committed();

  /// `accept`: whether the op of a row is meant, where an id may stand for several. Empty: it is.
  using Accept = std::function<bool(std::int64_t stored_at)>;
  Result<std::optional<Entry>> find(std::uint32_t location, ByteView id, const Accept& accept = {});
  /// All entries that are not before `from`. Dropped ones are among them: `is_held` tells. Not beyond the next change.
  std::unique_ptr<Cursor> scan(Order order, const Entry& from);
  bool is_held(std::int64_t stored_at) const { return !dropped_.contains(stored_at); }

  const Manifest& manifest() const { return manifest_; }
  std::size_t newest() const { return newest_->size() + (aside_ ? aside_->size() : 0); }
  std::size_t runs() const { return runs_.size(); }
  /// How many there are in one order, dropped ones among them.
  std::uint64_t entries() const;
  /// The runs of the manifest, if they are others than the last time; for a shelf, when the manifest is durable.
  std::optional<std::vector<std::shared_ptr<const Run>>> take_changed_runs();
  /// Work a step does for each op, in entries. Each op is written about three times in each order.
  static constexpr std::size_t kWorkAnOp = 12;

 private:
  /// Runs of both orders from what was put aside, or one run from several.
  struct Job {
    Order order = Order::by_place;
    std::uint64_t entries = 0;          ///< of the inputs
    std::vector<std::uint64_t> inputs;  ///< numbers of runs; empty: from what was put aside
    std::unique_ptr<MergeJob> merge;
    bool complete = false;
  };

  std::uint64_t hash_of(ByteView id) const { return filter_hash(manifest_.salt, id); }
  void put_aside();
  void start_merges(Order order);
  Job make_job(Order order, std::vector<std::unique_ptr<Cursor>> inputs, std::uint64_t entries);
  Result<void> work(std::size_t& budget);
  void settle();
  void replace(Job& job);

  BlockFile& file_;
  const MergeRules rules_;
  const std::shared_ptr<BlockCache> cache_;
  const std::shared_ptr<const RunShelf> shelf_;
  Manifest manifest_;
  SlotMap slots_;
  std::vector<std::shared_ptr<const Run>> runs_;
  std::shared_ptr<Newest> newest_;
  std::shared_ptr<Newest> aside_;
  std::size_t newest_before_ = 0;  ///< entries at `begin`
  std::vector<Job> jobs_;
  std::vector<Extent> freed_;  ///< when this transaction is committed
  std::size_t credit_ = 0;
  bool runs_changed_ = false;  ///< since `take_changed_runs`
  bool dirty_ = false;         ///< the manifest is not what was last given to be written
  boost::unordered_flat_set<std::int64_t> dropped_;
  std::vector<std::int64_t> dropped_now_;            ///< since `begin`
  std::vector<std::unique_ptr<RunCursor>> finders_;  ///< by place, the largest run first
};

}  // namespace kitsune2::runs
