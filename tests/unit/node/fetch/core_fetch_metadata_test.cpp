// Metadata that peers published with op ids: how the fetch module keeps it, and to whom it goes.
#include <gtest/gtest.h>

#include <deque>
#include <random>

#include "unit/node/fetch/core_fetch_harness.hpp"

namespace kitsune2::fetch_test {
namespace {

/// The prefix policy, with an opinion about metadata.
struct Judge final : OpPolicy {
  Result<OpDescription> describe(ByteView op_data) const override { return inner->describe(op_data); }
  Result<void> judge_incoming(const OpDescription& op, ByteView op_data, ByteView metadata) const override {
    EXPECT_EQ(inner->describe(op_data)->op_id, op.op_id);
    seen.push_back({op.op_id, Bytes::copy_of(metadata)});
    if (as_text(metadata) == "refuse" || (refuses_none && metadata.empty()))
      return make_error(Errc::invalid_argument, "said so");
    return {};
  }
  std::string_view name() const override { return inner->name(); }
  std::shared_ptr<const OpPolicy> inner = make_prefix_policy();
  bool refuses_none = false;  ///< ops without metadata, too
  mutable std::vector<PublishOp> seen;
};

struct CoreFetchMetadata : ::testing::Test {
  CoreFetchMetadata() { bench.policy = judge; }
  Result<void> publish(FetchNode& node, const std::vector<PublishOp>& ops, const Url& from) {
    return await<void>(bench.world, [&](auto done) { node.fetch->request_published_ops(ops, from, done); });
  }
  std::shared_ptr<void> listen(FetchNode& node) {
    return node.fetch->subscribe({.metadata_stored = [this](const Url& peer, const std::vector<PublishOp>& ops) {
      for (const auto& op : ops) told.emplace_back(peer, op);
    }});
  }

  std::shared_ptr<Judge> judge = std::make_shared<Judge>();
  Bench bench;
  std::vector<std::pair<Url, PublishOp>> told;
};

TEST_F(CoreFetchMetadata, GoesToThePolicyTheStoreAndListenersWithTheOp) {
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  const auto ops = bench.ops(1, 3);
  alice.serve(ops);
  const auto ear = listen(bob);
  const PublishOp with{ops[1].op_id, Bytes::copy_of("about the second")};
  ASSERT_TRUE(publish(bob, {{ops[0].op_id, {}}, with, {ops[2].op_id, {}}}, alice.url));
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bob.held(ids_of(ops)), 3U);
  EXPECT_EQ(bob.store->described(), std::vector{with});
  ASSERT_EQ(judge->seen.size(), 3U);
  for (const auto& seen : judge->seen) EXPECT_EQ(seen.metadata, seen.op_id == with.op_id ? with.metadata : Bytes());
  EXPECT_EQ(told, (std::vector<std::pair<Url, PublishOp>>{{alice.url, with}}));
  // What is held is not asked for again, and nothing is kept of it.
  ASSERT_TRUE(publish(bob, {{with.op_id, Bytes::copy_of("again")}}, alice.url));
  bob.check();
  EXPECT_EQ(bob.store->described().size(), 1U);
}

// Reference: core_fetch: metadata is never overwritten, but filled in; and it belongs to the source.
TEST_F(CoreFetchMetadata, TheFirstOfASourceStaysAndOnlyThatOfTheSenderCounts) {
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice"), carol(bench, "carol");
  const auto ops = bench.ops(1, 2);
  alice.serve({ops[0]});
  const auto say = [&](std::size_t op, const char* what, const Url& from) {
    ASSERT_TRUE(publish(bob, {{ops[op].op_id, Bytes::copy_of(what)}}, from));
  };
  ASSERT_TRUE(publish(bob, {{ops[1].op_id, {}}}, carol.url));
  say(1, "filled in", carol.url);
  say(1, "too late", carol.url);
  say(1, "of another", alice.url);
  say(0, "of alice", alice.url);
  ASSERT_TRUE(bench.world.run_until([&] { return bob.held(ids_of(ops)) == 1; }, 1min));
  carol.answer(bob.url, {ops[1]});
  ASSERT_TRUE(bench.world.run_until([&] { return bob.held(ids_of(ops)) == 2; }, 1min));
  const auto& described = bob.store->described();
  ASSERT_EQ(described.size(), 2U);
  EXPECT_EQ(described[0].metadata.text(), "of alice");
  EXPECT_EQ(described[1].metadata.text(), "filled in");
  bob.check();
}

TEST_F(CoreFetchMetadata, WhatThePolicyRefusesIsAnInvalidOpOfThePeerAndNotFetchedAgain) {
  FetchNode bob(bench, "bob", {.persist_pending = true}, bench.make_disk());
  Probe alice(bench, "alice");
  const auto ops = bench.ops(1, 2);
  alice.serve(ops);
  ASSERT_TRUE(
      publish(bob, {{ops[0].op_id, Bytes::copy_of("refuse")}, {ops[1].op_id, Bytes::copy_of("fine")}}, alice.url));
  ASSERT_TRUE(bench.world.run_until([&] { return bob.held(ids_of(ops)) == 1; }, 1min));
  EXPECT_EQ(bob.invalid[alice.url], 1U);
  ASSERT_FALSE(bob.invalid_reasons.empty());
  EXPECT_EQ(bob.invalid_reasons.front(), "invalid_argument: said so");
  bob.check();
  bench.world.run_for(24h);
  EXPECT_EQ(alice.ids_asked(), 2U) << "the answer would be the same";
  EXPECT_EQ(bob.invalid[alice.url], 1U);
  EXPECT_EQ(bob.fetch->pending_ops(), 0U);
  EXPECT_EQ(bob.ops_pending_on_disk(), 0U);
  bob.check();
}

TEST_F(CoreFetchMetadata, APeerIsNotPutAsideForWhatThePolicyRefuses) {
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  const auto ops = bench.ops(1, 100);
  alice.serve(ops);
  std::vector<PublishOp> published;
  for (const auto& op : ops) published.push_back({op.op_id, Bytes::copy_of("refuse")});
  ASSERT_TRUE(publish(bob, published, alice.url));
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bob.invalid[alice.url], 100U);
  EXPECT_EQ(alice.ids_asked(), 100U);
  EXPECT_EQ(bob.fetch->stats().peers_put_aside, 0U);
  EXPECT_EQ(alice.disconnects, 0U);
}

