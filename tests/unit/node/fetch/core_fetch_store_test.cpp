// Incoming responses: persisted first, then forgotten; unsolicited ops; drained; restarts; stopping.
#include "core_fetch_harness.hpp"

namespace kitsune2 {
namespace {

using namespace fetch_test;

TEST(CoreFetchStore, AnOpIsForgottenOnlyWhenItIsPersisted) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 100);
  alice.hold(ops);
  bob.want(ids_of(ops), alice.url);
  bench.world.run_until([&] { return bob.store->writes() > 0; }, 1s);
  bob.store->hold_writes();
  bench.world.run_for(1h);
  EXPECT_EQ(alice.fetch->stats().ops_served, 100U) << "what is being written is not asked for again";
  const auto stored = bob.fetch->stats().ops_fetched;
  EXPECT_LT(stored, 100U);
  EXPECT_EQ(bob.fetch->pending_ops(), 100U - stored);
  bob.store->release();
  bench.world.run_for(1ms);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_EQ(bob.fetch->stats().ops_fetched, 100U);
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
}

TEST(CoreFetchStore, IfPersistingFailsTheOpIsKeptAndFetchedAgainAfterTheDelay) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 10);
  peer.serve(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), peer.url));
  bob.store->fail_writes(make_error(Errc::disk_full, "no space"));
  bench.world.run_until(at(1s));
  EXPECT_EQ(bob.fetch->pending_ops(), 10U);
  EXPECT_EQ(bob.held(ids_of(ops)), 0U);
  ASSERT_EQ(bob.store_errors.size(), 1U);
  EXPECT_EQ(bob.store_errors[0].code, Errc::disk_full);
  EXPECT_EQ(bob.fetch->stats().store_failures, 1U);
  bob.check();
  bob.store->fail_writes(std::nullopt);
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(peer.times(), (std::vector<Time>{at(0s), at(2s)}));
  EXPECT_EQ(bob.held(ids_of(ops)), 10U);
}

TEST(CoreFetchStore, OpsThatArriveDuringAWriteGoIntoTheNextWrite) {
  Bench bench;
  CoreFetchConfig config;
  config.max_ids_per_request = 16;
  FetchNode alice(bench, "alice"), bob(bench, "bob", config);
  const auto ops = bench.ops(0, 3200);
  alice.hold(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  bob.store->delay_writes(10ms);
  ASSERT_TRUE(bob.drain());
  EXPECT_GE(alice.fetch->stats().requests_received, 200U);
  EXPECT_LE(bob.store->batches().size(), 10U);
  EXPECT_EQ(bob.held(ids_of(ops)), 3200U);
}

TEST(CoreFetchStore, NothingMoreIsAskedForWhileTheStoreIsBehind) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 200, 1U << 20);
  alice.hold(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  bob.store->hold_writes();
  bench.world.run_for(1h);
  EXPECT_GE(alice.fetch->stats().bytes_served, 60U << 20);
  EXPECT_LE(alice.fetch->stats().bytes_served, 80U << 20);
  bob.check();
  bob.store->release();
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bob.held(ids_of(ops)), 200U);
}

TEST(CoreFetchStore, OpsThatNobodyAskedForAreRejectedAndCounted) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  const auto asked = bench.ops(0, 1), others = bench.ops(100, 5);
  peer.answer(bob.url, others);
  bench.world.run_for(1s);
  EXPECT_EQ(bob.fetch->stats().ops_unsolicited, 5U) << "nothing is pending";
  ASSERT_TRUE(bob.request(ids_of(asked), peer.url));
  peer.answer(bob.url, others);
  bench.world.run_for(1s);
  EXPECT_EQ(bob.fetch->stats().ops_unsolicited, 10U) << "something else is pending";
  EXPECT_EQ(bob.held(ids_of(others)), 0U);
  EXPECT_EQ(bob.fetch->pending_ops(), 1U);
}

TEST(CoreFetchStore, OpsThatNobodyAskedForAreStoredWhereTheHostAllowsIt) {
  Bench bench;
  CoreFetchConfig config;
  config.accept_unsolicited = true;
  FetchNode bob(bench, "bob", config);
  Probe peer(bench, "peer");
  const auto others = bench.ops(100, 5);
  peer.answer(bob.url, others);
  bench.world.run_for(1s);
  EXPECT_EQ(bob.held(ids_of(others)), 5U);
  EXPECT_EQ(bob.fetch->stats().ops_fetched, 0U);
  EXPECT_EQ(bob.fetch->stats().ops_unsolicited, 5U);
}

