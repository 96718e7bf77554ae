// The indexes of version 2 of the op store's schema: runs, whose blocks are rows of the table `slot`.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <memory>
#include <vector>

#include "store/runs/run_index.hpp"
#include "store/sqlite/op_index.hpp"

namespace kitsune2::sqlite {

/// The slots of runs as rows of a table.
class TableSlots final : public runs::BlockFile {
 public:
  explicit TableSlots(const Connection& connection);
  Result<void> read(std::uint64_t slot, std::span<std::uint8_t> out) override;
  Result<void> write(std::uint64_t slot, ByteView block) override;
  void let_go();

 private:
  sqlite3* db_;
  std::string path_;
  Statement read_, write_;
};

/// What an id is called in a run: itself, or if it is too long its beginning and a sum of all of it. An entry whose id
/// has kLongestId bytes is of the second kind; several ids may share it, so the row tells which one it is.
class IdInRun {
 public:
  explicit IdInRun(ByteView id);
  ByteView view() const { return id_; }
  static bool is_shortened(ByteView id_in_run) { return id_in_run.size() == runs::kLongestId; }

 private:
  std::vector<std::uint8_t> shortened_;
  ByteView id_;
};

/// What the indexes of a store have in common.
struct RunsShared {
  runs::MergeRules rules = {};
  std::shared_ptr<runs::BlockCache> blocks = nullptr;  ///< null: none are kept
  std::shared_ptr<runs::RunShelf> shelf = nullptr;     ///< filled by the one that writes
};

/// *Rules*.
///  X1  What a connection finds is what its transaction sees: the runs of the manifest there, and the rows after
///      `covered`, each of which is read once.
///  X2  Rows of `op` are only appended. An op that goes, and one whose entry was wrong and which is stored again,
///      leaves its time in `dropped`, from which nothing is ever removed; no row has one of these times again.
///  X3  While more rows come after what the index has than are kept in memory, it is *behind*: it is being made anew
///  from
///      the rows, a piece for each call of `catch_up`. What it does not have yet is looked for in the rows themselves:
///      a query goes through them once, and so do all look-ups of a call together (`expect`). So it answers at any time
///      what the rows say, and a crash between two pieces leaves no more than an index that is behind.
///  X4  Whoever writes calls `begin` first in a transaction and `step` last, and then `committed` or `roll_back`.
class RunsIndex final : public OpIndex {
 public:
  static std::unique_ptr<RunsIndex> make(const Connection& connection, const OpPolicy* policy, bool may_write,
                                         const RunsShared& shared = {});

  Result<void> refresh() override;
  Result<void> expect(const std::vector<OpId>& op_ids) override;
  Result<std::optional<Found>> find(ByteView op_id) override { return find_besides(op_id, {}); }
  /// The same, without regard to what was stored at that time: a damaged file may have an op twice.
  Result<std::optional<Found>> find_besides(ByteView op_id, std::optional<std::int64_t> stored_at);
  Result<void> by_time(Timestamp start, Timestamp end, const std::optional<OpCursor>& after, std::size_t most,
                       const Row& row) override;
  Result<std::uint64_t> count_in_time(Timestamp start, Timestamp end, std::uint64_t most) override;
  Result<void> by_place(const PlaceQuery& query, const Row& row) override;
  Result<bool> has_in_time(const IndexedOp& op) override;
  bool is_damaged() const override { return damaged_; }
  void let_go() override;
  using OpIndex::error;
  /// The runs have all ops up to this time of storing.
  std::int64_t covered() const { return index_.manifest().covered; }

  /// What runs have of an op; `id` is that of the op, and stays longer.
  static runs::Entry entry_of(const IndexedOp& op, const IdInRun& id);
  /// All entries from `from` on, until `row` returns false; `counts`: the op was not dropped.
  using EntryRow = std::function<bool(const runs::Entry& entry, bool counts)>;
  Result<void> each_entry(runs::Order order, const runs::Entry& from, const EntryRow& row);
  /// Whether there is exactly this entry, and it counts.
  Result<bool> has(runs::Order order, const runs::Entry& entry);