TEST_F(CoreFetchMetadata, WhatIsRefusedFromOnePeerIsAskedOfAnother) {
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice"), carol(bench, "carol");
  const auto ops = bench.ops(1, 1);
  ASSERT_TRUE(publish(bob, {{ops[0].op_id, Bytes::copy_of("refuse")}}, alice.url));
  ASSERT_TRUE(bench.world.run_until([&] { return alice.ids_asked() == 1; }, 1min));
  ASSERT_TRUE(publish(bob, {{ops[0].op_id, Bytes::copy_of("fine")}}, carol.url));
  carol.serve(ops);
  alice.answer(bob.url, ops);
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(alice.ids_asked(), 1U);
  ASSERT_EQ(bob.store->described().size(), 1U);
  EXPECT_EQ(bob.store->described()[0].metadata.text(), "fine");
  EXPECT_EQ(bob.invalid[alice.url], 1U);
  EXPECT_EQ(bob.invalid[carol.url], 0U);
  bob.check();
}

// Each such op is requested again from the one that was asked for it.
TEST_F(CoreFetchMetadata, WhoWasNotAskedIsPutAsideForWhatThePolicyRefuses) {
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice"), carol(bench, "carol");
  const auto ops = bench.ops(1, 1);
  judge->refuses_none = true;
  ASSERT_TRUE(publish(bob, {{ops[0].op_id, Bytes::copy_of("fine")}}, carol.url));
  unsigned messages = 0;
  for (; alice.disconnects == 0 && messages < 100; ++messages) {
    alice.answer(bob.url, ops);
    bench.world.run_for(1s);
    bob.check();
  }
  EXPECT_GE(messages, FetchCore::kBadOps);
  EXPECT_LT(messages, 2 * FetchCore::kBadOps);
  EXPECT_EQ(bob.fetch->stats().peers_put_aside, 1U);
  carol.answer(bob.url, ops);
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bob.held(ids_of(ops)), 1U);
}

