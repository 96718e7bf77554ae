// What `share` and `fetch` have in common around a node.
#pragma once

#include <memory>
#include <string>

#include "cli.hpp"
#include "kitsune2/files.hpp"
#include "kitsune2/node.hpp"
#include "status_socket.hpp"

namespace kitsune2::cli {

/// A running node in one space with its agent and its status socket. Ends in the right order.
class RunningNode {
 public:
  ~RunningNode();
  Node& node() { return *node_; }
  const std::shared_ptr<Space>& space() { return space_; }
  const std::shared_ptr<files::FilesHandler>& handler() { return handler_; }
  const std::shared_ptr<Ed25519LocalAgent>& agent() { return agent_; }
  /// Joins the space: from now on others learn of this node.
  Result<void> join(DhtArc arc);
  /// Leaves (others hear of it) and stops.
  void stop();

  /// `space`: empty for the node's own default. `role`: what `status` says.
  static Result<std::unique_ptr<RunningNode>> start(NodeOptions options, SpaceId space, const std::string& role);

 private:
  RunningNode() = default;
  std::string status_json();

  std::unique_ptr<Node> node_;
  std::shared_ptr<Space> space_;
  std::shared_ptr<files::FilesHandler> handler_;
  std::shared_ptr<Ed25519LocalAgent> agent_;
  std::string role_;
  bool joined_ = false;
  std::unique_ptr<StatusSocket> socket_;
};

/// The options that both commands fill alike.
Result<NodeOptions> node_options(const Common& common, const NodeArgs& args);

}  // namespace kitsune2::cli
