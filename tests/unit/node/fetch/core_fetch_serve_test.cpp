// Incoming requests: the answers of this node.
#include <algorithm>

#include "core_fetch_harness.hpp"
#include "wire/k2proto.hpp"

namespace kitsune2 {
namespace {

using namespace fetch_test;

std::vector<OpId> ids_of_payloads(const Bench& bench, const std::vector<Bytes>& ops) {
  std::vector<OpId> out;
  for (const auto& op : ops) out.push_back(bench.policy->describe(op).value().op_id);
  return out;
}

TEST(CoreFetchServe, ARequestForManyIdsGetsOneResponse) {
  Bench bench;
  FetchNode alice(bench, "alice");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 100);
  alice.hold(ops);
  peer.ask(alice.url, ids_of(ops));
  bench.world.run_for(1s);
  ASSERT_EQ(peer.responses.size(), 1U);
  EXPECT_EQ(peer.responses[0].ops, testing::payloads_of(ops));
  EXPECT_EQ(alice.fetch->stats().requests_received, 1U);
  EXPECT_EQ(alice.fetch->stats().ops_served, 100U);
  EXPECT_EQ(alice.fetch->stats().bytes_served, 6400U);
}

TEST(CoreFetchServe, RequestsAreAnsweredInTheOrderOfComing) {
  Bench bench;
  FetchNode alice(bench, "alice");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 40);
  alice.hold(ops);
  for (const auto& op : ops) peer.ask(alice.url, {op.op_id});
  bench.world.run_for(1s);
  std::vector<Bytes> came;
  for (const auto& response : peer.responses) came.insert(came.end(), response.ops.begin(), response.ops.end());
  EXPECT_EQ(came, testing::payloads_of(ops));
}

TEST(CoreFetchServe, HeldOpsAreSentAndOthersCounted) {
  Bench bench;
  FetchNode alice(bench, "alice");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 10);
  std::vector<MetaOp> held;
  for (std::size_t i = 0; i < ops.size(); i += 3) held.push_back(ops[i]);  // 0 3 6 9
  alice.hold(held);
  peer.ask(alice.url, ids_of(ops));
  bench.world.run_for(1s);
  ASSERT_EQ(peer.responses.size(), 1U);
  EXPECT_EQ(peer.responses[0].ops, testing::payloads_of(held));
  EXPECT_EQ(alice.fetch->stats().ops_not_held, 6U);
  // The last id is not held.
  peer.ask(alice.url, {ops[0].op_id, ops[1].op_id});
  bench.world.run_for(1s);
  ASSERT_EQ(peer.responses.size(), 2U);
  EXPECT_EQ(peer.responses[1].ops, (std::vector<Bytes>{ops[0].op_data}));
  EXPECT_EQ(alice.fetch->stats().ops_not_held, 7U);
}

TEST(CoreFetchServe, NoResponseIfNoneIsHeld) {
  Bench bench;
  FetchNode alice(bench, "alice");
  Probe peer(bench, "peer");
  peer.ask(alice.url, ids_of(bench.ops(0, 10)));
  bench.world.run_for(1h);
  EXPECT_TRUE(peer.responses.empty());
  EXPECT_EQ(alice.fetch->stats().ops_not_held, 10U);
  EXPECT_EQ(alice.fetch->stats().ops_served, 0U);
  EXPECT_EQ(peer.disconnects, 0U);
}

TEST(CoreFetchServe, AnEmptyRequestIsNothing) {
  Bench bench;
  FetchNode alice(bench, "alice");
  Probe peer(bench, "peer");
  peer.ask(alice.url, {});
  bench.world.run_for(1s);
  EXPECT_TRUE(peer.responses.empty());
  EXPECT_EQ(peer.disconnects, 0U);
}

