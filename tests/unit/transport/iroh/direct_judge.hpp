// DirectPaths beside a judge that keeps a log of all that was ever sent and told, and counts in it by the rules.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "transport/iroh/direct_paths.hpp"

namespace kitsune2::tests {

/// The other sides are made here too: a peer has the number of its connection, and keys that follow from it.
class DirectJudge {
 public:
  using Id = iroh::DirectPaths::Id;
  static constexpr std::size_t kFull = 1452;

  explicit DirectJudge(bool loopback)
      : loopback_(loopback),
        paths_([this](std::span<std::uint8_t> out) { draw(out); }, endpoint_of(kOwn), loopback, kFull) {}

  static constexpr Id kOwn = 99;
  static iroh::EndpointId endpoint_of(Id id) {
    iroh::EndpointId out;
    out.fill(static_cast<std::uint8_t>(200 + id));
    return out;
  }
  /// Of a ping from us to the peer, and of one from it to us.
  static iroh::ProbeEnds to_peer(Id id) { return {.pinger = endpoint_of(kOwn), .pinged = endpoint_of(id)}; }
  static iroh::ProbeEnds to_us(Id id) { return {.pinger = endpoint_of(id), .pinged = endpoint_of(kOwn)}; }
  static iroh::DirectOffer offer_of(Id id, std::vector<UdpAddress> addresses) {
    iroh::DirectOffer out;
    out.name.fill(static_cast<std::uint8_t>(id));
    out.key.fill(static_cast<std::uint8_t>(100 + id));
    out.addresses = std::move(addresses);
    return out;
  }

  void tell_ours(Id id, const std::vector<UdpAddress>& own) {
    ours_[id] = paths_.offer_to(id, endpoint_of(id), own, now);
    look();
  }
  void hear_theirs(Id id, const std::vector<UdpAddress>& addresses) {
    // The first one counts.
    theirs_.try_emplace(id, offer_of(id, addresses));
    paths_.on_offer(id, endpoint_of(id), offer_of(id, addresses), now);
    look();
  }
  void forget(Id id) {
    paths_.forget(id, now);
    ours_.erase(id);
    theirs_.erase(id);
    std::erase_if(heard_from_, [id](const auto& one) { return one.first == id; });
    for (Ping& ping : pings) ping.forgotten = ping.forgotten || ping.peer == id;
    look();
  }
  /// The peer answers the ping, from `from`; or the owner of an offer that the peer has told as its own does, which
  /// takes the ping for one of another node than us, or knows itself as another node than the peer.
  void answer(std::size_t number, const UdpAddress& from) { answer(number, from, to_peer(pings.at(number).peer)); }
  void answer(std::size_t number, const UdpAddress& from, const iroh::ProbeEnds& ends) {
    Ping& ping = pings.at(number);
    const iroh::DirectOffer offer = offer_of(ping.peer, {});
    const bool is_between_us = ends.pinger == endpoint_of(kOwn) && ends.pinged == endpoint_of(ping.peer);
    // The last one to the address, and nobody answers twice.
    const bool counts = !ping.forgotten && from == ping.to && is_last(number) && !ping.answered && is_between_us;
    paths_.on_probe(
        from, iroh::encode_probe({iroh::DirectProbe::Kind::pong, offer.name, ping.nonce}, ends, offer.key, 0), now);
    ping.answered = ping.answered || counts;
    look();
  }
  /// The peer pings us.
  void ping_us(Id id, const UdpAddress& from, std::size_t size) {
    if (!ours_.contains(id)) return;
    iroh::DirectProbe probe{iroh::DirectProbe::Kind::ping, ours_[id].name, {}};
    draw(probe.nonce);
    asked_ = {id, from};
    heard_from_.emplace(id, from);
    paths_.on_probe(from, iroh::encode_probe(probe, to_us(id), ours_[id].key, size), now);
    look();
    asked_.reset();
  }
  /// Another node does, with the offer that we have told the peer.
  void ping_us_as(const iroh::EndpointId& other, Id id, const UdpAddress& from) {
    if (!ours_.contains(id)) return;
    const iroh::DirectProbe probe{iroh::DirectProbe::Kind::ping, ours_[id].name, {}};
    paths_.on_probe(from, iroh::encode_probe(probe, {.pinger = other, .pinged = endpoint_of(kOwn)}, ours_[id].key, 0),
                    now);
    look();
  }
  void raw(const UdpAddress& from, const Bytes& datagram) {
    paths_.on_probe(from, datagram, now);
    look();
  }
  void unreachable(const UdpAddress& to) {
    paths_.on_unreachable(to, now);
    look();
  }
  void sent(Id id) {
    paths_.on_sent(id, now);
    look();
  }
  /// Time passes, with all that is due.
  void pass(Duration time) {
    const Time until = now + time;
    while (paths_.next_deadline() <= until) {
      now = std::max(now, paths_.next_deadline());
      paths_.on_deadline(now);
      K2_ASSERT(paths_.next_deadline() > now);
      look();
    }
    now = until;
  }
  std::optional<UdpAddress> route(Id id) const { return paths_.route(id); }
  iroh::DirectPaths& paths() { return paths_; }