  /// For the connection that writes: starts anew with what is there. Errc::corrupt: `start_anew` is needed.
  Result<void> load();
  /// Whether all rows can be read. An index is made anew from nothing else, so what there is must not be given up
  /// before this is known. Costs as much as the store is large, and changes nothing.
  Result<void> check_rows();
  /// Starts with an empty index, which is behind if there are ops. `remove_slots`: where they cannot be written over;
  /// that costs as much as the store is large.
  Result<void> start_anew(bool remove_slots = false);
  bool is_behind() const override { return behind_ || is_made_beside_; }
  /// Whether another index answers meanwhile, and this one is not asked. Then it counts as behind.
  void make_beside(bool is_so) { is_made_beside_ = is_so; }
  /// Takes the next rows into the index, `least` or more, in place of `step`. True: it is not behind any more.
  Result<bool> catch_up(std::size_t least);
  /// Whether the last `catch_up` of this transaction failed at slots that are damaged, not at rows.
  bool slots_failed() const { return slots_failed_; }
  /// Whether this transaction has met rows that cannot be read, and left them out.
  bool has_bad_rows() const { return bad_rows_; }
  /// Whether it has what the transaction sees. If not, `load` or `start_anew` has failed.
  bool is_loaded() const { return !stale_; }
  /// How often rows were gone through since it is behind: each time costs as much as it is behind.
  std::uint64_t passes() const { return passes_; }
  /// Of all ops, those that the index has.
  std::uint64_t entries() const { return index_.entries(); }
  /// The latest time of storing that was given, as far as the file says. Every new one must be later.
  std::int64_t latest() const { return latest_; }

  Result<void> begin();
  void add(const IndexedOp& op);
  Result<void> drop(std::int64_t stored_at);
  /// Merges, and writes the manifest if it has changed.
  Result<void> step();
  Result<void> step_idle();
  bool has_work() const { return index_.has_work(); }
  void committed();
  void roll_back();

 private:
  RunsIndex(const Connection& connection, const OpPolicy* policy, const RunsShared& shared)
      : OpIndex(connection, policy),
        rules_(shared.rules),
        shelf_(shared.shelf),
        slots_(connection),
        index_(slots_, rules_, shared.blocks, shelf_) {}
  void prepare(const Connection& connection, bool may_write);
  Result<runs::Manifest> read_manifest();
  Result<void> read_dropped();
  Result<void> read_rows();
  void add_row(const Use& row);
  void put(const IndexedOp& op);
  Result<std::optional<Found>> find_in_rows(ByteView op_id, std::optional<std::int64_t> besides);
  Result<void> put_manifest();
  Result<std::int64_t> number(Statement& statement);
  Result<void> finish(Statement& statement);
  void fill_shelf();
  /// Has `row` called; the id is the whole one.
  Result<bool> give(const runs::Entry& entry, const Row& row);
  /// Notes damage on its way to the caller.
  Error failed(Error error);

  const runs::MergeRules rules_;
  const std::shared_ptr<runs::RunShelf> shelf_;
  TableSlots slots_;
  runs::RunIndex index_;
  /// While it is behind: what the rows say of an id that is looked for, in the order of storing.
  struct Expected {
    std::vector<Found> rows;
    bool has_all = true;  ///< there are no other rows with this id
  };
  boost::unordered_flat_map<OpId, Expected, std::hash<OpId>> expected_;
  Statement version_, manifest_, slot_end_, dropped_, rows_, id_at_;
  Statement rows_of_id_, rows_by_time_, count_rows_in_time_, rows_by_place_, ids_of_rows_;
  Statement random_, any_row_, all_rows_, put_manifest_, put_dropped_, remove_slots_;
  std::optional<std::int64_t> seen_;          ///< the state of the file when it was looked at last
  std::vector<std::uint8_t> manifest_bytes_;  ///< of the manifest that `index_` follows
  std::int64_t last_dropped_ = INT64_MIN;     ///< the row of `dropped` that was read last
  std::int64_t last_row_ = INT64_MIN;         ///< of `op`, that is covered or was added
  std::int64_t latest_ = INT64_MIN;
  std::uint64_t passes_ = 0;
  bool stepped_ = false;  ///< in this transaction
  bool stale_ = false;    ///< it differs from what is there: load it first
  bool damaged_ = false;
  bool slots_failed_ = false;  ///< in this transaction
  bool bad_rows_ = false;      ///< in this transaction
  bool behind_ = false;        ///< there are rows after `last_row_`
  bool is_made_beside_ = false;
};

}  // namespace kitsune2::sqlite
