// What a peer is asked for and cannot or does not send, and what it sends and nobody can use.
#include "unit/node/fetch/core_fetch_harness.hpp"

namespace kitsune2::fetch_test {
namespace {

TEST(CoreFetchUnserved, APeerThatAnswersAndNeverSendsOneOpIsAnEventAndIsNotAskedForEver) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  const auto ops = bench.ops(0, 100);
  alice.serve({ops.begin() + 1, ops.end()});
  ASSERT_TRUE(bob.request(ids_of({ops[0]}), alice.url));
  std::size_t next = 1;
  for (; next < ops.size() && bob.unserved.empty(); ++next) {
    ASSERT_TRUE(bob.request(ids_of({ops[next]}), alice.url));
    bench.world.run_for(30s);
  }
  EXPECT_LE(bench.world.now(), at(15min));
  EXPECT_EQ(bob.held(ids_of(ops)), next - 1);
  ASSERT_EQ(bob.unserved.size(), 1U);
  EXPECT_EQ(bob.unserved[0].peer, alice.url);
  EXPECT_EQ(bob.unserved[0].ops, ids_of({ops[0]}));
  EXPECT_EQ(bob.unserved[0].orphaned, ids_of({ops[0]}));
  EXPECT_EQ(bob.fetch->stats().pairs_dropped_unserved, 1U);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  const auto asked = alice.requests.size();
  bench.world.run_for(24h);
  EXPECT_EQ(alice.requests.size(), asked);
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U) << "nor is it after a restart";
  bob.check();
}

TEST(CoreFetchUnserved, TheStoreForgetsAMinuteLaterAndNotWhatWasRequestedAgain) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  const auto ops = bench.ops(0, 2);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  ASSERT_TRUE(bench.world.run_until([&] { return bob.fetch->pending_ops() == 0; }, 1h));
  EXPECT_EQ(bob.ops_pending_on_disk(), 2U);
  ASSERT_TRUE(bob.request(ids_of({ops[1]}), alice.url));
  bench.world.run_for(61s);
  EXPECT_EQ(bob.ops_pending_on_disk(), 1U);
  EXPECT_EQ(bob.fetch->pending_ops(), 1U);
  bob.check();
}

TEST(CoreFetchUnserved, StoppingForgetsAtOnce) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 2)), alice.url));
  ASSERT_TRUE(bench.world.run_until([&] { return bob.fetch->pending_ops() == 0; }, 1h));
  bool stopped = false;
  bob.fetch->stop([&] { stopped = true; });
  ASSERT_TRUE(bench.world.run_until([&] { return stopped; }, 1s));
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
}

TEST(CoreFetchUnserved, DrainedIsReportedWhenTheLastOpIsDropped) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 1)), alice.url));
  bool drained = false;
  bob.fetch->notify_on_drained([&] { drained = true; });
  EXPECT_TRUE(bench.world.run_until([&] { return drained; }, 1h));
}

TEST(CoreFetchUnserved, OnALineThatTakesMinutesForAnOpNothingIsLost) {
  MemoryNetworkOptions options;
  options.link.bytes_per_second = 4'000;
  Bench bench(1, options);
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 3, 1'000'000);  // four minutes each
  alice.hold(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  EXPECT_TRUE(bob.drain(3h));
  EXPECT_EQ(bob.held(ids_of(ops)), 3U);
  EXPECT_TRUE(bob.unserved.empty());
}

TEST(CoreFetchUnserved, AnAnswerThatComesAfterThePairWasDroppedIsStored) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  const auto ops = bench.ops(0, 1);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  ASSERT_TRUE(bench.world.run_until([&] { return !bob.unserved.empty(); }, 1h));
  bench.world.run_for(20min);
  alice.answer(bob.url, ops);
  bench.world.run_for(1s);
  EXPECT_EQ(bob.held(ids_of(ops)), 1U);
  EXPECT_EQ(bob.fetch->stats().ops_fetched, 1U);
  EXPECT_EQ(bob.fetch->stats().ops_unsolicited, 0U);
}