  struct Ping {
    Time at{};
    Id peer = 0;
    UdpAddress to;
    std::size_t size = 0;
    std::array<std::uint8_t, 8> nonce{};
    bool answered = false;
    bool forgotten = false;
  };
  std::vector<Ping> pings;  ///< all that were sent
  struct Pong {
    Time at{};
    Id peer = 0;
    UdpAddress to;
  };
  std::vector<Pong> pongs;
  Time now{std::chrono::seconds(100)};

 private:
  void draw(std::span<std::uint8_t> out) {
    for (std::uint8_t& byte : out) {
      state_ = state_ * 6364136223846793005U + 1442695040888963407U;
      byte = static_cast<std::uint8_t>(state_ >> 56U);
    }
  }
  bool is_last(std::size_t number) const {
    for (std::size_t i = number + 1; i < pings.size(); ++i) {
      if (pings[i].peer == pings[number].peer && pings[i].to == pings[number].to) return false;
    }
    return true;
  }
  /// D2, without what depends on what was told.
  bool may_be_sent_to(Id id, const UdpAddress& to) const {
    if (to.port < 1024) return false;
    const AddressScope scope = scope_of(to);
    if (loopback_) return scope == AddressScope::loopback;
    const auto& own = ours_.at(id).addresses;
    const bool has_local =
        std::any_of(own.begin(), own.end(), [](const auto& a) { return scope_of(a) == AddressScope::local; });
    return scope == AddressScope::global || (scope == AddressScope::local && has_local);
  }
  /// In every stretch of time that ends now: `most`, and one more for each `each`.
  template <class Log, class Which>
  void check_budget(const Log& log, unsigned most, Duration each, Which which) const {
    std::uint64_t count = 0;
    for (auto one = log.rbegin(); one != log.rend(); ++one) {
      if (!which(*one)) continue;
      ++count;
      K2_ASSERT(count <= most + static_cast<std::uint64_t>((now - one->at) / each) + 1);
    }
  }

  void look() {
    while (const auto packet = paths_.next_packet()) note(packet->to, packet->content);
    while (paths_.next_changed()) {
    }
    for (const auto& [id, offer] : theirs_) check_route(id);
  }

  void note(const UdpAddress& to, const Bytes& content) {
    const auto probe = iroh::decode_probe(content);
    K2_ASSERT(probe.has_value());
    if (probe->kind == iroh::DirectProbe::Kind::pong) {
      // D6.
      K2_ASSERT(asked_ && to == asked_->second && content.size() == iroh::DirectProbe::kBytes);
      const Id id = asked_->first;
      K2_ASSERT(iroh::is_authentic(content, to_us(id), ours_.at(id).key) && may_be_sent_to(id, to) &&
                theirs_.contains(id));
      pongs.push_back({now, id, to});
      check_budget(pongs, iroh::DirectPaths::kPongBudget, iroh::DirectPaths::kPongEach,
                   [id](const Pong& pong) { return pong.peer == id; });
      return;
    }
    const Id id = probe->name[0];
    // D1, D2.
    K2_ASSERT(theirs_.contains(id) && ours_.contains(id) && iroh::is_authentic(content, to_peer(id), theirs_[id].key));
    K2_ASSERT(may_be_sent_to(id, to));
    K2_ASSERT(std::ranges::count(theirs_[id].addresses, to) != 0 || heard_from_.contains({id, to}));
    pings.push_back({now, id, to, content.size(), probe->nonce});
    if (content.size() == kFull) {
      // D4.
      K2_ASSERT(std::ranges::any_of(pings, [&](const Ping& ping) {
        return ping.peer == id && ping.to == to && ping.answered && !ping.forgotten;
      }));
      // D9: a path in use is not pinged more often, whatever the network says.
      if (paths_.route(id) == to) {
        const auto before = std::find_if(pings.rbegin() + 1, pings.rend(), [&](const Ping& ping) {
          return ping.peer == id && ping.to == to && !ping.forgotten;
        });
        K2_ASSERT(before != pings.rend() && now - before->at >= std::chrono::milliseconds(300));
      }
      return;
    }
    // D3.
    K2_ASSERT(content.size() == iroh::DirectProbe::kBytes);
    const auto is_small = [](const Ping& ping) { return ping.size != kFull; };
    check_budget(pings, iroh::DirectPaths::kTotalBudget, iroh::DirectPaths::kTotalEach, is_small);
    check_budget(pings, iroh::DirectPaths::kPeerBudget, iroh::DirectPaths::kPeerEach,
                 [&](const Ping& ping) { return is_small(ping) && ping.peer == id; });
  }

  /// D4, D5, D8.
  void check_route(Id id) const {
    const auto route = paths_.route(id);
    if (!route) return;
    unsigned unanswered = 0;
    for (auto ping = pings.rbegin(); ping != pings.rend(); ++ping) {
      if (ping->peer != id || ping->to != *route || ping->forgotten) continue;
      if (ping->answered) {
        K2_ASSERT(ping->size == kFull && unanswered <= 2);
        return;
      }
      ++unanswered;
    }
    K2_ASSERT(false);
  }

  const bool loopback_;
  std::uint64_t state_ = 1;
  std::map<Id, iroh::DirectOffer> ours_, theirs_;
  std::optional<std::pair<Id, UdpAddress>> asked_;
  std::set<std::pair<Id, UdpAddress>> heard_from_;  ///< who has pinged us, and from where
  iroh::DirectPaths paths_;
};

}  // namespace kitsune2::tests
