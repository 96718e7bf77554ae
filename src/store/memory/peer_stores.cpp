// The peer stores that keep everything in memory, the local agents and the block list.
#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <map>
#include <utility>

#include "core/subscribers.hpp"
#include "kitsune2/peer_store.hpp"
#include "store/memory/peer_table.hpp"

namespace kitsune2 {
namespace {

class MemoryPeerStore final : public PeerStore {
 public:
  MemoryPeerStore(Runtime& runtime, const SpaceId& space, std::size_t max_agents)
      : runtime_(runtime), table_(space, max_agents, store::random_of(runtime)) {}

  void insert(const std::vector<AgentInfoPtr>& infos) override { insert_from(infos, {}); }
  void insert_from(const std::vector<AgentInfoPtr>& infos, const std::string& bringer) override {
    updates_.tell(table_.insert(infos, bringer, now()).kept);
  }
  void set_use(std::function<PeerUse(const AgentInfo&)> use) override { table_.set_use(std::move(use)); }
  void remove(const AgentId& agent) override {
    assert_on_strand(runtime_, "PeerStore::remove");
    table_.remove(agent);
  }
  AgentInfoPtr get(const AgentId& agent) override { return table_.get(agent, now()); }
  std::vector<AgentInfoPtr> get_all() override { return table_.get_all(now()); }
  std::vector<AgentInfoPtr> get_by_overlapping_storage_arc(const DhtArc& arc) override {
    return table_.get_by_overlapping_storage_arc(arc, now());
  }
  std::vector<AgentInfoPtr> get_near_location(std::uint32_t loc, std::size_t limit) override {
    return table_.get_near_location(loc, limit, now());
  }
  std::vector<AgentInfoPtr> get_by_url(const Url& url) override { return table_.get_by_url(url, now()); }
  bool is_at_url(const Url& url) override { return table_.is_at_url(url, now()); }
  std::shared_ptr<void> on_update(std::function<void(const AgentInfoPtr&)> callback) override {
    assert_on_strand(runtime_, "PeerStore::on_update");
    return updates_.subscribe(std::move(callback));
  }

 private:
  Timestamp now() const { return store::wall_now_on_strand(runtime_, "a member of PeerStore"); }

  Runtime& runtime_;
  store::PeerTable table_;
  store::PeerUpdates updates_;
};

class MemoryPeerMetaStore final : public PeerMetaStore {
 public:
  MemoryPeerMetaStore(Runtime& runtime, std::size_t max_entries) : runtime_(runtime), notes_(max_entries) {}

  Result<void> put(const Url& peer, const std::string& key, Bytes value, std::optional<Timestamp> expiry) override {
    if (auto ok = notes_.check_put(peer, key, value, now()); !ok) return ok;
    notes_.put(peer, key, {value.compact(), expiry});
    return {};
  }
  std::optional<Bytes> get(const Url& peer, const std::string& key) override { return notes_.get(peer, key, now()); }
  void remove(const Url& peer, const std::string& key) override {
    assert_on_strand(runtime_, "PeerMetaStore::remove");
    notes_.remove(peer, key);
  }
  std::vector<std::pair<Url, Bytes>> get_all_by_key(const std::string& key) override {
    return notes_.get_all_by_key(key, now());
  }

 private:
  Timestamp now() const { return store::wall_now_on_strand(runtime_, "a member of PeerMetaStore"); }

  Runtime& runtime_;
  store::PeerNotes notes_;
};

class MemoryLocalAgentStore final : public LocalAgentStore {
 public:
  void add(std::shared_ptr<LocalAgent> agent) override {
    if (!agent) return;
    const AgentId id = agent->agent();
    agents_[id] = std::move(agent);
  }
  std::shared_ptr<LocalAgent> remove(const AgentId& agent) override {
    const auto it = agents_.find(agent);
    if (it == agents_.end()) return nullptr;
    auto out = std::move(it->second);
    agents_.erase(it);
    return out;
  }
  std::vector<std::shared_ptr<LocalAgent>> get_all() override {
    std::vector<std::shared_ptr<LocalAgent>> out;
    out.reserve(agents_.size());
    for (const auto& [id, agent] : agents_) out.push_back(agent);
    return out;
  }
  bool contains(const AgentId& agent) override { return agents_.contains(agent); }

