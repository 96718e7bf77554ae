// Formats the lines of the program's log.
#include "log_format.hpp"

#include <nlohmann/json.hpp>

namespace kitsune2::cli {

std::string log_text(const LogLine& line, LogFormat format) {
  const std::string time = line.time.to_string();
  const std::string level(to_string(line.level));
  if (format == LogFormat::text)
    return time + ' ' + level + ' ' + std::string(line.area) + ": " + std::string(line.text) + '\n';
  return "{\"time\":" + json_string(time) + ",\"level\":" + json_string(level) + ",\"area\":" + json_string(line.area) +
         ",\"message\":" + json_string(line.text) + "}\n";
}

std::string json_string(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace kitsune2::cli
