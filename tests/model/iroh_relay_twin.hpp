// The naive twin of IrohRelayCore: it keeps everything in plain lists, adds up all sums anew at each step, and says
// what each message must lead to.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "kitsune2/error.hpp"
#include "model/commands.hpp"
#include "server/iroh/relay_core.hpp"
#include "transport/iroh/endpoint_key.hpp"

namespace kitsune2::model {

/// Whose frame is next (FairQueue): all that waits in one list, and everything else is found out anew.
class FairTwin {
 public:
  using Ip = server::FairQueue::Ip;
  using Id = server::FairQueue::Id;

  bool may_add(const Ip& address, const Id& sender, std::size_t bytes, std::size_t most_frames,
               std::size_t most_bytes) const {
    const auto anyone = [](const Item&) { return true; };
    const auto of_address = [&](const Item& one) { return one.address == address; };
    const auto of_sender = [&](const Item& one) { return one.address == address && one.sender == sender; };
    if (count(anyone) + 1 > most_frames || sum(anyone) + bytes > most_bytes) return false;
    if (count(of_address) == 0) return true;
    const std::size_t frames = most_of(most_frames - count(anyone) + count(of_address));
    const std::size_t room = most_of(most_bytes - sum(anyone) + sum(of_address));
    if (count(of_address) + 1 > frames || sum(of_address) + bytes > room) return false;
    if (count(of_sender) == 0) return true;
    return count(of_sender) + 1 <= most_of(frames - count(of_address) + count(of_sender)) &&
           sum(of_sender) + bytes <= most_of(room - sum(of_address) + sum(of_sender));
  }
  void add(const Ip& address, const Id& sender, const Bytes& frame) {
    if (std::ranges::find(addresses_, address) == addresses_.end()) addresses_.push_back(address);
    auto& senders = senders_[address];
    if (std::ranges::find(senders, sender) == senders.end()) senders.push_back(sender);
    items_.push_back({address, sender, frame});
  }
  bool empty() const { return items_.empty(); }
  std::size_t bytes() const {
    return sum([](const Item&) { return true; });
  }
  /// An address that may not send its next frame goes to the end, and so does a sender of it.
  const Bytes& front() {
    while (true) {
      const Ip address = addresses_.front();
      if (begun_.insert(address).second) credit_[address] += server::FairQueue::kQuantum;
      if (cost(*next_of(address)) <= credit_[address]) return next_of(address)->frame;
      begun_.erase(address);
      std::rotate(addresses_.begin(), addresses_.begin() + 1, addresses_.end());
    }
  }
  Bytes take() {
    front();
    const Ip address = addresses_.front();
    const auto it = next_of(address);
    const Item out = *it;
    const Who who{address, out.sender};
    credit_[address] -= cost(out);
    credit_of_[who] -= cost(out);
    items_.erase(it);
    if (std::ranges::none_of(items_, [&](const Item& i) { return i.address == address && i.sender == out.sender; })) {
      std::erase(senders_[address], out.sender);
      credit_of_.erase(who);
      begun_of_.erase(who);
    }
    if (std::ranges::none_of(items_, [&](const Item& i) { return i.address == address; })) {
      std::erase(addresses_, address);
      credit_.erase(address);
      begun_.erase(address);
    }
    return out.frame;
  }

 private:
  struct Item {
    Ip address{};
    Id sender{};
    Bytes frame;
  };
  using Who = std::pair<Ip, Id>;

  /// Three quarters, rounded up.
  static std::size_t most_of(std::size_t all) { return all - all / 4; }
  template <class Is>
  std::size_t count(const Is& is) const {
    return static_cast<std::size_t>(std::ranges::count_if(items_, is));
  }
  template <class Is>
  std::size_t sum(const Is& is) const {
    std::size_t out = 0;
    for (const Item& one : items_) out += is(one) ? one.frame.size() + 4 : 0;
    return out;
  }
  static std::size_t cost(const Item& one) {
    std::size_t datagrams = 1;
    if (one.frame[0] == 7) {
      const std::size_t segment = std::size_t{one.frame[34]} * 256 + one.frame[35];
      datagrams = 0;
      for (std::size_t at = 36; at < one.frame.size(); at += segment) ++datagrams;
    }
    return std::min<std::size_t>(one.frame.size() + 512 * datagrams, 256U << 10);
  }
  std::vector<Item>::iterator next_of(const Ip& address) {
    auto& senders = senders_[address];
    while (true) {
      const Id sender = senders.front();
      const Who who{address, sender};
      const auto it = std::ranges::find_if(items_, [&](const Item& i) { return Who{i.address, i.sender} == who; });
      if (begun_of_.insert(who).second) credit_of_[who] += server::FairQueue::kQuantum;
      if (cost(*it) <= credit_of_[who]) return it;
      begun_of_.erase(who);
      std::rotate(senders.begin(), senders.begin() + 1, senders.end());
    }
  }

