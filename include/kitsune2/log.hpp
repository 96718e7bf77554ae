// The log: what the library says about its own work, line by line, and who gets the lines.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "kitsune2/time.hpp"

namespace kitsune2 {

/// How much a line matters. `off` is no level of a line: it is the setting that lets none pass.
enum class LogLevel : std::uint8_t {
  trace,
  debug,  ///< single messages and connections; what a peer did wrong
  info,   ///< who came and went, what was refused and why
  warn,   ///< something does not work as it should, and the node goes on
  error,  ///< something does not work at all
  off,
};
/// "trace", "debug", "info", "warn", "error", "off".
std::string_view to_string(LogLevel level);
/// The level of that name.
std::optional<LogLevel> log_level_from(std::string_view name);

/// One line. Borrowed: the texts are valid during the call only.
struct LogLine {
  LogLevel level = LogLevel::info;
  std::string_view area;  ///< the part that speaks: "fetch", "relay", …
  /// One line of valid UTF-8, at most 4 KiB. What peers said is in it as `\xNN` wherever it could do harm (control
  /// characters, broken UTF-8, marks that turn the direction of writing), so it may go to a terminal or a file as it
  /// is. Keys and other secrets are never in it.
  std::string_view text;
  Timestamp time;  ///< the system's clock
};

/// Takes the lines of a log.
///
/// *Thread rule*: it is called on the thread that writes the line: the strand, the thread of an embedded relay, or one
/// that is inside `Node::start` or `Node::stop`. The calls of one log never overlap, so the callback needs no lock for
/// what only it touches. Be quick: the strand waits for it. *Reentrancy*: it may post to a runtime. It must not call
/// anything that waits for the strand (the members of `Node`), nor `set_process_log`. What it makes the library log on
/// the same thread is dropped. *Exceptions* that it throws are swallowed and the line is lost: a line of log is never a
/// reason to end a node. *Lifetime*: it is destroyed when its log ends (see there) and never called after that, so what
/// it refers to must live at least that long.
using LogCallback = std::function<void(const LogLine&)>;

/// Where lines go and how many. The default is silence: the library writes to no stream of its own accord.
struct LogOptions {
  /// Null: no log of its own; the lines go to the process's log.
  LogCallback callback = {};
  /// The lowest level that `callback` gets.
  LogLevel level = LogLevel::info;
};

/// The log of the process: gets the lines of everything that has no log of its own. It is off until it is set.
///
/// *What is whose*: a log belongs to a runtime, and a line to the runtime on whose thread it is written. A `Node` makes
/// its own runtime, so `NodeOptions::log` gets the lines of that node alone, its embedded relay included. Whoever uses
/// a `Builder` gives the log to the `AsioRuntime`. All others write to the process's log: runtimes without a log of
/// their own, other implementations of `Runtime` (SimRuntime too), and calls outside of any runtime.
///
/// Replaces the one before; a null callback turns it off. When it returns, the earlier callback is not running and has
/// been destroyed. Any thread, but not from inside a callback.
void set_process_log(LogOptions options);

}  // namespace kitsune2
