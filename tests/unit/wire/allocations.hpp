// Counts the allocations of the test program, to check that there is one per message.
#pragma once

#include <cstddef>

namespace kitsune2::wire::test {

/// Calls of operator new by this thread so far.
std::size_t allocations();

}  // namespace kitsune2::wire::test
