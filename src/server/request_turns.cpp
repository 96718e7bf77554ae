// Shares of the loop's time for requests. The rules are in the header.
#include "server/request_turns.hpp"

#include <algorithm>
#include <utility>

#include "kitsune2/error.hpp"

namespace kitsune2::server {
namespace {

constexpr Duration kForgetEvery = std::chrono::seconds(5);

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

bool RequestTurns::take(Waiter waiter, const Address& address, Duration cost, bool is_first, Time now) {
  if (shares_.all_percent == 0) return true;
  prune(now);
  Account& account = addresses_[address];
  if (standing_ == 0 && !account.waits() && all_free_at() <= now && free_at(account) <= now) {
    pay(account, cost, now);
    return true;
  }
  const bool is_new = waiters_.emplace(waiter, address).second;
  K2_ASSERT(is_new);
  (is_first ? account.first : account.further).emplace_back(waiter, cost);
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

/// Puts an address with waiters into one of the rings, or lets it rest.
void RequestTurns::stand(const Address& address, Account& account, Time now) {
  if (account.stands || account.rests_until || !account.waits()) return;
  const Time free = free_at(account);
  if (free <= now) {
    account.stands = true;
    ++standing_;
    const bool is_blamed = account.blamed_until > now;
    (is_blamed ? blamed_ring_ : account.before_others > 0 ? first_ring_ : ring_).push_back({address, false, is_blamed});
  } else {
    account.rests_until = free;
    resting_.emplace(free, address);
  }
}

/// Takes the place whose turn it is out of its ring.
std::optional<RequestTurns::Place> RequestTurns::next_place() {
  while (standing_ > 0) {
    const bool no_others = standing_ == blamed_ring_.size();
    const bool from_blamed = !blamed_ring_.empty() && (no_others || !blamed_had_turn_);
    const bool from_first = !first_ring_.empty() && (!first_had_turn_ || ring_.empty());
    std::deque<Place>& ring = from_blamed ? blamed_ring_ : from_first ? first_ring_ : ring_;
    const Place place = ring.front();
    ring.pop_front();
    Account& account = addresses_.at(place.address);
    if (place.is_mark) {
      account.is_marked = false;
      settle(account);
      continue;
    }
    blamed_had_turn_ = from_blamed;
    if (!from_blamed) first_had_turn_ = from_first;
    account.stands = false;
    --standing_;
    return place;
  }
  return std::nullopt;
}

/// What an account is again when nothing of it waits, and, for `before_others`, when the others have had their turn.
void RequestTurns::settle(Account& account) {
  if (account.waits()) return;
  account.first_had_turn = false;
  if (!account.is_marked) account.before_others = kFirst;
}

/// Nobody stands, so everybody has had a turn.
void RequestTurns::drop_marks() {
  for (const Place& place : ring_) {
    Account& account = addresses_.at(place.address);
    account.is_marked = false;
    settle(account);
  }
  ring_.clear();
}

std::optional<RequestTurns::Waiter> RequestTurns::next(Time now) {
  if (now < next_turn_) return std::nullopt;
  while (!resting_.empty() && resting_.begin()->first <= now) {
    const Address address = resting_.begin()->second;
    resting_.erase(resting_.begin());
    Account& account = addresses_.at(address);
    account.rests_until.reset();
    stand(address, account, now);
  }
  while (shares_.all_percent == 0 || all_free_at() <= now) {
    const std::optional<Place> place = next_place();
    if (!place) break;
    Account& account = addresses_.at(place->address);
    if (!account.waits()) continue;
    if (shares_.all_percent > 0 && free_at(account) > now) {  // it was charged after it got into the ring
      stand(place->address, account, now);
      continue;
    }
    const bool is_first = !account.first.empty() && (!account.first_had_turn || account.further.empty());
    account.first_had_turn = is_first;
    Requests& requests = is_first ? account.first : account.further;
    const auto [waiter, cost] = requests.front();
    requests.pop_front();
    waiters_.erase(waiter);
    if (shares_.all_percent > 0) pay(account, cost, now);
    if (account.before_others > 0) --account.before_others;
    if (!place->is_blamed && !std::exchange(account.is_marked, true)) ring_.push_back({place->address, true});
    settle(account);
    stand(place->address, account, now);
    has_answered_ = true;
    return waiter;
  }
  if (standing_ == 0) drop_marks();
  end_turn(now);
  return std::nullopt;
}

void RequestTurns::end_turn(Time now) {
  if (std::exchange(has_answered_, false)) next_turn_ = now + shares_.together;
}

void RequestTurns::blame(const Address& address, Time now) {
  if (shares_.all_percent == 0) return;
  prune(now);
  addresses_[address].blamed_until = now + kBlamed;
}

void RequestTurns::forget(Waiter waiter) {
  const auto it = waiters_.find(waiter);
  if (it == waiters_.end()) return;
  Account& account = addresses_.at(it->second);
  for (Requests* requests : {&account.first, &account.further}) {
    std::erase_if(*requests, [&](const auto& entry) { return entry.first == waiter; });
  }
  settle(account);
  waiters_.erase(it);
}

std::optional<Time> RequestTurns::next_deadline() const {
  if (waiters_.empty()) return std::nullopt;
  const Time all = std::max(next_turn_, shares_.all_percent == 0 ? Time::min() : all_free_at());
  if (standing_ > 0) return all;
  return std::max(all, resting_.begin()->first);
}

void RequestTurns::prune(Time now) {
  if (now < prune_at_) return;
  prune_at_ = now + kForgetEvery;
  boost::unordered::erase_if(addresses_, [&](const auto& entry) {
    const Account& account = entry.second;
    return !account.waits() && !account.stands && !account.is_marked && !account.rests_until &&
           account.full_until <= now && account.blamed_until <= now;
  });
}

void RequestTurns::check_invariants() const {
  std::size_t waiting = 0, standing = 0, marked = 0, resting = 0;
  for (const auto& [address, account] : addresses_) {
    waiting += account.first.size() + account.further.size();
    standing += account.stands ? 1 : 0;
    marked += account.is_marked ? 1 : 0;
    resting += account.rests_until ? 1 : 0;
    K2_ASSERT(!(account.stands && account.rests_until));
    K2_ASSERT(!account.waits() || account.stands || account.rests_until);
    K2_ASSERT(account.waits() || account.is_marked || account.before_others == kFirst);
    K2_ASSERT(!account.rests_until || resting_.contains({*account.rests_until, address}));
    for (const Requests* requests : {&account.first, &account.further}) {
      for (const auto& [waiter, cost] : *requests) K2_ASSERT(waiters_.at(waiter) == address);
    }
  }
  K2_ASSERT(waiting == waiters_.size() && standing == standing_ && resting == resting_.size());
  K2_ASSERT(standing + marked == first_ring_.size() + ring_.size() + blamed_ring_.size());
}

}  // namespace kitsune2::server
