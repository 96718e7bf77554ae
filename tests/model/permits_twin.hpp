// The naive twin of PermitBank: plain lists, and sums that are recomputed each time. It follows the rules P1 to P6.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "kitsune2/error.hpp"
#include "transport/tx5/permits.hpp"

namespace kitsune2::model {

class PermitTwin {
 public:
  using Holder = tx5::PermitBank::Holder;
  using Progress = tx5::PermitBank::Progress;

  explicit PermitTwin(const tx5::PermitLimits& limits) : limits_(limits) {}

  void ask(Holder holder, std::uint32_t bytes, Time now) {
    const bool owes = owes_until_.contains(holder) && owes_until_[holder] > now;
    (owes ? owing_ : waiting_).push_back({holder, bytes, !users_.contains(holder), {}});
  }

  std::optional<Holder> next() const {
    for (const Part part : kParts) {
      if (const auto holder = next(part)) return holder;
    }
    return std::nullopt;
  }

  std::optional<Holder> next_grant(Time now) {
    const auto holder = next();
    if (!holder) return std::nullopt;
    const auto it = find(waiting_, *holder);
    others_turn_[part_of(it->bytes)] = it->is_newcomer;
    granted_.push_back({it->holder, it->bytes, it->is_newcomer, now});
    waiting_.erase(it);
    return holder;
  }

  void on_used(Holder holder) {
    release(holder);
    users_.insert(holder);
  }

  void release(Holder holder) {
    for (auto* list : {&waiting_, &granted_, &owing_}) {
      std::erase_if(*list, [&](const Request& request) { return request.holder == holder; });
    }
  }

  void forget(Holder holder) {
    release(holder);
    users_.erase(holder);
    owes_until_.erase(holder);
  }

  void wasted(Holder holder, std::uint64_t bytes, Time now) {
    Time from = now;
    if (owes_until_.contains(holder)) from = std::max(from, owes_until_[holder]);
    std::uint64_t owe = 1;
    for (const auto& [other, until] : owes_until_) owe += other != holder && until > now ? 1 : 0;
    const std::uint64_t rate = std::min(limits_.waste_per_second, limits_.all_waste_per_second / owe);
    bytes = std::max(bytes, limits_.least_waste);
    // In two steps, because the product of large numbers would not fit.
    const std::uint64_t whole = bytes / rate, rest = bytes % rate;
    const Duration cost = std::chrono::seconds(std::min<std::uint64_t>(whole, 1'000'000)) +
                          std::chrono::microseconds(rest * 1'000'000 / rate);
    users_.erase(holder);
    owes_until_[holder] = std::min(from + cost, now + limits_.longest_waste_wait);
  }

  void on_time(Time now) {
    // In the order of the ends of their waits, then of their numbers.
    while (true) {
      auto first = owing_.end();
      for (auto it = owing_.begin(); it != owing_.end(); ++it) {
        if (owes_until_[it->holder] > now) continue;
        if (first == owing_.end() ||
            std::pair(owes_until_[it->holder], it->holder) < std::pair(owes_until_[first->holder], first->holder)) {
          first = it;
        }
      }
      if (first == owing_.end()) return;
      waiting_.push_back(*first);
      waiting_.back().is_newcomer = !users_.contains(first->holder);
      owing_.erase(first);
    }
  }

  Time owes_until(Holder holder) const { return owes_until_.contains(holder) ? owes_until_.at(holder) : Time::min(); }

  std::optional<Time> next_deadline() const {
    std::optional<Time> out;
    for (const Request& request : owing_) {
      const Time until = owes_until_.at(request.holder);
      if (!out || until < *out) out = until;
    }
    return out;
  }

