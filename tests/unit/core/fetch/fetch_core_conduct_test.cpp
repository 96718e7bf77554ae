// A source that is replaced by another (R14), and one that sends bad ops (R15).
#include "unit/core/fetch/fetch_core_fixture.hpp"

namespace kitsune2 {
namespace {

using namespace fetch_core_test;

using FetchCoreConduct = CoreFixture;

// --- R14

TEST_F(FetchCoreConduct, PairsMoveToTheNewUrlAndAreAskedForThereAtOnce) {
  config_.max_ids_per_request = 4;
  core().add(ops(0, 10), source(1), now_);
  ASSERT_EQ(ask_all().size(), 2U);
  const FetchReplaced replaced = core().replace_source(source(1), source(2), now_);
  EXPECT_TRUE(replaced.known);
  EXPECT_EQ(replaced.moved.size(), 10U);
  EXPECT_EQ(core().pending_pairs(source(1)), 0U);
  EXPECT_EQ(core().pending_pairs(source(2)), 10U);
  EXPECT_EQ(core().counts().sources, 1U) << "the old one is forgotten";
  const auto requests = ask_all();
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0].source, source(2));
  EXPECT_EQ(requests[0].op_ids, (std::vector<OpId>{op(8), op(9), op(0), op(1)}))
      << "what was ready first, then what had been asked for";
}

TEST_F(FetchCoreConduct, RequestsThatWaitedAtTheOldUrlDoNotWaitAtTheNewOne) {
  core().add(ops(0, 3), source(1), now_);
  core().on_send_failed(core().next_request(now_)->id, now_);
  ASSERT_EQ(core().backing_off().size(), 1U);
  EXPECT_TRUE(ask_all().empty());
  core().replace_source(source(1), source(2), now_);
  EXPECT_TRUE(core().backing_off().empty());
  const auto requests = ask_all();
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_EQ(requests[0].op_ids, ops(0, 3));
}

TEST_F(FetchCoreConduct, APairThatIsAtTheNewUrlAlreadyIsMerged) {
  core().add(ops(0, 4), source(1), now_);
  core().add(ops(2, 4), source(2), now_);
  const FetchReplaced replaced = core().replace_source(source(1), source(2), now_);
  EXPECT_EQ(replaced.moved, ops(0, 2));
  EXPECT_EQ(core().pending_pairs(), 6U);
  EXPECT_EQ(core().pending_ops(), 6U);
}

TEST_F(FetchCoreConduct, AnOpWithManySourcesKeepsItsIndex) {
  for (std::size_t s = 0; s < 20; ++s) core().add(ops(0, 2), source(s), now_);
  core().replace_source(source(3), source(100), now_);
  core().replace_source(source(4), source(5), now_);
  core().check_invariants();
  EXPECT_TRUE(core().has(op(0), source(100)));
  EXPECT_FALSE(core().has(op(0), source(3)));
  EXPECT_EQ(core().pending_pairs(), 38U);
}

TEST_F(FetchCoreConduct, AnOpBeingStoredMovesWithoutBeingRequestedAgain) {
  core().add(ops(0, 2), source(1), now_);
  ask_all();
  respond(source(1), {op(0)});
  core().replace_source(source(1), source(2), now_);
  const auto requests = ask_all();
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_EQ(requests[0].op_ids, std::vector<OpId>{op(1)});
  EXPECT_TRUE(core().on_store_failed({{op(0)}}, now_).empty()) << "it has a source";
  pass(kDelay);
  EXPECT_TRUE(core().has(op(0), source(2)));
}

TEST_F(FetchCoreConduct, WhatTheHostRefusesOfASourceIsAskedOfTheOthers) {
  core().add(ops(0, 2), source(1), now_);
  ask_all();
  core().add(ops(0, 1), source(2), now_);
  respond(source(1), ops(0, 2));
  core().on_refused(ops(0, 3), source(1), now_);
  core().check_invariants();
  EXPECT_FALSE(core().is_pending(op(1))) << "it had no other source";
  EXPECT_FALSE(core().has(op(0), source(1)));
  const auto requests = ask_all();
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_EQ(requests[0].source, source(2));
  EXPECT_EQ(requests[0].op_ids, ops(0, 1));
  core().on_refused(ops(0, 1), source(2), now_);
  EXPECT_TRUE(core().has(op(0), source(2))) << "it has not come from there";
}

