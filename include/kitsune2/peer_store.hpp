// What a node knows about agents and peers: PeerStore, LocalAgentStore, PeerMetaStore, BlockList.
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

/// What the node knows about an agent's value, to decide whom to keep when the peer store is full.
struct PeerUse {
  bool is_own = false;                            ///< an agent of this node
  bool in_use = false;                            ///< ops are being fetched from it, or it is connected
  std::uint64_t usefulness = 0;                   ///< how useful exchange with it has been (PeerBudget::usefulness)
  std::optional<std::string> address_group = {};  ///< the group of its address, if known
};

/// The agent infos of one space. Synchronous: the store is bounded and cached in memory, also with SQLite.
///
/// *Rules*.
///  P1  The newest created_at of an agent wins, even if it is a tombstone.
///  P2  Expired infos and tombstones are never returned.
///  P3  At most `max_agents` are kept. src/core/peers/peer_eviction.hpp decides which are dropped: never one in use,
///      and of the others first those of a bringer that has brought many.
///  P4  An info is kept for at most 20 minutes after it was signed. *Reason*: honest nodes sign for 20 minutes; signing
///      for 30 must not be an advantage.
///
/// Strand only. Rust: `PeerStore`.
class PeerStore {
 public:
  virtual ~PeerStore() = default;
  /// Keeps what is new. No effect for infos of another space, and for expired or older ones.
  virtual void insert(const std::vector<AgentInfoPtr>& infos) = 0;
  /// The same for infos brought by `bringer`: the url of a peer, or any other name for those who share one quota.
  /// Default: as `insert`.
  virtual void insert_from(const std::vector<AgentInfoPtr>& infos, const std::string& bringer) {
    static_cast<void>(bringer);
    insert(infos);
  }
  /// Sets the function that says whom to keep when the store is full (P3). It is called within `insert`, and must not
  /// call `insert`. Default: no effect.
  virtual void set_use(std::function<PeerUse(const AgentInfo&)> use) { static_cast<void>(use); }
  virtual void remove(const AgentId& agent) = 0;
  virtual AgentInfoPtr get(const AgentId& agent) = 0;  ///< null if it is not known
  virtual std::vector<AgentInfoPtr> get_all() = 0;
  /// The infos whose storage arc overlaps `arc`.
  virtual std::vector<AgentInfoPtr> get_by_overlapping_storage_arc(const DhtArc& arc) = 0;
  /// Up to `limit` infos, those with the storage arc nearest to `loc` first, without empty arcs. The order among
  /// equally near ones is stable but differs between locations, so that agents with a full arc share the load.
  virtual std::vector<AgentInfoPtr> get_near_location(std::uint32_t loc, std::size_t limit) = 0;
  /// The infos of all agents at `url`.
  virtual std::vector<AgentInfoPtr> get_by_url(const Url& url) = 0;
  /// Whether there is one. Asked for messages of strangers, so it should be cheap. Default: by `get_by_url`.
  virtual bool is_at_url(const Url& url) { return !get_by_url(url).empty(); }
  /// Sets a function that is called after an insert for each info that was new or newer, including tombstones. Returns
  /// a subscription; dropping it ends the calls.
  virtual std::shared_ptr<void> on_update(std::function<void(const AgentInfoPtr&)> callback) = 0;
  /// Writes what is pending and closes the store's file, so that another store can open it. Infos inserted later are
  /// kept in memory only. No-op if closed. Default: no effect, for a store without a file.
  virtual void close() {}
};
std::shared_ptr<PeerStore> make_memory_peer_store(Runtime& runtime, const SpaceId& space,
                                                  std::size_t max_agents = 10'000);

/// This node's agents in one space. Strand only. Rust: `LocalAgentStore`.
class LocalAgentStore {
 public:
  virtual ~LocalAgentStore() = default;
  virtual void add(std::shared_ptr<LocalAgent> agent) = 0;
  virtual std::shared_ptr<LocalAgent> remove(const AgentId& agent) = 0;  ///< null if it was not there
  virtual std::vector<std::shared_ptr<LocalAgent>> get_all() = 0;
  /// Whether it is one of this node's. Asked for each agent of a full peer store. Default: looks through all.
  virtual bool contains(const AgentId& agent);
};
std::shared_ptr<LocalAgentStore> make_memory_local_agent_store();

/// Key-value notes about peers, with expiry. Strand only. Rust: `PeerMetaStore`.
class PeerMetaStore {
 public:
  virtual ~PeerMetaStore() = default;
  /// Replaces an earlier value. Errc::too_large: a key over 256 bytes or a value over 1 MiB. Errc::overloaded: the
  /// store is full of live entries. A durable store also has the errors of a write; then nothing has changed.
  virtual Result<void> put(const Url& peer, const std::string& key, Bytes value, std::optional<Timestamp> expiry) = 0;
  virtual std::optional<Bytes> get(const Url& peer, const std::string& key) = 0;
  /// A durable store syncs the disk, so that a removed value does not return after a loss of power.
  virtual void remove(const Url& peer, const std::string& key) = 0;
  /// Like `put` and `remove`, for changes that a crash may undo. They are visible at once; a durable store writes them
  /// within a minute, all pending ones in one transaction. *Rationale*: a note about a peer must not cost a commit for
  /// each message of that peer. Default: `put` and `remove`.
  virtual Result<void> put_soon(const Url& peer, const std::string& key, Bytes value, std::optional<Timestamp> expiry) {
    return put(peer, key, std::move(value), expiry);
  }
  virtual void remove_soon(const Url& peer, const std::string& key) { remove(peer, key); }
  /// Writes pending changes now; those that the disk does not accept are tried again a minute later. `close` calls it
  /// first. Default: no effect.
  virtual void flush() {}
  /// All live (peer, value) pairs of a key.
  virtual std::vector<std::pair<Url, Bytes>> get_all_by_key(const std::string& key) = 0;
  /// Like PeerStore::close. A later `put` fails with Errc::cancelled. The file is free when both stores are closed.
  virtual void close() {}
};
std::shared_ptr<PeerMetaStore> make_memory_peer_meta_store(Runtime& runtime, std::size_t max_entries = 100'000);

/// The durable variants, which share an SQLite file (0600) beside the op store. Changes are written through; reads come
/// from memory. Infos from `insert_from` with a bringer are written together within a second, not in a commit each.
/// Errors: those of `open_sqlite_op_store`.
struct SqlitePeerStores {
  std::shared_ptr<PeerStore> peers;
  std::shared_ptr<PeerMetaStore> meta;
};
/// Infos are verified again when loaded; those that fail are left out. A crash of the machine may lose the last changes
/// (WAL with synchronous=NORMAL, so the strand waits for no flush); bootstrap and gossip bring them back. The file is
/// closed ten seconds after the last change, or for others that need its descriptors, as described at
/// open_sqlite_op_store; the next change opens it again, and fails where that fails.
Result<SqlitePeerStores> open_sqlite_peer_stores(Runtime& runtime, const SpaceId& space, const std::string& path,
                                                 const Verifier& verifier = ed25519_verifier(),
                                                 std::size_t max_agents = 10'000, std::size_t max_entries = 100'000);

/// Callbacks for blocks. All run on the strand and are optional.
struct BlockEvents {
  std::function<void(const Url& peer)> peer_blocked = {};
  std::function<void(const AgentId& agent)> agent_blocked = {};
};

/// Peers and agents whose messages are neither read nor answered, for ever or until a given time. Blocking again never
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
  /// Calls `events` inside each later call of `block_peer` and `block_agent`, once the block is in force, until the
  /// returned token is dropped. The node needs it, because a block closes connections and drops requests at once.
  virtual std::shared_ptr<void> on_block(BlockEvents events) = 0;
};
std::shared_ptr<BlockList> make_memory_block_list(Runtime& runtime);

}  // namespace kitsune2
