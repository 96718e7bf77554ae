// How stores sum the ids of their ops by sector and range of time.
#pragma once

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "kitsune2/op_store.hpp"

namespace kitsune2::store {

/// The error of a stopped query.
inline Error stopped() { return make_error(Errc::cancelled, "the query was stopped"); }

/// The work of one `OpStore::sum_ops`. The store calls `next_range`, then `add` and `passed` for the ops of `range()`
/// after the query's cursor, in the order of OpCursor, and `page` when it has looked at enough or no range is left.
class OpSums {
 public:
  explicit OpSums(const OpSumsQuery& query) : query_(query), at_(query.after), cells_(query.sectors.size()) {}

  Result<void> check() const {
    for (std::size_t i = 0; i < query_.ranges.size(); ++i) {
      const TimeRange& range = query_.ranges[i];
      if (range.end < range.start || (i > 0 && range.start < query_.ranges[i - 1].end)) {
        return make_error(Errc::invalid_argument, "ranges of time that are not in order, or overlap");
      }
    }
    return {};
  }

  /// Moves on to a range that is not done; the previous one is. Returns false if none is left.
  bool next_range() {
    if (started_) leave();
    for (; next_ < query_.ranges.size(); ++next_) {
      const TimeRange& range = query_.ranges[next_];
      if (range.start == range.end || (at_ && end_of(range) <= *at_)) continue;
      started_ = true;
      return true;
    }
    return false;
  }
  const TimeRange& range() const { return query_.ranges[next_]; }

  void add(std::uint32_t location, ByteView op_id) {
    const std::uint32_t sector = location >> kSectorBits;
    if (!query_.sectors.test(sector)) return;
    Cell& cell = cells_[sector];
    if (cell.ops++ == 0) touched_.push_back(sector);
    if (cell.hash.size() < op_id.size()) cell.hash.resize(op_id.size());
    for (std::size_t i = 0; i < op_id.size(); ++i) cell.hash[i] ^= op_id[i];
  }
  void passed(const OpCursor& at) { at_ = at; }

  /// `is_cut`: there may be more.
  OpSumsPage page(bool is_cut) {
    flush();
    if (is_cut) page_.next = at_;
    return std::move(page_);
  }

 private:
  static constexpr std::uint32_t kSectorBits = 23;
  struct Cell {
    std::vector<std::uint8_t> hash;
    std::uint64_t ops = 0;
  };
  /// After every op of the range.
  static OpCursor end_of(const TimeRange& range) { return {range.end - Duration{1}, Timestamp::max()}; }

  void leave() {
    flush();
    at_ = end_of(query_.ranges[next_++]);
    started_ = false;
  }
  void flush() {
    std::sort(touched_.begin(), touched_.end());
    for (const std::uint32_t sector : touched_) {
      Cell& cell = cells_[sector];
      page_.sums.push_back({sector, static_cast<std::uint32_t>(next_), Bytes(std::move(cell.hash)), cell.ops});
      cell = {};
    }
    touched_.clear();
  }

  const OpSumsQuery& query_;
  std::optional<OpCursor> at_;
  std::size_t next_ = 0;  ///< the current range, once it is started
  bool started_ = false;
  std::vector<Cell> cells_;             ///< of that range, by sector
  std::vector<std::uint32_t> touched_;  ///< sectors of `cells_` that hold an op
  OpSumsPage page_;
};

}  // namespace kitsune2::store
