// Runs the window of a source and its naive twin through the same commands, read from bytes, and compares them.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/window_twin.hpp"

namespace kitsune2::model {

struct WindowCoverage {
  std::uint64_t commands = 0, longs = 0, shorts = 0, widest = 0, settled = 0, lost = 0, at_most = 0;
};

/// Throws std::logic_error when the two differ.
class WindowTwinRun {
 public:
  explicit WindowTwinRun(std::span<const std::uint8_t> bytes, WindowCoverage* coverage = nullptr)
      : bytes_(bytes), coverage_(coverage != nullptr ? *coverage : own_coverage_) {}

  void run() {
    most_ = std::uint64_t{1} << (16 + byte() % 12);
    while (at_ < bytes_.size()) {
      step();
      ++coverage_.commands;
      compare();
    }
  }

 private:
  struct Pair {
    FetchWindow::Mark core;
    WindowTwin::Mark twin = 0;
    std::uint64_t bytes = 0;
  };

  std::uint8_t byte() { return at_ < bytes_.size() ? bytes_[at_++] : 0; }

  void step() {
    const std::uint8_t command = byte();
    switch (command % 8) {
      case 0:
      case 1:
      case 2:
        return send();
      case 3:
      case 4:
      case 5: {
        if (under_way_.empty()) return send();
        // Mostly in order; now and then only a part.
        const std::size_t which = command < 200 ? 0 : byte() % under_way_.size();
        Pair& pair = under_way_[which];
        now_ += Duration((command & 8U) != 0 ? 0 : std::int64_t{1} << (byte() % 20));
        if ((command & 16U) != 0) {
          core_.on_heard(pair.core, now_);
          twin_.on_heard(pair.twin, now_);
          return;
        }
        const std::uint64_t bytes = std::min<std::uint64_t>(pair.bytes, (command & 32U) != 0 ? pair.bytes : byte());
        core_.on_delivered(pair.core, bytes, now_);
        twin_.on_delivered(pair.twin, bytes, now_);
        pair.bytes -= bytes;
        if (pair.bytes == 0) under_way_.erase(under_way_.begin() + static_cast<std::ptrdiff_t>(which));
        return;
      }
      case 6:
        now_ += Duration(std::int64_t{1} << (byte() % 27));
        return;
      default:
        if (under_way_.empty() || byte() % 4 != 0) return;
        core_.on_lost(most_, now_);
        twin_.on_lost(most_, now_);
        under_way_.erase(under_way_.begin());
        ++coverage_.lost;
    }
  }

  void send() {
    std::uint64_t others = 0;
    for (const Pair& pair : under_way_) others += pair.bytes;
    const std::uint64_t own = std::uint64_t{1} << (byte() % 24);
    const bool alone = under_way_.empty();
    under_way_.push_back(
        {core_.on_sent(alone, others + own, most_, now_), twin_.on_sent(alone, others + own, most_, now_), own});
  }

  void compare() {
    check(core_.bytes(most_) == twin_.bytes(most_), "bytes");
    check(core_.bytes(most_, false) == twin_.bytes(most_, false), "bytes of one among others");
    check(core_.rate() == twin_.rate(), "rate");
    check(core_.round_trip() == twin_.round_trip(), "round_trip");
    check(core_.is_long() == twin_.is_long(), "is_long");
    check(core_.bytes(most_) <= most_ && core_.bytes(most_) >= FetchWindow::kLeastCap, "bounds");
    ++(core_.is_long() ? coverage_.longs : coverage_.shorts);
    coverage_.widest = std::max(coverage_.widest, core_.bytes(most_));
    coverage_.settled += core_.bytes(most_) < FetchWindow::kFirstBytes ? 1 : 0;
    coverage_.at_most += core_.bytes(most_) == most_ ? 1 : 0;
  }
  void check(bool same, const char* what) const {
    if (same) return;
    throw std::logic_error(std::string("FetchWindow and its twin differ in ") + what + " after command " +
                           std::to_string(coverage_.commands));
  }

  const std::span<const std::uint8_t> bytes_;
  WindowCoverage own_coverage_;
  WindowCoverage& coverage_;
  std::size_t at_ = 0;
  std::uint64_t most_ = 0;
  Time now_{};
  FetchWindow core_;
  WindowTwin twin_;
  std::vector<Pair> under_way_;
};

}  // namespace kitsune2::model
