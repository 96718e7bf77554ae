// The sbd relay's decisions; the rules are in the header.
#include "server/sbd/relay_core.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "core/slots/slots.hpp"

namespace kitsune2::server {

namespace {

constexpr Duration kTellRatesAfter = std::chrono::milliseconds(100);
constexpr Duration kOldPriceFor = std::chrono::seconds(10);
constexpr Duration kPruneEvery = std::chrono::seconds(5);
constexpr std::size_t kFedAndOthers = 4;    // a queue holds at most this many times send_queue_bytes
constexpr std::size_t kWebSocketBytes = 4;  // a server's WebSocket header for messages of 126 to 65535 bytes

std::uint64_t unsigned_nanos(Time t) { return static_cast<std::uint64_t>(t.time_since_epoch().count()) * 1000U; }

bool is_command(ByteView head) {
  return std::all_of(head.begin(), head.begin() + 28, [](std::uint8_t b) { return b == 0; });
}

}  // namespace

std::string_view to_string(RelayReject reason) {
  switch (reason) {
    case RelayReject::illegal_key:
      return "illegal_key";
    case RelayReject::limit_clients:
      return "limit_clients";
    case RelayReject::rate_limited:
      return "rate_limited";
    case RelayReject::bad_signature:
      return "bad_signature";
    case RelayReject::handshake_timeout:
      return "handshake_timeout";
    case RelayReject::early_forward:
      return "early_forward";
    case RelayReject::late_response:
      return "late_response";
    case RelayReject::malformed:
      return "malformed";
    case RelayReject::too_large:
      return "too_large";
    case RelayReject::idle:
      return "idle";
    case RelayReject::slow_receiver:
      return "slow_receiver";
    case RelayReject::taken_over:
      return "taken_over";
    case RelayReject::evicted:
      return "evicted";
    case RelayReject::queues_full:
      return "queues_full";
  }
  return "unknown";
}

/// The bucket of one client address, and its clients.
struct RelayCore::Address {
  Ip ip{};
  std::uint64_t busy_until = 0;  // ns; the bucket's backlog is what lies after now
  std::vector<Client*> clients;
  std::int32_t told = 0;  // the rate that its clients were told, except the newest
  bool to_tell = false;
};

struct RelayCore::Client {
  ConnId id = 0;
  sbd::NodeId key{};
  Address* address = nullptr;
  std::size_t place = 0;  // in address->clients
  Nonce nonce{};
  bool ready = false;
  bool held = false;         // its message waits for a receiver
  bool in_turn = false;      // its message waits for its turn (R11)
  std::uint64_t earned = 0;  // how many bytes its next small frames may lack for free (R11)
  Duration idle{};           // the limit of silence that it was told
  Time last_heard{};
  std::size_t queued = 0;
  std::vector<ConnId> waiting;  // senders held because of this client, in order
  Time slow_check{};            // while senders wait
  bool slow_armed = false;      // the heap has an entry for it
  std::size_t taken = 0;        // bytes taken since the last check
  std::size_t rank = 0;         // its index in order_
  Time since{};
  Time last_taken{};  // when it last took something, or its queue was empty
  std::uint64_t useful_bytes = 0;
  std::uint64_t sent_bytes = 0;
  std::uint64_t other_frames = 0;
  ConnId group_told_to = 0;  // the connection of this process's node that was told its address; 0: none