TEST(CoreFetchStore, WrongBytesAreNotStoredAndTheOpIsFetchedFromAnother) {
  Bench bench;
  bench.policy = make_sha256_policy();
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  Probe liar(bench, "liar");
  const auto ops = bench.ops(0, 4);
  alice.hold(ops);
  liar.on_request = [&](const Probe::Request& request) {
    std::vector<MetaOp> lies;
    for (std::size_t i = 0; i < request.ids.size(); ++i) lies.push_back({{}, testing::make_op(900 + i)});
    liar.answer(request.from, lies);
  };
  bob.want(ids_of(ops), liar.url);
  bench.world.run_ready();
  bob.want(ids_of(ops), alice.url);
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bob.held(ids_of(ops)), 4U);
  EXPECT_EQ(bob.stored_from[liar.url], 0U);
  EXPECT_GE(bob.fetch->stats().ops_unsolicited, 4U);
  auto stats = await<OpStoreStats>(bench.world, [&](auto done) { bob.disk->stats(done); });
  EXPECT_EQ(stats->ops, 4U);
}

TEST(CoreFetchStore, BytesThatAreNoOpAreCounted) {
  Bench bench;
  bench.policy = make_memory_op_policy();
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 1)), peer.url));
  peer.answer(bob.url, {{{}, Bytes::copy_of("short")}, bench.ops(0, 1)[0]});
  bench.world.run_for(1s);
  EXPECT_EQ(bob.fetch->stats().ops_invalid, 1U);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U) << "the good one of the same message counts";
}

TEST(CoreFetchStore, ACopyThatComesWhileTheFirstIsBeingStoredIsDropped) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 3);
  ASSERT_TRUE(bob.request(ids_of(ops), peer.url));
  bob.store->hold_writes();
  peer.answer(bob.url, ops);
  peer.answer(bob.url, ops);
  bench.world.run_for(1s);
  bob.store->release();
  bench.world.run_for(1s);
  EXPECT_EQ(bob.fetch->stats().ops_duplicate, 3U);
  EXPECT_EQ(bob.fetch->stats().ops_fetched, 3U);
}

TEST(CoreFetchStore, OpsThatTheSourceLeavesOutAreReportedAsMissing) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 10);
  alice.hold({ops.begin(), ops.begin() + 9});
  bob.want(ids_of(ops), alice.url);
  bench.world.run_for(10s);
  EXPECT_EQ(bob.held(ids_of(ops)), 9U);
  EXPECT_EQ(bob.missing[alice.url], (std::vector<OpId>{ops[9].op_id}));
  EXPECT_EQ(bob.fetch->pending_ops(), 1U) << "it goes on asking";
  alice.hold({ops[9]});
  ASSERT_TRUE(bob.drain());
}

TEST(CoreFetchStore, AnOpStoredDuringTheLookUpDoesNotBecomePending) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe one(bench, "one"), two(bench, "two");
  const auto ops = bench.ops(0, 3);
  ASSERT_TRUE(bob.request(ids_of(ops), one.url));
  bob.store->delay_writes(0s);
  bob.want(ids_of(ops), two.url);  // its look-up finds nothing held …
  bob.store->delay_reads(1s);
  bob.want(ids_of(ops), two.url);
  one.answer(bob.url, ops);  // … and then it is held
  bench.world.run_for(1h);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
}

// ---------------------------------------------------------------- drained

struct Drained {
  explicit Drained(FetchNode& node) {
    node.fetch->notify_on_drained([this, &node] {
      ++times;
      EXPECT_EQ(node.fetch->pending_ops(), 0U);
    });
  }
  int times = 0;
};

TEST(CoreFetchDrained, IsReportedSoonIfNothingIsPending) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Drained drained(bob);
  EXPECT_EQ(drained.times, 0) << "not from inside the call";
  bench.world.run_ready();
  EXPECT_EQ(drained.times, 1);
  bench.world.run_for(1h);
  EXPECT_EQ(drained.times, 1) << "once";
}

