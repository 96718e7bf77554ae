// The log: the lines that the library writes about its work, and the callback that receives them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "kitsune2/time.hpp"

namespace kitsune2 {

/// How important a line is. `off` is not the level of a line; it is the setting that lets no line pass.
enum class LogLevel : std::uint8_t {
  trace,
  debug,  ///< single messages and connections; faults of peers
  info,   ///< peers that came and went; what was refused and why
  warn,   ///< something does not work as it should, but the node goes on
  error,  ///< something does not work at all
  off,
};
/// "trace", "debug", "info", "warn", "error", "off".
std::string_view to_string(LogLevel level);
/// The level with that name.
std::optional<LogLevel> log_level_from(std::string_view name);

/// One line. The texts are borrowed and valid only during the call.
struct LogLine {
  LogLevel level = LogLevel::info;
  std::string_view area;  ///< the part that writes the line: "fetch", "relay", …
  /// One line of valid UTF-8, at most 4 KiB. Text from peers appears as `\xNN` wherever it could do harm (control
  /// characters, broken UTF-8, marks that change the direction of writing), so the line may be written to a terminal or
  /// a file as it is. It never contains keys or other secrets.
  std::string_view text;
  Timestamp time;  ///< the system's clock
};

/// Receives the lines of a log.
///
/// *Thread rule*: called on the thread that writes the line: the strand, the thread of an embedded relay, or a thread
/// inside `Node::start` or `Node::stop`. The calls of one log never overlap, so the callback needs no lock for data of
/// its own. It should be quick, because the strand waits for it. *Reentrancy*: it may post to a runtime. It must not
/// call anything that waits for the strand (the members of `Node`), nor `set_process_log`. Lines that it causes on the
/// same thread are dropped. *Exceptions* that it throws are swallowed, and the line is lost: a log line is never a
/// reason to end a node. *Lifetime*: it is destroyed when its log ends (see there) and never called after that;
/// whatever it refers to must live until then.
using LogCallback = std::function<void(const LogLine&)>;

/// Where lines go, and which. The default is silence: the library writes to no stream on its own.
struct LogOptions {
  /// Null: there is no log here, and lines go to the process's log.
  LogCallback callback = {};
  /// The lowest level that `callback` receives.
  LogLevel level = LogLevel::info;
};

/// Sets the process's log, which receives the lines of everything that has no log of its own. Off by default.
///
/// *Which log a line goes to*: a log belongs to a runtime, and a line to the runtime on whose thread it is written. A
/// `Node` makes its own runtime, so `NodeOptions::log` receives the lines of that node alone, including its embedded
/// relay. With a `Builder`, pass the log to the `AsioRuntime`. Everything else writes to the process's log: runtimes
/// without a log, other implementations of `Runtime` (also SimRuntime), and calls outside any runtime.
///
/// Replaces the previous log; a null callback turns it off. When it returns, the previous callback is not running and
/// has been destroyed. May be called on any thread, but not from inside a callback.
void set_process_log(LogOptions options);

}  // namespace kitsune2
