// The search for the largest datagram of a path, on lines that carry what the test wants.
#include "transport/iroh/datagram_size.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

namespace kitsune2::iroh {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kWanted = 1452;

/// Answers pings that are no larger than what the line carries, at once.
class SearchedLine {
 public:
  explicit SearchedLine(std::size_t largest) : carries(largest) {}

  void pass(Duration time) {
    for (const Time until = now + time; size.due() <= until;) {
      now = std::max(now, size.due());
      const auto bytes = size.on_due(now, 300ms);
      if (!bytes) continue;
      pings.push_back(*bytes);
      if (*bytes <= carries) size.on_answer(now);
    }
    now = std::max(now, Time(100s)) + time;
  }

  std::size_t carries;
  DatagramSize size{kWanted};
  Time now{100s};
  std::vector<std::size_t> pings;
};

TEST(DatagramSize, TheFullSizeIsTriedFirstAndWhenItPassesNothingElseIs) {
  SearchedLine line(kWanted);
  line.size.begin(DatagramSize::kBase, line.now);
  line.pass(1h);
  EXPECT_EQ(line.pings, (std::vector<std::size_t>{kWanted}));
  EXPECT_EQ(line.size.bytes(), kWanted);
  EXPECT_EQ(line.size.due(), Time::max());
}

TEST(DatagramSize, APathThatWasFoundWithTheFullSizeIsNotSearched) {
  SearchedLine line(kWanted);
  line.size.begin(kWanted, line.now);
  EXPECT_EQ(line.size.due(), Time::max());
  EXPECT_EQ(line.size.bytes(), kWanted);
}

TEST(DatagramSize, HalvesAreTriedAndEachThatDoesNotPassThreeTimes) {
  SearchedLine line(1392);
  line.size.begin(DatagramSize::kBase, line.now);
  line.pass(20s);
  EXPECT_EQ(line.pings, (std::vector<std::size_t>{1452, 1452, 1452, 1332, 1392, 1432, 1432, 1432, 1412, 1412, 1412}));
  EXPECT_EQ(line.size.bytes(), 1392U);
}

TEST(DatagramSize, TheLinesThatAreKnownAreUsedToTheLastByte) {
  // VPNs, tunnels and mobile networks; the headers of IPv4 and UDP have 28 bytes, those of IPv6 20 more.
  for (const std::size_t mtu : {1280U, 1400U, 1420U, 1440U, 1460U, 1480U, 1500U}) {
    for (const std::size_t headers : {28U, 48U}) {
      SearchedLine line(mtu - headers);
      line.size.begin(DatagramSize::kBase, line.now);
      line.pass(25s);
      EXPECT_EQ(line.size.bytes(), std::min(mtu - headers, kWanted)) << mtu << " " << headers;
    }
  }
}

TEST(DatagramSize, ALostPingIsNoReasonForASmallerSize) {
  SearchedLine line(0);
  line.size.begin(DatagramSize::kBase, line.now);
  line.pass(1s);
  ASSERT_EQ(line.pings, (std::vector<std::size_t>{kWanted, kWanted, kWanted})) << "after 0.3 and 0.6 s";
  line.size.on_answer(line.now);
  EXPECT_EQ(line.size.bytes(), kWanted);
}

TEST(DatagramSize, TheSearchBeginsAnewEverMoreSeldom) {
  SearchedLine line(1300);
  line.size.begin(DatagramSize::kBase, line.now);
  line.pass(1min);
  ASSERT_EQ(line.size.bytes(), 1292U);
  const std::size_t before = line.pings.size();
  line.pass(2h);
  EXPECT_GE(line.pings.size(), before + 13U * 3U * 3U);
  EXPECT_LE(line.pings.size(), before + 17U * 3U * 4U) << "each 10 min at last";
  line.carries = kWanted;
  line.pass(11min);
  EXPECT_EQ(line.size.bytes(), kWanted);
}

TEST(DatagramSize, AfterAFallTheSearchBeginsAtOnceAndWhenStoppedNothingIsTried) {
  SearchedLine line(1300);
  line.size.begin(kWanted, line.now);
  line.size.fall(line.now);
  EXPECT_EQ(line.size.bytes(), DatagramSize::kBase);
  EXPECT_EQ(line.size.due(), line.now);
  line.size.stop();
  EXPECT_EQ(line.size.due(), Time::max());
  line.size.on_answer(line.now);
  EXPECT_EQ(line.size.bytes(), DatagramSize::kBase) << "nothing was asked";
  line.size.fall(line.now);
  line.pass(20s);
  EXPECT_EQ(line.size.bytes(), 1292U);
}

/// The same by a list of all sizes, each of which is not known, passes or does not.
class SizeTwin {
 public:
  enum class Known { no, passes, fails };
  SizeTwin() { begin(DatagramSize::kBase); }
  void begin(std::size_t bytes) {
    proven_ = bytes;
    found_ = false;
    searches_ = 0;
    forget();
  }
  void forget() {
    all_.clear();
    for (std::size_t size = kWanted; size > DatagramSize::kBase; size -= DatagramSize::kStep)
      all_[size] = size <= proven_ ? Known::passes : Known::no;
  }
  /// What is to be tried; 0: the search is over.
  std::size_t wanted() const {
    if (all_.at(kWanted) == Known::no) return kWanted;
    std::vector<std::size_t> unknown;
    for (const auto& [size, known] : all_) {
      if (known == Known::no) unknown.push_back(size);
    }
    return unknown.empty() ? 0 : unknown[unknown.size() / 2];
  }
  void passes(std::size_t size) {
    proven_ = size;
    found_ = true;
    for (auto& [one, known] : all_) known = one <= size ? Known::passes : known;
  }
  void fails(std::size_t size) {
    for (auto& [one, known] : all_) known = one >= size ? Known::fails : known;
  }
  /// How long nothing is tried.
  Duration end() {
    searches_ = found_ ? 1 : searches_ + 1;
    found_ = false;
    forget();
    return std::min<Duration>(30s * (1U << (std::min(searches_, 9U) - 1)), 10min);
  }
  std::size_t bytes() const { return proven_; }

