// Which read of the op store for a round of gossip begins next, and when.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>

#include "kitsune2/time.hpp"

namespace kitsune2::gossip {

/// Limits the reads of the op store by which rounds find out what to name, over all peers. Told the time.
///
/// *Rules*.
///  Q1  At most two reads are at the store: one for rounds that others started, and one for rounds of ours.
///  Q2  A read counts until the store has answered and what it brought has been dealt with, whatever has become of its
///      round. Rationale: the peer may be gone or may have ended the round, but the store is still busy. And marking
///      the ids, encoding and sending them takes the strand twice as long as the store took to read them. If that did
///      not count, the next read would be done before the strand had time for anything else.
///  Q3  A read that has not begun is dropped together with its round.
///  Q4  After a read for others, the next one waits `kRest` times as long as that one took, and `kRestServing` times
///      while ops are served to peers, at most `kLongestRest`.
///      Rationale: a read may walk over all ops, on the thread that also serves fetch. A round costs the peer that
///      starts it one message, and urls cost nothing. So a third of the time is for such reads, however many peers ask,
///      and a sixth while others wait for their ops. The rest is not only for others: what the ids cause (sending them,
///      looking up those that the peer names in turn) comes out of it, and costs about as much again. With a third,
///      honest fetches fell to 43 %.
///  Q5  While `kMostWaiting` reads for others wait, no further round of others is accepted.
/// Reads for our own rounds are as rare as those rounds, and do not wait for others.
class ReadQueue {
 public:
  using Id = std::uint64_t;
  /// Who started the round for which the read is.
  enum class For : std::uint8_t { ours, theirs };
  static constexpr int kRest = 2, kRestServing = 5;  ///< Q4
  static constexpr Duration kLongestRest = std::chrono::seconds(2);
  static constexpr std::size_t kMostWaiting = 64;

  Id add(For whom);
  /// Returns the read that begins now, or nullopt if none may. It counts as being at the store from now on.
  std::optional<Id> begin(Time now);
  /// The store has answered the read, and what it brought has been dealt with. `serving`: ops are served to peers.
  void on_ended(Id id, Time now, bool serving);
  /// The round of the read is over. Returns true if the read is at the store, where it should be stopped; `on_ended`
  /// must be called for it all the same. Otherwise the read is forgotten.
  bool drop(Id id);
  /// When to call `begin` next; nullopt: after the next `on_ended` or `add`.
  std::optional<Time> next(Time now) const;

  bool is_full() const { return waiting(For::theirs) >= kMostWaiting; }  ///< Q5
  std::size_t waiting(For whom) const { return waiting_[static_cast<std::size_t>(whom)].size(); }
  std::size_t under_way() const { return under_way_.size(); }

 private:
  struct Read {
    For whom;
    Time begun;
  };
  bool is_free(For whom) const;

  std::array<std::deque<Id>, 2> waiting_;
  std::map<Id, Read> under_way_;
  Time rest_until_ = Time::min();
  Id last_ = 0;
};

}  // namespace kitsune2::gossip
