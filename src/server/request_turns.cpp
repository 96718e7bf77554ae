// Shares of the loop's time for requests. The rules are in the header.
#include "server/request_turns.hpp"

#include <algorithm>

#include "kitsune2/error.hpp"

namespace kitsune2::server {
namespace {

constexpr Duration kPruneEvery = std::chrono::seconds(5);

}  // namespace

/// Work of `cost` with a share of `percent` fills the time for this long.
void RequestTurns::add(Time& full_until, Duration cost, std::uint32_t percent, Time now) {
  full_until = std::max(full_until, now) + cost * 100 / percent;
}

Time RequestTurns::free_at(Time full_until, std::uint32_t percent, Duration burst) const {
  return full_until - burst * 100 / percent;
}

Time RequestTurns::free_at(const Account& account) const {
  return free_at(account.full_until, shares_.address_percent, shares_.address_burst);
}

void RequestTurns::pay(Account& account, Duration cost, Time now) {
  add(account.full_until, cost, shares_.address_percent, now);
  add(all_full_until_, cost, shares_.all_percent, now);
}

bool RequestTurns::take(Waiter waiter, const Address& address, Duration cost, Time now) {
  if (shares_.all_percent == 0) return true;
  prune(now);
  Account& account = addresses_[address];
  if (ring_.empty() && account.waiting.empty() && all_free_at() <= now && free_at(account) <= now) {
    pay(account, cost, now);
    return true;
  }
  const bool is_new = waiters_.emplace(waiter, address).second;
  K2_ASSERT(is_new);
  account.waiting.emplace_back(waiter, cost);
  stand(address, account, now);
  return false;
}

bool RequestTurns::charge(const Address& address, Duration cost, Time now) {
  if (shares_.all_percent == 0) return true;
  prune(now);
  Account& account = addresses_[address];
  if (free_at(account) > now) return false;
  add(account.full_until, cost, shares_.address_percent, now);
  Time all = all_full_until_;
  add(all, cost, shares_.all_percent, now);
  const Time edge = now + shares_.all_burst * 100 / shares_.all_percent;
  all_full_until_ = std::max(all_full_until_, std::min(all, edge));
  return true;
}

/// Puts an address with waiters into the ring, or lets it rest.
void RequestTurns::stand(const Address& address, Account& account, Time now) {
  if (account.in_ring || account.rests_until || account.waiting.empty()) return;
  const Time free = free_at(account);
  if (free <= now) {
    account.in_ring = true;
    ring_.push_back(address);
  } else {
    account.rests_until = free;
    resting_.emplace(free, address);
  }
}

std::optional<RequestTurns::Waiter> RequestTurns::next(Time now) {
  while (!resting_.empty() && resting_.begin()->first <= now) {
    const Address address = resting_.begin()->second;
    resting_.erase(resting_.begin());
    Account& account = addresses_.at(address);
    account.rests_until.reset();
    stand(address, account, now);
  }
  while (!ring_.empty() && (shares_.all_percent == 0 || all_free_at() <= now)) {
    const Address address = ring_.front();
    ring_.pop_front();
    Account& account = addresses_.at(address);
    account.in_ring = false;
    if (account.waiting.empty()) continue;
    if (shares_.all_percent > 0 && free_at(account) > now) {  // it was charged after it got into the ring
      stand(address, account, now);
      continue;
    }
    const auto [waiter, cost] = account.waiting.front();
    account.waiting.pop_front();
    waiters_.erase(waiter);
    if (shares_.all_percent > 0) pay(account, cost, now);
    stand(address, account, now);
    return waiter;
  }
  return std::nullopt;
}

void RequestTurns::forget(Waiter waiter) {
  const auto it = waiters_.find(waiter);
  if (it == waiters_.end()) return;
  std::erase_if(addresses_.at(it->second).waiting, [&](const auto& entry) { return entry.first == waiter; });
  waiters_.erase(it);
}

std::optional<Time> RequestTurns::next_deadline() const {
  if (waiters_.empty()) return std::nullopt;
  const Time all = shares_.all_percent == 0 ? Time::min() : all_free_at();
  if (!ring_.empty()) return all;
  return std::max(all, resting_.begin()->first);
}

void RequestTurns::prune(Time now) {
  if (now < prune_at_) return;
  prune_at_ = now + kPruneEvery;
  boost::unordered::erase_if(addresses_, [&](const auto& entry) {
    const Account& account = entry.second;
    return account.waiting.empty() && !account.in_ring && !account.rests_until && account.full_until <= now;
  });
}

void RequestTurns::check_invariants() const {
  std::size_t waiting = 0, in_ring = 0, resting = 0;
  for (const auto& [address, account] : addresses_) {
    waiting += account.waiting.size();
    in_ring += account.in_ring ? 1 : 0;
    resting += account.rests_until ? 1 : 0;
    K2_ASSERT(!(account.in_ring && account.rests_until));
    K2_ASSERT(account.waiting.empty() || account.in_ring || account.rests_until);
    K2_ASSERT(!account.rests_until || resting_.contains({*account.rests_until, address}));
    for (const auto& [waiter, cost] : account.waiting) K2_ASSERT(waiters_.at(waiter) == address);
  }
  K2_ASSERT(waiting == waiters_.size() && in_ring == ring_.size() && resting == resting_.size());
}

}  // namespace kitsune2::server
