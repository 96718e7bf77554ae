// ServeCore: what its twin does not say by name.
#include "core/fetch/serve_core.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "unit/core/named.hpp"

namespace kitsune2 {
namespace {

using tests::peer;

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
  for (int n = 0; n < 65; ++n) answer(n, ServeCore::kProvenBytes / ServeCore::kTrust);
  are_taken = false;
  for (int n = 0; n < 63; ++n) answer(n, ServeCore::kProvenBytes);
  answer(63, ServeCore::kProvenBytes / 2);
  core.on_request(peer(64), 100, now, true);
  take_actions();
  ASSERT_TRUE(under_way.empty()) << "there is no room for 1 MiB";
  core.on_request(peer(64), 100, now, true);
  take_actions();
  ASSERT_EQ(under_way.size(), 1U);
  EXPECT_EQ(under_way.front().max_bytes, ServeCore::kFrameBytes);
  core.check_invariants();
}

/// S14.
TEST(ServeCoreRules, PeersThatAreGoneLeaveRoomForWhoeverProvesHimselfThen) {
  ServeCore core({});
  const Time now{std::chrono::seconds(1)};
  bool are_taken = true;
  std::uint64_t last_room = 0;
  const auto ask = [&](int n, std::uint64_t bytes) {
    last_room = 0;
    core.on_request(peer(n), 100, now);
    for (auto actions = core.take_actions(); !actions.empty(); actions = core.take_actions()) {
      for (const auto& action : actions) {
        if (const auto* read = std::get_if<ServeCore::Read>(&action)) {
          last_room = read->max_bytes;
          core.on_read_ended(
              read->read, {.has_ops = true, .bytes = std::min(bytes, last_room), .ops = 1, .is_exhausted = true}, now);
        } else if (const auto* send = std::get_if<ServeCore::Send>(&action); send != nullptr && are_taken) {
          core.on_sent(send->read, true, now);
        }
      }
    }
  };
  for (int n = 0; n < 41; ++n) {
    for (int i = 0; i < 6; ++i) ask(n, ServeCore::kProvenBytes / 2);
  }
  are_taken = false;
  for (int n = 0; n < 40; ++n) {
    for (int i = 0; i < 2; ++i) ask(n, 4U << 20);
  }
  ask(40, 4U << 20);
  EXPECT_GE(last_room, 16U << 10);
  core.check_invariants();
}

/// A store that answers one read after the other, and a line of 100 MB/s that takes everything. Peers ask as soon as
/// there is room, so that their requests always wait.
class BusyServer {
 public:
  struct Asker {
    std::size_t ids = 0;
    std::uint64_t bytes = 0;  ///< of the answer to a request
    bool asks_again = false;
    std::size_t at_once = 64;
    bool is_deaf = false;  ///< nothing that is sent to it arrives
    Duration takes{0};     ///< so long to take a response
    std::uint64_t taken = 0, answers = 0;
    std::size_t waiting = 0;
  };

  Asker& add(Asker asker) { return askers_.emplace(peer(static_cast<int>(askers_.size())), asker).first->second; }

  /// Runs for so long. Returns for how much of it the store had nothing to do.
  Duration run(Duration time) {
    const Time end = now_ + time;
    Duration idle{0};
    while (now_ < end) {
      for (auto& [url, asker] : askers_) {
        for (; asker.waiting < asker.at_once; ++asker.waiting) {
          const auto id = core_.on_request(url, 512, now_, asker.ids < 15, asker.ids);
          if (!id) break;
          ++joined_[*id];
        }
      }
      end_sends();
      take_actions();
      if (++turns_ % 64 == 0) core_.check_invariants();
      if (reads_.empty()) {
        Time next = std::min(core_.next_deadline().value_or(end), end);
        if (!under_way_.empty()) next = std::min(next, under_way_.begin()->first);
        idle += next - now_;
        now_ = next;
        core_.on_deadline(now_);
        end_sends();
        continue;
      }
      answer();
    }
    return idle;
  }