TEST_F(FetchCoreConduct, ARequestOfTheOldUrlThatIsBeingSentEndsWithoutAWord) {
  core().add(ops(0, 2), source(1), now_);
  const auto request = core().next_request(now_);
  core().replace_source(source(1), source(2), now_);
  EXPECT_FALSE(core().on_send_failed(request->id, now_));
  core().on_sent(request->id, now_);
  EXPECT_EQ(ask_all().size(), 1U);
}

TEST_F(FetchCoreConduct, NothingMovesBeyondTheBoundOfOnePeer) {
  config_.max_pending_per_peer = 5;
  core().add(ops(0, 3), source(1), now_);
  core().add(ops(3, 3), source(2), now_);
  const FetchReplaced replaced = core().replace_source(source(1), source(2), now_);
  EXPECT_EQ(replaced.refused, 3U);
  EXPECT_TRUE(replaced.moved.empty());
  EXPECT_EQ(core().pending_pairs(source(1)), 3U);
}

TEST_F(FetchCoreConduct, TheNewUrlStartsWithWhatIsKnownOfThePeer) {
  core().add(ops(0, 1000), source(1), now_);
  for (int i = 0; i < 4; ++i) {
    for (const auto& request : ask_all()) {
      core().on_response(source(1), request.op_ids, 1000 * request.op_ids.size(), now_);
      core().on_stored(request.op_ids, now_);
    }
  }
  core().add(ops(10'000, 2000), source(1), now_);
  core().replace_source(source(1), source(2), now_);
  const auto requests = ask_all();
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0].op_ids.size(), 512U);
  EXPECT_EQ(core().counts().known_bytes, 1'024'000U);
}

TEST_F(FetchCoreConduct, ToItselfNothingHappens) {
  core().add(ops(0, 3), source(1), now_);
  ask_all();
  EXPECT_FALSE(core().replace_source(source(1), source(1), now_).known);
  EXPECT_EQ(core().counts().requests, 1U);
}

// --- R15

TEST_F(FetchCoreConduct, ASourceThatSendsBadOpsBacksOff) {
  core().add(ops(0, 100), source(1), now_);
  ASSERT_EQ(ask_all().size(), 2U);
  EXPECT_FALSE(respond(source(1), ops(1000, 20)).put_aside) << "nobody asked for them";
  EXPECT_FALSE(respond(source(1), {}, FetchCore::kBadOps - 21).put_aside) << "not valid";
  EXPECT_TRUE(respond(source(1), {}, 1).put_aside);
  EXPECT_EQ(core().counts().requests, 0U);
  EXPECT_TRUE(ask_all().empty());
  ASSERT_EQ(core().backing_off().size(), 1U);
  EXPECT_EQ(core().backing_off()[0].second, now_ + kBackOff);
  pass(kBackOff);
  EXPECT_EQ(ask_all().size(), 1U) << "doubtful";
}

TEST_F(FetchCoreConduct, TheBackOffForBadOpsGrowsUntilTheSourceIsGivenUp) {
  core().add(ops(0, 100), source(1), now_);
  for (const int pause_s : {20, 40, 80, 160}) {
    ask_all();
    const FetchAnswer answer = respond(source(1), {}, FetchCore::kBadOps);
    EXPECT_TRUE(answer.put_aside);
    EXPECT_FALSE(answer.given_up);
    ASSERT_EQ(core().backing_off().size(), 1U);
    EXPECT_EQ(core().backing_off()[0].second, now_ + Duration(pause_s * 1'000'000));
    pass(Duration(pause_s * 1'000'000));
  }
  ask_all();
  const FetchAnswer answer = respond(source(1), {}, 1);
  ASSERT_TRUE(answer.given_up);
  EXPECT_EQ(answer.given_up->pairs, 100U);
  EXPECT_EQ(answer.given_up->orphaned.size(), 100U);
  EXPECT_EQ(core().pending_ops(), 0U);
}

