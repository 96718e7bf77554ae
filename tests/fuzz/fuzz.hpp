// The common part of fuzz targets. A target defines LLVMFuzzerTestOneInput; a failed check aborts, in every build.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace kitsune2::fuzz {

/// The input in an allocation of exactly its size, so that a sanitizer sees reads beyond it.
inline Bytes input(const std::uint8_t* data, std::size_t size) { return Bytes::copy_of(ByteView(data, size)); }

/// Whether `part` is inside `whole` (an empty one is inside anything).
inline bool inside(const Bytes& whole, ByteView part) {
  return part.empty() || (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

}  // namespace kitsune2::fuzz
