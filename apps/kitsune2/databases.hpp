// The databases of a data folder.
#pragma once

#include <string>
#include <vector>

#include "kitsune2/error.hpp"

namespace kitsune2::cli {

/// The op databases of the spaces in a data folder, sorted by name. A file that only looks like one is among them.
/// Errc::io.
Result<std::vector<std::string>> databases_of(const std::string& data);

}  // namespace kitsune2::cli
