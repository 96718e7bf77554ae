// The agent infos of one space in memory, with the rules of PeerStore; both peer stores are built on it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/random.hpp"
#include "core/subscribers.hpp"
#include "kitsune2/peer_store.hpp"

namespace kitsune2::store {

/// The wall clock, for `member` ("a member of PeerStore"), which only the strand may call.
inline Timestamp wall_now_on_strand(const Runtime& runtime, const char* member) {
  assert_on_strand(runtime, member);
  return runtime.wall_now();
}

/// Rules P1-P4 of PeerStore. Tombstones are kept until they expire, so that an older info of the agent does not come
/// back, but never given out. Ordered by agent id, so that a run can be repeated.
/// An agent's bringer is who brought the first info of it that is held, until it brings one itself. *Reason*: who tells
/// of others first must not have them count as its own flood; and who comes in person is nobody's.
/// Complexity: insert, get, by_url O(log n), O(n log n) when it is full, which makes room for some more at once; the
/// arc queries O(n), near O(n + limit log limit).
class PeerTable {
 public:
  /// What an insert did, for a store that writes through.
  struct Changes {
    std::vector<AgentInfoPtr> kept;
    std::vector<AgentId> gone;  ///< removed to make room
  };

  /// `random(n)`: a number below n.
  using Random = std::function<std::size_t(std::size_t n)>;

  PeerTable(SpaceId space, std::size_t max_agents, Random random);

  /// How long an info is kept (P4).
  static constexpr Duration kMostKept = std::chrono::minutes(20);
  static Timestamp kept_until(const AgentInfo& info) { return std::min(info.expires_at, info.created_at + kMostKept); }

  void set_use(std::function<PeerUse(const AgentInfo&)> use) { use_ = std::move(use); }
  /// `bringer`: see PeerStore::insert_from; empty: this node.
  Changes insert(const std::vector<AgentInfoPtr>& infos, const std::string& bringer, Timestamp now);
  /// False: was not there.
  bool remove(const AgentId& agent);
  /// Drops what is expired.
  void prune(Timestamp now);

  AgentInfoPtr get(const AgentId& agent, Timestamp now);
  std::vector<AgentInfoPtr> get_all(Timestamp now);
  std::vector<AgentInfoPtr> get_by_overlapping_storage_arc(const DhtArc& arc, Timestamp now);
  std::vector<AgentInfoPtr> get_near_location(std::uint32_t loc, std::size_t limit, Timestamp now);
  std::vector<AgentInfoPtr> get_by_url(const Url& url, Timestamp now);
  bool is_at_url(const Url& url, Timestamp now);

  /// The info that is held of `agent`, a tombstone too; null: none.
  const AgentInfoPtr* find(const AgentId& agent) const {
    const auto it = agents_.find(agent);
    return it == agents_.end() ? nullptr : &it->second.info;
  }
  /// Every info, tombstones too.
  std::vector<AgentInfoPtr> everything() const;

 private:
  struct Entry {
    AgentInfoPtr info;
    std::string bringer;
    Timestamp since;  ///< when the first info of the agent was kept
  };
  using ByAgent = std::map<AgentId, Entry>;
  void erase(ByAgent::iterator it);
  void evict(std::size_t count, std::vector<AgentId>& gone);
  template <class Wanted>
  std::vector<AgentInfoPtr> select(Timestamp now, Wanted wanted);

  SpaceId space_;
  std::size_t max_agents_;
  Random random_;
  std::function<PeerUse(const AgentInfo&)> use_;
  ByAgent agents_;
  std::set<std::pair<Timestamp, AgentId>> by_expiry_;
  std::set<std::pair<Url, AgentId>> by_url_;  ///< no tombstones
};

/// Chance for a table, from the runtime.
inline PeerTable::Random random_of(Runtime& runtime) {
  return [&runtime](std::size_t n) { return static_cast<std::size_t>(random_u64(runtime) % n); };
}

/// Those who want to hear of new infos.
class PeerUpdates {
 public:
  using Callback = std::function<void(const AgentInfoPtr&)>;
  std::shared_ptr<void> subscribe(Callback callback) { return subscribers_.add(std::move(callback)); }
  /// Callbacks may subscribe, end subscriptions and insert.
  void tell(const std::vector<AgentInfoPtr>& infos) {
    for (const AgentInfoPtr& info : infos) {
      subscribers_.tell([&](const Callback& callback) { callback(info); });
    }
  }

 private:
  Subscribers<Callback> subscribers_;
};

/// Key-value notes with expiry; both peer meta stores are built on it. Each call O(log n), but for get_all_by_key; what
/// has expired is dropped when its room is needed, each note once.
class PeerNotes {
 public:
  struct Note {
    Bytes value;
    std::optional<Timestamp> expiry;
    bool is_live(Timestamp now) const { return !expiry || *expiry > now; }
  };
  static constexpr std::size_t kMaxKeyBytes = 256;
  static constexpr std::size_t kMaxValueBytes = 1U << 20;

  explicit PeerNotes(std::size_t max_entries) : max_entries_(max_entries) {}

  /// Whether a put would be taken; makes room by dropping what is expired.
  Result<void> check_put(const Url& peer, const std::string& key, const Bytes& value, Timestamp now);
  void put(const Url& peer, const std::string& key, Note note);
  std::optional<Bytes> get(const Url& peer, const std::string& key, Timestamp now) const;
  /// As it was put, expired or not; null: not there.
  const Note* find(const Url& peer, const std::string& key) const;
  /// False: was not there.
  bool remove(const Url& peer, const std::string& key);
  std::vector<std::pair<Url, Bytes>> get_all_by_key(const std::string& key, Timestamp now) const;

 private:
  std::size_t max_entries_;
  std::size_t entries_ = 0;
  std::map<std::string, std::map<Url, Note>> by_key_;
  std::set<std::tuple<Timestamp, std::string, Url>> by_expiry_;  ///< those that expire
};

}  // namespace kitsune2::store
