// A result as text: "ok", or the error in full.
#pragma once

#include <string>

#include "kitsune2/error.hpp"

namespace kitsune2::wire::test {

template <class T>
std::string outcome(const Result<T>& result) {
  return result ? "ok" : result.error().to_string();
}

}  // namespace kitsune2::wire::test
