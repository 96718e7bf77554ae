// Direct paths: addresses, pings, and which one is used.
#include "transport/iroh/direct_paths.hpp"

#include <algorithm>

namespace kitsune2::iroh {
namespace {

constexpr std::uint16_t kLeastPort = 1024;
constexpr Duration kFirstWait = std::chrono::milliseconds(500);  ///< for an answer, doubling with each try
constexpr Duration kFirstRest = std::chrono::seconds(30);
constexpr Duration kMostRest = std::chrono::minutes(10);
constexpr Duration kSpentRest = std::chrono::seconds(5);
constexpr Duration kBusyPing = std::chrono::seconds(1);
constexpr Duration kIdlePing = std::chrono::seconds(5);
constexpr Duration kLeastWait = std::chrono::milliseconds(300);
constexpr unsigned kFullTries = 2;  ///< D4
constexpr unsigned kMissedToLeave = 2;
constexpr unsigned kMissedToGiveUp = 6;
constexpr unsigned kStrikes = 3;
constexpr Duration kStrikeTime = std::chrono::seconds(60);
constexpr Duration kRelayWait = std::chrono::seconds(5);    ///< for an answer
constexpr Duration kRelaySeldom = std::chrono::minutes(1);  ///< how often, where nothing is sent
constexpr Duration kRelayGain = std::chrono::milliseconds(20);
constexpr unsigned kRelayMissed = 2;
constexpr Duration kSteady = 2 * kMostRest;

Duration rest_after(unsigned rounds) {
  Duration out = kFirstRest;
  for (unsigned i = 1; i < rounds && out < kMostRest; ++i) out *= 2;
  return std::min(out, kMostRest);
}

}  // namespace

bool PacketBudget::has(Time now) {
  if (left_ >= most_) {
    since_ = now;
  } else if (now > since_) {
    const auto back = static_cast<std::uint64_t>((now - since_) / each_);
    left_ = static_cast<unsigned>(std::min<std::uint64_t>(most_, left_ + back));
    since_ += each_ * static_cast<Duration::rep>(back);
  }
  return left_ > 0;
}

bool PacketBudget::take(Time now) {
  if (!has(now)) return false;
  --left_;
  return true;
}

bool PacketBudget::take(Time now, std::size_t count) {
  const bool enough = has(now) && left_ >= count;
  left_ = enough ? left_ - static_cast<unsigned>(count) : 0;
  return enough || count == 0;
}

bool DirectPaths::makes_sense(const Peer& peer, const UdpAddress& address) const {
  if (address.port < kLeastPort) return false;
  const auto is_local = [](const UdpAddress& one) { return scope_of(one) == AddressScope::local; };
  switch (scope_of(address)) {
    case AddressScope::nonsense:
      return false;
    case AddressScope::loopback:
      return loopback_;
    case AddressScope::local:
      return !loopback_ && peer.ours && std::ranges::any_of(peer.ours->addresses, is_local);
    case AddressScope::global:
      return !loopback_;
  }
  return false;
}

DirectPaths::Candidate* DirectPaths::find(Peer& peer, const UdpAddress& address) const {
  const auto found = std::ranges::find(peer.candidates, address, &Candidate::address);
  return found == peer.candidates.end() ? nullptr : &*found;
}

DirectPaths::Candidate* DirectPaths::used(Peer& peer) {
  const auto found = std::ranges::find(peer.candidates, State::used, &Candidate::state);
  return found == peer.candidates.end() ? nullptr : &*found;
}

DirectPaths::Peer& DirectPaths::meet(Id id, const EndpointId& who, Time now) {
  forget_budgets(now);
  const auto [found, is_new] = peers_.try_emplace(id, full_bytes_);
  Peer& peer = found->second;
  if (!is_new) return peer;
  peer.who = who;
  peer.budget = &budgets_[who];
  if (peer.budget->connections++ == 0) remembered_.erase({peer.budget->until, who});
  return peer;
}

void DirectPaths::forget_budgets(Time now) {
  while (!remembered_.empty() && (remembered_.begin()->first <= now || remembered_.size() > kMaxRemembered)) {
    budgets_.erase(remembered_.begin()->second);
    remembered_.erase(remembered_.begin());
  }
}

DirectOffer DirectPaths::offer_to(Id id, const EndpointId& who, const std::vector<UdpAddress>& own, Time now) {
  Peer& peer = meet(id, who, now);
  if (peer.ours) return *peer.ours;
  DirectOffer& offer = peer.ours.emplace();
  offer.name = make_name();
  random_(offer.key);
  for (const UdpAddress& address : own) {
    const AddressScope scope = scope_of(address);
    const bool tell =
        loopback_ ? scope == AddressScope::loopback : scope == AddressScope::local || scope == AddressScope::global;
    if (tell && address.port >= kLeastPort && offer.addresses.size() < DirectOffer::kMaxAddresses)
      offer.addresses.push_back(address);
  }
  names_.emplace(offer.name, id);
  ++names_version_;
  begin(peer, now);
  schedule(id, peer);
  return offer;
}

void DirectPaths::on_offer(Id id, const EndpointId& who, const DirectOffer& offer, Time now) {
  Peer& peer = meet(id, who, now);
  if (peer.theirs) return;
  peer.theirs = offer;
  begin(peer, now);
  for (const auto& [from, nonce] : std::exchange(peer.early, {})) answer(id, peer, from, nonce, now);
  schedule(id, peer);
}

void DirectPaths::begin(Peer& peer, Time now) {
  if (!peer.ours || !peer.theirs) return;
  const std::vector<UdpAddress>& told = peer.theirs->addresses;
  for (std::size_t i = 0; i < std::min(told.size(), DirectOffer::kMaxAddresses); ++i) {
    if (!makes_sense(peer, told[i]) || find(peer, told[i]) != nullptr) continue;
    Candidate made;
    made.address = told[i];
    made.due = now;
    peer.candidates.push_back(made);
  }
}

void DirectPaths::forget(Id id, Time now) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  Peer& peer = found->second;
  forget_nonce(peer.relay_nonce);
  stop_size(peer);
  for (Candidate& candidate : peer.candidates) {
    forget_nonce(candidate.nonce);
    if (candidate.state == State::used) std::erase_if(paths_, [id](const auto& path) { return path.second == id; });
  }
  if (peer.ours) names_.erase(peer.ours->name);
  deadlines_.erase({peer.deadline, id});
  if (--peer.budget->connections == 0) {
    peer.budget->until = now + kRemember;
    remembered_.emplace(peer.budget->until, peer.who);
  }
  peers_.erase(found);
  forget_budgets(now);
}

