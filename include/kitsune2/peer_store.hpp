// What a node knows of agents and peers: PeerStore, LocalAgentStore, PeerMetaStore, BlockList.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/agent.hpp"
#include "kitsune2/runtime.hpp"

namespace kitsune2 {

/// What makes a peer worth keeping when the peer store is full, as the node sees it.
struct PeerUse {
  bool is_own = false;           ///< an agent of this node
  bool in_use = false;           ///< something is under way with it: ops are fetched from it, or it is connected
  std::uint64_t usefulness = 0;  ///< how useful exchange with it was (PeerBudget::usefulness)
  std::optional<std::string> address_group = {};  ///< where it comes from, if that is known
};

/// The agent infos of one space. Synchronous: it is small (bounded) and cached in memory, also by the SQLite one.
///
/// *Rules*. P1: the newest created_at of an agent wins, a tombstone included. P2: expired infos and tombstones are
/// never given out. P3: at most `max_agents` are kept; who goes beyond that is decided as
/// src/core/peers/peer_eviction.hpp says: never who is in use, and of the others those first that one bringer has
/// brought in masses. P4: an info is kept for 20 minutes after it was signed, at most. *Reason*: honest nodes sign for
/// 20 minutes, and who signs for 30 is not to be kept longer for that. Strand only. Rust: `PeerStore`.
class PeerStore {
 public:
  virtual ~PeerStore() = default;
  /// Keeps what is new. Infos of another space, expired ones or older ones have no effect.
  virtual void insert(const std::vector<AgentInfoPtr>& infos) = 0;
  /// The same for infos that `bringer` has brought: the url of a peer, or any other name for who is to share one quota.
  /// Default: as `insert`.
  virtual void insert_from(const std::vector<AgentInfoPtr>& infos, const std::string& bringer) {
    static_cast<void>(bringer);
    insert(infos);
  }
  /// Who is to be kept when the store is full (P3); asked inside of `insert`, which it must not call. Default: no
  /// effect.
  virtual void set_use(std::function<PeerUse(const AgentInfo&)> use) { static_cast<void>(use); }
  virtual void remove(const AgentId& agent) = 0;
  virtual AgentInfoPtr get(const AgentId& agent) = 0;  ///< null: it is not known
  virtual std::vector<AgentInfoPtr> get_all() = 0;
  /// Those whose storage arc overlaps `arc`.
  virtual std::vector<AgentInfoPtr> get_by_overlapping_storage_arc(const DhtArc& arc) = 0;
  /// Up to `limit`, nearest storage arc to `loc` first; agents with an empty arc are left out. Among equally near ones
  /// the order is stable but differs from one `loc` to another, so that agents with a full arc share the load.
  virtual std::vector<AgentInfoPtr> get_near_location(std::uint32_t loc, std::size_t limit) = 0;
  /// All agents at `url`.
  virtual std::vector<AgentInfoPtr> get_by_url(const Url& url) = 0;
  /// Called after an insert for every info that was new or newer, tombstones too. Returns a subscription; dropping it
  /// ends the calls.
  virtual std::shared_ptr<void> on_update(std::function<void(const AgentInfoPtr&)> callback) = 0;
  /// Closes the store's file, so that another store can open it. Infos inserted later are kept in memory only. No-op
  /// when it is closed. What waits is written first. Default: no effect, for a store without a file.
  virtual void close() {}
};
std::shared_ptr<PeerStore> make_memory_peer_store(Runtime& runtime, const SpaceId& space,
                                                  std::size_t max_agents = 10'000);

/// This node's agents in one space. Strand only. Rust: `LocalAgentStore`.
class LocalAgentStore {
 public:
  virtual ~LocalAgentStore() = default;
  virtual void add(std::shared_ptr<LocalAgent> agent) = 0;
  virtual std::shared_ptr<LocalAgent> remove(const AgentId& agent) = 0;  ///< null: was not there
  virtual std::vector<std::shared_ptr<LocalAgent>> get_all() = 0;
};
std::shared_ptr<LocalAgentStore> make_memory_local_agent_store();

/// Key-value notes about peers, with expiry. Strand only. Rust: `PeerMetaStore`.
class PeerMetaStore {
 public:
  virtual ~PeerMetaStore() = default;
  /// Replaces an earlier value. Errc::too_large: key over 256 bytes or value over 1 MiB. Errc::overloaded: the store is
  /// full of live entries. The durable one also: the errors of a write, and then nothing has changed.
  virtual Result<void> put(const Url& peer, const std::string& key, Bytes value, std::optional<Timestamp> expiry) = 0;
  virtual std::optional<Bytes> get(const Url& peer, const std::string& key) = 0;
  /// The durable store syncs the disk, so that a removed value does not come back after a loss of power.
  virtual void remove(const Url& peer, const std::string& key) = 0;
  /// As `put` and `remove`, for what a crash may undo. The change is seen at once; the durable store writes it within a
  /// minute, together with all others that wait, in one transaction. *Rationale*: what is noted about peers must not
  /// cost a commit for each message that they send. Default: `put`, `remove`.
  virtual Result<void> put_soon(const Url& peer, const std::string& key, Bytes value, std::optional<Timestamp> expiry) {
    return put(peer, key, std::move(value), expiry);
  }
  virtual void remove_soon(const Url& peer, const std::string& key) { remove(peer, key); }
  /// Writes what waits now. What the disk does not take is tried again a minute later. `close` does this first.
  /// Default: no effect.
  virtual void flush() {}
  /// All live (peer, value) of a key.
  virtual std::vector<std::pair<Url, Bytes>> get_all_by_key(const std::string& key) = 0;
  /// As PeerStore::close; a later `put` is refused with Errc::cancelled. The file is free when both are closed.
  virtual void close() {}
};
std::shared_ptr<PeerMetaStore> make_memory_peer_meta_store(Runtime& runtime, std::size_t max_entries = 100'000);

/// The durable variants share one SQLite file (0600) beside the op store; written through, read from memory. Infos
/// that `insert_from` is given in the name of a bringer are written within a second, together, not by a commit each.
/// Errors as `open_sqlite_op_store`.
struct SqlitePeerStores {
  std::shared_ptr<PeerStore> peers;
  std::shared_ptr<PeerMetaStore> meta;
};
/// Infos are verified again when they are loaded; those that fail are left out. A crash of the machine may lose the
/// last changes (WAL with synchronous=NORMAL: no disk flush on the strand): bootstrap and gossip bring them again.
Result<SqlitePeerStores> open_sqlite_peer_stores(Runtime& runtime, const SpaceId& space, const std::string& path,
                                                 const Verifier& verifier = ed25519_verifier(),
                                                 std::size_t max_agents = 10'000, std::size_t max_entries = 100'000);

/// Callbacks for blocks. All run on the strand; all are optional.
struct BlockEvents {
  std::function<void(const Url& peer)> peer_blocked = {};
  std::function<void(const AgentId& agent)> agent_blocked = {};
};

/// Peers and agents whose messages are neither read nor answered, until a time if one is given. Blocking again never
/// shortens a block. Strand only.
class BlockList {
 public:
  virtual ~BlockList() = default;
  virtual void block_peer(const Url& peer, std::optional<Timestamp> until) = 0;
  virtual void block_agent(const AgentId& agent, std::optional<Timestamp> until) = 0;
  virtual void unblock_peer(const Url& peer) = 0;
  virtual void unblock_agent(const AgentId& agent) = 0;
  virtual bool is_peer_blocked(const Url& peer) = 0;
  virtual bool is_agent_blocked(const AgentId& agent) = 0;
  /// `events` hears of each later call of `block_peer` and `block_agent`, inside of it and once the block is in force,
  /// until the returned token is dropped. The node needs it: a block closes connections and drops requests at once.
  virtual std::shared_ptr<void> on_block(BlockEvents events) = 0;
};
std::shared_ptr<BlockList> make_memory_block_list(Runtime& runtime);

}  // namespace kitsune2
