// Outgoing requests: the reference's flow, sentence by sentence, and our improvements.
#include <numeric>

#include "core_fetch_harness.hpp"
#include "support/whole_messages.hpp"
#include "transport/tx5/framing.hpp"

namespace kitsune2 {
namespace {

using namespace fetch_test;

TEST(CoreFetch, OpsAreFetchedFromAPeerThatHoldsThem) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 1000);
  alice.hold(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  EXPECT_GT(bob.fetch->pending_ops(), 0U);
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bob.held(ids_of(ops)), 1000U);
  EXPECT_EQ(bob.fetch->stats().ops_fetched, 1000U);
  EXPECT_EQ(bob.fetch->stats().bytes_fetched, 64'000U);
  EXPECT_EQ(bob.stored_from[alice.url], 1000U);
  EXPECT_EQ(bob.stored_bytes, 64'000U);
  EXPECT_EQ(alice.fetch->stats().ops_served, 1000U);
  EXPECT_EQ(alice.served_to[bob.url], 1000U);
  bob.check();
}

// Otherwise each would need the receiver's permit, and wait behind those who request permits and do not use them.
TEST(CoreFetch, AnswersAndWritesAreTimed) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 10);
  alice.hold(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  ASSERT_TRUE(bob.drain());
  const auto stats = bob.fetch->stats();
  const auto sum = [](const LatencyHistogram& of) { return std::accumulate(of.counts.begin(), of.counts.end(), 0U); };
  EXPECT_EQ(sum(stats.answers), 1U);
  EXPECT_EQ(sum(stats.store_writes), 1U);
  EXPECT_EQ(sum(alice.fetch->stats().answers), 0U);
  LatencyHistogram one;
  one.add(5ms);  // the bounds belong to the ranges that they end
  one.add(5ms + Duration(1));
  one.add(1h);
  EXPECT_EQ(one.counts[3], 1U);
  EXPECT_EQ(one.counts[4], 1U);
  EXPECT_EQ(one.counts.back(), 1U);
  EXPECT_NEAR(one.sum_seconds, 3600.010001, 1e-6);
}

TEST(CoreFetch, RequestsFitOneFrame) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 20'000, 32);
  peer.serve(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), peer.url));
  ASSERT_TRUE(bob.drain());
  std::size_t most = 0;
  const SpaceId long_space = SpaceId::from_text(std::string(900, 's'));
  for (const auto& request : peer.requests) {
    most = std::max(most, request.ids.size());
    EXPECT_LE(wire::whole_fetch_request(long_space, request.ids).size(), tx5::kMaxChunkBytes);
  }
  EXPECT_GT(most, 300U);
}

TEST(CoreFetch, HeldOpsAreNotAskedFor) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 10);
  bob.hold({ops.begin(), ops.begin() + 6});
  ASSERT_TRUE(bob.request(ids_of(ops), peer.url));
  EXPECT_EQ(bob.fetch->pending_ops(), 4U);
  bench.world.run_for(1s);
  ASSERT_EQ(peer.requests.size(), 1U);
  EXPECT_EQ(peer.requests[0].ids, ids_of({ops.begin() + 6, ops.end()}));
}

TEST(CoreFetch, ARequestForHeldOpsAddsNothing) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 10);
  bob.hold(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), peer.url));
  ASSERT_TRUE(bob.request({}, peer.url));
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  bench.world.run_for(1h);
  EXPECT_TRUE(peer.requests.empty());
}

TEST(CoreFetch, RequestsGoOutInTheOrderOfAdding) {
  Bench bench;
  CoreFetchConfig config;
  config.parallel_request_count = 1;
  config.max_ids_per_request = 10;
  FetchNode bob(bench, "bob", config);
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 100);
  peer.serve(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), peer.url));
  ASSERT_TRUE(bob.drain());
  std::vector<OpId> asked;
  for (const auto& request : peer.requests) asked.insert(asked.end(), request.ids.begin(), request.ids.end());
  EXPECT_EQ(asked, ids_of(ops));
}

