// The file of `relay --config`: the command line's options, as JSON.
#pragma once

#include <string>

#include "kitsune2/error.hpp"

namespace CLI {
class App;
}

namespace kitsune2::cli {

/// Gives the options of `relay` what the file at `path` says: one JSON object whose keys are the options' names without
/// the dashes, {"listen": ["0.0.0.0:443"], "sbd-limit-clients": 5000, "no-sbd": true}. What stands on the command line
/// too is left as it is there. Options of the output (--json, --quiet, --log-…) and --config cannot be set in a file.
/// Errc::invalid_config naming the file and the key; the options are in no particular state then.
Result<void> read_relay_config(CLI::App& relay, const std::string& path);

}  // namespace kitsune2::cli
