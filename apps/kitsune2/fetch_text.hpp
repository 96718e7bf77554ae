// What a fetch shows of its progress: speed, time left, one line.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kitsune2/files.hpp"

namespace kitsune2::cli {

/// A speed that moves little: an exponentially weighted average over about kMemory, told the time.
///
/// *Rules*. It begins with the first byte: what came before is waiting, not a slow line. There is none before
/// kFirstLook has passed since then, or three bytes and a clock tick would be shown as gigabytes a second. What it has
/// not seen does not count: a young average is one over its own age.
class RateMeter {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr double kMemorySeconds = 10;
  static constexpr double kFirstLookSeconds = 1;

  /// `total`: bytes so far; a smaller one than before begins anew.
  void sample(Time now, std::uint64_t total);
  /// Time in which nothing could come does not count.
  void pause() { last_.reset(); }
  /// Bytes a second.
  std::optional<double> rate() const;

 private:
  std::optional<Time> last_;
  std::uint64_t total_ = 0;
  bool begun_ = false;
  double seen_seconds_ = 0;
  double sum_ = 0, weight_ = 0;
};

/// The figures of one look at a fetch, and what follows from them.
struct FetchFigures {
  files::FetchProgress progress;
  bool waiting = false;                ///< no source answers, and one is wanted
  std::optional<double> rate;          ///< of what comes, while writing of what is written; bytes a second
  std::optional<double> seconds_left;  ///< of the phase
};

/// Follows a fetch.
class FetchMeter {
 public:
  FetchFigures look(RateMeter::Time now, const files::FetchProgress& progress);

 private:
  RateMeter coming_, writing_;
};

/// The line, in full first and then shorter and shorter; percent, speed and time left go last. `with_bar`: the first
/// has a bar.
std::vector<std::string> fetch_lines(const FetchFigures& figures, bool with_bar);

}  // namespace kitsune2::cli