  std::vector<Item> items_;
  std::vector<Ip> addresses_;  ///< in the order of their turns
  std::map<Ip, std::vector<Id>> senders_;
  std::map<Ip, std::size_t> credit_;
  std::map<Who, std::size_t> credit_of_;
  std::set<Ip> begun_;
  std::set<Who> begun_of_;
};

class IrohRelayUnderTest {
 public:
  using Core = server::IrohRelayCore;
  using Reject = server::IrohReject;
  using Verdict = Core::Verdict;
  using Version = iroh::RelayVersion;
  static constexpr std::size_t kKeys = 4;

  explicit IrohRelayUnderTest(const server::IrohRelayLimits& limits) : limits_(limits), core_(limits, is_listed) {
    for (std::size_t i = 0; i < kKeys; ++i) {
      iroh::EndpointKey::Seed seed{};
      seed[0] = static_cast<std::uint8_t>(i + 1);
      keys_.push_back(std::make_unique<iroh::EndpointKey>(seed));
    }
  }

  /// Takes one step. Any bytes make a valid one.
  void step(Commands& in) {
    // In this order with every compiler, unlike the arguments of a call.
    const auto two = [&] { return std::array{in.byte(), in.byte()}; };
    switch (in.byte() % 32) {
      case 0:
      case 1:
      case 2:
      case 10:
        std::apply([&](auto... bytes) { open(bytes...); }, std::array{in.byte(), in.byte(), in.byte()});
        break;
      case 11:
      case 12:
        std::apply([&](auto... bytes) { answer(bytes...); }, two());
        break;
      case 3:
      case 13:
      case 14:
        std::apply([&](auto... bytes) { control(bytes...); }, two());
        break;
      case 4:
        raw(in);
        break;
      case 5:
        if (Peer* peer = chosen(in.byte())) close(peer->conn);
        break;
      case 6:
        if (Peer* peer = chosen(in.byte())) other_frame(*peer);
        break;
      case 7:
        std::apply([&](auto... bytes) { take(bytes...); }, two());
        break;
      case 9:
        pass(std::chrono::milliseconds(in.byte() * 2));
        break;
      case 15:
        std::apply([&](auto time, auto unit) { pass(std::chrono::milliseconds(time * (unit % 16 == 0 ? 100 : 1))); },
                   two());
        break;
      default:
        std::apply([&](auto... bytes) { datagrams(bytes...); }, std::array{in.byte(), in.byte(), in.byte(), in.byte()});
        break;
    }
    settle();
  }