  std::optional<Holder> stalled(Time now, const std::map<Holder, Progress>& progress) const {
    for (const Request& held : granted_) {
      const Part part = part_of(held.bytes);
      const bool any = std::ranges::any_of(waiting_, [&](const Request& r) { return part_of(r.bytes) == part; });
      if (!any || next(part)) continue;
      const Progress come = progress.at(held.holder);
      const Duration patience = held.is_newcomer ? limits_.first_stall : limits_.stall;
      if (now >= held.granted_at + patience && now >= come.last_sign + patience) return held.holder;
      if (now < held.granted_at + 3 * limits_.stall) continue;
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - held.granted_at).count();
      const auto longest = std::chrono::duration_cast<std::chrono::seconds>(limits_.longest).count();
      if (come.received < static_cast<std::uint64_t>(seconds) * limits_.min_rate) return held.holder;
      if (come.received < static_cast<std::uint64_t>(held.bytes * seconds / longest)) return held.holder;
    }
    return std::nullopt;
  }

  bool is_waited_for() const { return !waiting_.empty(); }
  bool is_idle(Holder holder) const {
    return std::ranges::all_of(std::vector{&waiting_, &granted_, &owing_}, [&](const auto* list) {
      return std::ranges::none_of(*list, [&](const Request& request) { return request.holder == holder; });
    });
  }
  bool holds(Holder holder) const {
    return std::ranges::any_of(granted_, [&](const Request& request) { return request.holder == holder; });
  }
  std::uint64_t granted_bytes() const {
    return sum([&](const Request& held) { return part_of(held.bytes) != Part::frame; });
  }

 private:
  struct Request {
    Holder holder;
    std::uint32_t bytes;
    bool is_newcomer;
    Time granted_at;
  };

  static std::vector<Request>::iterator find(std::vector<Request>& list, Holder holder) {
    return std::ranges::find_if(list, [&](const Request& request) { return request.holder == holder; });
  }
  enum class Part { frame, small, medium, large };
  static constexpr std::array kParts{Part::frame, Part::small, Part::medium, Part::large};
  Part part_of(std::uint64_t bytes) const {
    const std::uint64_t all = limits_.max_granted_bytes;
    if (bytes <= limits_.frame_bytes) return Part::frame;
    if (bytes <= all / 4096) return Part::small;
    return bytes <= all / 256 ? Part::medium : Part::large;
  }
  std::optional<Holder> next(Part part) const {
    const Request* newcomer = nullptr;
    const Request* other = nullptr;
    for (const Request& request : waiting_) {
      if (part_of(request.bytes) != part) continue;
      if (!request.is_newcomer && other == nullptr) other = &request;
      if (request.is_newcomer && (newcomer == nullptr || request.bytes < newcomer->bytes)) newcomer = &request;
    }
    if (newcomer != nullptr && !has_room(*newcomer, true)) newcomer = nullptr;
    const bool others_turn = others_turn_.contains(part) ? others_turn_.at(part) : true;
    const Request* best = newcomer == nullptr || (other != nullptr && others_turn) ? other : newcomer;
    if (best == nullptr || !has_room(*best, false)) return std::nullopt;
    return best->holder;
  }
  template <class Counts>
  std::uint64_t sum(Counts counts) const {
    std::uint64_t out = 0;
    for (const Request& held : granted_) out += counts(held) ? held.bytes : 0;
    return out;
  }
  /// In its part, or in the half of it that newcomers have.
  bool has_room(const Request& request, bool of_newcomers) const {
    const std::uint64_t sixteenth = limits_.max_granted_bytes / 16;
    const Part part = part_of(request.bytes);
    if (part == Part::frame) return true;
    const std::uint64_t room = part == Part::small ? sixteenth : sixteenth * (part == Part::medium ? 3 : 12);
    const std::uint64_t held =
        sum([&](const Request& other) { return part_of(other.bytes) == part && (other.is_newcomer || !of_newcomers); });
    return held == 0 || held + request.bytes <= (of_newcomers ? room / 2 : room);
  }