TEST(CoreFetchDrained, IsReportedOnceWhenTheLastOpIsDurable) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 500);
  alice.hold(ops);
  bob.want(ids_of(ops), alice.url);
  Drained drained(bob);  // the ids are still being looked up
  bob.store->delay_writes(3s);
  bench.world.run_until(at(3s - 1us));
  EXPECT_EQ(drained.times, 0);
  EXPECT_EQ(bob.fetch->pending_ops(), 500U);
  Drained during(bob);  // all are being stored
  bench.world.run_for(1h);
  EXPECT_EQ(drained.times, 1);
  EXPECT_EQ(during.times, 1);
  EXPECT_EQ(bob.held(ids_of(ops)), 500U);
}

TEST(CoreFetchDrained, IsReportedWhenTheLastRequestsAreGivenUp) {
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto dead = MemoryNetwork::url_of("dead");
  make_failing(bench, dead);
  ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 3)), dead));
  Drained drained(bob);
  bench.world.run_until(at(300s - 1us));
  EXPECT_EQ(drained.times, 0);
  bench.world.run_until(at(300s));
  EXPECT_EQ(drained.times, 1);
}

TEST(CoreFetchDrained, IsReportedWhenTheLastSourceIsRemoved) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 3)), peer.url));
  Drained drained(bob);
  bench.world.run_for(1s);
  EXPECT_EQ(drained.times, 0);
  bob.fetch->remove_source(peer.url);
  EXPECT_EQ(drained.times, 0);
  bench.world.run_ready();
  EXPECT_EQ(drained.times, 1);
}

TEST(CoreFetchDrained, IsReportedWhenAllAddedOpsAreHeldAlready) {
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto ops = bench.ops(0, 3);
  bob.hold(ops);
  bob.store->delay_reads(1s);
  bob.want(ids_of(ops), MemoryNetwork::url_of("peer"));
  Drained drained(bob);
  bench.world.run_for(999ms);
  EXPECT_EQ(drained.times, 0);
  bench.world.run_for(1ms);
  EXPECT_EQ(drained.times, 1);
}

TEST(CoreFetchDrained, CallbacksMayGoOn) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 30);
  alice.hold(ops);
  int rounds = 0;
  std::function<void()> next = [&] {
    if (rounds == 3) return;
    const auto from = ops.begin() + 10 * rounds++;
    bob.want(ids_of({from, from + 10}), alice.url);
    bob.fetch->notify_on_drained(next);
  };
  bob.fetch->notify_on_drained(next);
  bench.world.run_for(1min);
  EXPECT_EQ(rounds, 3);
  EXPECT_EQ(bob.held(ids_of(ops)), 30U);
}

TEST(CoreFetchDrained, EventsMayCallTheModule) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 10);
  alice.hold(ops);
  bob.on_stored = [&] {
    bob.fetch->remove_source(alice.url);
    bob.subscription.reset();
    bob.fetch->stop([] {});
  };
  bob.want(ids_of(ops), alice.url);
  bench.world.run_for(1h);
  EXPECT_GT(bob.stored_from[alice.url], 0U);
}

// ---------------------------------------------------------------- restart and stop

TEST(CoreFetchRestart, ResumesAndRequestsNothingThatIsHeld) {
  Bench bench;
  auto disk = bench.make_disk();
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 1000);
  {
    MemoryLink slow;
    slow.bytes_per_second = 10'000;
    FetchNode alice(bench, "alice");
    alice.hold(ops);
    bench.network->set_link(alice.url, MemoryNetwork::url_of("bob"), slow);
    FetchNode bob(bench, "bob", {}, disk);
    ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
    bench.world.run_until([&] { return bob.stored_from[alice.url] >= 300; }, 1h);
    EXPECT_GT(bob.fetch->pending_ops(), 0U);
  }  // both crash
  bench.network->clear_links();
  FetchNode bob(bench, "bob", {}, disk);
  FetchNode alice(bench, "alice");
  alice.hold(ops);
  const auto before = bob.held(ids_of(ops));
  EXPECT_GE(before, 300U);
  bench.world.run_for(1ms);
  EXPECT_EQ(bob.fetch->pending_ops() + bob.fetch->stats().ops_fetched, 1000U - before);
  Drained drained(bob);
  ASSERT_TRUE(bob.drain());
  bench.world.run_ready();
  EXPECT_EQ(drained.times, 1);
  EXPECT_EQ(bob.held(ids_of(ops)), 1000U);
  EXPECT_EQ(alice.fetch->stats().ops_served, 1000U - before);
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
}

