// Which reads of the op store for rounds of gossip may begin, and when.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>

#include "kitsune2/time.hpp"

namespace kitsune2::gossip {

/// The slots for reads of what to name in a round, over all peers.
///
/// *Rules*. Q1: one read for rounds that others started is at the store, and one for rounds that we started. Q2: a read
/// holds its slot until the store has answered, whatever has become of its round; whoever asked for it can be gone, or
/// have ended the round, and the store is still busy with it. Q3: what has not begun goes with its round. Q4: after a
/// read for others the next one rests for as long as that took, at most `kLongestRest`. Q5: when `kMostWaiting` wait
/// for others, there is no room for another round. *Rationale*: a read may walk over all ops, on the thread that serves
/// fetch too; a round costs its starter one message, and urls cost nothing. Q4 leaves the store to others for half of
/// the time, however many ask. Those of our own rounds come as often as we begin rounds, and do not wait for others.
///
/// Told the time.
class ReadQueue {
 public:
  using Id = std::uint64_t;
  enum class For : std::uint8_t { ours, theirs };  ///< rounds that we started, that others started
  static constexpr Duration kLongestRest = std::chrono::seconds(1);
  static constexpr std::size_t kMostWaiting = 64;

  Id add(For whom);
  /// One that may begin, which holds its slot from now on; nullopt: none may.
  std::optional<Id> begin(Time now);
  /// The store has answered.
  void ended(Id id, Time now);
  /// Its round is over. True: it is at the store, and should be stopped there; `ended` follows all the same. False: it
  /// had not begun, and is forgotten.
  bool drop(Id id);
  /// When `begin` has something that it has not now; nullopt: only after `ended` or `add`.
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
