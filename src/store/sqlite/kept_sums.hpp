// What the writer of an op store knows of the sums for a DHT model, and when it keeps them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "kitsune2/op_store.hpp"
#include "store/dht_sums.hpp"

namespace kitsune2::sqlite {

/// The row of the sums in the table `meta`. *Rationale* of the name: it is the last one there. In a table without rowid
/// a search compares whole rows, with all pages of a value, and so those before it are found without a look at this
/// one.
inline constexpr std::string_view kSumsKey = "sums_dht";
/// Reads the row, if its key is that of the sums, without a search. Another key: there is no such row.
inline constexpr char kSelectSums[] = "SELECT key, value FROM meta ORDER BY key DESC LIMIT 1";

/// When the sums are written.
struct SumsRules {
  /// After this many ops. *Rationale*: so many are read at a start after a crash.
  std::uint64_t every = 262'144;
  /// After this many if the store is at rest, or is closed.
  std::uint64_t at_rest = 4'096;
  /// But not before this many for each hundred cells have come. *Rationale*: a row of a million ops of all times has
  /// megabytes, and what it costs to write it must not be felt beside the ops.
  std::uint64_t percent = 100, percent_at_rest = 6;
  /// Sums of more cells are not written: some 40 MB.
  std::uint64_t most_cells = 1U << 20U;
  /// Read for them in one transaction, at least.
  std::size_t read_at_once = 16'384;
};

/// The sums of all ops, in two parts: those in a row of the table `meta`, and those that came since, in memory.
///
/// *Rules*.
///  K1  The row has the sums of all ops that were stored up to `covered`. It is written in a transaction between those
///      that store. *Reason*: an op that is stored later has a later time of storing, so the row stays right, and what
///      it lacks can be read; and a row for which there is no room fails no call that stores ops.
///  K2  A transaction that removes, moves or corrects an op removes the row. *Reason*: what a damaged entry has said is
///      not certain, so it cannot be subtracted.
///  K3  The row counts only if it is whole and of this version, if the policy's function from ids to locations is the
///      one of the row, if the row's layout is not one of a later time than now, if the last op in it is still there,
///      and if its ops and those stored since are as many as the totals say. Otherwise all ops are read, and there is a
///      new row. *Reason*: an older program knows nothing of the row, and may have dropped ops.
///  K4  Until they are asked for, no sums are read and nothing is added. From then on each op that is stored is.
///  K5  The row is written when enough has come since: SumsRules. After a failure, when twice as much has.
///
/// Not thread-safe.
class KeptSums {
 public:
  enum class State {
    unread,
    since_row,  ///< the ops stored after the row are being read
    all,        ///< all ops are being read
    known,
  };
  /// Of the row in the file.
  struct Base {
    std::int64_t covered;
    std::uint64_t ops;
    std::int64_t boundary_unit;
    std::uint64_t salt;
    std::size_t cells;
  };

  explicit KeptSums(const SumsRules& rules = {}) : rules_(rules) {}
  const SumsRules& rules() const { return rules_; }
  State state() const { return state_; }
  bool are_unfit() const { return unfit_; }

  /// Starts reading: `row`, if there is one, and the ops up to `end` that are not in it. Later ones come by `add`.
  void begin(std::int64_t boundary_unit, std::int64_t end, std::optional<store::DhtSumsRow> row) {
    forget();
    since_.clear(boundary_unit);
    end_ = end;
    state_ = row ? State::since_row : State::all;
    if (!row) return;
    base_ = base_of(*row);
    reached_ = row->covered;
    row_ = std::move(row);
  }
  /// Back to nothing. The row in the file is no concern of this.
  void forget() {
    state_ = State::unread;
    base_.reset();
    row_.reset();
    since_.clear(0);
    after_.reset();
    drop_added();
    may_write_ = true;
    failed_at_ = 0;
  }

  /// An op that is stored in this transaction. It counts when that is committed.
  void add(std::uint32_t location, Timestamp created_at, ByteView id) {
    if (state_ == State::unread) return;
    added_.push_back({location, created_at, id.size()});
    added_ids_.insert(added_ids_.end(), id.begin(), id.end());
  }
  void committed() {
    std::size_t at = 0;
    for (std::size_t i = 0; i < added_.size(); ++i) {  // `take` may drop them
      const Added op = added_[i];
      take(op.location, op.created_at, ByteView(added_ids_).subspan(at, op.id_bytes));
      at += op.id_bytes;
    }
    drop_added();
  }
  void roll_back() { drop_added(); }

  /// An op that was read, or came.
  void take(std::uint32_t location, Timestamp created_at, ByteView id) {
    if (unfit_ || since_.add(location, created_at, id)) return;
    forget();
    unfit_ = true;  // and stay so: there is such an id
  }
  void take_apart() { since_.add_apart(); }

  std::int64_t boundary_unit() const {
    return std::max(since_.boundary_unit(), base_ ? base_->boundary_unit : std::int64_t{0});
  }
  std::uint64_t ops() const { return since_.ops() + (base_ ? base_->ops : 0); }
  const store::DhtSumCells& since() const { return since_; }
  const std::optional<Base>& base() const { return base_; }
  /// The row as it was when reading began, once.
  std::optional<store::DhtSumsRow> take_row() { return std::exchange(row_, std::nullopt); }

  std::int64_t end() const { return end_; }
  std::int64_t& reached() { return reached_; }
  std::optional<OpCursor>& after() { return after_; }

  /// All has been read. `agree`: they are as many as the totals say; else they are not written.
  void all_read(bool agree) {
    state_ = State::known;
    may_write_ = agree;
  }
  bool wants_writing(bool at_rest) const {
    if (state_ != State::known || !may_write_) return false;
    const std::uint64_t cells = since_.cells() + (base_ ? base_->cells : 0);
    const std::uint64_t enough = at_rest ? std::max(rules_.at_rest, cells / 100 * rules_.percent_at_rest)
                                         : std::max(rules_.every, cells / 100 * rules_.percent);
    return since_.ops() >= std::max(enough, 2 * failed_at_);
  }
  void never_write() { may_write_ = false; }
  void write_failed() { failed_at_ = since_.ops(); }
  void written(const store::DhtSumsRow& row) {
    base_ = base_of(row);
    since_.clear(row.boundary_unit);
    failed_at_ = 0;
  }

 private:
  struct Added {
    std::uint32_t location;
    Timestamp created_at;
    std::size_t id_bytes;
  };
  static Base base_of(const store::DhtSumsRow& row) {
    return {row.covered, row.ops, row.boundary_unit, row.salt, row.sums.cells.size()};
  }
  void drop_added() {
    added_.clear();
    added_ids_.clear();
  }

  SumsRules rules_;
  State state_ = State::unread;
  bool unfit_ = false;  ///< ids have several lengths
  bool may_write_ = true;
  std::optional<Base> base_;
  std::optional<store::DhtSumsRow> row_;
  store::DhtSumCells since_;  ///< all ops that are not in the base
  std::uint64_t failed_at_ = 0;
  std::vector<Added> added_;  ///< in this transaction
  std::vector<std::uint8_t> added_ids_;
  // While it reads:
  std::int64_t end_ = 0, reached_ = 0;
  std::optional<OpCursor> after_;
};

}  // namespace kitsune2::sqlite
