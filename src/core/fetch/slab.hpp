// Records of one type, addressed by 32-bit slots, in chunks.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "kitsune2/error.hpp"

namespace kitsune2 {

/// The absence of a slot.
inline constexpr std::uint32_t kNoSlot = UINT32_MAX;

/// Holds records that never move. Growing allocates one chunk and copies nothing, so memory never doubles. A chunk is
/// freed when its last record is erased; one empty chunk is kept for the next record. emplace, erase and access are
/// O(1). Overhead: 8 bytes per chunk of 2^kBits records. Not thread-safe.
template <class T, unsigned kBits = 10>
class Slab {
 public:
  Slab() = default;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab() { clear(); }

  T& operator[](std::uint32_t slot) noexcept { return *chunks_[slot >> kBits]->at(slot & kMask); }
  const T& operator[](std::uint32_t slot) const noexcept { return *chunks_[slot >> kBits]->at(slot & kMask); }

  template <class... Args>
  std::uint32_t emplace(Args&&... args) {
    const std::uint32_t number = chunk_with_room();
    Chunk& chunk = *chunks_[number];
    const std::uint16_t index = chunk.take();
    ::new (chunk.raw(index)) T{std::forward<Args>(args)...};
    ++size_;
    if (number == spare_) spare_ = kNoSlot;
    return (number << kBits) | index;
  }

  void erase(std::uint32_t slot) {
    const std::uint32_t number = slot >> kBits;
    Chunk& chunk = *chunks_[number];
    const auto index = static_cast<std::uint16_t>(slot & kMask);
    chunk.at(index)->~T();
    chunk.give_back(index);
    --size_;
    if (chunk.live == 0 && spare_ != kNoSlot) {
      chunks_[number].reset();
      absent_.push_back(number);
      return;
    }
    if (chunk.live == 0) spare_ = number;
    list(number);
  }

  bool holds(std::uint32_t slot) const noexcept {
    return (slot >> kBits) < chunks_.size() && chunks_[slot >> kBits] && chunks_[slot >> kBits]->used[slot & kMask];
  }

  std::size_t size() const noexcept { return size_; }

  /// Calls `f(slot, record)` for each record, in slot order.
  template <class F>
  void for_each(F&& f) const {
    for (std::uint32_t number = 0; number < chunks_.size(); ++number) {
      if (!chunks_[number]) continue;
      const Chunk& chunk = *chunks_[number];
      for (std::uint32_t index = 0; index < chunk.fresh; ++index) {
        if (chunk.used[index]) f((number << kBits) | index, *chunk.at(index));
      }
    }
  }

  void clear() {
    for (auto& chunk : chunks_) {
      if (!chunk) continue;
      for (std::uint32_t index = 0; index < chunk->fresh; ++index) {
        if (chunk->used[index]) chunk->at(index)->~T();
      }
    }
    chunks_.clear();
    with_room_.clear();
    listed_.clear();
    absent_.clear();
    spare_ = kNoSlot;
    size_ = 0;
  }

 private:
  static constexpr std::uint32_t kChunk = 1U << kBits;
  static constexpr std::uint32_t kMask = kChunk - 1;
  static_assert(sizeof(T) >= sizeof(std::uint16_t));

  struct Chunk {
    alignas(T) std::array<std::byte, sizeof(T) * kChunk> storage;
    std::bitset<kChunk> used;
    std::uint16_t live = 0;
    std::uint16_t fresh = 0;          ///< slots from here on were never used
    std::uint16_t first_free = kEnd;  ///< chain through the bytes of freed slots

    static constexpr std::uint16_t kEnd = UINT16_MAX;

    void* raw(std::uint32_t index) noexcept { return storage.data() + sizeof(T) * index; }
    T* at(std::uint32_t index) noexcept { return std::launder(reinterpret_cast<T*>(raw(index))); }
    const T* at(std::uint32_t index) const noexcept {
      return std::launder(reinterpret_cast<const T*>(storage.data() + sizeof(T) * index));
    }
    bool full() const noexcept { return live == kChunk; }

    std::uint16_t take() noexcept {
      std::uint16_t index = fresh;
      if (first_free != kEnd) {
        index = first_free;
        std::memcpy(&first_free, raw(index), sizeof first_free);
      } else {
        ++fresh;
      }
      used[index] = true;
      ++live;
      return index;
    }
    void give_back(std::uint16_t index) noexcept {
      std::memcpy(raw(index), &first_free, sizeof first_free);
      first_free = index;
      used[index] = false;
      --live;
    }
  };

  void list(std::uint32_t number) {
    if (listed_[number]) return;
    listed_[number] = true;
    with_room_.push_back(number);
  }

  std::uint32_t chunk_with_room() {
    while (!with_room_.empty()) {
      const std::uint32_t number = with_room_.back();
      if (chunks_[number] && !chunks_[number]->full()) return number;
      listed_[number] = false;
      with_room_.pop_back();
    }
    std::uint32_t number = 0;
    if (!absent_.empty()) {
      number = absent_.back();
      absent_.pop_back();
    } else {
      number = static_cast<std::uint32_t>(chunks_.size());
      K2_ASSERT(number < (kNoSlot >> kBits));
      chunks_.emplace_back();
      listed_.push_back(false);
    }
    // Not zeroed, so that a page is touched only when its records are.
    chunks_[number] = std::unique_ptr<Chunk>(new Chunk);
    list(number);
    return number;
  }

  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::vector<std::uint32_t> with_room_;  ///< chunks that may have room: all that do, and perhaps some that do not
  std::vector<bool> listed_;              ///< whether a chunk is in with_room_, by its number
  std::vector<std::uint32_t> absent_;     ///< freed chunk numbers
  std::uint32_t spare_ = kNoSlot;         ///< the one empty chunk that is kept
  std::size_t size_ = 0;
};

}  // namespace kitsune2
