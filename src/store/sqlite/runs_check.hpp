// Compares the rows of an op store with its runs, in both directions, at a cost that is linear in the store.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/sqlite_store.hpp"
#include "store/sqlite/runs_index.hpp"

namespace kitsune2::sqlite {

/// check_sqlite_op_store, with what is kept of an index in memory by `rules`.
Result<SqliteCheckReport> check_op_store(const std::string& path, const OpPolicy& policy,
                                         const SqliteCheckOptions& options, const runs::MergeRules& rules);

/// An entry of a run with bytes of its own.
class OwnEntry {
 public:
  OwnEntry() = default;
  explicit OwnEntry(const runs::Entry& entry) { assign(entry); }
  void assign(const runs::Entry& entry) {
    id_.assign(entry.id.begin(), entry.id.end());
    numbers_ = entry;
  }
  runs::Entry view() const {
    runs::Entry out = numbers_;
    out.id = id_;
    return out;
  }

 private:
  std::vector<std::uint8_t> id_;
  runs::Entry numbers_;  ///< its id is not used
};

/// The owner goes through all rows, and then asks for pieces, each in a transaction of its own after `refresh`.
///
/// *Rules*. R1: rows and both indexes are summed up in kParts parts; a part whose three sums are the same has the same
/// ops in all three. Only parts that differ are looked at op by op, in a second pass. R2: the store may change between
/// pieces. The pieces of an index go on after the last key, so it does not matter which runs have the entries by then;
/// what is stored after the rows were read does not count; and a fault is told only after a look at the row and at the
/// index in one transaction. R3: memory is bounded: where more than kMostLookedAt ops would have to be looked at, the
/// rest of the parts is not. The index as a whole is told to be wrong in any case, and kMostTold ops are named.
class RunsCheck {
 public:
  struct Fault {
    OpId op_id = {};  ///< empty: of the index as a whole
    std::int64_t stored_at = kWholeIndex;
    std::uint64_t size = 0;
    std::string what;
  };
  /// What the owner says of a row.
  struct Row {
    OpId op_id;
    OwnEntry entry;
    bool is_sound = false;  ///< its columns are what its bytes say; otherwise the owner has told of it
  };
  /// nullopt: there is none.
  using ReadRow = std::function<Result<std::optional<Row>>(std::int64_t stored_at)>;
  using Tell = std::function<void(Fault)>;
  static constexpr std::size_t kParts = 65'536;
  static constexpr std::size_t kMostLookedAt = 65'536;
  /// Ops that are named; each costs some look-ups.
  static constexpr std::size_t kMostTold = 4'096;
  /// Entries, or rows, of one piece, and about how many bytes it reads.
  static constexpr std::size_t kPiece = 32'768;
  static constexpr std::uint64_t kPieceBytes = 2U << 20;

  /// `rows`: of kRows.
  RunsCheck(RunsIndex& index, Statement rows, ReadRow read_row, Tell tell);
  static constexpr const char* kRows =
      "SELECT stored_at, loc, id, created_at, size FROM op WHERE stored_at>?1 AND stored_at<=?2 ORDER BY stored_at";

  /// In the transaction of the first rows.
  void begin() { last_row_ = index_.covered(); }
  void add_row(const IndexedOp& op);
  /// True: it is complete.
  Result<bool> next_piece();

 private:
  enum class Step { sum_by_place, sum_by_time, list_rows, list_by_place, list_by_time, verify, done };
  struct Item {
    std::int64_t stored_at;
    std::uint64_t sum;
    friend auto operator<=>(const Item&, const Item&) = default;
  };
  using Entries = std::vector<std::pair<Item, OwnEntry>>;
  struct Candidate {
    std::int64_t stored_at = 0;
    runs::Order order = runs::Order::by_place;
    std::unique_ptr<OwnEntry> entry = {};   ///< that no row has; null: the index does not have the row
    std::optional<std::int64_t> twin = {};  ///< or the row that may have the same id
  };

  std::uint64_t sum_of(const runs::Entry& entry) const;
  static std::size_t part_of(std::int64_t stored_at);
  Result<bool> read_index(runs::Order order);
  void take(runs::Order order, const runs::Entry& entry);
  Result<bool> read_rows();
  bool choose();
  void compare_lists();
  void compare_list(runs::Order order, Entries& entries);
  Result<bool> verify();
  Result<void> verify(const Candidate& candidate);
  Result<void> verify_twin(const Candidate& candidate);
  void tell_whole(std::string what);

  RunsIndex& index_;
  Statement rows_;
  const ReadRow read_row_;
  const Tell tell_;
  std::uint64_t salt_ = 0;  ///< chance: nobody can choose ids whose sums cancel out
  Step step_ = Step::sum_by_place;
  std::int64_t last_row_ = INT64_MIN;  ///< later ones do not count
  std::vector<std::uint64_t> of_rows_, of_places_, of_times_;
  std::vector<bool> chosen_;              ///< of the parts; empty: not yet
  bool goes_on_ = false;                  ///< `last_` is where the last piece of this index has ended
  OwnEntry last_, last_counted_;          ///< entries of it
  std::int64_t last_listed_ = INT64_MIN;  ///< of the rows
  std::vector<Item> listed_;              ///< of the rows in chosen parts
  Entries by_place_, by_time_;
  std::vector<Candidate> candidates_;
  std::size_t next_ = 0;  ///< of the candidates
  std::size_t told_ops_ = 0;
  std::optional<std::int64_t> told_;  ///< the op that was told of last
  bool told_whole_ = false;
};

}  // namespace kitsune2::sqlite