TEST(CoreFetchUnserved, AnOpTooLargeToSendIsCountedAndTheOthersOfItsRequestAreServed) {
  MemoryNetworkOptions options;
  options.max_message_bytes = 10'000;
  Bench bench(1, options);
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  auto ops = bench.ops(0, 9, 1000);
  ops.insert(ops.begin() + 4, bench.ops(100, 1, 20'000).front());  // a store from before there was a limit
  alice.hold(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  bench.world.run_for(1s);
  EXPECT_EQ(bob.held(ids_of(ops)), 9U);
  EXPECT_EQ(alice.fetch->stats().ops_too_large, 1U);
  EXPECT_EQ(alice.fetch->stats().ops_not_held, 0U) << "it is held";
  ASSERT_TRUE(bench.world.run_until([&] { return !bob.unserved.empty(); }, 1h));
  EXPECT_EQ(bob.unserved[0].ops, ids_of({ops[4]}));
  EXPECT_LE(alice.fetch->stats().ops_too_large, 50U);
}

TEST(CoreFetchUnserved, ResponsesFitTheTransportWhateverTheirConfiguredSize) {
  MemoryNetworkOptions options;
  options.max_message_bytes = 10'000;
  Bench bench(1, options);
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 200, 3'300);  // three are a little too much
  alice.hold(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  EXPECT_TRUE(bob.drain(10s));
  EXPECT_EQ(bob.held(ids_of(ops)), 200U);
  EXPECT_EQ(alice.fetch->stats().ops_too_large, 0U);
}

TEST(CoreFetchInvalid, TheEventSaysWhyThePolicyRefusedAnOp) {
  Bench bench;
  bench.policy = make_memory_op_policy();
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 1)), alice.url));
  bench.world.run_for(100ms);
  const Bytes junk = Bytes::copy_of("junk");
  alice.answer(bob.url, {{OpId::from_text("a"), junk}, {OpId::from_text("b"), junk}});
  bench.world.run_for(100ms);
  EXPECT_EQ(bob.invalid[alice.url], 2U);
  ASSERT_EQ(bob.invalid_reasons.size(), 1U) << "once for a message";
  EXPECT_EQ(bob.invalid_reasons[0], bench.policy->describe(junk).error().to_string());
  EXPECT_EQ(bob.fetch->stats().ops_invalid, 2U);
}

TEST(CoreFetchInvalid, AnOpThatTheStoreRefusesIsAnEventWithTheReasonAndIsNotFetchedAgain) {
  Bench bench;
  FetchNode alice(bench, "alice");
  FetchNode bob(bench, "bob", {}, make_memory_op_store(*bench.disk_runtime, bench.policy, 500));
  auto ops = bench.ops(0, 2, 100);
  ops.push_back(bench.ops(5, 1, 1000).front());
  alice.hold(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  bench.world.run_for(1h);
  EXPECT_EQ(bob.held(ids_of(ops)), 2U);
  EXPECT_EQ(bob.invalid[alice.url], 1U);
  ASSERT_EQ(bob.invalid_reasons.size(), 1U);
  EXPECT_NE(bob.invalid_reasons[0].find("the limit is 500 bytes"), std::string::npos) << bob.invalid_reasons[0];
  EXPECT_EQ(alice.served_to[bob.url], 3U);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
  bob.check();
}

TEST(CoreFetchEvents, SeveralListenersHearAndOneThatLeavesDoesNotSilenceTheOthers) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 20);
  alice.hold(ops);
  std::size_t first = 0, second = 0;
  std::shared_ptr<void> one, two;
  FetchEvents events;
  events.ops_stored = [&](const Url&, const std::vector<StoredOp>& stored, std::uint64_t) {
    first += stored.size();
    one.reset();
  };
  one = bob.fetch->subscribe(std::move(events));
  events = {};
  events.ops_stored = [&](const Url&, const std::vector<StoredOp>& stored, std::uint64_t) { second += stored.size(); };
  two = bob.fetch->subscribe(std::move(events));
  ASSERT_TRUE(bob.request(ids_of({ops.begin(), ops.begin() + 10}), alice.url));
  ASSERT_TRUE(bob.drain());
  ASSERT_TRUE(bob.request(ids_of({ops.begin() + 10, ops.end()}), alice.url));
  ASSERT_TRUE(bob.drain());
  EXPECT_GT(first, 0U);
  EXPECT_LE(first, 10U);
  EXPECT_EQ(second, 20U);
  EXPECT_EQ(bob.stored_from[alice.url], 20U);
}

}  // namespace
}  // namespace kitsune2::fetch_test
