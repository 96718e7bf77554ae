// The progress of a fetch as shown: speed, time left, one line.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kitsune2/files.hpp"

namespace kitsune2::cli {

/// A speed that changes slowly: an exponentially weighted average over about kMemory. It is told the time.
///
/// *Rules*. It begins with the first byte: the time before is waiting, not a slow line. There is no rate until
/// kFirstLook has passed since then, or three bytes and a clock tick would be shown as gigabytes per second. What it
/// has not seen does not count: a young average covers only its own age.
class RateMeter {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr double kMemorySeconds = 10;
  static constexpr double kFirstLookSeconds = 1;

  /// `total`: the bytes so far; a smaller number than before starts again.
  void sample(Time now, std::uint64_t total);
  /// Time in which nothing can arrive does not count.
  void pause() { last_.reset(); }
  /// Bytes per second.
  std::optional<double> rate() const;

 private:
  std::optional<Time> last_;
  std::uint64_t total_ = 0;
  bool begun_ = false;
  double seen_seconds_ = 0;
  double sum_ = 0, weight_ = 0;
};

/// The figures of a fetch at one moment, and what follows from them.
struct FetchFigures {
  files::FetchProgress progress;
  bool waiting = false;                ///< no source answers, although one is needed
  std::optional<double> rate;          ///< of what arrives, or while writing of what is written; bytes per second
  std::optional<double> seconds_left;  ///< until the end of the phase
};

/// Follows a fetch.
class FetchMeter {
 public:
  FetchFigures look(RateMeter::Time now, const files::FetchProgress& progress);

 private:
  RateMeter coming_, writing_;
};

/// The status line, in full and then in shorter and shorter forms; percentage, speed and time left are dropped last.
/// `with_bar`: the first one has a bar.
std::vector<std::string> fetch_lines(const FetchFigures& figures, bool with_bar);

}  // namespace kitsune2::cli