void DirectPaths::forget_nonce(std::optional<Nonce>& nonce) {
  if (nonce) nonces_.erase(*nonce);
  nonce.reset();
}

void DirectPaths::stop_size(Peer& peer) {
  forget_nonce(peer.size_nonce);
  peer.size.stop();
}

void DirectPaths::change_way(Id id, Peer& peer) {
  peer.by_path.clear();
  peer.by_relay.clear();
  forget_nonce(peer.relay_nonce);
  changed_.push_back(id);
}

void DirectPaths::schedule(Id id, Peer& peer) {
  Time at = peer.size.due();
  for (const Candidate& candidate : peer.candidates) at = std::min(at, candidate.due);
  if (at == peer.deadline) return;
  deadlines_.erase({peer.deadline, id});
  peer.deadline = at;
  if (at != Time::max()) deadlines_.emplace(at, id);
}

// ---------------------------------------------------------------- what comes

bool DirectPaths::on_probe(const UdpAddress& from, ByteView datagram, Time now) {
  const std::optional<DirectProbe> probe = decode_probe(datagram);
  if (!probe) return false;
  if (probe->kind == DirectProbe::Kind::ping) return on_ping(from, datagram, *probe, now);
  return probe->kind == DirectProbe::Kind::pong && on_pong(from, datagram, *probe, now);
}

std::optional<DirectPaths::Id> DirectPaths::told_to(ByteView datagram) const {
  const std::optional<DirectProbe> probe = decode_probe(datagram);
  if (!probe) return std::nullopt;
  const bool is_ping = probe->kind == DirectProbe::Kind::ping;
  const auto& names = is_ping ? names_ : nonces_;
  const auto found = names.find(is_ping ? probe->name : probe->nonce);
  return found == names.end() ? std::nullopt : std::optional(found->second);
}

