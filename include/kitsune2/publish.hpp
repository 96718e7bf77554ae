// The publish module: announces ops and agents to peers, and receives their announcements.
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
  std::uint64_t send_failures = 0;                  ///< failed messages
  std::uint64_t ops_received = 0, ops_refused = 0;  ///< ids; refused: over a bound of this module or of fetch
  std::uint64_t agents_received = 0;                ///< messages: the sum of the three below and of those stored
  std::uint64_t agents_invalid = 0;                 ///< did not parse or verify
  std::uint64_t agents_refused = 0;       ///< of another space, expired, dated in the future, or valid for too long
  std::uint64_t agents_rate_limited = 0;  ///< dropped unread, because the peer sent too many
};

/// Announces ops and agents to peers. Strand only. Rust: `Publish`.
///
/// *Rules*.
///  P1  Published op ids are passed to fetch, with the sender's url as their source.
///  P2  A published agent info is stored if it verifies, is of this space and has credible times; otherwise it is
///      counted, and the connection stays open.
///  P3  A message that does not decode closes the connection.
///  P4  A flood from one peer affects no other peer: for each peer, waiting ids and infos per second are bounded; more
///      are dropped and counted.
///  P5  In dialects whose messages carry it, an id may have metadata of the host, which goes to fetch with it. An entry
///      with more than CorePublishConfig::max_metadata_bytes is left out and counted as refused, as in the reference.
class Publish {
 public:
  virtual ~Publish() = default;
  /// Announces to `target` that this node holds `op_ids`, in messages of bounded size, one after the other. The first
  /// failure ends the call. Without ids it succeeds and sends nothing. Errors: the transport's; Errc::overloaded if too
  /// many ids are waiting to be sent; Errc::cancelled after `stop`.
  virtual void publish_ops(std::vector<OpId> op_ids, const Url& target, Handler<> done) = 0;
  /// The same with metadata for some or all of them. In a dialect whose messages carry none
  /// (`publish_carries_metadata`), only the ids are sent. Errc::invalid_argument: one is longer than
  /// CorePublishConfig::max_metadata_bytes; nothing is sent. Default: only the ids are sent.
  virtual void publish_ops_with_metadata(std::vector<PublishOp> ops, const Url& target, Handler<> done) {
    std::vector<OpId> op_ids;
    op_ids.reserve(ops.size());
    for (PublishOp& op : ops) op_ids.push_back(std::move(op.op_id));
    publish_ops(std::move(op_ids), target, std::move(done));
  }
  /// Sends an agent info to `target`. Errc::invalid_argument: it is null, or of another space.
  virtual void publish_agent(AgentInfoPtr info, const Url& target, Handler<> done) = 0;
  /// Sets a function that is called for a peer if ids published to it may not have arrived: the transport failed to
  /// send them, or the connection was lost within two minutes. *Rationale*: a sender learns only that a message was
  /// handed to the network; a peer that was asleep has not received it. Gossip then starts a round with that peer, so
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
