// Storage for the bytes of one message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace kitsune2 {

/// `size` bytes that are not initialised; one allocation with the reference count for small ones.
///
/// From kHugePage on the storage begins at a huge page, and the kernel is asked to use huge pages for all of it but the
/// part that would not fill one: nothing more becomes resident than with small pages. *Rationale*: a message of many
/// megabytes is written once, into memory that is often new, and 4 KiB faults took three quarters of the time that
/// answering with ops of 1 MiB takes (docs/decisions/0006). Where the kernel has none, nothing changes.
std::shared_ptr<std::uint8_t[]> make_buffer(std::size_t size);

inline constexpr std::size_t kHugePage = 2U << 20;

}  // namespace kitsune2