 private:
  void answer() {
    const ServeCore::Read read = reads_.front();
    reads_.pop_front();
    auto& left = left_[read.request];
    const std::uint64_t bytes = std::min(left, std::max<std::uint64_t>(read.max_bytes, 1024));
    left -= bytes;
    now_ += Duration(60 + static_cast<std::int64_t>(bytes) / 100);
    bytes_[read.read] = bytes;
    core_.on_read_ended(
        read.read,
        {.has_ops = true, .bytes = bytes, .ops = 1 + bytes / 1024, .left_over = left > 0, .is_exhausted = true}, now_);
  }
  void end_sends() {
    while (!under_way_.empty() && under_way_.begin()->first <= now_) {
      const ServeCore::Send send = under_way_.extract(under_way_.begin()).mapped();
      Asker& asker = askers_.at(send.peer);
      const std::uint64_t bytes = bytes_[send.read];
      const bool is_again = asker.asks_again && asker.taken > (1U << 20);
      asker.taken += bytes;
      ++asker.answers;
      core_.on_sent(send.read, true, now_, is_again ? bytes : 0);
    }
  }
  void take_actions() {
    for (auto actions = core_.take_actions(); !actions.empty(); actions = core_.take_actions()) {
      for (const auto& action : actions) {
        if (const auto* read = std::get_if<ServeCore::Read>(&action)) {
          Asker& asker = askers_.at(read->peer);
          if (const auto joined = joined_.extract(read->request); !joined.empty()) {
            left_[read->request] = joined.mapped() * asker.bytes;
            asker.waiting -= joined.mapped();
          }
          reads_.push_back(*read);
        }
        if (const auto* send = std::get_if<ServeCore::Send>(&action)) {
          Asker& asker = askers_.at(send->peer);
          if (asker.is_deaf) continue;
          under_way_.emplace(now_ + asker.takes, *send);
          if (asker.takes.count() == 0) end_sends();
        }
      }
    }
  }

