// Rows and runs against each other: sums of parts first, then the ops of those that differ.
#include "store/sqlite/runs_check.hpp"

#include <algorithm>
#include <array>
#include <compare>

#include "store/byte_sum.hpp"

namespace kitsune2::sqlite {
namespace {

/// Candidates that are verified in one piece: each costs a row with its bytes, and a few blocks of runs.
constexpr std::size_t kVerifiedAtOnce = 256;

const char* name_of(runs::Order order) {
  return order == runs::Order::by_place ? "the index by place" : "the index by time";
}

}  // namespace

RunsCheck::RunsCheck(RunsIndex& index, Statement rows, ReadRow read_row, Tell tell)
    : index_(index),
      rows_(std::move(rows)),
      read_row_(std::move(read_row)),
      tell_(std::move(tell)),
      of_rows_(kParts),
      of_places_(kParts),
      of_times_(kParts) {
  sqlite3_randomness(sizeof(salt_), &salt_);
}

std::uint64_t RunsCheck::sum_of(const runs::Entry& entry) const {
  std::array<std::uint8_t, 24> numbers{};
  runs::save(numbers.data(), entry.location);
  runs::save(numbers.data() + 4, entry.size);
  runs::save(numbers.data() + 8, static_cast<std::uint64_t>(entry.created_at));
  runs::save(numbers.data() + 16, static_cast<std::uint64_t>(entry.stored_at));
  return store::ByteSum(salt_).add(numbers).add(entry.id).value();
}

std::size_t RunsCheck::part_of(std::int64_t stored_at) {
  static_assert(kParts == std::size_t{1} << 16U);
  return static_cast<std::size_t>((static_cast<std::uint64_t>(stored_at) * 0x9e37'79b9'7f4a'7c15U) >> 48U);
}

void RunsCheck::add_row(const IndexedOp& op) {
  const IdInRun id(op.id);
  of_rows_[part_of(op.stored_at)] += sum_of(RunsIndex::entry_of(op, id));
  last_row_ = std::max(last_row_, op.stored_at);
}

void RunsCheck::tell_whole(std::string what) {
  if (!std::exchange(told_whole_, true)) tell_({.op_id = {}, .what = std::move(what)});
}

// ----------------------------------------------------------------- the passes

Result<bool> RunsCheck::next_piece() {
  Result<bool> complete = true;
  switch (step_) {
    case Step::sum_by_place:
    case Step::list_by_place:
      complete = read_index(runs::Order::by_place);
      break;
    case Step::sum_by_time:
    case Step::list_by_time:
      complete = read_index(runs::Order::by_time);
      break;
    case Step::list_rows:
      complete = read_rows();
      break;
    case Step::verify:
      complete = verify();
      break;
    case Step::done:
      return true;
  }
  if (!complete) return complete;
  if (!*complete || step_ == Step::done) return step_ == Step::done;
  step_ = static_cast<Step>(static_cast<int>(step_) + 1);
  if (step_ == Step::list_rows && !choose()) step_ = candidates_.empty() ? Step::done : Step::verify;
  if (step_ == Step::verify) compare_lists();
  return step_ == Step::done;
}

/// True: this index is at its end.
Result<bool> RunsCheck::read_index(runs::Order order) {
  bool comes_again = goes_on_;  // the entry at which the last piece has ended
  bool at_end = true, in_order = true;
  std::size_t left = kPiece;
  const runs::Entry first{0, 0, INT64_MIN, INT64_MIN, {}};
  const OwnEntry from = goes_on_ ? last_ : OwnEntry(first);
  const auto ok = index_.each_entry(order, from.view(), [&](const runs::Entry& entry, bool counts) {
    if (goes_on_) {
      const auto c = runs::compare(order, last_.view(), entry);
      if (c == 0 && std::exchange(comes_again, false)) return true;
      in_order = c < 0;
      if (!in_order) return false;
    }
    comes_again = false;
    if (left-- == 0) return at_end = false;
    goes_on_ = true;
    last_.assign(entry);
    if (counts && entry.stored_at <= last_row_) take(order, entry);
    return true;
  });
  if (!ok) return ok.error();
  if (!in_order) {
    tell_whole(std::string(name_of(order)) + " has an entry twice, or not in its place");
    step_ = Step::done;
    return true;
  }
  if (at_end) goes_on_ = false;
  return at_end;
}

void RunsCheck::take(runs::Order order, const runs::Entry& entry) {
  const std::size_t part = part_of(entry.stored_at);
  const bool by_place = order == runs::Order::by_place;
  if (!chosen_.empty()) {
    Entries& entries = by_place ? by_place_ : by_time_;
    if (chosen_[part] && entries.size() < 2 * kMostLookedAt) {
      entries.emplace_back(Item{entry.stored_at, sum_of(entry)}, entry);
    }
    return;
  }
  (by_place ? of_places_ : of_times_)[part] += sum_of(entry);
  if (!by_place) return;
  const runs::Entry before = last_counted_.view();
  if (!before.id.empty() && before.location == entry.location && runs::compare(before.id, entry.id) == 0 &&
      candidates_.size() < kMostLookedAt) {
    candidates_.push_back({.stored_at = entry.stored_at, .twin = before.stored_at});
  }
  last_counted_.assign(entry);
}

/// Which parts are looked at op by op. False: all are the same.
bool RunsCheck::choose() {
  std::vector<std::size_t> differ;
  for (std::size_t i = 0; i < kParts; ++i) {
    if (of_rows_[i] != of_places_[i] || of_rows_[i] != of_times_[i]) differ.push_back(i);
  }
  chosen_.assign(kParts, false);
  for (const std::size_t part : differ) chosen_[part] = true;
  return !differ.empty();
}

Result<bool> RunsCheck::read_rows() {
  const Use use(rows_);
  use->bind(1, last_listed_).bind(2, last_row_);
  std::size_t left = kPiece;
  int rc = SQLITE_ROW;
  for (; left > 0 && (rc = use->step()) == SQLITE_ROW; --left) {
    last_listed_ = use->int64(0);
    if (!chosen_[part_of(last_listed_)]) continue;
    // More than are looked at: those of the other parts are left out here and in the indexes alike.
    if (listed_.size() >= kMostLookedAt) {
      tell_whole("it differs from the ops in many places");
      chosen_[part_of(last_listed_)] = false;
      continue;
    }
    const IdInRun id(use->blob(2));
    const IndexedOp op{static_cast<std::uint32_t>(use->int64(1)), use->int64(4), use->int64(3), last_listed_,
                       use->blob(2)};
    listed_.push_back({last_listed_, sum_of(RunsIndex::entry_of(op, id))});
  }
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) return index_.error(rc);
  return rc == SQLITE_DONE;
}

void RunsCheck::compare_lists() {
  std::sort(listed_.begin(), listed_.end());
  compare_list(runs::Order::by_place, by_place_);
  compare_list(runs::Order::by_time, by_time_);
  listed_ = {};
  by_place_ = by_time_ = {};
  std::stable_sort(candidates_.begin(), candidates_.end(),
                   [](const Candidate& a, const Candidate& b) { return a.stored_at < b.stored_at; });
}

/// What is only among the rows, or only in the index.
void RunsCheck::compare_list(runs::Order order, Entries& entries) {
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  auto row = listed_.begin();
  auto entry = entries.begin();
  while (row != listed_.end() || entry != entries.end()) {
    const bool has_both = row != listed_.end() && entry != entries.end();
    if (has_both && *row == entry->first) {
      ++row;
      ++entry;
    } else if (entry == entries.end() || (has_both && *row < entry->first)) {
      candidates_.push_back({.stored_at = row->stored_at, .order = order});
      ++row;
    } else {
      candidates_.push_back({.stored_at = entry->first.stored_at,
                             .order = order,
                             .entry = std::make_unique<OwnEntry>(std::move(entry->second))});
      ++entry;
    }
  }
}

// ------------------------------------------------------------ what is told of

Result<bool> RunsCheck::verify() {
  for (std::size_t i = 0; i < kVerifiedAtOnce && next_ < candidates_.size(); ++i, ++next_) {
    const Candidate& candidate = candidates_[next_];
    if (told_ops_ >= kMostTold) return true;
    if (told_ == candidate.stored_at) continue;
    auto ok = candidate.twin ? verify_twin(candidate) : verify(candidate);
    if (!ok) return ok.error();
  }
  return next_ == candidates_.size();
}

Result<void> RunsCheck::verify(const Candidate& candidate) {
  const std::int64_t stored_at = candidate.stored_at;
  const auto row = read_row_(stored_at);
  if (!row) return row.error();
  if (*row && !(*row)->is_sound) return {};
  // Without an entry of its own it is the row whose entry is missing.
  if (!*row && !candidate.entry) return {};
  const runs::Entry wanted = *row ? (*row)->entry.view() : runs::Entry();
  const runs::Entry entry = candidate.entry ? candidate.entry->view() : wanted;
  const auto is_there = index_.has(candidate.order, entry);
  if (!is_there) return is_there.error();
  if (*is_there != (candidate.entry != nullptr)) return {};
  Fault fault{.op_id = OpId(entry.id), .stored_at = stored_at, .size = entry.size, .what = name_of(candidate.order)};
  if (*row && !candidate.entry) {
    fault.op_id = (*row)->op_id;
    fault.what += " does not have it";
  } else if (!*row) {
    fault.what += " has it, but it is not there";
  } else if (runs::compare(candidate.order, entry, wanted) == 0 && sum_of(entry) == sum_of(wanted)) {
    return {};
  } else {
    fault.what += " has an entry that is not as the op";
  }
  tell_whole("it differs from the ops");
  told_ = stored_at;
  ++told_ops_;
  tell_(std::move(fault));
  return {};
}

Result<void> RunsCheck::verify_twin(const Candidate& candidate) {
  const auto row = read_row_(candidate.stored_at);
  if (!row) return row.error();
  const auto twin = read_row_(*candidate.twin);
  if (!twin) return twin.error();
  if (!*row || !*twin || !(*row)->is_sound || !(*twin)->is_sound || (*row)->op_id != (*twin)->op_id) return {};
  told_ = candidate.stored_at;
  tell_({.op_id = (*row)->op_id,
         .stored_at = candidate.stored_at,
         .size = (*row)->entry.view().size,
         .what = "it is there twice"});
  return {};
}

}  // namespace kitsune2::sqlite
