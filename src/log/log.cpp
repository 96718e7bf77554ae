// Delivers log lines to the thread's logger or the process's, and makes them safe to print.
#include "log/log.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "kitsune2/error.hpp"

namespace kitsune2 {
namespace {

constexpr std::array<std::string_view, 6> kNames{"trace", "debug", "info", "warn", "error", "off"};

}  // namespace

std::string_view to_string(LogLevel level) {
  const auto index = static_cast<std::size_t>(level);
  return index < kNames.size() ? kNames[index] : "off";
}

std::optional<LogLevel> log_level_from(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<LogLevel>(i);
  }
  return std::nullopt;
}

namespace log {
namespace {

thread_local const Scope* t_scope = nullptr;
/// A callback is running on this thread: lines that the library logs meanwhile are dropped.
thread_local bool t_inside = false;

class Inside {
 public:
  Inside() { t_inside = true; }
  ~Inside() { t_inside = false; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

/// Never destroyed: threads may write until the process ends.
Logger& process_logger() {
  static Logger& logger = *new Logger();
  return logger;
}

/// The log of this thread.
Logger& target() { return t_scope == nullptr ? process_logger() : *t_scope->logger(); }

Timestamp wall_now() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return {std::chrono::duration_cast<std::chrono::microseconds>(since).count()};
}

/// The length of the UTF-8 character at the beginning of `text`; 0 if there is no valid one.
std::size_t character(std::string_view text) {
  const auto at = [&](std::size_t i) { return i < text.size() ? static_cast<std::uint8_t>(text[i]) : 0U; };
  const auto follows = [&](std::size_t i) { return (at(i) & 0xc0U) == 0x80U; };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first < 0xe0) return follows(1) ? 2 : 0;
  if (first >= 0xe0 && first < 0xf0) {
    if (!follows(1) || !follows(2)) return 0;
    if ((first == 0xe0 && at(1) < 0xa0) || (first == 0xed && at(1) >= 0xa0)) return 0;
    return 3;
  }
  if (first >= 0xf0 && first < 0xf5) {
    if (!follows(1) || !follows(2) || !follows(3)) return 0;
    if ((first == 0xf0 && at(1) < 0x90) || (first == 0xf4 && at(1) >= 0x90)) return 0;
    return 4;
  }
  return 0;
}

/// Whether a terminal or a reader could take the character for something else than a letter.
bool harmful(std::string_view c) {
  const auto at = [&](std::size_t i) { return static_cast<std::uint8_t>(c[i]); };
  if (c.size() == 1) return at(0) < 0x20 || at(0) == 0x7f;
  if (c.size() == 2) {
    if (at(0) == 0xc2) return at(1) < 0xa0;  // U+0080..U+009F: control characters
    return at(0) == 0xd8 && at(1) == 0x9c;   // U+061C: direction
  }
  if (c.size() != 3 || at(0) != 0xe2) return false;
  if (at(1) == 0x80) {
    return at(2) == 0x8e || at(2) == 0x8f ||  // U+200E, U+200F: direction
           (at(2) >= 0xa8 && at(2) <= 0xae);  // U+2028..U+202E: ends of line, direction
  }
  return at(1) == 0x81 && at(2) >= 0xa6 && at(2) <= 0xa9;  // U+2066..U+2069: direction
}

bool is_plain(std::string_view text) {
  for (const char c : text) {
    if (c < 0x20 || c > 0x7e) return false;
  }
  return true;
}

}  // namespace

std::string escaped(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t size = character(text);
    const std::string_view c = text.substr(0, size == 0 ? 1 : size);
    text.remove_prefix(c.size());
    if (size > 0 && !harmful(c)) {
      out += c;
      continue;
    }
    for (const char byte : c) {
      out += "\\x";
      out += kHex[static_cast<std::uint8_t>(byte) >> 4];
      out += kHex[static_cast<std::uint8_t>(byte) & 15];
    }
  }
  return out;
}

void Logger::write(Level level, std::string_view area, std::string_view text) {
  if (level == Level::off || !enabled(level) || t_inside) return;
  std::string made;
  if (text.size() > kMaxTextBytes || !is_plain(text)) {
    made = escaped(text.substr(0, kMaxTextBytes));
    if (made.size() > kMaxTextBytes || text.size() > kMaxTextBytes) {
      std::size_t end = std::min(made.size(), kMaxTextBytes - 3);
      while (end > 0 && (static_cast<std::uint8_t>(made[end]) & 0xc0U) == 0x80U) --end;  // cut no character in half
      made.resize(end);
      made += "...";
    }
    text = made;
  }
  const LogLine line{level, area, text, wall_now()};
  const std::lock_guard lock(mutex_);
  if (!callback_) return;
  const Inside inside;
  try {
    callback_(line);
  } catch (...) {  // the host's fault, and no reason to end a node: see LogCallback
  }
}

void Logger::set(LogOptions options) {
  K2_ASSERT(!t_inside);
  LogCallback before;  // destroyed after the lock is released
  const std::lock_guard lock(mutex_);
  level_.store(options.callback ? options.level : Level::off, std::memory_order_relaxed);
  before = std::exchange(callback_, std::move(options.callback));
}

Scope::Scope(std::shared_ptr<Logger> logger) : logger_(std::move(logger)), outer_(t_scope) {
  if (logger_) t_scope = this;
}

Scope::~Scope() {
  if (logger_) t_scope = outer_;
}

std::shared_ptr<Logger> current() { return t_scope == nullptr ? nullptr : t_scope->logger(); }

bool enabled(Level level) { return level != Level::off && target().enabled(level); }

void write(Level level, std::string_view area, std::string_view text) { target().write(level, area, text); }

std::string Gate::left_out() const {
  return suppressed_ == 0 ? std::string() : " (" + std::to_string(suppressed_) + " more like it left out)";
}

}  // namespace log

void set_process_log(LogOptions options) { log::process_logger().set(std::move(options)); }

}  // namespace kitsune2