/// D11.
void DirectPaths::on_relay_probe(const EndpointId& from, ByteView datagram, Time now) {
  const std::optional<DirectProbe> probe = decode_probe(datagram);
  if (!probe) return;
  if (probe->kind == DirectProbe::Kind::relay_ping) {
    const auto found = names_.find(probe->name);
    if (found == names_.end()) return;
    const Peer& peer = peers_.at(found->second);
    const ProbeEnds ends{.pinger = from, .pinged = own_};
    if (peer.who != from || !peer.theirs || !is_authentic(datagram, ends, peer.ours->key) ||
        !peer.budget->pongs.take(now))
      return;
    const DirectProbe pong{DirectProbe::Kind::relay_pong, probe->name, probe->nonce};
    packets_.push_back({{}, from, encode_probe(pong, ends, peer.ours->key, DirectProbe::kBytes)});
  } else if (probe->kind == DirectProbe::Kind::relay_pong) {
    const auto found = nonces_.find(probe->nonce);
    if (found == nonces_.end()) return;
    const Id id = found->second;
    Peer& peer = peers_.at(id);
    if (peer.who != from || peer.relay_nonce != probe->nonce || probe->name != peer.theirs->name ||
        !is_authentic(datagram, {.pinger = own_, .pinged = peer.who}, peer.theirs->key))
      return;
    forget_nonce(peer.relay_nonce);
    peer.relay_missed = 0;
    peer.by_relay.add(now - peer.relay_sent);
    compare(id, peer, now);
  }
}

void DirectPaths::on_relay_lost(Time now) {
  for (auto& [id, peer] : peers_) {
    peer.by_relay.clear();
    forget_nonce(peer.relay_nonce);
    if (peer.yielded) take_back(id, peer, now);
  }
}

/// D6.
bool DirectPaths::on_ping(const UdpAddress& from, ByteView datagram, const DirectProbe& probe, Time now) {
  const auto found = names_.find(probe.name);
  if (found == names_.end()) return false;
  const Id id = found->second;
  Peer& peer = peers_.at(id);
  if (!is_authentic(datagram, {.pinger = peer.who, .pinged = own_}, peer.ours->key)) return false;
  if (peer.theirs) {
    answer(id, peer, from, probe.nonce, now);
  } else if (peer.early.size() < DirectOffer::kMaxAddresses || peer.early.contains(from)) {
    peer.early[from] = probe.nonce;
  }
  return true;
}

void DirectPaths::answer(Id id, Peer& peer, const UdpAddress& from, const Nonce& nonce, Time now) {
  if (!makes_sense(peer, from)) return;
  if (peer.budget->pongs.take(now)) {
    const DirectProbe pong{DirectProbe::Kind::pong, peer.ours->name, nonce};
    packets_.push_back({from, peer.who,
                        encode_probe(pong, {.pinger = peer.who, .pinged = own_}, peer.ours->key, DirectProbe::kBytes)});
  }
  Candidate* candidate = find(peer, from);
  if (candidate == nullptr) {
    const auto is_observed = [](const Candidate& one) { return one.observed && one.state != State::used; };
    const auto count = static_cast<std::size_t>(std::ranges::count_if(peer.candidates, &Candidate::observed));
    if (count >= kMaxObserved) {
      const auto oldest = std::ranges::find_if(peer.candidates, is_observed);
      forget_nonce(oldest->nonce);
      peer.candidates.erase(oldest);
    }
    candidate = &peer.candidates.emplace_back();
    candidate->address = from;
    candidate->observed = true;
    candidate->due = Time::max();
  }
  if (candidate->state == State::resting && !peer.has_path) candidate->due = std::max(now, candidate->held);
  schedule(id, peer);
}

