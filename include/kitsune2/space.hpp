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

/// Counters since start. Monotonic.
struct PublishStats {
  std::uint64_t ops_sent = 0, agents_sent = 0;      ///< ids and infos handed to the transport
  std::uint64_t send_failures = 0;                  ///< messages
  std::uint64_t ops_received = 0, ops_refused = 0;  ///< ids; refused: over a bound of this module or of fetch
  std::uint64_t agents_received = 0;                ///< messages; the sum of the three below and of those stored
  std::uint64_t agents_invalid = 0;                 ///< do not parse or verify
  std::uint64_t agents_refused = 0;                 ///< of another space, expired, of the future, living too long
  std::uint64_t agents_rate_limited = 0;            ///< not looked at: this peer sends too many
};

/// Tells peers about ops and agents. Strand only. Rust: `Publish`.
///
/// *Rules*. P1: op ids that come in are given to fetch with the sender's url as source. P2: an agent info that comes in
/// is stored if it verifies, is of this space and its times are believable; if not it is counted, and the connection
/// stays. P3: bytes that do not decode close the connection. P4: one peer's flood costs only itself: ids that wait for
/// the store and infos a second are bounded for each peer, more are dropped and counted.
class Publish {
 public:
  virtual ~Publish() = default;
  /// Tells `target` that we hold `op_ids`; it fetches what it lacks. Split into messages of bounded size, sent one
  /// after the other; the first failure ends it. No ids: success, nothing is sent. Errors: the transport's;
  /// Errc::overloaded when too many ids wait to be sent already; Errc::cancelled after `stop`.
  virtual void publish_ops(std::vector<OpId> op_ids, const Url& target, Handler<> done) = 0;
  /// Sends one agent info. Errc::invalid_argument: null, or of another space.
  virtual void publish_agent(AgentInfoPtr info, const Url& target, Handler<> done) = 0;
  virtual PublishStats stats() const { return {}; }
  virtual void stop() = 0;
};
/// Registers itself with `transport` for (space, "Publish"); a second one for the same space is a bug (abort).
std::shared_ptr<Publish> make_core_publish(Runtime& runtime, const CorePublishConfig& config, const SpaceId& space,
                                           std::shared_ptr<Fetch> fetch, std::shared_ptr<PeerStore> peers,
                                           std::shared_ptr<Transport> transport,
                                           const Verifier& verifier = ed25519_verifier());

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

/// Counters since start. Monotonic.
struct GossipStats {
  std::uint64_t initiated = 0, accepted = 0, completed = 0;  ///< rounds
  std::uint64_t busy_sent = 0, busy_received = 0;
  std::uint64_t too_soon = 0, timeouts = 0, peer_errors = 0, local_errors = 0;
  std::uint64_t ops_named = 0, ops_learned = 0;        ///< ids told to peers, ids told by peers (known ones included)
  std::uint64_t agents_given = 0, agents_learned = 0;  ///< learned: verified and stored
  std::uint64_t agents_refused = 0;                    ///< did not verify or are not to be believed
};

/// Gossip of one space. Strand only. The short flow, without the DHT model: see docs/protocol-gossip.md.
class Gossip {
 public:
  virtual ~Gossip() = default;
  /// Tells gossip that the host stored ops by itself. The short flow reads the op store by time of storing, so it
  /// finds them without being told.
  virtual void inform_ops_stored(std::vector<StoredOp> ops) = 0;
  /// Tells gossip that what was to be fetched from `peer` is dropped, unanswered (the peer is given up or blocked): if
  /// it comes back, it is to name its ops from the beginning. To be called before the store forgets the requests.
  virtual void inform_requests_dropped(const Url& peer) { static_cast<void>(peer); }
  virtual GossipStats stats() const { return {}; }
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
  /// Whether ops that `peer` told of by itself, by publish or gossip, are fetched. Default: yes. No counterpart in the
  /// reference. *Rationale*: an application that knows which ops it wants, and asks for them through `Space::fetch`,
  /// must not let strangers fill its disk.
  virtual bool accept_offered_ops(const Url& peer, const SpaceId& space) {
    static_cast<void>(peer);
    static_cast<void>(space);
    return true;
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
  /// are left (checked every 60 s), on a new url and on a new arc. The agent's current storage arc becomes its target
  /// arc (why: docs/protocol-gossip.md). Takes the place of an agent with the same id. Errors: the signer's, and then
  /// the agent has not joined; Errc::cancelled after `stop`.
  virtual void local_agent_join(std::shared_ptr<LocalAgent> agent, Handler<> done) = 0;
  /// Forgets the agent and spreads a tombstone: to the bootstrap server and to all known peers. `done`: when the peers'
  /// messages have left, or after two seconds. No-op for an agent that has not joined.
  virtual void local_agent_leave(const AgentId& agent, std::function<void()> done) = 0;
  virtual void send_notify(const Url& to, Bytes data, Handler<> done) = 0;
  /// To be called by a host that stored ops through the op store itself.
  virtual void inform_ops_stored(std::vector<StoredOp> ops) = 0;
  /// The last refusal of the op store that fetch met, if it was within the last minute: the disk is full, or worse.
  virtual std::optional<Error> recent_store_failure() const { return std::nullopt; }
  /// Leaves with all local agents, then stops gossip, publish, bootstrap and fetch. The stores stay usable as long as
  /// the object lives.
  virtual void stop(std::function<void()> done) = 0;
};

/// The application's ear on the node. Rust: `KitsuneHandler`.
class KitsuneHandler : public TransportHandler {
 public:
  /// A space is being made: its handler, or an error to refuse. Peers cannot make spaces: messages for one that is not
  /// here are dropped.
  virtual Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId& space) = 0;
};

/// A node: spaces over one transport. Strand only. Rust: `Kitsune`.
///
/// *Access*. A peer is neither heard nor answered if it is on `blocks()`, if all agents known at its url are, or if the
/// handler's `allow` says no. Blocking closes its connections and drops what was to be fetched from it. *Rationale*:
/// "all agents", because an agent info's url is only a claim: with "any", a blocked agent could name an honest peer's
/// url and silence it. Infos of blocked agents are kept, or their urls would not be known.
class Kitsune {
 public:
  virtual ~Kitsune() = default;
  /// Makes the transport; to be called once before `space`. Errc::already_exists the second time; the transport
  /// factory's errors.
  virtual Result<void> register_handler(std::shared_ptr<KitsuneHandler> handler) = 0;
  virtual std::vector<SpaceId> list_spaces() const = 0;
  /// The space, made on first use. Errors: Errc::invalid_argument (no handler yet, an id of 0 or over 1024 bytes), the
  /// handler's, the factories'; nothing is kept then.
  virtual void space(const SpaceId& space, Handler<std::shared_ptr<Space>> done) = 0;
  virtual std::shared_ptr<Space> space_if_exists(const SpaceId& space) const = 0;
  /// Only after `register_handler`.
  virtual Transport& transport() = 0;
  virtual BlockList& blocks() = 0;
  virtual Report& report() = 0;
  virtual RuntimeConfig& config() = 0;
  /// Stops all spaces, then the transport; `done` when nothing is under way.
  virtual void stop(std::function<void()> done) = 0;
};

}  // namespace kitsune2
