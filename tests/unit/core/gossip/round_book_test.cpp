// The rules of gossip::RoundBook, by their letters.
#include "core/gossip/round_book.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "unit/core/named.hpp"

namespace kitsune2::gossip {
namespace {

using namespace std::chrono_literals;

using tests::url;

constexpr Pace kDefaults{120s, 10s, 300s, 5s};

struct Candidate {
  Url url;
  bool overlaps = false;
  std::optional<Timestamp> last_gossip = {};
};

/// A book at the defaults; the own url is known from the beginning.
struct Book {
  explicit Book(const Pace& pace = kDefaults) {
    book.set_pace(pace, now, 0);
    book.on_own_url(now);
  }
  void knows(const Url& peer, bool overlaps = true, std::optional<Timestamp> last = {}) {
    candidates.push_back({peer, overlaps, last});
  }
  std::optional<Url> choose(std::uint32_t random = 0) {
    for (const Candidate& c : candidates) book.on_candidate(c.url, c.overlaps, c.last_gossip);
    const auto look = [this](const Url& peer) {
      const auto is_it = [&](const Candidate& c) { return c.url == peer; };
      const auto it = std::find_if(candidates.begin(), candidates.end(), is_it);
      using Seen = RoundBook::Seen;
      return it == candidates.end() ? Seen{Seen::gone} : Seen{Seen::usable, it->overlaps};
    };
    return book.choose(look, now, random, 0);
  }
  /// Waits until there is somebody to ask, for at most `most`; begins a round.
  std::optional<Url> ask(Duration most) {
    for (const Time end = now + most; book.next_try(now) <= end;) {
      now = book.next_try(now);
      if (const auto peer = choose()) {
        book.on_attempt(*peer, now);
        return peer;
      }
    }
    return std::nullopt;
  }
  void answered(const Url& peer, bool ours = false) {
    if (ours) book.on_is_ours(peer, now);
    book.on_met(peer, now);
    book.on_completed(peer, now);
  }
  /// As if all had been met, long ago: no more catch-up.
  void settle() {
    for (int i = 0; i < 8; ++i) book.on_met(url("settled" + std::to_string(i)), now);
    now += 1h;
    book.set_pace(kDefaults, now, 0);
  }

