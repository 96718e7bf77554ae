// Who may send a large message, and when. The rules are in the header.
#include "transport/tx5/permits.hpp"

#include <algorithm>

#include "kitsune2/error.hpp"

namespace kitsune2::tx5 {
namespace {

/// P1: whatever its size, one alone may always be granted.
bool fits(std::uint64_t granted, std::uint64_t bytes, std::uint64_t limit) {
  return granted == 0 || granted + bytes <= limit;
}

}  // namespace

std::size_t PermitBank::first_sums(std::uint32_t bytes) const {
  return bytes > limits_.max_granted_bytes / 256 ? 3 : bytes > limits_.max_granted_bytes / 4096 ? 2 : 1;
}

void PermitBank::ask(Holder holder, std::uint32_t bytes, Time now) {
  Account& account = accounts_[holder];
  K2_ASSERT(bytes > 0 && !account.waits && !account.holds && !account.owing);
  account.bytes = bytes;
  if (account.owes_until > now) {
    account.owing = true;
    owing_.emplace(account.owes_until, holder);
    return;
  }
  stand_in_queue(holder, account);
}

void PermitBank::stand_in_queue(Holder holder, Account& account) {
  std::list<Holder>& queue = queue_of(account);
  auto before = queue.end();
  if (!account.is_user) {
    before = std::find_if(queue.begin(), queue.end(),
                          [&](Holder other) { return accounts_.at(other).bytes > account.bytes; });
  }
  account.waits = queue.insert(before, holder);
}

std::optional<PermitBank::Holder> PermitBank::next() const {
  if (!queue_.empty()) {
    const bool has_room = fits(granted_, accounts_.at(queue_.front()).bytes, limits_.max_granted_bytes);
    return has_room ? std::optional(queue_.front()) : std::nullopt;
  }
  if (first_queue_.empty()) return std::nullopt;
  const std::uint32_t bytes = accounts_.at(first_queue_.front()).bytes;
  // The rules for a large request also hold for all larger ones: if the smallest finds no room, none does.
  bool has_room = fits(granted_, bytes, limits_.max_granted_bytes);
  for (std::size_t i = 0; i < first_sums(bytes); ++i) {
    has_room = has_room && fits(first_granted_[i], bytes, limits_.max_granted_bytes / 8 * (4 - i));
  }
  return has_room ? std::optional(first_queue_.front()) : std::nullopt;
}

std::optional<PermitBank::Holder> PermitBank::next_grant(Time now) {
  const std::optional<Holder> holder = next();
  if (!holder) return std::nullopt;
  Account& account = accounts_.at(*holder);
  queue_of(account).erase(*account.waits);
  account.waits.reset();
  account.holds = granted_order_.insert(granted_order_.end(), *holder);
  account.granted_at = now;
  granted_ += account.bytes;
  if (!account.is_user) {
    for (std::size_t i = 0; i < first_sums(account.bytes); ++i) first_granted_[i] += account.bytes;
  }
  return holder;
}

void PermitBank::give_back(Account& account) {
  granted_order_.erase(*account.holds);
  account.holds.reset();
  granted_ -= account.bytes;
  if (account.is_user) return;
  for (std::size_t i = 0; i < first_sums(account.bytes); ++i) first_granted_[i] -= account.bytes;
}

void PermitBank::release(Holder holder) {
  const auto found = accounts_.find(holder);
  if (found == accounts_.end()) return;
  Account& account = found->second;
  if (account.waits) queue_of(account).erase(*account.waits);
  account.waits.reset();
  if (account.owing) owing_.erase({account.owes_until, holder});
  account.owing = false;
  if (account.holds) give_back(account);
}

void PermitBank::on_used(Holder holder) {
  release(holder);
  accounts_[holder].is_user = true;
}

void PermitBank::forget(Holder holder) {
  release(holder);
  accounts_.erase(holder);
}

void PermitBank::wasted(Holder holder, std::uint64_t bytes, Time now) {
  Account& account = accounts_[holder];
  const Time latest = now + limits_.longest_waste_wait;
  // In microseconds: a message of 2^29 bytes does not overflow.
  const Duration cost = std::chrono::microseconds(bytes * 1'000'000 / limits_.waste_per_second);
  if (account.owing) owing_.erase({account.owes_until, holder});
  account.owes_until = std::min(std::max(account.owes_until, now) + std::min(cost, latest - now), latest);
  if (account.owing) owing_.emplace(account.owes_until, holder);
}

void PermitBank::on_time(Time now) {
  while (!owing_.empty() && owing_.begin()->first <= now) {
    const Holder holder = owing_.begin()->second;
    owing_.erase(owing_.begin());
    Account& account = accounts_.at(holder);
    account.owing = false;
    stand_in_queue(holder, account);
  }
}

std::optional<Time> PermitBank::next_deadline() const {
  return owing_.empty() ? std::nullopt : std::optional(owing_.begin()->first);
}

std::optional<PermitBank::Holder> PermitBank::stalled(Time now, const std::function<Progress(Holder)>& progress) const {
  // The end of one permit may be all that the others wait for.
  if (!is_waited_for() || next()) return std::nullopt;
  for (const Holder holder : granted_order_) {
    const Account& account = accounts_.at(holder);
    const Progress come = progress(holder);
    const Duration held_for = now - account.granted_at;
    const auto seconds = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(held_for).count());
    const Duration quiet_for = now - std::max(come.last_sign, account.granted_at);
    const bool stands_still = quiet_for >= (account.is_user ? limits_.stall : limits_.first_stall);
    const bool crawls = held_for >= 3 * limits_.stall && come.received < seconds * limits_.min_rate;
    if (stands_still || crawls) return holder;
  }
  return std::nullopt;
}

void PermitBank::check_invariants() const {
  std::uint64_t granted = 0;
  std::array<std::uint64_t, 3> first{};
  std::size_t waiting = 0, holding = 0, owing = 0;
  for (const auto& [holder, account] : accounts_) {
    K2_ASSERT((account.waits ? 1 : 0) + (account.holds ? 1 : 0) + (account.owing ? 1 : 0) <= 1);
    waiting += account.waits ? 1 : 0;
    owing += account.owing ? 1 : 0;
    K2_ASSERT(!account.owing || owing_.contains({account.owes_until, holder}));
    if (!account.holds) continue;
    holding += 1;
    granted += account.bytes;
    if (account.is_user) continue;
    for (std::size_t i = 0; i < first_sums(account.bytes); ++i) first[i] += account.bytes;
  }
  K2_ASSERT(granted == granted_ && first == first_granted_);
  K2_ASSERT(waiting == queue_.size() + first_queue_.size());
  K2_ASSERT(holding == granted_order_.size() && owing == owing_.size());
  K2_ASSERT(granted_ <= limits_.max_granted_bytes || holding == 1);
}

}  // namespace kitsune2::tx5
