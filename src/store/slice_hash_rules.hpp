// What every store requires of a slice hash.
#pragma once

#include "kitsune2/arc.hpp"
#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::store {

/// Errc::invalid_argument: an empty arc, an empty hash (the reference refuses it too: no hash is stored for an empty
/// slice), or an index that does not fit an i64 (the number in the file format).
inline Result<void> check_slice_hash(const DhtArc& arc, std::uint64_t slice_index, const Bytes& hash) {
  if (arc.empty()) return make_error(Errc::invalid_argument, "slice hash of an empty arc");
  if (hash.empty()) return make_error(Errc::invalid_argument, "empty slice hash");
  if (slice_index > static_cast<std::uint64_t>(INT64_MAX)) {
    return make_error(Errc::invalid_argument, "slice index out of range");
  }
  return {};
}

}  // namespace kitsune2::store
