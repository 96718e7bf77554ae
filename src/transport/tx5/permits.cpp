// Who may send a large message, and when. The rules are in the header.
#include "transport/tx5/permits.hpp"

#include <algorithm>
#include <limits>

#include "kitsune2/error.hpp"

namespace kitsune2::tx5 {
namespace {

/// P1: whatever its size, one permit alone may always be granted.
bool fits(std::uint64_t granted, std::uint64_t bytes, std::uint64_t limit) {
  return granted == 0 || granted + bytes <= limit;
}

}  // namespace

std::size_t PermitBank::part_of(std::uint32_t bytes) const {
  if (bytes <= limits_.frame_bytes) return 0;
  return bytes > limits_.max_granted_bytes / 256 ? 3 : bytes > limits_.max_granted_bytes / 4096 ? 2 : 1;
}

std::uint64_t PermitBank::room_of(std::size_t part) const {
  constexpr std::array<std::uint64_t, kParts> kSixteenths{0, 1, 3, 12};
  return part == 0 ? std::numeric_limits<std::uint64_t>::max() : limits_.max_granted_bytes / 16 * kSixteenths[part];
}

std::uint64_t PermitBank::granted_bytes() const {
  std::uint64_t out = 0;
  for (std::size_t i = 1; i < kParts; ++i) out += parts_[i].granted;
  return out;
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
  account.as_newcomer = account.is_newcomer;
  std::list<Holder>& queue = parts_[part_of(account.bytes)].queue_of(account);
  auto before = queue.end();
  if (account.as_newcomer) {
    before = std::find_if(queue.begin(), queue.end(),
                          [&](Holder other) { return accounts_.at(other).bytes > account.bytes; });
  }
  account.waits = queue.insert(before, holder);
}

/// P2 to P4.
std::optional<PermitBank::Holder> PermitBank::next(std::size_t part) const {
  const Part& p = parts_[part];
  const bool newcomer_fits =
      !p.newcomers.empty() && fits(p.newcomers_granted, accounts_.at(p.newcomers.front()).bytes, room_of(part) / 2);
  if (!newcomer_fits && p.others.empty()) return std::nullopt;
  const bool is_newcomers = newcomer_fits && (p.newcomers_turn || p.others.empty());
  const Holder holder = is_newcomers ? p.newcomers.front() : p.others.front();
  return fits(p.granted, accounts_.at(holder).bytes, room_of(part)) ? std::optional(holder) : std::nullopt;
}

std::optional<PermitBank::Holder> PermitBank::next_grant(Time now) {
  for (std::size_t i = 0; i < kParts; ++i) {
    const std::optional<Holder> holder = next(i);
    if (!holder) continue;
    Part& part = parts_[i];
    Account& account = accounts_.at(*holder);
    part.queue_of(account).erase(*account.waits);
    account.waits.reset();
    account.holds = granted_order_.insert(granted_order_.end(), *holder);
    account.granted_at = now;
    part.newcomers_turn = !account.as_newcomer;
    part.granted += account.bytes;
    if (account.as_newcomer) part.newcomers_granted += account.bytes;
    return holder;
  }
  return std::nullopt;
}

void PermitBank::give_back(Account& account) {
  granted_order_.erase(*account.holds);
  account.holds.reset();
  Part& part = parts_[part_of(account.bytes)];
  part.granted -= account.bytes;
  if (account.as_newcomer) part.newcomers_granted -= account.bytes;
}

void PermitBank::release(Holder holder) {
  const auto found = accounts_.find(holder);
  if (found == accounts_.end()) return;
  Account& account = found->second;
  if (account.waits) parts_[part_of(account.bytes)].queue_of(account).erase(*account.waits);
  account.waits.reset();
  if (account.owing) owing_.erase({account.owes_until, holder});
  account.owing = false;
  if (account.holds) give_back(account);
}

void PermitBank::on_used(Holder holder) {
  release(holder);
  accounts_[holder].is_newcomer = false;
}

void PermitBank::forget(Holder holder) {
  release(holder);
  debts_.erase({owes_until(holder), holder});
  accounts_.erase(holder);
}

void PermitBank::wasted(Holder holder, std::uint64_t bytes, Time now) {
  Account& account = accounts_[holder];
  account.is_newcomer = true;
  debts_.erase({account.owes_until, holder});
  while (!debts_.empty() && debts_.begin()->first <= now) debts_.erase(debts_.begin());
  const std::uint64_t part = limits_.all_waste_per_second / (debts_.size() + 1);
  const std::uint64_t rate = std::max<std::uint64_t>(std::min(limits_.waste_per_second, part), 1);
  const Time latest = now + limits_.longest_waste_wait;
  // In microseconds. More bytes than this owe for longer than the longest wait at any rate.
  const std::uint64_t counted = std::clamp(bytes, limits_.least_waste, std::uint64_t{1} << 42U);
  const Duration cost = std::chrono::microseconds(counted * 1'000'000 / rate);
  if (account.owing) owing_.erase({account.owes_until, holder});
  account.owes_until = std::min(std::max(account.owes_until, now) + std::min(cost, latest - now), latest);
  if (account.owing) owing_.emplace(account.owes_until, holder);
  debts_.emplace(account.owes_until, holder);
}

Time PermitBank::owes_until(Holder holder) const {
  const auto found = accounts_.find(holder);
  return found == accounts_.end() ? Time::min() : found->second.owes_until;
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
  std::array<bool, kParts> is_stuck{};
  for (std::size_t i = 0; i < kParts; ++i) is_stuck[i] = parts_[i].is_waited_for() && !next(i);
  const auto in_seconds = [](Duration d) {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(d).count());
  };
  for (const Holder holder : granted_order_) {
    const Account& account = accounts_.at(holder);
    if (!is_stuck[part_of(account.bytes)]) continue;
    const Progress come = progress(holder);
    const Duration held_for = now - account.granted_at;
    const Duration quiet_for = now - std::max(come.last_sign, account.granted_at);
    const bool stands_still = quiet_for >= (account.as_newcomer ? limits_.first_stall : limits_.stall);
    const std::uint64_t seconds = in_seconds(held_for);
    const std::uint64_t least =
        std::max(seconds * limits_.min_rate, account.bytes * seconds / in_seconds(limits_.longest));
    const bool crawls = held_for >= 3 * limits_.stall && come.received < least;
    if (stands_still || crawls) return holder;
  }
  return std::nullopt;
}

