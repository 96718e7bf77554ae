// The budget of one node: PeerBudgetCore with the time, the agents and the address groups.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/budget/peer_budget_core.hpp"
#include "kitsune2/budget.hpp"
#include "kitsune2/runtime.hpp"
#include "log/log.hpp"

namespace kitsune2 {

/// See PeerBudget. Strand only.
class NodePeerBudget final : public PeerBudget {
 public:
  /// What this object needs from the node. Called only within its members.
  struct Node {
    std::function<std::vector<AgentId>(const Url& peer)> agents_at;  ///< in any space
    std::function<void(const Url& peer, const std::string& why)> disconnect;
    AddressGroupOf address_group;  ///< may be empty
  };

  NodePeerBudget(Runtime& runtime, const PeerBudgetConfig& config, Node node);

  PeerStanding charge(const Url& peer, PeerWork work) override;
  void useful(const Url& peer, std::uint64_t ops, std::uint64_t bytes, PeerWork work) override;
  std::optional<Time> waits_until(const Url& peer) const override;
  bool is_known(const Url& peer) const override { return core_.is_known(peer); }
  std::uint64_t usefulness(const Url& peer) const override { return core_.usefulness(peer); }
  std::optional<AddressGroup> address_group(const Url& peer) const override;
  PeerBudgetStats stats() const override;

  /// Whether a message from or to `peer` may pass, because its url is not put aside. Cheap.
  bool admits(const Url& peer) const;
  /// Whether a connection with `peer` may be opened: neither its url nor its agents nor its address are put aside.
  bool admits_connection(const Url& peer);

  // --- from the transport
  void on_connect(const Url& peer);
  void on_disconnect(const Url& peer);

 private:
  Runtime& runtime_;
  const Node node_;
  PeerBudgetCore core_;
  PeerBudgetStats stats_;
  /// The address group of each peer that is connected, once it is known: it is needed for each message.
  mutable boost::unordered_flat_map<Url, std::optional<AddressGroup>, std::hash<Url>> groups_;
  log::Gate aside_gate_;
};

}  // namespace kitsune2
