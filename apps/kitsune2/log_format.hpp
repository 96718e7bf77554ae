// How the program writes its log to stderr.
#pragma once

#include <string>
#include <string_view>

#include "kitsune2/log.hpp"

namespace kitsune2::cli {

enum class LogFormat { text, json };

/// One line of the log, its end included. Text: "2026-11-28T03:30:43.123456Z info relay: client … connected". JSON:
/// {"time":"2026-11-28T03:30:43.123456Z","level":"info","area":"relay","message":"client … connected"}. The time is
/// UTC, as RFC 3339 has it.
std::string log_text(const LogLine& line, LogFormat format);

/// `text` as a JSON string. Bytes that are no UTF-8 become U+FFFD: it is JSON in any case.
std::string json_string(std::string_view text);

}  // namespace kitsune2::cli
