// A block of a run: what is written and read at once, with its sum. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "kitsune2/error.hpp"
#include "store/runs/entry.hpp"

namespace kitsune2::runs {

/// Bytes of a block: as a row of a SQLite table it fills a page of 16 KiB.
inline constexpr std::size_t kBlockBytes = 16'344;
inline constexpr std::size_t kBlockHead = 16;
inline constexpr std::size_t kBlockBody = kBlockBytes - kBlockHead;

enum class BlockType : std::uint8_t { by_place = 1, by_time = 2, fences = 3, filter = 4 };

inline BlockType block_type(Order order) { return order == Order::by_place ? BlockType::by_place : BlockType::by_time; }

/// Where a block belongs. It is a part of the block's sum: one that lies in the wrong place, or is left there from an
/// earlier run, does not fit.
struct BlockName {
  std::uint64_t run = 0;
  std::uint32_t index = 0;
};

using BlockBytes = std::vector<std::uint8_t>;  ///< kBlockBytes of them

/// Numbers in blocks and manifests are little-endian.
template <class T>
T load(const std::uint8_t* from) {
  T out = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) out = static_cast<T>(out | static_cast<T>(T{from[i]} << (8 * i)));
  return out;
}
template <class T>
void save(std::uint8_t* to, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) to[i] = static_cast<std::uint8_t>(value >> (8 * i));
}

/// Fills in the head of a block whose body is there: bytes 0 to 7 are the sum of the rest, 8 the type, 9 the version,
/// 10 and 11 the number of items, 12 to 15 nothing.
void seal_block(std::span<std::uint8_t> block, BlockName name, BlockType type, std::size_t items);

/// The number of items of a block that is as it was sealed. Errc::corrupt: it is not.
Result<std::size_t> open_block(ByteView block, BlockName name, BlockType type);

/// Builds a block of entries. Its body is the entries one after the other (u32 location, u32 size, i64 created_at, i64
/// stored_at, u8 length of the id, the id), and from the end backwards the place of each, u16.
class EntryBlock {
 public:
  static constexpr std::size_t kEntryHead = 25;

  EntryBlock() : bytes_(kBlockBytes, 0) {}
  /// False: it does not fit any more.
  bool add(const Entry& entry);
  std::size_t size() const { return count_; }
  /// Valid until `clear`.
  ByteView seal(BlockName name, Order order);
  void clear();

 private:
  BlockBytes bytes_;
  std::size_t used_ = kBlockHead;
  std::size_t count_ = 0;
};

/// A block of entries that was read. All of it is checked once; entries are valid as long as the bytes are.
class EntryView {
 public:
  EntryView() = default;
  /// Errc::corrupt: not as it was sealed, or an entry reaches beyond the others. The order of entries is not looked at:
  /// where it is wrong, searches miss what is there.
  static Result<EntryView> open(ByteView block, BlockName name, Order order);

  std::size_t size() const { return count_; }
  Entry operator[](std::size_t i) const {
    const std::uint8_t* at = block_.data() + place(i);
    return {load<std::uint32_t>(at),
            load<std::uint32_t>(at + 4),
            static_cast<std::int64_t>(load<std::uint64_t>(at + 8)),
            static_cast<std::int64_t>(load<std::uint64_t>(at + 16)),
            {at + kHead, at[kHead - 1]}};
  }
  /// The first entry that is not before `key`; `size()` if there is none.
  std::size_t first_from(Order order, const Entry& key) const;

 private:
  static constexpr std::size_t kHead = EntryBlock::kEntryHead;
  std::size_t place(std::size_t i) const { return load<std::uint16_t>(block_.data() + kBlockBytes - 2 * (i + 1)); }
  ByteView block_;
  std::size_t count_ = 0;
};

/// Where the blocks of runs lie: numbered slots of one block each. A row a slot in SQLite, a place in a file, or
/// memory.
class BlockFile {
 public:
  virtual ~BlockFile() = default;
  /// `out` has kBlockBytes. Errc::corrupt: there is no such slot.
  virtual Result<void> read(std::uint64_t slot, std::span<std::uint8_t> out) = 0;
  virtual Result<void> write(std::uint64_t slot, ByteView block) = 0;
};

}  // namespace kitsune2::runs
