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
/// From kHugePage on the storage begins at a huge page, and the kernel is asked to use huge pages for all of it
/// but the part that would not fill one: nothing more becomes resident than with small pages. *Rationale*: a message of
/// many megabytes is written once, into memory that is often new, and 4 KiB faults took three quarters of the time that
/// answering with ops of 1 MiB takes (docs/decisions/0006). Where the kernel has none, nothing changes.
std::shared_ptr<std::uint8_t[]> make_buffer(std::size_t size);

inline constexpr std::size_t kPooledFrom = 128U << 10;
inline constexpr std::size_t kMostIdle = 16U << 20;
inline constexpr std::size_t kHugePage = 2U << 20;

/// Bytes of blocks that wait to be used again.
std::size_t idle_buffer_bytes();

}  // namespace kitsune2
