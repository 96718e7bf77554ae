// The version of the library. It is defined only here: the build reads it from this file.
#pragma once

#include "kitsune2/abi.hpp"

#define KITSUNE2_VERSION_MAJOR 0
#define KITSUNE2_VERSION_MINOR 1
#define KITSUNE2_VERSION_PATCH 0

/// One number for comparisons in `#if`: 10,000 for a major version, 100 for a minor one; 0.1.0 is 100.
#define KITSUNE2_VERSION (KITSUNE2_VERSION_MAJOR * 10000 + KITSUNE2_VERSION_MINOR * 100 + KITSUNE2_VERSION_PATCH)

namespace kitsune2 {

/// The version of the linked library, e.g. "0.1.0". The macros are the version of the headers. Both are equal unless an
/// application was compiled against one version and linked with another, which is not supported before 1.0.
const char* version() noexcept;

}  // namespace kitsune2