/// D5.
bool DirectPaths::on_pong(const UdpAddress& from, ByteView datagram, const DirectProbe& probe, Time now) {
  const auto found = nonces_.find(probe.nonce);
  if (found == nonces_.end()) return false;
  const Id id = found->second;
  Peer& peer = peers_.at(id);
  Candidate* candidate = find(peer, from);
  if (candidate == nullptr || probe.name != peer.theirs->name ||
      !is_authentic(datagram, {.pinger = own_, .pinged = peer.who}, peer.theirs->key))
    return false;
  if (candidate->state == State::used && peer.size_nonce == probe.nonce) {
    on_pong_of_size(id, peer, now);
    return true;
  }
  if (candidate->nonce != probe.nonce) return false;
  forget_nonce(candidate->nonce);
  const Duration round_trip = now - candidate->sent;
  switch (candidate->state) {
    case State::resting:
      break;
    case State::asking:  // D4
      candidate->state = State::measuring;
      candidate->bytes = full_bytes_;
      candidate->tries = 0;
      candidate->due = now;
      break;
    case State::measuring:
      candidate->round_trip = round_trip;
      use(id, peer, *candidate, now);
      break;
    case State::used:
      candidate->round_trip = (candidate->round_trip * 7 + round_trip) / 8;
      peer.by_path.add(round_trip);
      on_pong_of_path(id, peer, *candidate, now);
      compare(id, peer, now);
      break;
  }
  schedule(id, peer);
  return true;
}

void DirectPaths::on_pong_of_path(Id id, Peer& peer, Candidate& path, Time now) {
  peer.missed = 0;
  if (peer.suspended) {
    change_way(id, peer);
    peer.size.fall(now);
  }
  peer.suspended = false;
  if (now - peer.used_since > kStrikeTime) path.rounds = 0;
  path.due = now + (peer.busy ? kBusyPing : kIdlePing);
}

void DirectPaths::on_pong_of_size(Id id, Peer& peer, Time now) {
  forget_nonce(peer.size_nonce);
  peer.size.on_answer(now);
  change_way(id, peer);
  schedule(id, peer);
}

/// D7.
void DirectPaths::use(Id id, Peer& peer, Candidate& candidate, Time now) {
  candidate.tries = 0;
  if (Candidate* before = used(peer)) {
    if (!peer.suspended && candidate.round_trip * 4 >= before->round_trip * 3) {
      candidate.state = State::resting;
      candidate.due = Time::max();
      return;
    }
    forget_nonce(before->nonce);
    before->state = State::resting;
    before->due = Time::max();
    std::erase_if(paths_, [id](const auto& path) { return path.second == id; });
  }
  candidate.state = State::used;
  candidate.due = now + kBusyPing;
  paths_.emplace(candidate.address, id);
  stop_size(peer);
  peer.size.begin(candidate.bytes, now);
  peer.has_path = true;
  peer.suspended = false;
  peer.yielded = false;
  peer.yields = 0;
  peer.busy = false;
  peer.missed = 0;
  peer.used_since = now;
  peer.way_since = now;
  for (Candidate& other : peer.candidates) {
    if (other.state == State::resting) other.due = Time::max();
  }
  change_way(id, peer);
}

void DirectPaths::compare(Id id, Peer& peer, Time now) {
  if (!peer.has_path || peer.suspended || !peer.by_path.is_full() || !peer.by_relay.is_full()) return;
  if (peer.yields > 0 && now - peer.way_since < rest_after(peer.yields)) return;
  const Duration path = peer.by_path.least(), relay = peer.by_relay.least();
  if (!peer.yielded) {
    if (path > relay * 3 / 2 + kRelayGain) yield(id, peer, now);
  } else if (path <= relay) {
    take_back(id, peer, now);
  }
}

void DirectPaths::yield(Id id, Peer& peer, Time now) {
  if (now - peer.way_since >= kSteady) peer.yields = 0;
  ++peer.yields;
  peer.yielded = true;
  peer.relay_missed = 0;
  peer.way_since = now;
  change_way(id, peer);
}

void DirectPaths::take_back(Id id, Peer& peer, Time now) {
  peer.yielded = false;
  peer.way_since = now;
  change_way(id, peer);
}

/// D9.
void DirectPaths::on_unreachable(const UdpAddress& to, Time now) {
  for (auto [at, end] = paths_.equal_range(to); at != end; ++at) {
    Peer& peer = peers_.at(at->second);
    Candidate& path = *used(peer);
    // A ping that is under way shows as well whether it is true.
    if (path.nonce) continue;
    path.due = std::min(path.due, std::max(now, path.sent + kLeastWait));
    schedule(at->second, peer);
  }
}

