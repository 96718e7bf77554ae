// Rounds of gossip as state machines: what each message of a peer does to its round, and what is to be done then.
// docs/protocol-gossip.md draws the messages of a round.
#pragma once

#include <boost/unordered/unordered_flat_set.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "core/dht/dht_model.hpp"
#include "core/dht/sector_set.hpp"
#include "core/dht/snapshot.hpp"
#include "core/gossip/bookmark.hpp"
#include "core/gossip/comparison_turns.hpp"
#include "kitsune2/bytes.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

// -------------------------------------------------------------------- what a peer says
// The parts of the messages that matter to rounds. Lists are as they arrived and have not been checked.

struct InitiateSaid {
  Bytes session;
  std::uint32_t tie_breaker = 0;
  bool is_answered_always = false;  ///< its sender answers each INITIATE that reaches it (R8): it is one of ours
};
struct AcceptSaid {
  Bytes session;
  SectorSet sectors;
  std::vector<Bytes> missing_agents;
  std::optional<dht::MinimalSnapshot> snapshot = {};
  bool is_ours = false;  ///< the peer runs this implementation
};
struct NoDiffSaid {
  Bytes session;
  std::vector<Bytes> missing_agents;
  bool cannot_compare = false;
};
struct DiscSectorsSaid {
  Bytes session;
  std::vector<Bytes> missing_agents;
  dht::DiscSectorsSnapshot snapshot = {};
};
struct DiscDetailsSaid {
  Bytes session;
  dht::DiscSectorDetailsSnapshot snapshot = {};
};
struct DiscDetailsResponseSaid {
  Bytes session;
  dht::DiscSectorDetailsSnapshot snapshot = {};
};
struct RingDetailsSaid {
  Bytes session;
  std::vector<Bytes> missing_agents;
  dht::RingSectorDetailsSnapshot snapshot = {};
  bool disc_differs = false;
};
struct RingDetailsResponseSaid {
  Bytes session;
  dht::RingSectorDetailsSnapshot snapshot = {};
};
struct HashesSaid {
  Bytes session;
};
struct AgentsSaid {
  Bytes session;
};
struct BusySaid {
  Bytes session;
};
struct TerminateSaid {
  Bytes session;
};

// -------------------------------------------------------------------- rounds

/// Which agents of ours take part in a round, and the sectors that they want to store.
struct OurSide {
  std::vector<AgentId> agents;
  SectorSet sectors;
};

// Stages of a round that we started.

/// We have sent INITIATE.
struct Initiated {
  std::uint32_t tie_breaker = 0;
  Timestamp asked_since;
};
/// The peer has sent ACCEPT. We are reading what to name in our NO_DIFF, or have sent it.
struct Answering {};
/// As Answering, with DISC_SECTORS_DIFF in place of NO_DIFF.
struct ComparingDisc {
  dht::CombinedHash difference;  ///< the XOR of the sums of both discs
};
/// As Answering, with RING_SECTOR_DETAILS_DIFF in place of NO_DIFF.
struct ComparingRings {
  dht::RingSectorDetailsSnapshot shown;
  bool disc_differs = false;  ///< the disc has to wait for its turn
};

// Stages of a round that the peer started.

/// The peer has sent INITIATE. We are reading what to name in our ACCEPT.
struct Accepting {};
/// We have sent ACCEPT.
struct Accepted {
  Timestamp asked_since;
  bool has_snapshot = false;
};
/// We have sent DISC_SECTOR_DETAILS_DIFF.
struct ShownDisc {
  dht::DiscSectorDetailsSnapshot shown;
};

// Stages of either.

/// We are reading the ids to name in a DETAILS_DIFF_RESPONSE, or have sent it. The peer's HASHES is to follow.
struct AwaitingHashes {
  std::optional<dht::CombinedHash> difference = {};  ///< as in ComparingDisc, if we have started the round
};
/// We are reading the ids to name in HASHES, with which the round ends.
struct LastWord {};

using Stage = std::variant<Initiated, Answering, ComparingDisc, ComparingRings, Accepting, Accepted, ShownDisc,
                           AwaitingHashes, LastWord>;

struct Round {
  Url peer;
  Bytes session;
  OurSide ours;
  bool is_ours = false;  ///< we have started it
  Stage stage;
  Time begun;
  SectorSet common = {};                                ///< the sectors of both sides; set with ACCEPT
  std::vector<AgentId> their_agents = {};               ///< the peer's agents that take part
  std::size_t infos_asked = 0;                          ///< of how many agents we asked for the infos
  bool is_known = false;                                ///< there was useful exchange with the peer
  std::uint64_t ids_left = 0;                           ///< how many ids may still be named to the peer
  std::uint64_t bytes_left = 0;                         ///< how many bytes the ops of these ids may have
  std::uint64_t most_bytes = 0;                         ///< what `bytes_left` was at first
  boost::unordered_flat_set<std::uint64_t> marks = {};  ///< hashes of the ids that one side has named to the other
  /// If the round ends well, the peer's agents have been named what we stored before this time (Newcomers).
  std::optional<Timestamp> named_to = {};
  /// Becomes false if what the peer has named can no longer be relied on; then its bookmark must not move.
  std::shared_ptr<bool> bookmark_holds = {};
  template <class T>
  const T* in() const {
    return std::get_if<T>(&stage);
  }
};

