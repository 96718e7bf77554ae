// The same objects on real threads: one runtime per node, with messages passed by the memory network.
#include <gtest/gtest.h>

#include <atomic>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/fetch.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "kitsune2/transport_memory.hpp"

namespace kitsune2 {
namespace {

using testing::ids_of;
using testing::make_ops;
using testing::payloads_of;
using testing::poll_until;

const SpaceId kThreadsSpace = SpaceId::from_text("threads");

struct ThreadedNode {
  ThreadedNode(MemoryNetwork& network, const std::string& name) : url(MemoryNetwork::url_of(name)) {
    runtime.start();
    runtime.call([&] {
      store = make_memory_op_store(runtime, make_sha256_policy());
      transport = make_transport(runtime, network.make_backend(runtime, name), nullptr);
      CoreFetchConfig config;
      config.re_insert_outgoing_request_delay_ms = 50;
      config.first_back_off_interval_ms = config.last_back_off_interval_ms = 50;
      config.num_back_off_intervals = 64;
      fetch = make_core_fetch(runtime, config, kThreadsSpace, store, transport).value();
    });
  }
  ~ThreadedNode() {
    std::atomic<bool> stopped{false};
    runtime.call([&] { fetch->stop([&] { transport->stop([&] { stopped = true; }); }); });
    EXPECT_TRUE(poll_until([&] { return stopped.load(); }));
    runtime.call([&] {
      fetch.reset();
      transport.reset();
      store.reset();
    });
    runtime.stop();
  }
  void hold(const std::vector<MetaOp>& ops) {
    std::atomic<bool> held{false};
    runtime.call([&] {
      store->process_incoming_ops(payloads_of(ops), [&](const Result<ProcessedOps>& r) { held = r.has_value(); });
    });
    ASSERT_TRUE(poll_until([&] { return held.load(); }));
  }

  AsioRuntime runtime;
  const Url url;
  std::shared_ptr<OpStore> store;
  std::shared_ptr<Transport> transport;
  std::shared_ptr<Fetch> fetch;
};

TEST(CoreFetchThreads, TwoNodesFetchFromEachOther) {
  auto network = MemoryNetwork::create();
  ThreadedNode alice(*network, "alice"), bob(*network, "bob");
  const auto policy = make_sha256_policy();
  const auto a = make_ops(*policy, 0, 3000), b = make_ops(*policy, 10'000, 3000);
  alice.hold(a);
  bob.hold(b);
  std::atomic<int> drained{0};
  const auto fetch_all = [&](ThreadedNode& node, const std::vector<MetaOp>& ops, const Url& from) {
    node.runtime.call([&] {
      node.fetch->request_ops(ids_of(ops), from, [](const Result<void>& r) { EXPECT_TRUE(r.has_value()); });
      node.fetch->notify_on_drained([&drained] { ++drained; });
    });
  };
  fetch_all(alice, b, bob.url);
  fetch_all(bob, a, alice.url);
  ASSERT_TRUE(poll_until([&] { return drained == 2; }));
  for (auto* node : {&alice, &bob}) {
    std::atomic<std::uint64_t> ops{0};
    node->runtime.call([&] {
      EXPECT_EQ(node->fetch->stats().ops_fetched, 3000U);
      node->store->stats([&](const Result<OpStoreStats>& r) { ops = r->ops; });
    });
    EXPECT_TRUE(poll_until([&] { return ops == 6000; }));
  }
}

TEST(CoreFetchThreads, ANodeThatGoesAwayInTheMiddleIsSurvived) {
  auto network = MemoryNetwork::create();
  ThreadedNode bob(*network, "bob");
  const auto policy = make_sha256_policy();
  for (std::uint64_t round = 0; round < 3; ++round) {
    ThreadedNode alice(*network, "alice");
    // More each time: those of the last round may all have arrived before alice was gone.
    const auto ops = make_ops(*policy, 0, (round + 1) * 20'000);
    alice.hold(ops);
    std::atomic<bool> some_came{false};
    std::shared_ptr<void> subscription;
    bob.runtime.call([&] {
      FetchEvents events;
      events.ops_stored = [&](const Url&, const std::vector<StoredOp>& stored, std::uint64_t) {
        for (const auto& op : stored) some_came = some_came || op.op_id == ops[round * 20'000].op_id;
      };
      subscription = bob.fetch->subscribe(std::move(events));
      bob.fetch->request_ops(ids_of(ops), alice.url, [](const Result<void>&) {});
    });
    EXPECT_TRUE(poll_until([&] { return some_came.load(); }));
    bob.runtime.call([&] { subscription.reset(); });
  }
}

}  // namespace
}  // namespace kitsune2