void DirectPaths::on_sent(Id id, Time now) {
  const auto found = peers_.find(id);
  if (found == peers_.end() || found->second.busy || !found->second.has_path) return;
  Peer& peer = found->second;
  peer.busy = true;
  Candidate& path = *used(peer);
  if (!path.nonce) path.due = std::min(path.due, std::max(now, path.sent + kBusyPing));
  schedule(id, peer);
}

// ---------------------------------------------------------------- time

void DirectPaths::on_deadline(Time now) {
  std::vector<Id> due;
  for (const auto& [at, id] : deadlines_) {
    if (at > now) break;
    due.push_back(id);
  }
  for (const Id id : due) {
    Peer& peer = peers_.at(id);
    // Twice, because giving up a path makes others due.
    for (int i = 0; i < 2; ++i) {
      for (Candidate& candidate : peer.candidates) {
        if (candidate.due <= now) on_due(id, peer, candidate, now);
      }
    }
    ping_size(id, peer, now);
    schedule(id, peer);
  }
}

void DirectPaths::on_due(Id id, Peer& peer, Candidate& candidate, Time now) {
  if (candidate.nonce) {
    forget_nonce(candidate.nonce);
    if (!on_no_answer(id, peer, candidate, now)) return;
  }
  if (candidate.state == State::resting) {
    candidate.state = State::asking;
    candidate.tries = 0;
  }
  ping(id, peer, candidate, now);
}

bool DirectPaths::on_no_answer(Id id, Peer& peer, Candidate& candidate, Time now) {
  if (candidate.state != State::used) {
    ++candidate.tries;
    if (candidate.state == State::measuring && candidate.bytes > DatagramSize::kBase && candidate.tries >= kFullTries) {
      candidate.bytes = DatagramSize::kBase;
      candidate.tries = 0;
    }
    if (candidate.tries < kTries) return true;
    rest(candidate, now);
    if (peer.has_path) candidate.due = Time::max();
    return false;
  }
  ++peer.missed;
  if (peer.missed >= kMissedToGiveUp) {
    give_up(id, peer, candidate, now);
  } else if (peer.missed >= kMissedToLeave && !peer.suspended) {
    suspend(id, peer, candidate, now);
  }
  return candidate.state == State::used;
}

void DirectPaths::rest(Candidate& candidate, Time now) {
  candidate.state = State::resting;
  candidate.tries = 0;
  ++candidate.rounds;
  candidate.due = std::max(candidate.held, now + rest_after(candidate.rounds));
}

/// D8, D10.
void DirectPaths::suspend(Id id, Peer& peer, Candidate& path, Time now) {
  peer.suspended = true;
  stop_size(peer);
  change_way(id, peer);
  peer.strikes = peer.strikes > 0 && now - peer.strike <= kStrikeTime ? peer.strikes + 1 : 1;
  if (peer.strikes == 1) peer.strike = now;
  if (peer.strikes < kStrikes) return;
  peer.strikes = 0;
  path.rounds = std::max(path.rounds, 1U);
  path.held = now + kStrikeTime;
  give_up(id, peer, path, now);
}

void DirectPaths::give_up(Id id, Peer& peer, Candidate& path, Time now) {
  peer.has_path = false;
  peer.suspended = false;
  peer.yielded = false;
  peer.missed = 0;
  std::erase_if(paths_, [id](const auto& one) { return one.second == id; });
  change_way(id, peer);
  stop_size(peer);
  forget_nonce(path.nonce);
  for (Candidate& other : peer.candidates) {
    if (other.state == State::resting) other.due = std::max(now, other.held);
  }
  rest(path, now);
}

