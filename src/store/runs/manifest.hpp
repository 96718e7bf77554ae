// Which runs there are: what makes them valid. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "store/runs/run.hpp"

namespace kitsune2::runs {

/// The runs of a store, and what they cover.
///
/// *Rules*.
///  M1  A run counts only if a manifest names it; the manifest is written after the blocks of the run and becomes
///      durable with or after them (in SQLite: in the same transaction). Blocks that nobody names are free.
///  M2  The runs of each order hold together every op that was stored up to `covered`, and nothing later. After a crash
///      the newer ones are read from their rows.
///  M3  A slot belongs to one run at most.
struct Manifest {
  std::uint64_t salt = 0;         ///< of filter_hash
  std::uint64_t next_number = 1;  ///< of the next run
  std::int64_t covered = INT64_MIN;
  std::vector<RunInfo> runs;
  friend bool operator==(const Manifest&, const Manifest&) = default;

  std::vector<std::uint8_t> encode() const;
  /// `slots`: how many the file has. Errc::corrupt: not what `encode` wrote, or a slot or a run is named twice, or a
  /// number is impossible. So what a manifest makes its reader allocate is bounded by the size of the file.
  static Result<Manifest> decode(ByteView bytes, std::uint64_t slots);
};

/// Which slots are taken.
class SlotMap {
 public:
  explicit SlotMap(const Manifest& manifest = {});
  /// The lowest free one.
  std::uint64_t take();
  void give_back(const std::vector<Extent>& slots);
  std::uint64_t end() const { return taken_.size(); }  ///< no slot from here on was ever taken

 private:
  std::vector<bool> taken_;
  std::uint64_t lowest_free_ = 0;  ///< none before it is free
};

}  // namespace kitsune2::runs
