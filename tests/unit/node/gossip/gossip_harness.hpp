// What the tests of gossip share.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "node/gossip/gossip_peer_meta.hpp"
#include "unit/node/node_harness.hpp"

namespace kitsune2::node_test {

inline wire::ArcSetWords set_of(const DhtArc& arc) {
  SectorSet sectors;
  sectors.add(arc);
  return {sectors.words()};
}

inline wire::ArcSetWords full_set() { return set_of(DhtArc::full()); }

/// A node with gossip. It starts rounds only when a test lets time pass.
struct GossipNode : SimNode {
  GossipNode(Net& n, const std::string& name) : SimNode(n, name) {
    builder.gossip = make_k2_gossip;
    // Never by itself, unless the test says so.
    builder.config.k2_gossip.initial_initiate_interval_ms = 86'400'000;
    builder.config.k2_gossip.initiate_jitter_ms = 0;
  }
  GossipNode& quiet() {
    // The first tries come after 10 ms, 12 ms, …: without local agents they find nobody.
    start();
    return *this;
  }
  GossipStats stats() { return space->gossip().stats(); }
  void knows(const std::shared_ptr<LocalAgent>& agent, const Url& at, DhtArc arc = DhtArc::full()) {
    AgentInfoBuilder b{.url = at, .storage_arc = arc};
    b.created_at = runtime->wall_now();
    space->peer_store().insert({b.sign(*agent)});
  }
  std::optional<Bytes> note(const Url& peer, const char* key) { return space->peer_meta_store().get(peer, key); }
};

/// A node without agents, and a peer. `set`: changes the node's section of the configuration before it starts.
template <class Node = GossipNode>
struct WithStranger {
  explicit WithStranger(const std::function<void(K2GossipConfig&)>& set = {}) {
    if (set) set(node.builder.config.k2_gossip);
    node.quiet();
  }
  Net net;
  Node node{net, "node"};
  Scripted peer{net, "peer"};
};

/// A node with an agent, and a peer that it may hear from.
template <class Node = GossipNode>
struct WithPeer : WithStranger<Node> {
  explicit WithPeer(const std::function<void(K2GossipConfig&)>& set = {}) : WithStranger<Node>(set) {
    EXPECT_TRUE(this->node.join(make_agent(1)));
  }
};

inline wire::GossipInitiate initiate(const std::string& session = "session-0001") {
  wire::GossipInitiate m;
  m.session_id = Bytes::copy_of(session);
  m.arc_set = full_set();
  m.tie_breaker = 5;
  m.new_since = Timestamp{0};
  m.max_op_data_bytes = 1U << 20;
  return m;
}

/// As one who has been told all that is new.
inline wire::GossipInitiate up_to_date(SimNode& node, const std::string& session = "session-0001") {
  auto m = initiate(session);
  m.new_since = node.runtime->wall_now() + 1s;
  return m;
}

inline wire::GossipNoDiff no_diff(const std::string& session = "session-0001") {
  wire::GossipNoDiff m;
  m.session_id = Bytes::copy_of(session);
  return m;
}

/// A whole round that `peer` starts, in which it names and asks for nothing; what it was told.
inline std::optional<wire::GossipAccept> round_of(SimNode& node, Scripted& peer, const wire::GossipInitiate& m) {
  peer.gossips.clear();
  peer.gossip(node.url, m);
  auto accept = peer.next_gossip<wire::GossipAccept>();
  peer.gossip(node.url, no_diff(m.session_id.str()));
  if (accept) {
    EXPECT_TRUE(peer.next_gossip<wire::GossipTerminate>()) << "the round has its end";
  }
  return accept;
}

/// `peer` answers the round that the node began, and ends it.
inline void answer_round(SimNode& node, Scripted& peer, const Bytes& session, Timestamp next = {}) {
  wire::GossipAccept accept;
  accept.session_id = session;
  accept.arc_set = full_set();
  accept.updated_new_since = next;
  peer.gossip(node.url, accept);
  ASSERT_TRUE(peer.next_gossip<wire::GossipNoDiff>());
  peer.gossip(node.url, wire::GossipTerminate{session, Bytes::copy_of("No agents requested")});
}

/// Waits until the node starts a round with `peer`.
inline std::optional<wire::GossipInitiate> await_initiate(Net& net, Scripted& peer, Duration within = 10s) {
  net.world.run_until([&] { return !peer.gossips.empty(); }, within);
  return peer.next_gossip<wire::GossipInitiate>();
}

inline std::vector<Bytes> as_bytes_list(const std::vector<OpId>& ids) {
  std::vector<Bytes> out;
  for (const auto& id : ids) out.push_back(id.bytes());
  return out;
}

}  // namespace kitsune2::node_test
