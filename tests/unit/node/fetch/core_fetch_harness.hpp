// Whole fetch nodes and scripted peers in virtual time.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/fetch.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/fault_store.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "kitsune2/transport_memory.hpp"
#include "node/fetch/core_fetch.hpp"
#include "wire/fetch_messages.hpp"

namespace kitsune2::fetch_test {

using namespace std::chrono_literals;
using testing::await;
using testing::FaultStore;
using testing::ids_of;
using testing::make_ops;
using testing::SimRuntime;
using testing::SimWorld;

inline Time at(Duration since_start) { return Time(since_start); }
inline const SpaceId kSpace = SpaceId::from_text("fetch-space");

struct Bench {
  explicit Bench(std::uint64_t seed = 1, const MemoryNetworkOptions& options = {}, Dialect spoken = Dialect::v0_2)
      : dialect(spoken), world(seed), network(MemoryNetwork::create(options)), disk_runtime(world.make_runtime()) {}

  const Dialect dialect;
  SimWorld world;
  std::shared_ptr<MemoryNetwork> network;
  std::unique_ptr<SimRuntime> disk_runtime;  ///< for the stores: nodes crash, disks do not
  std::shared_ptr<const OpPolicy> policy = make_prefix_policy();

  std::shared_ptr<OpStore> make_disk() { return make_memory_op_store(*disk_runtime, policy); }
  std::vector<MetaOp> ops(std::uint64_t first, std::size_t count, std::size_t size = 64) const {
    return make_ops(*policy, first, count, size);
  }
};

/// A node with transport, store and fetch. `disk` survives it.
struct FetchNode {
  /// `unreadable`: the error of all reads of its store, from the beginning.
  FetchNode(Bench& bench, const std::string& name, const CoreFetchConfig& config = {},
            std::shared_ptr<OpStore> on = nullptr, std::optional<Error> unreadable = std::nullopt)
      : bench_(bench),
        url(MemoryNetwork::url_of(name)),
        disk(on ? std::move(on) : bench.make_disk()),
        runtime(bench.world.make_runtime()),
        store(std::make_shared<FaultStore>(*runtime, disk)),
        transport(make_transport(*runtime, bench.network->make_backend(*runtime, name), nullptr, bench.dialect)) {
    store->fail_reads(std::move(unreadable));
    auto made = make_core_fetch(*runtime, config, kSpace, store, transport);
    EXPECT_TRUE(made.has_value());
    fetch = *made;
    subscription = fetch->subscribe(
        {.ops_stored =
             [this](const Url& peer, const std::vector<StoredOp>& stored, std::uint64_t bytes) {
               stored_from[peer] += stored.size();
               stored_bytes += bytes;
               last_stored_at = bench_.world.now();
               if (on_stored) on_stored();
             },
         .ops_missing =
             [this](const Url& peer, const std::vector<OpId>& ids) {
               auto& list = missing[peer];
               list.insert(list.end(), ids.begin(), ids.end());
             },
         .peer_given_up =
             [this](const Url& peer, const std::vector<OpId>& orphaned) {
               given_up.push_back({bench_.world.now(), peer, orphaned});
             },
         .ops_served = [this](const Url& peer, std::uint64_t count, std::uint64_t) { served_to[peer] += count; },
         .store_failed = [this](const Error& error) { store_errors.push_back(error); },
         .ops_unserved =
             [this](const Url& peer, const std::vector<OpId>& ids, const std::vector<OpId>& orphaned) {
               unserved.push_back({bench_.world.now(), peer, ids, orphaned});
             },
         .ops_invalid =
             [this](const Url& peer, std::uint64_t count, const Error& first) {
               invalid[peer] += count;
               invalid_reasons.push_back(first.to_string());
             }});
  }
  ~FetchNode() {
    runtime->crash();  // no handler of what is destroyed now is called
    fetch.reset();
    transport.reset();
    store.reset();
  }
  FetchNode(const FetchNode&) = delete;
  FetchNode& operator=(const FetchNode&) = delete;

  void hold(const std::vector<MetaOp>& ops) {
    auto result = await<ProcessedOps>(bench_.world,
                                      [&](auto done) { disk->process_incoming_ops(testing::payloads_of(ops), done); });
    ASSERT_TRUE(result.has_value());
    ASSERT_EQ(result->stored.size(), ops.size());
  }
  /// Starts a request without waiting for its outcome.
  void want(const std::vector<OpId>& ids, const Url& source) {
    ++wanted;
    fetch->request_ops(ids, source, [this](const Result<void>& r) { outcomes.push_back(r); });
  }
  Result<void> request(const std::vector<OpId>& ids, const Url& source) {
    return await<void>(bench_.world, [&](auto done) { fetch->request_ops(ids, source, done); });
  }
  std::size_t held(const std::vector<OpId>& ids) {
    auto missing_ids =
        await<std::vector<OpId>>(bench_.world, [&](auto done) { disk->filter_out_existing_ops(ids, done); });
    return ids.size() - missing_ids.value().size();
  }
  std::uint64_t ops_pending_on_disk() {
    auto r = await<std::vector<std::pair<Url, std::vector<OpId>>>>(bench_.world,
                                                                   [&](auto done) { disk->retrieve_pending(done); });
    std::uint64_t count = 0;
    for (const auto& [source, ids] : r.value()) count += ids.size();
    return count;
  }
  bool drain(Duration limit = 1h) {
    return bench_.world.run_until([&] { return outcomes.size() == wanted && fetch->pending_ops() == 0; }, limit);
  }
  void check() { static_cast<const CoreFetch&>(*fetch).check_invariants(); }

