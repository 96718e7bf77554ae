// A peer that moves to another url, and peers that send ops which are invalid or were not requested.
#include "core_fetch_harness.hpp"

namespace kitsune2 {
namespace {

using namespace fetch_test;
using Pending = std::vector<std::pair<Url, std::vector<OpId>>>;

Pending pending_of(FetchNode& node) {
  return await<Pending>(node.bench_.world, [&](auto done) { node.disk->retrieve_pending(done); }).value();
}

TEST(CoreFetchReplace, PendingOpsAreRequestedAtTheNewUrlAtOnce) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe moved(bench, "moved");
  const auto ops = bench.ops(0, 100);
  moved.serve(ops);
  const auto old_url = MemoryNetwork::url_of("old");
  make_failing(bench, old_url);
  ASSERT_TRUE(bob.request(ids_of(ops), old_url));
  bench.world.run_for(1s);
  EXPECT_EQ(bob.fetch->state_summary().peers_on_backoff.count(old_url), 1U);
  bob.fetch->replace_source(old_url, moved.url);
  bench.world.run_for(100ms);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_EQ(bob.held(ids_of(ops)), 100U);
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
  bob.check();
}

TEST(CoreFetchReplace, TheStoreTakesTheNewUrl) {
  Bench bench;
  auto disk = bench.make_disk();
  Probe moved(bench, "moved");
  const auto old_url = MemoryNetwork::url_of("old");
  make_failing(bench, old_url);
  {
    FetchNode bob(bench, "bob", {}, disk);
    ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 3)), old_url));
    bob.fetch->replace_source(old_url, moved.url);
    bench.world.run_for(1s);
    EXPECT_EQ(pending_of(bob), (Pending{{moved.url, ids_of(bench.ops(0, 3))}}));
    EXPECT_EQ(moved.ids_asked(), 3U);
  }
  FetchNode bob(bench, "bob", {}, disk);
  moved.requests.clear();
  bench.world.run_for(1s);
  EXPECT_EQ(bob.fetch->pending_ops(), 3U);
  EXPECT_EQ(moved.ids_asked(), 3U);
}

TEST(CoreFetchReplace, IfTheStoreFailsTheOldUrlStaysThere) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe moved(bench, "moved");
  const auto old_url = MemoryNetwork::url_of("old");
  make_silent(bench, old_url);
  ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 3)), old_url));
  bob.store->fail_next_writes(1, make_error(Errc::disk_full, "no space"));
  bob.fetch->replace_source(old_url, moved.url);
  bench.world.run_for(1s);
  EXPECT_EQ(pending_of(bob), (Pending{{old_url, ids_of(bench.ops(0, 3))}})) << "a restart must not lose them";
  EXPECT_EQ(moved.ids_asked(), 3U);
}

TEST(CoreFetchReplace, ARequestThatIsBeingLookedUpGoesToTheNewUrlToo) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe moved(bench, "moved");
  const auto ops = bench.ops(0, 10);
  moved.serve(ops);
  const auto old_url = MemoryNetwork::url_of("old"), older_url = MemoryNetwork::url_of("older");
  bob.store->delay_reads(100ms);
  bob.want(ids_of(ops), older_url);
  bob.fetch->replace_source(older_url, old_url);
  bob.fetch->replace_source(old_url, moved.url);
  ASSERT_TRUE(bob.drain(1s));
  EXPECT_EQ(bob.held(ids_of(ops)), 10U);
}

