// Turns of the questions to the hook server. The rules are in the header.
#include "server/auth/hook_turns.hpp"

#include <algorithm>
#include <utility>

#include "kitsune2/error.hpp"

namespace kitsune2::server {

void HookTurns::ask(Question question, const Address& address, Time now) {
  if (const auto it = accounts_.find(address); it != accounts_.end()) {
    if (it->second.waiting.size() >= limits_.address_waiting) return lost_.push_back(question);
  }
  if (waiting_ >= limits_.waiting) {
    const auto own = accounts_.find(address);
    const std::size_t mine = own == accounts_.end() ? 0 : own->second.waiting.size();
    // Of those with the most, the one whose turn comes last.
    auto most = ring_.rbegin();
    for (auto it = ring_.rbegin(); it != ring_.rend(); ++it) {
      if (accounts_.at(*it).waiting.size() > accounts_.at(*most).waiting.size()) most = it;
    }
    Account& loser = accounts_.at(*most);
    if (loser.waiting.size() < mine + 2) return lost_.push_back(question);
    lost_.push_back(loser.waiting.back().question);
    loser.waiting.pop_back();
    --waiting_;
  }
  Account& account = accounts_[address];
  if (account.waiting.empty()) ring_.push_back(address);
  account.waiting.push_back({question, now});
  ++waiting_;
}

std::optional<HookTurns::Question> HookTurns::next() {
  if (calls_ >= limits_.calls) return std::nullopt;
  const auto turn = std::find_if(ring_.begin(), ring_.end(), [&](const Address& address) {
    return accounts_.at(address).calls < limits_.address_calls;
  });
  if (turn == ring_.end()) return std::nullopt;
  const Address address = *turn;
  ring_.erase(turn);
  Account& account = accounts_.at(address);
  const Question out = account.waiting.front().question;
  account.waiting.pop_front();
  ++account.calls;
  ++calls_;
  --waiting_;
  if (!account.waiting.empty()) ring_.push_back(address);
  return out;
}

std::vector<HookTurns::Question> HookTurns::given_up(Time now) {
  std::vector<Question> out = std::exchange(lost_, {});
  for (std::size_t i = 0; i < ring_.size();) {
    const Address address = ring_[i];
    Account& account = accounts_.at(address);
    while (!account.waiting.empty() && now - account.waiting.front().since >= limits_.patience) {
      out.push_back(account.waiting.front().question);
      account.waiting.pop_front();
      --waiting_;
    }
    if (!account.waiting.empty()) {
      ++i;
      continue;
    }
    ring_.erase(ring_.begin() + static_cast<std::ptrdiff_t>(i));
    drop_if_idle(address);
  }
  return out;
}

void HookTurns::ended(const Address& address) {
  Account& account = accounts_.at(address);
  K2_ASSERT(account.calls > 0 && calls_ > 0);
  --account.calls;
  --calls_;
  drop_if_idle(address);
}

void HookTurns::drop_if_idle(const Address& address) {
  const auto it = accounts_.find(address);
  if (it->second.calls == 0 && it->second.waiting.empty()) accounts_.erase(it);
}

std::optional<Time> HookTurns::next_deadline() const {
  std::optional<Time> out;
  for (const Address& address : ring_) {
    const Time at = accounts_.at(address).waiting.front().since + limits_.patience;
    out = out ? std::min(*out, at) : at;
  }
  return out;
}

void HookTurns::check_invariants() const {
  std::size_t calls = 0, waiting = 0, in_ring = 0;
  for (const auto& [address, account] : accounts_) {
    K2_ASSERT(account.calls > 0 || !account.waiting.empty());
    K2_ASSERT(account.calls <= limits_.address_calls && account.waiting.size() <= limits_.address_waiting);
    calls += account.calls;
    waiting += account.waiting.size();
    in_ring += account.waiting.empty() ? 0U : 1U;
    K2_ASSERT(std::count(ring_.begin(), ring_.end(), address) == (account.waiting.empty() ? 0 : 1));
  }
  K2_ASSERT(calls == calls_ && waiting == waiting_ && in_ring == ring_.size());
  K2_ASSERT(calls <= limits_.calls && waiting <= limits_.waiting);
}

}  // namespace kitsune2::server
