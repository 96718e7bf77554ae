// Metadata beside published ids, in the dialect whose messages carry it.
#include <gtest/gtest.h>

#include "kitsune2/publish.hpp"
#include "support/fake_fetch.hpp"
#include "unit/node/node_harness.hpp"

namespace kitsune2::node_test {
namespace {

/// Two nodes that know each other. The second one keeps what comes with fetched ops.
struct PublishMetadata : ::testing::Test {
  void start(Dialect dialect) {
    for (SimNode* node : {&a, &b}) {
      node->builder.config.network.dialect = dialect;
      node->start();
    }
    ASSERT_TRUE(a.join(agent_a));
    ASSERT_TRUE(b.join(agent_b));
    a.space->peer_store().insert({b.info_of(agent_b)});
    b.space->peer_store().insert({a.info_of(agent_a)});
    net.world.run_ready();
    ear = b.space->fetch().subscribe({.metadata_stored = [this](const Url&, const std::vector<PublishOp>& ops) {
      arrived.insert(arrived.end(), ops.begin(), ops.end());
    }});
  }
  Result<void> publish(const std::vector<PublishOp>& ops) {
    return await<void>(net.world, [&](auto done) { a.space->publish().publish_ops_with_metadata(ops, b.url, done); });
  }
  /// A message as a hostile peer writes it.
  void send(const std::vector<OpId>& ids, const std::vector<Bytes>& metadata) {
    a.kitsune->transport().send_module(b.url, kSpace, kPublishModule,
                                       wire::encode_publish_ops(Dialect::v0_5, ids, metadata),
                                       [](const Result<void>& sent) { EXPECT_TRUE(sent); });
    net.world.run_ready();
  }

  /// Takes what is published to `b` in its place.
  struct Reader : ModuleMessageHandler {
    Result<void> recv_module_msg(const Url&, const SpaceId&, Bytes data) override {
      const auto message = wire::decode_publish(dialect, data);
      if (!message || message->type != wire::PublishMessageType::ops) return {};
      for (const auto& id : message->op_ids.ids<OpId>()) ids.push_back(id);
      metadata_bytes.push_back(message->metadata.total_bytes());
      return {};
    }
    Dialect dialect = Dialect::v0_5;
    std::vector<OpId> ids;
    std::vector<std::uint64_t> metadata_bytes;  ///< of each message
  };