namespace {

/// What a node leaves behind that was told of three ops of a silent peer.
std::shared_ptr<OpStore> disk_with_open_requests(Bench& bench) {
  auto disk = bench.make_disk();
  const auto peer = MemoryNetwork::url_of("peer");
  make_silent(bench, peer);
  FetchNode bob(bench, "bob", {}, disk);
  EXPECT_TRUE(bob.request(ids_of(bench.ops(0, 3)), peer));
  return disk;
}

}  // namespace

TEST(CoreFetchRestart, AnswersToRequestsOfAnEarlierRunAreNoFault) {
  Bench bench;
  Probe peer(bench, "peer");
  const auto disk = disk_with_open_requests(bench);
  FetchNode bob(bench, "bob", {}, disk, make_error(Errc::io, "not yet"));
  peer.answer(bob.url, bench.ops(0, 3));  // the earlier run requested them; what is pending is not known yet
  bench.world.run_for(1s);
  EXPECT_EQ(bob.fetch->stats().ops_unsolicited, 0U);
  bob.store->fail_reads(std::nullopt);
  bench.world.run_for(20s);
  EXPECT_EQ(bob.fetch->pending_ops(), 3U) << "it is asked for again";
}

TEST(CoreFetchRestart, DrainedWaitsForResumedRequests) {
  Bench bench;
  Probe probe(bench, "peer");
  const auto disk = disk_with_open_requests(bench);
  FetchNode bob(bench, "bob", {}, disk);
  Drained drained(bob);
  bench.world.run_for(1min);
  EXPECT_EQ(drained.times, 0);
  EXPECT_EQ(bob.fetch->pending_ops(), 3U);
}

TEST(CoreFetchRestart, ManyOpenRequestsAreReadInPiecesAndNoneIsLeftOut) {
  // More than two pieces; what an answer brings in between is not requested again.
  constexpr std::size_t kOps = 40'000;
  Bench bench;
  auto disk = bench.make_disk();
  const auto peer = MemoryNetwork::url_of("peer");
  const auto ops = bench.ops(0, kOps);
  {
    make_silent(bench, peer);
    FetchNode bob(bench, "bob", {}, disk);
    ASSERT_TRUE(bob.request(ids_of(ops), peer));
  }
  Probe probe(bench, "peer");
  FetchNode bob(bench, "bob", {}, disk);
  Drained drained(bob);
  probe.answer(bob.url, {ops[0], ops[kOps - 1]});
  bench.world.run_for(1min);
  EXPECT_EQ(bob.fetch->stats().ops_unsolicited, 0U);
  EXPECT_EQ(bob.fetch->pending_ops() + bob.held(ids_of(ops)), kOps);
  EXPECT_EQ(drained.times, 0);
}

TEST(CoreFetchRestart, PendingRequestsThatCannotBeReadAreReadLater) {
  Bench bench;
  Probe probe(bench, "peer");
  const auto disk = disk_with_open_requests(bench);
  FetchNode bob(bench, "bob", {}, disk, make_error(Errc::io, "bad sector"));
  Drained drained(bob);
  bench.world.run_for(1min);
  EXPECT_EQ(drained.times, 0) << "what is not known is not none";
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  bob.store->fail_reads(std::nullopt);
  bench.world.run_for(3s);
  EXPECT_EQ(bob.fetch->pending_ops(), 3U);
  EXPECT_EQ(drained.times, 0);
}

TEST(CoreFetchRestart, WithoutPersistPendingNothingIsKept) {
  Bench bench;
  auto disk = bench.make_disk();
  Probe peer(bench, "peer");
  CoreFetchConfig config;
  config.persist_pending = false;
  {
    FetchNode bob(bench, "bob", config, disk);
    ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 3)), peer.url));
    EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
  }
  FetchNode bob(bench, "bob", config, disk);
  bench.world.run_for(1s);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
}

