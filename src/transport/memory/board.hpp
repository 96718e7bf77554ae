// The memory of a network's in-process bootstrap.
#pragma once

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kitsune2/agent.hpp"
#include "kitsune2/transport_memory.hpp"

namespace kitsune2 {

/// What the nodes of a network have put, by test id and space: the newest info of each agent. Shared between their
/// threads.
class MemoryNetwork::Board {
 public:
  static constexpr std::size_t kMaxInfos = 32;
  using Key = std::pair<std::string, SpaceId>;

  void put(const Key& key, const AgentInfoPtr& info, Timestamp now) {
    const std::lock_guard lock(mutex_);
    auto& infos = infos_[key];
    const auto known =
        std::find_if(infos.begin(), infos.end(), [&](const auto& i) { return i->info().agent == info->info().agent; });
    if (known != infos.end()) {
      if ((*known)->info().created_at > info->info().created_at) return;
      infos.erase(known);
    }
    std::erase_if(infos, [now](const auto& i) { return i->is_expired(now); });
    if (!info->info().is_tombstone) {
      if (infos.size() >= kMaxInfos) infos.erase(infos.begin() + kMaxInfos / 2);
      infos.push_back(info);
    }
    if (infos.empty()) infos_.erase(key);
  }

  std::vector<AgentInfoPtr> get(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto it = infos_.find(key);
    return it == infos_.end() ? std::vector<AgentInfoPtr>() : it->second;
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::vector<AgentInfoPtr>> infos_;
};

}  // namespace kitsune2
