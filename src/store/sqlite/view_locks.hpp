// The locks of several connections of a process that share one open database file. Pure.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

namespace kitsune2::sqlite {

/// Each connection is a *view* of the file, and has locks of its own on it, by the rules of SQLite; other processes see
/// the union of them, on the one file below. This class says whether the views agree, and what the file below is to be
/// asked for.
///
/// *Rules*.
///  V1  What a view may not have beside another one of SQLite's, it may not have beside a view: the levels of the
///      database by https://sqlite.org/lockingv3.html, the slots of the wal-index by https://sqlite.org/walformat.html.
///  V2  Below, there is what the union of the views needs, and nothing is given back there as long as a view needs it.
///      *Reason*: another process would take it, and a view that reads would see pages change.
///  V3  Below, a lock is asked for before a view has it, and given back when the last view that needs it is without.
///      *Reason*: the same; and where the answer is no, nobody has it.
///  V4  A view that waits for others to stop reading keeps new ones from beginning (it is `pending`). *Reason*: else it
///      would wait for ever. An attempt that failed below counts as this, too: what is left there goes when the view
///      gives its lock back.
///
/// Not thread-safe.
class ViewLocks {
 public:
  using View = std::uint64_t;
  /// Those of the database, in SQLite's order.
  enum Level { none, shared, reserved, pending, exclusive };
  static constexpr std::size_t kSlots = 8;
  enum class Answer {
    busy,   ///< another view is in the way
    yes,    ///< the view has it now, and below it is there already
    below,  ///< below it is to be asked for; then the view is `given` it, or `refused`
  };

  View add() {
    views_[++last_];
    return last_;
  }
  /// A view without locks.
  void remove(View view) { views_.erase(view); }
  bool empty() const { return views_.empty(); }

  // ------------------------------------------------------- the database
  /// `wanted`: shared, reserved or exclusive, as SQLite asks: reserved and exclusive by one that has shared.
  Answer lock(View view, Level wanted) {
    Held& own = views_.at(view);
    // One that was only kept waiting may have less below than it has here.
    if (own.level >= wanted && !(own.level == pending && wanted == reserved)) return Answer::yes;
    const Level others = most_of_others(view);
    const bool is_in_the_way = wanted == shared ? others >= pending : others >= reserved;
    if (is_in_the_way) return Answer::busy;
    if (wanted == exclusive && others != none) {
      own.level = pending;
      return Answer::busy;
    }
    if (others >= wanted) {
      own.level = wanted;
      return Answer::yes;
    }
    return Answer::below;
  }
  void given(View view, Level level) {
    Held& own = views_.at(view);
    own.level = std::max(own.level, level);
  }
  void refused(View view, Level wanted) {
    if (wanted == exclusive) views_.at(view).level = pending;
  }
  /// `left`: none or shared. Returns what below is to be unlocked to, if anything.
  std::optional<Level> unlock(View view, Level left) {
    Held& own = views_.at(view);
    if (own.level <= left) return std::nullopt;
    const Level others = most_of_others(view);
    const Level before = std::max(own.level, others);
    own.level = left;
    const Level after = std::max(left, others);
    // A pending view has asked below for nothing more than it had, or was refused there.
    return after < before ? std::optional(after) : std::nullopt;
  }
  Level level(View view) const { return views_.at(view).level; }
  /// Whether a view has reserved the right to write, or more. If not, below is to be asked.
  bool is_reserved() const {
    return std::any_of(views_.begin(), views_.end(), [](const auto& v) { return v.second.level >= reserved; });
  }

  // ------------------------------------------------------ the wal-index
  /// A view without locks of the slots that are asked for.
  Answer lock_shared(View view, std::size_t slot) {
    for (const auto& [other, held] : views_) {
      if (other != view && has(held.exclusive, slot)) return Answer::busy;
    }
    if (readers(slot) == 0) return Answer::below;
    give_shared(view, slot);
    return Answer::yes;
  }
  /// `n` slots from `first` on. Never `yes`.
  Answer lock_exclusive(View view, std::size_t first, std::size_t n) const {
    for (const auto& [other, held] : views_) {
      if (other != view && ((held.shared | held.exclusive) & mask(first, n)) != 0) return Answer::busy;
    }
    return Answer::below;
  }
  void give_shared(View view, std::size_t slot) { views_.at(view).shared |= mask(slot, 1); }
  void give_exclusive(View view, std::size_t first, std::size_t n) { views_.at(view).exclusive |= mask(first, n); }
  /// Returns whether it is to be unlocked below.
  bool unlock_shared(View view, std::size_t slot) {
    Held& own = views_.at(view);
    if (!has(own.shared, slot)) return false;
    own.shared &= static_cast<std::uint8_t>(~mask(slot, 1));
    return readers(slot) == 0;
  }
  bool unlock_exclusive(View view, std::size_t first, std::size_t n) {
    Held& own = views_.at(view);
    const bool had = (own.exclusive & mask(first, n)) != 0;
    own.exclusive &= static_cast<std::uint8_t>(~mask(first, n));
    return had;
  }
  /// Bits of the slots that the view has.
  std::uint8_t shared_slots(View view) const { return views_.at(view).shared; }
  std::uint8_t exclusive_slots(View view) const { return views_.at(view).exclusive; }

 private:
  struct Held {
    Level level = none;
    std::uint8_t shared = 0, exclusive = 0;
  };

  static std::uint8_t mask(std::size_t first, std::size_t n) {
    return static_cast<std::uint8_t>(((1U << n) - 1U) << first);
  }
  static bool has(std::uint8_t slots, std::size_t slot) { return (slots & mask(slot, 1)) != 0; }
  Level most_of_others(View view) const {
    Level out = none;
    for (const auto& [other, held] : views_) {
      if (other != view) out = std::max(out, held.level);
    }
    return out;
  }
  std::size_t readers(std::size_t slot) const {
    return static_cast<std::size_t>(
        std::count_if(views_.begin(), views_.end(), [&](const auto& v) { return has(v.second.shared, slot); }));
  }

  View last_ = 0;
  std::map<View, Held> views_;
};

}  // namespace kitsune2::sqlite