TEST(CoreFetchRestart, NothingIsKeptInAStoreThatIsNotDurable) {
  Bench bench;
  Probe peer(bench, "peer");
  const auto runtime = bench.world.make_runtime();
  const auto transport = make_transport(*runtime, bench.network->make_backend(*runtime, "bob"), nullptr);
  const auto store = make_memory_op_store(*runtime, bench.policy);
  ASSERT_FALSE(store->is_durable());
  auto fetch = make_core_fetch(*runtime, {}, kSpace, store, transport).value();
  const auto asked = await<void>(
      bench.world, [&](auto done) { fetch->request_ops(ids_of(bench.ops(0, 3)), peer.url, std::move(done)); });
  EXPECT_TRUE(asked);
  EXPECT_EQ(fetch->pending_ops(), 3U);
  using PendingIds = std::vector<std::pair<Url, std::vector<OpId>>>;
  EXPECT_TRUE(await<PendingIds>(bench.world, [&](auto done) { store->retrieve_pending(done); }).value().empty());
  fetch->remove_source(peer.url);
  EXPECT_EQ(fetch->pending_ops(), 0U);
  runtime->crash();
}

TEST(CoreFetchRestart, RequestsThatCannotBeKeptAreTheCallersErrorAndOpenAllTheSame) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 3);
  peer.serve(ops);
  bob.store->fail_next_writes(1, make_error(Errc::disk_full, "no space"));
  const auto r = bob.request(ids_of(ops), peer.url);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Errc::disk_full);
  EXPECT_TRUE(bob.drain());
  EXPECT_EQ(bob.held(ids_of(ops)), 3U);
}

// ---------------------------------------------------------------- long messages

/// Computes ids like make_prefix_policy, and counts.
class CountingPolicy final : public OpPolicy {
 public:
  std::string_view name() const override { return policy_->name(); }
  Result<OpDescription> describe(ByteView op) const override {
    ++count;
    return policy_->describe(op);
  }
  mutable std::size_t count = 0;

 private:
  const std::shared_ptr<const OpPolicy> policy_ = make_prefix_policy();
};

TEST(CoreFetchLongMessages, OthersDoNotWaitForOne) {
  Bench bench;
  const auto policy = std::make_shared<CountingPolicy>();
  bench.policy = policy;
  Probe alice(bench, "alice"), carol(bench, "carol");
  FetchNode bob(bench, "bob");
  const auto large = bench.ops(0, 8, 1U << 20);
  const auto small = bench.ops(100, 1);
  ASSERT_TRUE(bob.request(ids_of(large), alice.url));
  ASSERT_TRUE(bob.request(ids_of(small), carol.url));
  ASSERT_TRUE(bench.world.run_until([&] { return alice.ids_asked() == 8 && carol.ids_asked() == 1; }, 1s));
  policy->count = 0;
  std::size_t named_when_the_small_one_was_stored = 0;
  bob.on_stored = [&] {
    if (bob.stored_from[carol.url] == 1 && named_when_the_small_one_was_stored == 0)
      named_when_the_small_one_was_stored = policy->count;
  };
  alice.answer(bob.url, large);
  carol.answer(bob.url, small);
  ASSERT_TRUE(bob.drain(1s));
  EXPECT_EQ(bob.held(ids_of(large)), 8U);
  EXPECT_EQ(policy->count, 9U) << "each op is named once";
  EXPECT_GE(named_when_the_small_one_was_stored, 2U) << "the long one came first";
  EXPECT_LT(named_when_the_small_one_was_stored, 8U);
  bob.check();
}

TEST(CoreFetchLongMessages, AnAnswerCountsIfItsPeerHasLeft) {
  Bench bench;
  const auto policy = std::make_shared<CountingPolicy>();
  bench.policy = policy;
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  for (const bool removed : {false, true}) {
    const auto ops = bench.ops(removed ? 8 : 0, 8, 1U << 20);
    ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
    ASSERT_TRUE(bench.world.run_until([&] { return alice.ids_asked() == 8; }, 1s));
    policy->count = 0;
    alice.answer(bob.url, ops);
    ASSERT_TRUE(bench.world.run_until([&] { return policy->count > 0; }, 1s));
    ASSERT_LT(policy->count, 8U) << "it is being named";
    if (removed) {
      bob.fetch->remove_source(alice.url);
    } else {
      alice.disconnect(bob.url);
    }
    ASSERT_TRUE(bob.drain(1s));
    EXPECT_EQ(bob.held(ids_of(ops)), 8U);
    EXPECT_EQ(alice.ids_asked(), 8U) << "nothing is asked for again";
    alice.requests.clear();
    bob.check();
  }
}

