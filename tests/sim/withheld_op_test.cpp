// A node that names an old op and never gives it: recent ops that nobody publishes come all the same. Whole nodes with
// the shipped modules over one relay and bootstrap server, in virtual time.
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "node/builder/platform.hpp"
#include "node/builder/store_paths.hpp"
#include "sim/relay_peers.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_net.hpp"
#include "sim/sim_relay.hpp"
#include "sim/sim_transport.hpp"
#include "support/forwarding_transport.hpp"
#include "transport/iroh/built.hpp"
#include "wire/fetch_messages.hpp"

namespace kitsune2::sim {
namespace {

using namespace std::chrono_literals;
using testing::await;
using testing::SimRuntime;
using testing::SimWorld;

struct HoldingApp final : KitsuneHandler {
  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId&) override {
    return std::make_shared<SpaceHandler>();
  }
};

/// Keeps from fetch which op others ask for, as if its bytes were lost.
class WithholdingTransport final : public ForwardingTransport {
 public:
  WithholdingTransport(std::shared_ptr<Transport> inner, OpId op)
      : ForwardingTransport(std::move(inner)), op_(std::move(op)) {}

  Result<void> register_module_handler(const SpaceId& space, const std::string& module,
                                       std::shared_ptr<ModuleMessageHandler> handler) override {
    return ForwardingTransport::register_module_handler(space, module,
                                                        std::make_shared<Ear>(std::move(handler), dialect(), op_));
  }

 private:
  class Ear final : public ForwardingModuleHandler {
   public:
    Ear(std::shared_ptr<ModuleMessageHandler> inner, Dialect dialect, OpId op)
        : ForwardingModuleHandler(std::move(inner)), dialect_(dialect), op_(std::move(op)) {}
    Result<void> recv_module_msg(const Url& peer, const SpaceId& space, Bytes data) override {
      const auto message = wire::decode_fetch(dialect_, data);
      if (!message || message->type != wire::FetchMessageType::request)
        return ForwardingModuleHandler::recv_module_msg(peer, space, std::move(data));
      auto ids = message->op_ids.ids<OpId>();
      std::erase(ids, op_);
      if (ids.empty()) return {};
      return ForwardingModuleHandler::recv_module_msg(peer, space, wire::encode_fetch_request(ids));
    }

   private:
    const Dialect dialect_;
    const OpId op_;
  };
  const OpId op_;
};

/// An op of that age, in the form of those that say when they were created.
MetaOp op_of(const OpPolicy& policy, std::uint64_t number, Timestamp created_at) {
  std::string data("k2op\1", 5);
  for (int shift = 56; shift >= 0; shift -= 8)
    data += static_cast<char>(static_cast<std::uint64_t>(created_at.micros) >> shift & 255U);
  data += testing::make_op(number, 200).text();
  Bytes whole(std::move(data));
  auto id = policy.describe(whole)->op_id;
  return {std::move(id), std::move(whole)};
}

class Nodes {
 public:
  Nodes(std::uint64_t seed, std::size_t count, Dialect dialect) : world(seed), net(world), relay(world, net) {
    config_.network.dialect = dialect;
    config_.core_bootstrap.server_url = "http://relay:1";
    set_transport(config_, {.timeout_s = 60, .max_message_bytes = 64U << 20});
    relay.start();
    const auto clock = world.make_runtime();
    withheld = op_of(*policy_, 1, clock->wall_now() - 24h * 30);
    for (std::size_t i = 0; i < count; ++i) start(seed, i);
  }
  ~Nodes() {
    for (auto& node : nodes) {
      node->runtime->crash();
      net.down(node->host, false);
    }
  }
  Nodes(const Nodes&) = delete;
  Nodes& operator=(const Nodes&) = delete;

  struct Node {
    std::unique_ptr<SimDisk> disk;
    std::unique_ptr<SimRuntime> runtime;
    SimNet::Host host = 0;
    std::shared_ptr<Kitsune> kitsune;
    std::shared_ptr<Space> space;
  };

  /// Stores ops without a word to anybody.
  void store(Node& node, const std::vector<MetaOp>& ops) {
    EXPECT_TRUE(await<ProcessedOps>(world, [&](auto done) {
      node.space->op_store().process_incoming_ops(testing::payloads_of(ops), std::move(done));
    }));
  }
  std::vector<MetaOp> some_ops(std::uint64_t first, std::size_t count, Duration age) {
    std::vector<MetaOp> out;
    for (auto number = first; number < first + count; ++number)
      out.push_back(op_of(*policy_, number, nodes[0]->runtime->wall_now() - age));
    return out;
  }
  std::size_t lacking(Node& node, const std::vector<MetaOp>& ops) {
    const auto ids = await<std::vector<OpId>>(world, [&](auto done) {
      node.space->op_store().filter_out_existing_ops(testing::ids_of(ops), std::move(done));
    });
    return ids ? ids->size() : ops.size();
  }
  void join(std::size_t number) {
    auto agent = testing::make_agent(1 + number);
    agent->set_cur_storage_arc(DhtArc::none());
    agent->set_tgt_storage_arc(DhtArc::full());
    auto& space = *nodes[number]->space;
    EXPECT_TRUE(await<void>(world, [&](auto done) { space.local_agent_join(agent, std::move(done)); }));
  }

