// The file of `relay --config`: the command line's options, as JSON.
#pragma once

#include <string>

#include "kitsune2/error.hpp"

namespace CLI {
class App;
}

namespace kitsune2::cli {

/// Sets the options of `relay` from the file at `path`: one JSON object whose keys are the names of the options without
/// the dashes, {"listen": ["0.0.0.0:443"], "sbd-limit-clients": 5000, "no-sbd": true}. Options that are also on the
/// command line keep their value from there. Options of the output (--json, --quiet, --log-…) and --config cannot be
/// set in a file. Errc::invalid_config names the file and the key; the options are then in an unspecified state.
Result<void> read_relay_config(CLI::App& relay, const std::string& path);

}  // namespace kitsune2::cli