  struct GivenUp {
    Time at;
    Url peer;
    std::vector<OpId> orphaned;
  };

  struct Unserved {
    Time at;
    Url peer;
    std::vector<OpId> ops, orphaned;
  };

  Bench& bench_;
  const Url url;
  const std::shared_ptr<OpStore> disk;
  std::unique_ptr<SimRuntime> runtime;
  std::shared_ptr<FaultStore> store;
  std::shared_ptr<Transport> transport;
  std::shared_ptr<Fetch> fetch;
  std::shared_ptr<void> subscription;

  std::map<Url, std::uint64_t> stored_from, served_to;
  std::map<Url, std::vector<OpId>> missing;
  std::uint64_t stored_bytes = 0;
  Time last_stored_at{};
  std::vector<GivenUp> given_up;
  std::vector<Error> store_errors;
  std::vector<Unserved> unserved;
  std::map<Url, std::uint64_t> invalid;
  std::vector<std::string> invalid_reasons;
  std::size_t wanted = 0;
  std::vector<Result<void>> outcomes;
  std::function<void()> on_stored;
};

/// A peer that does only what the test says.
class Probe : public ModuleMessageHandler {
 public:
  struct Request {
    Time at;
    Url from;
    std::vector<OpId> ids;
  };
  struct Response {
    Time at;
    Url from;
    std::vector<Bytes> ops;
    std::uint64_t bytes = 0;
  };

  Probe(Bench& bench, const std::string& name)
      : url(MemoryNetwork::url_of(name)),
        bench_(bench),
        runtime_(bench.world.make_runtime()),
        transport_(make_transport(*runtime_, bench.network->make_backend(*runtime_, name), nullptr, bench.dialect)) {
    // The transport does not own it; this object does.
    const auto borrowed = std::shared_ptr<ModuleMessageHandler>(std::shared_ptr<void>(), this);
    EXPECT_TRUE(transport_->register_module_handler(kSpace, kFetchModule, borrowed).has_value());
  }
  ~Probe() override {
    runtime_->crash();
    transport_.reset();
  }

  Result<void> recv_module_msg(const Url& peer, const SpaceId&, Bytes data) override {
    auto message = wire::decode_fetch(bench_.dialect, data);
    EXPECT_TRUE(message.has_value());
    if (message->type == wire::FetchMessageType::request) {
      requests.push_back({bench_.world.now(), peer, message->op_ids.ids<OpId>()});
      if (on_request) on_request(requests.back());
    } else {
      responses.push_back({bench_.world.now(), peer, message->ops.slices(), message->ops.total_bytes()});
    }
    return {};
  }
  void peer_disconnect(const Url&, const std::optional<std::string>&) override { ++disconnects; }

  void ask(const Url& peer, const std::vector<OpId>& ids) {
    transport_->send_module(peer, kSpace, kFetchModule, wire::encode_fetch_request(ids), [](const Result<void>&) {});
  }
  void answer(const Url& peer, const std::vector<MetaOp>& ops) {
    transport_->send_module(peer, kSpace, kFetchModule, wire::encode_fetch_response(bench_.dialect, ops),
                            [](const Result<void>&) {});
  }
  void send_raw(const Url& peer, const Bytes& data) {
    transport_->send_module(peer, kSpace, kFetchModule, data, [](const Result<void>&) {});
  }
  void disconnect(const Url& peer) { transport_->disconnect(peer, {.text = "test"}); }
  Transport& transport() { return *transport_; }
  /// Answers requests from `ops`.
  void serve(const std::vector<MetaOp>& ops) {
    for (const auto& op : ops) held_.emplace(op.op_id, op);
    on_request = [this](const Request& request) {
      std::vector<MetaOp> out;
      for (const auto& id : request.ids) {
        if (const auto it = held_.find(id); it != held_.end()) out.push_back(it->second);
      }
      if (!out.empty()) answer(request.from, out);
    };
  }
  std::vector<Time> times() const {
    std::vector<Time> out;
    for (const auto& request : requests) out.push_back(request.at);
    return out;
  }
  std::size_t ids_asked() const {
    std::size_t out = 0;
    for (const auto& request : requests) out += request.ids.size();
    return out;
  }

  const Url url;
  std::vector<Request> requests;
  std::vector<Response> responses;
  std::function<void(const Request&)> on_request;
  std::size_t disconnects = 0;

 private:
  Bench& bench_;
  std::unique_ptr<SimRuntime> runtime_;
  std::shared_ptr<Transport> transport_;
  std::map<OpId, MetaOp> held_;
};

/// A peer that cannot be reached.
inline void make_failing(Bench& bench, const Url& peer, Duration after = {}) {
  bench.network->set_links_to(peer, {.fail_sends = true, .fail_after = after});
}
/// A peer that accepts requests and never answers.
inline void make_silent(Bench& bench, const Url& peer) { bench.network->set_links_to(peer, {.swallow = true}); }

}  // namespace kitsune2::fetch_test
