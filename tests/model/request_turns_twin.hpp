// The naive twin of RequestTurns: one list of requests and one of places, searched anew for each turn.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "kitsune2/error.hpp"
#include "server/request_turns.hpp"

namespace kitsune2::model {

class TurnsUnderTest {
 public:
  using Turns = server::RequestTurns;

  explicit TurnsUnderTest(const server::RequestShares& shares) : shares_(shares), turns_(shares) {}

  /// Takes one step. Any three numbers make a valid one.
  void step(std::uint8_t command, std::uint8_t who, std::uint8_t amount) {
    const Duration cost = std::chrono::milliseconds(1 + amount % 32);
    switch (command % 7) {
      case 0:
      case 1:
      case 2: {
        const Turns::Waiter waiter = next_waiter_++;
        const bool is_first = command % 14 < 7;
        const bool may = !has_place({}) && !waits(address(who)) && all_free() && free(address(who));
        const bool now = turns_.take(waiter, address(who), cost, is_first, now_);
        K2_ASSERT(now == may);
        if (now) {
          pay(address(who), cost);
        } else {
          waiting_.push_back({waiter, address(who), cost, is_first});
          enter(address(who));
        }
        break;
      }
      case 3:
        if (turns_.charge(address(who), cost, now_)) {
          K2_ASSERT(free(address(who)));
          until_[address(who)] = std::max(until_[address(who)], now_) + cost * 100 / shares_.address_percent;
          const Time full = now_ + shares_.all_burst * 100 / shares_.all_percent;
          const Time wanted = std::max(all_until_, now_) + cost * 100 / shares_.all_percent;
          if (all_until_ < full) all_until_ = std::min(wanted, full);
        } else {
          K2_ASSERT(!free(address(who)));
        }
        break;
      case 4:
        if (!waiting_.empty()) {
          const auto it = waiting_.begin() + amount % static_cast<std::ptrdiff_t>(waiting_.size());
          turns_.forget(it->waiter);
          const Turns::Address left = it->address;
          waiting_.erase(it);
          settle(left);
        }
        break;
      case 6:
        turns_.blame(address(who), now_);
        blamed_at_[address(who)] = now_;
        break;
      case 5:
        now_ += std::chrono::milliseconds(amount * (who % 4 + 1));
        break;
    }
    serve();
    turns_.check_invariants();
    K2_ASSERT(turns_.waiting() == waiting_.size());
  }
  /// Checks that every waiting request is answered in the end.
  void end() {
    for (int i = 0; !waiting_.empty(); ++i) {
      K2_ASSERT(i < 100'000 && turns_.next_deadline());
      now_ = std::max(now_, *turns_.next_deadline());
      serve();
    }
    K2_ASSERT(!turns_.next_deadline());
  }
  std::size_t answered_later() const { return later_; }

 private:
  struct Request {
    Turns::Waiter waiter;
    Turns::Address address;
    Duration cost;
    bool is_first;
  };
  struct Place {
    Turns::Address address;
    bool before_others;
    bool is_mark;
    bool is_blamed = false;
  };

  static Turns::Address address(std::uint8_t number) {
    Turns::Address out{};
    out[15] = static_cast<std::uint8_t>(1 + number % 4);
    return out;
  }
  bool waits(const Turns::Address& address) const {
    return std::ranges::any_of(waiting_, [&](const Request& r) { return r.address == address; });
  }
  /// Whether that address, or any one, has a place that is no mark.
  bool has_place(std::optional<Turns::Address> address) const {
    return std::ranges::any_of(places_,
                               [&](const Place& p) { return !p.is_mark && (!address || p.address == *address); });
  }
  std::vector<Place>::iterator first_of(bool before_others) {
    return std::ranges::find_if(places_,
                                [&](const Place& p) { return p.before_others == before_others && !p.is_blamed; });
  }
  /// T1: at its share, the work that is not paid yet never exceeds the burst.
  bool all_free() const { return all_until_ - now_ <= shares_.all_burst * 100 / shares_.all_percent; }
  bool free(const Turns::Address& address) const {
    const auto it = until_.find(address);
    return it == until_.end() || it->second - now_ <= shares_.address_burst * 100 / shares_.address_percent;
  }
  void pay(const Turns::Address& address, Duration cost) {
    until_[address] = std::max(until_[address], now_) + cost * 100 / shares_.address_percent;
    all_until_ = std::max(all_until_, now_) + cost * 100 / shares_.all_percent;
  }
  void enter(const Turns::Address& address) {
    if (!waits(address) || has_place(address) || rests_.contains(address)) return;
    if (free(address)) {
      places_.push_back({address, left(address) > 0 && !is_blamed(address), false, is_blamed(address)});
    } else {
      rests_[address] = until_[address] - shares_.address_burst * 100 / shares_.address_percent;
    }
  }
  std::uint32_t& left(const Turns::Address& address) { return left_.try_emplace(address, Turns::kFirst).first->second; }
  /// T5
  bool is_blamed(const Turns::Address& address) const {
    const auto it = blamed_at_.find(address);
    return it != blamed_at_.end() && now_ - it->second < std::chrono::minutes(1);
  }
  bool is_marked(const Turns::Address& address) const {
    return std::ranges::any_of(places_, [&](const Place& p) { return p.is_mark && p.address == address; });
  }
  void settle(const Turns::Address& address) {
    if (waits(address)) return;
    last_was_first_[address] = false;
    if (!is_marked(address)) left(address) = Turns::kFirst;
  }
  /// T3: who is next, or nullopt.
  std::optional<Turns::Waiter> choose() {
    while (all_free() && has_place({})) {
      const auto blamed = std::ranges::find_if(places_, [](const Place& p) { return p.is_blamed; });
      const bool has_others = std::ranges::any_of(places_, [](const Place& p) { return !p.is_blamed && !p.is_mark; });
      const bool from_first = first_of(true) != places_.end() && (!first_had_turn_ || first_of(false) == places_.end());
      const bool from_blamed = blamed != places_.end() && (!has_others || !blamed_had_turn_);
      const auto it = from_blamed ? blamed : first_of(from_first);
      const Place place = *it;
      places_.erase(it);
      if (place.is_mark) {
        settle(place.address);
        continue;
      }
      blamed_had_turn_ = from_blamed;
      if (!from_blamed) first_had_turn_ = from_first;
      if (!waits(place.address)) continue;
      if (!free(place.address)) {
        enter(place.address);
        continue;
      }
      const auto of_kind = [&](bool kind) {
        return std::ranges::find_if(waiting_,
                                    [&](const Request& r) { return r.address == place.address && r.is_first == kind; });
      };
      const bool is_first =
          of_kind(true) != waiting_.end() && (!last_was_first_[place.address] || of_kind(false) == waiting_.end());
      last_was_first_[place.address] = is_first;
      const Request request = *of_kind(is_first);
      waiting_.erase(of_kind(is_first));
      pay(request.address, request.cost);
      left(request.address) -= left(request.address) > 0 ? 1U : 0U;
      if (!place.is_blamed && !is_marked(request.address)) places_.push_back({request.address, false, true});
      settle(request.address);
      enter(request.address);
      return request.waiter;
    }
    return std::nullopt;
  }
  void serve() {
    if (now_ < next_turn_) {  // T4
      K2_ASSERT(!turns_.next(now_));
      return;
    }
    while (true) {
      while (true) {
        auto next = rests_.end();
        for (auto it = rests_.begin(); it != rests_.end(); ++it) {
          if (it->second <= now_ && (next == rests_.end() || it->second < next->second)) next = it;
        }
        if (next == rests_.end()) break;
        const Turns::Address address = next->first;
        rests_.erase(next);
        enter(address);
      }
      const auto expected = choose();
      K2_ASSERT(turns_.next(now_) == expected);
      if (!expected) break;
      ++later_;
      next_turn_ = now_ + shares_.together;
    }
    if (!has_place({})) {
      places_.clear();
      for (const auto& [address, left] : left_) settle(address);
    }
    if (!all_free()) return;
    for (const Request& request : waiting_) K2_ASSERT(!free(request.address));
  }

  const server::RequestShares shares_;
  Turns turns_;
  std::vector<Request> waiting_;  ///< in the order of arrival
  std::map<Turns::Address, Time> until_;
  std::vector<Place> places_;
  std::map<Turns::Address, Time> rests_;
  std::map<Turns::Address, std::uint32_t> left_;
  std::map<Turns::Address, bool> last_was_first_;
  std::map<Turns::Address, Time> blamed_at_;
  bool first_had_turn_ = false, blamed_had_turn_ = true;
  Time all_until_{}, next_turn_{};
  Time now_{std::chrono::seconds(1000)};
  Turns::Waiter next_waiter_ = 1;
  std::size_t later_ = 0;
};

}  // namespace kitsune2::model
