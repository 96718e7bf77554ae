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

#include "core/peers/info_rates.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Shares the look-ups in the op store among the peers that announce ops. It knows only the number and size of
/// messages: the caller keeps the ids, asks the store and reports its answers.
///
/// *Rules*
///  O1  Of the ids announced by one peer, at most kMaxWaitingIdsPerPeer wait for the store's answer, of all peers'
///      kMaxWaitingIds, with similar bounds for the bytes of their messages. A message that would exceed one is
///      refused; a single one always fits. Newcomers may use only the first half of the bounds for all.
///      Reason: a message of a megabyte costs a peer nothing, and urls are free: messages of newcomers that are held
///      (O5) must not take the room of known peers.
///  O2  The store is asked for kPieceIds ids at a time, in at most kMaxPieces calls at a time. Peers take turns, piece
///      by piece, each in the order of its messages.
///      Reason: a read for another peer waits for one such look-up, not for one of a million ids.
///  O3  While peers are being served, one piece at a time is under way, and each is followed by a rest that is kRests
///      times as long as it took, but at most kLongestRest.
///      Reason: the look-ups use the same threads as serving, which keeps most of their time. What a piece takes is not
///      half of what it costs: the message was received and put together, and what is accepted is written.
///  O4  When a piece is refused, everything that waits of its peer is refused too.
///      Reason: there is no room for the rest either; looking it up would be wasted.
///  O5  A peer that is held has no turn until the given time. Its announcements wait.
///      Reason: a peer over its budget waits; an honest one loses nothing by that.
///  O6  Agent infos are examined at the rates of InfoRates.
///      Reason: see there. Infos that are dropped here arrive by gossip and bootstrap.
///  O7  A peer is forgotten when it is disconnected and nothing of it waits. While it is connected, its turn and its
///      allowance by O6 are kept.
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
  static constexpr int kRests = 5;

  using OfferId = std::uint64_t;  ///< 1, 2, 3, … in the order of arrival

  /// Ask the store for the next `ids` ids of `offer`, and report by `on_piece_done`. `is_last`: it is the offer's last
  /// piece.
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

  /// `peer` announces `ids` ids (at least one) in a message that takes `bytes` while it waits. `is_known`: it is not a
  /// newcomer. nullopt: refused.
  std::optional<OfferId> offer(const Url& peer, std::uint64_t ids, std::uint64_t bytes, bool is_known);
  /// The peer whose turn it is; nullopt if there is none or the store is busy. `serving`: peers are being served.
  std::optional<Url> next_peer(bool serving, Time now);
  /// Returns the next piece of the peer that `next_peer` has just returned.
  Piece next_piece(Time now);
  /// O5.
  void hold(const Url& peer, Time until);
  /// Each piece ends exactly once, in any order. `ok`: it has been dealt with.
  Dropped on_piece_done(const Piece& piece, bool ok, bool serving, Time now);
  /// O6. If true, the info counts towards the allowance.
  bool may_send_agent(const Url& peer, bool is_known, Time now);
  /// The peer's connection is closed.
  void on_disconnect(const Url& peer);

  /// When `next_peer` may return something without another event; nullopt: no time limit is running.
  std::optional<Time> next_deadline() const;
  std::uint64_t waiting_ids() const { return waiting_ids_; }
  std::uint64_t waiting_bytes() const { return waiting_bytes_; }
  std::size_t peers() const { return senders_.size(); }

  /// For tests: recomputes every sum, and aborts if one is wrong. O(n).
  void check_invariants() const;

 private:
  struct Offer {
    OfferId id = 0;
    std::uint64_t left = 0;
    std::uint64_t bytes = 0;
  };
  struct Sender {
    std::deque<Offer> offers;
    bool in_turn = false;
    std::optional<Time> held_until;
    std::uint64_t waiting_ids = 0;    ///< including those that the store is being asked for
    std::uint64_t waiting_bytes = 0;  ///< of the messages in `offers`
    bool is_connected = true;
  };
  using Senders = std::unordered_map<Url, Sender>;

  void end_offer(Sender& sender);
  void take_turn(const Url& peer, Sender& sender);
  void release_held(Time now);
  void drop_if_idle(Senders::iterator it);

  Senders senders_;
  std::deque<Url> turns_;                ///< senders with offers that are not held back
  std::set<std::pair<Time, Url>> held_;  ///< senders that are held back
  std::uint64_t waiting_ids_ = 0, waiting_bytes_ = 0;
  std::size_t pieces_ = 0;
  InfoRates agents_;
  std::optional<Time> rest_until_;
  OfferId last_offer_ = 0;
};

}  // namespace kitsune2
