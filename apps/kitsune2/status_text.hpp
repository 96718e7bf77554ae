// What `kitsune2 status` shows of a node, from the JSON that the node's socket gives. Whoever owns the data directory
// may have put something else there: any bytes are an answer or none, and nothing of it reaches a terminal unescaped.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace kitsune2::cli {

/// The answer of a running node; nothing if it is no JSON object. What is nested deeper than any answer is left out.
std::optional<nlohmann::json> read_status(std::string_view text);

/// For people. What is missing or of another type than it should be is shown as empty, or left out.
std::string status_text(const nlohmann::json& status, const std::string& data);

}  // namespace kitsune2::cli
