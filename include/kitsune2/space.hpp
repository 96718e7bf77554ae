// Spaces and the node that holds them: Kitsune, Space, their handlers, the builder.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kitsune2/agent.hpp"
#include "kitsune2/config.hpp"
#include "kitsune2/fetch.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/peer_store.hpp"
#include "kitsune2/report.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/transport.hpp"

namespace kitsune2 {

/// Tells peers about ops and agents. Strand only. Rust: `Publish`.
class Publish {
 public:
  virtual ~Publish() = default;
  /// Tells `target` that we hold `op_ids`; it fetches what it lacks. Split into messages of bounded size.
  virtual void publish_ops(std::vector<OpId> op_ids, const Url& target, Handler<> done) = 0;
  virtual void publish_agent(AgentInfoPtr info, const Url& target, Handler<> done) = 0;
  virtual void stop() = 0;
};
std::shared_ptr<Publish> make_core_publish(Runtime& runtime, const CorePublishConfig& config, const SpaceId& space,
                                           std::shared_ptr<Fetch> fetch, std::shared_ptr<PeerStore> peers,
                                           std::shared_ptr<Transport> transport);

/// Finds first peers. Strand only. Rust: `Bootstrap`.
class Bootstrap {
 public:
  virtual ~Bootstrap() = default;
  /// Makes `info` known, now and again until it works or a newer one replaces it. Never blocks.
  virtual void put(AgentInfoPtr info) = 0;
  /// Asks for peers soon, whatever the back-off.
  virtual void poll_now() = 0;
  virtual void stop(std::function<void()> done) = 0;
};

/// Gossip of one space. Strand only. For now a responder that keeps stock nodes healthy: see docs/protocol-gossip.md.
class Gossip {
 public:
  virtual ~Gossip() = default;
  /// Tells gossip that the host stored ops by itself.
  virtual void inform_ops_stored(std::vector<StoredOp> ops) = 0;
  virtual void stop() = 0;
};

/// The application's ear in one space. Rust: `SpaceHandler`.
class SpaceHandler {
 public:
  virtual ~SpaceHandler() = default;
  virtual void recv_notify(const Url& from, const SpaceId& space, Bytes data) {
    static_cast<void>(from);
    static_cast<void>(space);
    static_cast<void>(data);
  }
};

/// One network inside kitsune2. Strand only. Rust: `Space`.
class Space {
 public:
  virtual ~Space() = default;
  virtual const SpaceId& id() const = 0;
  virtual PeerStore& peer_store() = 0;
  virtual LocalAgentStore& local_agent_store() = 0;
  virtual OpStore& op_store() = 0;
  virtual Fetch& fetch() = 0;
  virtual Publish& publish() = 0;
  virtual Gossip& gossip() = 0;
  virtual PeerMetaStore& peer_meta_store() = 0;
  virtual Bootstrap& bootstrap() = 0;
  /// Own url in this space; nullopt while not reachable.
  virtual std::optional<Url> current_url() const = 0;
  /// Signs and spreads the agent's info now (if there is a url), and keeps it fresh: re-signed when less than 5 minutes
  /// are left (checked every 60 s), on a new url and on a new arc.
  virtual void local_agent_join(std::shared_ptr<LocalAgent> agent, Handler<> done) = 0;
  /// Spreads a tombstone and forgets the agent. No-op for an agent that has not joined.
  virtual void local_agent_leave(const AgentId& agent, std::function<void()> done) = 0;
  virtual void send_notify(const Url& to, Bytes data, Handler<> done) = 0;
  /// To be called by a host that stored ops through the op store itself.
  virtual void inform_ops_stored(std::vector<StoredOp> ops) = 0;
  virtual void stop(std::function<void()> done) = 0;
};

/// The application's ear on the node. Rust: `KitsuneHandler`.
class KitsuneHandler : public TransportHandler {
 public:
  /// A space was asked for, by us or by a peer's message: its handler, or an error to refuse.
  virtual Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId& space) = 0;
};

/// A node: spaces over one transport. Strand only. Rust: `Kitsune`.
class Kitsune {
 public:
  virtual ~Kitsune() = default;
  /// Must be called once before `space`. Errc::already_exists the second time.
  virtual Result<void> register_handler(std::shared_ptr<KitsuneHandler> handler) = 0;
  virtual std::vector<SpaceId> list_spaces() const = 0;
  /// The space, made on first use.
  virtual void space(const SpaceId& space, Handler<std::shared_ptr<Space>> done) = 0;
  virtual std::shared_ptr<Space> space_if_exists(const SpaceId& space) const = 0;
  virtual Transport& transport() = 0;
  virtual BlockList& blocks() = 0;
  virtual Report& report() = 0;
  /// Stops all spaces, then the transport; `done` when nothing is under way.
  virtual void stop(std::function<void()> done) = 0;
};

}  // namespace kitsune2
