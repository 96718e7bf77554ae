// Whole nodes (Kitsune with its modules) and scripted peers in virtual time.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/builder.hpp"
#include "kitsune2/http.hpp"
#include "kitsune2/testing/builders.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "kitsune2/testing/waiters.hpp"
#include "kitsune2/transport_memory.hpp"
#include "wire/gossip_messages.hpp"
#include "wire/publish_messages.hpp"

namespace kitsune2::node_test {

using namespace std::chrono_literals;
using testing::AgentInfoBuilder;
using testing::await;
using testing::make_agent;
using testing::SimRuntime;
using testing::SimWorld;

inline const SpaceId kSpace = SpaceId::from_text("test-space");

struct Notify {
  Url from;
  SpaceId space;
  Bytes data;
};

/// The application of a node, which records everything.
struct App : KitsuneHandler {
  struct Ear : SpaceHandler {
    explicit Ear(App& a) : app(a) {}
    void recv_notify(const Url& from, const SpaceId& space, Bytes data) override {
      app.notifies.push_back({from, space, data});
    }
    App& app;
  };
  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId& space) override {
    if (refuse) return make_error(Errc::blocked, "not this space");
    created.push_back(space);
    return std::shared_ptr<SpaceHandler>(std::make_shared<Ear>(*this));
  }
  void new_listening_address(const Url& url) override { urls.push_back(url); }
  void peer_disconnect(const Url& peer, const std::optional<std::string>&) override { gone.push_back(peer); }
  bool allow(const Url& peer, const SpaceId*, Direction) override { return peer != denied; }

  bool refuse = false;
  Url denied;
  std::vector<Notify> notifies;
  std::vector<SpaceId> created;
  std::vector<Url> urls, gone;
};

/// A bootstrap that records what is put.
struct RecordingBootstrap : Bootstrap {
  explicit RecordingBootstrap(Runtime& r) : runtime(r) {}
  void put(AgentInfoPtr info) override { puts.push_back({runtime.now(), std::move(info)}); }
  void poll_now() override { ++polls; }
  void on_outdated(std::function<void(const AgentId&)> sign) override { sign_again = std::move(sign); }
  void stop(std::function<void()> done) override {
    stopped = true;
    runtime.post(std::move(done));
  }
  Runtime& runtime;
  std::vector<std::pair<Time, AgentInfoPtr>> puts;
  std::function<void(const AgentId&)> sign_again;
  int polls = 0;
  bool stopped = false;
};

struct Net {
  explicit Net(std::uint64_t seed = 1, const MemoryNetworkOptions& options = {})
      : world(seed), network(MemoryNetwork::create(options)) {}
  SimWorld world;
  std::shared_ptr<MemoryNetwork> network;
};

/// A node with one space. Change `builder` before `start`.
struct SimNode {
  SimNode(Net& n, const std::string& name)
      : net(n), url(MemoryNetwork::url_of(name)), runtime(n.world.make_runtime()), app(std::make_shared<App>()) {
    builder = default_test_builder(n.network, name, make_prefix_policy());
    builder.bootstrap = [this](const ModuleContext& c) {
      bootstrap = std::make_shared<RecordingBootstrap>(*c.runtime);
      return Result<std::shared_ptr<Bootstrap>>(bootstrap);
    };
  }
  SimNode& start(const SpaceId& id = kSpace) {
    kitsune = builder.build(*runtime).value();
    kitsune->register_handler(app).value();
    net.world.run_ready();
    space = await<std::shared_ptr<Space>>(net.world, [&](auto done) { kitsune->space(id, done); }).value();
    return *this;
  }
  Result<void> join(const std::shared_ptr<LocalAgent>& agent) {
    return await<void>(net.world, [&](auto done) { space->local_agent_join(agent, done); });
  }
  void leave(const AgentId& agent) {
    const auto left =
        await<void>(net.world, [&](auto done) { space->local_agent_leave(agent, [done] { done(Result<void>()); }); });
    EXPECT_TRUE(left);
  }
  bool stop() {
    const auto stopped = await<void>(net.world, [&](auto done) { kitsune->stop([done] { done(Result<void>()); }); });
    return stopped.has_value();
  }
  AgentInfoPtr info_of(const std::shared_ptr<LocalAgent>& agent) { return space->peer_store().get(agent->agent()); }
  std::vector<OpId> add_ops(std::uint64_t first, std::size_t count, std::size_t size = 64) {
    const auto ops = testing::make_ops(*make_prefix_policy(), first, count, size);
    const auto stored = await<ProcessedOps>(
        net.world, [&](auto done) { space->op_store().process_incoming_ops(testing::payloads_of(ops), done); });
    EXPECT_TRUE(stored);
    return testing::ids_of(ops);
  }
  std::uint64_t held() {
    return await<OpStoreStats>(net.world, [&](auto done) { space->op_store().stats(done); }).value().ops;
  }
  std::vector<OpId> lacking(const std::vector<OpId>& ids) {
    return await<std::vector<OpId>>(net.world, [&](auto done) { space->op_store().filter_out_existing_ops(ids, done); })
        .value();
  }