  /// What this process's node has in the client's queue (R9), in order.
  struct Fed {
    std::uint64_t from = 0, to = 0;  // positions in the stream of everything that was ever queued
    std::size_t bytes = 0;           // as the node counts them
  };
  ConnId fed_by = 0;
  std::deque<Fed> fed;
  std::size_t fed_bytes = 0;      // of `fed`
  std::size_t credit = 0;         // taken by the client; the node has not been told
  std::uint64_t ever_queued = 0;  // the end of that stream
};

RelayCore::RelayCore(const RelayLimits& limits) {
  adopt(limits);
  charged_ = price_;
}

void RelayCore::adopt(const RelayLimits& limits) {
  limits_ = limits;
  limits_.all_queue_bytes = std::max(limits_.all_queue_bytes, limits_.send_queue_bytes);
  limits_.slow_receiver_bytes = std::clamp<std::size_t>(limits_.slow_receiver_bytes, 1, limits_.send_queue_bytes / 2);
  price_.limited = limits.rate_limiting;
  price_.byte_nanos = 8'000'000U / std::clamp<std::uint32_t>(limits.ip_kbps, 1, 8'000'000);
  price_.burst = limits.ip_byte_burst;
  idle_ = std::chrono::milliseconds(limits.idle_millis);
}

void RelayCore::set_limits(const RelayLimits& limits, Time now) {
  const Price before = price_;
  adopt(limits);
  charged_ = laxer(charged_, price_);
  if (laxer(before, price_) != price_) price_holds_from_ = now + kOldPriceFor;
  for (const auto& [ip, a] : addresses_) {
    a->busy_until = unsigned_nanos(now);
    on_rate_changed(*a, now);
  }
}

/// A price that nobody exceeds who keeps to either of the two. If neither limits the rate, `b`.
RelayCore::Price RelayCore::laxer(const Price& a, const Price& b) {
  if (!b.limited) return b;
  if (!a.limited) return a;
  return {true, std::min(a.byte_nanos, b.byte_nanos), std::max(a.burst, b.burst)};
}

RelayCore::~RelayCore() = default;

RelayCore::Address& RelayCore::address(const Ip& ip, Time now) {
  auto& slot = addresses_[ip];
  if (!slot) {
    slot = std::make_unique<Address>();
    slot->ip = ip;
    if (!prune_at_) prune_at_ = now + kPruneEvery;
  }
  return *slot;
}

bool RelayCore::charge(Address& address, std::size_t bytes, Time now) {
  const std::uint64_t at = unsigned_nanos(now);
  if (price_holds_from_ && *price_holds_from_ <= now) {
    price_holds_from_.reset();
    charged_ = price_;
    for (const auto& [ip, a] : addresses_) a->busy_until = at;
  }
  if (!charged_.limited || address.ip == kThisProcess) return true;
  address.busy_until = std::max(address.busy_until, at) + bytes * charged_.byte_nanos;
  return address.busy_until - at <= charged_.burst * charged_.byte_nanos;
}

std::int32_t RelayCore::byte_nanos(const Address& address) const {
  if (!limits_.rate_limiting || address.ip == kThisProcess) return sbd::kUnlimitedByteNanos;
  const std::uint64_t all = price_.byte_nanos * std::max<std::size_t>(address.clients.size(), 1);
  return static_cast<std::int32_t>(std::min<std::uint64_t>(all, std::numeric_limits<std::int32_t>::max()));
}

void RelayCore::on_rate_changed(Address& address, Time now) {
  if (address.to_tell || address.clients.empty()) return;
  address.to_tell = true;
  rates_to_tell_.emplace_back(now + kTellRatesAfter, address.ip);
}

void RelayCore::tell_rates(Time now) {
  while (!rates_to_tell_.empty() && rates_to_tell_.front().first <= now) {
    const auto it = addresses_.find(rates_to_tell_.front().second);
    rates_to_tell_.pop_front();
    if (it == addresses_.end()) continue;
    Address& a = *it->second;
    a.to_tell = false;
    const std::int32_t rate = byte_nanos(a);
    if (rate == a.told) continue;
    a.told = rate;
    const Bytes message = sbd::encode_limit_byte_nanos(rate);
    for (const Client* client : a.clients) send(client->id, message);
  }
}

bool RelayCore::on_connect(const Ip& ip, Time now) {
  if (charge(address(ip, now), 1, now)) return true;
  ++counters_.rejects[static_cast<std::size_t>(RelayReject::rate_limited)];
  return false;
}

std::optional<RelayReject> RelayCore::on_open(ConnId conn, const Ip& ip, const sbd::NodeId& key, const Nonce& nonce,
                                              Time now, std::uint64_t random) {
  std::optional<RelayReject> refused;
  if (!sbd::is_legal_node_id(key)) {
    refused = RelayReject::illegal_key;
  } else if (clients_.size() >= limits_.clients && !make_place(ip, now, random)) {
    refused = RelayReject::limit_clients;
  }
  if (refused) {
    ++counters_.rejects[static_cast<std::size_t>(*refused)];
    return refused;
  }
  auto& slot = clients_[conn];
  K2_ASSERT(!slot);
  slot = std::make_unique<Client>();
  Client& client = *slot;
  client.id = conn;
  client.key = key;
  client.nonce = nonce;
  client.idle = idle_;
  client.last_heard = client.since = client.last_taken = now;
  client.rank = order_.size();
  order_.push_back(&client);
  client.address = &address(ip, now);
  client.place = client.address->clients.size();
  own_clients_ += ip == kThisProcess ? 1 : 0;
  client.address->clients.push_back(&client);
  counters_.clients.store(clients_.size());
  const std::int32_t rate = byte_nanos(*client.address);
  send(conn, sbd::encode_limit_byte_nanos(rate));
  if (client.address->clients.size() == 1) {
    client.address->told = rate;
  } else if (limits_.rate_limiting) {
    on_rate_changed(*client.address, now);
  }
  send(conn, sbd::encode_auth_request(nonce));
  wake_at(now + idle_, conn, false);
  return std::nullopt;
}

RelayCore::Routed RelayCore::on_message(ConnId conn, ByteView head, std::size_t size, Time now) {
  const auto it = clients_.find(conn);
  if (it == clients_.end()) return {Verdict::closed};
  Client& client = *it->second;
  const auto closed = [&](RelayReject reason) {
    reject(client, reason, now);
    return Routed{Verdict::closed};
  };
  if (size > sbd::kMaxMessageBytes) return closed(RelayReject::too_large);
  if (size < sbd::kHeaderBytes || head.size() < std::min(size, kHeadBytes)) return closed(RelayReject::malformed);

  const bool command = is_command(head);
  Client* to = nullptr;
  if (!command && client.ready) {
    sbd::NodeId key;
    std::copy_n(head.begin(), key.size(), key.begin());
    const auto route = routes_.find(key);
    if (route != routes_.end()) to = route->second;
    if (to != nullptr && hold(client, *to, now)) return {Verdict::hold};
    if (to != nullptr && !routes_.contains(key)) to = nullptr;  // it was closed
  }
  // This comes last: a message that is held for another reason arrives here again and would pay twice.
  if (waits_for_turn(client, size, now)) return {Verdict::hold};

  client.last_heard = now;
  client.sent_bytes += size;
  if (!charge(*client.address, size, now)) return closed(RelayReject::rate_limited);
  if (command) return on_command(client, head, size, now);
  if (!client.ready) return closed(RelayReject::early_forward);
  if (to != nullptr) return forward(client, *to, size, now);
  ++counters_.dropped_unknown;
  if (client.address->ip == kThisProcess) {
    sbd::NodeId key;
    std::copy_n(head.begin(), key.size(), key.begin());
    send(conn, sbd::encode_credit(key, static_cast<std::uint32_t>(size)));
  }
  return {};
}

RelayCore::Routed RelayCore::on_command(Client& client, ByteView head, std::size_t size, Time now) {
  if (as_text(head.subspan(28, 4)) != "ares") return {};  // `keep`, or a command of a later version
  const auto refusal = client.ready         ? std::optional(RelayReject::late_response)
                       : size != kHeadBytes ? std::optional(RelayReject::malformed)
                                            : std::nullopt;
  if (refusal) {
    reject(client, *refusal, now);
    return {Verdict::closed};
  }
  const ConnId conn = client.id;
  authenticate(client, head.subspan(sbd::kHeaderBytes, sbd::kSignatureBytes), now);
  if (!clients_.contains(conn)) return {Verdict::closed};
  Routed out;
  out.joined = true;
  return out;
}

RelayCore::Routed RelayCore::forward(Client& client, Client& to, std::size_t size, Time now) {
  if (to.queued == 0) to.last_taken = now;
  set_queued(to, to.queued + size + kWebSocketBytes);
  to.ever_queued += size + kWebSocketBytes;
  to.useful_bytes += size;
  client.useful_bytes += size;
  ++counters_.forwards;
  counters_.forward_bytes += size;
  Routed out{Verdict::forward, to.id, &client.key};
  if (client.address->ip == kThisProcess && &to != &client) {
    note_fed(to, client, size);
    earn(to, 2 * size, now);
  }
  if (to.address->ip == kThisProcess && client.group_told_to != to.id) {
    tell_group(client, to);
    out.first = true;
  }
  return out;
}

/// R11. Whether the message has to wait.
bool RelayCore::waits_for_turn(Client& client, std::size_t size, Time now) {
  if (own_clients_ == 0 || !client.ready || !limits_.rate_limiting || client.address->ip == kThisProcess) return false;
  if (size >= kLargeFrame) {
    earn(client, size, now);
    return false;
  }
  const std::uint64_t lacks = kLargeFrame - size;
  if (client.earned < lacks) {
    if (!client.in_turn &&
        turns_.take(client.id, client.address->ip, kTurnFrames * kFrameTime, false, turn_time(now))) {
      client.earned += kTurnFrames * kLargeFrame;
    } else {
      counters_.sender_waits += client.in_turn ? 0 : 1;
      client.in_turn = true;
      return true;
    }
  }
  client.earned -= lacks;
  return false;
}

void RelayCore::earn(Client& client, std::uint64_t bytes, Time now) {
  client.earned = std::max(client.earned, std::min(client.earned + bytes, kMostEarned));
  if (!client.in_turn || client.earned < kTurnFrames * kLargeFrame) return;
  turns_.forget(client.id);
  go_on(client, now);
}

/// It need not wait for its turn any more.
void RelayCore::go_on(Client& client, Time now) {
  client.in_turn = false;
  client.last_heard = now;  // it was not read from, so its silence does not count
  if (!client.held) actions_.push_back({Action::Kind::resume, client.id, {}});
}

/// R12.
Time RelayCore::turn_time(Time now) {
  turn_time_ = std::max(turn_time_, now - waited_);
  return turn_time_;
}

void RelayCore::give_turns(Time now) {
  while (const auto waiter = turns_.next(turn_time(now))) {
    Client& client = *clients_.at(*waiter);
    client.earned += kTurnFrames * kLargeFrame;
    go_on(client, now);
  }
}

/// R7.
std::size_t RelayCore::queue_limit() const {
  const std::size_t free = limits_.all_queue_bytes - std::min(limits_.all_queue_bytes, queued_);
  return std::min(limits_.send_queue_bytes, free / 8);
}

/// Whether a message of `client` has to wait because the queue of `to` is full. It may also close `to`.
bool RelayCore::hold(Client& client, Client& to, Time now) {
  const bool is_node = client.address->ip == kThisProcess && &client != &to;
  // The second condition is for a node that reconnects while the queue still holds what it sent before.
  if (is_node &&
      (to.fed_bytes >= 2 * limits_.send_queue_bytes || to.queued >= kFedAndOthers * limits_.send_queue_bytes)) {
    reject(to, RelayReject::slow_receiver, now);
    return false;
  }
  if (is_node || to.queued == 0) {
    while (queued_ >= limits_.all_queue_bytes && close_longest_stalled(client, now)) {
    }
    return false;
  }
  if (to.queued < queue_limit()) return false;
  if (to.waiting.empty()) {
    to.taken = 0;
    to.slow_check = now + std::chrono::milliseconds(limits_.slow_receiver_millis);
    if (!std::exchange(to.slow_armed, true)) wake_at(to.slow_check, to.id, true);
  }
  if (!client.held) {
    client.held = true;
    to.waiting.push_back(client.id);
    ++counters_.sender_waits;
  }
  return true;
}

bool RelayCore::close_longest_stalled(const Client& spared, Time now) {
  Client* longest = nullptr;
  for (Client* client : order_) {
    if (client == &spared || client->queued == 0 || client->address->ip == kThisProcess) continue;
    if (longest == nullptr || client->last_taken < longest->last_taken) longest = client;
  }
  if (longest == nullptr) return false;
  reject(*longest, RelayReject::queues_full, now);
  return true;
}

/// R10. It makes no room for a limit that has become lower (R6).
bool RelayCore::make_place(const Ip& newcomer, Time now, std::uint64_t random) {
  if (clients_.size() > limits_.clients) return false;
  Client* chosen = slots::choose_from(order_, newcomer, random, [](const Client& client) {
    const bool own = client.address->ip == kThisProcess;
    return std::optional(slots::Slot{client.address->ip, client.since, client.useful_bytes, own});
  });
  if (chosen == nullptr) return false;
  reject(*chosen, RelayReject::evicted, now);
  return true;
}

void RelayCore::set_queued(Client& client, std::size_t queued) {
  queued_ = queued_ - client.queued + queued;
  client.queued = queued;
  counters_.queued_bytes.store(queued_);
}

/// R9.
void RelayCore::tell_group(Client& from, const Client& to) {
  from.group_told_to = to.id;
  send(to.id, sbd::encode_peer_group(from.key, from.address->ip));
}

/// R9. `from` is this process's node, and a message of it was added to the queue of `to`.
void RelayCore::note_fed(Client& to, Client& from, std::size_t size) {
  constexpr std::size_t kPiece = 16U << 10;  // small messages share an entry
  if (to.fed_by != from.id) {
    to.fed.clear();
    to.fed_bytes = 0;
    to.credit = 0;
    to.fed_by = from.id;
  }
  to.fed_bytes += size;
  const std::uint64_t begin = to.ever_queued - size - kWebSocketBytes;
  if (!to.fed.empty() && to.ever_queued - to.fed.back().from <= kPiece) {
    to.fed.back().to = to.ever_queued;
    to.fed.back().bytes += size;
  } else {
    to.fed.push_back({begin, to.ever_queued, size});
  }
}

/// Tells the node how much `client` has taken of what it sent. `gone`: the rest counts as well, because it is lost.
void RelayCore::give_credit(Client& client, bool gone) {
  const std::uint64_t taken_to = client.ever_queued - client.queued;
  while (!client.fed.empty() && (gone || client.fed.front().to <= taken_to)) {
    client.credit += client.fed.front().bytes;
    client.fed_bytes -= client.fed.front().bytes;
    client.fed.pop_front();
  }
  if (client.credit == 0 || (!gone && client.credit < kCreditStep)) return;
  const std::size_t credit = std::exchange(client.credit, 0);
  if (clients_.contains(client.fed_by)) {
    send(client.fed_by, sbd::encode_credit(client.key, static_cast<std::uint32_t>(credit)));
  }
}

/// R9. To the connections of this process's node that were told of `client`, or have sent to it.
void RelayCore::tell_gone(const Client& client) {
  if (!client.ready) return;
  for (const ConnId node : {client.group_told_to, client.fed_by == client.group_told_to ? 0 : client.fed_by}) {
    if (node != 0 && clients_.contains(node)) send(node, sbd::encode_peer_gone(client.key));
  }
}

void RelayCore::authenticate(Client& client, ByteView signature, Time now) {
  if (!sbd::verify_nonce(client.key, client.nonce, signature)) return reject(client, RelayReject::bad_signature, now);
  if (const auto before = routes_.find(client.key); before != routes_.end()) {
    reject(*before->second, RelayReject::taken_over, now);
  }
  client.ready = true;
  routes_[client.key] = &client;
  ++counters_.handshakes;
  send(client.id, sbd::encode_limit_idle(
                      static_cast<std::int32_t>(std::chrono::ceil<std::chrono::milliseconds>(client.idle).count())));
  send(client.id, sbd::encode_ready());
}

void RelayCore::on_other_bytes(ConnId conn, std::size_t size, Time now) {
  const auto it = clients_.find(conn);
  if (it == clients_.end()) return;
  Client& client = *it->second;
  if (client.address->ip == kThisProcess) return;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - client.since).count();
  const std::uint64_t allowed = kFreeFrames + client.sent_bytes / kBytesForAFrame +
                                static_cast<std::uint64_t>(std::max<std::int64_t>(seconds, 0));
  const bool too_many = ++client.other_frames > allowed;
  if (!charge(*client.address, size + kFrameCost, now) || too_many) reject(client, RelayReject::rate_limited, now);
}

