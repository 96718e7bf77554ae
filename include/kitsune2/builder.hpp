// Putting a node together: which implementation of each module, and the configuration.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kitsune2/budget.hpp"
#include "kitsune2/config.hpp"
#include "kitsune2/kitsune.hpp"

namespace kitsune2 {

class AsioRuntime;
class HttpClient;
class MemoryNetwork;

/// What the modules of one space are made from. Filled in the order of the members: a factory finds what stands above
/// its own product, and null below it.
struct ModuleContext {
  Runtime* runtime = nullptr;  ///< outlives all modules
  std::shared_ptr<RuntimeConfig> config;
  const Verifier* verifier = nullptr;
  std::shared_ptr<Report> report;
  std::shared_ptr<BlockList> blocks;
  std::shared_ptr<PeerBudget> budget;  ///< may be null in a context that was not made by a node: nothing is charged
  std::shared_ptr<Transport> transport;
  SpaceId space;
  std::shared_ptr<PeerStore> peer_store;
  std::shared_ptr<Bootstrap> bootstrap;
  std::shared_ptr<LocalAgentStore> local_agent_store;
  std::shared_ptr<OpStore> op_store;
  std::shared_ptr<Fetch> fetch;
  std::shared_ptr<Publish> publish;
  std::shared_ptr<PeerMetaStore> peer_meta_store;
};

/// Makes one module of one space. Called on the strand. An exception counts as an error (Errc::internal).
template <class T>
using ModuleFactory = std::function<Result<std::shared_ptr<T>>(const ModuleContext&)>;

/// The factories of a node's modules and its configuration. A value: change what you like, then `build`.
/// Rust: `Builder`. Start from `default_builder` or `default_test_builder`.
///
///     auto builder = default_test_builder(network);
///     builder.bootstrap = [](const ModuleContext&) { return make_noop_bootstrap(); };
///     auto kitsune = builder.build(runtime).value();
struct Builder {
  Config config;
  const Verifier* verifier = &ed25519_verifier();

  /// Once for the node, when its handler is registered.
  std::function<Result<std::unique_ptr<TransportBackend>>(Runtime&, const Config&)> transport;
  /// Once for the node.
  std::function<std::shared_ptr<Report>()> report;
  std::function<std::shared_ptr<BlockList>(Runtime&)> block_list;

  /// What a relay inside the node knows of its peers' addresses; empty: nothing.
  AddressGroupOf address_group = {};

  // Once for each space, in this order.
  ModuleFactory<PeerStore> peer_store;
  ModuleFactory<Bootstrap> bootstrap;
  ModuleFactory<LocalAgentStore> local_agent_store;
  ModuleFactory<OpStore> op_store;
  ModuleFactory<Fetch> fetch;
  ModuleFactory<Publish> publish;
  ModuleFactory<PeerMetaStore> peer_meta_store;
  ModuleFactory<Gossip> gossip;

  /// What the chosen modules demand of the configuration beyond its ranges ("coreBootstrap.serverUrl: is not set").
  std::vector<std::function<Result<void>(const Config&)>> checks;

  /// The ranges, then `checks`. Errc::invalid_config naming the key; Errc::invalid_argument for a missing factory.
  Result<void> validate() const;
  /// A node that waits for `register_handler`. Validates first. `runtime` must outlive it.
  Result<std::shared_ptr<Kitsune>> build(Runtime& runtime) const;
};

/// Where the stores of the default builder are.
struct StoreOptions {
  std::string data_dir = {};                    ///< existing; empty: in memory
  std::shared_ptr<const OpPolicy> policy = {};  ///< null: SHA-256
};

/// The modules of a real node: tx5 over a relay, bootstrap by HTTP, fetch, publish, gossip; stores in `data_dir`
/// (SQLite: "<space>.db", "<space>.peers.db") or in memory. `checks` demand both server urls.
Builder default_builder(AsioRuntime& runtime, const Config& config, const StoreOptions& stores = {});

/// The modules for tests, all in memory: stores, transport and bootstrap over `network` (so that nodes of two networks
/// never meet; those of one find each other if they have the same `memBootstrap.testId`), no gossip (as the
/// reference's). Ops are named by `policy` (null: SHA-256). `name`: of the node in the network, so of one node; empty:
/// a number.
Builder default_test_builder(std::shared_ptr<MemoryNetwork> network, const std::string& name = {},
                             std::shared_ptr<const OpPolicy> policy = nullptr);

// --- the factories' products that are not declared with their interface

/// Bootstrap through a server, on `coreBootstrap`. PUT: each own info until the server took it, a newer one replaces
/// it or it expires; waits 5 s to 5 min after a failure, not at all for a new info. GET: at once, then after 5 s,
/// doubling to 5 min; every info is verified and judged (docs/protocol-gossip.md, "Which agent infos are believed").
/// `stop` waits up to two seconds for PUTs that have not been tried yet (a last tombstone).
/// Errc::invalid_config: serverUrl is not set or no http(s) url.
Result<std::shared_ptr<Bootstrap>> make_core_bootstrap(const ModuleContext& context, std::shared_ptr<HttpClient> http);

/// Bootstrap between the nodes of `network` that have the same `memBootstrap.testId`: at most 32 infos a space, the
/// middle one goes. What they put is forgotten with the network. Rust: `MemBootstrap`.
std::shared_ptr<Bootstrap> make_mem_bootstrap_over(const ModuleContext& context,
                                                   const std::shared_ptr<MemoryNetwork>& network);
/// The same between all nodes of this process that are made with it, for a transport that is no MemoryNetwork. What a
/// node puts stays until it leaves or the info expires: tests that run one after the other need another `testId` each.
std::shared_ptr<Bootstrap> make_mem_bootstrap(const ModuleContext& context);

/// Bootstrap that does nothing.
std::shared_ptr<Bootstrap> make_noop_bootstrap(Runtime& runtime);

/// Gossip as docs/protocol-gossip.md says. Registers itself with the transport. Uses all of `context`.
Result<std::shared_ptr<Gossip>> make_k2_gossip(const ModuleContext& context);

/// Gossip that does nothing. Rust: `CoreGossipStub`.
std::shared_ptr<Gossip> make_noop_gossip();

/// Counters in memory; the peers of a space are bounded by `max_peers` (least recently active go).
std::shared_ptr<Report> make_core_report(std::size_t max_peers = 1024);

/// A transport that reaches nobody: no url, sends complete with Errc::disconnected.
std::unique_ptr<TransportBackend> make_offline_transport(Runtime& runtime);

}  // namespace kitsune2
