// The kernel of a node: many spaces over one transport, and the handler that an application registers with it.
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

/// What an application implements for the node as a whole; `SpaceHandler` is the counterpart for one space. The members
/// of the base class, all optional, are the hooks for preflights, access and connections. Rust: `KitsuneHandler`.
class KitsuneHandler : public TransportHandler {
 public:
  /// Called by `Kitsune::space` before it makes a space. Returns the handler of that space, or an error to refuse it.
  /// Only the application makes spaces: a message from a peer for a space that this node is not in is dropped, and asks
  /// nobody. An exception counts as an error (Errc::internal).
  virtual Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId& space) = 0;
};

/// A node: any number of spaces that share one transport. `Builder::build` makes one. Most applications use `Node`,
/// which owns a Kitsune together with its thread. Strand only. Rust: `Kitsune`.
///
/// *Access*. Three things can silence a peer: it is on `blocks()`; every agent known at its url is on `blocks()`; or
/// the handler's `allow` returns false. What a silenced peer sends is not read, and it gets no answer. Blocking a peer
/// also closes its connections and drops the requests to it. *Rationale* for "every agent": the url in an agent info is
/// only a claim. If one blocked agent were enough, it could claim the url of an honest peer and so silence that peer.
/// The infos of blocked agents are kept, because the rule needs their urls.
class Kitsune {
 public:
  virtual ~Kitsune() = default;
  /// Sets the handler and makes the transport. Call it once, before `space` and `transport`. Errors:
  /// Errc::already_exists for a second call; otherwise those of the builder's transport factory.
  virtual Result<void> register_handler(std::shared_ptr<KitsuneHandler> handler) = 0;
  /// The spaces that have been made, in no particular order.
  virtual std::vector<SpaceId> list_spaces() const = 0;
  /// Completes with the space of that id, and makes it if this is the first call. Errors: Errc::invalid_argument if no
  /// handler is registered, or if the id is empty or longer than 1,024 bytes; whatever the handler or a factory of the
  /// builder returns. After an error nothing is kept, and the call may be repeated.
  virtual void space(const SpaceId& space, Handler<std::shared_ptr<Space>> done) = 0;
  /// The space if it has been made; null otherwise.
  virtual std::shared_ptr<Space> space_if_exists(const SpaceId& space) const = 0;
  /// The transport that all spaces share. Must not be called before `register_handler` has succeeded.
  virtual Transport& transport() = 0;
  /// The peers and agents that this node has nothing to do with; see *Access* above.
  virtual BlockList& blocks() = 0;
  /// How much work each peer has caused, and who is refused because of it.
  virtual PeerBudget& budget() = 0;
  /// Counters of the modules, by space and peer.
  virtual Report& report() = 0;
  /// The part of the configuration that may change while the node runs.
  virtual RuntimeConfig& config() = 0;
  /// Stops all spaces, then the transport. Calls `done` once nothing is under way any more.
  virtual void stop(std::function<void()> done) = 0;
};

}  // namespace kitsune2