void RelayCore::on_queue(ConnId conn, std::size_t queued, Time now) {
  const auto it = clients_.find(conn);
  if (it == clients_.end()) return;
  Client& client = *it->second;
  if (client.queued > queued) {
    client.taken += client.queued - queued;
    client.last_taken = now;
  } else if (client.queued == 0) {
    client.last_taken = now;
  }
  // What the core itself sends, and answers to pings, is only in the shell's queue.
  if (queued > client.queued) client.ever_queued += queued - client.queued;
  set_queued(client, queued);
  if (!client.fed.empty() || client.credit > 0) give_credit(client, false);
  const std::size_t limit = queue_limit();
  if (!client.waiting.empty() && (queued == 0 || queued + std::min(limits_.slow_receiver_bytes, limit / 2) <= limit)) {
    release_waiting(client, now);
  }
}

void RelayCore::release_waiting(Client& client, Time now) {
  for (const ConnId sender : std::exchange(client.waiting, {})) {
    const auto it = clients_.find(sender);
    if (it == clients_.end() || !it->second->held) continue;
    it->second->held = false;
    it->second->last_heard = now;  // it was not read from, so its silence does not count
    actions_.push_back({Action::Kind::resume, sender, {}});
  }
}

void RelayCore::on_close(ConnId conn, Time now) {
  const auto it = clients_.find(conn);
  if (it != clients_.end()) forget(*it->second, now);
}

