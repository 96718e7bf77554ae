// Storage for the bytes of one message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace kitsune2 {

/// `size` bytes that are not initialised; one allocation with the reference count for small ones. Any thread.
///
/// From kPooledFrom on, blocks that are let go of are kept for the next ones, up to kMostIdle bytes in the process
/// (none under a sanitizer); those that were put back longest ago go first. *Rationale*: the system gives new memory,
/// page by page, and takes it back at the next free; with ops of a mebibyte that was a sixth of the processor's time of
/// a node that stores (docs/decisions/0015).
///
/// New blocks become resident at once, in one call of the system instead of a fault for each page. From kHugePage on a
/// block begins at a huge page and is of huge pages, as long as these come fast. *Rationale*: a huge page costs a
/// quarter of as many small ones; but in a virtual machine that hands free memory back to its host it costs ten times
/// as much when the host has it no more, while small pages are taken from what is still there. So one is timed
/// (docs/decisions/0006 and 0015).
std::shared_ptr<std::uint8_t[]> make_buffer(std::size_t size);

inline constexpr std::size_t kPooledFrom = 128U << 10;
inline constexpr std::size_t kMostIdle = 16U << 20;
inline constexpr std::size_t kHugePage = 2U << 20;

/// Bytes of blocks that wait to be used again.
std::size_t idle_buffer_bytes();

}  // namespace kitsune2
