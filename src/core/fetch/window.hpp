// How much may be under way from one source: the window of the fetch module, which follows the bandwidth-delay product.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "kitsune2/time.hpp"

namespace kitsune2 {

/// Estimates how fast one source delivers and how long its answers take, and says how many bytes to request from it at
/// a time. Each op counts with its bytes and kOpCost, so that many small ones count as well.
///
/// *Rules*
///  W1  The round trip is the time from sending a request to the first sign of its answer. The smallest value counts.
///      One that was measured while nothing else was under way replaces a value older than kTripAge. Rationale: an
///      answer that waits behind others says how long the queue is, not how far the peer is. A window that follows the
///      queue which it causes itself grows without end.
///  W2  The rate is measured with each answer: what was delivered since the last delivery before its request was sent,
///      divided by the time since then, or by the round trip if that is longer. The highest value of this period and of
///      the last one counts. A period is eight round trips, but at least kLeastPeriod. Rationale: as in BBR. Answers
///      come in bursts, and most samples see only a part of a burst.
///  W3  The window is twice the product of rate and round trip, and at most `most_bytes`. During the *beginning* it is
///      four times the product, or more by W7. The beginning ends when in three rounds the window was at least half
///      used and the rate grew by less than a quarter. A new one starts when nothing was sent for kTripAge. A round
///      ends with the first answer to a request that was sent after the round had begun. Rationale: with four times,
///      the window is full after a few round trips. Later, twice keeps the line full although answers come in bursts,
///      and lets the window double when the line gets faster.
///  W4  The window is at least kLeastBytes, and during the beginning at least kFirstBytes, unless W5 makes it smaller.
///      Rationale: two answers of one frame each keep a source busy of which nothing is known.
///  W5  A request without any answer halves the window, at most once in a round trip and down to kLeastCap. Each round
///      then gives a quarter back. Rationale: a peer that drops requests, or a relay that drops frames, gets more than
///      it can take.
///  W6  The round trip is *long* from kLongTrip on. Below that the window is not used. Rationale: over a loopback or a
///      good local network two large requests keep both sides busy, and fewer messages cost less.
///  W7  Answers that follow each other within a quarter of a round trip are a *train*. Its rate is what came after its
///      first answer, divided by the time since, at least kLeastTrain. A train that has not brought kTrainBytes counts
///      only if it is faster than the one before. During the beginning the window is what comes at that rate in two
///      round trips, or in kFirstQueue if that is longer; but at most kTrainGrowth times the product of W3, and only if
///      the source is the only one. Rationale: the answers to the first request say how far the peer is, and how
///      closely they follow each other says how fast its line is, before a window has filled it. The bound is for
///      answers that were held somewhere on the way and released at once. And of several sources the first one that
///      answers must not take all of the work.
///
/// Integers only: the same calls give the same window on every machine. Every call is O(1). The object has about 180 B.
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

  /// A request was sent. `alone`: no other one is under way. `asked`: the bytes requested now, by this and other
  /// requests.
  Mark on_sent(bool alone, std::uint64_t asked, std::uint64_t most_bytes, Time now);
  /// The first sign of an answer to the request has arrived. No effect the second time. W1.
  void on_heard(Mark& mark, Time now);
  /// `bytes` have arrived in answer to the request, and to requests before it.
  void on_delivered(Mark& mark, std::uint64_t bytes, Time now);
  /// A request has ended without any answer. W5.
  void on_lost(std::uint64_t most_bytes, Time now);

  /// The window. W3 to W5; W7 counts if `is_only_source`.
  std::uint64_t bytes(std::uint64_t most_bytes, bool is_only_source = true) const;
  /// Whether the source is far away. W6.
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