void RelayCore::forget(Client& client, Time now) {
  if (const auto route = routes_.find(client.key); route != routes_.end() && route->second == &client) {
    routes_.erase(route);
  }
  Address& a = *client.address;
  a.clients[client.place] = a.clients.back();
  a.clients[client.place]->place = client.place;
  a.clients.pop_back();
  if (limits_.rate_limiting) on_rate_changed(a, now);
  client.held = false;  // a client may wait for itself
  turns_.forget(client.id);
  own_clients_ -= a.ip == kThisProcess ? 1 : 0;
  release_waiting(client, now);
  set_queued(client, 0);
  if (!client.fed.empty() || client.credit > 0) give_credit(client, true);
  tell_gone(client);
  order_[client.rank] = order_.back();
  order_[client.rank]->rank = client.rank;
  order_.pop_back();
  clients_.erase(client.id);
  counters_.clients.store(clients_.size());
}

void RelayCore::reject(Client& client, RelayReject reason, Time now) {
  ++counters_.rejects[static_cast<std::size_t>(reason)];
  actions_.push_back({Action::Kind::close, client.id, {}, reason});
  forget(client, now);
}

void RelayCore::send(ConnId conn, Bytes message) { actions_.push_back({Action::Kind::send, conn, std::move(message)}); }

