// The relay's log for its operator: clients that came, left or were refused, and why. Bounded, however many come.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "kitsune2/runtime.hpp"
#include "log/log.hpp"
#include "server/counter.hpp"

namespace kitsune2::server {

/// Lines by kind, each kind with its own gate, so that a flood of one kind does not hide the others.
///
/// *Rules*.
///  R1  `kBurst` lines of each kind pass per second.
///  R2  The next line that passes says how many were left out; if none follows, `flush` does.
///  R3  The text is made only for a line that passes.
/// Strand only.
class RelayLog {
 public:
  static constexpr std::uint32_t kBurst = 20;

  explicit RelayLog(Runtime& runtime) : runtime_(runtime) {}

  /// `kind`: of static storage; there are as many gates as kinds. `text`: makes the line.
  template <class F>
  void say(log::Level level, std::string_view kind, F text) {
    if (!log::enabled(level)) return;
    Lines& lines = lines_.try_emplace(kind).first->second;
    if (!lines.gate.open(runtime_.now())) {
      lines.level = level;
      ++left_out_;
      return;
    }
    log::write(level, "relay", text() + lines.gate.left_out());
  }
  /// For what an operator must act on: one line per minute, at `warn`.
  template <class F>
  void urge(std::string_view kind, F text) {
    if (!log::enabled(log::Level::warn)) return;
    log::Gate& gate = urgent_.try_emplace(kind, std::chrono::minutes(1)).first->second;
    if (gate.open(runtime_.now())) log::write(log::Level::warn, "relay", text());
  }
  /// Reports lines that were left out if no later line has reported them. To be called every few seconds.
  void flush() {
    for (auto& [kind, lines] : lines_) {
      if (const auto count = lines.gate.take_count(); count > 0) {
        log::write(
            lines.level, "relay",
            "left out " + std::to_string(count) + (count == 1 ? " line about " : " lines about ") + std::string(kind));
      }
    }
  }
  /// The number of lines left out so far.
  const Counter& left_out() const { return left_out_; }

 private:
  struct Lines {
    log::Gate gate{std::chrono::seconds(1), kBurst};
    log::Level level = log::Level::info;
  };

  Runtime& runtime_;
  std::map<std::string_view, Lines> lines_;
  std::map<std::string_view, log::Gate> urgent_;
  Counter left_out_;
};

}  // namespace kitsune2::server
