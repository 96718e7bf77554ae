// The databases of a data folder.
#pragma once

#include <string>
#include <vector>

#include "kitsune2/error.hpp"

namespace kitsune2::cli {

/// Returns the op databases of the spaces in a data folder, sorted by name. Includes files that only look like one.
/// Errc::io.
Result<std::vector<std::string>> databases_of(const std::string& data);

}  // namespace kitsune2::cli