void PermitBank::check_invariants() const {
  std::array<std::uint64_t, kParts> granted{}, newcomers{};
  std::array<std::size_t, kParts> holders{};
  std::size_t waiting = 0, holding = 0, owing = 0;
  for (const auto& [holder, account] : accounts_) {
    K2_ASSERT((account.waits ? 1 : 0) + (account.holds ? 1 : 0) + (account.owing ? 1 : 0) <= 1);
    waiting += account.waits ? 1 : 0;
    owing += account.owing ? 1 : 0;
    K2_ASSERT(!account.owing || owing_.contains({account.owes_until, holder}));
    if (!account.holds) continue;
    holding += 1;
    const std::size_t part = part_of(account.bytes);
    holders[part] += 1;
    granted[part] += account.bytes;
    if (account.as_newcomer) newcomers[part] += account.bytes;
  }
  std::size_t queued = 0;
  for (std::size_t i = 0; i < kParts; ++i) {
    K2_ASSERT(granted[i] == parts_[i].granted && newcomers[i] == parts_[i].newcomers_granted);
    K2_ASSERT(granted[i] <= room_of(i) || holders[i] == 1);
    queued += parts_[i].newcomers.size() + parts_[i].others.size();
  }
  for (const auto& [until, holder] : debts_) K2_ASSERT(accounts_.at(holder).owes_until == until);
  K2_ASSERT(waiting == queued && holding == granted_order_.size() && owing == owing_.size());
}

}  // namespace kitsune2::tx5
