// Which peer's offer of ops is looked into next, and how much of it: the receiving side of publish.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Shares out the look-ups among the peers that tell of ops. It knows messages by number and size only: the caller
/// keeps the ids, asks the store and says when it has answered.
///
/// *Rules*
///  O1  Of the ids that one peer tells of, at most kMaxWaitingIdsPerPeer wait for the store's answer, of all
///  kMaxWaitingIds,
///      and so for the bytes of their messages; a message that would go beyond is refused. A single one always fits.
///      Newcomers find room in the first half of the bounds of all only. Reason: a message of a megabyte costs a peer
///      nothing, and urls are free: what is held of newcomers (O5) must not take the room of known peers.
///  O2  The store is asked about kPieceIds ids at once, kMaxPieces times at once; peers take turns, piece by piece,
///  each
///      in the order of its messages.
///      Reason: a read for another peer waits behind one such look-up, not behind that of a million ids.
///  O3  While peers are served, one piece is under way at a time, and after each there is a rest for as long as it
///  took,
///      kLongestRest at most.
///      Reason: what is looked up for offers takes the same threads as serving does; who fetches keeps most of them.
///  O4  When a piece is refused, so is all that waits of its peer.
///      Reason: there is no room for the rest either; it would be looked at in vain.
///  O5  A peer that is held has no turn until the time that was said. What it has told waits.
///      Reason: who is over its budget waits; nothing honest is lost by that.
///  O6  Of agent infos, kAgentBurst of one peer are looked at at once, then kAgentsPerSecond a second.
///      Of all newcomers together it is kNewcomersAgentBurst, then kNewcomersAgentsPerSecond, from however many
///      addresses they come. One that is not looked at counts for nothing.
///      Reason: to verify one takes about 0.1 ms, and what is believed is written and displaces another. Infos that are
///      not heard by publish come by gossip and bootstrap.
///  O7  A peer is forgotten when it is not connected and nothing of it waits. Its turn, and what it may still send by
///      O6, are kept while it is connected.
///
/// Pure: told the time. Calls are O(log peers), but O(peers) where a peer leaves its turn. Memory is O(messages that
/// wait), which O1 bounds, and O(connected peers).
class Offers {
 public:
  static constexpr std::uint64_t kMaxWaitingIdsPerPeer = 1U << 20;
  static constexpr std::uint64_t kMaxWaitingIds = 8U << 20;
  static constexpr std::uint64_t kMaxWaitingBytesPerPeer = 64U << 20;
  static constexpr std::uint64_t kMaxWaitingBytes = 256U << 20;
  static constexpr std::uint64_t kPieceIds = 4096;
  static constexpr std::size_t kMaxPieces = 4;
  static constexpr Duration kLongestRest = std::chrono::seconds(1);
  /// In millionths, so that what comes back is exact.
  static constexpr std::int64_t kAgentBurst = 256;
  static constexpr std::int64_t kAgentsPerSecond = 16;
  static constexpr std::int64_t kNewcomersAgentBurst = 1024;
  static constexpr std::int64_t kNewcomersAgentsPerSecond = 64;

  using OfferId = std::uint64_t;  ///< 1, 2, 3, … in the order of coming

  /// Ask the store about the next `ids` ids of `offer`; of the last piece of an offer `is_last` is true. Report with
  /// `piece_done`.
  struct Piece {
    Url peer;
    OfferId offer = 0;
    std::uint64_t ids = 0;
    bool is_last = false;
    Time begun{};
    friend bool operator==(const Piece&, const Piece&) = default;
  };
  /// What O4 dropped.
  struct Dropped {
    std::vector<OfferId> offers;
    std::uint64_t ids = 0;
    std::uint64_t bytes = 0;
    friend bool operator==(const Dropped&, const Dropped&) = default;
  };

  /// `peer` tells of `ids` ids, at least one, in a message that takes `bytes` while it waits. `is_known`: it
  /// is no newcomer. nullopt: refused.
  std::optional<OfferId> offer(const Url& peer, std::uint64_t ids, std::uint64_t bytes, bool is_known);
  /// Whose turn it is; nullopt: nobody's, or the store has enough to do. `serving`: peers are served.
  std::optional<Url> next_peer(bool serving, Time now);
  /// Its piece, of the peer that `next_peer` has just named.
  Piece next_piece(Time now);
  /// O5.
  void hold(const Url& peer, Time until);
  /// Each piece ends exactly once, in any order. `ok`: it is dealt with.
  Dropped piece_done(const Piece& piece, bool ok, bool serving, Time now);
  /// O6. If true it counts as one of those that it may send.
  bool may_send_agent(const Url& peer, bool is_known, Time now);
  /// Its connection is gone.
  void disconnected(const Url& peer);

  /// When `next_peer` may have something to say without another event; nullopt: no time limit is running.
  std::optional<Time> next_deadline() const;
  std::uint64_t waiting_ids() const { return waiting_ids_; }
  std::uint64_t waiting_bytes() const { return waiting_bytes_; }
  std::size_t peers() const { return senders_.size(); }

  /// For tests: recomputes every sum. Aborts when one is wrong. O(n).
  void check_invariants() const;

 private:
  struct Offer {
    OfferId id = 0;
    std::uint64_t left = 0;
    std::uint64_t bytes = 0;
  };
  /// What may be sent now, in millionths.
  struct Allowance {
    std::int64_t left = 0;
    std::optional<Time> at;
    bool has_one(std::int64_t burst, std::int64_t per_second, Time now);
  };
  struct Sender {
    std::deque<Offer> offers;
    bool in_turn = false;
    std::optional<Time> held_until;
    std::uint64_t waiting_ids = 0;    ///< those that the store is asked about too
    std::uint64_t waiting_bytes = 0;  ///< of the messages in `offers`
    Allowance agents;
    bool is_connected = true;
  };
  using Senders = std::unordered_map<Url, Sender>;

  void end_offer(Sender& sender);
  void take_turn(const Url& peer, Sender& sender);
  void release_held(Time now);
  void drop_if_idle(Senders::iterator it);

  Senders senders_;
  std::deque<Url> turns_;                ///< senders with offers that are not held
  std::set<std::pair<Time, Url>> held_;  ///< senders that are held
  std::uint64_t waiting_ids_ = 0, waiting_bytes_ = 0;
  std::size_t pieces_ = 0;
  Allowance newcomers_agents_;
  std::optional<Time> rest_until_;
  OfferId last_offer_ = 0;
};

}  // namespace kitsune2
