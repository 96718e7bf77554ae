// Assembling a node: the implementation of each module, and the configuration.
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

/// What the modules of one space are made from. The members are filled in their order: a factory finds the members
/// above its own product set, and those below it null.
struct ModuleContext {
  Runtime* runtime = nullptr;  ///< outlives all modules
  std::shared_ptr<RuntimeConfig> config;
  const Verifier* verifier = nullptr;
  std::shared_ptr<Report> report;
  std::shared_ptr<BlockList> blocks;
  std::shared_ptr<PeerBudget> budget;  ///< may be null in a context that no node made; then nothing is charged
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

/// The factories of a node's modules, and its configuration. A value: start from `default_builder` or
/// `default_test_builder`, change what you like, then call `build`. Rust: `Builder`.
///
///     auto builder = default_test_builder(network);
///     builder.bootstrap = [](const ModuleContext&) { return make_noop_bootstrap(); };
///     auto kitsune = builder.build(runtime).value();
struct Builder {
  Config config;
  const Verifier* verifier = &ed25519_verifier();

  /// Called once per node, when its handler is registered.
  std::function<Result<std::unique_ptr<TransportBackend>>(Runtime&, const Config&)> transport;
  /// Called once per node.
  std::function<std::shared_ptr<Report>()> report;
  std::function<std::shared_ptr<BlockList>(Runtime&)> block_list;

  /// What a relay inside the node knows about its peers' addresses. Empty: nothing.
  AddressGroupOf address_group = {};

  // Called once per space, in this order.
  ModuleFactory<PeerStore> peer_store;
  ModuleFactory<Bootstrap> bootstrap;
  ModuleFactory<LocalAgentStore> local_agent_store;
  ModuleFactory<OpStore> op_store;
  ModuleFactory<Fetch> fetch;
  ModuleFactory<Publish> publish;
  ModuleFactory<PeerMetaStore> peer_meta_store;
  ModuleFactory<Gossip> gossip;

  /// What the chosen modules require of the configuration beyond its ranges ("coreBootstrap.serverUrl: is not set").
  std::vector<std::function<Result<void>(const Config&)>> checks;

  /// Checks the ranges, then runs `checks`. Errc::invalid_config naming the key; Errc::invalid_argument: no factory.
  Result<void> validate() const;
  /// Validates, and makes a node that waits for `register_handler`. `runtime` must outlive it.
  Result<std::shared_ptr<Kitsune>> build(Runtime& runtime) const;
};

/// Where the stores of the default builder are kept.
struct StoreOptions {
  std::string data_dir = {};                    ///< must exist; empty: in memory
  std::shared_ptr<const OpPolicy> policy = {};  ///< null: SHA-256
};

/// The modules of a real node: tx5 over a relay, bootstrap by HTTP, fetch, publish and gossip. The stores are in
/// `data_dir` (SQLite: "<space>.db", "<space>.peers.db") or in memory. `checks` require both server urls.
Builder default_builder(AsioRuntime& runtime, const Config& config, const StoreOptions& stores = {});

/// The modules for tests, all in memory. Transport and bootstrap go over `network`: nodes of two networks never meet;
/// those of one network find each other if they have the same `memBootstrap.testId`. No gossip, like the reference's.
/// `policy` computes the op ids (null: SHA-256). `name` is the node's name in the network, so it serves one node only;
/// empty: a number.
Builder default_test_builder(std::shared_ptr<MemoryNetwork> network, const std::string& name = {},
                             std::shared_ptr<const OpPolicy> policy = nullptr);

// --- products of the factories that are not declared with their interface

/// Bootstrap through a server, configured by `coreBootstrap`. PUT: sends each own info until the server accepts it, a
/// newer one replaces it, or it expires; pauses 5 s to 5 min after a failure, but not for a new info. GET: at once,
/// then after 5 s, doubling to 5 min. Each info is verified and judged (docs/protocol-gossip.md, "Which agent infos are
/// believed"). `stop` waits up to two seconds for PUTs that were not tried yet, such as a last tombstone.
/// Errc::invalid_config: serverUrl is not set or is not an http(s) url.
Result<std::shared_ptr<Bootstrap>> make_core_bootstrap(const ModuleContext& context, std::shared_ptr<HttpClient> http);

/// Bootstrap between those nodes of `network` that have the same `memBootstrap.testId`. Holds at most 32 infos per
/// space; when full, drops the middle one. Forgets them with the network. Rust: `MemBootstrap`.
std::shared_ptr<Bootstrap> make_mem_bootstrap_over(const ModuleContext& context,
                                                   const std::shared_ptr<MemoryNetwork>& network);
/// The same between all nodes of this process, for a transport that is not a MemoryNetwork. An info stays until its
/// node leaves or it expires, so tests that run one after the other each need their own `testId`.
std::shared_ptr<Bootstrap> make_mem_bootstrap(const ModuleContext& context);

/// Bootstrap that does nothing.
std::shared_ptr<Bootstrap> make_noop_bootstrap(Runtime& runtime);

/// Gossip as described in docs/protocol-gossip.md. Registers itself with the transport. Uses all of `context`.
Result<std::shared_ptr<Gossip>> make_k2_gossip(const ModuleContext& context);

/// Gossip that does nothing. Rust: `CoreGossipStub`.
std::shared_ptr<Gossip> make_noop_gossip();

/// Counters in memory, for at most `max_peers` peers per space; the least recently active ones are dropped.
std::shared_ptr<Report> make_core_report(std::size_t max_peers = 1024);

/// A transport that reaches no peer: it has no url, and sends complete with Errc::disconnected.
std::unique_ptr<TransportBackend> make_offline_transport(Runtime& runtime);

}  // namespace kitsune2
