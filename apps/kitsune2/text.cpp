// Numbers and words in the forms that people read and type.
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

std::string counted(std::uint64_t count, std::string_view one) {
  return std::to_string(count) + ' ' + std::string(one) + (count == 1 ? "" : "s");
}

std::string human_time(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  char buffer[40];
  if (seconds > 359'999) {
    std::snprintf(buffer, sizeof buffer, "%.0f days", std::min(seconds / 86'400, 1e6));
    return buffer;
  }
  const auto s = static_cast<unsigned>(std::lround(seconds));
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

std::string fitting(const std::vector<std::string>& lines, std::size_t width) {
  if (lines.empty()) return {};
  const auto columns = [](std::string_view line) {
    // Continuation bytes of a character take no column.
    return static_cast<std::size_t>(
        std::count_if(line.begin(), line.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
  };
  for (const auto& line : lines) {
    if (columns(line) <= width) return line;
  }
  std::string line = lines.back();
  while (columns(line) > width) line.pop_back();
  return line;
}

std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& known) {
  std::optional<std::string> best;
  std::size_t least = std::min<std::size_t>(3, word.size() / 2 + 1);  // fewer changes than this
  for (const auto& candidate : known) {
    // Insertions, deletions, replacements and swaps of neighbours.
    const std::size_t rows = word.size() + 1, columns = candidate.size() + 1;
    std::vector<std::size_t> cost(rows * columns);
    const auto at = [&](std::size_t i, std::size_t j) -> std::size_t& { return cost[i * columns + j]; };
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t j = 0; j < columns; ++j) {
        if (i == 0 || j == 0) {
          at(i, j) = i + j;
          continue;
        }
        const bool same = word[i - 1] == candidate[j - 1];
        at(i, j) = std::min({at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + (same ? 0 : 1)});
        if (i > 1 && j > 1 && word[i - 1] == candidate[j - 2] && word[i - 2] == candidate[j - 1]) {
          at(i, j) = std::min(at(i, j), at(i - 2, j - 2) + 1);
        }
      }
    }
    if (cost.back() < least) {
      least = cost.back();
      best = candidate;
    }
  }
  return best;
}

}  // namespace kitsune2::cli