  /// Without further input, each client is closed in the end, and nothing is left.
  void end() {
    for (int i = 0; core_.next_deadline(); ++i) {
      K2_ASSERT(i < 100'000);
      pass(std::max(*core_.next_deadline(), now_) - now_);
      settle();
    }
    K2_ASSERT(peers_.empty() && core_.client_count() == 0 && core_.address_count() == 0);
    K2_ASSERT(core_.counters().queued_bytes.get() == 0);
  }

  std::size_t kept_frames() const { return kept_; }
  std::size_t dropped_frames() const { return dropped_; }
  std::size_t held_messages() const { return held_; }
  std::size_t ended_turns() const { return ended_; }
  std::size_t notices() const { return notices_; }
  std::size_t unanswered_pings() const { return unanswered_; }

 private:
  struct Peer {
    Core::ConnId conn = 0;
    std::size_t key = 0;
    Core::Ip ip{};
    Version version = Version::v1;
    Core::Right right = Core::Right::granted;
    std::array<std::uint8_t, 16> challenge{};
    bool proven = false;
    std::uint64_t joined = 0;  ///< its number among those that proved a key
    Time since{}, last_heard{}, last_taken{};
    std::uint64_t sent = 0, other_frames = 0;
    std::size_t socket = 0;
    FairTwin queue;
    std::set<std::size_t> told;
    Core::ConnId address_told_to = 0;
    std::optional<iroh::PingPayload> pinged;
    Time pinged_at{};
    std::optional<Duration> round_trip;
    std::int64_t busy_until = 0;
    Time ready_at{};
    std::vector<std::size_t> turn;  ///< the sizes of what it has sent in its turn
    bool held = false, excused = false;

    std::size_t queued() const { return socket + queue.bytes(); }
  };

  Peer* find(Core::ConnId conn) {
    const auto it = std::ranges::find_if(peers_, [&](const Peer& p) { return p.conn == conn; });
    return it == peers_.end() ? nullptr : &*it;
  }
  Peer* chosen(std::uint8_t which) {
    if (peers_.empty()) return nullptr;
    return &*std::next(peers_.begin(), static_cast<std::ptrdiff_t>(which % peers_.size()));
  }
  /// R3: the newest with this key.
  Peer* active(std::size_t key) {
    Peer* out = nullptr;
    for (Peer& peer : peers_) {
      if (peer.proven && peer.key == key && (out == nullptr || peer.joined > out->joined)) out = &peer;
    }
    return out;
  }
  std::size_t count_of(std::size_t key) const {
    return static_cast<std::size_t>(
        std::ranges::count_if(peers_, [&](const Peer& p) { return p.proven && p.key == key; }));
  }

  void open(std::uint8_t where, std::uint8_t who, std::uint8_t how) {
    Core::Opening opening;
    opening.ip[15] = where % 4;  // 0: this process
    opening.version = (how & 1U) != 0 ? Version::v1 : Version::v2;
    opening.right = how % 7 == 0    ? Core::Right::none
                    : how % 5 == 0  ? Core::Right::if_listed
                    : how % 11 == 0 ? Core::Right::if_registered
                                    : Core::Right::granted;
    opening.challenge.fill(who);
    opening.random = (std::uint64_t{where} << 40U) + (std::uint64_t{who} << 20U) + how;
    const std::size_t key = who % kKeys;
    if ((how & 2U) != 0) opening.proven = keys_[key]->id();
    const Core::ConnId conn = next_++;
    const bool full = peers_.size() >= limits_.clients;
    const auto refused = core_.on_open(conn, opening, now_);
    if (refused) {
      K2_ASSERT(full && *refused == Reject::limit_clients);
      return;
    }
    K2_ASSERT(!full || opening.right != Core::Right::none);
    evictions_ = full ? 1 : 0;
    Peer peer;
    peer.conn = conn;
    peer.key = key;
    peer.ip = opening.ip;
    peer.version = opening.version;
    peer.right = opening.right;
    peer.challenge = opening.challenge;
    peer.since = peer.last_heard = peer.last_taken = now_;
    take_evicted();
    if (limits_.ip_bytes_per_second != 0 && peer.ip != Core::kThisProcess) {
      peer.ready_at = paid_at(busy_[peer.ip], limits_.ip_bytes_per_second, limits_.ip_burst_bytes);
    }
    peers_.push_back(peer);
    if (opening.proven) {
      join(peers_.back());
    } else {
      expect(peers_.back(), iroh::ServerChallenge{opening.challenge});
    }
  }

  /// R12: whom it chose is the business of slots::choose; what follows from it is not.
  void take_evicted() {
    std::vector<Core::Action> actions;
    core_.take_actions(actions);
    for (const auto& action : actions) {
      if (action.kind == Core::Action::Kind::close && action.reason == Reject::evicted) {
        K2_ASSERT(evictions_ == 1 && find(action.conn) != nullptr && find(action.conn)->ip != Core::kThisProcess);
        evictions_ = 0;
        leave(*find(action.conn));
      } else {
        actions_.push_back(action);
      }
    }
    K2_ASSERT(evictions_ == 0);
  }

  static bool is_listed(const Core::Id& id, Core::Right by) {
    return id[by == Core::Right::if_listed ? 0 : 1] % 2 == 0;
  }

  void join(Peer& peer) {
    const bool may = peer.right == Core::Right::granted ||
                     (peer.right != Core::Right::none && is_listed(keys_[peer.key]->id(), peer.right));
    if (!may) {
      expect(peer, iroh::ServerDeniesAuth{"not authorized"});
      return expect_close(peer, Reject::not_authorized);
    }
    expect(peer, iroh::ServerConfirmsAuth{});
    if (Peer* before = active(peer.key)) expect_status(*before, false);
    peer.proven = true;
    peer.joined = ++joined_;
    peer.last_heard = now_;
    if (count_of(peer.key) <= Core::kDuplicates) return;
    Peer* oldest = nullptr;
    for (Peer& other : peers_) {
      if (other.proven && other.key == peer.key && (oldest == nullptr || other.joined < oldest->joined))
        oldest = &other;
    }
    expect_close(*oldest, Reject::duplicates);
  }

  /// The peer is gone: R3, R11.
  void leave(Peer& peer) {
    const Peer gone = peer;
    const bool was_active = gone.proven && active(gone.key) == &peer;
    peers_.remove_if([&](const Peer& p) { return p.conn == gone.conn; });
    if (!gone.proven) return;
    if (Peer* heir = active(gone.key)) {
      heir->told.insert(gone.told.begin(), gone.told.end());
      if (was_active) expect_status(*heir, true);
      return;
    }
    std::vector<Peer*> to;
    for (const std::size_t key : gone.told) {
      Peer* other = active(key);
      if (other != nullptr && has_room(*other, 33)) to.push_back(other);
    }
    for (Peer* other : to) expect(*other, iroh::EndpointGone{keys_[gone.key]->id()});
    notices_ += to.size();
  }

  void close(Core::ConnId conn) {
    core_.on_close(conn, now_);
    leave(*find(conn));
  }

  void answer(std::uint8_t which, std::uint8_t how) {
    Peer* peer = chosen(which);
    if (peer == nullptr || peer->proven) return;
    const auto message = iroh::to_be_signed({peer->challenge});
    iroh::ClientAuth auth{keys_[peer->key]->id(), keys_[peer->key]->sign(message)};
    const bool bad = how % 4 == 0;
    if (bad) auth.signature[how % 64] ^= 1U;
    const Bytes frame = iroh::encode_relay_frame(iroh::Sender::client, auth);
    if (!say(*peer, frame)) return;
    if (bad) {
      expect(*peer, iroh::ServerDeniesAuth{"signature invalid"});
      return expect_close(*peer, Reject::bad_signature);
    }
    join(*peer);
  }

  void control(std::uint8_t which, std::uint8_t how) {
    Peer* peer = chosen(which);
    if (peer == nullptr || (!peer->proven && how % 8 != 0)) return;
    const iroh::PingPayload payload{how, 2, 3};
    const bool is_pong = how % 2 == 0;
    const iroh::PingPayload answer = peer->pinged && how % 8 != 0 ? *peer->pinged : payload;
    const Bytes frame = is_pong ? iroh::encode_relay_frame(iroh::Sender::client, iroh::Pong{answer})
                                : iroh::encode_relay_frame(iroh::Sender::client, iroh::Ping{payload});
    if (!say(*peer, frame)) return;
    if (!peer->proven) return expect_close(*peer, Reject::malformed);
    if (!is_pong) {
      if (!expect_if_room(*peer, iroh::Pong{payload})) ++unanswered_;
    } else if (peer->pinged == answer) {
      peer->round_trip = now_ - peer->pinged_at;
      peer->pinged.reset();
    }
  }

  /// Each second one is a ping.
  void other_frame(Peer& peer) {
    core_.on_other_frame(peer.conn, now_);
    ++peer.other_frames;
    const auto seconds = static_cast<std::uint64_t>((now_ - peer.since) / std::chrono::seconds(1));
    const std::uint64_t allowed = Core::kFreeFrames + peer.sent / Core::kBytesForAFrame + seconds;
    if (peer.other_frames > allowed && peer.ip != Core::kThisProcess) {
      return expect_close(peer, Reject::rate_limited);
    }
    if (peer.other_frames % 2 == 0) return;
    const bool room = has_room(peer, 125);
    K2_ASSERT(core_.on_ws_ping(peer.conn, 125, now_) == room);
    if (room) add_to_socket(peer, 125);
  }

  /// Bytes of the input as a message that is none.
  void raw(Commands& in) {
    Peer* peer = chosen(in.byte());
    std::vector<std::uint8_t> bytes(in.byte() % 120);
    for (auto& byte : bytes) byte = in.byte();
    if (peer == nullptr) return;
    if (!bytes.empty() && bytes[0] >= 4 && bytes[0] <= 10 && peer->proven) bytes[0] = 11;
    if (bytes.size() == Core::kHeadBytes && !peer->proven) bytes.push_back(0);  // it might be a proof
    const auto routed = core_.on_message(peer->conn, head_of(bytes), bytes.size(), now_);
    if (!bytes.empty() && has_to_wait(*peer, bytes.size())) return hold(*peer, routed);
    K2_ASSERT(routed.verdict == Verdict::closed);
    if (!bytes.empty()) pay(*peer, bytes.size());
    expect_close(*peer, Reject::malformed);
  }

  void datagrams(std::uint8_t which, std::uint8_t whom, std::uint8_t size, std::uint8_t how) {
    Peer* peer = chosen(which);
    if (peer == nullptr || (!peer->proven && how % 8 != 0)) return;
    static constexpr std::size_t kSizes[] = {0,      1,      1452,   14'520, 40'000, 60'000,
                                             60'000, 60'000, 65'500, 65'502, 65'503, 65'504};
    const std::size_t content = kSizes[size % std::size(kSizes)];
    const bool batch = how % 2 == 1;
    const std::uint8_t ecn = how;
    const std::uint16_t segment = !batch || how % 3 == 0 ? 0 : how % 5 == 0 ? 3 : 1452;
    iroh::EndpointId to = keys_[whom % kKeys]->id();
    if (whom % 16 == 15) to[5] ^= 1U;  // nobody's
    const std::size_t in_head = batch ? 36 : 34;
    std::vector<std::uint8_t> bytes(in_head + content, how);
    bytes[0] = batch ? 5 : 4;
    std::copy(to.begin(), to.end(), bytes.begin() + 1);
    bytes[33] = ecn;
    if (batch) bytes[34] = static_cast<std::uint8_t>(segment >> 8);
    if (batch) bytes[35] = static_cast<std::uint8_t>(segment);
    const auto routed = core_.on_message(peer->conn, head_of(bytes), bytes.size(), now_);
    if (has_to_wait(*peer, bytes.size())) return hold(*peer, routed);
    pay(*peer, bytes.size());
    if (!peer->proven || bytes.size() > iroh::kMaxRelayBody + 1) {
      K2_ASSERT(routed.verdict == Verdict::closed);
      return expect_close(*peer, Reject::malformed);
    }
    end_turn(*peer, routed);
    Peer* other = whom % 16 == 15 ? nullptr : active(whom % kKeys);
    const bool lost = content == 0 || bytes.size() == iroh::kMaxRelayBody + 1 || other == nullptr;
    // R5: written as the reference's relay would write it, and read as its client would read it.
    const iroh::Datagrams wanted{keys_[peer->key]->id(), static_cast<std::uint8_t>(ecn & 3U), segment,
                                 Bytes(std::vector<std::uint8_t>(content, how))};
    const Verdict verdict = lost ? Verdict::taken : place(*peer, *other, wanted);
    K2_ASSERT(routed.verdict == verdict);
    if (verdict == Verdict::taken) {
      dropped_ += lost ? 0 : 1;
      return;
    }
    K2_ASSERT(routed.to == other->conn && routed.replaces == in_head);
    std::vector<std::uint8_t> out(routed.head.begin(),
                                  routed.head.begin() + static_cast<std::ptrdiff_t>(routed.head_size));
    out.insert(out.end(), bytes.begin() + static_cast<std::ptrdiff_t>(in_head), bytes.end());
    const Bytes frame(std::move(out));
    K2_ASSERT(frame == iroh::encode_relay_frame(iroh::Sender::relay, wanted));
    peer->told.insert(other->key);
    if (other->ip == Core::kThisProcess && peer->ip != other->ip && peer->address_told_to != other->conn) {
      peer->address_told_to = other->conn;
      expect(*other, iroh::PeerAddress{keys_[peer->key]->id(), peer->ip});
    }
    if (verdict == Verdict::forward) {
      add_to_socket(*other, frame.size());
    } else {
      core_.keep(peer->conn, other->conn, frame);
      other->queue.add(peer->ip, keys_[peer->key]->id(), frame);
      ++kept_;
    }
  }

  /// R6, with all sums made anew.
  bool may_hold(const Peer& to, std::size_t bytes) const {
    std::size_t all = 0, of_address = 0;
    for (const Peer& peer : peers_) {
      all += peer.queued();
      of_address += peer.ip == to.ip ? peer.queued() : 0;
    }
    const std::size_t free = limits_.all_queue_bytes - std::min(all, limits_.all_queue_bytes);
    return bytes <= free && (to.ip == Core::kThisProcess || of_address + bytes <= (of_address + free) / 4);
  }
  /// R8.
  bool has_room(const Peer& to, std::size_t size) const {
    return to.socket == 0 || (to.socket + size + 4 <= Core::kSocketBytes && may_hold(to, size + 4));
  }

  /// R4.
  Verdict place(const Peer& from, const Peer& to, const iroh::Datagrams& frame) const {
    const std::size_t size = frame.content.size() + 34 + (frame.segment_size != 0 ? 2 : 0) + 4;
    if (!may_hold(to, size)) return Verdict::taken;
    if (to.queue.empty() && to.socket + size <= Core::kSocketBytes) return Verdict::forward;
    const bool room = to.queue.may_add(from.ip, keys_[from.key]->id(), size, limits_.queue_frames, limits_.queue_bytes);
    return room ? Verdict::keep : Verdict::taken;
  }

  /// The client's socket takes a part of what it holds.
  void take(std::uint8_t which, std::uint8_t part) {
    Peer* peer = chosen(which);
    if (peer == nullptr) return;
    const std::size_t left = peer->socket * (part % 5) / 5;
    core_.on_queue(peer->conn, left, now_);
    if (left < peer->socket || left == 0) peer->last_taken = now_;
    peer->socket = left;
    while (!peer->queue.empty() && peer->socket + peer->queue.front().size() + 4 <= Core::kSocketBytes) {
      const Bytes next = peer->queue.take();
      add_to_socket(*peer, next.size());
      expected_[peer->conn].push_back(next);
    }
  }

  void add_to_socket(Peer& peer, std::size_t bytes) {
    if (peer.socket == 0) peer.last_taken = now_;
    peer.socket += bytes + 4;
  }

  // --- rates

  void pay(Peer& peer, std::size_t bytes) {
    peer.last_heard = now_;
    peer.sent += bytes;
    if (peer.ip == Core::kThisProcess) return;
    if (peer.ready_at <= now_) peer.turn.clear();
    peer.turn.push_back(bytes);
    const auto charge = [&](std::int64_t& busy, std::uint64_t rate, std::uint64_t burst) {
      if (rate == 0) return;
      const std::int64_t at = static_cast<std::int64_t>(now_.time_since_epoch().count()) * 1000;
      busy = std::max(busy, at) + static_cast<std::int64_t>(bytes * 1'000'000'000ULL / rate);
      peer.ready_at = std::max(peer.ready_at, paid_at(busy, rate, burst));
    };
    charge(peer.busy_until, limits_.client_bytes_per_second, limits_.client_burst_bytes);
    charge(busy_[peer.ip], limits_.ip_bytes_per_second, limits_.ip_burst_bytes);
  }
  static Time paid_at(std::int64_t busy, std::uint64_t rate, std::uint64_t burst) {
    const auto ahead = static_cast<std::int64_t>(burst * 1'000'000'000ULL / rate);
    const std::int64_t ready = busy - std::max<std::int64_t>(ahead, 1'000'000);  // at least a millisecond
    return Time(Duration((ready + 999) / 1000));
  }
  /// R10: what two milliseconds at its rates are worth, and at most 16 KiB.
  std::size_t turn_bytes() const {
    std::uint64_t out = 16U << 10;
    if (limits_.client_bytes_per_second != 0) out = std::min<std::uint64_t>(out, limits_.client_bytes_per_second / 500);
    if (limits_.ip_bytes_per_second != 0) out = std::min<std::uint64_t>(out, limits_.ip_bytes_per_second / 500);
    return out;
  }
  static std::size_t sent_in_turn(const Peer& peer) {
    return std::accumulate(peer.turn.begin(), peer.turn.end(), std::size_t{0});
  }
  bool has_to_wait(const Peer& peer, std::size_t bytes) const {
    if (peer.ready_at <= now_) return false;
    return peer.held || peer.turn.empty() || sent_in_turn(peer) + bytes > turn_bytes();
  }
  void hold(Peer& peer, const Core::Routed& routed) {
    K2_ASSERT(routed.verdict == Verdict::hold && !routed.last);
    peer.held = peer.excused = true;
    ++held_;
  }
  /// After a message that was paid for.
  void end_turn(Peer& peer, const Core::Routed& routed) {
    K2_ASSERT(routed.last == (peer.ready_at > now_ && sent_in_turn(peer) >= turn_bytes()));
    if (!routed.last) return;
    peer.held = peer.excused = true;
    ++ended_;
  }
  static Time next_turn(const Peer& peer) { return std::chrono::ceil<std::chrono::milliseconds>(peer.ready_at); }
  /// False: the message waits.
  bool say(Peer& peer, const Bytes& message) {
    const auto routed = core_.on_message(peer.conn, head_of(message), message.size(), now_);
    if (has_to_wait(peer, message.size())) {
      hold(peer, routed);
      return false;
    }
    pay(peer, message.size());
    if (routed.verdict != Verdict::closed) end_turn(peer, routed);
    return true;
  }
  static ByteView head_of(ByteView message) { return message.first(std::min(message.size(), Core::kHeadBytes)); }

  // --- what the core must say

  void expect(Peer& to, const iroh::RelayFrame& frame) {
    Bytes bytes = iroh::encode_relay_frame(iroh::Sender::relay, frame);
    add_to_socket(to, bytes.size());
    expected_[to.conn].push_back(std::move(bytes));
  }
  bool expect_if_room(Peer& to, const iroh::RelayFrame& frame) {
    if (!has_room(to, iroh::encode_relay_frame(iroh::Sender::relay, frame).size())) return false;
    expect(to, frame);
    return true;
  }
  void expect_status(Peer& to, bool is_active) {
    if (to.version == Version::v1) {
      expect_if_room(to, iroh::Health{is_active ? std::string() : std::string(Core::kSecondConnection)});
    } else {
      expect_if_room(to, iroh::Status{is_active ? iroh::Status::kHealthy : iroh::Status::kSameIdElsewhere});
    }
  }
  void expect_close(Peer& peer, Reject reason) {
    closes_.emplace_back(peer.conn, reason);
    leave(peer);
  }

  /// Lets time pass, from one deadline to the next.
  void pass(Duration duration) {
    const Time end = now_ + duration;
    while (core_.next_deadline() && *core_.next_deadline() <= end) {
      now_ = std::max(now_, *core_.next_deadline());
      core_.poll(now_);
      timed();
    }
    now_ = end;
  }

  /// After a poll: pings and closes, each with its reason; and none is missing.
  void timed() {
    settle_sends();
    std::vector<Core::Action> actions = std::exchange(actions_, {});
    core_.take_actions(actions);
    for (std::size_t i = 0; i < actions.size(); ++i) {
      const auto& action = actions[i];
      Peer* peer = find(action.conn);
      if (action.kind == Core::Action::Kind::send) {
        const auto ping = peer == nullptr ? std::nullopt : ping_in(*peer, action.message);
        if (!ping) {
          actions_.push_back(action);  // a notice, compared below
          continue;
        }
        K2_ASSERT(!peer->pinged && now_ - peer->last_heard >= Core::kPingInterval);
        peer->pinged = ping;
        peer->pinged_at = now_;
        add_to_socket(*peer, action.message.size());
      } else if (action.kind == Core::Action::Kind::resume) {
        K2_ASSERT(peer != nullptr && peer->held && next_turn(*peer) <= now_);
        peer->held = false;
        peer->last_heard = now_;
      } else {
        K2_ASSERT(peer != nullptr && has_reason(*peer, action.reason));
        leave(*peer);
      }
    }
    settle();
    for (const Peer& peer : peers_) {
      K2_ASSERT(peer.socket == 0 || now_ - peer.last_taken < std::chrono::milliseconds(limits_.slow_receiver_millis));
      K2_ASSERT(peer.held || peer.excused || peer.proven || now_ < peer.since + Core::kHandshakeLimit);
      K2_ASSERT(!peer.held || now_ < next_turn(peer));
      if (peer.excused || !peer.proven) continue;
      K2_ASSERT(!peer.pinged || now_ < peer.pinged_at + Core::kMostPongWait);
    }
  }
  static std::optional<iroh::PingPayload> ping_in(const Peer& peer, const Bytes& message) {
    const auto frame = iroh::decode_relay_frame(peer.version, iroh::Sender::relay, message);
    K2_ASSERT(frame.has_value());
    const auto* ping = std::get_if<iroh::Ping>(&*frame);
    return ping == nullptr ? std::nullopt : std::optional(ping->payload);
  }
  bool has_reason(const Peer& peer, Reject reason) const {
    if (reason == Reject::handshake_timeout) return !peer.proven && now_ >= peer.since + Core::kHandshakeLimit;
    if (reason == Reject::slow_receiver) {
      return peer.socket > 0 && now_ - peer.last_taken >= std::chrono::milliseconds(limits_.slow_receiver_millis);
    }
    if (reason != Reject::no_pong || !peer.pinged) return false;
    const Duration wait = peer.round_trip
                              ? std::clamp<Duration>(*peer.round_trip * 3, Core::kLeastPongWait, Core::kMostPongWait)
                              : Duration(Core::kMostPongWait);
    return now_ - peer.pinged_at >= wait;
  }

  void settle_sends() { core_.take_actions(actions_); }

  /// Compares what the core said with what it had to say.
  void settle() {
    core_.take_actions(actions_);
    std::map<Core::ConnId, std::deque<Bytes>> said;
    std::vector<std::pair<Core::ConnId, Reject>> closed;
    for (const auto& action : actions_) {
      K2_ASSERT(action.kind != Core::Action::Kind::resume);
      if (action.kind == Core::Action::Kind::send) said[action.conn].push_back(action.message);
      if (action.kind == Core::Action::Kind::close) closed.emplace_back(action.conn, action.reason);
    }
    actions_.clear();
    // Notices of one moment come in any order.
    const auto sorted = [](std::map<Core::ConnId, std::deque<Bytes>>& all) {
      for (auto& [conn, frames] : all) std::ranges::sort(frames);
      std::erase_if(all, [](const auto& entry) { return entry.second.empty(); });
    };
    sorted(said);
    sorted(expected_);
    K2_ASSERT(said == expected_ && closed == closes_);
    expected_.clear();
    closes_.clear();
    core_.check_invariants();
    K2_ASSERT(core_.client_count() == peers_.size());
    for (std::size_t key = 0; key < kKeys; ++key) {
      const Peer* peer = active(key);
      K2_ASSERT(core_.active(keys_[key]->id()) == (peer == nullptr ? std::nullopt : std::optional(peer->conn)));
    }
  }

  const server::IrohRelayLimits limits_;
  Core core_;
  std::vector<std::unique_ptr<iroh::EndpointKey>> keys_;
  std::list<Peer> peers_;
  std::map<Core::Ip, std::int64_t> busy_;
  std::map<Core::ConnId, std::deque<Bytes>> expected_;
  std::vector<std::pair<Core::ConnId, Reject>> closes_;
  std::vector<Core::Action> actions_;
  std::size_t evictions_ = 0;
  Time now_{std::chrono::seconds(1000)};
  Core::ConnId next_ = 1;
  std::uint64_t joined_ = 0;
  std::size_t kept_ = 0, dropped_ = 0, held_ = 0, ended_ = 0, notices_ = 0, unanswered_ = 0;
};

}  // namespace kitsune2::model
