// Allocates and frees the storage for the bytes of one message.
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

/// Reuse would hide from the sanitizers that something still reads a released block.
constexpr bool kReuses = !kSanitized;

constexpr std::size_t kStep = 64U << 10;  ///< block sizes are multiples of it

struct Block {
  std::uint8_t* data = nullptr;
  std::size_t size = 0;
};

/// Returns an empty block if the system allows no more mappings; their number is limited.
Block map(std::size_t size) {
  void* const data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return {};
  return {static_cast<std::uint8_t*>(data), size};
}

void unmap(Block block) {
  if (block.size > 0) munmap(block.data, block.size);
}

/// Maps all pages at once. Kernels before 5.14 cannot do this; there each page is mapped when it is first touched.
void populate(Block block) {
#ifdef MADV_POPULATE_WRITE
  if (block.size > 0) static_cast<void>(madvise(block.data, block.size, MADV_POPULATE_WRITE));
#endif
}

/// Decides whether huge pages are worthwhile, by the time that the last one took. Any thread.
class HugePages {
 public:
  bool worth_it() {
    if (small_left_.load(std::memory_order_relaxed) <= 0) return true;
    small_left_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  void took(std::chrono::steady_clock::duration one) {
    if (one <= kSlow) return pause_.store(kFirstPause, std::memory_order_relaxed);
    const int pause = pause_.load(std::memory_order_relaxed);
    small_left_.store(pause, std::memory_order_relaxed);
    pause_.store(std::min(2 * pause, kMostPause), std::memory_order_relaxed);
  }

 private:
  static constexpr std::chrono::milliseconds kSlow{2};
  static constexpr int kFirstPause = 64, kMostPause = 4096;  ///< blocks
  std::atomic<int> small_left_{0}, pause_{kFirstPause};
};

HugePages& huge_pages() {
  static HugePages only;
  return only;
}

/// `block` must begin at a huge page and have room for one.
void populate_huge(Block block) {
#ifdef MADV_HUGEPAGE
  if (huge_pages().worth_it()) {
    // The first huge page is the probe.
    static_cast<void>(madvise(block.data, kHugePage, MADV_HUGEPAGE));  // a hint; failure is harmless
    const auto before = std::chrono::steady_clock::now();
    populate({block.data, kHugePage});
    huge_pages().took(std::chrono::steady_clock::now() - before);
    block = {block.data + kHugePage, block.size - kHugePage};
    if (huge_pages().worth_it())
      static_cast<void>(madvise(block.data, block.size / kHugePage * kHugePage, MADV_HUGEPAGE));
  }
#endif
  populate(block);
}

/// Returns a new block, or an empty one if there is no memory. From kHugePage on it begins at a huge page.
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

class Pool {
 public:
  /// Returns the idle block that fits best, if at most a quarter of it would be unused, or else a new block.
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

  void put_back(Block block) {
    if (!kReuses || block.size > kMostIdle) return unmap(block);
    std::array<Block, kMostBlocks> gone{};
    std::size_t count = 0;
    {
      const std::lock_guard lock(mutex_);
      // Make room by freeing the blocks that were released longest ago.
      while (!idle_.empty() && (idle_.size() == kMostBlocks || idle_bytes_ + block.size > kMostIdle)) {
        gone[count++] = idle_.front();
        idle_bytes_ -= idle_.front().size;
        idle_.erase(idle_.begin());
      }
      idle_.push_back(block);
      idle_bytes_ += block.size;
    }
    for (std::size_t i = 0; i < count; ++i) unmap(gone[i]);
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

/// Never destroyed, because buffers are released until the process ends.
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
