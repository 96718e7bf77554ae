// The allocator for the bytes of messages: small ones on the heap, large ones in mapped blocks that are reused.
// Decisions 0006 and 0015 have the figures.
#include "core/buffer.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/container/static_vector.hpp>
#include <chrono>
#include <mutex>
#include <new>

#include "core/sanitized.hpp"

namespace kitsune2 {
namespace {

/// Under a sanitizer every block is unmapped when it is released. If it were reused, nothing would be reported when a
/// released block is read.
constexpr bool kReuses = !kSanitized;

/// Sizes of blocks are multiples of this, so that a released block suits many later requests.
constexpr std::size_t kStep = 64U << 10;

/// Memory that was mapped for one buffer, or nothing (size 0).
struct Block {
  std::uint8_t* data = nullptr;
  std::size_t size = 0;
};

/// Maps `size` bytes. Returns an empty block if the system refuses, for example because it limits the number of
/// mappings of a process.
Block map(std::size_t size) {
  void* const data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return {};
  return {static_cast<std::uint8_t*>(data), size};
}

void unmap(Block block) {
  if (block.size > 0) munmap(block.data, block.size);
}

/// Makes all pages resident with one system call. Linux before 5.14 does not know the call; there each page is made
/// resident by a fault when it is first touched.
void populate(Block block) {
#ifdef MADV_POPULATE_WRITE
  if (block.size > 0) static_cast<void>(madvise(block.data, block.size, MADV_POPULATE_WRITE));
#endif
}

/// Decides whether the next block should consist of huge pages. Some machines provide a huge page in microseconds; in a
/// virtual machine whose host must first find the memory it can take milliseconds. So one huge page is timed now and
/// then: if it was slow, the next 64 blocks consist of small pages, and each further slow one doubles that number, up
/// to 4,096. Any thread.
class HugePages {
 public:
  bool is_worth_it() {
    if (small_left_.load(std::memory_order_relaxed) <= 0) return true;
    small_left_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  /// One huge page has become resident in this time.
  void on_populated(std::chrono::steady_clock::duration one) {
    if (one <= kSlow) return pause_.store(kFirstPause, std::memory_order_relaxed);
    const int pause = pause_.load(std::memory_order_relaxed);
    small_left_.store(pause, std::memory_order_relaxed);
    pause_.store(std::min(2 * pause, kMostPause), std::memory_order_relaxed);
  }

 private:
  static constexpr std::chrono::milliseconds kSlow{2};
  static constexpr int kFirstPause = 64, kMostPause = 4096;
  std::atomic<int> small_left_{0};       ///< blocks that will consist of small pages
  std::atomic<int> pause_{kFirstPause};  ///< how many there will be after the next slow page
};

HugePages& huge_pages() {
  static HugePages only;
  return only;
}

/// Makes a block resident, in huge pages if they are worthwhile. The block must begin on a boundary of a huge page and
/// be at least one huge page long.
void populate_huge(Block block) {
#ifdef MADV_HUGEPAGE
  if (huge_pages().is_worth_it()) {
    // The first huge page is timed; it decides about the rest of the block.
    static_cast<void>(madvise(block.data, kHugePage, MADV_HUGEPAGE));  // only a hint
    const auto before = std::chrono::steady_clock::now();
    populate({block.data, kHugePage});
    huge_pages().on_populated(std::chrono::steady_clock::now() - before);
    block = {block.data + kHugePage, block.size - kHugePage};
    if (huge_pages().is_worth_it())
      static_cast<void>(madvise(block.data, block.size / kHugePage * kHugePage, MADV_HUGEPAGE));
  }
#endif
  populate(block);
}

/// Maps a new block and makes it resident. Returns an empty block if there is no memory. A block of kHugePage or more
/// begins on a boundary of a huge page.
Block fresh_block(std::size_t size) {
  if (size < kHugePage) {
    const Block out = map(size);
    populate(out);
    return out;
  }
  const Block all = map(size + kHugePage);
  if (all.data == nullptr) return {};
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(all.data) % kHugePage) % kHugePage;
  const Block out{all.data + before, size};
  unmap({all.data, before});
  unmap({out.data + size, kHugePage - before});
  populate_huge(out);
  return out;
}

/// The blocks that were released and wait to be used again. Any thread.
class Pool {
 public:
  /// Takes the smallest idle block that is large enough, unless more than a quarter of it would stay unused. Maps a new
  /// block if there is none.
  Block take(std::size_t size) {
    size = (size + kStep - 1) / kStep * kStep;
    {
      const std::lock_guard lock(mutex_);
      auto best = idle_.end();
      for (auto it = idle_.begin(); it != idle_.end(); ++it) {
        if (it->size < size || it->size - size > it->size / 4) continue;
        if (best == idle_.end() || it->size < best->size) best = it;
      }
      if (best != idle_.end()) {
        const Block out = *best;
        idle_.erase(best);
        idle_bytes_ -= out.size;
        return out;
      }
    }
    return fresh_block(size);
  }

  /// Keeps a released block for reuse. To stay within kMostIdle, the blocks that were released longest ago are
  /// unmapped.
  void put_back(Block block) {
    if (!kReuses || block.size > kMostIdle) return unmap(block);
    std::array<Block, kMostBlocks> gone{};
    std::size_t count = 0;
    {
      const std::lock_guard lock(mutex_);
      while (!idle_.empty() && (idle_.size() == kMostBlocks || idle_bytes_ + block.size > kMostIdle)) {
        gone[count++] = idle_.front();
        idle_bytes_ -= idle_.front().size;
        idle_.erase(idle_.begin());
      }
      idle_.push_back(block);
      idle_bytes_ += block.size;
    }
    for (std::size_t i = 0; i < count; ++i) unmap(gone[i]);  // a system call, so not under the lock
  }

  std::size_t idle_bytes() {
    const std::lock_guard lock(mutex_);
    return idle_bytes_;
  }

 private:
  static constexpr std::size_t kMostBlocks = kMostIdle / kPooledFrom;
  std::mutex mutex_;
  boost::container::static_vector<Block, kMostBlocks> idle_;  ///< in the order of release
  std::size_t idle_bytes_ = 0;
};

/// The pool of the process. It is never destroyed, because static objects may release buffers until the very end.
Pool& pool() {
  static Pool& only = *new Pool;
  return only;
}

}  // namespace

std::shared_ptr<std::uint8_t[]> make_buffer(std::size_t size) {
  if (size >= (kReuses ? kPooledFrom : kHugePage)) {
    if (const Block block = pool().take(size); block.data != nullptr) {
      return {block.data, [block](std::uint8_t*) { pool().put_back(block); }};
    }
  }
  return std::make_shared_for_overwrite<std::uint8_t[]>(size);
}

std::size_t idle_buffer_bytes() { return pool().idle_bytes(); }

}  // namespace kitsune2