TEST(CoreFetchReplace, ALongListThatIsBeingLookedUpGoesToTheNewUrlToo) {
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto old_url = MemoryNetwork::url_of("old"), new_url = MemoryNetwork::url_of("new");
  for (const auto& url : {old_url, new_url}) make_silent(bench, url);
  const auto ids = ids_of(bench.ops(0, 3000));
  bench.world.run_ready();  // nothing is to be resumed
  bob.store->delay_reads(1s);
  bob.want(ids, old_url);
  bench.world.run_for(1500ms);
  EXPECT_EQ(bob.fetch->load(old_url).source_pairs, 1024U);
  bob.fetch->replace_source(old_url, new_url);
  ASSERT_TRUE(bench.world.run_until([&] { return bob.outcomes.size() == 1; }, 1min));
  EXPECT_TRUE(bob.outcomes.front());
  EXPECT_EQ(bob.fetch->load(old_url).source_pairs, 0U);
  EXPECT_EQ(bob.fetch->load(new_url).source_pairs, 3000U);
  const auto kept = pending_of(bob);
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_EQ(kept.begin()->first, new_url);
  EXPECT_EQ(bob.ops_pending_on_disk(), 3000U);
}

TEST(CoreFetchReplace, ResumedRequestsGoToTheNewUrlToo) {
  Bench bench;
  auto disk = bench.make_disk();
  Probe moved(bench, "moved");
  const auto ops = bench.ops(0, 10);
  moved.serve(ops);
  const auto old_url = MemoryNetwork::url_of("old");
  make_failing(bench, old_url);
  {
    FetchNode bob(bench, "bob", {}, disk);
    ASSERT_TRUE(bob.request(ids_of(ops), old_url));
  }
  FetchNode bob(bench, "bob", {}, disk);
  bob.fetch->replace_source(old_url, moved.url);  // before the store has answered
  bench.world.run_for(1s);
  EXPECT_EQ(bob.held(ids_of(ops)), 10U);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
}

TEST(CoreFetchReplace, ByItselfOrByThisNodeNothingHappens) {
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto old_url = MemoryNetwork::url_of("old");
  make_silent(bench, old_url);
  Probe old(bench, "old");
  ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 3)), old_url));
  bob.fetch->replace_source(old_url, old_url);
  bob.fetch->replace_source(old_url, bob.url);
  bob.fetch->replace_source(old_url, old_url.relay());
  bob.fetch->replace_source(MemoryNetwork::url_of("unknown"), MemoryNetwork::url_of("other"));
  EXPECT_EQ(bob.fetch->state_summary().pending_requests.begin()->second, std::vector<Url>{old_url});
  bob.check();
}

/// Answers each request with as many ops that were not requested.
void answer_with_others(Probe& probe, std::size_t& next) {
  probe.on_request = [&](const Probe::Request& request) {
    std::vector<MetaOp> others;
    for (std::size_t i = 0; i < request.ids.size(); ++i) others.push_back({{}, testing::make_op(1'000'000 + next++)});
    probe.answer(request.from, others);
  };
}

TEST(CoreFetchConduct, APeerThatAnswersWithOtherOpsIsPutAsideAndLearnsWhy) {
  Bench bench;
  bench.policy = make_sha256_policy();
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  Probe liar(bench, "liar");
  std::size_t next = 0;
  answer_with_others(liar, next);
  const auto ops = bench.ops(0, 200);
  alice.hold(ops);
  bob.want(ids_of(ops), liar.url);
  bench.world.run_for(1s);
  EXPECT_EQ(bob.fetch->stats().peers_put_aside, 1U);
  EXPECT_GE(bob.fetch->stats().ops_unsolicited, 32U);
  EXPECT_EQ(bob.fetch->load(liar.url).source_refused_ops, bob.fetch->stats().ops_unsolicited);
  EXPECT_EQ(liar.disconnects, 1U);
  EXPECT_EQ(bob.fetch->state_summary().peers_on_backoff.count(liar.url), 1U);
  bob.want(ids_of(ops), alice.url);
  bench.world.run_for(100ms);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U) << "the other source has them";
  EXPECT_EQ(bob.held(ids_of(ops)), 200U);
  bob.check();
}

