// Fetching over simulated lines: how windows, permits and the size of messages cope with distance and rate. Each bound
// is a fraction of the time of a single request and a stream of the same bytes.
#include "model/line_run.hpp"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace kitsune2::model {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr double kMbit = 1.0 / 8;  ///< bytes a microsecond

LineRun::Result run(Line line, std::size_t count, std::uint64_t size, const CoreFetchConfig& config = {}) {
  LineRun::Result out = LineRun(config, {line}).run(count, size);
  EXPECT_TRUE(out.complete);
  return out;
}

double trips(const LineRun::Result& result, Duration trip) {
  return static_cast<double>(result.took.count()) / static_cast<double>(trip.count());
}

/// The time that the line needs for the bytes, divided by the time it took.
double share(const LineRun::Result& result, const Line& line, std::size_t count, std::uint64_t size) {
  const double least = static_cast<double>(count * size) / line.bytes_per_us + static_cast<double>(line.trip.count());
  return least / static_cast<double>(result.took.count());
}

TEST(LineRun, AFewRoundTripsWhateverTheDistance) {
  for (const int ms : {10, 50, 200}) {
    const Line line{.trip = milliseconds(ms)};
    const auto small = run(line, 10'000, 1024);
    EXPECT_LT(trips(small, line.trip), 4.5) << ms;
    EXPECT_EQ(small.permits, 0U);
    EXPECT_LT(trips(run(line, 100'000, 80), line.trip), 4.5) << ms;
    const auto large = run(line, 100, 1U << 20);
    EXPECT_LT(trips(large, line.trip), 9) << ms;
    EXPECT_LE(large.permits, 8U);
  }
}

TEST(LineRun, APeerThatAnswersWithOneMessageProfitsToo) {
  const Line line{.trip = milliseconds(50), .splits = false};
  const auto result = run(line, 10'000, 1024);
  EXPECT_LT(trips(result, line.trip), 8);
  EXPECT_LE(result.permits, 2U) << "those of the first requests, before sizes are known";
}

TEST(LineRun, TheLineIsFull) {
  for (const int ms : {10, 50, 200}) {
    for (const double rate : {100 * kMbit, 500 * kMbit}) {
      const Line line{.trip = milliseconds(ms), .bytes_per_us = rate};
      const auto count = static_cast<std::size_t>(40.0 * 1000 * ms * rate / 4096);  // 40 round trips
      const auto result = run(line, count, 4096);
      EXPECT_GT(share(result, line, count, 4096), 0.9) << ms << " ms, " << rate / kMbit << " Mbit/s";
      EXPECT_EQ(result.overdue, 0U);
      // Twice what is on the line, four times or 100 ms of it while it is not known; at least what one begins with.
      const double product = rate * 1000 * ms;
      EXPECT_LT(static_cast<double>(result.most_asked), std::max({5 * product, 110'000 * rate, 400'000.0}));
    }
  }
}

TEST(LineRun, LargeOpsWaitLittleForPermits) {
  for (const int ms : {10, 50, 200}) {
    const Line line{.trip = milliseconds(ms), .bytes_per_us = 100 * kMbit};
    EXPECT_GT(share(run(line, 100, 1U << 20), line, 100, 1U << 20), 0.85) << ms;
  }
}

TEST(LineRun, ACountThatTheOperatorWroteIsObeyed) {
  CoreFetchConfig config;
  config.parallel_request_count = 3;
  const Line line{.trip = milliseconds(50)};
  const auto result = run(line, 10'000, 1024, config);
  EXPECT_LE(result.most_asked, 3U * 512 * 1024);
  EXPECT_GT(trips(result, line.trip), 7);
}

TEST(LineRun, TheWindowIsBoundedByItsKeys) {
  CoreFetchConfig config;
  config.max_window_bytes = 1U << 20;
  const Line line{.trip = milliseconds(50)};
  EXPECT_LE(run(line, 10'000, 1024, config).most_asked, (1U << 20) + 16'384);
  config = {};
  config.max_parallel_request_count = 8;
  EXPECT_LE(run(line, 10'000, 1024, config).most_asked, 8U * 32 * 1024);
}

TEST(LineRun, NearSourcesAreAskedAsEver) {
  const Line line{.trip = milliseconds(1)};
  const auto result = run(line, 10'000, 1024);
  EXPECT_LE(result.most_asked, 2U * 438 * 1024);
  EXPECT_LT(result.requests, 40U);
}

TEST(LineRun, JitterAndLostConnections) {
  const std::size_t count = 25'000;
  const Line even{.trip = milliseconds(50), .bytes_per_us = 100 * kMbit};
  Line line = even;
  line.jitter = milliseconds(20);
  EXPECT_GT(share(run(line, count, 1024), even, count, 1024), 0.8);
  line.jitter = {};
  line.lost_every = seconds(1);
  EXPECT_GT(share(run(line, count, 1024), even, count, 1024), 0.8);
  line.jitter = milliseconds(20);
  EXPECT_GT(share(run(line, count, 1024), even, count, 1024), 0.4);
  line.lost_every = milliseconds(300);
  run(line, 5'000, 1024);
}

const std::vector<Line> kUnequal = {{.trip = milliseconds(10), .bytes_per_us = 200 * kMbit},
                                    {.trip = milliseconds(50), .bytes_per_us = 100 * kMbit},
                                    {.trip = milliseconds(200), .bytes_per_us = 20 * kMbit},
                                    {.trip = milliseconds(30), .bytes_per_us = 5 * kMbit}};

/// What all lines together would need for the bytes, over what it took.
double fluid_share(const std::vector<Line>& lines, const LineRun::Result& result, std::size_t count,
                   std::uint64_t size) {
  EXPECT_TRUE(result.complete);
  double rate = 0;
  for (const Line& line : lines) rate += line.bytes_per_us;
  return static_cast<double>(count * size) / rate / static_cast<double>(result.took.count());
}

TEST(LineRun, UnequalSourcesGiveWhatTheyCan) {
  const std::size_t count = 200'000;
  const auto result = LineRun({}, kUnequal).run(count, 1024);
  EXPECT_GT(fluid_share(kUnequal, result, count, 1024), 0.9);
  double rate = 0;
  for (const Line& line : kUnequal) rate += line.bytes_per_us;
  std::uint64_t served = 0;
  for (std::size_t i = 0; i < kUnequal.size(); ++i) {
    const double fair = static_cast<double>(count * 1024) * kUnequal[i].bytes_per_us / rate;
    EXPECT_NEAR(static_cast<double>(result.served.at(i)) / fair, 1, 0.25) << i;
    served += result.served.at(i);
  }
  EXPECT_LE(served, count * 1024 * 51 / 50) << "hardly anything comes twice";
}

TEST(LineRun, LargeOpsOfASlowSourceAreTakenOver) {
  const std::uint64_t mib = 1U << 20;
  EXPECT_GT(fluid_share(kUnequal, LineRun({}, kUnequal).run(600, mib), 600, mib), 0.9);
  // Five seconds, of which the beginning is half of one.
  EXPECT_GT(fluid_share(kUnequal, LineRun({}, kUnequal).run(200, mib), 200, mib), 0.85);
  EXPECT_GT(fluid_share(kUnequal, LineRun({}, kUnequal).run(40, 8 * mib), 40, 8 * mib), 0.85);
  EXPECT_GT(fluid_share(kUnequal, LineRun({}, kUnequal).run(5000, mib / 16), 5000, mib / 16), 0.85);
}

TEST(LineRun, UnequalSourcesWithJitterAndLostConnections) {
  std::vector<Line> lines = kUnequal;
  for (Line& line : lines) line.jitter = milliseconds(10);
  lines[0].lost_every = seconds(2);
  lines[2].lost_every = seconds(3);
  const std::uint64_t mib = 1U << 20;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    EXPECT_GT(fluid_share(kUnequal, LineRun({}, lines, seed).run(200'000, 1024), 200'000, 1024), 0.6) << seed;
    EXPECT_GT(fluid_share(kUnequal, LineRun({}, lines, seed).run(600, mib), 600, mib), 0.6) << seed;
  }
}

TEST(LineRun, EqualSourcesTakeNothingOver) {
  const Line line{.trip = milliseconds(50), .bytes_per_us = 100 * kMbit};
  for (const auto& [count, size] : std::vector<std::pair<std::size_t, std::uint64_t>>{{1'000, 1024}, {20'000, 1024}}) {
    const auto result = LineRun({}, std::vector<Line>(8, line)).run(count, size);
    std::uint64_t served = 0;
    for (const auto& each : result.served) served += each.second;
    EXPECT_EQ(served, count * size);
  }
}

}  // namespace
}  // namespace kitsune2::model