 private:
  std::size_t proven_ = 0;
  bool found_ = false;
  unsigned searches_ = 0;
  std::map<std::size_t, Known> all_;
};

TEST(DatagramSize, ATwinThatKeepsAListOfAllSizesAgreesOnRandomLines) {
  std::uint64_t raised = 0, fell = 0;
  for (unsigned seed = 1; seed <= 300; ++seed) {
    std::mt19937_64 engine(seed);
    const auto pick = [&](std::uint64_t below) { return engine() % below; };
    DatagramSize size(kWanted);
    SizeTwin twin;
    Time now{100s};
    size.begin(DatagramSize::kBase, now);
    std::size_t carries = 1200 + pick(300);
    const std::uint64_t loss = pick(3) == 0 ? pick(60) : 0;
    unsigned tries = 0;
    for (int step = 0; step < 200; ++step) {
      ASSERT_EQ(size.bytes(), twin.bytes());
      if (pick(40) == 0) carries = 1200 + pick(300);
      if (pick(60) == 0) {
        const std::size_t bytes = pick(3) == 0 ? kWanted : DatagramSize::kBase;
        size.begin(bytes, now);
        twin.begin(bytes);
        tries = 0;
        ++fell;
        continue;
      }
      if (size.due() == Time::max()) {
        ASSERT_EQ(size.bytes(), kWanted);
        continue;
      }
      ASSERT_EQ(size.on_due(size.due() - 1us, 300ms), std::nullopt);
      now = size.due();
      if (tries == 3) {
        twin.fails(twin.wanted());
        tries = 0;
      }
      const std::optional<std::size_t> asked = size.on_due(now, 300ms);
      ASSERT_EQ(asked.value_or(0), twin.wanted());
      if (!asked) {
        ASSERT_EQ(size.due() - now, twin.end());
        continue;
      }
      ASSERT_EQ(size.due() - now, 300ms * (1U << tries++));
      if (*asked > carries || pick(100) < loss) continue;
      size.on_answer(now);
      twin.passes(*asked);
      tries = 0;
      ++raised;
      if (twin.bytes() == kWanted) continue;
      if (twin.wanted() == 0) {
        ASSERT_EQ(size.due() - now, twin.end());
      }
    }
  }
  EXPECT_GT(raised, 1000U);
  EXPECT_GT(fell, 100U);
}

}  // namespace
}  // namespace kitsune2::iroh
