// One network inside kitsune2: its modules, its local agents, and the handler by which the application hears of events.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "kitsune2/agent.hpp"
#include "kitsune2/bootstrap.hpp"
#include "kitsune2/fetch.hpp"
#include "kitsune2/gossip.hpp"
#include "kitsune2/op_store.hpp"
#include "kitsune2/peer_store.hpp"
#include "kitsune2/publish.hpp"

namespace kitsune2 {

class Space;

/// The application's handler in one space. Rust: `SpaceHandler`.
class SpaceHandler {
 public:
  virtual ~SpaceHandler() = default;
  /// Called once, on the strand, when the space has been made and before `Kitsune::space` completes.
  /// Nothing has happened in the space yet: no message and no op has arrived, not even of those that an
  /// earlier run left to be fetched. Subscribe here to the events of its modules
  /// (`space.fetch().subscribe(…)`) to miss nothing. `space` outlives all other calls of this handler. Must
  /// not stop the space. The reference has no counterpart.
  virtual void on_space_created(Space& /*space*/) {}
  virtual void recv_notify(const Url& /*from*/, const SpaceId& /*space*/, Bytes /*data*/) {}
  /// Whether to fetch ops that `peer` offers, by publish or gossip. Default: yes. *Rationale*: an application that
  /// knows which ops it wants, and requests them through `Space::fetch`, must not let strangers fill its disk. The
  /// reference has no counterpart.
  virtual bool accept_offered_ops(const Url& /*peer*/, const SpaceId& /*space*/) { return true; }
};

/// One network inside kitsune2. Strand only, except `id` and the members that return a module, which may be called on
/// any thread (the modules themselves may not). Rust: `Space`.
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
  /// This node's url in this space; nullopt while it cannot be reached.
  virtual std::optional<Url> current_url() const = 0;
  /// The reason why there is no url; see Transport::failure.
  virtual std::optional<TransportFailure> transport_failure() const { return std::nullopt; }
  /// Signs and spreads the agent's info now (if there is a url), and keeps it fresh: signs again when less than 5
  /// minutes are left (checked every 60 s), on a new url and on a new arc. Replaces an agent with the same id.
  ///
  /// The target arc decides which ops gossip brings: none, if it is empty. For an Ed25519LocalAgent it is full by
  /// default. If the first agent joins with an empty one, a warning is logged. The storage arc, which the info
  /// announces, stays as it is, so it is empty unless the host has set it, and grows to the target as gossip finds
  /// that this node holds what others hold. A host that knows that it holds the whole target, because it made all of
  /// the ops, sets the storage arc to the target before the agent joins. What is not part of the target is not
  /// announced.
  ///
  /// Errors: the signer's, and Errc::invalid_argument for an arc that does not consist of whole sectors
  /// (DhtArc::of_sectors); then the agent has not joined. Errc::cancelled after `stop`.
  virtual void local_agent_join(std::shared_ptr<LocalAgent> agent, Handler<> done) = 0;
  /// Sets the agent's target arc and joins. An empty arc is taken as intended, without a warning.
  virtual void local_agent_join_with_arc(std::shared_ptr<LocalAgent> agent, DhtArc arc, Handler<> done) {
    if (agent) agent->set_tgt_storage_arc(arc);
    local_agent_join(std::move(agent), std::move(done));
  }
  /// Forgets the agent, empties its storage arc and sends a tombstone to the bootstrap server and all known peers. Then
  /// calls `done`, when these have left or after two seconds. No-op for an agent that has not joined.
  virtual void local_agent_leave(const AgentId& agent, std::function<void()> done) = 0;
  virtual void send_notify(const Url& to, Bytes data, Handler<> done) = 0;
  /// The earlier interface, before op stores reported new ops themselves (`OpStore::subscribe`).
  [[deprecated("not needed: the op store tells of what is stored")]] void inform_ops_stored(
      const std::vector<StoredOp>& /*ops*/) {}
  /// The last error of the op store that fetch met within the last minute, such as a full disk.
  virtual std::optional<Error> recent_store_failure() const { return std::nullopt; }
  /// Leaves with all local agents, then stops gossip, publish, bootstrap and fetch. The stores remain usable while the
  /// object exists, or until they are closed (`Node::stop` closes them).
  virtual void stop(std::function<void()> done) = 0;
};

}  // namespace kitsune2
