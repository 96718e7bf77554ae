// Storage for the bytes of one message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace kitsune2 {

/// Returns `size` uninitialised bytes; small ones share one allocation with the reference count. Any thread.
///
/// From kPooledFrom on, released blocks are kept for reuse, up to kMostIdle bytes in the process (none under a
/// sanitizer); the blocks that were released longest ago are freed first. *Rationale*: otherwise the system provides
/// new memory page by page and takes it back at the next free. With ops of one mebibyte that was a sixth of the CPU
/// time of a node that stores (docs/decisions/0015).
///
/// New blocks become resident at once, by one system call instead of a fault for each page. From kHugePage on, a block
/// begins at a huge page and consists of huge pages, as long as these are provided quickly. *Rationale*: a huge page
/// costs a quarter of the same memory in small pages. But in a virtual machine that returns free memory to its host, it
/// costs ten times as much if the host must provide it again, while small pages come from what is left. So one huge
/// page is timed (docs/decisions/0006 and 0015).
std::shared_ptr<std::uint8_t[]> make_buffer(std::size_t size);

inline constexpr std::size_t kPooledFrom = 128U << 10;
inline constexpr std::size_t kMostIdle = 16U << 20;
inline constexpr std::size_t kHugePage = 2U << 20;

/// The bytes of all blocks that are kept for reuse.
std::size_t idle_buffer_bytes();

}  // namespace kitsune2