 private:
  std::map<AgentId, std::shared_ptr<LocalAgent>> agents_;
};

/// Keys that are blocked for ever or until a time. Those whose time has passed go when they are looked at, and all at
/// once whenever the table has doubled.
template <class Key>
class Blocked {
 public:
  void add(const Key& key, std::optional<Timestamp> until, Timestamp now) {
    if (until && *until <= now) return;
    const auto [it, is_new] = until_.try_emplace(key, until);
    if (!is_new && it->second) it->second = until ? std::max(*it->second, *until) : until;
    if (until_.size() >= prune_at_) {
      erase_if(until_, [&](const auto& entry) { return entry.second && *entry.second <= now; });
      prune_at_ = std::max<std::size_t>(64, 2 * until_.size());
    }
  }
  void remove(const Key& key) { until_.erase(key); }
  bool contains(const Key& key, Timestamp now) {
    const auto it = until_.find(key);
    if (it == until_.end()) return false;
    if (!it->second || now < *it->second) return true;
    until_.erase(it);
    return false;
  }

 private:
  boost::unordered_flat_map<Key, std::optional<Timestamp>, std::hash<Key>> until_;
  std::size_t prune_at_ = 64;
};

class MemoryBlockList final : public BlockList {
 public:
  explicit MemoryBlockList(Runtime& runtime) : runtime_(runtime) {}

  void block_peer(const Url& peer, std::optional<Timestamp> until) override {
    peers_.add(peer, until, now());
    listeners_.tell([&](const BlockEvents& events) {
      if (events.peer_blocked) events.peer_blocked(peer);
    });
  }
  void block_agent(const AgentId& agent, std::optional<Timestamp> until) override {
    agents_.add(agent, until, now());
    listeners_.tell([&](const BlockEvents& events) {
      if (events.agent_blocked) events.agent_blocked(agent);
    });
  }
  void unblock_peer(const Url& peer) override {
    assert_on_strand(runtime_, "BlockList::unblock_peer");
    peers_.remove(peer);
  }
  void unblock_agent(const AgentId& agent) override {
    assert_on_strand(runtime_, "BlockList::unblock_agent");
    agents_.remove(agent);
  }
  bool is_peer_blocked(const Url& peer) override { return peers_.contains(peer, now()); }
  bool is_agent_blocked(const AgentId& agent) override { return agents_.contains(agent, now()); }
  std::shared_ptr<void> on_block(BlockEvents events) override {
    assert_on_strand(runtime_, "BlockList::on_block");
    return listeners_.add(std::move(events));
  }

 private:
  Timestamp now() const { return store::wall_now_on_strand(runtime_, "a member of BlockList"); }

  Runtime& runtime_;
  Blocked<Url> peers_;
  Blocked<AgentId> agents_;
  Subscribers<BlockEvents> listeners_;
};

}  // namespace

bool LocalAgentStore::contains(const AgentId& agent) {
  const auto all = get_all();
  return std::ranges::any_of(all, [&](const auto& local) { return local->agent() == agent; });
}

std::shared_ptr<PeerStore> make_memory_peer_store(Runtime& runtime, const SpaceId& space, std::size_t max_agents) {
  return std::make_shared<MemoryPeerStore>(runtime, space, max_agents);
}
std::shared_ptr<LocalAgentStore> make_memory_local_agent_store() { return std::make_shared<MemoryLocalAgentStore>(); }
std::shared_ptr<PeerMetaStore> make_memory_peer_meta_store(Runtime& runtime, std::size_t max_entries) {
  return std::make_shared<MemoryPeerMetaStore>(runtime, max_entries);
}
std::shared_ptr<BlockList> make_memory_block_list(Runtime& runtime) {
  return std::make_shared<MemoryBlockList>(runtime);
}

}  // namespace kitsune2
