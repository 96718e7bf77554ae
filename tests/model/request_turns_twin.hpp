// The naive twin of RequestTurns: it keeps every request that was ever answered, and says which may be answered next.
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
    switch (command % 6) {
      case 0:
      case 1:
      case 2: {
        const Turns::Waiter waiter = next_waiter_++;
        const bool may = waiting_.empty() && all_free() && free(address(who));
        const bool now = turns_.take(waiter, address(who), cost, now_);
        // A request may wait only because `next` was not called since its time came.
        K2_ASSERT(!now || (all_free() && free(address(who)) && of(address(who)).empty()));
        K2_ASSERT(now || !may);
        if (now) {
          pay(address(who), cost);
        } else {
          waiting_.push_back({waiter, address(who), cost, served_});
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
          waiting_.erase(it);
        }
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
    std::size_t since;  ///< how many had been answered when it arrived
  };

  static Turns::Address address(std::uint8_t number) {
    Turns::Address out{};
    out[15] = static_cast<std::uint8_t>(1 + number % 4);
    return out;
  }
  std::vector<const Request*> of(const Turns::Address& address) const {
    std::vector<const Request*> out;
    for (const Request& request : waiting_) {
      if (request.address == address) out.push_back(&request);
    }
    return out;
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
  void serve() {
    while (const auto waiter = turns_.next(now_)) {
      const auto it = std::ranges::find_if(waiting_, [&](const Request& r) { return r.waiter == *waiter; });
      K2_ASSERT(it != waiting_.end() && all_free() && free(it->address));
      K2_ASSERT(of(it->address).front()->waiter == *waiter);
      // T2: between two turns of one address, each other address gets a turn if it waits and may have one. One more may
      // become able to, later.
      ++served_;
      ++turns_of_[it->address];
      pay(it->address, it->cost);
      waiting_.erase(it);
      ++later_;
    }
    if (!all_free()) return;
    for (const Request& request : waiting_) K2_ASSERT(!free(request.address));
  }

  const server::RequestShares shares_;
  Turns turns_;
  std::vector<Request> waiting_;  ///< in the order of arrival
  std::map<Turns::Address, Time> until_;
  std::map<Turns::Address, std::size_t> turns_of_;
  Time all_until_{};
  Time now_{std::chrono::seconds(1000)};
  Turns::Waiter next_waiter_ = 1;
  std::size_t served_ = 0;
  std::size_t later_ = 0;
};

}  // namespace kitsune2::model
