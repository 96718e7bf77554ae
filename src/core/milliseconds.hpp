// Times of the configuration, which are in milliseconds.
#pragma once

#include <cstdint>

#include "kitsune2/time.hpp"

namespace kitsune2 {

/// `count` is in the range of its key, so that nothing overflows.
inline Duration from_ms(std::uint64_t count) { return Duration(static_cast<std::int64_t>(count) * 1000); }

}  // namespace kitsune2
