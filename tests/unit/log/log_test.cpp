// The log: which log a line goes to, levels, callbacks, and what is escaped.
#include "log/log.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace kitsune2 {
namespace {

using log::Gate;
using log::Logger;
using log::Scope;
using std::chrono::seconds;

struct Kept {
  LogLevel level;
  std::string area, text;
  Timestamp time;
};

/// A log whose lines are kept.
struct Lines {
  std::vector<Kept> all;
  LogOptions options(LogLevel level = LogLevel::trace) {
    return {[this](const LogLine& line) {
              all.push_back({line.level, std::string(line.area), std::string(line.text), line.time});
            },
            level};
  }
};

class LogTest : public ::testing::Test {
 protected:
  ~LogTest() override { set_process_log({}); }
  Lines lines;
};

TEST_F(LogTest, WithoutACallbackNothingIsEnabledAndNothingIsPrinted) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  for (const auto level : {LogLevel::trace, LogLevel::debug, LogLevel::info, LogLevel::warn, LogLevel::error}) {
    EXPECT_FALSE(log::enabled(level));
    log::write(level, "area", "text");
  }
  EXPECT_EQ(::testing::internal::GetCapturedStdout() + ::testing::internal::GetCapturedStderr(), "");
}

TEST_F(LogTest, ALineHasLevelAreaTextAndTheSystemsTime) {
  set_process_log(lines.options());
  log::warn("relay", "keeps the old certificate");
  ASSERT_EQ(lines.all.size(), 1U);
  EXPECT_EQ(lines.all[0].level, LogLevel::warn);
  EXPECT_EQ(lines.all[0].area, "relay");
  EXPECT_EQ(lines.all[0].text, "keeps the old certificate");
  const auto now =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  EXPECT_NEAR(static_cast<double>(lines.all[0].time.micros), static_cast<double>(now), 60e6);
}

TEST_F(LogTest, LinesBelowTheLevelAreDropped) {
  set_process_log(lines.options(LogLevel::warn));
  EXPECT_FALSE(log::enabled(LogLevel::info));
  EXPECT_TRUE(log::enabled(LogLevel::warn));
  log::debug("a", "no");
  log::info("a", "no");
  log::warn("a", "yes");
  log::error("a", "yes");
  EXPECT_EQ(lines.all.size(), 2U);
  set_process_log(lines.options(LogLevel::off));
  EXPECT_FALSE(log::enabled(LogLevel::error));
  EXPECT_FALSE(log::enabled(LogLevel::off)) << "off is no level of a line";
  log::error("a", "no");
  log::write(LogLevel::off, "a", "no");
  EXPECT_EQ(lines.all.size(), 2U);
}

TEST_F(LogTest, NamesOfLevels) {
  for (const auto level :
       {LogLevel::trace, LogLevel::debug, LogLevel::info, LogLevel::warn, LogLevel::error, LogLevel::off}) {
    EXPECT_EQ(log_level_from(to_string(level)), level);
  }
  EXPECT_EQ(to_string(LogLevel::error), "error");
  EXPECT_EQ(log_level_from("err"), std::nullopt);
  EXPECT_EQ(log_level_from(""), std::nullopt);
}