// -------------------------------------------------------------------- what is to be done

/// The message fits no round, or asks for something that it may not ask for. It has no effect, but counts as a fault of
/// the peer.
struct Fault {
  const char* what;
  bool say_busy = false;  ///< answer BUSY, because the peer waits for an answer. R8
};
/// Nothing is to be done.
struct Nothing {};
/// Answer BUSY.
struct SayBusy {};
/// The peer has too many rounds under way; our round is over.
struct WasBusy {};
/// The peer's round may begin. Ask RoundBook whether it does; if so, call `accept`.
struct MayAccept {
  bool tie_lost = false;    ///< our round, which had not been answered, is given up. R3
  bool needs_room = false;  ///< all rounds of others are taken: call `end_oldest_of_newcomers` first. R9
};
/// ACCEPT has arrived, so the round takes place. Read what is new to the peer, and answer with `answer`.
struct AnswerAccept {
  struct NoDiff {
    bool cannot_compare = false;
  };
  Timestamp asked_since;
  SectorSet common;
  std::variant<NoDiff, dht::DiscSectorsSnapshot, dht::RingSectorDetailsSnapshot> answer;
  SectorSet in_sync = {};     ///< sectors in which both sides hold the same
  bool disc_differs = false;  ///< to be said with a snapshot of rings
};
/// The round has ended well: NO_DIFF has arrived, or a snapshot that cannot be compared or in which nothing differs.
/// Send the agent infos that the peer asks for; if it asks for none, send TERMINATE.
struct Finish {
  Round round;
  Timestamp asked_since;
  bool is_compared = false;     ///< the peer expects more of the comparison; a stock node would take AGENTS for a fault
  SectorSet in_sync = {};       ///< as in AnswerAccept
  bool cannot_compare = false;  ///< the peer says so of the snapshot that we sent
};
/// DISC_SECTORS_DIFF has arrived. Answer with DISC_SECTOR_DETAILS_DIFF.
struct ShowDisc {
  Timestamp asked_since;
  dht::DiscSectorDetailsSnapshot snapshot;
};
/// Name the ids in `slices`, as many as the round's budget allows. With a snapshot, they go into a
/// DETAILS_DIFF_RESPONSE beside it; without one, into HASHES, with which the round ends.
struct NameIds {
  std::variant<std::monostate, dht::DiscSectorDetailsSnapshot, dht::RingSectorDetailsSnapshot> snapshot;
  std::vector<dht::SliceRef> slices;
  std::optional<Timestamp> asked_since = {};  ///< set if the message was RING_SECTOR_DETAILS_DIFF
  SectorSet in_sync = {};                     ///< as in AnswerAccept
};
/// A round has ended well: one of ours, or one of the peer's with its HASHES. `decline`: send TERMINATE, because
/// nothing is left to compare.
struct Completed {
  Round round;
  bool decline = false;
};
/// The peer has ended a round early.
struct Ended {
  Round round;
};
using Action = std::variant<Fault, Nothing, SayBusy, WasBusy, MayAccept, AnswerAccept, Finish, ShowDisc, NameIds,
                            Completed, Ended>;

/// The rounds under way.
///
/// *Rules*.
///  R1  With each peer there is at most one round that we started, and one that it started.
///  R2  At most `most_accepted` rounds of others are under way; further ones are answered with BUSY.
///  R3  If both sides start at once, the larger tie-breaker wins. Its owner ignores the other INITIATE; the other side
///      gives its round up and answers. An INITIATE of ours that a stock node has not answered for `kCrossing` was
///      lost, and does not count. Rationale: nodes from 0.3 on drop what comes before they have heard of its sender,
///      and both rounds would wait for their time limits.
///  R4  A round is over when it has not ended within the time limit, or its connection is gone.
///  R5  A message belongs to the round with its session *and* its peer. One that fits no round has no effect, but
///      counts against the peer (`Faults`).
///  R6  A round is over if the peer asks for agents that we did not declare, or if its snapshot names something outside
///      the common sectors or the disc.
///  R7  The DHT model decides what is compared, and with what result (`dht::DhtModel::handle`). While there is no
///      model, the comparison is declined.
///  R8  An INITIATE that is not served is answered with BUSY, unless it repeats the session of the round under way.
///      Rationale: otherwise its sender waits for `roundTimeoutMs`, and in the reference it has one round at a time. A
///      stock node counts BUSY as an attempt, and comes back after its interval.
///  R9  When all rounds of others are taken, a peer with which there was useful exchange takes the place of the
///      newcomer whose round is the oldest.
///  R10 A snapshot of the disc has at most `kMostHashes` hashes. The sectors that do not fit are left to other rounds;
///      `turn` decides which come first. Rationale: a message has a limit, and each of the 512 sectors of a disc may
///      have any number of slices.
///  R11 TERMINATE after the answer to ACCEPT is a normal end.
///  R12 NO_DIFF after an ACCEPT with a snapshot says that nothing differs, unless it says that the two cannot be
///      compared.
///  R13 Where both differ, `ComparisonTurns` (C) decides whether the disc or the rings are compared. After a comparison
///      of rings beside which the disc differs, no sector counts as in sync. To a peer of ours this is said; a stock
///      node cannot know.
class Rounds {
 public:
  static constexpr std::size_t kMostSessionBytes = 64;
  static constexpr std::size_t kMostHashes = 131'072;
  static constexpr Duration kCrossing = std::chrono::seconds(1);

