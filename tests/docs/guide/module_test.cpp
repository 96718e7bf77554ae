// docs/guide.md, "A module".
#include <map>

#include "guide_node.hpp"

namespace guide {

// guide: module
/// Asks peers how many ops they hold, and answers their questions. A question is an empty message, an answer is the
/// number in 8 bytes, big-endian. Strand only, like all modules.
class CountModule final : public ModuleMessageHandler, public std::enable_shared_from_this<CountModule> {
 public:
  static constexpr const char* kName = "guide-count";

  /// `transport` holds the module and therefore outlives it.
  CountModule(Transport& transport, std::shared_ptr<OpStore> store) : transport_(transport), store_(std::move(store)) {}

  /// `done` receives the peer's number. One question at a time for each peer.
  void ask(const Url& peer, const SpaceId& space, Handler<std::uint64_t> done) {
    waiting_[peer] = std::move(done);
    transport_.send_module(peer, space, kName, Bytes(), [self = weak_from_this(), peer](Result<void> sent) {
      if (auto module = self.lock(); module && !sent) module->answer(peer, sent.error());
    });
  }

  Result<void> recv_module_msg(const Url& peer, const SpaceId& space, Bytes data) override {
    if (data.empty()) {
      store_->stats([self = weak_from_this(), peer, space](Result<OpStoreStats> stats) {
        if (auto module = self.lock(); module && stats) module->send_count(peer, space, stats->ops);
      });
      return {};
    }
    if (data.size() != 8) return make_error(Errc::peer_fault, "a count has 8 bytes");  // closes the connection
    std::uint64_t count = 0;
    for (const std::uint8_t byte : data.view()) count = count << 8U | byte;
    answer(peer, count);
    return {};
  }
  void peer_disconnect(const Url& peer, const std::optional<std::string>&) override {
    answer(peer, make_error(Errc::disconnected, "the peer is gone"));
  }

 private:
  void send_count(const Url& peer, const SpaceId& space, std::uint64_t count) {
    std::string bytes;
    for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(count >> shift & 0xff);
    transport_.send_module(peer, space, kName, Bytes(std::move(bytes)), [](Result<void>) {});
  }
  /// An answer that nobody waits for is dropped: what a peer sends unasked must not grow anything here.
  void answer(const Url& peer, Result<std::uint64_t> result) {
    if (auto waiting = waiting_.extract(peer)) waiting.mapped()(std::move(result));
  }

  Transport& transport_;
  const std::shared_ptr<OpStore> store_;
  std::map<Url, Handler<std::uint64_t>> waiting_;
};
// guide: end

// guide: module in a node
struct CountingNode {
  CountingNode(SimWorld& world, const std::shared_ptr<MemoryNetwork>& network, const std::string& name)
      : node(world, with_module(default_test_builder(network, name))) {}

  Builder with_module(Builder builder) {
    builder.gossip = [this](const ModuleContext& c) -> Result<std::shared_ptr<Gossip>> {
      counts = std::make_shared<CountModule>(*c.transport, c.op_store);
      if (auto ok = c.transport->register_module_handler(c.space, CountModule::kName, counts); !ok) return ok.error();
      return make_noop_gossip();
    };
    return builder;
  }
  std::shared_ptr<CountModule> counts;
  SimNode node;
};

TEST(Guide, AModuleAsksAndAnswers) {
  SimWorld world(1);
  auto network = MemoryNetwork::create();
  CountingNode alice(world, network, "alice");
  CountingNode bob(world, network, "bob");
  await<ProcessedOps>(world, [&](auto done) {
    alice.node.space->op_store().process_incoming_ops({make_op(1), make_op(2)}, done);
  }).value();

  const SpaceId space = bob.node.space->id();
  const auto ask = [&](const char* name) {
    return await<std::uint64_t>(world, [&](auto done) { bob.counts->ask(MemoryNetwork::url_of(name), space, done); });
  };
  EXPECT_EQ(ask("alice").value(), 2U);
  EXPECT_FALSE(ask("nobody")) << "no node is there";
}
// guide: end

TEST(Guide, AModuleThatRefusesAMessageClosesTheConnection) {
  SimWorld world(1);
  auto network = MemoryNetwork::create();
  CountingNode alice(world, network, "alice");
  CountingNode bob(world, network, "bob");
  Transport& transport = bob.node.kitsune->transport();
  await<void>(world, [&](auto done) {
    transport.send_module(MemoryNetwork::url_of("alice"), bob.node.space->id(), CountModule::kName,
                          Bytes::copy_of("rubbish"), done);
  }).value();
  world.run_for(1min);
  EXPECT_TRUE(transport.stats().connections.empty());
}

}  // namespace guide
