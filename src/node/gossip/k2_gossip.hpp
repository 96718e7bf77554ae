// Gossip, the short flow: docs/protocol-gossip.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "kitsune2/builder.hpp"
#include "log/log.hpp"
#include "node/gossip/arc_sectors.hpp"
#include "node/gossip/gossip_peer_meta.hpp"
#include "wire/gossip_messages.hpp"

namespace kitsune2 {

struct GossipRound {
  enum class Stage { initiated, accepting, accepted, no_diff };
  Stage stage = Stage::initiated;
  Url peer;
  Bytes session;
  std::uint32_t tie_breaker = 0;
  std::vector<AgentId> our_agents;
  ArcSectors our_sectors;
  ArcSectors common;      ///< with the peer's; known when both have said theirs
  Timestamp asked_since;  ///< what the peer names is complete from here on
  Runtime::TimerId timeout = 0;
  /// False: what this peer named before is not to be relied on any more, so its bookmark must not move on.
  std::shared_ptr<bool> bookmark_holds;
};

/// Rounds of one space with its peers.
///
/// *Rules*. G1: at most one round that we started. G2: at most `maxConcurrentAcceptedRounds` that others started, one a
/// peer; more are told BUSY. G3: a peer that starts a round within `minInitiateIntervalMs` of the last one that took
/// place with it, by whomever, gets no answer. G4: a round that has not ended after `roundTimeoutMs`, or whose
/// connection is gone, is forgotten. G5: a message that fits no round is counted against the peer and has no effect; it
/// never closes the connection (bytes that do not decode do). G6: the bookmark of a peer moves on only when what it
/// named is pending or held, and is forgotten when some of that is dropped. G7: a bookmark holds for the sectors that
/// were common when it moved on; when more are common, it is forgotten and everything is named once. *Rationale*: a
/// peer names what lies in the common sectors only; who comes to store more, or meets a peer that does, lacks the older
/// ops.
class K2Gossip final : public Gossip, public std::enable_shared_from_this<K2Gossip> {
 public:
  explicit K2Gossip(const ModuleContext& context);
  ~K2Gossip() override;
  Result<void> start();

  void inform_ops_stored(std::vector<StoredOp> ops) override;
  void inform_requests_dropped(const Url& peer) override;
  GossipStats stats() const override {
    assert_on_strand(runtime(), "Gossip::stats");
    return stats_;
  }
  void stop() override;

 private:
  class Receiver;
  using Round = GossipRound;
  using Stage = GossipRound::Stage;
  /// Ids for a peer, and where the next ones begin.
  struct NewOps {
    std::vector<Bytes> ids;
    Timestamp next;
  };

  Result<void> received(const Url& peer, const Bytes& data);
  void disconnected(const Url& peer);

  void on(const Url& peer, const wire::GossipInitiate& m);
  void on(const Url& peer, const wire::GossipAccept& m);
  void on(const Url& peer, const wire::GossipNoDiff& m);
  void on(const Url& peer, const wire::GossipAgents& m);
  void on(const Url& peer, const wire::GossipBusy& m);
  void on(const Url& peer, const wire::GossipTerminate& m);
  /// All messages of the DHT comparison, which we never start.
  template <class Other>
  void on(const Url& peer, const Other& m) {
    cannot_compare(peer, m.session_id);
  }
  void cannot_compare(const Url& peer, const Bytes& session);

  void accept(const Url& peer, const Bytes& session, const NewOps& ours, std::vector<Bytes> missing);
  void answer_accept(const Url& peer, const Bytes& session, wire::GossipNoDiff answer);

  // Rounds
  Round* initiated_with(const Url& peer, const Bytes& session);
  Round* accepted_from(const Url& peer, const Bytes& session);
  void arm_timeout(Round& round);
  void timed_out(const Url& peer, const Bytes& session);
  void end_initiated();
  void end_accepted(const Url& peer);
  void completed(const Url& peer);

  // Starting rounds
  void schedule_initiate(std::optional<Duration> wait = std::nullopt);
  void initiate();
  std::optional<Url> select_target();

  // Pieces of messages
  std::vector<AgentId> local_agents(ArcSectors& sectors) const;
  std::vector<Bytes> unknown_agents(const std::vector<Bytes>& agents) const;
  std::vector<Bytes> infos_of(const std::vector<Bytes>& agents) const;
  bool declared(const Round& round, const std::vector<Bytes>& agents) const;
  using Bookmark = GossipPeerMeta::Bookmark;
  static Timestamp since(const std::optional<Bookmark>& bookmark);
  /// The peer's, if it holds for all of `common`; else it is forgotten. G7.
  std::optional<Bookmark> bookmark_for(const Url& peer, const ArcSectors& common);
  void new_ops(ArcSectors sectors, Timestamp since, std::uint32_t limit, std::function<void(NewOps)> done);
  void query(ArcSectors sectors, Timestamp since, std::uint32_t limit, int tries, std::function<void(NewOps)> done);
  std::shared_ptr<bool> watch_bookmark(const Url& peer);
  /// What was asked for in a round, and what the peer says of it.
  struct Named {
    Timestamp since;
    Timestamp next;
    ArcSectors common;
  };
  void move_bookmark(const Url& peer, const Named& named, bool named_something);
  void take_ops(const Url& peer, const std::vector<Bytes>& ids, const Named& named, std::shared_ptr<bool> holds);
  void take_agents(const Url& peer, const std::vector<Bytes>& infos);
  void send(const Url& peer, const wire::GossipMessage& message, std::function<void(const Result<void>&)> done = {});
  void peer_error(const Url& peer, const char* what);
  std::uint32_t random_u32();

  const K2GossipConfig& config() const { return context_.config->current().k2_gossip; }
  Runtime& runtime() const { return *context_.runtime; }

  ModuleContext context_;
  GossipPeerMeta meta_;
  std::optional<Round> initiated_;
  std::unordered_map<Url, Round> accepted_;
  std::vector<std::pair<Url, std::weak_ptr<bool>>> bookmarks_in_use_;  ///< of rounds, and of ids on their way to fetch
  bool rush_ = true;  ///< no round was started yet: look for a peer often
  Duration rush_wait_{};
  Runtime::TimerId initiate_timer_ = 0;
  std::shared_ptr<void> subscription_;
  GossipStats stats_;
  log::Gate log_gate_;
  bool stopped_ = false;
};

}  // namespace kitsune2
