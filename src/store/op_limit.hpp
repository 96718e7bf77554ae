// The limit on the size of an op, as both stores apply it.
#pragma once

#include <cstdint>
#include <string>

#include "kitsune2/error.hpp"

namespace kitsune2::store {

inline Result<void> check_op_size(std::uint64_t bytes, std::uint64_t max_op_bytes) {
  if (bytes <= max_op_bytes) return {};
  return make_error(Errc::too_large, "an op of " + std::to_string(bytes) +
                                         " bytes is larger than one message carries; the limit is " +
                                         std::to_string(max_op_bytes) + " bytes");
}

}  // namespace kitsune2::store
