// The window of one source; the rules are in the header.
#include "core/fetch/window.hpp"

namespace kitsune2 {

FetchWindow::Mark FetchWindow::on_sent(bool alone, std::uint64_t asked, std::uint64_t most_bytes, Time now) {
  Mark mark;
  mark.alone = alone;
  if (last_sent_ == Time::min() || now - last_sent_ > kTripAge) {
    is_first_ = true;
    stale_rounds_ = 0;
    rate_to_beat_ = 0;
    train_rate_ = 0;
    cap_.reset();
  }
  // Time in which nothing was asked for is not part of a rate.
  if (mark.alone) delivered_at_ = now;
  last_sent_ = now;
  mark.sent_at = now;
  mark.delivered_at = delivered_at_;
  mark.delivered = delivered_;
  mark.full = asked >= bytes(most_bytes, false) / 2;
  return mark;
}

void FetchWindow::on_heard(Mark& mark, Time now) {
  if (mark.heard) return;
  mark.heard = true;
  const Duration trip = std::min(std::max(now - mark.sent_at, Duration(0)), kLongestTrip);
  if (trip_ && trip >= *trip_ && !(mark.alone && now - trip_at_ > kTripAge)) return;
  trip_ = trip;
  trip_at_ = now;
}

void FetchWindow::on_delivered(Mark& mark, std::uint64_t bytes, Time now) {
  on_heard(mark, now);
  note_train(bytes, now);
  delivered_ += bytes;
  delivered_at_ = now;
  const auto took = static_cast<std::uint64_t>(std::max({now - mark.delivered_at, *trip_, Duration(1)}).count());
  note_rate(std::min((delivered_ - mark.delivered) * 1'000'000 / took, kMostRate), now);
  if (mark.delivered < round_ends_) return;
  round_ends_ = delivered_;
  if (is_first_ && mark.full) {
    if (rate() >= rate_to_beat_ + rate_to_beat_ / 4) {
      rate_to_beat_ = rate();
      stale_rounds_ = 0;
    } else if (++stale_rounds_ == kStaleRounds) {
      is_first_ = false;
    }
  }
  if (!cap_) return;
  *cap_ += *cap_ / 4;
  if (*cap_ >= kMostRate) cap_.reset();
}

void FetchWindow::note_rate(std::uint64_t rate, Time now) {
  const Duration period = std::max(8 * trip_.value_or(Duration(0)), kLeastPeriod);
  if (const Duration age = now - period_began_; age >= period) {
    rate_before_ = age >= 2 * period ? 0 : rate_;
    rate_ = 0;
    period_began_ = now;
  }
  rate_ = std::max(rate_, rate);
}

/// W7. To be called before `delivered_at_` is set anew.
void FetchWindow::note_train(std::uint64_t bytes, Time now) {
  if (now - delivered_at_ > *trip_ / 4) {
    train_began_ = now;
    train_bytes_ = 0;
    return;
  }
  train_bytes_ += bytes;
  const auto took = static_cast<std::uint64_t>(std::max(now - train_began_, kLeastTrain).count());
  const std::uint64_t rate = std::min(train_bytes_ * 1'000'000 / took, kMostRate);
  if (train_bytes_ >= kTrainBytes || rate > train_rate_) train_rate_ = rate;
}

void FetchWindow::on_lost(std::uint64_t most_bytes, Time now) {
  if (cut_at_ != Time::min() && now - cut_at_ < trip_.value_or(Duration(0))) return;
  cap_ = std::max(kLeastCap, bytes(most_bytes) / 2);
  cut_at_ = now;
  is_first_ = false;
}

std::uint64_t FetchWindow::bytes(std::uint64_t most_bytes, bool is_only_source) const {
  const auto trip = static_cast<std::uint64_t>(trip_.value_or(Duration(0)).count());
  const std::uint64_t product = rate() * trip / 1'000'000;
  std::uint64_t window = std::max(kLeastBytes, 2 * product);
  if (is_first_) {
    const std::uint64_t time = std::max(2 * trip, static_cast<std::uint64_t>(kFirstQueue.count()));
    const std::uint64_t train_rate = is_only_source ? train_rate_ : 0;
    const std::uint64_t by_train = std::min(train_rate * time / 1'000'000, kTrainGrowth * product);
    window = std::max({kFirstBytes, 4 * product, by_train});
  }
  return std::min({window, cap_.value_or(window), most_bytes});
}

}  // namespace kitsune2
