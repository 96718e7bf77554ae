// Rounds of gossip: who says what next. The flow of docs/protocol-gossip.md.
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
#include "kitsune2/bytes.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

// -------------------------------------------------------------------- what a peer says
// The messages as far as rounds go by them. Lists are as they came.

struct InitiateSaid {
  Bytes session;
  std::uint32_t tie_breaker = 0;
};
struct AcceptSaid {
  Bytes session;
  SectorSet sectors;
  std::vector<Bytes> missing_agents;
  std::optional<dht::MinimalSnapshot> snapshot = {};
};
struct NoDiffSaid {
  Bytes session;
  std::vector<Bytes> missing_agents;
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

/// What we bring into a round.
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
/// It has sent ACCEPT; we read what to name in our NO_DIFF, or have sent it.
struct Answering {};
/// The same, with DISC_SECTORS_DIFF instead.
struct ComparingDisc {};
/// The same, with RING_SECTOR_DETAILS_DIFF instead.
struct ComparingRings {
  dht::RingSectorDetailsSnapshot shown;
};

// Stages of a round that the peer started.

/// It has sent INITIATE; we read what to name in our ACCEPT.
struct Accepting {};
/// We have sent ACCEPT.
struct Accepted {
  Timestamp asked_since;
};
/// We have sent DISC_SECTOR_DETAILS_DIFF.
struct ShownDisc {
  dht::DiscSectorDetailsSnapshot shown;
};

// Stages of both.

/// We read the ids to name in a DETAILS_DIFF_RESPONSE, or have sent it. HASHES comes.
struct AwaitingHashes {};
/// We read the ids to name in HASHES, with which the round ends.
struct LastWord {};

using Stage = std::variant<Initiated, Answering, ComparingDisc, ComparingRings, Accepting, Accepted, ShownDisc,
                           AwaitingHashes, LastWord>;

struct Round {
  Url peer;
  Bytes session;
  OurSide ours;
  bool is_ours = false;  ///< we started it
  Stage stage;
  Time begun;
  SectorSet common = {};                                ///< from ACCEPT on
  std::vector<AgentId> their_agents = {};               ///< that take part
  std::size_t infos_asked = 0;                          ///< agents whose infos we asked for
  bool is_known = false;                                ///< the peer, by useful exchange with it
  std::uint64_t ids_left = 0;                           ///< that may be named to it in this round
  std::uint64_t bytes_left = 0;                         ///< the same, in payload of their ops
  std::uint64_t most_bytes = 0;                         ///< what it was at first
  boost::unordered_flat_set<std::uint64_t> marks = {};  ///< of ids that one side has named to the other
  /// Up to where our ops have been named to them, once the round has ended well.
  std::optional<Timestamp> named_to = {};
  /// False: what the peer named before is not to be relied on any more, so its bookmark must not move on.
  std::shared_ptr<bool> bookmark_holds = {};
  template <class T>
  const T* in() const {
    return std::get_if<T>(&stage);
  }
};

// -------------------------------------------------------------------- what is to be done

/// The message fits no round, or what it asks for is not its to ask. It has no effect; the peer is counted.
struct Fault {
  const char* what;
  bool say_busy = false;  ///< it waits for an answer. R8
};
/// Nothing is to be done.
struct Nothing {};
struct SayBusy {};
/// It has too many rounds; ours is over.
struct WasBusy {};
/// The round may begin: judge by the book whether it does, and call `accept`.
struct MayAccept {
  bool tie_lost = false;    ///< by a round of ours, which is given up
  bool needs_room = false;  ///< all rounds are taken: `end_oldest_of_newcomers` first. R9
};
/// ACCEPT has come: the round takes place. Read what is new to the peer, then answer with one of these.
struct AnswerAccept {
  struct NoDiff {
    bool cannot_compare = false;
  };
  Timestamp asked_since;
  SectorSet common;
  std::variant<NoDiff, dht::DiscSectorsSnapshot, dht::RingSectorDetailsSnapshot> answer;
  SectorSet in_sync = {};  ///< both sides hold the same there
};
/// NO_DIFF has come, or a snapshot in which nothing differs or that cannot be compared: the round has ended well. Give
/// what it asks for, or say TERMINATE.
struct Finish {
  Round round;
  Timestamp asked_since;
  bool is_compared = false;  ///< the peer waits for more of the comparison: AGENTS would be a fault for stock nodes
};
/// DISC_SECTORS_DIFF has come. Answer with DISC_SECTOR_DETAILS_DIFF.
struct ShowDisc {
  Timestamp asked_since;
  dht::DiscSectorDetailsSnapshot snapshot;
};
/// Name the ids in `slices`, as far as the budget allows: with the snapshot in a DETAILS_DIFF_RESPONSE, or in HASHES,
/// with which the round ends (`ended_by_hashes`).
struct NameIds {
  std::variant<std::monostate, dht::DiscSectorDetailsSnapshot, dht::RingSectorDetailsSnapshot> snapshot;
  std::vector<dht::SliceRef> slices;
  std::optional<Timestamp> asked_since = {};  ///< it was RING_SECTOR_DETAILS_DIFF
  SectorSet in_sync = {};                     ///< as in AnswerAccept
};
/// Our round has ended well, or one of the peer by its HASHES. `decline`: nothing is left to compare; the peer is to be
/// told by TERMINATE.
struct Completed {
  Round round;
  bool decline = false;
};
/// A round is over that did not get to its end. The peer has said so.
struct Ended {
  Round round;
};
using Action = std::variant<Fault, Nothing, SayBusy, WasBusy, MayAccept, AnswerAccept, Finish, ShowDisc, NameIds,
                            Completed, Ended>;

/// The rounds under way.
///
/// *Rules*. R1: one round with a peer that we started, and one that it started; not both in the same direction twice.
/// R2: at most `most_accepted` that others started; more are told BUSY. R3: if both start at once, the larger
/// tie-breaker counts: its owner ignores the other INITIATE, the other gives up its own and answers. R4: a round that
/// has not ended after the limit, or whose connection is gone, is over. R5: a message that fits no round is counted
/// against the peer (`Faults`) and has no effect. A round is known by its peer and its session together. R6: agents
/// that we did not declare may not be asked for, and a snapshot names nothing outside of the common sectors and the
/// disc: the round is over. R7: what is compared, and with what result, is the DHT model's (`dht::DhtModel::handle`).
/// While there is none, the comparison is declined. R8: an INITIATE that is not served is told BUSY, unless it repeats
/// the session of the round under way. *Rationale*: R8, its sender waits for `roundTimeoutMs` otherwise, and in the
/// reference it has one round at a time. A stock node takes BUSY as an attempt and comes back in its interval. R9: when
/// all rounds of others are taken, a peer that is known by useful exchange takes the place of the newcomer whose round
/// is the oldest. R10: a snapshot of the disc has at most `kMostHashes` hashes; sectors that do not fit are left to
/// other rounds, and `turn` says which are first. *Rationale*: R10, a message has a limit, and a disc has 512 sectors
/// of any number of slices. R11: TERMINATE after the answer to ACCEPT is a normal end.
class Rounds {
 public:
  static constexpr std::size_t kMostSessionBytes = 64;
  static constexpr std::size_t kMostHashes = 131'072;

