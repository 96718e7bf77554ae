// Which bytes of the file of large ops are free: the rules, without a file.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace kitsune2::sqlite {

/// Places in a file that only grows, named by rows of a database whose commits may fail. Offsets are of bytes.
///
/// *Rules*.
///  L1  No place that a row may name is given again. A row may name it from the moment when its commit is tried, for a
///      commit that has failed may still be found by the recovery after a crash. *Reason*: the op of such a row counts
///      as held, so whoever stores it again is told that it is stored, without another write; its bytes must be there.
///  L2  What a failed sync was to make durable is not written at the same place again. *Reason*: the place may be a bad
///      one of the disk, and the pages count as clean though the disk does not have them (docs/decisions/0024).
///  L3  The first place of a transaction begins a block of kBlock bytes. *Reason*: no write, torn or not, touches a
///      block that has bytes of an earlier transaction.
///  L4  Of a file that is opened all bytes after the last place that a row names are garbage of a crash, and are cut
///      off. If rows name bytes after its end, it is damaged: then nothing is cut off, and new places come after it.
///
/// For one thread.
class SegmentSpace {
 public:
  static constexpr std::uint64_t kBlock = 4'096;

  SegmentSpace() = default;
  /// Of a file of `size` bytes, whose rows name places up to `named`.
  SegmentSpace(std::uint64_t size, std::uint64_t named) : named_(std::min(size, named)) {
    if (named < size) cut_ = named;
    if (named > size) named_ = size;
    free_ = next_ = named_;
  }
  /// To which size the file that was opened is to be cut.
  std::optional<std::uint64_t> cut_at_opening() const { return cut_; }

  /// Takes the next place.
  std::uint64_t take(std::uint64_t bytes) {
    if (!is_in_use_) next_ = (next_ + kBlock - 1) / kBlock * kBlock;
    is_in_use_ = true;
    next_ += bytes;
    return next_ - bytes;
  }
  /// Where the last place of the transaction ends.
  std::uint64_t end() const { return next_; }
  /// Whether the transaction has places, so that the file is to be synced before it is committed.
  bool is_in_use() const { return is_in_use_; }

  /// To be called before the file is synced, before the commit is tried, and after it.
  void on_sync() { free_ = next_; }
  void on_commit() { free_ = named_ = next_; }
  void on_committed() { is_in_use_ = false; }
  /// The transaction has failed. Returns the size to which the file may be cut: no row can name what is after it.
  std::uint64_t on_roll_back() {
    is_in_use_ = false;
    next_ = free_;
    return named_;
  }

 private:
  std::uint64_t named_ = 0;  ///< no row names what is after this, whatever a recovery finds
  std::uint64_t free_ = 0;   ///< what is before this is not given again
  std::uint64_t next_ = 0;
  bool is_in_use_ = false;
  std::optional<std::uint64_t> cut_;
};

}  // namespace kitsune2::sqlite
