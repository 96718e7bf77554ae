// Rounds of gossip: who says what next. The short flow of docs/protocol-gossip.md.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "core/dht/sector_set.hpp"
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
};
struct NoDiffSaid {
  Bytes session;
  std::vector<Bytes> missing_agents;
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
/// Any message of the comparison of the DHT.
struct CompareSaid {
  Bytes session;
};

// -------------------------------------------------------------------- rounds

/// What we bring into a round.
struct OurSide {
  std::vector<AgentId> agents;
  SectorSet sectors;
};

/// We have sent INITIATE.
struct Initiated {
  std::uint32_t tie_breaker = 0;
  Timestamp asked_since;
};
/// It has sent ACCEPT; we read what to name in our NO_DIFF, or have sent it.
struct Answering {
  SectorSet common;
};
/// It has sent INITIATE; we read what to name in our ACCEPT.
struct Accepting {
  SectorSet common;
};
/// We have sent ACCEPT.
struct Accepted {
  SectorSet common;
  Timestamp asked_since;
};
using Stage = std::variant<Initiated, Answering, Accepting, Accepted>;

struct Round {
  Url peer;
  Bytes session;
  OurSide ours;
  Stage stage;
  Time begun;
  std::vector<AgentId> their_agents = {};  ///< that take part
  std::size_t infos_asked = 0;             ///< agents whose infos we asked for
  bool is_known = false;                   ///< the peer, by useful exchange with it
  /// Up to where our ops have been named to them, once the round has ended well.
  std::optional<Timestamp> named_to = {};
  /// False: what the peer named before is not to be relied on any more, so its bookmark must not move on.
  std::shared_ptr<bool> bookmark_holds = {};
  template <class T>
  const T* in() const {
    return std::get_if<T>(&stage);
  }
  bool is_ours() const { return in<Initiated>() != nullptr || in<Answering>() != nullptr; }
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
/// ACCEPT has come: the round takes place. Read what to name, then answer with NO_DIFF.
struct AnswerAccept {
  Timestamp asked_since;
  SectorSet common;
};
/// NO_DIFF has come: the round has ended well. Give what it asks for, or say TERMINATE.
struct Finish {
  Round round;
  Timestamp asked_since;
  SectorSet common;
};
/// Our round has ended well.
struct Completed {
  Round round;
};
/// A round is over that did not get to its end. `decline`: the peer is to be told by TERMINATE.
struct Ended {
  std::vector<Round> rounds;
  bool by_peer = false;
  bool decline = false;
};
using Action = std::variant<Fault, Nothing, SayBusy, WasBusy, MayAccept, AnswerAccept, Finish, Completed, Ended>;

/// The rounds under way.
///
/// *Rules*. R1: one round with a peer that we started, and one that it started; not both in the same direction twice.
/// R2: at most `most_accepted` that others started; more are told BUSY. R3: if both start at once, the larger
/// tie-breaker counts: its owner ignores the other INITIATE, the other gives up its own and answers. R4: a round that
/// has not ended after the limit, or whose connection is gone, is over. R5: a message that fits no round is counted
/// against the peer (`Faults`) and has no effect. A round is known by its peer and its session together. R6: agents
/// that we did not declare may not be asked for: the round is over. R7: the messages of the comparison end a round; we
/// do not compare. R8: an INITIATE that is not served is told BUSY, unless it repeats the session of the round under
/// way. *Rationale*: R8, its sender waits for `roundTimeoutMs` otherwise, and in the reference it has one round at a
/// time. A stock node takes BUSY as an attempt and comes back in its interval.
class Rounds {
 public:
  static constexpr std::size_t kMostSessionBytes = 64;

  Round& start(const Url& peer, Bytes session, OurSide ours, Initiated stage, Time now);
  /// After MayAccept. `theirs`: the sectors that it said.
  Round& accept(const Url& peer, const InitiateSaid& m, OurSide ours, const SectorSet& theirs, Time now);
  /// What is named is read; ACCEPT leaves. nullptr: the round is over.
  Round* accepted(const Url& peer, const Bytes& session, Timestamp asked_since);

  /// `is_known`: there was useful exchange with the peer. R9.
  Action on(const Url& peer, const InitiateSaid& m, std::size_t most_accepted, bool is_known = false);
  Action on(const Url& peer, const AcceptSaid& m);
  Action on(const Url& peer, const NoDiffSaid& m);
  Action on(const Url& peer, const AgentsSaid& m);
  Action on(const Url& peer, const BusySaid& m);
  Action on(const Url& peer, const TerminateSaid& m);
  Action on(const Url& peer, const CompareSaid& m);

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
  Table::iterator oldest_of_newcomers();
  static bool declared(const Round& round, const std::vector<Bytes>& agents);

  Table ours_, theirs_;
};

}  // namespace kitsune2::gossip
