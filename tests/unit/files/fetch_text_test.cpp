// The progress of a fetch: a speed and a time left that change slowly, and a line that fits.
#include "fetch_text.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "text.hpp"

namespace kitsune2::cli {
namespace {

using files::FetchProgress;
using files::FetchWait;
using namespace std::chrono_literals;

/// The time, set by the test.
struct Clock {
  RateMeter::Time now{};
  RateMeter::Time after(double seconds) {
    now += std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(seconds));
    return now;
  }
};

FetchProgress under_way(std::uint64_t received, std::uint64_t bytes = 1'000'000'000) {
  FetchProgress p;
  p.phase = FetchProgress::Phase::fetching;
  p.folder = {.files = 3, .dirs = 1, .bytes = bytes, .ops = 4000};
  p.received_bytes = p.bytes_held = received;
  p.ops_held = received / 250'000;
  p.pending = 10;
  p.sources = p.live_sources = 1;
  return p;
}

TEST(RateMeter, AConstantLineGivesAConstantSpeed) {
  Clock clock;
  RateMeter meter;
  for (int i = 0; i < 400; ++i) {
    meter.sample(clock.after(0.25), static_cast<std::uint64_t>(i) * 500'000);
    if (meter.rate().has_value()) {
      EXPECT_NEAR(*meter.rate(), 2'000'000, 1) << i;
    }
  }
  EXPECT_TRUE(meter.rate());
}

TEST(RateMeter, BurstsMoveItLittle) {
  // 2 MB/s, but every other second all of it at once and then nothing: no sample may be off by more than a fifth.
  Clock clock;
  RateMeter meter;
  for (int i = 0; i < 400; ++i) {
    meter.sample(clock.after(0.25), static_cast<std::uint64_t>(i / 8) * 4'000'000);
    if (i < 80) continue;  // two memories
    EXPECT_NEAR(*meter.rate(), 2'000'000, 400'000) << i;
  }
}

TEST(RateMeter, ThereIsNoneBeforeASecondOfData) {
  Clock clock;
  RateMeter meter;
  for (int i = 0; i < 100; ++i) {
    meter.sample(clock.after(0.25), 0);
    EXPECT_FALSE(meter.rate()) << "waiting is no slow line";
  }
  meter.sample(clock.after(0.25), 500'000);
  meter.sample(clock.after(0.001), 900'000);
  EXPECT_FALSE(meter.rate()) << "400 kB in a millisecond are no 400 MB/s";
  for (int i = 0; i < 4; ++i) meter.sample(clock.after(0.25), 900'000 + static_cast<std::uint64_t>(i + 1) * 500'000);
  ASSERT_TRUE(meter.rate());
  EXPECT_NEAR(*meter.rate(), 2'400'000, 400'000);
}

TEST(RateMeter, ItFollowsALineThatChanges) {
  Clock clock;
  RateMeter meter;
  std::uint64_t total = 0;
  for (int i = 0; i < 100; ++i) meter.sample(clock.after(0.25), total += 250'000);
  EXPECT_NEAR(*meter.rate(), 1'000'000, 10'000);
  for (int i = 0; i < 160; ++i) meter.sample(clock.after(0.25), total += 2'500'000);
  EXPECT_NEAR(*meter.rate(), 10'000'000, 300'000) << "after four memories";
  for (int i = 0; i < 400; ++i) meter.sample(clock.after(0.25), total);
  EXPECT_LT(*meter.rate(), 1000) << "a line that is dead is not fast";
}

TEST(RateMeter, APauseDoesNotCount) {
  Clock clock;
  RateMeter meter;
  std::uint64_t total = 0;
  for (int i = 0; i < 100; ++i) meter.sample(clock.after(0.25), total += 250'000);
  const double before = *meter.rate();
  meter.pause();
  clock.after(3600);
  meter.sample(clock.after(0.25), total += 250'000);
  EXPECT_NEAR(*meter.rate(), before, 1);
  meter.sample(clock.after(0.25), total += 250'000);
  EXPECT_NEAR(*meter.rate(), before, 1);
}

TEST(RateMeter, NothingIsLostWhileTheClockStandsStill) {
  Clock clock;
  RateMeter meter;
  std::uint64_t total = 0;
  for (int i = 0; i < 200; ++i) meter.sample(clock.after(i % 2 == 0 ? 0.25 : 0), total += 250'000);
  EXPECT_NEAR(*meter.rate(), 2'000'000, 50'000);
}

TEST(FetchMeter, TheTimeLeftOfAConstantLineRunsDownEvenly) {
  // The bytes arrive in answers of 4 MiB, which count as held only when they are complete; the line has 2 MB/s.
  Clock clock;
  FetchMeter meter;
  std::optional<double> last;
  for (int i = 0; i < 1200; ++i) {
    auto p = under_way(static_cast<std::uint64_t>(i) * 500'000);
    p.bytes_arriving = p.received_bytes % (4U << 20);
    p.bytes_held = p.received_bytes - p.bytes_arriving;
    const auto figures = meter.look(clock.after(0.25), p);
    if (!figures.seconds_left) continue;
    const double truth = static_cast<double>(p.folder.bytes - p.received_bytes) / 2'000'000;
    EXPECT_NEAR(*figures.seconds_left, truth, 1 + truth / 100) << i;
    EXPECT_LE(*figures.seconds_left, last.value_or(INFINITY)) << i;
    last = figures.seconds_left;
  }
  EXPECT_TRUE(last);
}

TEST(FetchMeter, NothingIsSaidOfSpeedAndTimeThatAreNotKnown) {
  Clock clock;
  FetchMeter meter;
  const auto figures = meter.look(clock.after(1), under_way(0));
  EXPECT_FALSE(figures.rate);
  EXPECT_FALSE(figures.seconds_left);
  for (const auto& line : fetch_lines(figures, true)) {
    EXPECT_EQ(line.find('?'), std::string::npos) << line;
    EXPECT_EQ(line.find("/s"), std::string::npos) << line;
    EXPECT_EQ(line.find("left"), std::string::npos) << line;
  }
}

TEST(FetchMeter, WithASourceThatLivesItIsNotWaiting) {
  Clock clock;
  FetchMeter meter;
  auto p = under_way(0);
  EXPECT_FALSE(meter.look(clock.after(1), p).waiting);
  p.live_sources = 0;
  EXPECT_TRUE(meter.look(clock.after(1), p).waiting);
  p.pending = 0;
  EXPECT_FALSE(meter.look(clock.after(1), p).waiting) << "nothing is wanted";
  p.missing = 1;
  EXPECT_TRUE(meter.look(clock.after(1), p).waiting) << "somebody may come who has it";
  p.phase = FetchProgress::Phase::writing;
  EXPECT_FALSE(meter.look(clock.after(1), p).waiting) << "nobody is needed to write";
}

TEST(FetchLines, FortyColumnsKeepPercentSpeedAndTimeLeft) {
  FetchFigures figures{under_way(420'000'000), false, 104'857'600.0, 45'296.0};
  figures.progress.missing = 12;
  for (const bool bar : {true, false}) {
    const std::string line = fitting(fetch_lines(figures, bar), 39);
    EXPECT_EQ(line, " 42%  100.0 MiB/s  12:34:56 left");
  }
  const std::string wide = fitting(fetch_lines(figures, true), 160);
  EXPECT_EQ(
      wide,
      "[##########..............]  42%  1680/4000 ops  400.5 MiB of 953.7 MiB  100.0 MiB/s  12:34:56 left  1 source "
      " 12 ops not at any source");
  EXPECT_EQ(fitting(fetch_lines(figures, true), 60), " 42%  400.5 MiB of 953.7 MiB  100.0 MiB/s  12:34:56 left");
}

TEST(FetchLines, BytesThatHaveComeCountBeforeTheyAreStored) {
  auto p = under_way(100'000'000);
  p.bytes_arriving = 150'000'000;
  EXPECT_TRUE(fetch_lines({p, false, {}, {}}, false)[0].starts_with(" 25%"))
      << fetch_lines({p, false, {}, {}}, false)[0];
}

TEST(FetchLines, WritingShowsBytesAndTimeLeft) {
  Clock clock;
  FetchMeter meter;
  auto p = under_way(1'000'000'000);
  p.phase = FetchProgress::Phase::writing;
  p.live_sources = 0;
  p.pending = 0;
  FetchFigures figures;
  for (int i = 0; i <= 40; ++i) {
    p.bytes_written = static_cast<std::uint64_t>(i) * 10'000'000;
    figures = meter.look(clock.after(0.25), p);
  }
  ASSERT_TRUE(figures.seconds_left);
  EXPECT_NEAR(*figures.seconds_left, 15, 0.5);
  EXPECT_EQ(fetch_lines(figures, false)[0], "writing  40%  0/3 files  381.5 MiB of 953.7 MiB  38.1 MiB/s  0:15 left");
  EXPECT_EQ(fitting(fetch_lines(figures, true), 39), "writing  40%  38.1 MiB/s  0:15 left");
}

TEST(FetchLines, TheReasonOfWaitingIsInThem) {
  auto p = under_way(500'000'000);
  p.live_sources = 0;
  p.wait = FetchWait::relay;
  p.wait_reason = "the relay cannot be reached: connect 127.0.0.1:1: Connection refused";
  EXPECT_EQ(fetch_lines({p, true, {}, {}}, false)[0],
            " 50%  2000/4000 ops  476.8 MiB of 953.7 MiB  waiting for a source: the relay cannot be reached: connect "
            "127.0.0.1:1: Connection refused");
  p.phase = FetchProgress::Phase::finding;
  EXPECT_EQ(fetch_lines({p, true, {}, {}}, true)[0], "waiting for a source: " + p.wait_reason);
  p.wait = FetchWait::no_answer;
  p.wait_reason = "1 source is known and has not answered yet";
  EXPECT_EQ(fetch_lines({p, true, {}, {}}, true)[0], "waiting for an answer: " + p.wait_reason) << "one truth";
}

TEST(Fitting, TheFirstThatFitsElseTheBeginningOfTheLast) {
  const std::vector<std::string> lines = {"0123456789", "01234", "012"};
  EXPECT_EQ(fitting(lines, 10), "0123456789");
  EXPECT_EQ(fitting(lines, 9), "01234");
  EXPECT_EQ(fitting(lines, 2), "01");
  EXPECT_EQ(fitting({}, 10), "");
  EXPECT_EQ(fitting({"düö"}, 3), "düö") << "columns, not bytes";
  EXPECT_EQ(fitting({"düö"}, 2), "dü") << "never half a character";
}

TEST(Nearest, ASlipOfTheFingersIsFound) {
  const std::vector<std::string> known = {"relay", "share", "fetch", "status", "demo", "config", "completion"};
  EXPECT_EQ(nearest("sahre", known), "share");
  EXPECT_EQ(nearest("shar", known), "share");
  EXPECT_EQ(nearest("fetchh", known), "fetch");
  EXPECT_EQ(nearest("statsu", known), "status");
  EXPECT_EQ(nearest("nonsense", known), std::nullopt);
  EXPECT_EQ(nearest("x", known), std::nullopt);
  EXPECT_EQ(nearest("", known), std::nullopt);
  EXPECT_EQ(nearest("--dta", {"--mtime", "--data"}), "--data");
  EXPECT_EQ(nearest("--allowed-origins", {"--listen", "--admin"}), std::nullopt);
}

TEST(Counted, OneIsSingular) {
  EXPECT_EQ(counted(0, "file"), "0 files");
  EXPECT_EQ(counted(1, "older share"), "1 older share");
  EXPECT_EQ(counted(2, "path"), "2 paths");
}

TEST(HumanTime, DaysAreNoQuestionMark) {
  EXPECT_EQ(human_time(59.6), "1:00");
  EXPECT_EQ(human_time(45'296), "12:34:56");
  EXPECT_EQ(human_time(1'000'000), "12 days");
  EXPECT_EQ(human_time(INFINITY), "?");
}

}  // namespace
}  // namespace kitsune2::cli