  RoundBook book;
  Time now = Time(1h);
  std::vector<Candidate> candidates;
};

// -------------------------------------------------------------------- D1 to D3

TEST(RoundBook, AStockPeerIsLeftAloneForTheMinimumIntervalAfterARound) {
  Book b;
  b.knows(url("a"));
  ASSERT_EQ(b.ask(1s), url("a"));
  b.answered(url("a"));
  const Time met = b.now;
  b.book.on_publish_lost(url("a"), b.now);
  ASSERT_EQ(b.ask(1h), url("a"));
  EXPECT_GE(b.now, met + 300s);
}

TEST(RoundBook, AnAttemptThatWasNotAnsweredCountsFromWhenItWasGivenUp) {
  Book b;
  b.knows(url("a"));
  ASSERT_EQ(b.ask(1s), url("a"));
  b.now += 15s;
  b.book.on_no_answer(url("a"), b.now, true);
  const Time given_up = b.now;
  ASSERT_EQ(b.ask(1h), url("a"));
  EXPECT_GE(b.now, given_up + 300s) << "it may have come in late";
}

TEST(RoundBook, WithANewOwnUrlWeAreStrangersToAll) {
  Book b;
  b.knows(url("a"));
  ASSERT_EQ(b.ask(1s), url("a"));
  b.answered(url("a"));
  EXPECT_FALSE(b.ask(100s));
  b.book.on_own_url(b.now);
  EXPECT_EQ(b.ask(1s), url("a"));
  EXPECT_EQ(b.book.answer(url("a"), false, b.now), RoundBook::Answer::accept) << "and may ask us";
}

TEST(RoundBook, AnAttemptFromTheOldUrlDoesNotCountAtTheNewOne) {
  Book b;
  b.knows(url("a"));
  ASSERT_EQ(b.ask(1s), url("a"));
  b.now += 5s;
  b.book.on_own_url(b.now);
  b.now += 1ms;
  b.book.on_no_answer(url("a"), b.now, false);
  EXPECT_EQ(b.ask(1s), url("a"));
}

TEST(RoundBook, APeerOnAnotherRelayKnowsUsByOurLinkToIt) {
  Book b;
  b.book.on_home(Url::parse("ws://relay:1").value());
  const Url here = url("here"), there = Url::parse("ws://elsewhere:1/there").value();
  for (const Url& peer : {here, there}) {
    b.knows(peer);
    b.answered(peer);
  }
  b.now += 10s;
  b.book.on_own_url(b.now);  // our own relay was lost and is back
  EXPECT_EQ(b.ask(60s), here) << "where our url is a new one";
  b.candidates.erase(b.candidates.begin());
  EXPECT_EQ(b.ask(60s), std::nullopt);
  EXPECT_EQ(b.ask(300s), there);
}

TEST(RoundBook, ALateFindingIsOwedAtTheLastOfSeveralUrls) {
  Book b;
  b.settle();
  b.book.on_moved(url("a"), url("b"), b.now);
  b.book.on_moved(url("b"), url("c"), b.now);
  b.knows(url("c"));
  b.answered(url("c"), true);
  b.book.on_publish_lost(url("a"), b.now);
  EXPECT_EQ(b.ask(5s), url("c"));
}

TEST(RoundBook, AStartAsksOnePeerAfterTheOtherWithinSeconds) {
  Book b;
  std::set<Url> asked;
  for (const char* name : {"a", "b", "c"}) b.knows(url(name));
  const Time start = b.now;
  for (int i = 0; i < 3; ++i) {
    const auto peer = b.ask(1s);
    ASSERT_TRUE(peer) << i;
    asked.insert(*peer);
    b.answered(*peer);
  }
  EXPECT_EQ(asked.size(), 3U);
  EXPECT_LT(b.now - start, 1s);
  EXPECT_FALSE(b.ask(100s)) << "nobody else";
}

TEST(RoundBook, TheRoundsOfAnEarlierLifeAreNoReasonToWait) {
  Book b;
  b.knows(url("a"), true, Timestamp::from_seconds(1'767'225'600));
  EXPECT_EQ(b.ask(1s), url("a"));
}

TEST(RoundBook, ACatchUpEndsAfterEightPeers) {
  Book b;
  for (int i = 0; i < 20; ++i) b.knows(url("p" + std::to_string(i)));
  int asked = 0;
  const Time start = b.now;
  while (const auto peer = b.ask(start + 110s - b.now)) {
    b.answered(*peer);
    ++asked;
  }
  EXPECT_EQ(asked, 8);
}

TEST(RoundBook, ACatchUpEndsAfterFiveMinutesButNotBeforeOneRoundTookPlace) {
  Book none, one;
  for (auto* b : {&none, &one}) b->now += 20min;
  one.book.on_met(url("met"), one.now);
  for (auto* b : {&none, &one}) {
    b->book.set_pace(kDefaults, b->now, 0);
    b->knows(url("a"));
  }
  EXPECT_EQ(none.ask(10s), url("a"));
  EXPECT_FALSE(one.ask(10s)) << "the interval is the rule now";
}

// -------------------------------------------------------------------- D4

TEST(RoundBook, APublishThatWasLostIsMadeUpForAtOnce) {
  Book b;
  b.knows(url("a"));
  b.knows(url("b"));
  b.settle();
  b.answered(url("a"), true);
  b.now += 10s;
  b.book.on_publish_lost(url("a"), b.now);
  const Time lost = b.now;
  ASSERT_EQ(b.ask(5s), url("a"));
  EXPECT_LE(b.now - lost, 1s);
  b.now += 1ms;
  b.answered(url("a"), true);
  EXPECT_EQ(b.book.owed(), 0U);
}

TEST(RoundBook, OpsLostDuringARoundAreNotPaidByIt) {
  Book b;
  b.settle();
  b.book.on_publish_lost(url("a"), b.now);
  b.now += 1s;
  const Time begun = b.now;
  b.now += 1s;
  b.book.on_publish_lost(url("a"), b.now);
  b.book.on_completed(url("a"), begun);
  EXPECT_EQ(b.book.owed(), 1U);
  b.book.on_completed(url("a"), b.now + 1us);
  EXPECT_EQ(b.book.owed(), 0U);
}

/// An outage of any length: whoever comes back waits for a quarter of it, at most.
TEST(RoundBook, WhileItFailsAnOwedRoundIsTriedAfterAQuarterOfTheOutage) {
  Book b;
  b.knows(url("a"));
  b.settle();
  b.answered(url("a"), true);
  b.now += 10s;
  b.book.on_publish_lost(url("a"), b.now);
  const Time lost = b.now;
  Time last = b.now;
  int tries = 0;
  for (; b.now - lost < 30min; ++tries) {
    ASSERT_EQ(b.ask(10min), url("a"));
    EXPECT_GE(b.now - last, 1s) << "a bounded rate";
    EXPECT_LE(b.now - last, std::max<Duration>(2s, (b.now - lost) / 4 + 1s));
    last = b.now;
    b.now += 100ms;
    b.book.on_no_answer(url("a"), b.now, false);
  }
  EXPECT_LT(tries, 40);
}

TEST(RoundBook, AnOwedRoundWithANobodyDoesNotKeepTheBookAwake) {
  Book b;
  b.settle();
  b.book.on_publish_lost(url("gone"), b.now);
  int tries = 0;
  const Time end = b.now + 3h;
  b.knows(url("a"));
  while (b.book.next_try(b.now) < end) {
    b.now = b.book.next_try(b.now);
    b.choose();
    ++tries;
  }
  EXPECT_LT(tries, 90 + 60) << "the turns, and few more";
  EXPECT_EQ(b.book.owed(), 0U) << "forgotten";
}

TEST(RoundBook, AConnectingPeerIsOwedItsRoundAtOnce) {
  Book b;
  b.knows(url("a"));
  b.settle();
  b.book.on_is_ours(url("a"), b.now);
  b.book.on_publish_lost(url("a"), b.now);
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(b.ask(10min));
    b.book.on_no_answer(url("a"), b.now, false);
  }
  b.now += 2s;
  EXPECT_FALSE(b.ask(1s));
  b.book.on_connected(url("a"), b.now);
  EXPECT_EQ(b.ask(0s), url("a"));
}

TEST(RoundBook, AnOwedRoundFollowsAPeerToItsNewUrl) {
  Book b;
  b.settle();
  b.knows(url("new"));
  b.answered(url("new"), true);
  b.now += 10s;
  b.book.on_publish_lost(url("old"), b.now);
  b.book.on_moved(url("old"), url("new"), b.now);
  ASSERT_EQ(b.ask(2s), url("new")) << "known before the move";
  b.now += 1ms;
  b.answered(url("new"), true);
  b.now += 10s;
  b.book.on_publish_lost(url("old"), b.now);
  EXPECT_EQ(b.ask(2s), url("new")) << "found out after it";
}

TEST(RoundBook, APeerThatHasMoreIsAskedAgainAfterASecond) {
  Book b;
  b.knows(url("a"));
  ASSERT_EQ(b.ask(1s), url("a"));
  for (int i = 0; i < 5; ++i) {
    // It is heard of before the round ends, and at the instant at which it began.
    b.book.on_has_more(url("a"), b.now);
    b.answered(url("a"), true);
    const Time last = b.now;
    ASSERT_EQ(b.ask(5s), url("a"));
    EXPECT_EQ(b.now - last, 1s);
  }
}

TEST(RoundBook, ABrokenRoundAndABusyPeerOfOursAreTriedAgainSoon) {
  Book b;
  b.knows(url("a"));
  ASSERT_EQ(b.ask(1s), url("a"));
  b.book.on_is_ours(url("a"), b.now);
  b.book.on_met(url("a"), b.now);
  b.book.on_broken(url("a"), b.now);
  ASSERT_EQ(b.ask(2s), url("a"));
  b.book.on_busy(url("a"), b.now);
  EXPECT_FALSE(b.ask(4s));
  EXPECT_EQ(b.ask(2s), url("a"));
}

TEST(RoundBook, OwedRoundsDoNotKeepOthersFromTheirTurn) {
  Book b;
  b.settle();
  b.knows(url("turn"));
  for (int i = 0; i < 50; ++i) {
    b.knows(url("owed" + std::to_string(i)));
    b.book.on_is_ours(url("owed" + std::to_string(i)), b.now);
    b.book.on_met(url("owed" + std::to_string(i)), b.now);
  }
  bool had_its_turn = false;
  for (const Time end = b.now + 130s; !had_its_turn && b.now < end;) {
    for (int i = 0; i < 50; ++i) b.book.on_broken(url("owed" + std::to_string(i)), b.now);
    const auto peer = b.ask(10s);
    if (!peer) continue;
    had_its_turn = *peer == url("turn");
    b.book.on_no_answer(*peer, b.now, false);
  }
  EXPECT_TRUE(had_its_turn);
}

// -------------------------------------------------------------------- D5

TEST(RoundBook, RoundsOfOursAreAnsweredInABurstAndThenOneASecond) {
  Book b;
  int accepted = 0;
  for (int i = 0; i < 20; ++i) accepted += b.book.answer(url("a"), true, b.now) == RoundBook::Answer::accept ? 1 : 0;
  EXPECT_EQ(accepted, 8);
  EXPECT_EQ(b.book.answer(url("a"), true, b.now), RoundBook::Answer::busy);
  EXPECT_EQ(b.book.answer(url("b"), true, b.now), RoundBook::Answer::accept) << "each for itself";
  accepted = 0;
  for (int i = 0; i < 100; ++i) {
    b.now += 100ms;
    accepted += b.book.answer(url("a"), true, b.now) == RoundBook::Answer::accept ? 1 : 0;
  }
  EXPECT_GE(accepted, 9);
  EXPECT_LE(accepted, 10);
}

TEST(RoundBook, OurOwnAttemptsDoNotMakeAStockPeerTooSoon) {
  Book b;
  b.knows(url("a"));
  ASSERT_TRUE(b.ask(1s));
  b.book.on_no_answer(url("a"), b.now, true);
  EXPECT_EQ(b.book.answer(url("a"), false, b.now), RoundBook::Answer::accept);
}

// -------------------------------------------------------------------- D9, D10

Pace with_bursts() {
  auto pace = kDefaults;
  pace.bursts_are_taken = true;
  return pace;
}

TEST(RoundBook, AStockPeerMayStartABurstOfRoundsInAnyWindow) {
  Book b(with_bursts());
  for (int i = 0; i < 15; ++i) {
    EXPECT_EQ(b.book.answer(url("a"), false, b.now), RoundBook::Answer::accept) << i;
    b.book.on_met(url("a"), b.now);
    b.now += 1s;
  }
  const Time first = b.now - 15s;
  EXPECT_EQ(b.book.answer(url("b"), false, b.now), RoundBook::Answer::accept) << "each for itself";
  for (b.now = first + 500s; b.now < first + 600s; b.now += 1s)
    EXPECT_EQ(b.book.answer(url("a"), false, b.now), RoundBook::Answer::too_soon) << "they do not count";
  EXPECT_EQ(b.book.answer(url("a"), false, b.now), RoundBook::Answer::accept) << "the first one is over";
  EXPECT_EQ(b.book.answer(url("a"), false, b.now), RoundBook::Answer::too_soon) << "the second one is not";
}

/// It may be one of 0.2.2, which knows no bursts and comes as often as the interval allows.
TEST(RoundBook, WhereBurstsAreNotCertainAStockPeerMayAlsoComeAfterItsInterval) {
  auto pace = kDefaults;
  pace.min_initiate_interval = 1s;
  Book b(pace);
  for (int i = 0; i < 15; ++i) {
    EXPECT_EQ(b.book.answer(url("a"), false, b.now), RoundBook::Answer::accept) << i;
    b.book.on_met(url("a"), b.now);
    b.now += 1ms;
  }
  EXPECT_EQ(b.book.answer(url("a"), false, b.now), RoundBook::Answer::too_soon) << "neither";
  for (int i = 0; i < 50; ++i) {
    b.now += 1s;
    EXPECT_EQ(b.book.answer(url("a"), false, b.now), RoundBook::Answer::accept) << i;
    b.book.on_met(url("a"), b.now);
    EXPECT_EQ(b.book.answer(url("a"), false, b.now + 999ms), RoundBook::Answer::too_soon) << i;
  }
  b.now += 600s;
  for (int i = 0; i < 15; ++i) EXPECT_EQ(b.book.answer(url("a"), false, b.now), RoundBook::Answer::accept) << i;
}

TEST(RoundBook, NoBurstMeansNoRoundOfStockPeersUnlessTheIntervalAllowsIt) {
  for (const bool taken : {false, true}) {
    auto pace = taken ? with_bursts() : kDefaults;
    pace.burst_rounds = 0;
    pace.burst_window = 0s;
    Book b(pace);
    const auto first = taken ? RoundBook::Answer::too_soon : RoundBook::Answer::accept;
    EXPECT_EQ(b.book.answer(url("a"), false, b.now), first);
    b.book.on_met(url("a"), b.now);
    EXPECT_EQ(b.book.answer(url("a"), false, b.now), RoundBook::Answer::too_soon);
    EXPECT_EQ(b.book.answer(url("a"), true, b.now), RoundBook::Answer::accept) << "ours";
  }
}

TEST(RoundBook, WhatIsOwedToAStockPeerUsesFourFifthsOfItsBurst) {
  Book b(with_bursts());
  b.knows(url("a"));
  std::vector<Time> asked;
  while (const auto peer = b.ask(20min)) {
    asked.push_back(b.now);
    if (asked.size() > 40) break;
    // It has named something that was lacking, each time.
    b.answered(*peer);
    b.now += 1ms;
    b.book.on_has_more(*peer, b.now);
  }
  ASSERT_GT(asked.size(), 40U);
  EXPECT_LE(asked[11] - asked[0], 12s);
  for (std::size_t i = 0; i + 15 < asked.size(); ++i)
    EXPECT_GT(asked[i + 15] - asked[i], 600s) << i << ": as each peer of 0.5 counts";
  EXPECT_GE(asked[13] - asked[0], 300s) << "a fifth is left to regular rounds";
}

TEST(RoundBook, AStockPeerIsNotAskedWithoutAReasonWithinItsInterval) {
  Book b(with_bursts());
  b.knows(url("a"));
  ASSERT_EQ(b.ask(1s), url("a"));
  b.answered(url("a"));
  const Time met = b.now;
  ASSERT_EQ(b.ask(1h), url("a"));
  EXPECT_GE(b.now - met, 300s);
}

TEST(RoundBook, AStockPeerThatIsSilentOrBusyIsNotAskedInABurst) {
  for (const bool busy : {false, true}) {
    Book b(with_bursts());
    b.knows(url("a"));
    ASSERT_EQ(b.ask(1s), url("a"));
    b.answered(url("a"));
    b.book.on_publish_lost(url("a"), b.now);
    ASSERT_EQ(b.ask(2s), url("a"));
    const Time then = b.now;
    if (busy) {
      b.book.on_busy(url("a"), b.now);
    } else {
      b.book.on_no_answer(url("a"), b.now, true);
    }
    ASSERT_EQ(b.ask(1h), url("a"));
    EXPECT_GE(b.now - then, busy ? 5s : 300s);
    EXPECT_LT(b.now - then, busy ? 7s : 450s);
  }
}

// -------------------------------------------------------------------- D11

TEST(RoundBook, AnAttemptOfWhichAPeerDidNotHearDoesNotCount) {
  for (const bool shown_before_the_end : {false, true}) {
    Book b(with_bursts());
    b.knows(url("a"));
    ASSERT_EQ(b.ask(1s), url("a"));
    b.now += 5s;
    if (shown_before_the_end) b.book.on_knows_us(url("a"), b.now);
    b.now += 10s;
    b.book.on_no_answer(url("a"), b.now, true);
    if (!shown_before_the_end) {
      b.now += 60s;
      b.book.on_knows_us(url("a"), b.now);
    }
    const Time then = b.now;
    ASSERT_EQ(b.ask(1h), url("a"));
    EXPECT_LE(b.now - then, 1s) << shown_before_the_end;
    // It knew us when this one was sent.
    b.now += 15s;
    b.book.on_no_answer(url("a"), b.now, true);
    const Time silent = b.now;
    ASSERT_EQ(b.ask(1h), url("a"));
    EXPECT_GE(b.now - silent, 300s) << shown_before_the_end;
  }
}

TEST(RoundBook, APeerThatShowsThatItKnowsUsIsOwedNothingIfItAnswered) {
  Book b(with_bursts());
  b.book.on_knows_us(url("stranger"), b.now);
  EXPECT_FALSE(b.book.knows(url("stranger")));
  b.knows(url("a"));
  ASSERT_EQ(b.ask(1s), url("a"));
  b.book.on_knows_us(url("a"), b.now);
  b.answered(url("a"));
  EXPECT_EQ(b.book.owed(), 0U);
  const Time met = b.now;
  ASSERT_EQ(b.ask(1h), url("a"));
  EXPECT_GE(b.now - met, 300s);
}

// -------------------------------------------------------------------- D6

TEST(RoundBook, OverlappingArcsComeFirstThenStrangersThenWhoHasWaitedLongest) {
  Book b;
  const auto at = [](std::int64_t s) { return Timestamp::from_seconds(s); };
  b.knows(url("far"), false);
  b.knows(url("newer"), true, at(200));
  b.knows(url("older"), true, at(100));
  b.knows(url("stranger"), true);
  for (const char* name : {"stranger", "older", "newer", "far"}) {
    const auto peer = b.ask(1s);
    ASSERT_EQ(peer, url(name));
    b.answered(*peer);
  }
}

TEST(RoundBook, AmongStrangersTheChoiceIsRandom) {
  std::set<std::optional<Url>> chosen;
  for (std::uint32_t random = 0; random < 3; ++random) {
    Book b;
    for (const char* name : {"a", "b", "c"}) b.knows(url(name));
    b.now += 1s;
    chosen.insert(b.choose(random));
  }
  EXPECT_EQ(chosen.size(), 3U);
}

/// A dead node says a full arc for 20 minutes, and its turn came before that of live ones each time.
TEST(RoundBook, DeadPeersWithFullArcsDoNotComeBeforeLiveOnes) {
  Book b;
  b.settle();
  for (int i = 0; i < 10; ++i) b.knows(url("dead" + std::to_string(i)), true);
  for (int i = 0; i < 10; ++i) b.knows(url("live" + std::to_string(i)), false);
  std::map<Url, Timestamp> last;
  int dead = 0, live = 0;
  const Time end = b.now + 4h;
  while (b.now < end) {
    for (auto& candidate : b.candidates) {
      if (last.contains(candidate.url)) candidate.last_gossip = last[candidate.url];
    }
    const auto peer = b.ask(10min);
    ASSERT_TRUE(peer);
    last[*peer] = Timestamp{b.now.time_since_epoch().count()};
    if (peer->to_string().find("dead") != std::string::npos) {
      ++dead;
      b.book.on_no_answer(*peer, b.now, false);
    } else {
      ++live;
      b.answered(*peer);
    }
  }
  EXPECT_GT(live, 100);
  EXPECT_LT(dead, live / 2);
  EXPECT_GT(dead, 10) << "but they are not left out for good";
}

TEST(RoundBook, APeerHeardOfAgainIsNotSilentAnyMore) {
  Book b;
  b.settle();
  b.knows(url("was-silent"), true, Timestamp{1});
  b.knows(url("other"), true, Timestamp{2});
  b.book.on_no_answer(url("was-silent"), b.now, false);
  b.now += 10min;
  EXPECT_EQ(b.choose(), url("other"));
  b.book.on_connected(url("was-silent"), b.now);
  b.now += 10min;
  EXPECT_EQ(b.choose(), url("was-silent"));
}

// -------------------------------------------------------------------- D7, D8, bounds

TEST(RoundBook, PatienceIsASecondUnlessTheInitialIntervalSaysOtherwise) {
  Book b;
  EXPECT_EQ(b.book.patience(), 1s);
  auto pace = kDefaults;
  pace.initial_initiate_interval = 10ms;
  b.book.set_pace(pace, b.now, 0);
  EXPECT_EQ(b.book.patience(), 10ms);
  pace.initial_initiate_interval = 10s;
  b.book.set_pace(pace, b.now, 0);
  EXPECT_EQ(b.book.patience(), 2s);
  b.book.set_pace(kDefaults, b.now, 0);
  b.book.put_off(b.now + 1s);
  EXPECT_EQ(b.book.next_try(b.now), b.now + 1s);
}

TEST(RoundBook, RepeatedInitiatesAreKnown) {
  Book b;
  b.book.on_met(url("a"), b.now);
  b.book.on_told(url("a"), Timestamp{100}, b.now);
  EXPECT_TRUE(b.book.starts_over(url("a"), Timestamp{99}, b.now));
  EXPECT_FALSE(b.book.starts_over(url("a"), Timestamp{100}, b.now)) << "it goes on";
  EXPECT_FALSE(b.book.starts_over(url("b"), Timestamp{0}, b.now));
  EXPECT_FALSE(b.book.starts_over(url("a"), Timestamp{0}, b.now + 300s));
}

// -------------------------------------------------------------------- candidates

/// 20,000 peers cost 30 ms each time that the book was looked at.
TEST(RoundBook, AChoiceCostsWhatHasChangedAndNotWhatThereIs) {
  constexpr int kPeers = 20'000;
  RoundBook book;
  Time now(1h);
  book.set_pace(kDefaults, now, 0);
  book.on_own_url(now);
  for (int i = 0; i < kPeers; ++i) book.on_candidate(url("p" + std::to_string(i)), i % 2 == 0);
  const auto look = [](const Url& peer) {
    return RoundBook::Seen{RoundBook::Seen::usable, (peer.to_string().back() - '0') % 2 == 0};
  };
  std::uint64_t most = 0, chosen = 0;
  for (int i = 0; i < 2'000; ++i) {
    now = book.next_try(now);
    const auto before = book.work();
    const auto peer = book.choose(look, now, static_cast<std::uint32_t>(i) * 7'919, 0);
    if (peer) {
      ++chosen;
      book.on_attempt(*peer, now);
      if (i % 3 == 0) book.on_no_answer(*peer, now, false);
      if (i % 3 == 1) book.on_met(*peer, now);
      if (i % 5 == 0) book.on_publish_lost(*peer, now);
    }
    most = std::max(most, book.work() - before);
  }
  EXPECT_GT(chosen, 1'000U);
  EXPECT_LT(most, 20U);
}

TEST(RoundBook, AGonePeerIsForgottenAndOneThatCannotBeAskedNowIsTriedAgain) {
  RoundBook book;
  Time now(1h);
  book.set_pace(kDefaults, now, 0);
  book.on_own_url(now);
  for (const char* name : {"gone", "blocked"}) book.on_candidate(url(name), true);
  using Seen = RoundBook::Seen;
  auto other = Seen::not_now;
  const auto look = [&](const Url& peer) { return peer == url("gone") ? Seen{Seen::gone} : Seen{other, true}; };
  now = book.next_try(now);
  EXPECT_EQ(book.choose(look, now, 0, 0), std::nullopt);
  EXPECT_EQ(book.candidates(), 1U);
  other = Seen::usable;
  EXPECT_EQ(book.choose(look, now + 5s, 0, 0), std::nullopt);
  EXPECT_EQ(book.choose(look, now + RoundBook::kLookAgain, 0, 0), url("blocked"));
  EXPECT_EQ(book.choose({}, now + 10min, 0, 0), std::nullopt) << "nobody can be asked";
}

TEST(RoundBook, ThePropertiesSeenOfACandidateCountAndNotThoseItClaimed) {
  RoundBook book;
  Time now(1h);
  book.set_pace(kDefaults, now, 0);
  book.on_own_url(now);
  book.on_candidate(url("was"), true);
  book.on_candidate(url("is"), false);
  const auto look = [](const Url& peer) { return RoundBook::Seen{RoundBook::Seen::usable, peer == url("is")}; };
  now = book.next_try(now);
  EXPECT_EQ(book.choose(look, now, 0, 0), url("is"));
}

TEST(RoundBook, PeersAndWhatIsOwedAreBounded) {
  Book b;
  for (std::size_t i = 0; i < RoundBook::kMostPeers + 10; ++i) {
    b.now += 1ms;
    b.book.answer(url("p" + std::to_string(i)), true, b.now);
    b.book.on_broken(url("p" + std::to_string(i)), b.now);
  }
  EXPECT_LE(b.book.size(), RoundBook::kMostPeers);
  EXPECT_LE(b.book.owed(), RoundBook::kMostOwed);
  const auto newest = url("p" + std::to_string(RoundBook::kMostPeers + 9));
  for (int i = 0; i < 7; ++i) b.book.answer(newest, true, b.now);
  EXPECT_EQ(b.book.answer(newest, true, b.now), RoundBook::Answer::busy) << "the newest are kept";
}

}  // namespace
}  // namespace kitsune2::gossip