TEST_F(FetchCoreConduct, MoreOfItWhileTheIntervalRunsIsOneEvent) {
  core().add(ops(0, 100), source(1), now_);
  ask_all();
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(respond(source(1), {}, FetchCore::kBadOps).put_aside);
  ASSERT_EQ(core().backing_off().size(), 1U);
  EXPECT_EQ(core().backing_off()[0].second, now_ + kBackOff);
  pass(kBackOff);
  EXPECT_EQ(ask_all().size(), 1U);
}

TEST_F(FetchCoreConduct, AnIntervalThatHasPassedUnseenIsOver) {
  core().add(ops(0, 100), source(1), now_);
  ask_all();
  respond(source(1), {}, FetchCore::kBadOps);
  now_ += kBackOff;  // without a poll
  EXPECT_TRUE(respond(source(1), {}, 1).put_aside);
  ASSERT_EQ(core().backing_off().size(), 1U);
  EXPECT_EQ(core().backing_off()[0].second, now_ + 2 * kBackOff);
}

TEST_F(FetchCoreConduct, GoodOpsClearIt) {
  core().add(ops(0, 1000), source(1), now_);
  ask_all();
  respond(source(1), {}, FetchCore::kBadOps);
  pass(kBackOff);
  const auto requests = ask_all();
  ASSERT_EQ(requests.size(), 1U);
  ASSERT_EQ(requests[0].op_ids.size(), FetchCore::kForgiveOps);
  EXPECT_FALSE(respond(source(1), requests[0].op_ids).put_aside);
  const auto more = ask_all();
  ASSERT_EQ(more.size(), 2U) << "not doubtful any more";
  ASSERT_EQ(more[0].op_ids.size(), 4 * FetchCore::kForgiveOps);
  EXPECT_FALSE(respond(source(1), more[0].op_ids).put_aside);
  // Five points are taken back.
  EXPECT_FALSE(respond(source(1), {}, 4).put_aside);
  EXPECT_TRUE(respond(source(1), {}, 1).put_aside);
}