TEST(CoreFetchConduct, ItIsGivenUpInTheEnd) {
  Bench bench;
  bench.policy = make_sha256_policy();
  FetchNode bob(bench, "bob");
  Probe liar(bench, "liar");
  std::size_t next = 0;
  answer_with_others(liar, next);
  ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 200)), liar.url));
  bench.world.run_for(1h);
  ASSERT_EQ(bob.given_up.size(), 1U);
  EXPECT_EQ(bob.given_up[0].orphaned.size(), 200U);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
  EXPECT_LE(next, 32U * 2 + 5 * 16) << "what it could make us take";
  EXPECT_EQ(bob.fetch->stats().peers_put_aside, 5U);
}

TEST(CoreFetchConduct, APeerThatAnswersWithMalformedOpsIsPutAside) {
  Bench bench;
  bench.policy = make_memory_op_policy();
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  peer.on_request = [&](const Probe::Request& request) {
    peer.answer(request.from, std::vector<MetaOp>(request.ids.size(), {{}, Bytes::copy_of("rubbish")}));
  };
  ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 200)), peer.url));
  bench.world.run_for(1s);
  EXPECT_EQ(bob.fetch->stats().peers_put_aside, 1U);
  EXPECT_EQ(bob.fetch->state_summary().peers_on_backoff.count(peer.url), 1U);
  EXPECT_EQ(peer.disconnects, 1U);
}

TEST(CoreFetchConduct, AStrangerThatSendsOpsLosesItsConnection) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  for (std::size_t i = 0; i < 31; ++i) peer.answer(bob.url, bench.ops(i, 1));
  bench.world.run_for(1s);
  EXPECT_EQ(peer.disconnects, 0U);
  peer.answer(bob.url, bench.ops(100, 1));
  bench.world.run_for(1s);
  EXPECT_EQ(peer.disconnects, 1U);
  EXPECT_EQ(bob.fetch->stats().peers_put_aside, 1U);
  EXPECT_EQ(bob.fetch->stats().ops_unsolicited, 32U);
}

TEST(CoreFetchConduct, AnHonestPeerThatIsSlowAndAskedTwiceIsNeverPutAside) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe slow(bench, "slow"), slower(bench, "slower");
  const auto ops = bench.ops(0, 300);
  slow.serve(ops);
  slower.serve(ops);
  // Every answer is overdue when it arrives, so each op is requested from both, repeatedly.
  bench.network->set_links_to(bob.url, {.latency = 2500ms});
  bob.want(ids_of(ops), slow.url);
  bob.want(ids_of(ops), slower.url);
  ASSERT_TRUE(bob.drain());
  bench.world.run_for(1min);
  EXPECT_GT(bob.fetch->stats().ops_duplicate, 0U);
  EXPECT_EQ(bob.fetch->stats().ops_unsolicited, 0U);
  EXPECT_EQ(bob.fetch->stats().peers_put_aside, 0U);
  EXPECT_EQ(slow.disconnects + slower.disconnects, 0U);
}

TEST(CoreFetchConduct, AnAnswerToARemovedSourceIsNoFault) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe slow(bench, "slow");
  const auto ops = bench.ops(0, 100);
  slow.serve(ops);
  bench.network->set_links_to(bob.url, {.latency = 500ms});
  ASSERT_TRUE(bob.request(ids_of(ops), slow.url));
  bench.world.run_for(100ms);
  bob.fetch->remove_source(slow.url);
  bench.world.run_for(1min);
  EXPECT_GE(slow.ids_asked(), 32U);
  EXPECT_EQ(bob.fetch->stats().peers_put_aside, 0U);
  EXPECT_EQ(bob.fetch->stats().ops_unsolicited, 0U);
  EXPECT_EQ(slow.disconnects, 0U);
}

// ---------------------------------------------------------------- removing a source

