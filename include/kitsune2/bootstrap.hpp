// The bootstrap module: finds the first peers of a space.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>

#include "kitsune2/agent.hpp"

namespace kitsune2 {

/// The state of the requests for peers.
struct BootstrapStatus {
  bool has_answered = false;     ///< the server has answered at least once
  std::optional<Error> failure;  ///< why the last request was not answered; an answer clears it
  /// Why the server did not accept an info of this node. Until it does, no new node finds this one. Cleared when the
  /// server accepts an info.
  std::optional<Error> put_failure = {};
  /// What an answer lists.
  struct Listed {
    bool has_own = false;    ///< the newest info that was `put`, of any agent
    std::size_t others = 0;  ///< entries of other agents, also those that are not believed
  };
  /// What the last request was answered with; nullopt if it was not answered. A node whose own info is listed without
  /// another one is alone in its space, as far as the server knows.
  std::optional<Listed> listed = {};
};

/// Finds the first peers of a space. Strand only. Rust: `Bootstrap`.
class Bootstrap {
 public:
  virtual ~Bootstrap() = default;
  /// Publishes `info`, and retries until this succeeds or a newer info replaces it. Never blocks.
  virtual void put(AgentInfoPtr info) = 0;
  /// Asks for peers soon, without waiting for the back-off.
  virtual void poll_now() = 0;
  /// Whom to ask for a newer info of an agent of this node, which is then `put`: a server takes infos of the last
  /// minutes only, so one that it has lost, or could not be given in time, cannot be given to it any more. Without
  /// effect where infos do not get too old.
  virtual void on_outdated(std::function<void(const AgentId& agent)> /*sign_again*/) {}
  virtual BootstrapStatus status() const { return {}; }
  virtual void stop(std::function<void()> done) = 0;
};

}  // namespace kitsune2
