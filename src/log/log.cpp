#include "log/log.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace kitsune2::log {
namespace {

spdlog::level::level_enum level_of(Level level) {
  switch (level) {
    case Level::trace:
      return spdlog::level::trace;
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warn:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
    case Level::off:
      return spdlog::level::off;
  }
  return spdlog::level::err;
}

}  // namespace

bool enabled(Level level) { return spdlog::should_log(level_of(level)); }

void set_level(Level level) { spdlog::set_level(level_of(level)); }

void write(Level level, std::string_view area, std::string_view text) {
  spdlog::log(level_of(level), "{}: {}", area, text);
}

std::string printable(std::string_view text, std::size_t max) {
  std::string out(text.substr(0, max));
  std::replace_if(
      out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return out;
}

}  // namespace kitsune2::log
