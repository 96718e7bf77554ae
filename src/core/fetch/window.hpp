// How much may be under way from one source: the window of the fetch module, which follows the bandwidth-delay product.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "kitsune2/time.hpp"

namespace kitsune2 {

/// Estimates what one source delivers and how long its answers take, and says how many bytes to have asked of it at
/// once. Bytes are those of the ops and kOpCost for each op, so that many small ones count as well.
///
/// *Rules*
///  W1  Round trip: from the sending of a request to the first sign of its answer. The smallest one counts; one that
///      was measured while nothing else was under way replaces one that is older than kTripAge. *Rationale*: an answer
///      that waits behind others says how long the queue is, not how far the peer is. A window that follows the queue
///      which it makes itself grows without end.
///  W2  Rate: what was delivered between the last delivery before a request was sent and an answer to it, over that
///      time, or over the round trip if that is longer. The highest of this period and the last one counts; a period is
///      eight round trips, kLeastPeriod at least. *Rationale*: as BBR. Answers come in bursts, and most samples see
///      only a part of one.
///  W3  The window is twice the product of both, at most `most_bytes`; at first four times, or more by W7. "At first"
///      ends when the rate has grown by less than a quarter in three rounds in which the window was at least half used,
///      and begins anew when nothing was sent for kTripAge. A round ends with the first answer to a request that was
///      sent after it began. *Rationale*: four times for as long as the line takes it means a few round trips until it
///      is full; later twice keeps it full while answers come in bursts, and lets the window double when the line gets
///      faster.
///  W4  The window is not below kLeastBytes, and at first not below kFirstBytes, but for W5. *Rationale*: two
///      answers of one frame keep a source going of which nothing is known.
///  W5  A request that stays without an answer halves the window, down to kLeastCap, once a round trip; each round
///      gives a quarter back. *Rationale*: a peer that drops requests, or a relay that drops frames, has more than it
///      can take.
///  W6  The round trip is *long* from kLongTrip on. Below that the window is not used. *Rationale*: over a loopback or
///      a good local network two large requests keep both sides busy, and fewer messages cost less.
///  W7  Answers that come one after the other, none of them more than a quarter of a round trip after the last, are a
///      *train*. Its rate is what came after its first answer over the time since, kLeastTrain at least; one that has
///      not brought kTrainBytes counts only if it is faster than the train before. At first the window is what comes at
///      that rate in two round trips, or in kFirstQueue if that is longer; but no more than kTrainGrowth times the
///      product of W3, and only if the source is the only one. *Rationale*: the answers to the first request say how
///      far the peer is, and how close together they come says how fast its line is, before a window has filled it. The
///      bound is for answers that something on the way has held and let go at once. Of several sources the first one
///      that answers is not to take all of the work.
///
/// Integers only: the same calls give the same window on every machine. Every call is O(1). The object has some 180 B.
class FetchWindow {
 public:
  static constexpr std::uint64_t kOpCost = 64;
  static constexpr std::uint64_t kFirstBytes = 256U << 10;
  static constexpr std::uint64_t kLeastBytes = 30U << 10;
  static constexpr std::uint64_t kLeastCap = 1U << 10;
  static constexpr std::uint64_t kMostRate = std::uint64_t{1} << 38;  ///< bytes a second; more is not believed
  static constexpr Duration kLongTrip = std::chrono::milliseconds(3);
  static constexpr Duration kLongestTrip = std::chrono::seconds(2);  ///< a longer one counts as this
  static constexpr Duration kTripAge = std::chrono::seconds(10);
  static constexpr Duration kLeastPeriod = std::chrono::milliseconds(200);
  static constexpr int kStaleRounds = 3;
  static constexpr Duration kLeastTrain = std::chrono::milliseconds(1);    ///< W7
  static constexpr std::uint64_t kTrainBytes = 64U << 10;                  ///< W7
  static constexpr Duration kFirstQueue = std::chrono::milliseconds(100);  ///< W7
  static constexpr std::uint64_t kTrainGrowth = 64;                        ///< W7

  /// What is noted of a request when it is sent.
  struct Mark {
    Time sent_at{};
    Time delivered_at{};          ///< of the last delivery before it
    std::uint64_t delivered = 0;  ///< until then
    bool alone = false;           ///< nothing else was under way
    bool full = false;            ///< at least half of the window was used
    bool heard = false;           ///< its round trip was measured
  };

  /// A request was sent. `alone`: no other one is under way; `asked`: bytes that are asked for now, by it and others.
  Mark on_sent(bool alone, std::uint64_t asked, std::uint64_t most_bytes, Time now);
  /// The first sign of an answer to it. No effect the second time. W1.
  void on_heard(Mark& mark, Time now);
  /// `bytes` came in answer to it (and to requests before it).
  void on_delivered(Mark& mark, std::uint64_t bytes, Time now);
  /// A request ended without any answer. W5.
  void on_lost(std::uint64_t most_bytes, Time now);

  /// W3 to W5; W7 if `is_only_source`.
  std::uint64_t bytes(std::uint64_t most_bytes, bool is_only_source = true) const;
  /// W6.
  bool is_long() const { return trip_ && *trip_ >= kLongTrip; }
  std::optional<Duration> round_trip() const { return trip_; }
  /// Bytes a second; 0: not known.
  std::uint64_t rate() const { return std::max(rate_, rate_before_); }

 private:
  void note_rate(std::uint64_t rate, Time now);
  void note_train(std::uint64_t bytes, Time now);

  std::optional<Duration> trip_;
  Time trip_at_{};
  std::uint64_t delivered_ = 0;
  Time delivered_at_{};
  Time last_sent_ = Time::min();

  std::uint64_t rate_ = 0, rate_before_ = 0;  ///< highest of this period, and of the last one
  Time period_began_{};

  bool is_first_ = true;  ///< W3
  int stale_rounds_ = 0;
  std::uint64_t rate_to_beat_ = 0;
  std::uint64_t round_ends_ = 0;  ///< with an answer to a request sent when so much was delivered

  Time train_began_{};
  std::uint64_t train_bytes_ = 0;  ///< after the first answer of it
  std::uint64_t train_rate_ = 0;   ///< W7; 0: not known

  std::optional<std::uint64_t> cap_;  ///< W5
  Time cut_at_ = Time::min();
};

}  // namespace kitsune2
