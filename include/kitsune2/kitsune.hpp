// A node: its spaces over one transport, and the handler by which the application learns of events.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "kitsune2/budget.hpp"
#include "kitsune2/config.hpp"
#include "kitsune2/report.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/space.hpp"
#include "kitsune2/transport.hpp"

namespace kitsune2 {

/// The application's handler for the node as a whole. Rust: `KitsuneHandler`.
class KitsuneHandler : public TransportHandler {
 public:
  /// Called when a space is made: returns its handler, or an error to refuse it. Peers cannot make spaces; messages for
  /// a space that this node is not in are dropped. An exception counts as an error (Errc::internal).
  virtual Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId& space) = 0;
};

/// A node: spaces over one transport. Strand only. Rust: `Kitsune`.
///
/// *Access*. Messages of a peer are neither read nor answered if the peer is on `blocks()`, if all agents known at its
/// url are, or if the handler's `allow` returns false. Blocking a peer closes its connections and drops the requests to
/// it. *Rationale* for "all agents": the url in an agent info is only a claim. With "any", a blocked agent could claim
/// the url of an honest peer and so silence it. The infos of blocked agents are kept, because their urls must be known.
class Kitsune {
 public:
  virtual ~Kitsune() = default;
  /// Makes the transport. Must be called once, before `space`. Errors: Errc::already_exists the second time; those of
  /// the transport factory.
  virtual Result<void> register_handler(std::shared_ptr<KitsuneHandler> handler) = 0;
  virtual std::vector<SpaceId> list_spaces() const = 0;
  /// Completes with the space, which is made on first use. Errors: Errc::invalid_argument (no handler yet; an id of 0
  /// or over 1024 bytes), the handler's, the factories'. After an error nothing is kept.
  virtual void space(const SpaceId& space, Handler<std::shared_ptr<Space>> done) = 0;
  virtual std::shared_ptr<Space> space_if_exists(const SpaceId& space) const = 0;
  /// Must not be called before `register_handler`.
  virtual Transport& transport() = 0;
  virtual BlockList& blocks() = 0;
  /// The accounts of the work that peers have caused.
  virtual PeerBudget& budget() = 0;
  virtual Report& report() = 0;
  virtual RuntimeConfig& config() = 0;
  /// Stops all spaces, then the transport. Calls `done` when nothing is under way.
  virtual void stop(std::function<void()> done) = 0;
};

}  // namespace kitsune2
