#include "text.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>

namespace kitsune2::cli {

std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, kUnits[unit]);
  return buffer;
}

std::string human_time(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 359'999) return "?";
  const auto s = static_cast<unsigned>(std::lround(seconds));
  char buffer[40];
  if (s >= 3600) {
    std::snprintf(buffer, sizeof buffer, "%u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
  } else {
    std::snprintf(buffer, sizeof buffer, "%u:%02u", s / 60, s % 60);
  }
  return buffer;
}

std::string bar(double part, int width) {
  const int full = static_cast<int>(std::clamp(part, 0.0, 1.0) * width);
  return '[' + std::string(static_cast<std::size_t>(full), '#') +
         std::string(static_cast<std::size_t>(width - full), '.') + ']';
}

}  // namespace kitsune2::cli
