// How large the datagrams on a direct path may be: what is tried, and what counts.
#pragma once

#include <cstddef>
#include <optional>

#include "kitsune2/time.hpp"

namespace kitsune2::iroh {

/// The size of the datagrams on one path in use, and the search for a larger one, in the way of RFC 8899. Sizes are of
/// what UDP carries.
///
///  S1  The size is one that the path has carried: that with which the path was found (`begin`), or a larger one that
///      was answered since. It counts at once.
///  S2  While it is not the full one, larger ones are tried: the full one first, then the middle of those between what
///      has passed and what has not. They lie kStep apart, counted from the full one down. *Rationale*: a line that was
///      gone for a while is back at its full size after one answer. The headers of IPv6 are 20 bytes longer than those
///      of IPv4, and common lines carry multiples of 20 (1,280, 1,400, 1,420, 1,440, 1,480), so both fit.
///  S3  A size gets three pings. Only if none of them is answered, it does not pass. The owner says how long it waits
///      for the first one, which doubles, up to kMostWait.
///  S4  When none is left to try, the search begins anew after 30 s, doubling to 10 min with each search in a row that
///      has found nothing. *Rationale*: a line may get larger, and pings are lost for other reasons.
///  S5  When the path was gone and has answered a ping of kBase (`fall`), the size is that, and the search begins anew.
///      *Rationale*: a line that gets smaller loses what is larger without a word. Messages of the network that say so
///      can be forged, and many are not sent.
/// Pure. Thread rule: confined to the owner's strand.
class DatagramSize {
 public:
  static constexpr std::size_t kBase = 1200;  ///< what a path must carry to be used for QUIC (RFC 9000, 14)
  static constexpr std::size_t kStep = 20;
  static constexpr unsigned kTries = 3;
  static constexpr Duration kMostWait = std::chrono::seconds(2);
  static constexpr Duration kFirstRest = std::chrono::seconds(30);
  static constexpr Duration kMostRest = std::chrono::minutes(10);

  /// `full`: the largest that is wanted.
  explicit DatagramSize(std::size_t full) : full_(full) {}

  /// A path is used that has carried `bytes`.
  void begin(std::size_t bytes, Time now);
  void fall(Time now) { begin(kBase, now); }
  /// No path is used, or it is not known whether it still carries anything: nothing is tried.
  void stop();

  /// Of the datagrams that may be sent.
  std::size_t bytes() const { return bytes_; }
  /// When to call `on_due`; Time::max(): never.
  Time due() const { return due_; }
  /// Of a ping to be sent now; the one before was not answered. `wait`: how long an answer may take. nullopt: none.
  std::optional<std::size_t> on_due(Time now, Duration wait);
  /// The last ping was answered.
  void on_answer(Time now);

 private:
  /// What is tried next; nullopt: nothing is left.
  std::optional<std::size_t> next() const;
  void rest(Time now);

  const std::size_t full_;
  std::size_t bytes_ = kBase;
  std::size_t failed_ = 0;  ///< the smallest size that has not passed in this search; 0: none
  std::size_t tried_ = 0;   ///< of the pings that are under way; 0: none is
  unsigned tries_ = 0;      ///< pings of that size
  bool found_ = false;      ///< in this search
  unsigned rounds_ = 0;     ///< searches that have found nothing, in a row
  Time due_ = Time::max();
};

}  // namespace kitsune2::iroh