  ServeCore core_{{}};
  Time now_{std::chrono::seconds(1)};
  std::map<Url, Asker> askers_;
  std::map<ServeCore::RequestId, std::uint64_t> joined_, left_;
  std::map<ServeCore::ReadId, std::uint64_t> bytes_;
  std::deque<ServeCore::Read> reads_;
  std::multimap<Time, ServeCore::Send> under_way_;
  std::size_t turns_ = 0;
};

TEST(ServeCoreRules, PeersThatAskForOneOpInAMessageTakeLittleFromOneThatAsksForMuch) {
  BusyServer server;
  auto& honest = server.add({.ids = 438, .bytes = 438 * 1024, .at_once = 2});
  std::vector<BusyServer::Asker*> flood;
  for (int i = 0; i < 16; ++i) flood.push_back(&server.add({.ids = 1, .bytes = 1024}));
  server.run(std::chrono::seconds(2));  // what is saved of their allowance is spent
  const std::uint64_t before = honest.taken;
  server.run(std::chrono::seconds(10));
  EXPECT_GT(honest.taken - before, 600'000'000U) << "of the 1,000 MB that the line has";
  for (const auto* each : flood) EXPECT_GT(each->taken, 100'000U);
}

TEST(ServeCoreRules, IdsThatAreNotHeldDoNotMakeARequestALargerOne) {
  BusyServer server;
  auto& honest = server.add({.ids = 438, .bytes = 438 * 1024, .at_once = 2});
  for (int i = 0; i < 16; ++i) server.add({.ids = 14, .bytes = 1024});
  server.run(std::chrono::seconds(2));
  const std::uint64_t before = honest.taken;
  server.run(std::chrono::seconds(10));
  EXPECT_GT(honest.taken - before, 750'000'000U) << "of the 1,000 MB that the line has";
}

/// S11: a lone request says nothing of what a peer that asks for much will find.
TEST(ServeCoreRules, AfterALoneRequestALargeOneIsStillALargeOne) {
  ServeCore core({});
  const Time now{std::chrono::seconds(1)};
  const auto reads = [&] {
    std::vector<ServeCore::Read> out;
    for (const auto& action : core.take_actions()) {
      if (const auto* read = std::get_if<ServeCore::Read>(&action)) out.push_back(*read);
      if (const auto* send = std::get_if<ServeCore::Send>(&action)) core.on_sent(send->read, true, now);
    }
    return out;
  };
  core.on_request(peer(1), 100, now, false, 1);
  const auto lone = reads();
  ASSERT_EQ(lone.size(), 1U);
  core.on_read_ended(lone[0].read, {.has_ops = true, .bytes = 100, .ops = 1, .is_exhausted = true}, now);
  reads();
  core.on_request(peer(2), 100, now, false, 1000);
  core.on_request(peer(3), 100, now, false, 1);
  EXPECT_EQ(reads().size(), 2U);
  core.on_request(peer(4), 100, now, false, 1);
  EXPECT_TRUE(reads().empty()) << "one lone request is read at a time";
  core.on_request(peer(1), 100, now, false, 1000);
  EXPECT_EQ(reads().size(), 1U);
}

TEST(ServeCoreRules, PeersThatAskForOneOpInAMessageAreNotHeldBackWhileTheyAreAmongThemselves) {
  BusyServer server;
  for (int i = 0; i < 16; ++i) server.add({.ids = 1, .bytes = 1024});
  EXPECT_EQ(server.run(std::chrono::seconds(2)).count(), 0);
}

TEST(ServeCoreRules, APeerThatAsksForTheSameAgainTakesLittleFromOneThatDoesNot) {
  BusyServer server;
  auto& honest = server.add({.ids = 438, .bytes = 438 * 1024, .at_once = 2});
  server.add({.ids = 20'000, .bytes = 20'000 * 1024, .asks_again = true});
  server.run(std::chrono::seconds(10));
  EXPECT_GT(honest.taken, 600'000'000U) << "of the 1,000 MB that the line has";
}

TEST(ServeCoreRules, APeerThatAsksForTheSameAgainIsServedWhileNobodyElseIs) {
  BusyServer server;
  auto& again = server.add({.ids = 20'000, .bytes = 20'000 * 1024, .asks_again = true});
  server.run(std::chrono::seconds(10));
  EXPECT_GT(again.taken, 900'000'000U);
}

TEST(ServeCoreRules, WhereTheOthersAreSlowThousandsOfLoneRequestsASecondAreAnswered) {
  BusyServer server;
  server.add({.ids = 438, .bytes = 438 * 1024, .takes = std::chrono::milliseconds(900)});
  std::vector<BusyServer::Asker*> askers;
  for (int i = 0; i < 100; ++i) askers.push_back(&server.add({.ids = 1, .bytes = 80, .at_once = 1}));
  server.run(std::chrono::seconds(3));
  std::uint64_t answers = 0;
  for (const auto* each : askers) answers += each->answers;
  EXPECT_GT(answers, 11'000U);
  EXPECT_LT(answers, 14'000U);
}

/// S13: a peer of small ops whose handshake took 8 ms, and which keeps two requests under way.
class ASlowHandshake {
 public:
  /// It requests `count` more, the first two at once, and each of the others `gap` after an answer.
  void request(int count, Duration gap) {
    for (int i = 0; i < count; ++i) {
      if (requests_ >= 2) answer();
      if (requests_ >= 2) now_ = now_ + gap;
      ask();
    }
  }
  void ask() {
    core_.note_round_trip(peer(1), std::chrono::milliseconds(8));
    core_.on_request(peer(1), 100, now_);
    ++requests_;
    for (const auto& action : core_.take_actions()) note(action);
  }
  /// The most payload bytes of the next response.
  std::uint64_t room() const { return reads_.front().max_bytes; }

 private:
  void note(const ServeCore::Action& action) {
    if (const auto* read = std::get_if<ServeCore::Read>(&action)) reads_.push_back(*read);
    if (const auto* send = std::get_if<ServeCore::Send>(&action)) core_.on_sent(send->read, true, now_);
  }
  /// One answer to the oldest request, as large as it may be.
  void answer() {
    const ServeCore::Read read = reads_.front();
    reads_.pop_front();
    core_.on_read_ended(read.read, {.has_ops = true, .bytes = read.max_bytes, .ops = 1000, .is_exhausted = true}, now_);
    for (int i = 0; i < 2; ++i) {  // what was sent may begin the next read
      for (const auto& action : core_.take_actions()) note(action);
    }
  }

  ServeCore core_{{}};
  Time now_{std::chrono::seconds(1)};
  int requests_ = 0;
  std::deque<ServeCore::Read> reads_;
};

TEST(ServeCoreRules, APeerThatRequestsSoonAfterAnAnswerIsNearHoweverLongTheHandshakeTook) {
  ASlowHandshake peer;
  peer.request(5, std::chrono::microseconds(200));
  EXPECT_GT(peer.room(), ServeCore::kFrameBytes);
}

TEST(ServeCoreRules, APeerThatRequestsLateAfterAnAnswerIsAsFarAsTheHandshakeSays) {
  ASlowHandshake peer;
  peer.request(20, std::chrono::milliseconds(8));
  EXPECT_LE(peer.room(), ServeCore::kFrameBytes);
}

TEST(ServeCoreRules, WhatAPermitShowsCountsMoreThanHowSoonRequestsCome) {
  ASlowHandshake peer;
  peer.request(5, std::chrono::microseconds(200));
  ASSERT_GT(peer.room(), ServeCore::kFrameBytes);
  peer.request(5, std::chrono::microseconds(200));  // a large response is taken, and the transport asked again
  EXPECT_LE(peer.room(), ServeCore::kFrameBytes);
}

TEST(ServeCoreRules, ManyRequestsAtOnceSayNothingOfTheDistance) {
  ASlowHandshake peer;
  for (int i = 0; i < 4; ++i) peer.ask();
  peer.request(4, std::chrono::microseconds(200));
  EXPECT_LE(peer.room(), ServeCore::kFrameBytes);
}

TEST(ServeCoreRules, AResponseThatIsNeverTakenDoesNotHoldBackMinorRequestsForLong) {
  BusyServer server;
  auto& gone = server.add({.ids = 438, .bytes = 438 * 1024, .at_once = 4});
  server.run(std::chrono::seconds(1));
  ASSERT_GT(gone.taken, ServeCore::kProvenBytes);  // so that more is read ahead
  gone.is_deaf = true;
  std::vector<BusyServer::Asker*> askers;
  for (int i = 0; i < 100; ++i) askers.push_back(&server.add({.ids = 1, .bytes = 80, .at_once = 1}));
  server.run(2 * ServeCore::kAge);
  const auto answers = [&] {
    std::uint64_t out = 0;
    for (const auto* each : askers) out += each->answers;
    return out;
  };
  const std::uint64_t before = answers();
  EXPECT_EQ(server.run(std::chrono::seconds(3)).count(), 0);
  EXPECT_GT(answers() - before, 40'000U) << "as many as the store reads";
}

/// S12.
TEST(ServeCoreRules, WhatCouldNotBeSentWasNotSentBefore) {
  ServeCore core({});
  const Time now{std::chrono::seconds(1)};
  bool arrives = true;
  const auto answer = [&](std::uint64_t bytes) {
    for (const auto& action : core.take_actions()) {
      const auto* read = std::get_if<ServeCore::Read>(&action);
      if (read == nullptr) continue;
      core.on_read_ended(read->read, {.has_ops = true, .bytes = bytes, .ops = 100, .is_exhausted = true}, now);
      for (const auto& next : core.take_actions()) {
        if (const auto* send = std::get_if<ServeCore::Send>(&next)) core.on_sent(send->read, arrives, now, bytes);
      }
      return read->max_bytes;
    }
    return std::uint64_t{0};
  };
  for (int i = 0; i < 10; ++i) {
    arrives = i < 2;
    core.on_request(peer(1), 100, now);
    answer(500U << 10);
  }
  core.on_request(peer(2), 100, now);  // so that others are served
  core.take_actions();
  core.on_request(peer(1), 100, now);
  EXPECT_GT(answer(1), ServeCore::kAgainBytes) << "it has taken less than kProvenBytes again";
}

TEST(ServeCoreRules, ThoseThatFillTheRoomForRequestsLeaveSomeForANewcomer) {
  ServeCore core({.max_requests_per_peer = 1'000'000});
  const Time now{std::chrono::seconds(1)};
  for (int n = 0; n < 16; ++n) {
    while (core.on_request(peer(n), 10'000, now, true, 1)) {
    }
  }
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(core.on_request(peer(999), 20'000, now)) << i;
}

/// S15: peers that fill the room for requests, and take no response.
class ServeCoreDeaf : public ::testing::Test {
 protected:
  /// Each has one response under way, and as many requests waiting as it may have.
  void come(int first, int count) {
    for (int n = first; n < first + count; ++n) {
      while (core.on_request(peer(n), 18'000, now)) {
      }
      for (const auto& action : core.take_actions()) {
        if (const auto* read = std::get_if<ServeCore::Read>(&action))
          core.on_read_ended(read->read, {.has_ops = true, .bytes = 12'000, .ops = 12, .left_over = true}, now);
      }
    }
  }
  bool asks(int n, std::uint64_t cost = 18'000) { return core.on_request(peer(n), cost, now).has_value(); }
  void pass(Duration time) { core.on_deadline(now += time); }
  std::size_t take_dropped() {
    std::size_t out = 0;
    for (const auto& action : core.take_actions()) {
      if (const auto* drop = std::get_if<ServeCore::Drop>(&action)) out += drop->requests;
    }
    return out;
  }

  ServeCore core{{}};
  Time now{std::chrono::seconds(1)};
};

TEST_F(ServeCoreDeaf, WhoFillsTheQueueAndTakesNothingLosesItsRequestsToWhoeverAsks) {
  come(0, 4'000);
  EXPECT_FALSE(asks(9'000)) << "those who ask may take their responses yet";
  pass(ServeCore::kStalled);
  for (int i = 0; i < 64; ++i) EXPECT_TRUE(asks(9'000)) << i;
  EXPECT_GT(take_dropped(), 64U);
  core.check_invariants();
}

TEST_F(ServeCoreDeaf, WhoWaitsLongestWithoutTakingItsResponseLosesItsRequestsFirst) {
  come(0, 1);
  pass(ServeCore::kStalled / 2);
  come(1, 4'000);
  pass(ServeCore::kStalled / 2);
  EXPECT_TRUE(asks(9'000)) << "it may have what the first one had";
  EXPECT_EQ(take_dropped(), 64U);
  for (int i = 0; i < 64; ++i) asks(0);
  EXPECT_EQ(take_dropped(), 0U) << "nobody has let a response lie for longer than it has";
  core.check_invariants();
}

TEST_F(ServeCoreDeaf, LargeRequestsDoNotFillTheQueueThatALoneOneNeeds) {
  for (int n = 0; n < 2'000; ++n) asks(n, 1U << 20);
  EXPECT_TRUE(asks(9'000)) << "a lone request that is not large";
  EXPECT_FALSE(asks(9'001, 1U << 20));
}

}  // namespace
}  // namespace kitsune2
