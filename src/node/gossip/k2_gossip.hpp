// The gossip module. docs/protocol-gossip.md describes it, and src/core/gossip decides; here are timers, calls of the
// store and messages.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "core/dht/sector_set.hpp"
#include "core/gossip/arc_growth.hpp"
#include "core/gossip/dialect_rules.hpp"
#include "core/gossip/faults.hpp"
#include "core/gossip/put_offs.hpp"
#include "core/gossip/round.hpp"
#include "core/gossip/round_book.hpp"
#include "core/milliseconds.hpp"
#include "core/peers/info_rates.hpp"
#include "kitsune2/builder.hpp"
#include "log/log.hpp"
#include "node/gossip/dht_keeper.hpp"
#include "node/gossip/gossip_peer_meta.hpp"
#include "node/gossip/new_ops_reader.hpp"
#include "wire/gossip_messages.hpp"

namespace kitsune2 {

/// The rounds of one space with its peers.
///
/// *Rules*: those of `gossip::Rounds` (R), `gossip::RoundBook` (D), `gossip::Bookmark` (K), `gossip::Faults` (F),
/// `gossip::PutOffs` (O) and `gossip::ArcGrowth` (A). What a round names is read by `NewOpsReader` (Q, N, P). In
/// addition:
///  G1  The bookmark of a peer is forgotten when some of the ops that it named are dropped without being fetched.
///  G2  After a round that was cut short, the next one waits until less than half of what a round can name is pending.
///      So a long history is named as fast as it is fetched, and the memory for what is named stays small.
///  G3  When ops of the store are found damaged, all bookmarks are dropped, at most once an hour, so that these ops are
///      named and fetched again.
///  G4  While fetch has a thousand ops or more to get, rounds of ours wait and peers of ours are answered with BUSY,
///      for at most five times the patience of D7 (5 s). Rationale: a round would bring no op sooner, and naming takes
///      time and bytes from the fetch. It is bounded because a peer that publishes without end must not keep the node
///      from gossip.
///  G5  After a comparison in which a peer named ops, the next round with it follows as soon as most of what was
///      pending then has been fetched, if any of it was new. Rationale: after a difference in the disc the rings have
///      not been compared yet, and a list may have been cut off.
///  G6  While much is pending, two comparisons with one peer are at least `min_initiate_interval` apart, and no
///      comparison follows when a peer has named everything that it holds. Rationale: what is on its way would be found
///      lacking, and be named once more.
///  G7  Agent infos are examined at the rates of InfoRates. What is over them comes with a later round.
///  G8  While an agent of ours does not store all of its target yet, a round with a peer of ours, or with a stock one
///      that takes bursts, that should have compared and did not is followed by another one, as in G5, but not before
///      `initial_initiate_interval`. Rationale: a newcomer is told all that a peer holds and then compares nothing
///      (G6), but storage arcs grow by what was compared.
///  G9  A node that is alone in its space holds all that there is. It is alone if the last answer of its bootstrap
///      server lists its own newest info and nobody else's, and it knows of no other agent. Rationale:
///      docs/decisions/0041-the-first-node-of-a-space.md.
class K2Gossip final : public Gossip, public std::enable_shared_from_this<K2Gossip> {
 public:
  explicit K2Gossip(const ModuleContext& context);
  ~K2Gossip() override;
  Result<void> start();

  void inform_requests_dropped(const Url& peer) override;
  void peer_moved(const Url& old_url, const Url& new_url) override;
  GossipStats stats() const override {
    assert_on_strand(runtime(), "Gossip::stats");
    return stats_;
  }
  GossipCoverage coverage() const override;
  GossipStateSummary state_summary(const GossipStateSummaryRequest& request) override;
  void stop() override;

  // --- from the transport
  Result<void> on_message(const Url& peer, const Bytes& data);
  void on_connect(const Url& peer);
  void on_knows_us(const Url& peer);
  void on_disconnect(const Url& peer);
  /// This node has a url, perhaps a new one.
  void on_online();

