// The form of the program's log on stderr.
#pragma once

#include <string>
#include <string_view>

#include "kitsune2/log.hpp"

namespace kitsune2::cli {

enum class LogFormat { text, json };

/// Formats one log line, including its end. Text: "2026-11-28T03:30:43.123456Z info relay: client … connected". JSON:
/// {"time":"2026-11-28T03:30:43.123456Z","level":"info","area":"relay","message":"client … connected"}. The time is
/// UTC, in the form of RFC 3339.
std::string log_text(const LogLine& line, LogFormat format);

/// `text` as a JSON string. Invalid UTF-8 becomes U+FFFD, so that the result is JSON in any case.
std::string json_string(std::string_view text);

}  // namespace kitsune2::cli
