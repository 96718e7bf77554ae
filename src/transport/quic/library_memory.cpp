// Blocks for ngtcp2, each behind a head that links it to the others of its connection.
#include "transport/quic/library_memory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

// NOLINTBEGIN(cppcoreguidelines-no-malloc, cppcoreguidelines-owning-memory): this is an allocator for a library in C.
namespace kitsune2::quic {
namespace {

/// What stands before a block, rounded up so that the block is aligned as malloc aligns.
template <class Head>
constexpr std::size_t kHeadBytes = (sizeof(Head) + alignof(std::max_align_t) - 1) / alignof(std::max_align_t) *
                                   alignof(std::max_align_t);

}  // namespace

LibraryMemory::LibraryMemory(std::size_t most) : blocks_{&blocks_, &blocks_, 0}, most_(most) {}

LibraryMemory::~LibraryMemory() {
  for (Head* head = blocks_.next; head != &blocks_;) std::free(std::exchange(head, head->next));
}

void* LibraryMemory::allocate(std::size_t size) {
  if (size > most_ || used_ > most_ - size) return nullptr;
  void* memory = std::malloc(kHeadBytes<Head> + size);
  if (memory == nullptr) return nullptr;
  auto* head = new (memory) Head{blocks_.next, &blocks_, size};
  head->next->before = head;
  blocks_.next = head;
  used_ += size;
  return static_cast<std::uint8_t*>(memory) + kHeadBytes<Head>;
}

void* LibraryMemory::allocate_zeros(std::size_t count, std::size_t each) {
  std::size_t size = 0;
  if (__builtin_mul_overflow(count, each, &size)) return nullptr;
  void* out = allocate(size);
  if (out != nullptr) std::memset(out, 0, size);
  return out;
}

void* LibraryMemory::reallocate(void* pointer, std::size_t size) {
  void* out = allocate(size);
  if (out == nullptr || pointer == nullptr) return out;
  const auto* head = reinterpret_cast<const Head*>(static_cast<std::uint8_t*>(pointer) - kHeadBytes<Head>);
  std::memcpy(out, pointer, std::min(head->size, size));
  release(pointer);
  return out;
}

void LibraryMemory::release(void* pointer) {
  if (pointer == nullptr) return;
  auto* head = reinterpret_cast<Head*>(static_cast<std::uint8_t*>(pointer) - kHeadBytes<Head>);
  head->next->before = head->before;
  head->before->next = head->next;
  used_ -= head->size;
  std::free(head);
}

}  // namespace kitsune2::quic
// NOLINTEND(cppcoreguidelines-no-malloc, cppcoreguidelines-owning-memory)