TEST(CoreFetchRemove, WhatIsBeingLookedUpIsNotRequestedFromIt) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe gone(bench, "gone"), other(bench, "other");
  bob.store->delay_reads(1s);
  bob.want(ids_of(bench.ops(0, 64)), gone.url);
  bob.want(ids_of(bench.ops(32, 64)), other.url);
  bench.world.run_for(500ms);
  bob.fetch->remove_source(gone.url);
  bench.world.run_for(700ms);
  ASSERT_EQ(bob.outcomes.size(), 2U);
  ASSERT_FALSE(bob.outcomes[0]);
  EXPECT_EQ(bob.outcomes[0].error().code, Errc::cancelled);
  EXPECT_TRUE(bob.outcomes[1]);
  EXPECT_EQ(bob.fetch->load(gone.url).source_pairs, 0U);
  EXPECT_EQ(bob.fetch->load(other.url).source_pairs, 64U);
  EXPECT_EQ(gone.ids_asked(), 0U);
  bob.check();
}

TEST(CoreFetchRemove, WhatIsRequestedFromItAgainMeanwhileIsPending) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 64);
  peer.serve(ops);
  bob.store->delay_reads(1s);
  bob.want(ids_of(bench.ops(64, 64)), peer.url);
  bench.world.run_for(500ms);
  bob.fetch->remove_source(peer.url);
  bob.want(ids_of(ops), peer.url);  // while the first list is being looked up
  bench.world.run_for(1min);
  ASSERT_EQ(bob.outcomes.size(), 2U);
  EXPECT_FALSE(bob.outcomes[0]);
  EXPECT_TRUE(bob.outcomes[1]);
  EXPECT_EQ(bob.held(ids_of(ops)), 64U);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
}

TEST(CoreFetchRemove, NothingOfAListOfPiecesStaysInTheStore) {
  Bench bench;
  CoreFetchConfig config;
  config.max_ids_per_request = 100;
  FetchNode bob(bench, "bob", config);
  Probe gone(bench, "gone");
  bench.world.run_ready();  // until it is known what an earlier run left open, a list is one piece
  bob.store->delay_reads(1s);
  bob.want(ids_of(bench.ops(0, 3000)), gone.url);
  bench.world.run_for(1500ms);
  ASSERT_EQ(bob.fetch->load(gone.url).source_pairs, 100U * config.parallel_request_count);  // the first piece
  bob.fetch->remove_source(gone.url);
  bench.world.run_for(1min);
  ASSERT_EQ(bob.outcomes.size(), 1U);
  EXPECT_FALSE(bob.outcomes[0]);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
  bob.check();
}

TEST(CoreFetchRemove, AMovedSourceIsRemovedAtItsNewUrl) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe old(bench, "old"), moved(bench, "moved");
  bob.store->delay_reads(1s);
  bob.want(ids_of(bench.ops(0, 64)), old.url);
  bench.world.run_for(500ms);
  bob.fetch->replace_source(old.url, moved.url);
  bob.fetch->remove_source(moved.url);
  bench.world.run_for(1min);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_EQ(old.ids_asked() + moved.ids_asked(), 0U);
}

TEST(CoreFetchRemove, WhatAnEarlierRunLeftOpenIsForgottenThoughItHasNotBeenRead) {
  Bench bench;
  auto disk = bench.make_disk();
  Probe peer(bench, "peer"), other(bench, "other");
  make_failing(bench, peer.url);
  make_failing(bench, other.url);
  {
    FetchNode bob(bench, "bob", {}, disk);
    ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 10)), peer.url));
    ASSERT_TRUE(bob.request(ids_of(bench.ops(0, 4)), other.url));
  }
  FetchNode bob(bench, "bob", {}, disk);
  bob.fetch->remove_source(peer.url);  // before the store has answered
  bench.world.run_for(1s);
  EXPECT_EQ(bob.fetch->load(peer.url).source_pairs, 0U);
  EXPECT_EQ(bob.fetch->load(other.url).source_pairs, 4U);
  EXPECT_EQ(bob.ops_pending_on_disk(), 4U);
}

}  // namespace
}  // namespace kitsune2
