// The memory that ngtcp2 takes for one connection: counted, bounded, and given back with the connection.
#pragma once

#include <cstddef>

namespace kitsune2::quic {

/// What one connection of ngtcp2 has allocated. It goes through here for two reasons:
///  * A peer chooses how much the library remembers of it (gaps, streams, lost packets). Beyond `most` bytes an
///    allocation fails, which ends the connection, and only that one.
///  * ngtcp2 0.12.1, the one of bookworm, loses a block now and then: a lost STREAM frame of more than four pieces that
///    is sent again in parts goes to a list of its own that is never freed. A peer brings that about by what it
///    acknowledges, as often as it likes. Whatever the library has left is freed with this object.
///
/// Threads: used by one at a time. It must outlive the `ngtcp2_conn`, and does not move, because the blocks name it.
class LibraryMemory {
 public:
  explicit LibraryMemory(std::size_t most);
  ~LibraryMemory();
  LibraryMemory(const LibraryMemory&) = delete;
  LibraryMemory& operator=(const LibraryMemory&) = delete;

  /// Each as its namesake of the C library; nullptr also when the bound is reached. `reallocate` has then left the
  /// block as it was.
  void* allocate(std::size_t size);
  void* allocate_zeros(std::size_t count, std::size_t each);
  void* reallocate(void* pointer, std::size_t size);
  void release(void* pointer);

  /// Bytes in use, without what this class adds to each block.
  std::size_t used() const { return used_; }

 private:
  /// Before each block. They form a ring, in which `blocks_` stands for none.
  struct Head {
    Head* next;
    Head* before;
    std::size_t size;
  };

  Head blocks_;
  std::size_t used_ = 0;
  const std::size_t most_;
};

}  // namespace kitsune2::quic