void RelayCore::wake_at(Time at, ConnId conn, bool slow_check) {
  heap_.push_back({at, conn, slow_check});
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

void RelayCore::check_slow(Client& client, Time now) {
  client.slow_armed = false;
  if (client.waiting.empty()) return;
  if (client.slow_check <= now) {
    if (client.taken < limits_.slow_receiver_bytes) return reject(client, RelayReject::slow_receiver, now);
    client.taken = 0;
    client.slow_check = now + std::chrono::milliseconds(limits_.slow_receiver_millis);
  }
  client.slow_armed = true;
  wake_at(client.slow_check, client.id, true);
}

void RelayCore::check_silence(Client& client, Time now) {
  const Time silent_until = (client.held || client.in_turn ? now : client.last_heard) + client.idle;
  if (silent_until > now) return wake_at(silent_until, client.id, false);
  reject(client, client.ready ? RelayReject::idle : RelayReject::handshake_timeout, now);
}

void RelayCore::poll(Time now) {
  tell_rates(now);
  give_turns(now);
  while (!heap_.empty() && heap_.front().at <= now) {
    const Due due = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    heap_.pop_back();
    const auto it = clients_.find(due.conn);
    if (it == clients_.end()) continue;
    due.slow_check ? check_slow(*it->second, now) : check_silence(*it->second, now);
  }
  if (prune_at_ && *prune_at_ <= now) {
    boost::unordered::erase_if(addresses_, [&](const auto& entry) {
      return entry.second->clients.empty() && entry.second->busy_until <= unsigned_nanos(now);
    });
    prune_at_.reset();
    if (!addresses_.empty()) prune_at_ = now + kPruneEvery;
  }
}

std::optional<Time> RelayCore::next_deadline() const {
  std::optional<Time> out = prune_at_;
  const auto earlier = [&](Time t) { out = out ? std::min(*out, t) : t; };
  if (!heap_.empty()) earlier(heap_.front().at);
  if (!rates_to_tell_.empty()) earlier(rates_to_tell_.front().first);
  if (const auto turn = turns_.next_deadline()) earlier(*turn + waited_);
  return out;
}

void RelayCore::take_actions(std::vector<Action>& out) {
  out.insert(out.end(), std::make_move_iterator(actions_.begin()), std::make_move_iterator(actions_.end()));
  actions_.clear();
}

void RelayCore::check_invariants() const {
  std::size_t members = 0;
  for (const auto& [ip, a] : addresses_) {
    members += a->clients.size();
    for (std::size_t i = 0; i < a->clients.size(); ++i) {
      K2_ASSERT(a->clients[i]->place == i && a->clients[i]->address == a.get());
      K2_ASSERT(clients_.contains(a->clients[i]->id));
    }
  }
  K2_ASSERT(members == clients_.size());
  for (const auto& [key, client] : routes_) {
    K2_ASSERT(client->ready && client->key == key && clients_.contains(client->id));
  }
  std::size_t ready = 0, queued = 0, in_turn = 0, own = 0;
  for (const auto& [id, client] : clients_) {
    in_turn += client->in_turn ? 1U : 0U;
    own += client->address->ip == kThisProcess ? 1U : 0U;
    K2_ASSERT(client->earned <= kMostEarned + kTurnFrames * kLargeFrame);
    ready += client->ready ? 1U : 0U;
    K2_ASSERT(client->queued <= kFedAndOthers * limits_.send_queue_bytes + sbd::kMaxMessageBytes + (64U << 10));
    queued += client->queued;
    K2_ASSERT(order_[client->rank] == client.get());
    std::uint64_t at = 0;
    std::size_t fed_bytes = 0;
    for (const auto& fed : client->fed) {
      fed_bytes += fed.bytes;
      K2_ASSERT(fed.from >= at && fed.to > fed.from && fed.to <= client->ever_queued);
      at = fed.to;
    }
    K2_ASSERT(fed_bytes == client->fed_bytes);
  }
  K2_ASSERT(ready == routes_.size() && order_.size() == clients_.size() && queued == queued_);
  K2_ASSERT(counters_.clients.get() == clients_.size());
  K2_ASSERT(in_turn == turns_.waiting() && own == own_clients_);
  turns_.check_invariants();
}

}  // namespace kitsune2::server
