// When reads of the op store for rounds of gossip may begin, and which.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>

#include "kitsune2/time.hpp"

namespace kitsune2::gossip {

/// The slots for reads of what to announce in a round, over all peers.
///
/// *Rules*. Q1: one read for rounds that others started is at the store, and one for ours.
/// Q2: a read holds its slot until the store has answered, whatever became of its round: the peer may be gone or have
/// ended the round, but the store is still busy. Q3: a read that has not begun is dropped with its round. Q4: after a
/// read for others, the next one rests for as long as that took, at most `kLongestRest`. Q5: when `kMostWaiting` reads
/// wait for others, there is no room for another round. *Rationale*: a read may walk over all ops, on the thread that
/// also serves fetch; a round costs its starter one message, and urls cost nothing. Q4 leaves half of the store's time
/// to others, however many ask. Reads of our own rounds come only as often as we begin rounds, and do not wait for
/// others.
///
/// Told the time.
class ReadQueue {
 public:
  using Id = std::uint64_t;
  enum class For : std::uint8_t { ours, theirs };  ///< rounds that we started, that others started
  static constexpr Duration kLongestRest = std::chrono::seconds(1);
  static constexpr std::size_t kMostWaiting = 64;

  Id add(For whom);
  /// Returns the next read that may begin, which holds its slot from now on; nullopt: none may.
  std::optional<Id> begin(Time now);
  /// The store has answered.
  void on_ended(Id id, Time now);
  /// Its round is over. True: the read is at the store and should be stopped there; `ended` follows all the same.
  /// False: it had not begun, and is forgotten.
  bool drop(Id id);
  /// When `begin` may return something; nullopt: only after `ended` or `add`.
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