// Metadata may come while a large response is being named, when its first ops have been judged already.
TEST_F(CoreFetchMetadata, TheStoreAndListenersGetExactlyWhatWasJudged) {
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  const auto ops = bench.ops(1, 6, 700'000);
  const auto ear = listen(bob);
  ASSERT_TRUE(bob.request(ids_of(ops), alice.url));
  ASSERT_TRUE(bench.world.run_until([&] { return alice.ids_asked() > 0; }, 1min));
  alice.answer(bob.url, ops);
  ASSERT_TRUE(bench.world.run_until([&] { return !judge->seen.empty(); }, 1min));
  ASSERT_LT(judge->seen.size(), ops.size()) << "it is named in pieces";
  std::vector<PublishOp> late;
  for (const auto& op : ops) late.push_back({op.op_id, Bytes::copy_of(&op == &ops.front() ? "refuse" : "fine")});
  bob.fetch->request_published_ops(late, alice.url, [](const Result<void>&) {});
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bob.held(ids_of(ops)), ops.size());
  std::vector<PublishOp> judged_with;
  for (const auto& seen : judge->seen) {
    if (!seen.metadata.empty()) judged_with.push_back(seen);
  }
  EXPECT_EQ(judge->seen.size(), ops.size()) << "each once";
  EXPECT_FALSE(judged_with.empty());
  EXPECT_EQ(bob.store->described(), judged_with);
  std::vector<PublishOp> told_of;
  for (const auto& [peer, op] : told) told_of.push_back(op);
  EXPECT_EQ(told_of, judged_with);
  bob.check();
}

TEST_F(CoreFetchMetadata, OnlyWhatWouldBeStoredIsJudged) {
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice"), carol(bench, "carol");
  const auto ops = bench.ops(1, 2);
  judge->refuses_none = true;
  ASSERT_TRUE(publish(bob, {{ops[0].op_id, Bytes::copy_of("fine")}}, alice.url));
  ASSERT_TRUE(bench.world.run_until([&] { return alice.ids_asked() == 1; }, 1min));
  alice.answer(bob.url, {ops[0]});
  ASSERT_TRUE(bob.drain());
  ASSERT_EQ(judge->seen.size(), 1U);
  alice.answer(bob.url, {ops[0]});  // a copy
  carol.answer(bob.url, {ops[1]});  // not asked for
  bench.world.run_for(1min);
  EXPECT_EQ(judge->seen.size(), 1U);
  EXPECT_EQ(bob.invalid[alice.url] + bob.invalid[carol.url], 0U);
}

TEST_F(CoreFetchMetadata, WhatNobodyAskedForIsJudgedIfItWouldBeStored) {
  FetchNode bob(bench, "bob", {.accept_unsolicited = true});
  Probe alice(bench, "alice");
  const auto ops = bench.ops(1, 1);
  judge->refuses_none = true;
  alice.answer(bob.url, ops);
  bench.world.run_for(1min);
  EXPECT_EQ(judge->seen.size(), 1U);
  EXPECT_EQ(bob.invalid[alice.url], 1U);
  EXPECT_EQ(bob.held(ids_of(ops)), 0U);
}

TEST_F(CoreFetchMetadata, AnOpThatCouldNotBeStoredComesWithItAgain) {
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  const auto ops = bench.ops(1, 1);
  const auto ear = listen(bob);
  ASSERT_TRUE(publish(bob, {{ops[0].op_id, Bytes::copy_of("kept")}}, alice.url));
  bob.store->fail_next_writes(1, make_error(Errc::disk_full, "no room"));
  alice.answer(bob.url, ops);
  ASSERT_TRUE(bench.world.run_until([&] { return !bob.store_errors.empty(); }, 1min));
  bob.check();
  alice.serve(ops);
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bob.store_errors.size(), 1U);
  ASSERT_EQ(bob.store->described().size(), 2U);
  EXPECT_EQ(bob.store->described()[1].metadata.text(), "kept");
  ASSERT_EQ(told.size(), 1U);
  bob.check();
}

TEST_F(CoreFetchMetadata, WhatThereIsNoRoomForIsDroppedAndItsOpIsFetched) {
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  const auto ops = bench.ops(1, 30);
  alice.serve(ops);
  std::vector<PublishOp> published;
  for (const auto& op : ops) published.push_back({op.op_id, Bytes(std::string(1U << 20, 'm'))});
  ASSERT_TRUE(publish(bob, published, alice.url));
  ASSERT_TRUE(bob.drain());
  EXPECT_EQ(bob.held(ids_of(ops)), 30U);
  EXPECT_EQ(bob.store->described().size() + bob.fetch->stats().metadata_dropped, 30U);
  EXPECT_EQ(bob.store->described().size(), 3U) << "a quarter of a fifth of 64 MiB";
}

