// The naive twin of HookTurns: one list of all questions, in which everything is counted anew.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "kitsune2/error.hpp"
#include "server/auth/hook_turns.hpp"

namespace kitsune2::model {

class HookTurnsUnderTest {
 public:
  using Turns = server::HookTurns;

  explicit HookTurnsUnderTest(const Turns::Limits& limits) : limits_(limits), turns_(limits) {}

  /// Takes one step. Any three numbers make a valid one.
  void step(std::uint8_t command, std::uint8_t who, std::uint8_t amount) {
    switch (command % 6) {
      case 0:
      case 1:
        ask(address(who));
        break;
      case 2: {
        const auto next = turns_.next();
        const auto expected = next_of_twin();
        K2_ASSERT(next == expected);
        break;
      }
      case 3:
        if (!under_way_.empty()) {
          const auto it = under_way_.begin() + amount % static_cast<std::ptrdiff_t>(under_way_.size());
          turns_.ended(*it);
          under_way_.erase(it);
        }
        break;
      case 4:
        now_ += std::chrono::milliseconds(100 * amount);
        break;
      case 5:
        give_up();
        break;
    }
    turns_.check_invariants();
    K2_ASSERT(turns_.waiting() == waiting_.size() && turns_.calls() == under_way_.size());
    std::optional<Time> deadline;
    for (const Waiting& one : waiting_) {
      if (!deadline || one.since + limits_.patience < *deadline) deadline = one.since + limits_.patience;
    }
    K2_ASSERT(turns_.next_deadline() == deadline);
  }

  void end() {
    now_ += limits_.patience;
    give_up();
    K2_ASSERT(turns_.waiting() == 0);
  }

 private:
  struct Waiting {
    Turns::Question question;
    Turns::Address address;
    Time since;
  };

  static Turns::Address address(std::uint8_t number) {
    Turns::Address out{};
    out[15] = number % 8;
    return out;
  }
  std::size_t waiting_of(const Turns::Address& a) const {
    return static_cast<std::size_t>(
        std::count_if(waiting_.begin(), waiting_.end(), [&](const Waiting& w) { return w.address == a; }));
  }
  std::size_t calls_of(const Turns::Address& a) const {
    return static_cast<std::size_t>(std::count(under_way_.begin(), under_way_.end(), a));
  }

  void ask(const Turns::Address& from) {
    const Turns::Question question = ++last_;
    turns_.ask(question, from, now_);
    if (waiting_of(from) >= limits_.address_waiting) return lost_.push_back(question);
    if (waiting_.size() >= limits_.waiting) {
      Turns::Address most = waiting_.front().address;
      for (const Waiting& one : waiting_) {
        const std::size_t n = waiting_of(one.address), best = waiting_of(most);
        if (n > best || (n == best && stamp_[one.address] > stamp_[most])) most = one.address;
      }
      if (waiting_of(most) < waiting_of(from) + 2) return lost_.push_back(question);
      auto newest = waiting_.end();
      for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
        if (it->address == most) newest = it;
      }
      lost_.push_back(newest->question);
      waiting_.erase(newest);
    }
    if (waiting_of(from) == 0) stamp_[from] = ++stamps_;
    waiting_.push_back({question, from, now_});
  }

  std::optional<Turns::Question> next_of_twin() {
    if (under_way_.size() >= limits_.calls) return std::nullopt;
    auto best = waiting_.end();
    for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
      if (calls_of(it->address) >= limits_.address_calls) continue;
      if (best == waiting_.end() || stamp_[it->address] < stamp_[best->address]) best = it;
    }
    if (best == waiting_.end()) return std::nullopt;
    const Waiting out = *best;
    waiting_.erase(best);
    under_way_.push_back(out.address);
    stamp_[out.address] = ++stamps_;
    return out.question;
  }

  void give_up() {
    std::vector<Turns::Question> expected = std::move(lost_);
    lost_.clear();
    std::erase_if(waiting_, [&](const Waiting& one) {
      if (now_ - one.since < limits_.patience) return false;
      expected.push_back(one.question);
      return true;
    });
    auto given_up = turns_.given_up(now_);
    std::sort(expected.begin(), expected.end());
    std::sort(given_up.begin(), given_up.end());
    K2_ASSERT(given_up == expected);
  }

  const Turns::Limits limits_;
  Turns turns_;
  Time now_{std::chrono::hours(1)};
  Turns::Question last_ = 0;
  std::uint64_t stamps_ = 0;
  std::map<Turns::Address, std::uint64_t> stamp_;
  std::vector<Waiting> waiting_;
  std::vector<Turns::Address> under_way_;
  std::vector<Turns::Question> lost_;
};

}  // namespace kitsune2::model