  explicit PublishMetadata(const MemoryNetworkOptions& options = {}) : net(1, options) {}
  Net net;
  SimNode a{net, "a"}, b{net, "b"};
  const std::shared_ptr<Ed25519LocalAgent> agent_a = make_agent(1), agent_b = make_agent(2);
  std::shared_ptr<void> ear;
  std::vector<PublishOp> arrived;
};

TEST_F(PublishMetadata, ArrivesWithTheOps) {
  start(Dialect::v0_5);
  const auto ids = a.add_ops(1, 3);
  ASSERT_TRUE(publish({{ids[0], Bytes::copy_of("first")}, {ids[1], {}}, {ids[2], Bytes(std::string(1024, 'm'))}}));
  ASSERT_TRUE(net.world.run_until([&] { return b.held() == 3; }, 10s));
  ASSERT_EQ(arrived.size(), 2U);
  for (const auto& op : arrived) {
    EXPECT_EQ(op.metadata, op.op_id == ids[0] ? Bytes::copy_of("first") : Bytes(std::string(1024, 'm')));
  }
}

TEST_F(PublishMetadata, ALongListArrivesInParts) {
  start(Dialect::v0_5);
  const auto ids = a.add_ops(1, 4'000);
  std::vector<PublishOp> ops;
  for (const auto& id : ids) ops.push_back({id, Bytes(std::string(1000, 'm'))});
  ASSERT_TRUE(publish(ops));
  EXPECT_EQ(a.space->publish().stats().ops_sent, 4'000U);
  ASSERT_TRUE(net.world.run_until([&] { return b.held() == 4'000; }, 1min));
  EXPECT_EQ(arrived.size() + b.space->fetch().stats().metadata_dropped, 4'000U);
  EXPECT_GT(arrived.size(), 1'000U);
}

TEST_F(PublishMetadata, ALongListIsSplitByItsBytes) {
  start(Dialect::v0_5);
  b.kitsune->transport().unregister_space(kSpace);
  const auto reader = std::make_shared<Reader>();
  ASSERT_TRUE(b.kitsune->transport().register_module_handler(kSpace, kPublishModule, reader));
  const auto ids = a.add_ops(1, 4'000);
  std::vector<PublishOp> ops;
  for (const auto& id : ids) ops.push_back({id, Bytes(std::string(1000, 'm'))});
  ASSERT_TRUE(publish(ops));
  ASSERT_TRUE(net.world.run_until([&] { return reader->ids.size() == ids.size(); }, 1min));
  EXPECT_EQ(reader->ids, ids);
  constexpr std::uint64_t kFull = (1U << 20) / 1000 * 1000;
  EXPECT_EQ(reader->metadata_bytes, (std::vector<std::uint64_t>{kFull, kFull, kFull, 4'000'000 - 3 * kFull}));
}

TEST_F(PublishMetadata, OfADialectWithoutItOnlyTheIdsAreSent) {
  start(Dialect::v0_4);
  const auto ids = a.add_ops(1, 2);
  ASSERT_TRUE(publish({{ids[0], Bytes::copy_of("lost")}, {ids[1], {}}}));
  ASSERT_TRUE(net.world.run_until([&] { return b.held() == 2; }, 10s));
  EXPECT_TRUE(arrived.empty());
}

// Reference: core_publish: a publish with metadata over the limit fails.
TEST_F(PublishMetadata, TooMuchOfItIsAnErrorThatNamesTheOpAndTheKey) {
  start(Dialect::v0_5);
  const auto ids = a.add_ops(1, 2);
  const auto refused = publish({{ids[0], {}}, {ids[1], Bytes(std::string(1025, 'm'))}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::invalid_argument);
  EXPECT_EQ(refused.error().message, "the metadata of op " + ids[1].to_string() +
                                         " has 1025 bytes, more than corePublish.maxMetadataBytes (1024)");
  EXPECT_EQ(a.space->publish().stats().ops_sent, 0U);
}

// Reference: core_publish::message_handler::test::oversized_metadata_entries_are_dropped.
TEST_F(PublishMetadata, AnEntryWithTooMuchOfItIsLeftOut) {
  start(Dialect::v0_5);
  const auto ids = a.add_ops(1, 3);
  send(ids, {Bytes(std::string(1024, 'm')), Bytes(std::string(1025, 'm')), Bytes()});
  ASSERT_TRUE(net.world.run_until([&] { return b.held() == 2; }, 10s));
  EXPECT_EQ(b.lacking(ids), std::vector{ids[1]});
  EXPECT_EQ(b.space->publish().stats().ops_refused, 1U);
  ASSERT_EQ(arrived.size(), 1U);
  EXPECT_EQ(arrived[0].op_id, ids[0]);
}

/// Refuses what it is asked for.
struct FullFetch : FakeFetch {
  explicit FullFetch(Runtime& r) : runtime(r) {}
  void request_offered_ops(std::vector<OpId>, const Url&, Handler<> done) override {
    runtime.post([done = std::move(done)] { done(make_error(Errc::overloaded, "there is no room")); });
  }
  void stop(std::function<void()> done) override { runtime.post(std::move(done)); }
  Runtime& runtime;
};

TEST_F(PublishMetadata, AnEntryThatIsLeftOutOfARefusedPieceIsCountedOnce) {
  b.builder.fetch = [](const ModuleContext& c) -> Result<std::shared_ptr<Fetch>> {
    return std::shared_ptr<Fetch>(std::make_shared<FullFetch>(*c.runtime));
  };
  start(Dialect::v0_5);
  send(a.add_ops(1, 3), {Bytes(std::string(1024, 'm')), Bytes(std::string(1025, 'm')), Bytes()});
  net.world.run_for(1s);
  EXPECT_EQ(b.space->publish().stats().ops_received, 3U);
  EXPECT_EQ(b.space->publish().stats().ops_refused, 3U);
}

/// The sender's transport takes small messages only, as with a small `maxFrameBytes`.
struct SmallMessages : PublishMetadata {
  SmallMessages() : PublishMetadata(small()) {}
  static MemoryNetworkOptions small() {
    MemoryNetworkOptions out;
    out.max_message_bytes = 16'384;
    return out;
  }
  /// Publishes ops with `metadata_bytes` each, and expects all of them to arrive, in `messages` messages.
  void expect_split(Dialect dialect, std::size_t metadata_bytes, std::size_t messages) {
    start(dialect);
    b.kitsune->transport().unregister_space(kSpace);
    const auto reader = std::make_shared<Reader>();
    reader->dialect = dialect;
    ASSERT_TRUE(b.kitsune->transport().register_module_handler(kSpace, kPublishModule, reader));
    const auto ids = a.add_ops(1, 2'000);
    std::vector<PublishOp> ops;
    for (const auto& id : ids) ops.push_back({id, Bytes(std::string(metadata_bytes, 'm'))});
    ASSERT_TRUE(publish(ops));
    ASSERT_TRUE(net.world.run_until([&] { return reader->ids.size() == ids.size(); }, 1min));
    EXPECT_EQ(reader->ids, ids);
    EXPECT_EQ(reader->metadata_bytes.size(), messages);
  }
};

// An entry is an id of 32 bytes in a field, in 0.5 in another one with the metadata; 14,336 bytes of a message are for
// entries: 421 of 34 bytes, 398 of 36, 13 of 1,064.
TEST_F(SmallMessages, AreFilledWithIds) { expect_split(Dialect::v0_4, 0, 5); }
TEST_F(SmallMessages, AreFilledWithEntriesWithoutMetadata) { expect_split(Dialect::v0_5, 0, 6); }
TEST_F(SmallMessages, AreFilledWithEntriesWithMetadata) { expect_split(Dialect::v0_5, 1024, 154); }

/// Looks nothing up, so what is published to it waits.
struct BusyFetch : FakeFetch {
  void request_offered_ops(std::vector<OpId>, const Url&, Handler<>) override {}
  void stop(std::function<void()>) override {}
};

// While ids wait to be looked up, their message is held with everything in it.
TEST_F(PublishMetadata, WhatWaitsIsCountedWithIt) {
  const auto runtime = net.world.make_runtime(), peer_runtime = net.world.make_runtime();
  const std::shared_ptr<Transport> transport =
      make_transport(*runtime, net.network->make_backend(*runtime, "busy"), nullptr, Dialect::v0_5);
  const std::shared_ptr<Transport> peer =
      make_transport(*peer_runtime, net.network->make_backend(*peer_runtime, "peer"), nullptr, Dialect::v0_5);
  const auto publish = make_core_publish(*runtime, {}, kSpace, std::make_shared<BusyFetch>(),
                                         make_memory_peer_store(*runtime, kSpace), transport);
  net.world.run_ready();
  const auto ids = testing::ids_of(testing::make_ops(*make_prefix_policy(), 1, 1'000));
  const Bytes message =
      wire::encode_publish_ops(Dialect::v0_5, ids, std::vector<Bytes>(1'000, Bytes(std::string(1'000, 'm'))));
  for (int i = 0; i < 80; ++i) {
    peer->send_module(MemoryNetwork::url_of("busy"), kSpace, kPublishModule, message, [](const Result<void>&) {});
    net.world.run_ready();
  }
  EXPECT_EQ(publish->stats().ops_received, 80'000U);
  // 64 MiB, in messages of 1 MB each, and four that are being looked up.
  EXPECT_GE(publish->stats().ops_refused, 5'000U);
  EXPECT_LE(publish->stats().ops_refused, 20'000U);
  publish->stop();
  transport->unregister_space(kSpace);
}

}  // namespace
}  // namespace kitsune2::node_test
