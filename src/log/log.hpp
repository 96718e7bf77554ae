// Logging of the shell. Keeps spdlog out of headers; the program configures spdlog's default logger.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kitsune2/time.hpp"

namespace kitsune2::log {

enum class Level { trace, debug, info, warn, error, off };

/// Whether a line of this level is written at all: ask before building a costly text. Any thread.
bool enabled(Level level);
/// What is below `level` is not written. For tests; a program configures spdlog itself. Any thread.
void set_level(Level level);
/// Writes "area: text". Never pass secrets; peer's texts only after `printable`. Any thread.
void write(Level level, std::string_view area, std::string_view text);

inline void debug(std::string_view area, std::string_view text) { write(Level::debug, area, text); }
inline void info(std::string_view area, std::string_view text) { write(Level::info, area, text); }
inline void warn(std::string_view area, std::string_view text) { write(Level::warn, area, text); }
inline void error(std::string_view area, std::string_view text) { write(Level::error, area, text); }

/// `text` with control characters replaced and cut to `max` bytes.
std::string printable(std::string_view text, std::size_t max = 256);

/// Lets one line pass in each interval and counts the rest, so that a peer cannot fill the log. Strand only.
class Gate {
 public:
  explicit Gate(Duration interval = std::chrono::seconds(1)) : interval_(interval) {}
  /// True: write now; `suppressed()` lines were left out before it.
  bool open(Time now) {
    if (now < next_) {
      ++count_;
      return false;
    }
    next_ = now + interval_;
    suppressed_ = count_;
    count_ = 0;
    return true;
  }
  std::uint64_t suppressed() const { return suppressed_; }

 private:
  Duration interval_;
  Time next_ = Time::min();
  std::uint64_t count_ = 0, suppressed_ = 0;
};

}  // namespace kitsune2::log