TEST(CoreFetchLongMessages, TheirOrderAndTheirSumAreKept) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  const auto ops = bench.ops(0, 24, 1U << 20);  // more than may wait for their ids
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  bench.world.run_for(1s);
  std::vector<OpId> order;
  FetchEvents events;
  events.ops_stored = [&](const Url&, const std::vector<StoredOp>& stored, std::uint64_t) {
    for (const auto& op : stored) order.push_back(op.op_id);
  };
  bob.subscription = bob.fetch->subscribe(std::move(events));
  for (std::size_t i = 0; i < 24; i += 6) {
    alice.answer(bob.url,
                 {ops.begin() + static_cast<std::ptrdiff_t>(i), ops.begin() + static_cast<std::ptrdiff_t>(i + 5)});
    alice.answer(bob.url, {ops[i + 5]});  // a short one after a long one
  }
  ASSERT_TRUE(bob.drain(10s));
  EXPECT_EQ(order, ids_of(ops));
  bob.check();
}

TEST(CoreFetchLongMessages, StoppingDropsOpsWithoutIds) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  const auto ops = bench.ops(0, 8, 1U << 20);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  ASSERT_TRUE(bench.world.run_until([&] { return alice.ids_asked() == 8; }, 1s));
  bob.on_stored = [&] { bob.fetch->stop([] {}); };
  alice.answer(bob.url, {ops[0]});
  alice.answer(bob.url, {ops.begin() + 1, ops.end()});
  bench.world.run_for(1s);
  EXPECT_LT(bob.held(ids_of(ops)), 8U);
  EXPECT_GE(bob.held(ids_of(ops)), 1U);
}

TEST(CoreFetchStop, CompletesWhenNothingIsUnderWay) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 10);
  alice.hold(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  bob.store->hold_writes();
  bench.world.run_for(1s);
  bool stopped = false;
  bob.fetch->stop([&] { stopped = true; });
  bench.world.run_for(1s);
  EXPECT_FALSE(stopped) << "a write is under way";
  bob.store->release();
  bench.world.run_for(1s);
  EXPECT_TRUE(stopped);
  EXPECT_EQ(bob.held(ids_of(ops)), 10U) << "what has come is kept";
}

TEST(CoreFetchStop, AsksAndAnswersNothingAfterwards) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 10);
  bob.hold({ops[0]});
  ASSERT_TRUE(bob.request({ops[1].op_id}, peer.url));
  const auto asked = peer.requests.size();
  bool stopped = false;
  bob.fetch->stop([&] { stopped = true; });
  EXPECT_FALSE(stopped);
  bench.world.run_ready();
  EXPECT_TRUE(stopped);
  const auto after = peer.requests.size();
  EXPECT_LE(after, asked + 1);
  const auto r = bob.request({ops[2].op_id}, peer.url);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Errc::cancelled);
  peer.ask(bob.url, {ops[0].op_id});
  bench.world.run_for(1h);
  EXPECT_TRUE(peer.responses.empty());
  EXPECT_EQ(peer.requests.size(), after);
  bool again = false;
  bob.fetch->stop([&] { again = true; });
  bench.world.run_ready();
  EXPECT_TRUE(again);
}

TEST(CoreFetchStop, ALookUpUnderWayIsCancelled) {
  Bench bench;
  FetchNode bob(bench, "bob");
  bob.store->delay_reads(1s);
  bob.want(ids_of(bench.ops(0, 3)), MemoryNetwork::url_of("peer"));
  bool stopped = false;
  bob.fetch->stop([&] { stopped = true; });
  bench.world.run_for(999ms);
  EXPECT_FALSE(stopped);
  bench.world.run_for(1ms);
  EXPECT_TRUE(stopped);
  ASSERT_EQ(bob.outcomes.size(), 1U);
  EXPECT_EQ(bob.outcomes[0].error().code, Errc::cancelled);
}

TEST(CoreFetchStop, DestructionWithEverythingUnderWayIsSafe) {
  for (int steps = 0; steps < 400; steps += 7) {
    Bench bench;
    FetchNode alice(bench, "alice");
    const auto ops = bench.ops(0, 200);
    alice.hold(ops);
    FetchNode bob(bench, "bob");
    bob.want(ids_of(ops), alice.url);
    alice.want(ids_of(bench.ops(5000, 10)), bob.url);
    for (int i = 0; i < steps; ++i) bench.world.step();
    bob.fetch.reset();  // the rest of the node lives on
    bench.world.run_for(1min);
  }
}

}  // namespace
}  // namespace kitsune2
