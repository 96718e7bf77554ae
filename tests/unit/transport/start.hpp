// When tests of state machines begin: not at 0, which would hide that a time was never set.
#pragma once

#include "kitsune2/time.hpp"

namespace kitsune2::tests {

inline constexpr Time kStart{std::chrono::seconds(1000)};

}  // namespace kitsune2::tests