void DirectPaths::ping(Id id, Peer& peer, Candidate& candidate, Time now) {
  const bool is_unproven = candidate.state == State::asking;
  if (is_unproven && (!peer.budget->pings.has(now) || !total_.take(now))) {
    candidate.due = now + kSpentRest;
    return;
  }
  if (is_unproven) peer.budget->pings.take(now);
  const DirectProbe probe = make_ping(id, peer, DirectProbe::Kind::ping);
  candidate.nonce = probe.nonce;
  candidate.sent = now;
  Duration wait = kFirstWait * (1U << candidate.tries);
  std::size_t bytes = is_unproven ? DirectProbe::kBytes : candidate.bytes;
  if (candidate.state == State::used) {
    wait = std::min(wait_of(candidate) * (1U << std::min(peer.missed, kMissedToGiveUp)), DatagramSize::kMostWait);
    bytes = peer.suspended ? DatagramSize::kBase : peer.size.bytes();
  }
  candidate.due = now + wait;
  send_ping(peer, probe, candidate.address, bytes);
  if (candidate.state != State::used) return;
  ping_relay(id, peer, now);
  peer.busy = false;
}

std::array<std::uint8_t, DatagramFilter::kNameBytes> DirectPaths::make_name() const {
  std::array<std::uint8_t, DatagramFilter::kNameBytes> out{};
  random_(out);
  if (mark_) mark_(out);
  return out;
}

DirectProbe DirectPaths::make_ping(Id id, const Peer& peer, DirectProbe::Kind kind) {
  const DirectProbe out{kind, peer.theirs->name, make_name()};
  nonces_[out.nonce] = id;
  ++names_version_;
  return out;
}

void DirectPaths::send_ping(const Peer& peer, const DirectProbe& probe, const std::optional<UdpAddress>& to,
                            std::size_t bytes) {
  const ProbeEnds ends{.pinger = own_, .pinged = peer.who};
  packets_.push_back({to, peer.who, encode_probe(probe, ends, peer.theirs->key, bytes)});
}

Duration DirectPaths::wait_of(const Candidate& path) {
  return std::clamp<Duration>(path.round_trip * 4, kLeastWait, DatagramSize::kMostWait);
}

void DirectPaths::ping_size(Id id, Peer& peer, Time now) {
  if (peer.size.due() > now) return;
  forget_nonce(peer.size_nonce);
  const Candidate& path = *used(peer);
  const std::optional<std::size_t> bytes = peer.size.on_due(now, wait_of(path));
  if (!bytes) return;
  const DirectProbe probe = make_ping(id, peer, DirectProbe::Kind::ping);
  peer.size_nonce = probe.nonce;
  send_ping(peer, probe, path.address, *bytes);
}

void DirectPaths::ping_relay(Id id, Peer& peer, Time now) {
  if (peer.suspended) return;
  if (peer.relay_nonce) {
    if (now - peer.relay_sent < kRelayWait) return;
    forget_nonce(peer.relay_nonce);
    peer.by_relay.clear();
    if (++peer.relay_missed >= kRelayMissed && peer.yielded) take_back(id, peer, now);
  }
  const Duration each = !peer.by_relay.is_full() ? kBusyPing : peer.busy || peer.yielded ? kIdlePing : kRelaySeldom;
  if (peer.relay_sent != Time::min() && now - peer.relay_sent < each) return;
  const DirectProbe probe = make_ping(id, peer, DirectProbe::Kind::relay_ping);
  peer.relay_nonce = probe.nonce;
  peer.relay_sent = now;
  send_ping(peer, probe, std::nullopt, DirectProbe::kBytes);
}

// ---------------------------------------------------------------- what the owner asks

std::optional<UdpAddress> DirectPaths::route(Id id) const {
  const auto found = peers_.find(id);
  if (found == peers_.end() || !found->second.has_path || found->second.suspended || found->second.yielded)
    return std::nullopt;
  return std::ranges::find(found->second.candidates, State::used, &Candidate::state)->address;
}

std::size_t DirectPaths::datagram_bytes(Id id) const {
  const auto found = peers_.find(id);
  return found == peers_.end() || !found->second.has_path ? DatagramSize::kBase : found->second.size.bytes();
}

std::optional<DirectPaths::Packet> DirectPaths::next_packet() {
  if (packets_.empty()) return std::nullopt;
  Packet out = std::move(packets_.front());
  packets_.pop_front();
  return out;
}

std::optional<DirectPaths::Id> DirectPaths::next_changed() {
  if (changed_.empty()) return std::nullopt;
  const Id out = changed_.front();
  changed_.pop_front();
  return out;
}

}  // namespace kitsune2::iroh
