// The accounts of the work that peers cause. The rules are in the header.
#include "core/budget/peer_budget_core.hpp"

#include <iterator>
#include <limits>
#include <tuple>

#include "kitsune2/error.hpp"

namespace kitsune2 {
namespace {

std::string key_of(const Url& peer) { return "u" + peer.to_string(); }
std::string key_of(const AgentId& agent) { return "a" + std::string(as_text(agent.view())); }
std::string key_of_group(const AddressGroup& group) { return "g" + group; }

/// The key under which a peer that is gone is remembered (B7).
std::string key_of_gone(const Url& peer, std::span<const AgentId> agents) {
  return agents.size() == 1 ? key_of(agents.front()) : key_of(peer);
}

}  // namespace

PeerBudgetCore::Limits PeerBudgetCore::limits_of(const PeerBudgetConfig& config) {
  const auto rate = [](std::uint32_t per_second_ms, std::uint32_t burst_ms) {
    return Rate{std::int64_t{1000} * per_second_ms, std::int64_t{1000} * burst_ms};
  };
  const auto shared = [](const Rate& one) {
    return Rate{one.micros_per_second, one.burst_micros,
                std::min(one.burst_micros, kCommonDebtSeconds * one.micros_per_second)};
  };
  Limits out;
  out.peer = rate(config.peer_ms_per_second, config.peer_burst_ms);
  out.group = rate(config.group_ms_per_second, config.group_burst_ms);
  out.newcomers = shared(rate(config.newcomers_ms_per_second, config.newcomers_burst_ms));
  // Twice what newcomers have, so that they are better off also where they are many.
  out.known = shared({2 * out.newcomers.micros_per_second, 2 * out.newcomers.burst_micros});
  out.first_aside = std::chrono::milliseconds(config.first_aside_ms);
  out.longest_aside = std::chrono::milliseconds(config.longest_aside_ms);
  return out;
}

// ---------------------------------------------------------------- accounts

std::int64_t PeerBudgetCore::level_at(const Account& account, const Rate& rate, Time now) {
  const std::int64_t most = rate.burst_micros * kUnit;
  if (account.at == Time::min() || now <= account.at) return account.level;
  const std::int64_t lacking = most - account.level;
  const std::int64_t passed = (now - account.at).count();
  if (rate.micros_per_second == 0) return account.level;
  return passed > lacking / rate.micros_per_second ? most : account.level + passed * rate.micros_per_second;
}

/// `micros`: what flows back or, if negative, what is charged.
void PeerBudgetCore::change(Account& account, const Rate& rate, std::int64_t micros, Time now) {
  const std::int64_t most = rate.burst_micros * kUnit;
  account.level = std::clamp(level_at(account, rate, now) + micros * kUnit, -rate.debt_micros * kUnit, most);
  account.at = now;
}

PeerStanding PeerBudgetCore::charge(Account& account, const Rate& rate, std::int64_t micros, Time now) {
  const bool was_good = level_at(account, rate, now) >= 0;
  change(account, rate, -micros, now);
  if (was_good) return PeerStanding::good;
  return account.level > -rate.debt_micros * kUnit ? PeerStanding::waits : PeerStanding::over;
}

std::optional<Time> PeerBudgetCore::good_at(const Account& account, const Rate& rate, Time now) {
  const std::int64_t level = level_at(account, rate, now);
  if (level >= 0) return std::nullopt;
  if (rate.micros_per_second == 0) return Time::max();
  return now + Duration((-level + rate.micros_per_second - 1) / rate.micros_per_second);
}

PeerBudgetCore::Peer& PeerBudgetCore::own(const Url& peer) {
  if (const auto it = peers_.find(peer); it != peers_.end()) return it->second;
  if (peers_.size() >= limits_.max_accounts) sweep();
  if (peers_.size() >= limits_.max_accounts) return others_;
  return peers_.emplace(peer, Peer{full(limits_.peer)}).first->second;
}

const PeerBudgetCore::Peer& PeerBudgetCore::own(const Url& peer) const {
  const auto it = peers_.find(peer);
  return it == peers_.end() ? others_ : it->second;
}

PeerBudgetCore::Account& PeerBudgetCore::common(const Group& group) {
  if (!group) return newcomers_;
  if (const auto it = groups_.find(*group); it != groups_.end()) return it->second;
  if (groups_.size() >= limits_.max_accounts) sweep();
  if (groups_.size() >= limits_.max_accounts) return other_groups_;
  return groups_.emplace(*group, full(limits_.group)).first->second;
}

const PeerBudgetCore::Account& PeerBudgetCore::common(const Group& group) const {
  if (!group) return newcomers_;
  const auto it = groups_.find(*group);
  return it == groups_.end() ? other_groups_ : it->second;
}

void PeerBudgetCore::sweep() {
  if (swept_at_ && now_ - *swept_at_ < kSweepEvery) return;
  swept_at_ = now_;
  const auto is_full = [this](const Account& account, const Rate& rate) {
    return level_at(account, rate, now_) == rate.burst_micros * kUnit;
  };
  std::erase_if(
      peers_, [&](const auto& entry) { return !entry.second.is_known && is_full(entry.second.account, limits_.peer); });
  std::erase_if(groups_, [&](const auto& entry) { return is_full(entry.second, limits_.group); });
}

PeerStanding PeerBudgetCore::charge(const Url& peer, const Group& group, Charge what, Time now) {
  advance(now);
  Peer& entry = own(peer);
  const std::int64_t with_penalty = what.work + what.penalty;
  const bool is_shared = &entry == &others_;
  auto out = charge(entry.account, limits_.peer, is_shared ? what.work : with_penalty, now_);
  if (is_shared) out = std::min(out, PeerStanding::waits);
  if (entry.is_known) {
    if (is_most_useful(peer, entry)) return out;
    return std::max(out, std::min(charge(known_peers_, limits_.known, what.work, now_), PeerStanding::waits));
  }
  Account& shared = common(group);
  const bool is_of_all = &shared == &newcomers_ || &shared == &other_groups_;
  auto of_all = charge(shared, common_rate(group), is_of_all ? what.work : with_penalty, now_);
  if (is_of_all) of_all = std::min(of_all, PeerStanding::waits);
  return std::max(out, of_all);
}

void PeerBudgetCore::useful(const Url& peer, const Group& group, std::int64_t micros, std::uint64_t value, Time now) {
  advance(now);
  Peer& entry = own(peer);
  const bool was_known = entry.is_known;
  change(entry.account, limits_.peer, micros, now_);
  if (was_known && !is_most_useful(peer, entry)) change(known_peers_, limits_.known, micros, now_);
  if (&entry != &others_) add_value(peer, entry, value);
  // Last, because it may sweep.
  if (!was_known) change(common(group), common_rate(group), micros, now_);
}

std::optional<Time> PeerBudgetCore::waits_until(const Url& peer, const Group& group, Time now) const {
  now = std::max(now, now_);
  // A peer without an account has a full one, if there is room.
  const bool has_own = peers_.contains(peer) || peers_.size() >= limits_.max_accounts;
  const Peer& entry = own(peer);
  auto out = has_own ? good_at(entry.account, limits_.peer, now) : std::nullopt;
  if (has_own && entry.is_known) {
    if (is_most_useful(peer, entry)) return out;
    const auto of_all = good_at(known_peers_, limits_.known, now);
    return out && of_all ? std::max(out, of_all) : (out ? out : of_all);
  }
  if (group && !groups_.contains(*group) && groups_.size() < limits_.max_accounts) return out;
  const auto shared = good_at(common(group), common_rate(group), now);
  return out && shared ? std::max(out, shared) : (out ? out : shared);
}

// ---------------------------------------------------------------- usefulness

bool PeerBudgetCore::is_most_useful(const Url& url, const Peer& peer) const {
  if (known_.size() <= limits_.most_useful) return true;
  if (limits_.most_useful == 0) return false;
  const auto last = std::prev(known_.end(), static_cast<std::ptrdiff_t>(limits_.most_useful));
  return std::tie(last->first, last->second) <= std::tie(peer.value, url);
}

void PeerBudgetCore::add_value(const Url& url, Peer& peer, std::uint64_t value) {
  const std::uint64_t before = peer.value;
  peer.value += std::min(value, std::numeric_limits<std::uint64_t>::max() - peer.value);
  if (peer.value == 0) return;
  if (peer.is_known) {
    known_.erase({before, url});
  } else if (known_.size() >= limits_.max_known) {
    if (known_.empty() || peer.value <= known_.begin()->first) return;
    peers_.at(known_.begin()->second).is_known = false;
    known_.erase(known_.begin());
  }
  peer.is_known = true;
  known_.emplace(peer.value, url);
}

void PeerBudgetCore::on_connect(const Url& peer, Agents agents) {
  for (const std::string& key : {key_of_gone(peer, agents), key_of(peer)}) {
    const auto gone = gone_.find(key);
    if (gone == gone_.end()) continue;
    Peer& entry = own(peer);
    if (&entry == &others_) return;
    const std::uint64_t value = gone->second.first;
    gone_order_.erase(gone->second.second);
    gone_.erase(gone);
    add_value(peer, entry, value);
  }
}

void PeerBudgetCore::on_disconnect(const Url& peer, Agents agents) {
  const auto it = peers_.find(peer);
  if (it == peers_.end() || !it->second.is_known) return;
  Peer& entry = it->second;
  known_.erase({entry.value, peer});
  entry.is_known = false;
  const auto [gone, is_new] = gone_.try_emplace(key_of_gone(peer, agents));
  if (!is_new) gone_order_.erase(gone->second.second);
  gone->second = {std::exchange(entry.value, 0), ++last_gone_};
  gone_order_.emplace(last_gone_, gone->first);
  if (gone_.size() <= limits_.max_known) return;
  gone_.erase(gone_order_.begin()->second);
  gone_order_.erase(gone_order_.begin());
}

bool PeerBudgetCore::is_known(const Url& peer) const {
  const auto it = peers_.find(peer);
  return it != peers_.end() && it->second.is_known;
}

std::uint64_t PeerBudgetCore::usefulness(const Url& peer) const {
  const auto it = peers_.find(peer);
  return it == peers_.end() ? 0 : it->second.value;
}

// ---------------------------------------------------------------- aside

void PeerBudgetCore::put_aside(const Url& peer, Agents agents, const Group& group, Time now) {
  advance(now);
  if (const auto it = peers_.find(peer); it != peers_.end()) {
    if (it->second.is_known) known_.erase({it->second.value, peer});
    peers_.erase(it);
  }
  add_aside(key_of(peer));
  for (const AgentId& agent : agents) add_aside(key_of(agent));
  if (!group) return;
  const auto it = groups_.find(*group);
  if (it == groups_.end() || level_at(it->second, limits_.group, now_) > -limits_.group.burst_micros * kUnit) return;
  groups_.erase(it);
  add_aside(key_of_group(*group));
}

void PeerBudgetCore::add_aside(const std::string& key) {
  Duration length = limits_.first_aside;
  if (const auto it = aside_.find(key); it != aside_.end()) {
    if (now_ < it->second.until) return;
    if (now_ - it->second.until < limits_.longest_aside)
      length = std::min(2 * it->second.length, limits_.longest_aside);
    drop_aside(it);
  } else {
    while (!aside_.empty() && aside_.size() >= limits_.max_aside) drop_aside(aside_.find(aside_order_.begin()->second));
  }
  aside_order_.emplace(now_ + length, key);
  aside_.emplace(key, Aside{now_ + length, length});
  last_aside_end_ = std::max(last_aside_end_, now_ + length);
}

void PeerBudgetCore::drop_aside(std::map<std::string, Aside>::iterator it) {
  aside_order_.erase({it->second.until, it->first});
  aside_.erase(it);
}

bool PeerBudgetCore::is_held_aside(const std::string& key, Time now) const {
  const auto it = aside_.find(key);
  return it != aside_.end() && now < it->second.until;
}

bool PeerBudgetCore::is_aside(const Url& peer, Agents agents, const Group& group, Time now) const {
  now = std::max(now, now_);
  if (!has_aside(now)) return false;
  if (is_held_aside(key_of(peer), now)) return true;
  const auto is_held = [&](const AgentId& agent) { return is_held_aside(key_of(agent), now); };
  if (!agents.empty() && std::all_of(agents.begin(), agents.end(), is_held)) return true;
  // A peer that was known and returns is not known again before it is connected (B7).
  return group && is_held_aside(key_of_group(*group), now) && !is_known(peer) &&
         !gone_.contains(key_of_gone(peer, agents)) && !gone_.contains(key_of(peer));
}

std::size_t PeerBudgetCore::aside(Time now) const {
  now = std::max(now, now_);
  return static_cast<std::size_t>(
      std::count_if(aside_.begin(), aside_.end(), [&](const auto& entry) { return now < entry.second.until; }));
}

void PeerBudgetCore::check_invariants() const {
  K2_ASSERT(peers_.size() <= limits_.max_accounts && groups_.size() <= limits_.max_accounts);
  K2_ASSERT(known_.size() <= limits_.max_known && gone_.size() <= limits_.max_known);
  K2_ASSERT(aside_.size() == aside_order_.size());
  K2_ASSERT(gone_.size() == gone_order_.size() && aside_.size() <= std::max<std::size_t>(limits_.max_aside, 1));
  std::size_t known = 0;
  for (const auto& [url, peer] : peers_) {
    if (!peer.is_known) continue;
    ++known;
    K2_ASSERT(known_.contains({peer.value, url}));
  }
  K2_ASSERT(known == known_.size() && !others_.is_known);
  for (const auto& [number, key] : gone_order_) K2_ASSERT(gone_.at(key).second == number);
}

}  // namespace kitsune2
