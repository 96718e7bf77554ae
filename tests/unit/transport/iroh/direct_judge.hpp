// DirectPaths beside a judge that keeps a log of all that was ever sent and told, and counts in it by the rules.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <type_traits>
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
    told_ = id;
    paths_.on_offer(id, endpoint_of(id), offer_of(id, addresses), now);
    look();
    told_.reset();
    std::erase_if(early_, [id](const auto& one) { return one.first == id; });
  }
  void forget(Id id) {
    paths_.forget(id, now);
    ours_.erase(id);
    theirs_.erase(id);
    ways_.erase(id);
    for (RelayPing& ping : relay_pings) ping.forgotten = ping.forgotten || ping.peer == id;
    std::erase_if(heard_from_, [id](const auto& one) { return one.first == id; });
    std::erase_if(early_, [id](const auto& one) { return one.first == id; });
    for (Ping& ping : pings) ping.forgotten = ping.forgotten || ping.peer == id;
    look();
  }
  /// The peer answers the ping, from `from`; or the owner of an offer that the peer has told as its own does, which
  /// takes the ping for one of another node than us, or knows itself as another node than the peer.
  void answer(std::size_t number, const UdpAddress& from) { answer(number, from, to_peer(pings.at(number).peer)); }
  void answer(std::size_t number, const UdpAddress& from, const iroh::ProbeEnds& ends) {
    Ping& ping = pings.at(number);
    if (const auto line = carries.find(ping.to); line != carries.end() && ping.size > line->second) return;
    const iroh::DirectOffer offer = offer_of(ping.peer, {});
    const bool is_between_us = ends.pinger == endpoint_of(kOwn) && ends.pinged == endpoint_of(ping.peer);
    // The last one to the address, and nobody answers twice.
    const bool counts = !ping.forgotten && from == ping.to && is_last(number) && !ping.answered && is_between_us;
    paths_.on_probe(
        from, iroh::encode_probe({iroh::DirectProbe::Kind::pong, offer.name, ping.nonce}, ends, offer.key, 0), now);
    if (counts) note_answer(ping);
    // D13. Nothing has happened to the way since it was sent, and nobody waits for less.
    if (counts && ping.of_size && ping.changes == ways_[ping.peer].changes &&
        now - ping.at < std::chrono::milliseconds(300))
      K2_ASSERT(paths_.datagram_bytes(ping.peer) == ping.size);
    look();
    answered_.reset();
  }
  /// The peer answers the ping through the relay; or `from` does, which the relay knows as another node.
  void answer_relay(std::size_t number) { answer_relay(number, endpoint_of(relay_pings.at(number).peer)); }
  void answer_relay(std::size_t number, const iroh::EndpointId& from) {
    RelayPing& ping = relay_pings.at(number);
    const iroh::DirectOffer offer = offer_of(ping.peer, {});
    const auto is_later = [&](const RelayPing& other) { return &other > &ping && other.peer == ping.peer; };
    const bool counts = !ping.forgotten && !ping.lost && from == endpoint_of(ping.peer) && !ping.answered &&
                        std::ranges::none_of(relay_pings, is_later) && ping.changes == ways_[ping.peer].changes;
    const Bytes pong =
        iroh::encode_probe({iroh::DirectProbe::Kind::relay_pong, offer.name, ping.nonce},
                           {.pinger = endpoint_of(kOwn), .pinged = endpoint_of(ping.peer)}, offer.key, 0);
    paths_.on_relay_probe(from, pong, now);
    if (counts) note_answer(ping);
    look();
    answered_.reset();
    // What counts on one way does not on the other one.
    paths_.on_probe(UdpAddress::v4(8, 0, 0, 1, 5000), pong, now);
    look();
  }
  /// The peer pings us through the relay; or `from` does with the offer that the peer was told.
  void ping_us_by_relay(Id id) { ping_us_by_relay(id, endpoint_of(id)); }
  void ping_us_by_relay(Id id, const iroh::EndpointId& from) {
    if (!ours_.contains(id)) return;
    iroh::DirectProbe probe{iroh::DirectProbe::Kind::relay_ping, ours_[id].name, {}};
    draw(probe.nonce);
    const Bytes ping = iroh::encode_probe(probe, {.pinger = from, .pinged = endpoint_of(kOwn)}, ours_[id].key, 0);
    if (from == endpoint_of(id)) asked_by_relay_ = id;
    paths_.on_relay_probe(from, ping, now);
    look();
    asked_by_relay_.reset();
    paths_.on_probe(UdpAddress::v4(8, 0, 0, 1, 5000), ping, now);
    look();
  }
  void lose_relay() {
    relay_lost_ = true;
    for (RelayPing& ping : relay_pings) ping.lost = true;
    paths_.on_relay_lost(now);
    look();
    relay_lost_ = false;
    // Those that do not answer now are used again when they do.
    for (auto& [id, way] : ways_) {
      if (std::exchange(way.yielded, std::nullopt)) way.since = now;
    }
  }
  /// The peer pings us.
  void ping_us(Id id, const UdpAddress& from, std::size_t size) {
    if (!ours_.contains(id)) return;
    iroh::DirectProbe probe{iroh::DirectProbe::Kind::ping, ours_[id].name, {}};
    draw(probe.nonce);
    asked_ = {id, from};
    heard_from_.emplace(id, from);
    const auto is_of_peer = [id](const auto& one) { return one.first == id; };
    if (!theirs_.contains(id) && std::ranges::count_if(early_, is_of_peer) < 8) early_.emplace(id, from);
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
  void raw_by_relay(const iroh::EndpointId& from, const Bytes& datagram) {
    paths_.on_relay_probe(from, datagram, now);
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
  std::size_t bytes(Id id) const { return paths_.datagram_bytes(id); }
  iroh::DirectPaths& paths() { return paths_; }

  struct Ping {
    Time at{};
    Id peer = 0;
    UdpAddress to;
    std::size_t size = 0;
    std::array<std::uint8_t, 8> nonce{};
    bool of_size = false;       ///< D13: looks for a larger size of the path in use
    std::uint64_t changes = 0;  ///< of the way, before it was sent
    bool answered = false;
    bool forgotten = false;
    Duration round_trip{};
    std::uint64_t answer = 0;  ///< its number among all answers
  };
  std::vector<Ping> pings;                    ///< all that were sent to an address
  std::map<UdpAddress, std::size_t> carries;  ///< what is larger does not arrive there; without one all does
  struct RelayPing {
    Time at{};
    Id peer = 0;
    std::array<std::uint8_t, 8> nonce{};
    std::uint64_t changes = 0;  ///< of the way, before it was sent
    bool answered = false;
    bool forgotten = false;
    bool lost = false;  ///< with the relay, or what it has measured
    Duration round_trip{};
    std::uint64_t answer = 0;
  };
  std::vector<RelayPing> relay_pings;  ///< all that were sent through the relay
  std::uint64_t yields = 0;            ///< how often the relay was chosen because it is faster
  std::uint64_t returns = 0;           ///< how often a path was because it is not slower
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
      if (pings[i].peer == pings[number].peer && pings[i].to == pings[number].to &&
          pings[i].of_size == pings[number].of_size)
        return false;
    }
    return true;
  }
  /// The size of the ping to the address that was answered last; 0: none was.
  std::size_t last_answered(Id id, const UdpAddress& to) const {
    const Ping* last = nullptr;
    for (const Ping& ping : pings) {
      if (ping.peer == id && ping.to == to && ping.answered && !ping.forgotten &&
          (last == nullptr || ping.answer > last->answer))
        last = &ping;
    }
    return last == nullptr ? 0 : last->size;
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

  /// Which way a peer is sent to, as far as it can be seen.
  struct Way {
    std::optional<UdpAddress> route;
    std::optional<UdpAddress> yielded;  ///< the path that was left because it was slower
    unsigned yields = 0;
    Time since{};               ///< of the last choice
    std::uint64_t answers = 0;  ///< before the way changed last
    std::uint64_t changes = 0;
  };
  template <class Any>
  void note_answer(Any& ping) {
    ping.answered = true;
    ping.round_trip = now - ping.at;
    ping.answer = ++answers_;
    if constexpr (std::is_same_v<Any, Ping>) {
      if (ping.of_size) return;
      answered_ = ping;
    }
    answer_of_ = ping.peer;
  }

  void look() {
    std::set<Id> changed;
    while (const auto id = paths_.next_changed()) changed.insert(*id);
    // Who has a ping made when the way changes does so afterwards.
    for (const Id id : changed) ++ways_[id].changes;
    while (const auto packet = paths_.next_packet()) {
      if (packet->to) {
        note(*packet->to, packet->content);
      } else {
        note_of_relay(packet->who, packet->content);
      }
    }
    for (const auto& [id, offer] : theirs_) {
      check_route(id);
      check_size(id);
      check_choice(id, changed.contains(id));
    }
    answer_of_.reset();
  }

  /// The least of the last four answers to pings of the path since the way changed; nullopt: there are not as many.
  std::optional<Duration> least_of_path(Id id, const UdpAddress& path) const {
    std::size_t count = 0;
    Duration least = Duration::max();
    std::vector<const Ping*> all;
    for (const Ping& ping : pings) {
      if (ping.peer == id && ping.to == path && ping.answer > ways_.at(id).answers && !ping.forgotten && !ping.of_size)
        all.push_back(&ping);
    }
    for (auto one = all.rbegin(); one != all.rend() && count < 4; ++one, ++count)
      least = std::min(least, (*one)->round_trip);
    return count < 4 ? std::nullopt : std::optional(least);
  }
  /// The same of the relay, where one without an answer makes all before it void.
  std::optional<Duration> least_of_relay(Id id) const {
    std::size_t count = 0;
    Duration least = Duration::max();
    bool is_newest = true;
    for (auto ping = relay_pings.rbegin(); ping != relay_pings.rend() && count < 4; ++ping) {
      if (ping->peer != id || ping->forgotten) continue;
      const bool waits = std::exchange(is_newest, false) && !ping->answered && !ping->lost;
      if (waits) continue;
      if (!ping->answered || ping->lost || ping->answer <= ways_.at(id).answers) break;
      least = std::min(least, ping->round_trip);
      ++count;
    }
    return count < 4 ? std::nullopt : std::optional(least);
  }
  /// Whether the two last ones that were given time to be answered were not.
  bool is_relay_silent(Id id) const {
    std::size_t count = 0;
    for (auto ping = relay_pings.rbegin(); ping != relay_pings.rend() && count < 2; ++ping) {
      if (ping->peer != id || ping->forgotten || now - ping->at < std::chrono::seconds(5)) continue;
      if (ping->answered) return false;
      ++count;
    }
    return count == 2;
  }
  /// D12, from all that was ever sent and answered.
  void check_choice(Id id, bool changed) {
    Way& way = ways_[id];
    const std::optional<UdpAddress> route = paths_.route(id), before = std::exchange(way.route, route);
    if (route != before) K2_ASSERT(changed);
    Duration hold = std::chrono::seconds(30);
    for (unsigned i = 1; i < way.yields; ++i) hold = std::min<Duration>(hold * 2, std::chrono::minutes(10));
    // An answer by which the ways are compared: through the relay, or from the path.
    const std::optional<UdpAddress> path_of_way = before ? before : way.yielded;
    const bool is_answer = answer_of_ == id && (!answered_ || answered_->to == path_of_way);
    const bool is_held = way.yields > 0 && now - way.since < hold;
    // Who has no answer to two pings is sent to through the relay, too, but not because of an answer.
    if (before && !route && answer_of_ == id) {
      const auto path = least_of_path(id, *before), relay = least_of_relay(id);
      K2_ASSERT(!is_held && path && relay);
      K2_ASSERT(*path > *relay * 3 / 2 + std::chrono::milliseconds(20));
      way.yielded = before;
      way.yields = now - way.since >= std::chrono::minutes(20) ? 1 : way.yields + 1;
      way.since = now;
      ++yields;
    } else if (route && is_answer && (route == before || (changed && route == way.yielded)) && !answers_small(id)) {
      const auto path = least_of_path(id, *route), relay = least_of_relay(id);
      const bool is_known = path && relay;
      if (route == way.yielded) {
        K2_ASSERT(!is_held && is_known && *path <= *relay);
        way.yielded.reset();
        way.since = now;
        ++returns;
      } else if (!changed) {
        K2_ASSERT(is_held || !is_known || *path <= *relay * 3 / 2 + std::chrono::milliseconds(20));
      }
    } else if (route && route == way.yielded && answer_of_ != id) {
      K2_ASSERT(relay_lost_ || is_relay_silent(id));
      way.yielded.reset();
      way.since = now;
    } else if (route && route != before && answers_small(id)) {
      way.yielded.reset();
      way.yields = 0;
      way.since = now;
    } else if (!route && way.yielded && answered_ && answered_->peer == id && answered_->to == *way.yielded &&
               !answers_small(id) && !changed) {
      const auto path = least_of_path(id, *way.yielded), relay = least_of_relay(id);
      K2_ASSERT(is_held || !path || !relay || *path > *relay);
    }
    if (changed) way.answers = answers_;
  }
  /// Whether what was answered is the large ping that makes a path: the answer to that address before was to a small
  /// one.
  bool answers_small(Id id) const {
    if (!answered_ || answered_->peer != id) return false;
    const Ping* last = nullptr;
    for (const Ping& ping : pings) {
      if (ping.peer == id && ping.to == answered_->to && ping.answered && !ping.forgotten &&
          ping.answer < answered_->answer && (last == nullptr || ping.answer > last->answer))
        last = &ping;
    }
    return last != nullptr && last->size == iroh::DirectProbe::kBytes;
  }

  /// D11.
  void note_of_relay(const iroh::EndpointId& who, const Bytes& content) {
    const auto probe = iroh::decode_probe(content);
    K2_ASSERT(probe.has_value() && content.size() == iroh::DirectProbe::kBytes);
    if (probe->kind == iroh::DirectProbe::Kind::relay_pong) {
      K2_ASSERT(asked_by_relay_ && who == endpoint_of(*asked_by_relay_) && theirs_.contains(*asked_by_relay_));
      const Id id = *asked_by_relay_;
      K2_ASSERT(iroh::is_authentic(content, to_us(id), ours_.at(id).key));
      note_pong({now, id, {}});
      return;
    }
    const Id id = probe->name[0];
    K2_ASSERT(probe->kind == iroh::DirectProbe::Kind::relay_ping && who == endpoint_of(id));
    K2_ASSERT(theirs_.contains(id) && ours_.contains(id) && iroh::is_authentic(content, to_peer(id), theirs_[id].key));
    // With one of the path.
    K2_ASSERT(!pings.empty() && pings.back().peer == id && pings.back().at == now && !pings.back().of_size);
    K2_ASSERT(pings.back().size >= iroh::DatagramSize::kBase);
    std::size_t answered = 0;
    bool is_newest = true;
    for (auto ping = relay_pings.rbegin(); ping != relay_pings.rend(); ++ping) {
      if (ping->peer != id || ping->forgotten) continue;
      if (std::exchange(is_newest, false)) K2_ASSERT(now - ping->at >= std::chrono::seconds(1));
      if (!ping->answered || ping->lost || ping->answer <= ways_[id].answers) break;
      if (++answered == 4) break;
    }
    if (answered == 4) K2_ASSERT(now - last_relay_ping(id).at >= std::chrono::seconds(5));
    relay_pings.push_back({now, id, probe->nonce, ways_[id].changes});
  }
  const RelayPing& last_relay_ping(Id id) const {
    const auto is_of_peer = [id](const RelayPing& ping) { return ping.peer == id && !ping.forgotten; };
    return *std::find_if(relay_pings.rbegin(), relay_pings.rend(), is_of_peer);
  }
  void note_pong(const Pong& pong) {
    pongs.push_back(pong);
    check_budget(pongs, iroh::DirectPaths::kPongBudget, iroh::DirectPaths::kPongEach,
                 [&](const Pong& one) { return one.peer == pong.peer; });
  }

  void note(const UdpAddress& to, const Bytes& content) {
    const auto probe = iroh::decode_probe(content);
    K2_ASSERT(probe.has_value());
    K2_ASSERT(probe->kind == iroh::DirectProbe::Kind::ping || probe->kind == iroh::DirectProbe::Kind::pong);
    if (probe->kind == iroh::DirectProbe::Kind::pong) {
      // D6.
      K2_ASSERT(content.size() == iroh::DirectProbe::kBytes);
      K2_ASSERT(told_ ? early_.erase({*told_, to}) == 1 : asked_ && to == asked_->second);
      const Id id = told_ ? *told_ : asked_->first;
      K2_ASSERT(iroh::is_authentic(content, to_us(id), ours_.at(id).key) && may_be_sent_to(id, to) &&
                theirs_.contains(id));
      note_pong({now, id, to});
      return;
    }
    const Id id = probe->name[0];
    // D1, D2.
    K2_ASSERT(theirs_.contains(id) && ours_.contains(id) && iroh::is_authentic(content, to_peer(id), theirs_[id].key));
    K2_ASSERT(may_be_sent_to(id, to));
    K2_ASSERT(std::ranges::count(theirs_[id].addresses, to) != 0 || heard_from_.contains({id, to}));
    const Way& way = ways_[id];
    // One that makes a path follows the answer to a small one.
    const bool of_size = (paths_.route(id) == to || way.yielded == to) && content.size() > paths_.datagram_bytes(id) &&
                         last_answered(id, to) >= iroh::DatagramSize::kBase;
    pings.push_back({now, id, to, content.size(), probe->nonce, of_size, way.changes});
    if (content.size() != iroh::DirectProbe::kBytes) {
      // S2.
      K2_ASSERT(content.size() == iroh::DatagramSize::kBase ||
                (content.size() > iroh::DatagramSize::kBase && content.size() <= kFull &&
                 (kFull - content.size()) % iroh::DatagramSize::kStep == 0));
      if (of_size) check_search(id);
      // D4.
      K2_ASSERT(std::ranges::any_of(pings, [&](const Ping& ping) {
        return ping.peer == id && ping.to == to && ping.answered && !ping.forgotten;
      }));
      // D9: a path in use is not pinged more often, whatever the network says.
      if (paths_.route(id) == to && !of_size) {
        const auto before = std::find_if(pings.rbegin() + 1, pings.rend(), [&](const Ping& ping) {
          return ping.peer == id && ping.to == to && !ping.forgotten && !ping.of_size;
        });
        K2_ASSERT(before != pings.rend() && now - before->at >= std::chrono::milliseconds(300));
      }
      return;
    }
    // D3.
    const auto is_small = [](const Ping& ping) { return ping.size == iroh::DirectProbe::kBytes; };
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
      if (ping->peer != id || ping->to != *route || ping->forgotten || ping->of_size) continue;
      if (ping->answered) {
        K2_ASSERT(ping->size >= iroh::DatagramSize::kBase && unanswered <= 2);
        return;
      }
      ++unanswered;
    }
    K2_ASSERT(false);
  }

  /// D4, D8, D13: datagrams are as large as a ping that was answered there; after a while without answers, as the last
  /// one that was.
  void check_size(Id id) {
    const auto route = paths_.route(id);
    if (!route) return;
    const std::size_t bytes = paths_.datagram_bytes(id);
    K2_ASSERT(std::ranges::any_of(pings, [&](const Ping& ping) {
      return ping.peer == id && ping.to == *route && ping.answered && !ping.forgotten && ping.size == bytes;
    }));
    const Way& way = ways_[id];
    if (route != way.route && route != way.yielded && answered_ && answered_->peer == id && answered_->to == *route)
      K2_ASSERT(bytes == answered_->size);
  }
  /// S3, S4: a search is a few pings, and searches are seldom. That one begins anew because the path was gone happens
  /// three times a minute (D10).
  void check_search(Id id) const {
    std::size_t count = 0;
    for (auto ping = pings.rbegin(); ping != pings.rend() && now - ping->at <= std::chrono::minutes(1); ++ping)
      count += ping->peer == id && ping->of_size ? 1 : 0;
    K2_ASSERT(count <= 100);
  }

  const bool loopback_;
  std::uint64_t state_ = 1;
  std::map<Id, iroh::DirectOffer> ours_, theirs_;
  std::map<Id, Way> ways_;
  std::optional<std::pair<Id, UdpAddress>> asked_;
  std::optional<Id> asked_by_relay_;
  std::uint64_t answers_ = 0;
  std::optional<Ping> answered_;  ///< by which an address was just answered
  std::optional<Id> answer_of_;   ///< who has just given one that counts, on either way
  bool relay_lost_ = false;
  std::optional<Id> told_;                          ///< who tells us its addresses
  std::set<std::pair<Id, UdpAddress>> heard_from_;  ///< who has pinged us, and from where
  std::set<std::pair<Id, UdpAddress>> early_;       ///< of those, who has not told its addresses
  iroh::DirectPaths paths_;
};

}  // namespace kitsune2::tests