  const tx5::PermitLimits limits_;
  std::vector<Request> waiting_;  ///< in the order in which they asked, or had paid
  std::vector<Request> granted_;  ///< in the order in which they were granted
  std::vector<Request> owing_;
  std::set<Holder> users_;  ///< those that are no newcomers
  std::map<Part, bool> others_turn_;
  std::map<Holder, Time> owes_until_;
};

/// Gives the same commands to the bank and to its twin; their answers must be the same.
class PermitsUnderTest {
 public:
  using Holder = PermitTwin::Holder;
  static constexpr std::uint64_t kHolders = 16;

  explicit PermitsUnderTest(const tx5::PermitLimits& limits) : limits_(limits), bank_(limits_), twin_(limits_) {}

  /// Takes one step. Any three numbers make a valid one.
  void step(std::uint8_t command, std::uint8_t who, std::uint16_t amount) {
    const Holder holder = who % kHolders;
    switch (command % 8) {
      case 0:
      case 1: {
        if (!twin_.is_idle(holder)) break;
        const auto bytes = static_cast<std::uint32_t>(1 + (std::uint64_t{amount} << (who >> 4)) % (64U << 20));
        bank_.ask(holder, bytes, now_);
        twin_.ask(holder, bytes, now_);
        progress_[holder] = {now_, 0};
        break;
      }
      case 2:
        // Only a granted permit can be used.
        if (!twin_.holds(holder)) break;
        bank_.on_used(holder);
        twin_.on_used(holder);
        break;
      case 3:
        bank_.release(holder);
        twin_.release(holder);
        break;
      case 4:
        bank_.forget(holder);
        twin_.forget(holder);
        break;
      case 5: {
        const std::uint64_t bytes = std::uint64_t{amount} << (who >> 3);
        bank_.wasted(holder, bytes, now_);
        twin_.wasted(holder, bytes, now_);
        break;
      }
      case 6:
        progress_[holder].last_sign = now_;
        progress_[holder].received += amount;
        break;
      case 7:
        now_ += std::chrono::milliseconds(std::uint64_t{amount} >> (who >> 4));
        break;
    }
    settle();
  }

  bool is_waited_for() const { return bank_.is_waited_for(); }

 private:
  /// Does what a link does after every event: it tells the time, grants, and takes permits away.
  void settle() {
    K2_ASSERT(bank_.next_deadline() == twin_.next_deadline());
    bank_.on_time(now_);
    twin_.on_time(now_);
    compare();
    grant_all();
    const auto look = [this](Holder holder) { return progress_[holder]; };
    for (auto holder = bank_.stalled(now_, look);; holder = bank_.stalled(now_, look)) {
      for (Holder each = 0; each < kHolders; ++each) progress_.try_emplace(each);
      K2_ASSERT(holder == twin_.stalled(now_, progress_));
      if (!holder) break;
      bank_.forget(*holder);
      twin_.forget(*holder);
      compare();
    }
    grant_all();
  }
  void grant_all() {
    for (auto holder = bank_.next_grant(now_);; holder = bank_.next_grant(now_)) {
      K2_ASSERT(holder == twin_.next_grant(now_));
      compare();
      if (!holder) return;
    }
  }
  void compare() {
    bank_.check_invariants();
    K2_ASSERT(bank_.is_waited_for() == twin_.is_waited_for());
    K2_ASSERT(bank_.granted_bytes() == twin_.granted_bytes());
    K2_ASSERT(bank_.next_deadline() == twin_.next_deadline());
    K2_ASSERT(bank_.holders() <= kHolders);
    for (Holder holder = 0; holder < kHolders; ++holder) {
      K2_ASSERT(bank_.owes_until(holder) == twin_.owes_until(holder));
    }
  }

  const tx5::PermitLimits limits_;
  tx5::PermitBank bank_;
  PermitTwin twin_;
  std::map<Holder, PermitTwin::Progress> progress_;
  Time now_{std::chrono::seconds(1000)};
};

}  // namespace kitsune2::model