  Net& net;
  Url url;
  std::unique_ptr<SimRuntime> runtime;
  std::shared_ptr<App> app;
  Builder builder;
  std::shared_ptr<RecordingBootstrap> bootstrap;
  std::shared_ptr<Kitsune> kitsune;
  std::shared_ptr<Space> space;
};

/// A peer that sends exactly what the test says, and keeps what it receives.
struct Scripted {
  Scripted(Net& n, const std::string& name, Dialect spoken = Dialect::v0_2)
      : net(n), dialect(spoken), url(MemoryNetwork::url_of(name)), runtime(n.world.make_runtime()) {
    transport = make_transport(*runtime, n.network->make_backend(*runtime, name), nullptr, dialect);
    for (const char* module : {kPublishModule, kGossipModule, kFetchModule}) {
      transport->register_module_handler(kSpace, module, std::make_shared<Ear>(*this, module)).value();
    }
    net.world.run_ready();
  }
  ~Scripted() { transport->unregister_space(kSpace); }

  void send(const Url& to, const std::string& module, Bytes data) {
    transport->send_module(to, kSpace, module, std::move(data), [](const Result<void>&) {});
    net.world.run_ready();
  }
  void gossip(const Url& to, const wire::GossipMessage& m) { send(to, kGossipModule, wire::encode_gossip(m)); }
  /// The next gossip message that has arrived, if it is of type T.
  template <class T>
  std::optional<T> next_gossip() {
    if (gossips.empty() || !std::holds_alternative<T>(gossips.front())) return std::nullopt;
    T out = std::get<T>(gossips.front());
    gossips.pop_front();
    return out;
  }

  struct Ear : ModuleMessageHandler {
    Ear(Scripted& p, std::string m) : peer(p), module(std::move(m)) {}
    Result<void> recv_module_msg(const Url&, const SpaceId&, Bytes data) override {
      if (module == kGossipModule) {
        peer.gossips.push_back(wire::decode_gossip(peer.dialect, data).value());
      } else if (module == kPublishModule) {
        const auto m = wire::decode_publish(peer.dialect, data).value();
        if (m.type == wire::PublishMessageType::agent) {
          peer.agents.push_back(AgentInfoSigned::decode(m.agent_info.text()).value());
        } else {
          peer.op_messages.push_back(m.op_ids.ids<OpId>());
        }
      } else {
        peer.fetch_messages.push_back(data);
      }
      return {};
    }
    void peer_disconnect(const Url&, const std::optional<std::string>&) override {
      if (module == kGossipModule) ++peer.disconnects;
    }
    Scripted& peer;
    std::string module;
  };

  Net& net;
  const Dialect dialect;
  Url url;
  std::unique_ptr<SimRuntime> runtime;
  std::shared_ptr<Transport> transport;
  std::deque<wire::GossipMessage> gossips;
  std::vector<AgentInfoPtr> agents;
  std::vector<std::vector<OpId>> op_messages;
  std::vector<Bytes> fetch_messages;
  int disconnects = 0;
};

/// An HTTP server for bootstrap that answers after `latency`: like the reference's, but with a switch.
struct FakeServer {
  explicit FakeServer(SimWorld& w) : world(w) {}
  struct Client : HttpClient {
    Client(FakeServer& s, Runtime& r) : server(s), runtime(r) {}
    void request(HttpRequest request, Handler<HttpResponse> done) override {
      server.requests.push_back({server.world.now(), request});
      runtime.schedule_after(server.latency, [this, request, done] { done(server.answer(request)); });
    }
    FakeServer& server;
    Runtime& runtime;
  };
  std::shared_ptr<HttpClient> client(Runtime& r) { return std::make_shared<Client>(*this, r); }

  Result<HttpResponse> answer(const HttpRequest& request) {
    if (unreachable) return make_error(Errc::peer_unresponsive, "connection refused");
    if (unauthorized && request.url.ends_with("/authenticate")) return HttpResponse{200, R"({"authToken":"bad"})"};
    if (unauthorized) return HttpResponse{401, "{}"};
    if (halted) return HttpResponse{500, R"({"error":"halted"})"};
    if (request.method == HttpMethod::kPut) {
      auto info = AgentInfoSigned::decode(request.body);
      if (!info || (rejected && (*info)->info().agent == *rejected)) return HttpResponse{500, R"({"error":"bad"})"};
      infos[(*info)->info().agent] = *info;
      return HttpResponse{200, "{}"};
    }
    if (body) return HttpResponse{200, *body};
    std::string list;
    for (const auto& [agent, info] : infos) list += (list.empty() ? "" : ",") + info->encode();
    return HttpResponse{200, '[' + list + ']'};
  }
  std::vector<Time> times(HttpMethod method) const {
    std::vector<Time> out;
    for (const auto& [at, request] : requests) {
      if (request.method == method) out.push_back(at);
    }
    return out;
  }

  SimWorld& world;
  Duration latency = 1ms;
  bool unreachable = false, halted = false, unauthorized = false;
  std::optional<AgentId> rejected;
  std::optional<std::string> body;
  std::map<AgentId, AgentInfoPtr> infos;
  std::vector<std::pair<Time, HttpRequest>> requests;
};

}  // namespace kitsune2::node_test