TEST(CoreFetch, AnnouncedByManySourcesAtOnceTheFirstOneDoesNotGetAllTheRequests) {
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto ops = bench.ops(0, 1000);
  std::vector<std::unique_ptr<Probe>> peers;
  for (int i = 0; i < 10; ++i) {
    peers.push_back(std::make_unique<Probe>(bench, "peer" + std::to_string(i)));
    peers.back()->serve(ops);
  }
  for (const auto& peer : peers) bob.want(ids_of(ops), peer->url);
  bob.check();
  ASSERT_TRUE(bob.drain());
  std::size_t asked = 0;
  for (const auto& peer : peers) {
    std::size_t of_this = 0;
    for (const auto& request : peer->requests) of_this += request.ids.size();
    EXPECT_GT(of_this, 0U);
    EXPECT_LE(of_this, 2U * 32 + 2U * 128) << "its first requests and, if it answers first, the next ones (R4)";
    asked += of_this;
  }
  EXPECT_EQ(asked, 1000U);
  bob.check();
}

TEST(CoreFetch, AReceivedOpIsNoLongerAskedOfItsOtherSources) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe one(bench, "one"), two(bench, "two");
  const auto ops = bench.ops(0, 5);
  one.serve(ops);
  bob.want(ids_of(ops), one.url);
  bob.want(ids_of(ops), two.url);
  bench.world.run_for(1h);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_EQ(one.ids_asked() + two.ids_asked(), 5U);
  EXPECT_EQ(bob.fetch->state_summary().pending_pairs, 0U);
}

TEST(CoreFetch, TheNextSourceIsAskedOnlyWhenTheFirstIsOverdue) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe silent(bench, "silent"), good(bench, "good");
  const auto ops = bench.ops(0, 5);
  good.serve(ops);
  bob.want(ids_of(ops), silent.url);
  bench.world.run_ready();
  bob.want(ids_of(ops), good.url);
  bench.world.run_until(at(2s - 1us));
  EXPECT_EQ(silent.times(), std::vector<Time>{at(0s)});
  EXPECT_TRUE(good.requests.empty());
  bench.world.run_until(at(2s));
  EXPECT_EQ(good.times(), std::vector<Time>{at(2s)});
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_EQ(bob.fetch->stats().requests_overdue, 1U);
}

TEST(CoreFetch, AskedAgainAfterTheReInsertDelayWhileItHasNotCome) {
  Bench bench;
  CoreFetchConfig config;
  config.re_insert_outgoing_request_delay_ms = 500;
  FetchNode bob(bench, "bob", config);
  Probe silent(bench, "silent");
  const auto ops = bench.ops(0, 1);
  bob.want(ids_of(ops), silent.url);
  bench.world.run_until(at(2s));
  EXPECT_EQ(silent.times(), (std::vector<Time>{at(0ms), at(500ms), at(1000ms), at(1500ms), at(2000ms)}));
  silent.answer(bob.url, ops);
  bench.world.run_until(at(1h));
  EXPECT_EQ(silent.requests.size(), 5U);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
}

TEST(CoreFetch, UnresponsivePeerIsOnTheBackOffListAndNotAsked) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  make_failing(bench, peer.url);
  bob.want(ids_of(bench.ops(0, 3)), peer.url);
  bench.world.run_for(1ms);
  const auto wall = bob.runtime->wall_now();
  const auto summary = bob.fetch->state_summary();
  ASSERT_EQ(summary.peers_on_backoff.size(), 1U);
  EXPECT_EQ(summary.peers_on_backoff.begin()->first, peer.url);
  EXPECT_EQ(summary.peers_on_backoff.begin()->second, wall + (20s - 1ms));
  EXPECT_EQ(bob.fetch->stats().requests_failed, 1U);
  // Nothing more for the same peer is sent either.
  bob.want(ids_of(bench.ops(10, 3)), peer.url);
  bench.world.run_until(at(20s - 1us));
  EXPECT_EQ(bob.fetch->stats().requests_failed, 1U);
  bench.world.run_until(at(20s));
  EXPECT_EQ(bob.fetch->stats().requests_failed, 2U);
}

