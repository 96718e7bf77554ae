// Bounds, sizes of requests, the choice of sources, and the fetch core's reports about itself.
#include <map>
#include <set>

#include "unit/core/fetch/fetch_core_fixture.hpp"

namespace kitsune2 {
namespace {

using namespace fetch_core_test;

class FetchCoreTest : public CoreFixture {
 protected:
  /// Answers everything until nothing is pending. Returns the sizes of the requests to `from`.
  std::vector<std::size_t> fetch_all(const Url& from, std::uint64_t op_size) {
    std::vector<std::size_t> sizes;
    while (true) {
      const auto requests = ask_all();
      if (requests.empty()) return sizes;
      for (const auto& request : requests) {
        if (request.source == from) sizes.push_back(request.op_ids.size());
        answer(request, op_size);
      }
    }
  }
};

TEST_F(FetchCoreTest, NothingToDo) {
  EXPECT_FALSE(core().next_request(now_));
  EXPECT_FALSE(core().next_deadline());
  EXPECT_EQ(core().pending_ops(), 0U);
  EXPECT_FALSE(core().is_pending(op(1)));
  EXPECT_FALSE(core().has(op(1), source(1)));
  EXPECT_EQ(core().on_stored(ops(0, 3), now_), 0U);
  EXPECT_TRUE(core().on_store_failed(ops(0, 3), now_).empty());
  EXPECT_FALSE(core().remove_source(source(1), now_));
  EXPECT_FALSE(core().on_send_failed(1, now_));
  core().on_sent(1, now_);
  core().on_progress(source(1), 1, now_);
  EXPECT_FALSE(core().replace_source(source(1), source(2), now_).known);
  EXPECT_FALSE(core().owes(source(1)));
  EXPECT_EQ(core().add({}, source(1), now_).added, 0U);
  EXPECT_EQ(core().counts(), FetchCounts());
  EXPECT_EQ(core().on_response(source(1), ops(0, 1), 5, now_).verdicts,
            std::vector<FetchVerdict>{FetchVerdict::unasked});
  EXPECT_EQ(core().counts().sources, 1U) << "it is remembered for this";
}

TEST_F(FetchCoreTest, APairIsKeptOnce) {
  std::vector<OpId> twice = ops(0, 2);
  twice.push_back(op(0));
  const FetchAdded first = core().add(twice, source(0), now_);
  EXPECT_EQ(first.added, 2U);
  EXPECT_EQ(first.known, 1U);
  const FetchAdded second = core().add(ops(1, 2), source(0), now_);
  EXPECT_EQ(second.added, 1U);
  EXPECT_EQ(second.known, 1U);
  EXPECT_EQ(core().add(ops(0, 1), source(1), now_).added, 1U);
  EXPECT_EQ(core().pending_ops(), 3U);
  EXPECT_EQ(core().pending_pairs(), 4U);
  EXPECT_TRUE(core().has(op(0), source(1)));
  EXPECT_FALSE(core().has(op(1), source(1)));
}

TEST_F(FetchCoreTest, BeyondTheBoundNothingIsAdded) {
  config_.max_pending = 10;
  config_.max_pending_per_peer = 6;
  EXPECT_EQ(core().add(ops(0, 6), source(0), now_).added, 6U);
  const FetchAdded over = core().add(ops(5, 2), source(0), now_);
  EXPECT_EQ(over.added, 0U);
  EXPECT_EQ(over.known, 1U);
  EXPECT_EQ(over.refused, 1U);
  // Exactly full is allowed, even with known and repeated ids in the list.
  std::vector<OpId> list = ops(0, 4);
  list.push_back(op(0));
  const FetchAdded exact = core().add(list, source(1), now_);
  EXPECT_EQ(exact.added, 4U);
  EXPECT_EQ(exact.known, 1U);
  EXPECT_EQ(core().add(ops(0, 6), source(0), now_).known, 6U);
  EXPECT_EQ(core().add(ops(9, 1), source(2), now_).refused, 1U);
  EXPECT_EQ(core().counts().sources, 2U);
  core().on_stored(ops(0, 1), now_);
  EXPECT_EQ(core().add(ops(9, 1), source(2), now_).added, 1U);
}

TEST_F(FetchCoreTest, ARequestTakesWhatBecameReadyFirst) {
  core().add(ops(5, 3), source(0), now_);
  core().add(ops(0, 3), source(0), now_);
  const auto requests = ask_all();
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_EQ(requests[0].op_ids, (std::vector<OpId>{op(5), op(6), op(7), op(0), op(1), op(2)}));
  EXPECT_EQ(requests[0].id, 1U);
}

TEST_F(FetchCoreTest, ParallelRequestsToOnePeerAreLimited) {
  config_.parallel_request_count = 3;
  config_.max_ids_per_request = 10;
  core().add(ops(0, 100), source(0), now_);
  core().add(ops(100, 100), source(1), now_);
  const auto first = ask_all();
  EXPECT_EQ(first.size(), 6U);
  answer(first[0]);
  const auto second = ask_all();
  ASSERT_EQ(second.size(), 1U);
  EXPECT_EQ(second[0].source, first[0].source);
}

TEST_F(FetchCoreTest, SourcesTakeTurns) {
  config_.max_ids_per_request = 1;
  for (std::size_t s = 0; s < 3; ++s) core().add(ops(100 * s, 10), source(s), now_);
  std::vector<Url> order;
  for (const auto& request : ask_all()) order.push_back(request.source);
  EXPECT_EQ(order, (std::vector<Url>{source(0), source(1), source(2), source(0), source(1), source(2)}));
  // A source that is added later does not queue behind those that were asked already.
  core().add(ops(900, 1), source(9), now_);
  EXPECT_EQ(ask_all().at(0).source, source(9));
}

TEST_F(FetchCoreTest, RequestsGrowWithAnswers) {
  core().add(ops(0, 5000), source(0), now_);
  const auto sizes = fetch_all(source(0), 100);
  ASSERT_GE(sizes.size(), 8U);
  EXPECT_EQ(sizes[0], 32U);
  EXPECT_EQ(sizes[1], 32U);
  EXPECT_EQ(sizes[2], 128U);
  EXPECT_EQ(sizes[4], 512U);
  EXPECT_EQ(*std::max_element(sizes.begin(), sizes.end()), 512U);
  EXPECT_TRUE(std::is_sorted(sizes.begin(), sizes.begin() + 8));
}

TEST_F(FetchCoreTest, AfterASilenceTheyGrowSlowly) {
  core().add(ops(0, 5000), source(0), now_);
  ask_all();
  now_ += kDelay;  // both requests of 32 ids get no answer: 16, 8
  const auto requests = ask_all();
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_EQ(requests[0].op_ids.size(), 8U);
  answer(requests[0]);
  const auto sizes = fetch_all(source(0), 100);
  EXPECT_EQ(sizes[0], 16U);
  EXPECT_EQ(sizes[1], 16U);
  EXPECT_EQ(sizes[2], 32U);
  EXPECT_EQ(sizes[4], 64U);
}

TEST_F(FetchCoreTest, LargeOpsMakeSmallRequests) {
  core().add(ops(0, 200), source(0), now_);
  const auto sizes = fetch_all(source(0), 1U << 20U);
  ASSERT_GT(sizes.size(), 4U);
  EXPECT_EQ(sizes[0], 32U);
  for (std::size_t i = 2; i < sizes.size(); ++i) EXPECT_LE(sizes[i], 4U);
}

TEST_F(FetchCoreTest, OpsLargerThanTheTargetAreAskedOneByOne) {
  core().add(ops(0, 100), source(0), now_);
  const auto sizes = fetch_all(source(0), 100U << 20U);
  for (std::size_t i = 2; i < sizes.size(); ++i) EXPECT_EQ(sizes[i], 1U);
}

TEST_F(FetchCoreTest, TheSameOpsOfEightSourcesAreSharedAndAskedOnce) {
  for (std::size_t s = 0; s < 8; ++s) core().add(ops(0, 1000), source(s), now_);
  std::map<OpId, int> times;
  std::map<Url, std::size_t> share;
  while (true) {
    const auto requests = ask_all();
    if (requests.empty()) break;
    for (const auto& request : requests) {
      share[request.source] += request.op_ids.size();
      for (const OpId& id : request.op_ids) ++times[id];
      answer(request);
    }
  }
  EXPECT_EQ(times.size(), 1000U);
  for (const auto& [id, count] : times) EXPECT_EQ(count, 1);
  EXPECT_EQ(share.size(), 8U);
  for (const auto& [url, count] : share) {
    EXPECT_GE(count, 60U);
    EXPECT_LE(count, 250U);
  }
}

TEST_F(FetchCoreTest, ASilentSourceGetsOneSmallRequestAtATime) {
  core().add(ops(0, 1000), source(0), now_);
  EXPECT_EQ(ask_all().size(), 2U);
  std::vector<std::size_t> sizes;
  for (int i = 0; i < 7; ++i) {
    now_ = core().next_deadline().value();
    for (const auto& request : ask_all()) sizes.push_back(request.op_ids.size());
  }
  // Down to 16 and 8 by the first two, then further with each silence.
  EXPECT_EQ(sizes, (std::vector<std::size_t>{8, 4, 2, 1, 1, 1, 1}));
  // After an answer it has its full window again.
  core().on_response(source(0), {{op(112)}}, 100, now_);
  EXPECT_EQ(ask_all().size(), 1U);
}

TEST_F(FetchCoreTest, SourcesThatDeliverComeBeforeDoubtfulOnes) {
  core().add(ops(0, 100), source(0), now_);
  const auto silent = ask_all();
  ASSERT_EQ(silent.size(), 2U);
  now_ += kDelay;
  core().poll(now_);
  core().add(ops(0, 100), source(1), now_);
  const auto next = core().next_request(now_);
  ASSERT_TRUE(next);
  EXPECT_EQ(next->source, source(1));
}

TEST_F(FetchCoreTest, ASlowPeerCostsOnlyItself) {
  for (std::size_t s = 0; s < 5; ++s) core().add(ops(10'000 * (s + 1), 2000), source(s), now_);
  ask_all();  // the windows of five silent sources are full
  core().add(ops(0, 100), source(9), now_);
  const auto sizes = fetch_all(source(9), 64);
  std::size_t sum = 0;
  for (const std::size_t size : sizes) sum += size;
  EXPECT_EQ(sum, 100U);
  EXPECT_FALSE(core().is_pending(op(99)));
}

TEST_F(FetchCoreTest, SeveralFailuresAtOnceAreOne) {
  config_.parallel_request_count = 4;
  config_.max_ids_per_request = 1;
  core().add(ops(0, 4), source(0), now_);
  core().poll(now_);
  std::vector<std::uint64_t> ids;
  while (auto request = core().next_request(now_)) ids.push_back(request->id);
  ASSERT_EQ(ids.size(), 4U);
  for (const std::uint64_t id : ids) EXPECT_FALSE(core().on_send_failed(id, now_));
  ASSERT_EQ(core().backing_off().size(), 1U);
  EXPECT_EQ(core().backing_off()[0].first, source(0));
  EXPECT_EQ(core().backing_off()[0].second, now_ + Duration(20'000'000));
  EXPECT_EQ(core().pending_pairs(), 4U);
  EXPECT_EQ(core().counts().sources_backing_off, 1U);
  EXPECT_EQ(core().next_deadline(), now_ + Duration(20'000'000));
}

TEST_F(FetchCoreTest, AfterAFailureThePeerIsTriedWithOneMessage) {
  core().add(ops(0, 100), source(0), now_);
  core().on_send_failed(core().next_request(now_)->id, now_);
  now_ += Duration(20'000'000);
  core().poll(now_);
  const auto probe = core().next_request(now_);
  ASSERT_TRUE(probe);
  EXPECT_EQ(probe->op_ids.size(), 16U);
  EXPECT_FALSE(core().next_request(now_));
  core().on_sent(probe->id, now_);
  EXPECT_TRUE(core().next_request(now_));
}

TEST_F(FetchCoreTest, AnAnswerEndsABackOff) {
  config_.parallel_request_count = 2;
  config_.max_ids_per_request = 1;
  core().add(ops(0, 3), source(0), now_);
  const auto first = core().next_request(now_);
  const auto second = core().next_request(now_);
  core().on_sent(first->id, now_);
  core().on_send_failed(second->id, now_);
  EXPECT_FALSE(core().next_request(now_));
  answer(*first);
  EXPECT_TRUE(core().backing_off().empty());
  EXPECT_TRUE(core().next_request(now_));
}

TEST_F(FetchCoreTest, AnswersThatNobodyAskedForChangeNothing) {
  core().add(ops(0, 4), source(0), now_);
  core().on_send_failed(core().next_request(now_)->id, now_);
  const FetchCounts before = core().counts();
  const FetchAnswer answer = core().on_response(source(0), ops(50, 3), 300, now_);
  EXPECT_EQ(answer.verdicts, std::vector<FetchVerdict>(3, FetchVerdict::unasked));
  EXPECT_EQ(core().counts(), before);
  EXPECT_EQ(core().backing_off().size(), 1U);
}

TEST_F(FetchCoreTest, VerdictsOfOneResponse) {
  core().add(ops(0, 3), source(0), now_);
  const FetchAnswer answer = core().on_response(source(7), {{op(0), op(9), op(0), op(2)}}, 400, now_);
  EXPECT_EQ(answer.verdicts, (std::vector<FetchVerdict>{FetchVerdict::wanted, FetchVerdict::unasked,
                                                        FetchVerdict::duplicate, FetchVerdict::wanted}));
  EXPECT_EQ(core().storing_ops(), 2U);
  EXPECT_EQ(core().on_stored({{op(0), op(0), op(2)}}, now_), 2U);
  EXPECT_EQ(core().pending_ops(), 1U);
}

TEST_F(FetchCoreTest, AMessageForTwoRequestsEndsEarlierOnesOnlyIfOneIsComplete) {
  config_.parallel_request_count = 3;
  config_.max_ids_per_request = 2;
  core().add(ops(0, 6), source(0), now_);
  ASSERT_EQ(ask_all().size(), 3U);
  // Parts of the second and the third: perhaps not in order, so they say nothing about the first.
  EXPECT_TRUE(core().on_response(source(0), {{op(2), op(4)}}, 20, now_).missing.empty());
  EXPECT_EQ(core().counts().requests, 3U);
  // The second is complete now, so the first has got all that it will get.
  const FetchAnswer answer = core().on_response(source(0), {{op(3)}}, 10, now_);
  ASSERT_EQ(answer.missing.size(), 1U);
  EXPECT_EQ(answer.missing[0].source, source(0));
  EXPECT_EQ(answer.missing[0].op_ids, ops(0, 2));
  EXPECT_EQ(core().counts().requests, 1U);
}

TEST_F(FetchCoreTest, OneMessageThatCompletesALaterRequestEndsEarlierOnes) {
  config_.parallel_request_count = 3;
  config_.max_ids_per_request = 2;
  core().add(ops(0, 6), source(0), now_);
  ASSERT_EQ(ask_all().size(), 3U);
  const FetchAnswer answer = core().on_response(source(0), {{op(1), op(4), op(5)}}, 30, now_);
  ASSERT_EQ(answer.missing.size(), 2U);
  EXPECT_EQ(answer.missing[0].op_ids, ops(0, 1));
  EXPECT_EQ(answer.missing[1].op_ids, ops(2, 2));
  EXPECT_EQ(core().counts().requests, 0U);
}

TEST_F(FetchCoreTest, StoredByOtherMeansFreesThePlace) {
  config_.parallel_request_count = 1;
  config_.max_ids_per_request = 2;
  core().add(ops(0, 4), source(0), now_);
  EXPECT_EQ(ask_all().size(), 1U);
  EXPECT_EQ(core().on_stored(ops(0, 1), now_), 1U);
  EXPECT_TRUE(ask_all().empty());
  EXPECT_EQ(core().on_stored(ops(1, 1), now_), 1U);
  const auto next = ask_all();
  ASSERT_EQ(next.size(), 1U);
  EXPECT_EQ(next[0].op_ids, ops(2, 2));
}

TEST_F(FetchCoreTest, OpsMayComeAndBeStoredInAnyOrder) {
  core().add(ops(0, 40), source(0), now_);
  core().add(ops(10, 5), source(1), now_);
  ask_all();
  std::vector<OpId> mixed = ops(20, 10);                       // as they were asked
  for (std::size_t i = 20; i-- > 10;) mixed.push_back(op(i));  // backwards
  for (std::size_t i = 30; i < 40; i += 2) mixed.push_back(op(i));
  const auto verdicts = respond(source(0), mixed).verdicts;
  EXPECT_EQ(verdicts, std::vector<FetchVerdict>(mixed.size(), FetchVerdict::wanted));
  std::vector<OpId> stored = ops(50, 1);  // not pending
  stored.insert(stored.end(), mixed.rbegin(), mixed.rend());
  stored.push_back(mixed.front());
  EXPECT_EQ(core().on_stored(stored, now_), mixed.size());
  EXPECT_EQ(core().pending_ops(), 40 - mixed.size());
  EXPECT_FALSE(core().is_pending(op(25)));
  EXPECT_TRUE(core().is_pending(op(31)));
}

TEST_F(FetchCoreTest, WhatIsPendingAtASourceIsTakenOutOfAList) {
  core().add(ops(0, 6), source(0), now_);
  core().add(ops(3, 6), source(1), now_);
  std::vector<OpId> list = ops(1, 9);
  list.push_back(op(2));
  EXPECT_EQ(core().take_known(list, source(0)), 6U);
  EXPECT_EQ(list, ops(6, 4));
  EXPECT_EQ(core().take_known(list, source(1)), 3U);
  EXPECT_EQ(list, ops(9, 1));
  EXPECT_EQ(core().take_known(list, source(2)), 0U);
  EXPECT_EQ(list, ops(9, 1));
}

TEST_F(FetchCoreTest, LateAnswersCount) {
  core().add(ops(0, 2), source(0), now_);
  ask_all();
  now_ += 10 * kDelay;
  const auto again = ask_all();
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(core().on_response(source(0), ops(0, 2), 100, now_).verdicts,
            std::vector<FetchVerdict>(2, FetchVerdict::wanted));
  EXPECT_EQ(core().counts().requests, 0U);
}

TEST_F(FetchCoreTest, TimeDoesNotGoBack) {
  core().add(ops(0, 1), source(0), now_);
  ask_all();
  const Time deadline = core().next_deadline().value();
  EXPECT_EQ(deadline, now_ + kDelay);
  EXPECT_EQ(core().poll(deadline - kTick).overdue, 0U);
  EXPECT_EQ(core().poll(deadline).overdue, 1U);
  EXPECT_EQ(core().poll(now_).overdue, 0U);
  // Asked again with an earlier time: the deadline counts from the latest time seen.
  const auto request = core().next_request(now_);
  ASSERT_TRUE(request);
  core().on_sent(request->id, now_ - kDelay);
  EXPECT_EQ(core().next_deadline(), deadline + kDelay);
}

TEST_F(FetchCoreTest, AfterPollNothingIsDue) {
  for (std::size_t s = 0; s < 6; ++s) core().add(ops(s, 40), source(s), now_);
  for (int i = 0; i < 200; ++i) {
    core().poll(now_);
    if (const auto deadline = core().next_deadline()) {
      ASSERT_GT(*deadline, now_);
      now_ = *deadline;
    }
    while (auto request = core().next_request(now_)) {
      if (request->id % 3 != 0) core().on_sent(request->id, now_);
      if (request->id % 7 == 0) core().on_send_failed(request->id, now_);
      if (request->id % 5 == 0) core().on_response(request->source, {{request->op_ids[0]}}, 10, now_);
    }
    core().check_invariants();
  }
}

TEST_F(FetchCoreTest, ManySourcesOfOneOp) {
  for (std::size_t s = 0; s < 300; ++s) EXPECT_EQ(core().add(ops(0, 3), source(s), now_).added, 3U);
  for (std::size_t s = 0; s < 300; ++s) EXPECT_EQ(core().add(ops(0, 3), source(s), now_).known, 3U);
  for (std::size_t s = 0; s < 300; ++s) EXPECT_TRUE(core().has(op(1), source(s)));
  core().check_invariants();
  for (std::size_t s = 0; s < 299; ++s) {
    const auto gone = core().remove_source(source(s), now_);
    ASSERT_TRUE(gone);
    EXPECT_TRUE(gone->orphaned.empty());
    EXPECT_FALSE(core().has(op(1), source(s)));
  }
  EXPECT_EQ(core().remove_source(source(299), now_)->orphaned, ops(0, 3));
  EXPECT_EQ(core().pending_ops(), 0U);
}

TEST_F(FetchCoreTest, GrowsAndDrains) {
  constexpr std::size_t kMany = 100'000;
  for (std::size_t i = 0; i < kMany; i += 1000) core().add(ops(i, 1000), source(i / 1000 % 10), now_);
  EXPECT_EQ(core().pending_ops(), kMany);
  core().check_invariants();
  while (true) {
    const auto request = core().next_request(now_);
    if (!request) break;
    core().on_sent(request->id, now_);
    answer(*request);
  }
  EXPECT_EQ(core().pending_ops(), 0U);
  EXPECT_EQ(core().pending_pairs(), 0U);
  EXPECT_FALSE(core().next_deadline());
}

TEST_F(FetchCoreTest, Reports) {
  core().add(ops(0, 3), source(0), now_);
  core().add(ops(2, 1), source(1), now_);
  core().add(ops(5, 1), source(2), now_);
  const auto requests = ask_all();
  ASSERT_EQ(requests.size(), 2U);
  core().on_response(source(0), {{op(0)}}, 1000, now_);
  const FetchCounts counts = core().counts();
  EXPECT_EQ(counts.ops, 4U);
  EXPECT_EQ(counts.pairs, 5U);
  EXPECT_EQ(counts.storing_ops, 1U);
  EXPECT_EQ(counts.asked_ops, 3U);
  EXPECT_EQ(counts.requests, 2U);
  EXPECT_EQ(counts.known_bytes, 2000U)
      << "two ops of a source whose ops have 1,000 bytes; of the other nothing is known";
  EXPECT_EQ(counts.sources, 3U);
  std::map<OpId, std::vector<Url>> summary;
  core().for_each_op([&](const OpId& id, const std::vector<Url>& urls) { summary[id] = urls; });
  EXPECT_EQ(summary,
            (std::map<OpId, std::vector<Url>>{
                {op(0), {source(0)}}, {op(1), {source(0)}}, {op(2), {source(0), source(1)}}, {op(5), {source(2)}}}));
}

TEST_F(FetchCoreTest, IdleSourcesAreRememberedUpToABound) {
  core().add(ops(0, 1), source(0), now_);
  fetch_all(source(0), 1U << 20U);
  for (std::size_t s = 1; s <= FetchCore::kSourcesRemembered; ++s) {
    EXPECT_EQ(core().counts().sources, s);
    core().add(ops(s, 1), source(s), now_);
    core().on_stored(ops(s, 1), now_);
  }
  EXPECT_EQ(core().counts().sources, FetchCore::kSourcesRemembered);
  core().check_invariants();
  // The oldest source is forgotten and starts with 32 ids again; a later one is not.
  core().add(ops(0, 100), source(0), now_);
  EXPECT_EQ(core().next_request(now_)->op_ids.size(), 32U);
}

TEST_F(FetchCoreTest, ARememberedSourceKeepsWhatIsKnownOfIt) {
  core().add(ops(0, 64), source(0), now_);
  fetch_all(source(0), 1U << 20U);
  core().add(ops(0, 100), source(0), now_);
  EXPECT_EQ(core().next_request(now_)->op_ids.size(), 4U);
}

TEST_F(FetchCoreTest, ClearForgetsEverything) {
  for (std::size_t s = 0; s < 20; ++s) core().add(ops(0, 100), source(s), now_);
  const auto requests = ask_all();
  core().on_send_failed(requests[0].id, now_);
  core().on_response(requests[1].source, {{requests[1].op_ids[0]}}, 10, now_);
  core().clear();
  core().check_invariants();
  EXPECT_EQ(core().counts(), FetchCounts());
  EXPECT_FALSE(core().next_deadline());
  core().on_sent(requests[2].id, now_);
  core().on_send_failed(requests[2].id, now_);
  EXPECT_EQ(core().on_stored(ops(0, 100), now_), 0U);
  core().add(ops(0, 1), source(0), now_);
  EXPECT_GT(core().next_request(now_)->id, requests.back().id) << "ids are never used twice";
}

TEST_F(FetchCoreTest, IdsOfAnySize) {
  const std::vector<OpId> ids{OpId(), OpId::from_text(std::string(39, 'a')), OpId::from_text(std::string(40, 'a')),
                              OpId::from_text(std::string(1U << 20U, 'a'))};
  EXPECT_EQ(core().add(ids, source(0), now_).added, 4U);
  const auto requests = ask_all();
  ASSERT_EQ(requests.size(), 2U) << "the last one goes alone";
  EXPECT_EQ(requests[0].op_ids, std::vector<OpId>(ids.begin(), ids.begin() + 3));
  EXPECT_EQ(requests[1].op_ids, std::vector<OpId>(ids.begin() + 3, ids.end()));
  for (const auto& request : requests) answer(request);
  EXPECT_EQ(core().pending_ops(), 0U);
}

// A request larger than one frame of the transport would need the receiver's permit, and wait for it.
TEST_F(FetchCoreTest, RequestsAreBoundedInBytes) {
  const auto id_of = [](std::size_t i, std::size_t size) {
    std::string text = std::to_string(i);
    text.resize(size, '.');
    return OpId::from_text(text);
  };
  std::vector<OpId> ids;
  for (std::size_t i = 0; i < 3000; ++i) ids.push_back(id_of(i, i % 100 == 99 ? 1024 : 32));
  core().add(ids, source(0), now_);
  std::size_t asked = 0, most = 0;
  while (asked < ids.size()) {
    const auto requests = ask_all();
    ASSERT_FALSE(requests.empty());
    for (const auto& request : requests) {
      std::size_t bytes = 0;
      for (const OpId& id : request.op_ids) bytes += id.size() + FetchCore::kIdFrameBytes;
      EXPECT_LE(bytes, FetchCore::kRequestBytes);
      asked += request.op_ids.size();
      most = std::max(most, request.op_ids.size());
      answer(request);
    }
  }
  EXPECT_EQ(asked, ids.size());
  EXPECT_GT(most, 300U);
}

}  // namespace
}  // namespace kitsune2
