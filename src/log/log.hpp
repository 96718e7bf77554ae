// How every part of the library logs. Above the core, below everything that logs.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "kitsune2/log.hpp"

namespace kitsune2::log {

using Level = LogLevel;

/// One log: a callback and a level. Any thread.
class Logger {
 public:
  Logger() = default;
  explicit Logger(LogOptions options) { set(std::move(options)); }
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  bool enabled(Level level) const { return level >= level_.load(std::memory_order_relaxed); }
  void write(Level level, std::string_view area, std::string_view text);
  /// Replaces callback and level. When it returns, the previous callback is not running and has been destroyed.
  void set(LogOptions options);
  /// Ends the log, like `set({})`: later lines are dropped.
  void close() { set({}); }

 private:
  std::atomic<Level> level_{Level::off};
  std::mutex mutex_;
  LogCallback callback_;  // guarded
};

/// While it exists, this thread logs to `logger`. Null: no change. The scopes of a thread nest.
class Scope {
 public:
  explicit Scope(std::shared_ptr<Logger> logger);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  /// Not null while this thread logs to it.
  const std::shared_ptr<Logger>& logger() const { return logger_; }

 private:
  std::shared_ptr<Logger> logger_;
  const Scope* outer_;
};

/// The logger of this thread's innermost Scope; null outside of all. Code that starts a thread passes it on.
std::shared_ptr<Logger> current();

/// Whether lines of this level are written at all; check it before building a costly text. Any thread.
bool enabled(Level level);
/// Writes a line to this thread's log. Never pass secrets; pass text from peers through `printable`. Any thread.
void write(Level level, std::string_view area, std::string_view text);

inline void debug(std::string_view area, std::string_view text) { write(Level::debug, area, text); }
inline void info(std::string_view area, std::string_view text) { write(Level::info, area, text); }
inline void warn(std::string_view area, std::string_view text) { write(Level::warn, area, text); }
inline void error(std::string_view area, std::string_view text) { write(Level::error, area, text); }

/// The longest text of a line; the rest is cut off.
inline constexpr std::size_t kMaxTextBytes = 4096;
/// `text` as one line of valid UTF-8: control characters, invalid UTF-8 and marks that change the direction of writing
/// become \xNN. Every line passes through it.
std::string escaped(std::string_view text);
/// The first `max` bytes of a peer's text, escaped.
inline std::string printable(std::string_view text, std::size_t max = 256) { return escaped(text.substr(0, max)); }

/// Lets `burst` lines pass in each interval and counts the rest, so that peers cannot fill the log. Strand only.
class Gate {
 public:
  explicit Gate(Duration interval = std::chrono::seconds(1), std::uint32_t burst = 1)
      : interval_(interval), burst_(burst) {}
  /// Returns true if a line may be written now; `suppressed()` lines like it were left out before.
  bool open(Time now) {
    if (now >= next_) {
      next_ = now + interval_;
      left_ = burst_;
    }
    if (left_ == 0) {
      ++count_;
      return false;
    }
    --left_;
    suppressed_ = take_count();
    return true;
  }
  std::uint64_t suppressed() const { return suppressed_; }
  /// The end of a line that `open` let pass: "", or " (12 more like it left out)".
  std::string left_out() const;
  /// The number of lines left out since the last one that passed. They count as reported from now on.
  std::uint64_t take_count() {
    const std::uint64_t out = count_;
    count_ = 0;
    return out;
  }

 private:
  Duration interval_;
  std::uint32_t burst_;
  Time next_ = Time::min();
  std::uint32_t left_ = 0;
  std::uint64_t count_ = 0, suppressed_ = 0;
};

}  // namespace kitsune2::log