TEST(CoreFetch, BackOffDoublesAndAtItsMaximumAllRequestsToThePeerAreDropped) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe dead(bench, "dead"), other(bench, "other");
  make_failing(bench, dead.url);
  make_silent(bench, other.url);
  const auto ops = bench.ops(0, 100);
  const auto shared = ids_of({ops.begin(), ops.begin() + 10});
  // Failures at 0, 20, 60, 140 and 300 s: after the intervals 20, 40, 80 and 160.
  std::vector<Time> failures;
  std::uint64_t seen = 0;
  bench.world.on_step([&] {
    for (; seen < bob.fetch->stats().requests_failed; ++seen) failures.push_back(bench.world.now());
  });
  bob.want(ids_of(ops), dead.url);
  bob.want(shared, other.url);
  bench.world.run_ready();
  EXPECT_EQ(bob.ops_pending_on_disk(), 110U);
  bench.world.run_until(at(20s));
  bench.world.run_until(at(300s - 1us));
  EXPECT_TRUE(bob.given_up.empty());
  EXPECT_EQ(bob.fetch->pending_ops(), 100U);
  bench.world.run_until(at(300s));
  bench.world.on_step({});
  // The requests of the first moment fail together, and count once.
  std::erase(failures, at(0s));
  EXPECT_EQ(failures, (std::vector<Time>{at(20s), at(60s), at(140s), at(300s)}));
  ASSERT_EQ(bob.given_up.size(), 1U);
  EXPECT_EQ(bob.given_up[0].at, at(300s));
  EXPECT_EQ(bob.given_up[0].peer, dead.url);
  EXPECT_EQ(bob.given_up[0].orphaned.size(), 90U);
  EXPECT_EQ(bob.fetch->pending_ops(), 10U);
  EXPECT_EQ(bob.fetch->stats().pairs_dropped_unresponsive, 100U);
  EXPECT_TRUE(bob.fetch->state_summary().peers_on_backoff.empty());
  EXPECT_EQ(bob.ops_pending_on_disk(), 10U);
}

TEST(CoreFetch, LastIntervalIsTheLongest) {
  Bench bench;
  CoreFetchConfig config;
  config.first_back_off_interval_ms = 1'000;
  config.last_back_off_interval_ms = 3'000;
  config.num_back_off_intervals = 4;
  FetchNode bob(bench, "bob", config);
  make_failing(bench, MemoryNetwork::url_of("dead"));
  bob.want(ids_of(bench.ops(0, 1)), MemoryNetwork::url_of("dead"));
  bench.world.run_until_idle();
  ASSERT_EQ(bob.given_up.size(), 1U);
  EXPECT_EQ(bob.given_up[0].at, at(1s + 2s + 3s + 3s));
  EXPECT_EQ(bob.fetch->stats().requests_failed, 5U);
}

TEST(CoreFetch, APeerThatReturnsIsAskedAtTheEndOfItsInterval) {
  Bench bench;
  FetchNode bob(bench, "bob"), alice(bench, "alice");
  const auto ops = bench.ops(0, 50);
  alice.hold(ops);
  make_failing(bench, alice.url);
  bob.want(ids_of(ops), alice.url);
  bench.world.run_until(at(5s));
  bench.network->clear_links();
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bench.world.now(), at(20s));
  EXPECT_TRUE(bob.fetch->state_summary().peers_on_backoff.empty());
}

TEST(CoreFetch, ParallelCountHasAnEffect) {
  const auto took = [](std::uint32_t count, std::uint32_t most) {
    MemoryNetworkOptions options;
    options.link.latency = 50ms;
    Bench bench(1, options);
    CoreFetchConfig config;
    config.parallel_request_count = count;
    config.max_parallel_request_count = most;
    config.max_ids_per_request = 32;
    FetchNode alice(bench, "alice"), bob(bench, "bob", config);
    const auto ops = bench.ops(0, 3200);
    alice.hold(ops);
    bob.want(ids_of(ops), alice.url);
    EXPECT_TRUE(bob.drain());
    return bench.world.now().time_since_epoch();
  };
  // 100 messages of 32 ids, with a round trip of 100 ms, and 100 ms of preflights.
  EXPECT_EQ(took(1, 1024), 100ms + 100 * 100ms);
  EXPECT_EQ(took(2, 2), 100ms + 50 * 100ms);
  EXPECT_EQ(took(8, 1024), 100ms + 13 * 100ms);
  // The default follows the round trip.
  EXPECT_LE(took(2, 1024), 100ms + 5 * 100ms);
}

