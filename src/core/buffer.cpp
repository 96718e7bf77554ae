#include "core/buffer.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace kitsune2 {

std::shared_ptr<std::uint8_t[]> make_buffer(std::size_t size) {
  if (size < kHugePage) return std::make_shared_for_overwrite<std::uint8_t[]>(size);
  void* data = nullptr;
  if (posix_memalign(&data, kHugePage, size) != 0) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  static_cast<void>(madvise(data, size / kHugePage * kHugePage, MADV_HUGEPAGE));  // a wish
#endif
  return {static_cast<std::uint8_t*>(data), [](std::uint8_t* p) { std::free(p); }};
}

}  // namespace kitsune2
