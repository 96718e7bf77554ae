// ServeCore: what its twin does not say by name.
#include "core/fetch/serve_core.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <variant>

namespace kitsune2 {
namespace {

Url peer(int n) { return *Url::parse("ws://relay:1/" + std::to_string(n)); }

TEST(ServeCoreRules, AsManyProvenPeersAsThereAreReadsDoNotStarveANewcomer) {
  ServeCore core({.max_response_bytes = 1U << 20});  // with 4 MiB their room ends before the reads do
  const Time now{std::chrono::seconds(1)};
  std::deque<ServeCore::Read> under_way;
  const auto take_actions = [&] {
    for (const auto& action : core.take_actions()) {
      if (const auto* read = std::get_if<ServeCore::Read>(&action)) under_way.push_back(*read);
      if (const auto* send = std::get_if<ServeCore::Send>(&action)) core.on_sent(send->read, true, now);
    }
  };
  std::uint64_t newcomers_reads = 0;
  // The store answers one read after the other; what is read is taken at once, and asked for again.
  const auto step = [&](std::uint64_t bytes) {
    take_actions();
    const ServeCore::Read read = under_way.front();
    under_way.pop_front();
    newcomers_reads += read.peer == peer(99) ? 1 : 0;
    core.on_read_ended(read.read, {.has_ops = true, .bytes = bytes, .ops = 1, .is_exhausted = true}, now);
    take_actions();
    core.on_request(read.peer, 100, now);
  };
  for (std::size_t n = 0; n < ServeCore::kMaxReads; ++n) {
    for (int i = 0; i < 2; ++i) core.on_request(peer(static_cast<int>(n)), 100, now);
  }
  for (int i = 0; i < 1000; ++i) step(1U << 20);  // all of these have shown that they listen
  core.on_request(peer(99), 100, now);
  for (int i = 0; i < 400; ++i) step(1024);
  EXPECT_GE(newcomers_reads, 10U);
  core.check_invariants();
}

/// S10: an answer to joined requests needs less room, which may be there at once.
TEST(ServeCoreRules, WhoWaitsForRoomForALargeAnswerNeedNotWhenItMayHaveASmallOne) {
  ServeCore core({});
  const Time now{std::chrono::seconds(1)};
  std::deque<ServeCore::Read> under_way;
  bool are_taken = true;
  const auto take_actions = [&] {
    for (const auto& action : core.take_actions()) {
      if (const auto* read = std::get_if<ServeCore::Read>(&action)) under_way.push_back(*read);
      if (const auto* send = std::get_if<ServeCore::Send>(&action); send != nullptr && are_taken) {
        core.on_sent(send->read, true, now);
      }
    }
  };
  const auto answer = [&](int n, std::uint64_t bytes) {
    core.on_request(peer(n), 100, now);
    take_actions();
    ASSERT_EQ(under_way.size(), 1U);
    core.on_read_ended(under_way.front().read, {.has_ops = true, .bytes = bytes, .ops = 1, .is_exhausted = true}, now);
    under_way.clear();
    take_actions();
  };
  for (int n = 0; n < 17; ++n) answer(n, ServeCore::kProvenBytes);
  are_taken = false;
  for (int n = 0; n < 15; ++n) answer(n, 4U << 20);
  answer(15, 1U << 20);
  core.on_request(peer(16), 100, now, true);
  take_actions();
  ASSERT_TRUE(under_way.empty()) << "there is no room for 4 MiB";
  core.on_request(peer(16), 100, now, true);
  take_actions();
  ASSERT_EQ(under_way.size(), 1U);
  EXPECT_EQ(under_way.front().max_bytes, ServeCore::kFrameBytes);
  core.check_invariants();
}

}  // namespace
}  // namespace kitsune2
