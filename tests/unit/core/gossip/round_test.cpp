// The rules of gossip::Rounds, by their letters, and of bookmarks.
#include "core/gossip/round.hpp"

#include <gtest/gtest.h>

#include <string>

#include "unit/core/named.hpp"

namespace kitsune2::gossip {
namespace {

using namespace std::chrono_literals;

using tests::url;
Bytes session(const char* text) { return Bytes::copy_of(text); }
using tests::agent;
SectorSet full() {
  SectorSet out;
  out.add(DhtArc::full());
  return out;
}

struct RoundsTest : ::testing::Test {
  Rounds rounds;
  Time now{1h};
  OurSide us{{agent("me")}, full()};
  Timestamp wall = Timestamp::from_seconds(1'700'000'000);
  dht::DhtModel model{wall};

  void start(const char* peer, const char* id, std::uint32_t tie = 5) {
    rounds.start(url(peer), session(id), us, {tie, Timestamp{7}}, now);
  }
  void accept(const char* peer, const char* id) {
    rounds.accept(url(peer), {session(id), 1}, us, full(), now);
    ASSERT_NE(rounds.accepted(url(peer), session(id), Timestamp{9}), nullptr);
  }
  template <class Said>
  bool is_fault(const char* peer, const Said& said) {
    return std::holds_alternative<Fault>(on(peer, said));
  }
  template <class Said>
  Action on(const char* peer, const Said& said) {
    if constexpr (requires { rounds.on(url(peer), said, &model); }) {
      return rounds.on(url(peer), said, &model);
    } else if constexpr (requires { rounds.on(url(peer), said, &model, 0U); }) {
      return rounds.on(url(peer), said, &model, 0U);
    } else {
      return rounds.on(url(peer), said);
    }
  }
  AcceptSaid accept_said(const char* id) { return {session(id), full(), {}, {}}; }
};

TEST_F(RoundsTest, ARoundOfOursGoesToItsEnd) {
  start("a", "one");
  const auto action = on("a", accept_said("one"));
  const auto* answer = std::get_if<AnswerAccept>(&action);
  ASSERT_NE(answer, nullptr);
  EXPECT_EQ(answer->asked_since, Timestamp{7});
  EXPECT_EQ(answer->common, full());
  EXPECT_TRUE(is_fault("a", accept_said("one"))) << "only once";
  EXPECT_TRUE(std::holds_alternative<Completed>(rounds.on(url("a"), AgentsSaid{session("one")})));
  EXPECT_EQ(rounds.ours(), 0U);
}

TEST_F(RoundsTest, ARoundOfTheirsGoesToItsEnd) {
  EXPECT_TRUE(std::holds_alternative<MayAccept>(rounds.on(url("a"), InitiateSaid{session("x"), 1}, 10, now)));
  accept("a", "x");
  const auto action = rounds.on(url("a"), NoDiffSaid{session("x"), {agent("me").bytes()}});
  const auto* finish = std::get_if<Finish>(&action);
  ASSERT_NE(finish, nullptr);
  EXPECT_EQ(finish->asked_since, Timestamp{9});
  EXPECT_EQ(rounds.theirs(), 0U);
}

TEST_F(RoundsTest, AMessageFitsItsPeerItsSessionAndItsStageOnly) {
  start("a", "one");
  EXPECT_TRUE(is_fault("b", accept_said("one")));
  EXPECT_TRUE(is_fault("a", accept_said("two")));
  EXPECT_TRUE(is_fault("a", AgentsSaid{session("one")}));
  EXPECT_TRUE(is_fault("a", NoDiffSaid{session("one"), {}}));
  EXPECT_TRUE(is_fault("b", TerminateSaid{session("one")}));
  EXPECT_TRUE(is_fault("b", HashesSaid{session("one")}));
  EXPECT_TRUE(is_fault("a", HashesSaid{session("one")}));
  EXPECT_TRUE(is_fault("a", DiscSectorsSaid{session("one"), {}, {}}));
  EXPECT_TRUE(is_fault("a", DiscDetailsSaid{session("one"), {}}));
  EXPECT_TRUE(is_fault("a", DiscDetailsResponseSaid{session("one"), {}}));
  EXPECT_TRUE(is_fault("a", RingDetailsSaid{session("one"), {}, {}}));
  EXPECT_TRUE(is_fault("a", RingDetailsResponseSaid{session("one"), {}}));
  EXPECT_EQ(rounds.ours(), 1U);
  rounds.accept(url("c"), {session("x"), 1}, us, full(), now);
  EXPECT_TRUE(is_fault("c", NoDiffSaid{session("x"), {}})) << "our ACCEPT has not left yet";
  EXPECT_TRUE(is_fault("c", BusySaid{session("x")}));
  EXPECT_EQ(rounds.theirs(), 1U);
}

TEST_F(RoundsTest, BusyFitsThePeerTheSessionAndTheStageOfARoundOfOurs) {
  EXPECT_TRUE(is_fault("a", BusySaid{session("one")})) << "of no round";
  start("a", "one");
  EXPECT_TRUE(is_fault("b", BusySaid{session("one")}));
  EXPECT_TRUE(is_fault("a", BusySaid{session("two")}));
  EXPECT_EQ(rounds.ours(), 1U);
}

TEST_F(RoundsTest, AgentsFitThePeerTheSessionAndTheStageOfARoundOfOurs) {
  EXPECT_TRUE(is_fault("a", AgentsSaid{session("one")})) << "of no round";
  start("a", "one");
  EXPECT_TRUE(is_fault("a", AgentsSaid{session("one")})) << "before ACCEPT";
  on("a", accept_said("one"));
  EXPECT_TRUE(is_fault("b", AgentsSaid{session("one")}));
  EXPECT_TRUE(is_fault("a", AgentsSaid{session("two")}));
  EXPECT_EQ(rounds.ours(), 1U);
  EXPECT_TRUE(std::holds_alternative<Completed>(on("a", AgentsSaid{session("one")})));
}

TEST_F(RoundsTest, TerminateFitsThePeerAndTheSession) {
  EXPECT_TRUE(is_fault("a", TerminateSaid{session("one")})) << "of no round";
  start("a", "one");
  accept("b", "x");
  EXPECT_TRUE(is_fault("b", TerminateSaid{session("one")}));
  EXPECT_TRUE(is_fault("a", TerminateSaid{session("x")}));
  EXPECT_TRUE(is_fault("b", TerminateSaid{session("y")}));
  EXPECT_EQ(rounds.ours() + rounds.theirs(), 2U);
}

TEST_F(RoundsTest, TheLargerTieBreakerCounts) {
  start("a", "one", 5);
  EXPECT_TRUE(std::holds_alternative<Nothing>(rounds.on(url("a"), InitiateSaid{session("x"), 4}, 10, now)));
  EXPECT_EQ(rounds.ours(), 1U);
  const auto lost = rounds.on(url("a"), InitiateSaid{session("x"), 6}, 10, now);
  ASSERT_TRUE(std::holds_alternative<MayAccept>(lost));
  EXPECT_TRUE(std::get<MayAccept>(lost).tie_lost);
  EXPECT_EQ(rounds.ours(), 0U);
  start("a", "two", 5);
  EXPECT_TRUE(std::holds_alternative<MayAccept>(rounds.on(url("a"), InitiateSaid{session("y"), 5}, 10, now)))
      << "with the same number both give up their own";
}

TEST_F(RoundsTest, AnInitiateThatAStockNodeDoesNotAnswerWasLost) {
  start("a", "one", 5);
  now += Rounds::kCrossing - Duration(1);
  EXPECT_TRUE(std::holds_alternative<Nothing>(rounds.on(url("a"), InitiateSaid{session("x"), 4}, 10, now)));
  now += Duration(1);
  EXPECT_TRUE(std::holds_alternative<Nothing>(rounds.on(url("a"), InitiateSaid{session("x"), 4, true}, 10, now)))
      << "one of ours answers, so its answer is on the way";
  const auto taken = rounds.on(url("a"), InitiateSaid{session("x"), 4}, 10, now);
  ASSERT_TRUE(std::holds_alternative<MayAccept>(taken));
  EXPECT_TRUE(std::get<MayAccept>(taken).tie_lost);
  EXPECT_EQ(rounds.ours(), 0U);
}

TEST_F(RoundsTest, InitiateDuringARoundIsAFaultAndMoreThanAllowedAreBusy) {
  start("a", "one");
  on("a", accept_said("one"));
  EXPECT_TRUE(std::holds_alternative<Fault>(rounds.on(url("a"), InitiateSaid{session("x"), 9}, 10, now)));
  accept("b", "x");
  const auto during = rounds.on(url("b"), InitiateSaid{session("y"), 9}, 10, now);
  ASSERT_TRUE(std::holds_alternative<Fault>(during));
  EXPECT_TRUE(std::get<Fault>(during).say_busy);
  const auto repeated = rounds.on(url("b"), InitiateSaid{session("x"), 1}, 10, now);
  ASSERT_TRUE(std::holds_alternative<Fault>(repeated));
  EXPECT_FALSE(std::get<Fault>(repeated).say_busy) << "it would end the round";
  EXPECT_TRUE(std::holds_alternative<SayBusy>(rounds.on(url("c"), InitiateSaid{session("y"), 9}, 1, now)));
  EXPECT_TRUE(std::holds_alternative<MayAccept>(rounds.on(url("c"), InitiateSaid{session("y"), 9}, 0, now)))
      << "no limit";
  const Bytes longest = Bytes(std::string(65, 's'));
  EXPECT_TRUE(std::holds_alternative<Fault>(rounds.on(url("c"), InitiateSaid{longest, 9}, 0, now)));
}

TEST_F(RoundsTest, ForAKnownPeerTheOldestRoundOfANewcomerGivesWay) {
  for (const char* peer : {"b", "a"}) {
    rounds.accept(url(peer), {session("x"), 1}, us, full(), now);
    now += 1s;
  }
  rounds.accept(url("known"), {session("x"), 1}, us, full(), Time(1min)).is_known = true;
  EXPECT_TRUE(std::holds_alternative<SayBusy>(rounds.on(url("stranger"), InitiateSaid{session("y"), 9}, 3, now)));
  for (const char* newcomer : {"b", "a"}) {
    const auto action = rounds.on(url("friend"), InitiateSaid{session("y"), 9}, 3, now, true);
    ASSERT_TRUE(std::holds_alternative<MayAccept>(action));
    EXPECT_TRUE(std::get<MayAccept>(action).needs_room);
    EXPECT_EQ(rounds.theirs(), 3U) << "until it is taken";
    EXPECT_EQ(rounds.end_oldest_of_newcomers()->peer, url(newcomer));
    rounds.accept(url(newcomer) == url("b") ? url("friend1") : url("friend2"), {session("y"), 9}, us, full(), now)
        .is_known = true;
  }
  EXPECT_TRUE(std::holds_alternative<SayBusy>(rounds.on(url("friend"), InitiateSaid{session("y"), 9}, 3, now, true)))
      << "known peers do not push each other out";
}

TEST_F(RoundsTest, AgentsThatWereNotDeclaredEndTheRound) {
  start("a", "one");
  EXPECT_TRUE(is_fault("a", AcceptSaid{session("one"), full(), {agent("other").bytes()}, {}}));
  EXPECT_EQ(rounds.ours(), 0U);
  accept("b", "x");
  EXPECT_TRUE(is_fault("b", NoDiffSaid{session("x"), {agent("me").bytes(), agent("other").bytes()}}));
  EXPECT_EQ(rounds.theirs(), 0U);
}

TEST_F(RoundsTest, TerminateIsTheNormalEndOnlyAfterOurAnswer) {
  start("a", "one");
  EXPECT_TRUE(std::holds_alternative<Ended>(rounds.on(url("a"), TerminateSaid{session("one")})));
  start("a", "two");
  on("a", accept_said("two"));
  EXPECT_TRUE(std::holds_alternative<Completed>(rounds.on(url("a"), TerminateSaid{session("two")})));
  accept("b", "x");
  EXPECT_TRUE(std::holds_alternative<Ended>(rounds.on(url("b"), TerminateSaid{session("x")})));
  EXPECT_EQ(rounds.ours() + rounds.theirs(), 0U);
}

TEST_F(RoundsTest, BusyEndsARoundThatHasNotBegun) {
  start("a", "one");
  EXPECT_TRUE(std::holds_alternative<WasBusy>(rounds.on(url("a"), BusySaid{session("one")})));
  EXPECT_EQ(rounds.ours(), 0U);
}

TEST_F(RoundsTest, ARoundThatTakesTooLongOrLosesItsConnectionIsOver) {
  start("a", "one");
  now += 10s;
  accept("b", "x");
  EXPECT_EQ(rounds.oldest(), Time(1h));
  EXPECT_EQ(rounds.latest_of_ours(), Time(1h));
  EXPECT_EQ(rounds.end_begun_before(Time(1h) - 1us).size(), 0U);
  const auto late = rounds.end_begun_before(Time(1h));
  ASSERT_EQ(late.size(), 1U);
  EXPECT_EQ(late[0].peer, url("a"));
  EXPECT_EQ(rounds.accepted(url("a"), session("one"), {}), nullptr);
  EXPECT_TRUE(rounds.has_any_with(url("b")));
  EXPECT_EQ(rounds.end_all_with(url("b")).size(), 1U);
  EXPECT_FALSE(rounds.end(url("b"), session("x")));
  EXPECT_FALSE(rounds.oldest());
}

// -------------------------------------------------------------------- bookmarks

SectorSet half() {
  SectorSet out;
  out.add({0, 0x7fffffff});
  return out;
}

TEST(Bookmark, MovesOnWithWhatWasNamedAndNeverBack) {
  const Timestamp now = Timestamp::from_seconds(1'000'000);
  EXPECT_EQ(moved({}, {Timestamp{0}, Timestamp{50}, full()}, true, now, 3min), (Bookmark{Timestamp{50}, full()}));
  const Bookmark known{Timestamp{50}, full()};
  EXPECT_FALSE(moved(known, {Timestamp{50}, Timestamp{40}, full()}, true, now, 3min));
  EXPECT_FALSE(moved(known, {Timestamp{60}, Timestamp{70}, full()}, true, now, 3min)) << "50 to 60 was not named";
  EXPECT_EQ(moved(known, {Timestamp{50}, Timestamp{70}, half()}, true, now, 3min), (Bookmark{Timestamp{70}, half()}));
  EXPECT_EQ(moved(known, {Timestamp{50}, Timestamp{50}, half()}, true, now, 3min), known) << "nothing was stored";
}

TEST(Bookmark, OfTheFutureIsFollowedAsLongAsItLeadsToOps) {
  const Timestamp now = Timestamp::from_seconds(1'000'000), later = now + 5h;
  const Named named{Timestamp{0}, later, full()};
  EXPECT_EQ(moved({}, named, true, now, 3min)->at, later);
  EXPECT_EQ(moved(Bookmark{later, full()}, {later, later, full()}, false, now, 3min)->at, now - 3min);
  EXPECT_EQ(moved(Bookmark{later, full()}, {later, now, full()}, true, now, 3min)->at, now);
}

TEST(Bookmark, HoldsForNoMoreThanWasCommon) {
  const Bookmark bookmark{Timestamp{5}, half()};
  EXPECT_TRUE(bookmark.holds_for(half()));
  EXPECT_FALSE(bookmark.holds_for(full()));
}

TEST(Bookmark, WithoutOneAllIsAskedForOrWhatIsRecentAndAComparisonFindsTheRest) {
  const Timestamp now = Timestamp::from_seconds(1'000'000);
  EXPECT_EQ(since(Bookmark{Timestamp{5}, full()}, true, now), Timestamp{5});
  EXPECT_EQ(since({}, false, now), Timestamp{0});
  EXPECT_EQ(since({}, true, now), now - 30min);
  EXPECT_EQ(since({}, true, Timestamp::from_seconds(60)), Timestamp{0}) << "nothing is from before 1970";
  const Named named{now - 30min, now, half()};
  EXPECT_FALSE(moved({}, named, true, now, 3min)) << "what was stored before was neither named nor compared";
  Named compared = named;
  compared.is_compared = true;
  EXPECT_EQ(moved({}, compared, true, now, 3min), (Bookmark{now, half()}));
}

}  // namespace
}  // namespace kitsune2::gossip