TEST_F(CoreFetchMetadata, WhatIsBeingLookedUpCounts) {
  FetchNode bob(bench, "bob");
  Probe alice(bench, "alice");
  const auto ops = bench.ops(1, 30);
  bob.hold({ops.begin(), ops.begin() + 10});
  bench.world.run_for(1s);
  bob.store->delay_reads(1s);
  const Bytes about(std::string(1U << 20, 'm'));
  std::size_t handled = 0;
  for (const auto& op : ops) {
    bob.fetch->request_published_ops({{op.op_id, about}}, alice.url,
                                     [&](const Result<void>& r) { handled += r ? 1 : 0; });
  }
  EXPECT_EQ(bob.fetch->stats().metadata_dropped, 27U) << "a quarter of a fifth of 64 MiB is kept";
  ASSERT_TRUE(bench.world.run_until([&] { return handled == 30; }, 1min));
  bob.check();
  // Those that were kept are held already, so there is room again.
  ASSERT_TRUE(publish(bob, {{ops[20].op_id, about}}, alice.url));
  EXPECT_EQ(bob.fetch->stats().metadata_dropped, 27U);
  bob.check();
}

TEST_F(CoreFetchMetadata, WhatIsBeingStoredCountsWhateverBecomesOfItsSource) {
  FetchNode bob(bench, "bob", {.persist_pending = false});
  bob.store->hold_writes();
  const Bytes about(std::string(1U << 20, 'm'));
  std::deque<Probe> peers;
  // Each has its part of the room, sends the ops, and is removed before they are stored.
  for (std::uint64_t i = 0; i < 40; ++i) {
    Probe& peer = peers.emplace_back(bench, "peer" + std::to_string(i));
    const auto ops = bench.ops(1 + 3 * i, 3);
    peer.serve(ops);
    std::vector<PublishOp> published;
    for (const auto& op : ops) published.push_back({op.op_id, about});
    ASSERT_TRUE(publish(bob, published, peer.url));
    bench.world.run_for(1s);
    bob.fetch->remove_source(peer.url);
    bob.check();
  }
  EXPECT_EQ(bob.fetch->stats().metadata_dropped, 120U - 63U);
  bob.store->release();
  bench.world.run_for(1s);
  EXPECT_EQ(bob.store->described().size(), 63U);
  ASSERT_TRUE(publish(bob, {{bench.ops(1'000, 1)[0].op_id, about}}, peers[0].url));
  EXPECT_EQ(bob.fetch->stats().metadata_dropped, 120U - 63U) << "there is room again";
  bob.check();
}

// Whatever happens to requests, nothing is kept of what is not pending: check() compares both.
TEST_F(CoreFetchMetadata, IsForgottenWithItsRequest) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    Bench world(seed);
    FetchNode bob(world, "bob");
    std::mt19937 random(seed);
    const auto pick = [&](unsigned below) { return random() % below; };
    std::deque<Probe> peers;
    std::vector<Url> urls;
    const auto ops = world.ops(1, 40);
    for (unsigned i = 0; i < 4; ++i) {
      Probe& peer = peers.emplace_back(world, "peer-" + std::to_string(i));
      if (i != 3) peer.serve({ops.begin() + 10 * i, ops.begin() + 10 * i + 20});  // the last one answers nothing
      urls.push_back(peer.url);
    }
    urls.push_back(MemoryNetwork::url_of("nobody"));
    for (unsigned step = 0; step < 200; ++step) {
      const Url& url = urls[pick(urls.size())];
      switch (pick(8)) {
        case 0:
          bob.fetch->remove_source(url);
          break;
        case 1:
          bob.fetch->replace_source(url, urls[pick(urls.size())]);
          break;
        case 2:
          bob.store->fail_next_writes(1, make_error(Errc::io, "once"));
          break;
        case 3:
          peers[pick(4)].disconnect(bob.url);
          break;
        case 4:
          world.world.run_for(std::chrono::seconds(pick(100)));
          break;
        default:
          std::vector<PublishOp> list;
          for (unsigned i = pick(10); i > 0; --i) {
            list.push_back({ops[pick(40)].op_id, pick(3) == 0 ? Bytes() : Bytes(std::string(pick(50), 'm'))});
          }
          bob.fetch->request_published_ops(list, url, [](const Result<void>&) {});
          world.world.run_for(std::chrono::milliseconds(pick(50)));
      }
      bob.check();
    }
    world.world.run_for(2h);
    bob.check();
  }
}

}  // namespace
}  // namespace kitsune2::fetch_test
