// What `share` and `fetch` have in common around a node.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cli.hpp"
#include "kitsune2/files.hpp"
#include "kitsune2/node.hpp"
#include "status_socket.hpp"

namespace kitsune2::cli {

/// A running node with its spaces, its agents and its status socket. Ends in the right order.
class RunningNode {
 public:
  ~RunningNode();
  Node& node() { return *node_; }
  /// The space opened last; null: none yet.
  const std::shared_ptr<Space>& space() { return space_; }
  const std::shared_ptr<files::FilesHandler>& handler() { return handler_; }
  /// Who speaks in the space opened last.
  const std::shared_ptr<Ed25519LocalAgent>& agent() { return agent_; }
  /// The data folder's key.
  const std::shared_ptr<Ed25519LocalAgent>& key() { return key_; }
  /// Opens one more space, with an agent of its own. No effect but on `space()` and `agent()` for one that is open.
  Result<void> open(const SpaceId& space);
  bool is_open(const SpaceId& space);
  /// All that are open.
  std::vector<std::shared_ptr<Space>> spaces();
  /// Joins the space opened last: from now on others learn of this node. No effect if that was done.
  Result<void> join(DhtArc arc);
  /// Leaves (others hear of it) and stops.
  void stop();

  /// `space`: empty for none yet. `role`: what `status` says. SIGHUP makes it read its certificates again.
  static Result<std::unique_ptr<RunningNode>> start(NodeOptions options, SpaceId space, const std::string& role,
                                                    Signals& signals);

 private:
  struct Place {
    std::shared_ptr<Space> space;
    std::shared_ptr<Ed25519LocalAgent> agent;
    bool joined = false;
  };

  RunningNode() = default;
  Place* find(const SpaceId& space);
  std::string status_json();

  std::unique_ptr<Node> node_;
  std::shared_ptr<Space> space_;
  std::shared_ptr<files::FilesHandler> handler_;
  std::shared_ptr<Ed25519LocalAgent> agent_, key_;
  std::string role_;
  Signals* signals_ = nullptr;
  std::mutex mutex_;  ///< of `places_`: the status socket has a thread
  std::vector<Place> places_;
  std::unique_ptr<StatusSocket> socket_;
};

/// The options that both commands fill alike.
Result<NodeOptions> node_options(const Common& common, const NodeArgs& args);

}  // namespace kitsune2::cli