  SimWorld world;
  SimNet net;
  SimRelay relay;
  std::vector<std::unique_ptr<Node>> nodes;
  MetaOp withheld;

 private:
  void start(std::uint64_t seed, std::size_t number) {
    auto& node = *nodes.emplace_back(std::make_unique<Node>());
    node.disk = std::make_unique<SimDisk>(seed * 8 + number);
    node.disk->make_file(op_store_path(".", kSimSpace));
    node.disk->make_file(peer_store_path(".", kSimSpace));
    node.host = net.add_host("n" + std::to_string(number));
    node.runtime = world.make_runtime();
    net.up(node.host, *node.runtime);
    const Platform platform{.ws_connector = [this, &node]() -> std::shared_ptr<WsConnector> {
                              return net::make_ws_connector(*node.runtime, net.dial(node.host));
                            },
                            .http_client = [this, &node](TlsOptions tls) -> std::shared_ptr<HttpClient> {
                              return net::make_http_client(*node.runtime, net.dial(node.host), std::move(tls));
                            },
                            .disk = sim_environment(*node.disk, *node.runtime)};
    auto builder = builder_on(platform, config_, {.data_dir = ".", .policy = policy_});
    builder.fetch = [this, make = builder.fetch](const ModuleContext& context) {
      auto own = context;
      own.transport = std::make_shared<WithholdingTransport>(context.transport, withheld.op_id);
      return make(own);
    };
    auto kitsune = builder.build(*node.runtime);
    ASSERT_TRUE(kitsune.has_value()) << kitsune.error().to_string();
    node.kitsune = std::move(*kitsune);
    ASSERT_TRUE(node.kitsune->register_handler(std::make_shared<HoldingApp>()));
    const auto space =
        await<std::shared_ptr<Space>>(world, [&](auto done) { node.kitsune->space(kSimSpace, std::move(done)); });
    ASSERT_TRUE(space);
    node.space = *space;
  }

  Config config_;
  std::shared_ptr<const OpPolicy> policy_ = make_sha256_policy(100'000);
};

/// C2 and C3 of gossip::ComparisonTurns. What was stored more than half an hour before they meet is in no list of new
/// ops, since both hold much; only a comparison of the rings finds it.
void expect_that_recent_ops_come(std::uint64_t seed, Dialect dialect) {
  SCOPED_TRACE(std::string(to_string(dialect)) + ", seed " + std::to_string(seed));
  Nodes n(seed, 2, dialect);
  auto &a = *n.nodes[0], &b = *n.nodes[1];
  const auto old = n.some_ops(1'000, 1'100, 24h * 20);
  n.store(a, old);
  n.store(b, old);
  n.store(a, {n.withheld});
  const auto of_a = n.some_ops(10'000, 30, 2h), of_b = n.some_ops(20'000, 30, 5h);
  n.store(a, of_a);
  n.store(b, of_b);
  n.world.run_for(1h);
  n.join(0);
  n.join(1);
  // Each side begins about every other round, five minutes after the one before, and compares the disc three times.
  const Time limit = n.world.now() + 45min;
  while (n.lacking(a, of_b) + n.lacking(b, of_a) > 0 && n.world.now() < limit) n.world.run_for(20s);
  EXPECT_EQ(n.lacking(a, of_b) + n.lacking(b, of_a), 0U);
  EXPECT_EQ(n.lacking(b, {n.withheld}), 1U);
  EXPECT_EQ(b.space->gossip().coverage().in_sync_sectors, 0U) << "the discs differ, so nothing is proved";
}

TEST(WithheldOp, DoesNotKeepRecentOpsFromANodeThatAsksForIt) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) expect_that_recent_ops_come(seed, Dialect::v0_2);
}

TEST(WithheldOp, DoesNotDoSoInLaterDialects) {
  if (!iroh::has_quic()) GTEST_SKIP() << "built without QUIC";
  expect_that_recent_ops_come(1, Dialect::v0_4);
  for (std::uint64_t seed = 1; seed <= 2; ++seed) expect_that_recent_ops_come(seed, Dialect::v0_5);
}

}  // namespace
}  // namespace kitsune2::sim
