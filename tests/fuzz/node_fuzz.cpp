// A whole space (fetch, publish, gossip, peer store) against a peer whose messages are the input, in virtual time: it
// never crashes, its memory is bounded, it does not store ops that nobody requested, and honest work continues
// afterwards. Input: commands of one byte; those that send have a byte of length and that many bytes.
#include <string>

#include "fuzz/fuzz.hpp"
#include "kitsune2/builder.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "kitsune2/transport_memory.hpp"
#include "support/whole_messages.hpp"
#include "wire/fetch_messages.hpp"
#include "wire/k2proto.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)
using testing::await;

namespace {

const SpaceId kSpace = SpaceId::from_text("test-space");

struct App final : KitsuneHandler {
  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId& /*space*/) override {
    return std::make_shared<SpaceHandler>();
  }
};

/// The far end: sends raw messages and ignores what it receives.
struct Peer final : TransportEvents {
  void new_listening_address(const Url& /*own_url*/) override {}
  void listening_address_lost() override {}
  Result<Bytes> peer_connect(const Url& /*peer*/) override { return wire::encode_preflight({}); }
  Result<void> recv_data(const Url& /*peer*/, Bytes message) override {
    heard += message.size();
    return {};
  }
  void recv_progress(const Url& /*peer*/, std::size_t /*bytes*/) override {}
  void peer_disconnect(const Url& /*peer*/, const std::optional<std::string>& /*reason*/) override {}
  std::size_t heard = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_hash_seed(1);
  const Bytes input = fuzz::input(data, size);
  testing::SimWorld world(1);
  const auto network = MemoryNetwork::create();
  const auto node_runtime = world.make_runtime();
  const auto peer_runtime = world.make_runtime();
  Builder builder = default_test_builder(network, "node", make_prefix_policy());
  builder.bootstrap = [](const ModuleContext& c) -> Result<std::shared_ptr<Bootstrap>> {
    return make_noop_bootstrap(*c.runtime);
  };
  builder.gossip = [](const ModuleContext& c) { return make_k2_gossip(c); };
  builder.config.core_fetch.max_pending = 64;
  builder.config.core_fetch.max_pending_per_peer = 32;
  const auto node = builder.build(*node_runtime).value();
  node->register_handler(std::make_shared<App>()).value();
  world.run_ready();
  const auto space = await<std::shared_ptr<Space>>(world, [&](auto done) { node->space(kSpace, done); }).value();
  const auto agent = testing::make_agent(1);
  K2_ASSERT(await<void>(world, [&](auto done) { space->local_agent_join(agent, done); }).has_value());
  const auto ops = testing::make_ops(*make_prefix_policy(), 1, 3);
  await<ProcessedOps>(world, [&](auto done) {
    space->op_store().process_incoming_ops(testing::payloads_of(ops), done);
  }).value();
  const Url node_url = MemoryNetwork::url_of("node");
  const Url peer_url = MemoryNetwork::url_of("peer");
  Peer peer;
  auto backend = network->make_backend(*peer_runtime, "peer");
  backend->start(peer);
  world.run_ready();

  const auto send = [&](Bytes message) { backend->send(node_url, std::move(message), [](const Result<void>&) {}); };
  std::uint64_t wanted = 0;
  std::size_t steps = 0;
  for (std::size_t at = 0; at < input.size() && ++steps < 300;) {
    const std::uint8_t command = input[at++];
    const auto bytes = [&] {
      const std::size_t n = at < input.size() ? input[at++] : 0;
      const Bytes out = input.slice(at, n);
      at += out.size();
      return out;
    };
    switch (command % 10) {
      case 0:
        send(bytes());
        break;
      case 1:
        send(wire::whole_module(kSpace, kFetchModule, bytes()));
        break;
      case 2:
        send(wire::whole_module(kSpace, kPublishModule, bytes()));
        break;
      case 3:
      case 4:
        send(wire::whole_module(kSpace, kGossipModule, bytes()));
        break;
      case 5: {
        // What we request, and what we hold: the peer may answer with either, or with lies.
        ++wanted;
        space->fetch().request_ops({testing::make_ops(*make_prefix_policy(), 100 + wanted, 1)[0].op_id}, peer_url,
                                   [](const Result<void>&) {});
        break;
      }
      case 6: {
        std::vector<Bytes> list{testing::make_op(100 + command / 10U), testing::make_op(7), bytes()};
        send(wire::whole_fetch_response(kSpace, std::span<const Bytes>(list)));
        break;
      }
      case 7:
        send(wire::whole_fetch_request(kSpace, testing::ids_of(ops)));
        break;
      case 8:
        if (command >= 200) backend->disconnect(node_url, {.text = "bye"}, {});
        break;
      default:
        world.run_for(std::chrono::milliseconds(1) * (1 << (command / 10 % 16)));
        break;
    }
    world.run_ready();
  }
  world.run_for(std::chrono::seconds(30));
  const auto held = await<OpStoreStats>(world, [&](auto done) { space->op_store().stats(done); }).value();
  K2_ASSERT(held.ops >= 3 && space->fetch().pending_ops() <= 64);
  K2_ASSERT(space->peer_store().get_all().size() <= 1 + steps);
  // The node still serves.
  const std::size_t before = peer.heard;
  send(wire::whole_fetch_request(kSpace, testing::ids_of(ops)));
  world.run_for(std::chrono::seconds(10));
  if (!network->stats().lost) K2_ASSERT(peer.heard > before);
  bool stopped = false;
  backend->stop([] {});
  node->stop([&] { stopped = true; });
  world.run_for(std::chrono::seconds(60));
  K2_ASSERT(stopped);
  return 0;
}
