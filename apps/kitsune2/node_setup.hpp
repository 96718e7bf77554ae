// The common part of `share`, `fetch` and `mirror`: the set-up of a node.
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
  /// The space that was opened last; null if there is none yet.
  const std::shared_ptr<Space>& space() { return space_; }
  const std::shared_ptr<files::FilesHandler>& handler() { return handler_; }
  /// The agent in the space that was opened last.
  const std::shared_ptr<Ed25519LocalAgent>& agent() { return agent_; }
  Dialect network() const { return network_; }
  /// The key in the data folder.
  const std::shared_ptr<Ed25519LocalAgent>& key() { return key_; }
  /// Opens another space, with an agent of its own. For a space that is open, only changes `space()` and `agent()`.
  Result<void> open(const SpaceId& space);
  bool is_open(const SpaceId& space);
  /// All open spaces.
  std::vector<std::shared_ptr<Space>> spaces();
  /// Joins the space that was opened last: from now on others learn of this node. It wants to hold `target`, and claims
  /// to hold `claimed` of it. No effect if that was done.
  Result<void> join(DhtArc target, DhtArc claimed);
  /// Leaves the spaces, which others learn, and stops.
  void stop();

  /// `space`: empty for none yet. `role`: shown by `status`. On SIGHUP the node reads its certificates again.
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
  Dialect network_ = Dialect::v0_2;
  Signals* signals_ = nullptr;
  std::mutex mutex_;  ///< for `places_`, since the status socket has a thread of its own
  std::vector<Place> places_;
  std::unique_ptr<StatusSocket> socket_;
};

/// The options that these commands set in the same way. The configuration's dialect is that of --network or of the
/// link, or as `choose_dialect` says. `linked`: the link's dialect.
Result<NodeOptions> node_options(const Common& common, const NodeArgs& args, std::optional<Dialect> linked = {});
/// The same with the relay of the link, unless --relay names another one.
Result<NodeOptions> node_options(const Common& common, const NodeArgs& args, const files::Link& link);

}  // namespace kitsune2::cli
