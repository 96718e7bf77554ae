// The publish module: tells peers about ops and agents, and takes what they tell.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kitsune2/agent.hpp"
#include "kitsune2/budget.hpp"
#include "kitsune2/config.hpp"
#include "kitsune2/fetch.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/peer_store.hpp"
#include "kitsune2/runtime.hpp"
#include "kitsune2/transport.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Counters since start. Monotonic.
struct PublishStats {
  std::uint64_t ops_sent = 0, agents_sent = 0;      ///< ids and infos handed to the transport
  std::uint64_t send_failures = 0;                  ///< messages
  std::uint64_t ops_received = 0, ops_refused = 0;  ///< ids; refused: over a bound of this module or of fetch
  std::uint64_t agents_received = 0;                ///< messages; the sum of the three below and of those stored
  std::uint64_t agents_invalid = 0;                 ///< do not parse or verify
  std::uint64_t agents_refused = 0;                 ///< of another space, expired, of the future, living too long
  std::uint64_t agents_rate_limited = 0;            ///< not looked at: this peer sends too many
};

/// Tells peers about ops and agents. Strand only. Rust: `Publish`.
///
/// *Rules*. P1: op ids that come in are given to fetch with the sender's url as source. P2: an agent info that comes in
/// is stored if it verifies, is of this space and its times are believable; if not it is counted, and the connection
/// stays. P3: bytes that do not decode close the connection. P4: one peer's flood costs only itself: ids that wait for
/// the store and infos a second are bounded for each peer, more are dropped and counted.
class Publish {
 public:
  virtual ~Publish() = default;
  /// Tells `target` that we hold `op_ids`; it fetches what it lacks. Split into messages of bounded size, sent one
  /// after the other; the first failure ends it. No ids: success, nothing is sent. Errors: the transport's;
  /// Errc::overloaded when too many ids wait to be sent already; Errc::cancelled after `stop`.
  virtual void publish_ops(std::vector<OpId> op_ids, const Url& target, Handler<> done) = 0;
  /// Sends one agent info. Errc::invalid_argument: null, or of another space.
  virtual void publish_agent(AgentInfoPtr info, const Url& target, Handler<> done) = 0;
  /// Calls `callback` for a peer to which ids were published that may not have arrived: the transport failed to send
  /// them, or the connection was lost within two minutes. *Rationale*: that a message was handed to the network is all
  /// that a sender hears; a peer that was asleep or cut off has got none of it. Gossip begins a round with it then, so
  /// nobody has to publish again. Returns a subscription; dropping it ends the calls. Null: never calls (the default).
  virtual std::shared_ptr<void> on_unconfirmed(std::function<void(const Url& peer)> callback) {
    static_cast<void>(callback);
    return nullptr;
  }
  virtual PublishStats stats() const { return {}; }
  virtual void stop() = 0;
};
/// Registers itself with `transport` for (space, "Publish"); a second one for the same space is a bug (abort).
/// `budget` is charged for what peers send; null: nothing is charged.
std::shared_ptr<Publish> make_core_publish(Runtime& runtime, const CorePublishConfig& config, const SpaceId& space,
                                           std::shared_ptr<Fetch> fetch, std::shared_ptr<PeerStore> peers,
                                           std::shared_ptr<Transport> transport,
                                           const Verifier& verifier = ed25519_verifier(),
                                           std::shared_ptr<PeerBudget> budget = nullptr);

}  // namespace kitsune2