TEST_F(LogTest, TextOfPeersCannotForgeALineOrControlATerminal) {
  EXPECT_EQ(log::escaped("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"), "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
  EXPECT_EQ(log::escaped("a\nb\r\tc\x1b[31m\x7f"), "a\\x0ab\\x0d\\x09c\\x1b[31m\\x7f");
  EXPECT_EQ(log::escaped(std::string_view("\0x", 2)), "\\x00x");
  EXPECT_EQ(log::escaped("\xc2\x9b"
                         "31m"),
            "\\xc2\\x9b31m")
      << "a control character of two bytes";
  EXPECT_EQ(log::escaped("\xe2\x80\xae"
                         "abc\xe2\x80\xa8\xe2\x81\xa6"),
            "\\xe2\\x80\\xaeabc\\xe2\\x80\\xa8\\xe2\\x81\\xa6");
  // Invalid UTF-8: a lone byte, an overlong form, a surrogate, too large, cut off.
  EXPECT_EQ(log::escaped("\xff|\xc0\x80|\xed\xa0\x80|\xf5\x80\x80\x80|\xe2\x82"),
            "\\xff|\\xc0\\x80|\\xed\\xa0\\x80|\\xf5\\x80\\x80\\x80|\\xe2\\x82");
  EXPECT_EQ(log::printable("\x1b"
                           "bcd",
                           2),
            "\\x1bb");
  set_process_log(lines.options());
  log::info("a", "one\n2026-11-28 error: two");
  ASSERT_EQ(lines.all.size(), 1U);
  EXPECT_EQ(lines.all[0].text, "one\\x0a2026-11-28 error: two");
}

TEST_F(LogTest, ALongLineIsCutBetweenCharacters) {
  set_process_log(lines.options());
  std::string text;
  while (text.size() < 2 * log::kMaxTextBytes) text += "\xe2\x82\xac";
  log::info("a", text);
  log::info("a", std::string(log::kMaxTextBytes, 'x'));
  log::info("a", std::string(log::kMaxTextBytes + 1, 'x'));
  log::info("a", std::string(log::kMaxTextBytes, '\n'));
  ASSERT_EQ(lines.all.size(), 4U);
  for (const auto& line : lines.all) {
    EXPECT_LE(line.text.size(), log::kMaxTextBytes);
    EXPECT_GT(line.text.size(), log::kMaxTextBytes - 8);
    EXPECT_EQ(log::escaped(line.text), line.text) << "valid UTF-8";
  }
  EXPECT_TRUE(lines.all[0].text.ends_with("\xe2\x82\xac..."));
  EXPECT_TRUE(lines.all[1].text.ends_with("xxx"));
  EXPECT_TRUE(lines.all[2].text.ends_with("x..."));
}

TEST_F(LogTest, ACallbackThatThrowsLosesItsLineOnly) {
  int calls = 0;
  set_process_log({[&](const LogLine&) {
    if (++calls == 1) throw std::runtime_error("the host's log is full");
  }});
  log::error("a", "one");
  log::error("a", "two");
  EXPECT_EQ(calls, 2);
}

TEST_F(LogTest, LinesLoggedInsideTheCallbackAreDropped) {
  int calls = 0;
  set_process_log({[&](const LogLine&) {
    ++calls;
    log::error("a", "from inside");
  }});
  log::error("a", "one");
  log::error("a", "two");
  EXPECT_EQ(calls, 2);
}

TEST_F(LogTest, CallsOfOneLogNeverOverlap) {
  int inside = 0, calls = 0;
  bool overlap = false;
  auto logger = std::make_shared<Logger>(LogOptions{[&](const LogLine&) {
    overlap = overlap || ++inside != 1;
    ++calls;
    --inside;
  }});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([logger] {
      const Scope scope(logger);
      for (int i = 0; i < 500; ++i) log::info("a", "text");
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_FALSE(overlap);
  EXPECT_EQ(calls, 2000);
}

TEST_F(LogTest, AThreadWritesToTheInnermostScopeAndToTheProcessOutsideOfAll) {
  Lines outer, inner;
  set_process_log(lines.options());
  EXPECT_EQ(log::current(), nullptr);
  {
    auto one = std::make_shared<Logger>(outer.options());
    const Scope first(one);
    log::info("a", "outer");
    {
      const Scope second(std::make_shared<Logger>(inner.options(LogLevel::warn)));
      log::info("a", "below the inner level");
      log::warn("a", "inner");
      const Scope none(nullptr);
      log::warn("a", "a null scope changes nothing");
      std::thread([] { log::warn("a", "another thread"); }).join();
    }
    EXPECT_EQ(log::current(), one);
  }
  log::info("a", "process");
  ASSERT_EQ(outer.all.size(), 1U);
  ASSERT_EQ(inner.all.size(), 2U);
  ASSERT_EQ(lines.all.size(), 2U);
  EXPECT_EQ(lines.all[0].text, "another thread");
  EXPECT_EQ(lines.all[1].text, "process");
}

TEST_F(LogTest, TurningTheLogOffWaitsForACallAndDestroysTheCallback) {
  std::atomic<bool> entered{false}, left{false};
  auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = held;
  set_process_log({[&entered, &left, held](const LogLine&) {
    entered = true;
    std::this_thread::yield();
    left = true;
  }});
  held.reset();
  std::thread writer([] { log::error("a", "text"); });
  while (!entered) std::this_thread::yield();
  set_process_log({});
  EXPECT_TRUE(left);
  EXPECT_TRUE(watch.expired());
  writer.join();
}

TEST(LogGate, PassesABurstInEachIntervalAndSaysHowMuchWasLeftOut) {
  Gate gate(seconds(1), 3);
  const Time start{seconds(100)};
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(gate.open(start)) << i;
  EXPECT_EQ(gate.left_out(), "");
  for (int i = 0; i < 40; ++i) EXPECT_FALSE(gate.open(start + std::chrono::milliseconds(500)));
  EXPECT_TRUE(gate.open(start + seconds(1)));
  EXPECT_EQ(gate.left_out(), " (40 more like it left out)");
  EXPECT_TRUE(gate.open(start + seconds(1)));
  EXPECT_EQ(gate.left_out(), "") << "told once";
  EXPECT_TRUE(gate.open(start + seconds(1)));
  EXPECT_FALSE(gate.open(start + seconds(1)));
  EXPECT_EQ(gate.take_count(), 1U);
  EXPECT_TRUE(gate.open(start + seconds(9)));
  EXPECT_EQ(gate.suppressed(), 0U);
}

}  // namespace
}  // namespace kitsune2
