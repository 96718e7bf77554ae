// The output of `kitsune2 status`, from the JSON of the node's socket. The owner of the data directory may have put
// something else there: any bytes are accepted, as an answer or as none, and nothing reaches a terminal unescaped.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace kitsune2::cli {

/// Parses the answer of a running node; nullopt if it is not a JSON object. Leaves out what is nested deeper than any
/// answer.
std::optional<nlohmann::json> read_status(std::string_view text);

/// The status for people. Missing values and those of a wrong type are shown as empty, or left out.
std::string status_text(const nlohmann::json& status, const std::string& data);

}  // namespace kitsune2::cli