 private:
  void on(const Url& peer, const wire::GossipInitiate& m);
  void on(const Url& peer, const wire::GossipAccept& m);
  void on(const Url& peer, const wire::GossipNoDiff& m);
  void on(const Url& peer, const wire::GossipAgents& m);
  void on(const Url& peer, const wire::GossipBusy& m);
  void on(const Url& peer, const wire::GossipTerminate& m);
  void on(const Url& peer, const wire::GossipDiscSectorsDiff& m);
  void on(const Url& peer, const wire::GossipDiscSectorDetailsDiff& m);
  void on(const Url& peer, const wire::GossipDiscSectorDetailsDiffResponse& m);
  void on(const Url& peer, const wire::GossipRingSectorDetailsDiff& m);
  void on(const Url& peer, const wire::GossipRingSectorDetailsDiffResponse& m);
  void on(const Url& peer, const wire::GossipHashes& m);

  void say_busy(const Url& peer, const Bytes& session, bool ours);
  void accept(const Url& peer, const Bytes& session, NewOps named, std::vector<Bytes> missing);
  using Answer = decltype(gossip::AnswerAccept::answer);
  void answer_accept(const Url& peer, const Bytes& session, wire::AcceptResponse response, const Answer& answer,
                     bool disc_differs, NewOps named);
  void finish(const Url& peer, gossip::Finish& finish, const wire::AcceptResponse& answer, bool more);

  // The comparison
  /// Returns false if the snapshot is refused.
  template <class Snapshot>
  bool take_snapshot(const Url& peer, const Result<Snapshot>& snapshot, std::size_t hashes);
  bool may_compare(const Url& peer, bool was_named_all);
  /// Whether the round compares nothing, because of what it names to `peer`. O1
  bool is_put_off(const Url& peer, const NewOps& named);
  void take_ids(const Url& peer, gossip::Round& round, const std::vector<Bytes>& ids);
  void name_ids(const Url& peer, gossip::Round& round, gossip::NameIds what);
  void on_ids_read(const Url& peer, const Bytes& session, const decltype(gossip::NameIds::snapshot)& snapshot,
                   NewOps named);
  /// Does what `action` says after a message of the comparison, which may have brought `ids`.
  void go_on(const Url& peer, const Bytes& session, gossip::Action& action, const std::vector<Bytes>* ids);
  /// Charges the peer for a snapshot of so many hashes that was made for it.
  void charge_shown(const Url& peer, std::size_t hashes);
  /// The peer has named so many ids; the model had `ops_before` ops then. G5. nullopt: G8.
  void wait_for_ids(const Url& peer, std::uint64_t ids, std::optional<std::uint64_t> ops_before);
  void look_at_ids();

  // Storage arcs
  /// A comparison with `peer` has found these in sync.
  void on_in_sync(const Url& peer, const SectorSet& sectors);
  void grow();
  bool is_alone() const;
  /// Whether some agent of ours does not store all of its target yet, as far as that lies in `common`.
  bool is_growing(const SectorSet& common) const;

  // Rounds
  void on_round_over(const gossip::Round& round, bool waited);
  void on_send_failed(const Url& peer, const Bytes& session);
  void on_told(gossip::Round& round, const NewOps& named);
  void on_ended_well(const gossip::Round& round);
  /// Ids that one side has named to the other in the round.
  static void mark(gossip::Round& round, const std::vector<Bytes>& ids);

  // Starting rounds
  void schedule();
  void wake();
  void initiate(const Url& peer);
  /// Fetch has so much to do that a round of ours would only be in its way. G4
  bool is_fetch_busy(Time now);
  std::optional<Url> choose(Time now);
  using Seen = gossip::RoundBook::Seen;
  Seen look_at(const Url& peer) const;
  bool overlaps_ours(const AgentInfo& info) const;
  void on_peer_seen(const AgentInfoSigned& info);
  void know(const AgentInfo& info);
  void on_own_arcs_known();
  void know_all_peers();
  void note_gossip(const Url& peer);
  void on_pace_changed();
  void name_all_again();