TEST(CoreFetch, FailingAndSilentPeersDelayNoOthers) {
  const auto took = [](int bad, bool failing) {
    MemoryNetworkOptions options;
    options.link.latency = 10ms;
    Bench bench(1, options);
    FetchNode alice(bench, "alice"), bob(bench, "bob");
    const auto ops = bench.ops(0, 100);
    alice.hold(ops);
    for (int i = 0; i < bad; ++i) {
      const auto url = MemoryNetwork::url_of("bad" + std::to_string(i));
      if (failing) {
        make_failing(bench, url, 1s);
      } else {
        make_silent(bench, url);
      }
      bob.want(ids_of(bench.ops(100'000 + 2000 * static_cast<std::uint64_t>(i), 2000)), url);
    }
    bob.want(ids_of(ops), alice.url);
    EXPECT_TRUE(bench.world.run_until([&] { return bob.stored_from[alice.url] == 100; }, 1h));
    return bench.world.now().time_since_epoch();
  };
  const auto undisturbed = took(0, false);
  EXPECT_EQ(took(5, true), undisturbed);
  EXPECT_EQ(took(5, false), undisturbed);
}

TEST(CoreFetch, EightSourcesAreOneDownload) {
  MemoryNetworkOptions options;
  options.link.latency = 50ms;
  Bench bench(1, options);
  FetchNode bob(bench, "bob");
  const auto ops = bench.ops(0, 1000, 1024);
  std::vector<std::unique_ptr<FetchNode>> sources;
  for (int i = 0; i < 8; ++i) {
    sources.push_back(std::make_unique<FetchNode>(bench, "source" + std::to_string(i)));
    sources.back()->hold(ops);
  }
  for (const auto& source : sources) bob.want(ids_of(ops), source->url);
  ASSERT_TRUE(bob.drain());
  bench.world.run_for(10s);
  std::uint64_t served = 0, most = 0;
  for (const auto& source : sources) {
    served += source->fetch->stats().bytes_served;
    most = std::max(most, source->fetch->stats().bytes_served);
  }
  EXPECT_EQ(served, 1000U * 1024U);
  EXPECT_LT(most, served / 2) << "the sources share the work";
}

TEST(CoreFetch, NothingIsLostAboveSixteenThousandPending) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 100'000, 32);
  alice.hold(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bob.held(ids_of(ops)), 100'000U);
  EXPECT_EQ(alice.fetch->stats().ops_served, 100'000U) << "each once";
}

TEST(CoreFetch, RequestsAreCoalesced) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 20'000, 32);
  peer.serve(ops);
  ASSERT_TRUE(bob.request(ids_of(ops), peer.url));
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(peer.ids_asked(), 20'000U);
  EXPECT_LT(peer.requests.size(), 80U);
  for (const auto& request : peer.requests) EXPECT_LE(request.ids.size(), 512U);
}

TEST(CoreFetch, AFloodOfIdsIsRefusedAsAWholeAtTheBound) {
  Bench bench;
  CoreFetchConfig config;
  config.max_pending = 100'000;
  config.max_pending_per_peer = 60'000;
  FetchNode bob(bench, "bob", config);
  for (const auto* name : {"one", "two", "three"}) make_silent(bench, MemoryNetwork::url_of(name));
  Probe one(bench, "one"), two(bench, "two"), three(bench, "three");
  EXPECT_TRUE(bob.request(ids_of(bench.ops(0, 50'000, 32)), one.url));
  const auto over_peer = bob.request(ids_of(bench.ops(50'000, 10'001, 32)), one.url);
  ASSERT_FALSE(over_peer);
  EXPECT_EQ(over_peer.error().code, Errc::overloaded);
  EXPECT_EQ(bob.fetch->pending_ops(), 50'000U);
  EXPECT_TRUE(bob.request(ids_of(bench.ops(50'000, 50'000, 32)), two.url));
  const auto over_all = bob.request(ids_of(bench.ops(200'000, 1, 32)), three.url);
  ASSERT_FALSE(over_all);
  EXPECT_EQ(over_all.error().code, Errc::overloaded);
  EXPECT_EQ(bob.fetch->pending_ops(), 100'000U);
  // Known ops are no new request.
  EXPECT_TRUE(bob.request(ids_of(bench.ops(0, 50'000, 32)), one.url));
  EXPECT_EQ(bob.ops_pending_on_disk(), 100'000U) << "what was refused is not kept";
}

TEST(CoreFetch, AFloodThatIsStillBeingLookedUpCountsToo) {
  Bench bench;
  CoreFetchConfig config;
  config.max_pending = config.max_pending_per_peer = 1000;
  FetchNode bob(bench, "bob", config);
  bob.store->delay_reads(1s);
  for (std::uint64_t i = 0; i < 5; ++i) {
    bob.want(ids_of(bench.ops(i * 400, 400)), MemoryNetwork::url_of("peer" + std::to_string(i)));
  }
  bench.world.run_for(500ms);
  EXPECT_EQ(bob.outcomes.size(), 3U) << "refused at once";
  bench.world.run_for(1s);
  EXPECT_EQ(bob.outcomes.size(), 5U);
  EXPECT_EQ(bob.fetch->pending_ops(), 800U);
}

TEST(CoreFetch, AFailedLookUpIsTheCallersError) {
  Bench bench;
  FetchNode bob(bench, "bob");
  bob.store->fail_reads(make_error(Errc::io, "no such disk"));
  const auto r = bob.request(ids_of(bench.ops(0, 3)), MemoryNetwork::url_of("peer"));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Errc::io);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
}

TEST(CoreFetch, TheFirstOfALongListAreAskedForWhileTheRestIsLookedUp) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 5000);
  peer.serve(ops);
  bench.world.run_ready();  // nothing is to be resumed
  bob.store->delay_reads(1s);
  bob.want(ids_of(ops), peer.url);
  int drained = 0;
  bob.fetch->notify_on_drained([&] { ++drained; });
  bench.world.run_for(1500ms);
  EXPECT_EQ(bob.held(ids_of(ops)), 1024U);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_TRUE(bob.outcomes.empty());
  EXPECT_EQ(drained, 0) << "there is more to come";
  ASSERT_TRUE(bob.drain(1min));
  bench.world.run_ready();
  EXPECT_TRUE(bob.outcomes.front());
  EXPECT_EQ(bob.held(ids_of(ops)), 5000U);
  EXPECT_EQ(peer.ids_asked(), 5000U);
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
  EXPECT_EQ(drained, 1);
  bob.check();
}

/// A node that looks up 3,000 ops of a silent peer, with a second for each piece.
struct LongLookUp {
  LongLookUp() {
    make_silent(bench, peer);
    bench.world.run_ready();  // nothing is to be resumed
    bob.store->delay_reads(1s);
    bob.want(ids, peer);
  }
  Bench bench;
  FetchNode bob{bench, "bob"};
  const Url peer = MemoryNetwork::url_of("peer");
  Probe probe{bench, "peer"};
  const std::vector<OpId> ids = ids_of(bench.ops(0, 3000));
};

TEST(CoreFetch, AFailedLookUpInALongListIsTheCallersErrorAndCanBeRepeated) {
  LongLookUp w;
  w.bench.world.run_for(500ms);
  w.bob.store->fail_reads(make_error(Errc::io, "no such disk"));
  w.bench.world.run_for(1h);
  ASSERT_EQ(w.bob.outcomes.size(), 1U);
  ASSERT_FALSE(w.bob.outcomes.front());
  EXPECT_EQ(w.bob.outcomes.front().error().code, Errc::io);
  EXPECT_EQ(w.bob.fetch->pending_ops(), 1024U) << "those are open";
  EXPECT_EQ(w.bob.ops_pending_on_disk(), 0U) << "but nobody was told that they are durable";
  w.bob.store->fail_reads(std::nullopt);
  EXPECT_TRUE(w.bob.request(w.ids, w.peer));
  EXPECT_EQ(w.bob.fetch->pending_ops(), 3000U);
  EXPECT_EQ(w.bob.ops_pending_on_disk(), 3000U);
}

TEST(CoreFetch, OpsRequestedTwiceAtOnceAreDurableForBothCallers) {
  LongLookUp w;
  w.bench.world.run_for(1500ms);  // its first piece is pending, and not in the store
  const auto writes = w.bob.store->writes();
  EXPECT_TRUE(w.bob.request({w.ids.front()}, w.peer));
  EXPECT_EQ(w.bob.ops_pending_on_disk(), 3000U) << "it waits for the list, which is written once";
  EXPECT_EQ(w.bob.store->writes() - writes, 1U);
  ASSERT_TRUE(w.bench.world.run_until([&] { return w.bob.outcomes.size() == 1; }, 1min));
  EXPECT_EQ(w.bob.ops_pending_on_disk(), 3000U);
}

TEST(CoreFetch, StoppedInALongListItIsCancelled) {
  LongLookUp w;
  w.bench.world.run_for(1500ms);
  bool stopped = false;
  w.bob.fetch->stop([&] { stopped = true; });
  w.bench.world.run_for(1h);
  EXPECT_TRUE(stopped);
  ASSERT_EQ(w.bob.outcomes.size(), 1U);
  EXPECT_EQ(w.bob.outcomes.front().error().code, Errc::cancelled);
}

TEST(CoreFetch, SourcesThatMakeNoSenseAreRefused) {
  Bench bench;
  FetchNode bob(bench, "bob");
  bench.world.run_ready();
  const auto ids = ids_of(bench.ops(0, 1));
  for (const auto& source : {Url(), Url::parse("ws://memory:1").value(), bob.url}) {
    const auto r = bob.request(ids, source);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::invalid_argument);
  }
  EXPECT_EQ(bob.request({OpId()}, MemoryNetwork::url_of("peer")).error().code, Errc::invalid_argument);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
}

TEST(CoreFetch, ARemovedSourceIsNotAskedAnyMore) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe gone(bench, "gone"), stays(bench, "stays");
  const auto ops = bench.ops(0, 20);
  bob.want(ids_of(ops), gone.url);
  bench.world.run_ready();
  const auto asked = gone.requests.size();
  bob.want(ids_of({ops.begin(), ops.begin() + 5}), stays.url);
  bench.world.run_for(1ms);
  bob.fetch->remove_source(gone.url);
  bench.world.run_for(1ms);
  EXPECT_EQ(bob.fetch->pending_ops(), 5U);
  EXPECT_EQ(stays.ids_asked(), 5U) << "at once";
  EXPECT_EQ(bob.ops_pending_on_disk(), 5U);
  bench.world.run_for(10min);
  EXPECT_EQ(gone.requests.size(), asked);
  EXPECT_TRUE(bob.given_up.empty());
}

TEST(CoreFetch, BeingOfflineIsNotThePeersFault) {
  Bench bench;
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 100);
  alice.hold(ops);
  bench.world.run_ready();
  bench.network->change_url(bob.url, 90s);
  bench.world.run_ready();
  bob.want(ids_of(ops), alice.url);
  bench.world.run_until(at(89s));
  EXPECT_EQ(bob.fetch->pending_ops(), 100U);
  EXPECT_EQ(bob.fetch->stats().requests_failed, 0U);
  EXPECT_TRUE(bob.fetch->state_summary().peers_on_backoff.empty());
  ASSERT_TRUE(bob.drain());
  EXPECT_LE(bench.world.now(), at(90s)) << "asked as soon as it is back";
  EXPECT_EQ(alice.fetch->stats().ops_served, 100U);
}

TEST(CoreFetch, OpsResumedBeforeThereIsAUrlAreRequestedOnceThereIsOne) {
  // Found by tests/net/kill_rounds.py: each resumed fetch started with a re-insert delay without requests.
  Bench bench;
  FetchNode alice(bench, "alice");
  const auto disk = bench.make_disk();
  const auto ops = bench.ops(0, 100);
  alice.hold(ops);
  bench.world.run_ready();
  {
    FetchNode bob(bench, "bob", {}, disk);
    bench.network->go_offline(bob.url, 90s);
    bob.want(ids_of(ops), alice.url);
    bench.world.run_ready();
  }
  FetchNode bob(bench, "bob", {}, disk);
  bench.network->go_offline(bob.url, 500ms);
  bench.world.run_ready();
  EXPECT_EQ(bob.fetch->pending_ops(), 100U);
  const Time before = bench.world.now();
  ASSERT_TRUE(bob.drain());
  EXPECT_LE(bench.world.now(), before + 500ms);
  EXPECT_EQ(alice.fetch->stats().ops_served, 100U);
}

TEST(CoreFetch, AnOpThatLeftAnUnsentRequestIsNotSentWithIt) {
  // Found by the simulator (relay_small, seed 73): the op was requested twice from the same peer at the same time.
  Bench bench;
  CoreFetchConfig config;
  config.parallel_request_count = 2;
  FetchNode bob(bench, "bob", config);
  Probe first(bench, "first");
  bench.network->go_offline(bob.url, 10s);
  make_silent(bench, MemoryNetwork::url_of("second"));
  const auto ids = ids_of(bench.ops(0, 1));
  bob.want(ids, first.url);
  bob.want(ids, MemoryNetwork::url_of("second"));
  for (int tenths = 0; tenths < 600; ++tenths) {
    bench.world.run_for(100ms);
    bob.check();
  }
  const auto times = first.times();
  ASSERT_GE(times.size(), 2U);
  for (std::size_t i = 1; i < times.size(); ++i) EXPECT_GE(times[i] - times[i - 1], 2s) << i;
}

TEST(CoreFetch, RequestsOfABrokenConnectionGoToOthersAtOnce) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe one(bench, "one"), two(bench, "two");
  const auto ops = bench.ops(0, 5);
  two.serve(ops);
  bob.want(ids_of(ops), one.url);
  bench.world.run_ready();
  bob.want(ids_of(ops), two.url);
  bench.world.run_until(at(100ms));
  EXPECT_EQ(one.ids_asked(), 5U);
  EXPECT_TRUE(two.requests.empty());
  one.disconnect(bob.url);
  bench.world.run_until(at(100ms));
  EXPECT_EQ(two.ids_asked(), 5U);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_TRUE(bob.fetch->state_summary().peers_on_backoff.empty());
}

TEST(CoreFetch, APeerThatAnswersIsAskedAgainAtOnceWhenItsConnectionBreaks) {
  MemoryNetworkOptions options;
  options.link.latency = 10ms;
  Bench bench(1, options);
  CoreFetchConfig config;
  config.max_ids_per_request = 16;
  FetchNode alice(bench, "alice"), bob(bench, "bob", config);
  const auto ops = bench.ops(0, 1000);
  alice.hold(ops);
  bob.want(ids_of(ops), alice.url);
  ASSERT_TRUE(bench.world.run_until([&] { return bob.stored_from[alice.url] > 100; }, 1h));
  bench.network->cut(alice.url, bob.url, true);
  ASSERT_TRUE(bob.drain());
  // 63 messages, two at a time, 20 ms each; preflights twice; a message of each window repeated.
  EXPECT_LE(bench.world.now(), at(2s + 100ms));
  EXPECT_EQ(bob.held(ids_of(ops)), 1000U);
}

TEST(CoreFetch, APeerThatHangsUpOnEachRequestIsAskedOnceADelay) {
  Bench bench;
  FetchNode bob(bench, "bob");
  Probe rude(bench, "rude");
  rude.on_request = [&](const Probe::Request& request) { rude.disconnect(request.from); };
  bob.want(ids_of(bench.ops(0, 3)), rude.url);
  bench.world.run_until(at(5s));
  EXPECT_EQ(rude.times(), (std::vector<Time>{at(0s), at(2s), at(4s)}));
}

TEST(CoreFetch, ProgressOfALongMessageKeepsItsRequestAlive) {
  MemoryNetworkOptions options;
  options.link.bytes_per_second = 100'000;  // one op takes ten seconds, five times the delay
  Bench bench(1, options);
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 1, 1'000'000);
  alice.hold(ops);
  bob.want(ids_of(ops), alice.url);
  ASSERT_TRUE(bob.drain());
  EXPECT_GT(bench.world.now(), at(10s));
  EXPECT_EQ(bob.fetch->stats().requests_sent, 1U);
  EXPECT_EQ(alice.fetch->stats().ops_served, 1U);
}

TEST(CoreFetch, BytesOfAnAnswerThatIsNotWholeYetAreSeen) {
  MemoryNetworkOptions options;
  options.link.bytes_per_second = 100'000;  // the op takes ten seconds
  Bench bench(1, options);
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto ops = bench.ops(0, 1, 1'000'000);
  alice.hold(ops);
  bob.want(ids_of(ops), alice.url);
  const auto load = [&] { return bob.fetch->load(alice.url); };
  ASSERT_TRUE(bench.world.run_until([&] { return load().source_received_bytes > 0; }, 5s));
  std::uint64_t last = 0;
  for (int second = 0; second < 7; ++second) {
    bench.world.run_for(1s);
    EXPECT_GT(load().source_received_bytes, last) << "in second " << second;
    EXPECT_EQ(load().arriving_bytes, load().source_received_bytes) << "nothing is stored yet";
    EXPECT_EQ(bob.fetch->stats().bytes_received, load().source_received_bytes);
    EXPECT_EQ(bob.fetch->stats().bytes_fetched, 0U);
    last = load().source_received_bytes;
  }
  EXPECT_EQ(bob.fetch->load(MemoryNetwork::url_of("somebody")).source_received_bytes, 0U);
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(load().arriving_bytes, 0U) << "it is stored";
  // The message has some bytes around the op.
  EXPECT_GE(bob.fetch->stats().bytes_received, 1'000'000U);
  EXPECT_LE(bob.fetch->stats().bytes_received, 1'000'500U);
}

TEST(CoreFetch, HalfAnAnswerThatIsLostIsNoLongerArriving) {
  MemoryNetworkOptions options;
  options.link.bytes_per_second = 100'000;
  Bench bench(1, options);
  FetchNode bob(bench, "bob");
  Probe source(bench, "source");
  const auto ops = bench.ops(0, 1, 1'000'000);
  source.serve(ops);
  bob.want(ids_of(ops), source.url);
  ASSERT_TRUE(bench.world.run_until([&] { return bob.fetch->load(source.url).arriving_bytes > 300'000; }, 10s));
  bob.transport->disconnect(source.url, {});
  ASSERT_TRUE(bench.world.run_until([&] { return bob.fetch->load(source.url).arriving_bytes < 100'000; }, 3s));
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bob.fetch->load(source.url).arriving_bytes, 0U);
  EXPECT_EQ(bob.fetch->stats().bytes_fetched, 1'000'000U);
  EXPECT_GT(bob.fetch->stats().bytes_received, 1'300'000U) << "what was lost came too";
}

TEST(CoreFetch, UnrequestedBytesDoNotCountAsArriving) {
  MemoryNetworkOptions options;
  options.link.bytes_per_second = 100'000;
  Bench bench(1, options);
  FetchNode bob(bench, "bob");
  Probe stranger(bench, "stranger");
  stranger.answer(bob.url, bench.ops(0, 1, 1'000'000));
  for (int second = 0; second < 15; ++second) {
    bench.world.run_for(1s);
    EXPECT_EQ(bob.fetch->load(stranger.url).arriving_bytes, 0U);
  }
  EXPECT_EQ(bob.fetch->stats().ops_unsolicited, 1U);
  EXPECT_EQ(bob.fetch->stats().bytes_received, 0U);
  EXPECT_EQ(bob.fetch->load(stranger.url).source_refused_ops, 0U);
}

TEST(CoreFetch, TheSummarySaysWhatIsPendingFromWhom) {
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto one = MemoryNetwork::url_of("one"), two = MemoryNetwork::url_of("two");
  make_silent(bench, one);
  make_silent(bench, two);
  Probe p1(bench, "one"), p2(bench, "two");
  const auto ids = ids_of(bench.ops(0, 3));
  bob.want(ids, one);
  bob.want({ids[0]}, two);
  bench.world.run_ready();
  const auto summary = bob.fetch->state_summary();
  EXPECT_EQ(summary.pending_ops, 3U);
  EXPECT_EQ(summary.pending_pairs, 4U);
  EXPECT_EQ(summary.pending_requests.size(), 3U);
  EXPECT_EQ(summary.pending_requests.at(ids[0]), (std::vector<Url>{one, two}));
  EXPECT_EQ(summary.pending_requests.at(ids[2]), (std::vector<Url>{one}));
  EXPECT_GE(summary.outstanding_requests, 1U);
}

TEST(CoreFetch, AConfigOutOfRangeIsRefusedByName) {
  Bench bench;
  auto runtime = bench.world.make_runtime();
  auto transport = make_transport(*runtime, bench.network->make_backend(*runtime, "x"), nullptr);
  CoreFetchConfig config;
  config.parallel_request_count = 0;
  const auto made = make_core_fetch(*runtime, config, kSpace, bench.make_disk(), transport);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Errc::invalid_config);
  EXPECT_NE(made.error().message.find("coreFetch.parallelRequestCount"), std::string::npos);
  runtime->crash();
}

TEST(CoreFetch, ASecondFetchOfTheSameSpaceIsRefused) {
  Bench bench;
  FetchNode bob(bench, "bob");
  const auto made = make_core_fetch(*bob.runtime, {}, kSpace, bob.store, bob.transport);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Errc::already_exists);
}

}  // namespace
}  // namespace kitsune2