  Round& start(const Url& peer, Bytes session, OurSide ours, Initiated stage, Time now);
  /// After MayAccept. `theirs`: the sectors that it said.
  Round& accept(const Url& peer, const InitiateSaid& m, OurSide ours, const SectorSet& theirs, Time now);
  /// What is named is read; ACCEPT leaves. nullptr: the round is over.
  Round* accepted(const Url& peer, const Bytes& session, Timestamp asked_since);

  /// `is_known`: there was useful exchange with the peer. R9.
  Action on(const Url& peer, const InitiateSaid& m, std::size_t most_accepted, bool is_known = false);
  Action on(const Url& peer, const NoDiffSaid& m);
  Action on(const Url& peer, const HashesSaid& m);
  Action on(const Url& peer, const AgentsSaid& m);
  Action on(const Url& peer, const BusySaid& m);
  Action on(const Url& peer, const TerminateSaid& m);
  // `model`: nullptr while there is none. R7.
  Action on(const Url& peer, const AcceptSaid& m, const dht::DhtModel* model);
  Action on(const Url& peer, const DiscSectorsSaid& m, const dht::DhtModel* model, std::uint32_t turn);
  Action on(const Url& peer, const DiscDetailsSaid& m, const dht::DhtModel* model, std::uint32_t turn = 0);
  Action on(const Url& peer, const DiscDetailsResponseSaid& m, const dht::DhtModel* model);
  Action on(const Url& peer, const RingDetailsSaid& m, const dht::DhtModel* model);
  Action on(const Url& peer, const RingDetailsResponseSaid& m, const dht::DhtModel* model);

  Round* find(const Url& peer, const Bytes& session);
  /// The round with this session is over; nullopt if it was already.
  std::optional<Round> end(const Url& peer, const Bytes& session);
  std::vector<Round> end_all_with(const Url& peer);
  std::vector<Round> end_begun_before(Time limit);
  /// Of those that others started. R9. Its peer is to be told by TERMINATE.
  std::optional<Round> end_oldest_of_newcomers();
  void clear();

  bool has_any_with(const Url& peer) const { return ours_.contains(peer) || theirs_.contains(peer); }
  std::size_t ours() const { return ours_.size(); }
  std::size_t theirs() const { return theirs_.size(); }
  std::optional<Time> latest_of_ours() const;
  std::optional<Time> oldest() const;

 private:
  using Table = std::map<Url, Round>;
  Round* of_ours(const Url& peer, const Bytes& session);
  Round* of_theirs(const Url& peer, const Bytes& session);
  Round take(Round& round);
  Table::iterator oldest_of_newcomers();
  static bool declared(const Round& round, const std::vector<Bytes>& agents);
  /// What the initiator's answer to our ACCEPT belongs to, or why it belongs to nothing.
  struct Answered {
    Round* round;  ///< null: `fault` holds
    Fault fault;
  };
  /// A round whose answer asks for what was not declared is over.
  Answered answered(const Url& peer, const Bytes& session, const std::vector<Bytes>& missing_agents,
                    const char* unsolicited);

  Table ours_, theirs_;
};

}  // namespace kitsune2::gossip