  // Pieces of messages
  gossip::OurSide our_side() const;
  std::vector<Bytes> unknown_agents(const std::vector<Bytes>& agents) const;
  std::vector<Bytes> infos_of(const std::vector<Bytes>& agents) const;
  using Bookmark = gossip::Bookmark;
  /// The peer's bookmark, if it holds for all of `common`; otherwise the bookmark is forgotten.
  std::optional<Bookmark> bookmark_for(const Url& peer, const SectorSet& common);
  Timestamp asks_since(const Url& peer, const std::optional<gossip::Bookmark>& bookmark);
  void on_compared(const Url& peer);
  void on_not_comparable(const Url& peer);
  bool is_incomparable(const Url& peer) const;
  NewOpsWish wish_of(gossip::Round& round, Timestamp since, std::uint32_t most_bytes, bool ours) const;
  std::function<bool()> is_still_there(const gossip::Round& round);
  std::shared_ptr<bool> watch_bookmark(const Url& peer);
  bool holds_many() const;
  void move_bookmark(const Url& peer, gossip::Named named, bool named_something);
  void take_ops(const Url& peer, const std::vector<Bytes>& ids, const gossip::Named& named, bool more,
                const std::shared_ptr<bool>& holds);
  void on_has_more(const Url& peer);
  /// Takes in agent infos of `peer`. We asked for `asked` of them; no more are looked at.
  void take_agents(const Url& peer, const std::vector<Bytes>& infos, std::size_t asked);
  void send(const Url& peer, const wire::GossipMessage& message, std::function<void(const Result<void>&)> done = {});
  /// Counts a fault of the message that is being handled. `weight`: see `gossip::Faults`.
  void peer_error(const Url& peer, const char* what, double weight = 1);
  PeerStanding charge(const Url& peer, PeerWork work);
  std::uint32_t random_u32();

  const K2GossipConfig& config() const { return context_.config->current().k2_gossip; }
  Duration initial_interval() const {
    const auto set = config().initial_initiate_interval_ms;
    return from_ms(set.value_or(gossip::initial_initiate_interval_ms(context_.transport->dialect())));
  }
  bool stock_takes_bursts() const { return gossip::takes_bursts_of_rounds(context_.transport->dialect()); }
  Runtime& runtime() const { return *context_.runtime; }

  ModuleContext context_;
  GossipPeerMeta meta_;
  gossip::Rounds rounds_;
  gossip::RoundBook book_;
  std::shared_ptr<NewOpsReader> reader_;
  std::shared_ptr<DhtKeeper> dht_;
  gossip::ArcGrowth growth_;
  struct InSync {
    Timestamp at;
    std::uint32_t sectors = 0;
  };
  std::unordered_map<Url, InSync> in_sync_with_;       ///< for the summary only
  static constexpr std::size_t kMostCompared = 4'096;  ///< peers in each of the next three
  std::unordered_map<Url, Time> compared_at_;          ///< G6
  gossip::PutOffs put_offs_;
  /// Where to go on with those that were asked for recent ops only, while no comparison has followed yet. K4
  std::unordered_map<Url, Timestamp> uncompared_;
  static constexpr std::uint64_t kTries = 2;             ///< K4
  std::unordered_map<Url, std::uint64_t> incomparable_;  ///< how many rounds in a row ended without a comparison. K4
  /// Peers that have named ids in a comparison, until most of those are fetched. G5
  struct NamedIds {
    Url peer;
    std::uint64_t pending = 0;         ///< at that time
    std::optional<std::uint64_t> ops;  ///< the same; nullopt: G8
    Time since = {};
  };
  std::vector<NamedIds> named_ids_;
  /// Peers that have more to name, until enough of what they named is fetched. G2
  std::vector<Url> waiting_for_fetch_;
  std::optional<Time> busy_since_;       ///< since when fetch has been busy without a break. G4
  Time look_again_{};                    ///< when to look whether it still is
  std::optional<Time> look_at_pending_;  ///< when G2 and G5 are looked at next
  std::vector<std::pair<Url, std::weak_ptr<bool>>> bookmarks_in_use_;  ///< of rounds, and of ids on their way to fetch
  Runtime::TimerId timer_ = 0;
  std::shared_ptr<void> config_subscription_, publish_subscription_, peer_subscription_, op_subscription_;
  std::optional<Time> renamed_at_;  ///< G3
  Runtime::TimerId rename_timer_ = 0;
  std::vector<DhtArc> own_arcs_;  ///< what our agents want to store, as the candidates were judged by it
  bool knows_peers_ = false;      ///< those who were in the peer store when gossip began
  std::size_t most_candidates_ = 0;
  gossip::Faults faults_;
  InfoRates info_rates_;
  bool it_waits_ = false;            ///< the peer whose message is being taken in is over its budget
  std::size_t message_bytes_ = 0;    ///< of the message that is being taken in
  bool is_at_its_end_with_ = false;  ///< the peer that sent it has made too many faults
  GossipStats stats_;
  log::Gate log_gate_;
  bool stopped_ = false;
};

}  // namespace kitsune2