TEST(CoreFetchServe, ResponsesAreCutToTheByteLimit) {
  Bench bench;
  CoreFetchConfig config;
  config.max_response_bytes = 10'000;
  FetchNode alice(bench, "alice", config);
  Probe peer(bench, "peer");
  auto ops = bench.ops(0, 50, 3'000);
  ops[20] = bench.ops(1'000, 1, 25'000)[0];  // larger than the limit: goes alone
  alice.hold(ops);
  auto asked = ids_of(ops);
  asked.insert(asked.begin() + 7, ids_of(bench.ops(2'000, 5)).front());  // not held
  peer.ask(alice.url, asked);
  bench.world.run_for(1s);
  std::vector<Bytes> came;
  for (const auto& response : peer.responses) {
    EXPECT_TRUE(response.bytes <= 10'000 || response.ops.size() == 1);
    came.insert(came.end(), response.ops.begin(), response.ops.end());
  }
  EXPECT_EQ(came, testing::payloads_of(ops)) << "everything, in order, once";
  EXPECT_GE(peer.responses.size(), 18U);
  EXPECT_EQ(alice.fetch->stats().ops_not_held, 1U);
}

TEST(CoreFetchServe, ARequestForMoreIdsThanOneReadTakesIsAnsweredWhole) {
  Bench bench;
  FetchNode alice(bench, "alice");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 10'000, 32);
  alice.hold(ops);
  peer.ask(alice.url, ids_of(ops));
  bench.world.run_for(1s);
  std::vector<Bytes> came;
  for (const auto& response : peer.responses) came.insert(came.end(), response.ops.begin(), response.ops.end());
  EXPECT_EQ(came, testing::payloads_of(ops));
}

TEST(CoreFetchServe, WhatALongRequestLeavesOverIsHandedToTheStoreInPieces) {
  Bench bench;
  CoreFetchConfig config;
  config.max_response_bytes = 10'000;
  FetchNode alice(bench, "alice", config);
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 2'000, 1'000);
  alice.hold(ops);
  auto asked = ids_of(ops);
  const auto absent = ids_of(bench.ops(5'000, 500));
  asked.insert(asked.begin() + 1'000, absent.begin(), absent.begin() + 400);  // more than a piece
  for (std::size_t i = 400; i < 500; ++i)
    asked.insert(asked.begin() + static_cast<std::ptrdiff_t>(7 * i - 2'400), absent[i]);
  asked.insert(asked.begin() + 1'700, asked.begin(), asked.begin() + 3);  // they have come by then
  peer.ask(alice.url, asked);
  bench.world.run_for(1min);
  std::vector<Bytes> came;
  for (const auto& response : peer.responses) came.insert(came.end(), response.ops.begin(), response.ops.end());
  EXPECT_EQ(came, testing::payloads_of(ops)) << "everything, in order, once";
  EXPECT_EQ(peer.responses.size(), 200U);
  EXPECT_EQ(alice.fetch->stats().ops_not_held, 500U);
  EXPECT_LE(alice.store->ids_retrieved(), asked.size() + peer.responses.size() * 100);
}

TEST(CoreFetchServe, TheNextResponseIsReadOnlyWhenANewcomerHasTakenTheLast) {
  MemoryNetworkOptions options;
  options.link.bytes_per_second = 100'000;
  Bench bench(1, options);
  CoreFetchConfig config;
  config.max_response_bytes = 100'000;  // a second each
  FetchNode alice(bench, "alice", config);
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 10, 90'000);
  alice.hold(ops);
  peer.ask(alice.url, ids_of(ops));
  bench.world.run_for(2500ms);
  const auto reads = alice.store->reads();
  EXPECT_LE(reads, 5U) << "resume, and one read for each response that left";
  bench.world.run_for(10s);
  EXPECT_EQ(peer.responses.size(), 10U);
}

namespace {

/// Messages take a second each, for a peer that has shown that it listens.
struct SlowLine {
  explicit SlowLine(Duration read) : bench(1, options()), alice(bench, "alice", config()), peer(bench, "peer") {
    const auto first = bench.ops(1000, 11, 100'000);
    ops = bench.ops(0, 10, 90'000);
    alice.hold(first);
    alice.hold(ops);
    peer.ask(alice.url, ids_of(first));
    bench.world.run_for(30s);
    EXPECT_GE(alice.fetch->stats().bytes_served, 1U << 20);
    alice.store->delay_reads(read);
    peer.responses.clear();
    reads_before = alice.store->reads();
    peer.ask(alice.url, ids_of(ops));
  }
  static MemoryNetworkOptions options() {
    MemoryNetworkOptions out;
    out.link.bytes_per_second = 100'000;
    return out;
  }
  static CoreFetchConfig config() {
    CoreFetchConfig out;
    out.max_response_bytes = 100'000;
    return out;
  }

  Bench bench;
  FetchNode alice;
  Probe peer;
  std::vector<MetaOp> ops;
  std::uint64_t reads_before = 0;
};

}  // namespace

TEST(CoreFetchServe, TheNextResponseIsReadWhileTheLastIsSent) {
  SlowLine line(900ms);
  line.bench.world.run_for(11s);
  EXPECT_GE(line.peer.responses.size(), 9U) << "reading and sending in turn would have taken 18 s";
  line.bench.world.run_for(10s);
  std::vector<Bytes> came;
  for (const auto& response : line.peer.responses) came.insert(came.end(), response.ops.begin(), response.ops.end());
  EXPECT_EQ(came, testing::payloads_of(line.ops)) << "in order";
}

TEST(CoreFetchServe, NoMoreThanOneResponseIsReadAhead) {
  SlowLine line(0ms);
  line.bench.world.run_for(3500ms);
  EXPECT_LE(line.peer.responses.size(), 4U);
  EXPECT_LE(line.alice.store->reads() - line.reads_before, line.peer.responses.size() + 2);
}

TEST(CoreFetchServe, OpsReadAheadAreDroppedWithTheConnection) {
  SlowLine line(0ms);
  line.bench.world.run_for(2500ms);
  const auto came = line.peer.responses.size();
  ASSERT_LT(came, 5U);
  line.bench.network->cut(line.alice.url, line.peer.url, true);
  line.bench.world.run_for(1min);
  EXPECT_LE(line.peer.responses.size(), came + 1);
  line.peer.responses.clear();
  line.peer.ask(line.alice.url, ids_of(line.ops));
  line.bench.world.run_for(1min);
  std::vector<Bytes> again;
  for (const auto& response : line.peer.responses) again.insert(again.end(), response.ops.begin(), response.ops.end());
  EXPECT_EQ(again, testing::payloads_of(line.ops));
}

TEST(CoreFetchServe, PeersTakeTurns) {
  MemoryNetworkOptions options;
  options.link.bytes_per_second = 1'000'000;
  Bench bench(1, options);
  CoreFetchConfig config;
  config.max_response_bytes = 64U << 20;  // the whole budget: one response at a time
  FetchNode alice(bench, "alice", config);
  Probe greedy(bench, "greedy"), modest(bench, "modest");
  const auto ops = bench.ops(0, 21, 100'000);
  alice.hold(ops);
  const auto missing = ids_of(bench.ops(1'000, 16));
  for (std::size_t i = 0; i < 20; ++i) {
    std::vector<OpId> ids{ops[i].op_id};
    ids.insert(ids.end(), missing.begin(), missing.end());  // so that it is not a small request, which joins others
    greedy.ask(alice.url, ids);
  }
  bench.world.run_for(50ms);
  modest.ask(alice.url, {ops[20].op_id});
  bench.world.run_until([&] { return !modest.responses.empty(); }, 1h);
  EXPECT_LE(greedy.responses.size(), 3U);
  bench.world.run_for(10s);
  EXPECT_EQ(greedy.responses.size(), 20U);
}

// Alone, it gets large responses; beside another peer, one that requests everything at once gets no more than one that
// does not.
TEST(CoreFetchServe, APeerThatRequestsMuchAtOnceGetsNoMore) {
  MemoryNetworkOptions options;
  options.link.bytes_per_second = 20'000'000;
  Bench bench(1, options);
  FetchNode alice(bench, "alice");
  Probe greedy(bench, "greedy"), modest(bench, "modest");
  const auto ops = bench.ops(0, 20'000, 1024);
  alice.hold(ops);
  const auto ids = ids_of(ops);
  const auto largest = [](const Probe& probe) {
    std::uint64_t most = 0;
    for (const auto& response : probe.responses) most = std::max(most, response.bytes);
    return most;
  };
  greedy.ask(alice.url, ids);
  bench.world.run_for(5s);
  EXPECT_GT(largest(greedy), 3U << 20);
  modest.ask(alice.url, {ids.begin(), ids.begin() + 2000});  // so that both are known to listen
  bench.world.run_for(5s);
  greedy.responses.clear();
  modest.responses.clear();
  for (int i = 0; i < 10; ++i) greedy.ask(alice.url, ids);
  // One that requests little at a time, two requests ahead.
  for (std::size_t i = 0; i < 20; ++i) modest.ask(alice.url, {ids.begin(), ids.begin() + 400});
  ASSERT_TRUE(bench.world.run_until([&] { return modest.responses.size() >= 20; }, 60s));
  EXPECT_LE(largest(greedy), 600U << 10);
  std::uint64_t to_greedy = 0;
  for (const auto& response : greedy.responses) to_greedy += response.bytes;
  EXPECT_LE(to_greedy, 2U * 20 * 400 * 1024);
}

// Like a stock node of 0.3.2, which does not ask again.
TEST(CoreFetchServe, APeerThatAsksForEachOpAloneAndOnceGetsThemAll) {
  Bench bench;
  FetchNode alice(bench, "alice");
  const auto ops = bench.ops(0, 10'000, 64);
  alice.hold(ops);
  alice.store->delay_reads(1ms);
  Probe stock(bench, "stock");
  for (const auto& op : ops) stock.ask(alice.url, {op.op_id});
  const auto came = [&] {
    std::vector<Bytes> out;
    for (const auto& response : stock.responses) out.insert(out.end(), response.ops.begin(), response.ops.end());
    return out;
  };
  bench.world.run_until([&] { return came().size() >= ops.size(); }, 1h);
  const auto all = came();
  ASSERT_EQ(all.size(), ops.size());
  for (std::size_t i = 0; i < ops.size(); ++i) EXPECT_EQ(all[i], ops[i].op_data) << "in the order of the requests";
  EXPECT_EQ(alice.fetch->stats().requests_refused, 0U);
  // S10: what waits is answered together.
  EXPECT_LE(stock.responses.size(), ops.size() / 30);
  EXPECT_LE(alice.store->reads(), ops.size() / 20);
}

TEST(CoreFetchServe, AnOpThatIsAskedForTwiceKeepsNoOtherFromBeingServed) {
  Bench bench;
  FetchNode alice(bench, "alice");
  const auto ops = bench.ops(0, 3, 10 << 10);
  alice.hold(ops);
  alice.store->delay_reads(1s);
  Probe peer(bench, "peer");
  // While the first is read the others join, and a response has room for one of them.
  for (const std::size_t i : {0U, 1U, 2U, 1U}) peer.ask(alice.url, {ops[i].op_id});
  bench.world.run_for(1min);
  std::vector<Bytes> came;
  for (const auto& response : peer.responses) came.insert(came.end(), response.ops.begin(), response.ops.end());
  EXPECT_EQ(came, testing::payloads_of(ops));
  EXPECT_EQ(alice.fetch->stats().ops_not_held, 0U);
}

TEST(CoreFetchServe, AFloodOfRequestsIsBoundedAndCounted) {
  Bench bench;
  CoreFetchConfig config;
  config.max_incoming_requests_per_peer = 10;
  FetchNode alice(bench, "alice", config);
  Probe flood(bench, "flood"), honest(bench, "honest");
  const auto ops = bench.ops(0, 1);
  alice.hold(ops);
  alice.store->delay_reads(1s);
  for (int i = 0; i < 1000; ++i) flood.ask(alice.url, ids_of(ops));
  honest.ask(alice.url, ids_of(ops));
  bench.world.run_for(500ms);
  EXPECT_EQ(alice.fetch->stats().requests_received, 1001U);
  EXPECT_EQ(alice.fetch->stats().requests_refused, 990U);
  bench.world.run_for(1s);
  EXPECT_EQ(honest.responses.size(), 1U);
  bench.world.run_for(1h);
  EXPECT_EQ(flood.responses.size(), 2U) << "nine have joined, and ask for one op";
}

// 300 peers that request large ops and receive nothing hold all the room for peers that have not shown that they
// listen.
TEST(CoreFetchServe, PeersThatRequestAndDoNotReadDelayNobodyForLong) {
  Bench bench;
  FetchNode alice(bench, "alice");
  const auto ops = bench.ops(0, 8, 256U << 10);
  alice.hold(ops);
  Probe known(bench, "known"), fresh(bench, "fresh");
  known.ask(alice.url, ids_of(ops));
  bench.world.run_for(1s);
  std::size_t known_ops = 0;
  for (const auto& response : known.responses) known_ops += response.ops.size();
  ASSERT_EQ(known_ops, 8U);
  std::vector<std::unique_ptr<Probe>> silent;
  for (int i = 0; i < 300; ++i) {
    silent.push_back(std::make_unique<Probe>(bench, "silent" + std::to_string(i)));
    bench.network->set_links_to(silent.back()->url, {.bytes_per_second = 1});
    silent.back()->ask(alice.url, ids_of(ops));
  }
  bench.world.run_for(1s);
  fresh.ask(alice.url, ids_of(ops));
  known.responses.clear();
  known.ask(alice.url, {ops[0].op_id});
  bench.world.run_for(1s);
  EXPECT_EQ(known.responses.size(), 1U) << "who has taken what it asked for is answered at once";
  EXPECT_TRUE(fresh.responses.empty());
  bench.world.run_for(20s);
  std::size_t fresh_ops = 0;
  for (const auto& response : fresh.responses) fresh_ops += response.ops.size();
  EXPECT_EQ(fresh_ops, 8U);
  EXPECT_GE(alice.fetch->stats().requests_refused, 256U) << "those that did not listen were sent away";
  EXPECT_EQ(known.disconnects + fresh.disconnects, 0U);
}

TEST(CoreFetchServe, ANewcomerDoesNotWaitBehindPeersThatDoNotListen) {
  Bench bench;
  FetchNode alice(bench, "alice");
  const auto ops = bench.ops(0, 400, 1024);
  alice.hold(ops);
  std::vector<std::unique_ptr<Probe>> silent;
  for (int i = 0; i < 300; ++i) {
    silent.push_back(std::make_unique<Probe>(bench, "silent" + std::to_string(i)));
    bench.network->set_links_to(silent.back()->url, {.bytes_per_second = 1});
    silent.back()->ask(alice.url, ids_of(ops));
  }
  bench.world.run_for(1s);
  Probe fresh(bench, "fresh");
  fresh.ask(alice.url, ids_of(ops));
  bench.world.run_for(1s);
  std::vector<std::size_t> sizes;
  std::size_t got = 0;
  for (const auto& response : fresh.responses) {
    sizes.push_back(response.ops.size());
    got += response.ops.size();
  }
  EXPECT_EQ(got, 400U);
  EXPECT_EQ(sizes.front(), 12U) << "what needs no permit";
  EXPECT_GE(*std::max_element(sizes.begin(), sizes.end()), 96U) << "then as much as it took before";
  EXPECT_LE(fresh.responses.size(), 8U);
}

TEST(CoreFetchServe, QueuedRequestsAreBoundedInBytes) {
  Bench bench;
  FetchNode alice(bench, "alice");
  alice.store->delay_reads(1s);
  Probe flood(bench, "flood");
  std::vector<OpId> ids;
  std::vector<std::uint8_t> id(1000, 7);
  for (int i = 0; i < 4000; ++i) ids.emplace_back(ByteView(id));  // 4 MB in a message
  for (int i = 0; i < 10; ++i) flood.ask(alice.url, ids);
  bench.world.run_for(500ms);
  EXPECT_EQ(alice.fetch->stats().requests_refused, 8U);
  bench.world.run_for(1h);
  EXPECT_EQ(alice.fetch->stats().requests_received, 10U);
}

/// Counts what a module reports as wasted, and can have no room for messages.
class WasteCounter final : public TransportBackend {
 public:
  WasteCounter(Runtime& runtime, std::unique_ptr<TransportBackend> inner, std::map<Url, std::uint64_t>& waste)
      : runtime_(runtime), inner_(std::move(inner)), waste_(waste) {}
  void start(TransportEvents& events) override { inner_->start(events); }
  std::optional<Url> url() const override { return inner_->url(); }
  void send(const Url& peer, ByteChain message, Handler<> done) override {
    if (refuses) {
      return runtime_.post([done = std::move(done)]() mutable { done(make_error(Errc::overloaded, "no room")); });
    }
    inner_->send(peer, std::move(message), std::move(done));
  }
  void disconnect(const Url& peer, const CloseReason& reason, Bytes farewell) override {
    inner_->disconnect(peer, reason, std::move(farewell));
  }
  std::uint64_t max_message_bytes() const override { return inner_->max_message_bytes(); }
  void wasted(const Url& peer, std::uint64_t bytes) override { waste_[peer] += bytes; }
  TransportStats stats() const override { return inner_->stats(); }
  void stop(std::function<void()> done) override { inner_->stop(std::move(done)); }

  bool refuses = false;

 private:
  Runtime& runtime_;
  std::unique_ptr<TransportBackend> inner_;
  std::map<Url, std::uint64_t>& waste_;
};

TEST(CoreFetchServe, ARefusedRequestCountsAsWastedBytesOfItsSender) {
  Bench bench;
  std::map<Url, std::uint64_t> waste;
  const auto runtime = bench.world.make_runtime();
  const auto store = std::make_shared<FaultStore>(*runtime, bench.make_disk());
  const auto transport = make_transport(
      *runtime, std::make_unique<WasteCounter>(*runtime, bench.network->make_backend(*runtime, "alice"), waste),
      nullptr);
  const auto fetch = make_core_fetch(*runtime, {}, kSpace, store, transport).value();
  store->delay_reads(1s);
  Probe flood(bench, "flood"), honest(bench, "honest");
  const std::vector<OpId> many(2000, OpId::from_text(std::string(1000, '7')));  // 2 MB in a message
  for (int i = 0; i < 10; ++i) flood.ask(MemoryNetwork::url_of("alice"), many);
  honest.ask(MemoryNetwork::url_of("alice"), {many.front()});
  bench.world.run_for(500ms);
  EXPECT_EQ(fetch->stats().requests_refused, 6U);
  EXPECT_GE(waste[flood.url], 6U * 2'000'000);
  EXPECT_LE(waste[flood.url], 6U * 2'020'000);
  EXPECT_EQ(waste.size(), 1U) << "nobody else's";
  runtime->crash();
}

TEST(CoreFetchServe, AResponseThatCannotBeSentEndsItsRequestOnly) {
  Bench bench;
  FetchNode alice(bench, "alice");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 2);
  alice.hold(ops);
  peer.ask(alice.url, {ops[0].op_id});
  bench.world.run_until([&] { return alice.fetch->stats().requests_received == 1; }, 1s);
  make_failing(bench, peer.url);
  bench.world.run_for(1min);
  EXPECT_TRUE(peer.responses.empty());
  EXPECT_EQ(alice.fetch->stats().ops_served, 0U);
  bench.network->clear_links();
  peer.ask(alice.url,
           {ops[1].op_id});  // on the connection that alice has dropped: lost, and asking again is bob's task
  bench.world.run_for(1min);
  peer.ask(alice.url, {ops[1].op_id});
  bench.world.run_for(1min);
  ASSERT_EQ(peer.responses.size(), 1U);
  EXPECT_EQ(peer.responses[0].ops, (std::vector<Bytes>{ops[1].op_data}));
}

TEST(CoreFetchServe, AFailedReadEndsItsRequestOnly) {
  Bench bench;
  FetchNode alice(bench, "alice");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 2);
  alice.hold(ops);
  alice.store->fail_reads(make_error(Errc::io, "bad sector"));
  peer.ask(alice.url, {ops[0].op_id});
  bench.world.run_for(1s);
  EXPECT_TRUE(peer.responses.empty());
  alice.store->fail_reads(std::nullopt);
  peer.ask(alice.url, {ops[1].op_id});
  bench.world.run_for(1s);
  EXPECT_EQ(peer.responses.size(), 1U);
}

TEST(CoreFetchServe, RequestsAreDroppedWithTheConnection) {
  Bench bench;
  FetchNode alice(bench, "alice");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 30);
  alice.hold(ops);
  alice.store->delay_reads(1s);
  for (const auto& op : ops) peer.ask(alice.url, {op.op_id});
  bench.world.run_for(1500ms);
  peer.disconnect(alice.url);
  bench.world.run_for(1h);
  EXPECT_EQ(alice.fetch->stats().ops_served, 1U);
  EXPECT_EQ(peer.responses.size(), 1U);
}

TEST(CoreFetchServe, MessagesThatDoNotParseCloseTheConnection) {
  Bench bench;
  FetchNode alice(bench, "alice");
  Probe peer(bench, "peer");
  for (const auto* text : {"\xff\xff\xff", "\x08\x09", ""}) {
    const auto before = peer.disconnects;
    peer.send_raw(alice.url, Bytes::copy_of(text));
    bench.world.run_for(1s);
    EXPECT_EQ(peer.disconnects, before + 1) << "for " << to_hex(as_bytes(text));
  }
}

TEST(CoreFetchServe, TwoNodesServeEachOtherAtOnce) {
  MemoryNetworkOptions options;
  options.link = {.latency = 5ms, .bytes_per_second = 10'000'000};
  Bench bench(1, options);
  FetchNode alice(bench, "alice"), bob(bench, "bob");
  const auto a = bench.ops(0, 2000, 500), b = bench.ops(10'000, 2000, 500);
  alice.hold(a);
  bob.hold(b);
  alice.want(ids_of(b), bob.url);
  bob.want(ids_of(a), alice.url);
  EXPECT_TRUE(alice.drain());
  EXPECT_TRUE(bob.drain());
  EXPECT_EQ(alice.held(ids_of(b)), 2000U);
  EXPECT_EQ(bob.held(ids_of(a)), 2000U);
}

TEST(CoreFetchServe, DuplicateIdsAreServed) {
  Bench bench;
  FetchNode alice(bench, "alice");
  Probe peer(bench, "peer");
  const auto ops = bench.ops(0, 2);
  alice.hold(ops);
  peer.ask(alice.url, {ops[0].op_id, ops[1].op_id, ops[0].op_id});
  bench.world.run_for(1s);
  ASSERT_FALSE(peer.responses.empty());
  EXPECT_EQ(ids_of_payloads(bench, peer.responses[0].ops), ids_of(ops));
  EXPECT_LE(peer.responses.size(), 2U);
  EXPECT_EQ(alice.fetch->stats().ops_not_held, 0U);
}

/// Counts what is charged, and lets everything pass.
struct CountingBudget final : PeerBudget {
  PeerStanding charge(const Url&, PeerWork work) override {
    charged += work.micros();
    return PeerStanding::good;
  }
  void useful(const Url&, std::uint64_t ops, std::uint64_t bytes, PeerWork work) override {
    charged -= work.micros();
    useful_ops += ops;
    useful_bytes += bytes;
  }
  std::optional<Time> waits_until(const Url&) const override { return std::nullopt; }
  bool is_known(const Url&) const override { return false; }
  std::uint64_t usefulness(const Url&) const override { return 0; }
  std::optional<AddressGroup> address_group(const Url&) const override { return std::nullopt; }
  PeerBudgetStats stats() const override { return {}; }
  std::int64_t charged = 0;
  std::uint64_t useful_ops = 0, useful_bytes = 0;
};

/// A node that charges what it does for peers to a budget of the test, and a peer.
struct CoreFetchServeBudget : ::testing::Test {
  ~CoreFetchServeBudget() override { runtime->crash(); }  // no handler of what is destroyed then is called
  void hold(const std::vector<MetaOp>& ops) {
    ASSERT_TRUE(await<ProcessedOps>(
        bench.world, [&](auto done) { disk->process_incoming_ops(testing::payloads_of(ops), std::move(done)); }));
  }

  Bench bench;
  const std::shared_ptr<CountingBudget> budget = std::make_shared<CountingBudget>();
  const std::unique_ptr<SimRuntime> runtime = bench.world.make_runtime();
  const std::shared_ptr<OpStore> disk = bench.make_disk();
  std::map<Url, std::uint64_t> waste;
  WasteCounter* const backend = new WasteCounter(*runtime, bench.network->make_backend(*runtime, "alice"), waste);
  const std::shared_ptr<Transport> transport =
      make_transport(*runtime, std::unique_ptr<TransportBackend>(backend), nullptr);
  const std::shared_ptr<Fetch> fetch = make_core_fetch(*runtime, {}, kSpace, disk, transport, budget).value();
  Probe peer{bench, "peer"};
};

TEST_F(CoreFetchServeBudget, EachLookUpOfARepeatedIdIsCharged) {
  const auto ops = bench.ops(0, 2);
  hold({ops[0]});
  const auto charge_of = [&](const std::vector<OpId>& ids) {
    budget->charged = 0;
    peer.ask(MemoryNetwork::url_of("alice"), ids);
    bench.world.run_for(1s);
    return budget->charged;
  };
  EXPECT_EQ(charge_of({ops[0].op_id}), 0) << "it was useful";
  EXPECT_GE(charge_of(std::vector<OpId>(1000, ops[0].op_id)), 999 * PeerWork::kLookUp);
  EXPECT_GE(charge_of(std::vector<OpId>(1000, ops[1].op_id)), 1000 * PeerWork::kLookUp) << "it is not held";
}

TEST_F(CoreFetchServeBudget, WhatAPeerIsSentAgainIsNoUsefulExchange) {
  const auto ops = bench.ops(0, 100);
  hold(ops);
  for (int i = 0; i < 3; ++i) {
    peer.ask(MemoryNetwork::url_of("alice"), ids_of(ops));
    bench.world.run_for(1s);
    EXPECT_EQ(budget->useful_ops, 100U);
  }
  EXPECT_GE(fetch->stats().ops_served, 300U);
  EXPECT_LT(budget->useful_bytes, fetch->stats().bytes_served);
}

TEST_F(CoreFetchServeBudget, WhatCouldNotBeSentIsNewWhenItIsAskedForOnceMore) {
  const auto ops = bench.ops(0, 100);
  hold(ops);
  peer.ask(MemoryNetwork::url_of("alice"), ids_of(bench.ops(1'000, 1)));  // so that they are connected
  bench.world.run_for(1s);
  backend->refuses = true;
  peer.ask(MemoryNetwork::url_of("alice"), ids_of(ops));
  bench.world.run_for(1s);
  ASSERT_EQ(fetch->stats().ops_served, 0U);
  backend->refuses = false;
  peer.ask(MemoryNetwork::url_of("alice"), ids_of(ops));
  bench.world.run_for(1s);
  EXPECT_EQ(fetch->stats().ops_served, 100U);
  EXPECT_EQ(budget->useful_ops, 100U);
}

}  // namespace
}  // namespace kitsune2