  Round& start(const Url& peer, Bytes session, OurSide ours, Initiated stage, Time now);
  /// Begins the peer's round; to be called after MayAccept. `theirs`: the sectors that its INITIATE named.
  Round& accept(const Url& peer, const InitiateSaid& m, OurSide ours, const SectorSet& theirs, Time now);
  /// What to name has been read, so ACCEPT is sent now, perhaps with a snapshot. nullptr if the round is over by now.
  Round* accepted(const Url& peer, const Bytes& session, Timestamp asked_since, bool has_snapshot = false);
  /// The same for our answer to ACCEPT. `compares`: it is the one of AnswerAccept; otherwise NO_DIFF takes its place.
  Round* on_answer(const Url& peer, const Bytes& session, bool compares = true);

  /// `is_known`: there was useful exchange with the peer. R9.
  Action on(const Url& peer, const InitiateSaid& m, std::size_t most_accepted, Time now, bool is_known = false);
  Action on(const Url& peer, const NoDiffSaid& m);
  Action on(const Url& peer, const HashesSaid& m);
  Action on(const Url& peer, const AgentsSaid& m);
  Action on(const Url& peer, const BusySaid& m);
  Action on(const Url& peer, const TerminateSaid& m);
  // `model` may be nullptr. R7.
  Action on(const Url& peer, const AcceptSaid& m, const dht::DhtModel* model);
  Action on(const Url& peer, const DiscSectorsSaid& m, const dht::DhtModel* model, std::uint32_t turn);
  Action on(const Url& peer, const DiscDetailsSaid& m, const dht::DhtModel* model, std::uint32_t turn = 0);
  Action on(const Url& peer, const DiscDetailsResponseSaid& m, const dht::DhtModel* model);
  Action on(const Url& peer, const RingDetailsSaid& m, const dht::DhtModel* model);
  Action on(const Url& peer, const RingDetailsResponseSaid& m, const dht::DhtModel* model);

  Round* find(const Url& peer, const Bytes& session);
  /// Ends the round with this session and returns it; nullopt if there is none.
  std::optional<Round> end(const Url& peer, const Bytes& session);
  std::vector<Round> end_all_with(const Url& peer);
  std::vector<Round> end_begun_before(Time limit);
  /// Ends the oldest round that a newcomer has started. Its peer is to be told by TERMINATE. R9.
  std::optional<Round> end_oldest_of_newcomers();
  void clear();

  bool has_any_with(const Url& peer) const { return ours_.contains(peer) || theirs_.contains(peer); }
  std::size_t ours() const { return ours_.size(); }
  std::size_t theirs() const { return theirs_.size(); }
  /// All of them, by direction and peer.
  template <class F>
  void for_each(F call) const {
    for (const Table* table : {&ours_, &theirs_}) {
      for (const auto& [peer, round] : *table) call(round);
    }
  }
  std::optional<Time> latest_of_ours() const;
  std::optional<Time> oldest() const;

 private:
  using Table = std::map<Url, Round>;
  Round* of_ours(const Url& peer, const Bytes& session);
  Round* of_theirs(const Url& peer, const Bytes& session);
  Round take(Round& round);
  Table::iterator oldest_of_newcomers();
  static bool declared(const Round& round, const std::vector<Bytes>& agents);
  /// The round to which the initiator's answer to our ACCEPT belongs, or the reason why it belongs to none.
  struct Answered {
    Round* round;  ///< null: `fault` holds
    Fault fault;
  };
  /// Ends the round if `missing_agents` has agents that we did not declare. R6.
  Answered answered(const Url& peer, const Bytes& session, const std::vector<Bytes>& missing_agents,
                    const char* unsolicited);

  Table ours_, theirs_;
  ComparisonTurns turns_;
};

}  // namespace kitsune2::gossip
