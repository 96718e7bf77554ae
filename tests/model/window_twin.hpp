// The window of a source, written naively: it keeps everything that ever happened, and computes each answer from all of
// it by the rules in src/core/fetch/window.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/fetch/window.hpp"

namespace kitsune2::model {

class WindowTwin {
 public:
  /// A request, by its index among all that were sent.
  using Mark = std::size_t;

  Mark on_sent(bool alone, std::uint64_t asked, std::uint64_t most, Time now) {
    const bool long_ago = requests_.empty() || now > requests_.back().sent_at + std::chrono::seconds(10);
    if (long_ago) beginnings_.push_back(rounds_.size()), cuts_.clear(), trains_before_ = arrivals_.size();
    Request request;
    request.sent_at = now;
    request.alone = alone;
    if (request.alone) marks_.push_back(now);
    request.delivered_at = marks_.back();
    request.delivered = delivered();
    request.full = 2 * asked + 1 >= bytes(most, false);
    requests_.push_back(request);
    return requests_.size() - 1;
  }

  void on_heard(Mark mark, Time now) {
    Request& request = requests_[mark];
    if (request.heard) return;
    request.heard = true;
    trips_.push_back({now, std::clamp(now - request.sent_at, Duration(0), Duration(2'000'000)), request.alone});
  }

  void on_delivered(Mark mark, std::uint64_t bytes, Time now) {
    on_heard(mark, now);
    const Request& request = requests_[mark];
    arrivals_.push_back({now, bytes, now - marks_.back() > round_trip().value() / 4});
    deliveries_.push_back({now, bytes});
    marks_.push_back(now);
    const Duration trip = round_trip().value();
    const Duration took = std::max({now - request.delivered_at, trip, Duration(1)});
    const std::uint64_t rate = (delivered() - request.delivered) * 1'000'000 / static_cast<std::uint64_t>(took.count());
    rates_.push_back({now, std::min(rate, std::uint64_t{1} << 38U), std::max(8 * trip, Duration(200'000))});
    if (request.delivered >= round_ends_) {
      round_ends_ = delivered();
      rounds_.push_back({this->rate(), request.full});
      for (Cut& cut : cuts_) cut.cap += cut.cap / 4;
      std::erase_if(cuts_, [](const Cut& cut) { return cut.cap >= std::uint64_t{1} << 38U; });
    }
  }

  void on_lost(std::uint64_t most, Time now) {
    if (cut_at_ && now < *cut_at_ + round_trip().value_or(Duration(0))) return;
    const std::uint64_t half = bytes(most) / 2;
    cuts_ = {{std::max<std::uint64_t>(1024, half)}};
    cut_at_ = now;
    beginnings_.clear();
  }

  std::uint64_t bytes(std::uint64_t most, bool only = true) const {
    const bool first = is_first();
    const auto trip = static_cast<std::uint64_t>(round_trip().value_or(Duration(0)).count());
    const std::uint64_t product = rate() * trip / 1'000'000;
    std::uint64_t out = std::max<std::uint64_t>(product * (first ? 4 : 2), (first ? 256 : 30) * 1024);
    const std::uint64_t queue = train_rate() * std::max<std::uint64_t>(100'000, 2 * trip) / 1'000'000;
    if (first && only) out = std::max(out, std::min(queue, 64 * product));
    for (const Cut& cut : cuts_) out = std::min(out, cut.cap);
    return std::min(out, most);
  }

  bool is_long() const { return round_trip() && *round_trip() >= std::chrono::milliseconds(3); }

  std::optional<Duration> round_trip() const {
    std::optional<Trip> out;
    for (const Trip& trip : trips_) {
      const bool is_old = out && trip.alone && trip.at > out->at + std::chrono::seconds(10);
      if (!out || trip.took < out->took || is_old) out = trip;
    }
    if (!out) return std::nullopt;
    return out->took;
  }

  std::uint64_t rate() const {
    std::uint64_t before = 0, here = 0;
    Time began{};
    for (const Rate& each : rates_) {
      if (each.at >= began + each.period) {
        before = each.at >= began + 2 * each.period ? 0 : here;
        here = 0;
        began = each.at;
      }
      here = std::max(here, each.rate);
    }
    return std::max(before, here);
  }

 private:
  struct Request {
    Time sent_at{}, delivered_at{};
    std::uint64_t delivered = 0;
    bool alone = false, full = false, heard = false;
  };
  struct Trip {
    Time at;
    Duration took;
    bool alone;
  };
  struct Delivery {
    Time at;
    std::uint64_t bytes;
  };
  struct Arrival {
    Time at;
    std::uint64_t bytes;
    bool begins_train;
  };
  struct Rate {
    Time at;
    std::uint64_t rate;
    Duration period;
  };
  struct Round {
    std::uint64_t rate;
    bool full;
  };
  struct Cut {
    std::uint64_t cap;
  };

  std::uint64_t delivered() const {
    std::uint64_t sum = 0;
    for (const Delivery& each : deliveries_) sum += each.bytes;
    return sum;
  }

  /// The rate of the latest train that counts: one that is faster than the train before, or that has brought enough.
  std::uint64_t train_rate() const {
    std::uint64_t out = 0;
    for (std::size_t i = trains_before_; i < arrivals_.size(); ++i) {
      std::size_t first = i;
      while (first > 0 && !arrivals_[first].begins_train) --first;
      if (first == i) continue;
      std::uint64_t bytes = 0;
      for (std::size_t k = first + 1; k <= i; ++k) bytes += arrivals_[k].bytes;
      const Duration took = std::max(arrivals_[i].at - arrivals_[first].at, Duration(1'000));
      const std::uint64_t rate =
          std::min(bytes * 1'000'000 / static_cast<std::uint64_t>(took.count()), std::uint64_t{1} << 38U);
      if (rate > out || bytes >= 65'536) out = rate;
    }
    return out;
  }

  /// Three rounds with a used window, and without a rate that is a quarter higher, end the beginning.
  bool is_first() const {
    if (beginnings_.empty()) return false;
    std::uint64_t best = 0;
    int stale = 0;
    for (std::size_t i = beginnings_.back(); i < rounds_.size(); ++i) {
      if (!rounds_[i].full) continue;
      if (rounds_[i].rate >= best + best / 4) {
        best = rounds_[i].rate;
        stale = 0;
      } else if (++stale == 3) {
        return false;
      }
    }
    return true;
  }

  std::vector<Request> requests_;
  std::vector<Trip> trips_;
  std::vector<Delivery> deliveries_;
  std::vector<Arrival> arrivals_;
  std::size_t trains_before_ = 0;  ///< arrivals before this beginning
  std::vector<Rate> rates_;
  std::vector<Round> rounds_;
  std::vector<std::size_t> beginnings_{0};  ///< rounds that were over by then
  std::vector<Cut> cuts_;                   ///< one at most
  std::optional<Time> cut_at_;
  std::vector<Time> marks_{Time{}};  ///< when rates are measured from: deliveries, and requests that were sent alone
  std::uint64_t round_ends_ = 0;
};

}  // namespace kitsune2::model