TEST_F(FetchCoreConduct, AFewBadOpsAmongManyGoodOnesAreBorneForEver) {
  core().add(ops(0, 20'000), source(1), now_);
  std::uint64_t good = 0;
  while (core().pending_ops() > 0) {
    for (const auto& request : ask_all()) {
      ASSERT_FALSE(respond(source(1), request.op_ids, request.op_ids.size() / 20).put_aside);
      core().on_stored(request.op_ids, now_);
      good += request.op_ids.size();
    }
  }
  EXPECT_EQ(good, 20'000U);
}

TEST_F(FetchCoreConduct, AStrangerIsPutAsideWithoutWaitingForAnything) {
  EXPECT_FALSE(respond(source(1), ops(0, FetchCore::kBadOps - 1)).put_aside);
  EXPECT_TRUE(respond(source(1), ops(0, 1)).put_aside);
  EXPECT_TRUE(respond(source(1), ops(0, 1)).put_aside);
  EXPECT_TRUE(core().backing_off().empty());
  EXPECT_FALSE(core().next_deadline());
}

TEST_F(FetchCoreConduct, StrangersAreForgotten) {
  for (std::size_t i = 0; i < 3 * FetchCore::kSourcesRemembered; ++i) respond(source(i), ops(0, 1));
  EXPECT_EQ(core().counts().sources, FetchCore::kSourcesRemembered);
}

TEST_F(FetchCoreConduct, WhereUnsolicitedOpsAreTakenTheyAreNotBad) {
  config_.accept_unsolicited = true;
  core().add(ops(0, 10), source(1), now_);
  ask_all();
  const FetchAnswer answer = respond(source(1), ops(1000, 100));
  EXPECT_EQ(answer.verdicts, std::vector<FetchVerdict>(100, FetchVerdict::unasked));
  EXPECT_FALSE(answer.put_aside);
  EXPECT_TRUE(respond(source(1), {}, FetchCore::kBadOps).put_aside) << "invalid ones are";
}

// The honest ways in which an op arrives that is no longer needed.

TEST_F(FetchCoreConduct, AnAnswerAfterItIsOverdueAndStoredIsNotBad) {
  core().add(ops(0, 64), source(1), now_);
  core().add(ops(0, 64), source(2), now_);
  const auto first = ask_all();  // 16 ids each, four times
  ASSERT_EQ(first.size(), 4U);
  pass(kDelay);  // both are overdue, so each goes to the other
  std::size_t late = 0;
  for (const auto& request : ask_all()) {
    core().on_response(request.source, request.op_ids, 64, now_);
    core().on_stored(request.op_ids, now_);
  }
  for (const auto& request : first) {
    const FetchAnswer answer = respond(request.source, request.op_ids);
    EXPECT_FALSE(answer.put_aside);
    for (const auto verdict : answer.verdicts) {
      EXPECT_NE(verdict, FetchVerdict::unasked);
      late += verdict == FetchVerdict::not_pending ? 1 : 0;
    }
  }
  EXPECT_GT(late, 0U);
}

TEST_F(FetchCoreConduct, TwoAnswersToTwoAsksAreNotBadAThirdIs) {
  core().add(ops(0, 16), source(1), now_);
  ASSERT_EQ(ask_all().size(), 1U);
  pass(kDelay);
  const auto again = ask_all();
  ASSERT_EQ(again.size(), 1U);
  const auto& ids = again[0].op_ids;
  EXPECT_EQ(respond(source(1), ids).verdicts, std::vector<FetchVerdict>(ids.size(), FetchVerdict::wanted));
  core().on_stored(ids, now_);
  EXPECT_EQ(respond(source(1), ids).verdicts, std::vector<FetchVerdict>(ids.size(), FetchVerdict::not_pending));
  EXPECT_EQ(respond(source(1), ids).verdicts, std::vector<FetchVerdict>(ids.size(), FetchVerdict::unasked));
}

TEST_F(FetchCoreConduct, ASecondCopyWhileTheFirstIsBeingStoredIsNotBadIfItWasAskedFor) {
  core().add(ops(0, 16), source(1), now_);
  ask_all();
  pass(kDelay);
  ask_all();
  respond(source(1), ops(0, 16));
  EXPECT_EQ(respond(source(1), ops(0, 1)).verdicts, std::vector<FetchVerdict>{FetchVerdict::duplicate});
  for (std::size_t i = 0; i + 1 < FetchCore::kBadOps; ++i) {
    EXPECT_FALSE(respond(source(2), ops(0, 1)).put_aside);
  }
  EXPECT_TRUE(respond(source(2), ops(0, 1)).put_aside) << "that one was never asked";
}

TEST_F(FetchCoreConduct, AnAnswerAfterTheOpCameOtherwiseIsNotBad) {
  core().add(ops(0, 32), source(1), now_);
  ask_all();
  core().on_stored(ops(0, 32), now_);  // by the application, for example
  EXPECT_EQ(core().pending_ops(), 0U);
  EXPECT_TRUE(core().owes(source(1)));
  EXPECT_EQ(respond(source(1), ops(0, 32)).verdicts, std::vector<FetchVerdict>(32, FetchVerdict::not_pending));
  EXPECT_FALSE(core().owes(source(1)));
  EXPECT_EQ(respond(source(1), ops(0, 1)).verdicts, std::vector<FetchVerdict>(1, FetchVerdict::unasked));
}

TEST_F(FetchCoreConduct, AnAnswerAfterTheSourceWasRemovedOrReplacedIsNotBad) {
  core().add(ops(0, 32), source(1), now_);
  core().add(ops(100, 32), source(2), now_);
  ASSERT_EQ(ask_all().size(), 4U);
  core().remove_source(source(1), now_);
  core().replace_source(source(2), source(3), now_);
  core().on_stored(ops(100, 32), now_);
  EXPECT_EQ(respond(source(1), ops(0, 32)).verdicts, std::vector<FetchVerdict>(32, FetchVerdict::not_pending));
  EXPECT_EQ(respond(source(3), ops(100, 32)).verdicts, std::vector<FetchVerdict>(32, FetchVerdict::not_pending))
      << "the peer knows our url and answers from its new one";
  EXPECT_EQ(respond(source(2), ops(100, 32)).verdicts, std::vector<FetchVerdict>(32, FetchVerdict::not_pending));
  EXPECT_TRUE(respond(source(1), ops(0, 32)).put_aside) << "once is enough";
}

TEST_F(FetchCoreConduct, OfThoseThatWentOwingTheOnesThatWentFirstAreForgotten) {
  constexpr std::size_t kKnown = FetchCore::kSourcesRemembered;
  const auto goes_owing = [&](std::size_t i) {
    core().add(ops(i, 1), source(i), now_);
    ask_all();
    core().remove_source(source(i), now_);
  };
  for (std::size_t i = 0; i < kKnown; ++i) goes_owing(i);
  goes_owing(0);  // it has returned meanwhile, so now it is the last
  for (std::size_t i = 0; i < kKnown; ++i) ASSERT_TRUE(core().owes(source(i))) << i;
  for (std::size_t i = kKnown; i < kKnown + 10; ++i) goes_owing(i);
  EXPECT_TRUE(core().owes(source(0)));
  for (std::size_t i = 1; i <= 10; ++i) EXPECT_FALSE(core().owes(source(i))) << i;
  for (std::size_t i = 11; i < kKnown + 10; ++i) EXPECT_TRUE(core().owes(source(i))) << i;
}

TEST_F(FetchCoreConduct, OwedOpsBeyondTheMemoryOfHashesAreCountedOnly) {
  core().add(ops(0, FetchCore::kLateOps + 1000), source(1), now_);
  while (const auto request = core().next_request(now_)) {
    core().on_sent(request->id, now_);
    core().on_stored(request->op_ids, now_);
  }
  ASSERT_EQ(core().pending_ops(), 0U);
  for (std::size_t i = 0; i < FetchCore::kLateOps + 1000; i += 1000) {
    const auto count = std::min<std::size_t>(1000, FetchCore::kLateOps + 1000 - i);
    ASSERT_EQ(core().on_response(source(1), ops(i, count), 1, now_).verdicts,
              std::vector<FetchVerdict>(count, FetchVerdict::not_pending));
  }
  EXPECT_FALSE(core().owes(source(1)));
}

TEST_F(FetchCoreConduct, AnswersInTheChosenOrderShowWhatWasRead) {
  core().add(ops(0, 1000), source(0), now_);
  std::uint64_t mark = 0, shown = 0;
  const auto ask = [&] {
    auto request = core().next_request(now_);
    const OpId second = request->op_ids[1];
    core().mark(*request, ++mark, request->op_ids.size() + 1);
    EXPECT_EQ(request->op_ids[0], second) << "number 1, modulo their number, comes first";
    core().on_sent(request->id, now_);
    core().check_invariants();
    return *request;
  };
  // 5 bits of 32 ids, 7 of 128.
  EXPECT_EQ(respond(source(0), ask().op_ids).read_mark, 0U);
  EXPECT_EQ(respond(source(0), ask().op_ids).read_mark, 0U);
  EXPECT_EQ(respond(source(0), ask().op_ids).read_mark, 3U) << "19 bits";
  EXPECT_EQ(respond(source(0), ask().op_ids).read_mark, 0U) << "it begins anew";
  // Who guesses that the order is that of the ops shows nothing, and what it had shown is void.
  auto request = ask();
  std::swap(request.op_ids[0], request.op_ids[1]);
  EXPECT_EQ(respond(source(0), request.op_ids).read_mark, 0U);
  EXPECT_EQ(respond(source(0), ask().op_ids).read_mark, 0U);
  // Only the first op of an answer counts, not each that comes first in a message.
  request = ask();
  std::swap(request.op_ids[0], request.op_ids[1]);
  for (const OpId& id : request.op_ids) shown += respond(source(0), {id}).read_mark;
  EXPECT_EQ(shown, 0U);
}

TEST_F(FetchCoreConduct, AnOrderShowsNothingOfAnotherConnection) {
  core().add(ops(0, 1000), source(0), now_);
  const auto ask_and_answer = [&] {
    auto request = core().next_request(now_);
    core().mark(*request, request->id, 9);
    core().on_sent(request->id, now_);
    return respond(source(0), request->op_ids).read_mark;
  };
  EXPECT_EQ(ask_and_answer(), 0U);
  EXPECT_EQ(ask_and_answer(), 0U);
  core().on_disconnect(source(0), now_);
  EXPECT_EQ(ask_and_answer(), 0U);
}

}  // namespace
}  // namespace kitsune2
