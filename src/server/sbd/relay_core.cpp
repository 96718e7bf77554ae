// The sbd relay's decisions; the rules are in the header.
#include "server/sbd/relay_core.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

namespace kitsune2::server {

namespace {

constexpr Duration kTellRatesAfter = std::chrono::milliseconds(100);
constexpr Duration kOldPriceFor = std::chrono::seconds(10);
constexpr Duration kPruneEvery = std::chrono::seconds(5);
constexpr std::size_t kFrameOverhead = 4;  // a server's WebSocket header for messages of 126 to 65535 bytes

std::uint64_t nanos(Time t) { return static_cast<std::uint64_t>(t.time_since_epoch().count()) * 1000U; }

bool is_command(ByteView head) {
  return std::all_of(head.begin(), head.begin() + 28, [](std::uint8_t b) { return b == 0; });
}

}  // namespace

std::string_view to_string(RelayReject reason) {
  switch (reason) {
    case RelayReject::kIllegalKey:
      return "illegal_key";
    case RelayReject::kLimitClients:
      return "limit_clients";
    case RelayReject::kRateLimited:
      return "rate_limited";
    case RelayReject::kBadSignature:
      return "bad_signature";
    case RelayReject::kHandshakeTimeout:
      return "handshake_timeout";
    case RelayReject::kEarlyForward:
      return "early_forward";
    case RelayReject::kLateResponse:
      return "late_response";
    case RelayReject::kMalformed:
      return "malformed";
    case RelayReject::kTooLarge:
      return "too_large";
    case RelayReject::kIdle:
      return "idle";
    case RelayReject::kSlowReceiver:
      return "slow_receiver";
    case RelayReject::kTakenOver:
      return "taken_over";
  }
  return "unknown";
}

/// One client address: its bucket and its clients.
struct RelayCore::Address {
  Ip ip{};
  std::uint64_t busy_until = 0;  // ns; the bucket's backlog is what lies after now
  std::vector<Client*> clients;
  std::int32_t told = 0;  // the rate that all but the newest clients know
  bool to_tell = false;
};

struct RelayCore::Client {
  ConnId id = 0;
  sbd::NodeId key{};
  Address* address = nullptr;
  std::size_t place = 0;  // in address->clients
  Nonce nonce{};
  bool ready = false;
  bool held = false;  // waits for a receiver
  Duration idle{};    // as it was told
  Time last_heard{};
  std::size_t queued = 0;
  std::vector<ConnId> waiting;  // senders held because of this client, in order
  Time slow_check{};            // while senders wait
  bool slow_armed = false;      // the heap has an entry for it
  std::size_t taken = 0;        // since the last check was set
};

RelayCore::RelayCore(const RelayLimits& limits) {
  adopt(limits);
  charged_ = price_;
}

void RelayCore::adopt(const RelayLimits& limits) {
  limits_ = limits;
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
    a->busy_until = nanos(now);
    rate_changed(*a, now);
  }
}

/// Who keeps to one of the two keeps to this. Of two without a limit on the rate, `b`.
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
  const std::uint64_t at = nanos(now);
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

void RelayCore::rate_changed(Address& address, Time now) {
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
  ++counters_.rejects[static_cast<std::size_t>(RelayReject::kRateLimited)];
  return false;
}

std::optional<RelayReject> RelayCore::on_open(ConnId conn, const Ip& ip, const sbd::NodeId& key, const Nonce& nonce,
                                              Time now) {
  std::optional<RelayReject> refused;
  if (!sbd::is_legal_node_id(key)) refused = RelayReject::kIllegalKey;
  if (clients_.size() >= limits_.clients) refused = RelayReject::kLimitClients;
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
  client.last_heard = now;
  client.address = &address(ip, now);
  client.place = client.address->clients.size();
  client.address->clients.push_back(&client);
  counters_.clients.store(clients_.size());
  const std::int32_t rate = byte_nanos(*client.address);
  send(conn, sbd::encode_limit_byte_nanos(rate));
  if (client.address->clients.size() == 1) {
    client.address->told = rate;
  } else if (limits_.rate_limiting) {
    rate_changed(*client.address, now);
  }
  send(conn, sbd::encode_auth_request(nonce));
  wake_at(now + idle_, conn, false);
  return std::nullopt;
}

RelayCore::Routed RelayCore::on_message(ConnId conn, ByteView head, std::size_t size, Time now) {
  const auto it = clients_.find(conn);
  if (it == clients_.end()) return {Verdict::kClosed};
  Client& client = *it->second;
  const auto closed = [&](RelayReject reason) {
    reject(client, reason, now);
    return Routed{Verdict::kClosed};
  };
  if (size > sbd::kMaxMessageBytes) return closed(RelayReject::kTooLarge);
  if (size < sbd::kHeaderBytes || head.size() < std::min(size, kHeadBytes)) return closed(RelayReject::kMalformed);

  const bool command = is_command(head);
  Client* to = nullptr;
  if (!command && client.ready) {
    sbd::NodeId key;
    std::copy_n(head.begin(), key.size(), key.begin());
    const auto route = routes_.find(key);
    if (route != routes_.end()) to = route->second;
    if (to != nullptr && to->queued >= limits_.send_queue_bytes) {
      if (to->waiting.empty()) {
        to->taken = 0;
        to->slow_check = now + std::chrono::milliseconds(limits_.slow_receiver_millis);
        if (!std::exchange(to->slow_armed, true)) wake_at(to->slow_check, to->id, true);
      }
      if (!client.held) {
        client.held = true;
        to->waiting.push_back(conn);
        ++counters_.sender_waits;
      }
      return {Verdict::kHold};
    }
  }

  client.last_heard = now;
  if (!charge(*client.address, size, now)) return closed(RelayReject::kRateLimited);
  if (command) {
    if (as_text(head.subspan(28, 4)) != "ares") return {};  // `keep`, or a command of some later version
    if (client.ready) return closed(RelayReject::kLateResponse);
    if (size != kHeadBytes) return closed(RelayReject::kMalformed);
    authenticate(client, head.subspan(sbd::kHeaderBytes, sbd::kSignatureBytes), now);
    if (!clients_.contains(conn)) return {Verdict::kClosed};
    Routed out;
    out.joined = true;
    return out;
  }
  if (!client.ready) return closed(RelayReject::kEarlyForward);
  if (to == nullptr) {
    ++counters_.dropped_unknown;
    return {};
  }
  to->queued += size + kFrameOverhead;
  ++counters_.forwards;
  counters_.forward_bytes += size;
  return {Verdict::kForward, to->id, &client.key};
}

void RelayCore::authenticate(Client& client, ByteView signature, Time now) {
  if (!sbd::verify_nonce(client.key, client.nonce, signature)) return reject(client, RelayReject::kBadSignature, now);
  if (const auto before = routes_.find(client.key); before != routes_.end()) {
    reject(*before->second, RelayReject::kTakenOver, now);
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
  if (!charge(*it->second->address, size, now)) reject(*it->second, RelayReject::kRateLimited, now);
}

void RelayCore::on_queue(ConnId conn, std::size_t queued, Time now) {
  const auto it = clients_.find(conn);
  if (it == clients_.end()) return;
  Client& client = *it->second;
  if (client.queued > queued) client.taken += client.queued - queued;
  client.queued = queued;
  if (!client.waiting.empty() && queued + limits_.slow_receiver_bytes <= limits_.send_queue_bytes) {
    release_waiting(client, now);
  }
}

void RelayCore::release_waiting(Client& client, Time now) {
  for (const ConnId sender : std::exchange(client.waiting, {})) {
    const auto it = clients_.find(sender);
    if (it == clients_.end() || !it->second->held) continue;
    it->second->held = false;
    it->second->last_heard = now;  // it was not read from: its silence was ours
    actions_.push_back({Action::Kind::kResume, sender, {}});
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
  if (limits_.rate_limiting) rate_changed(a, now);
  client.held = false;  // it may wait for itself
  release_waiting(client, now);
  clients_.erase(client.id);
  counters_.clients.store(clients_.size());
}

void RelayCore::reject(Client& client, RelayReject reason, Time now) {
  ++counters_.rejects[static_cast<std::size_t>(reason)];
  actions_.push_back({Action::Kind::kClose, client.id, {}, reason});
  forget(client, now);
}

void RelayCore::send(ConnId conn, Bytes message) {
  actions_.push_back({Action::Kind::kSend, conn, std::move(message)});
}

void RelayCore::wake_at(Time at, ConnId conn, bool slow_check) {
  heap_.push_back({at, conn, slow_check});
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

void RelayCore::check_slow(Client& client, Time now) {
  client.slow_armed = false;
  if (client.waiting.empty()) return;
  if (client.slow_check <= now) {
    if (client.taken < limits_.slow_receiver_bytes) return reject(client, RelayReject::kSlowReceiver, now);
    client.taken = 0;
    client.slow_check = now + std::chrono::milliseconds(limits_.slow_receiver_millis);
  }
  client.slow_armed = true;
  wake_at(client.slow_check, client.id, true);
}

void RelayCore::check_silence(Client& client, Time now) {
  const Time silent_until = (client.held ? now : client.last_heard) + client.idle;
  if (silent_until > now) return wake_at(silent_until, client.id, false);
  reject(client, client.ready ? RelayReject::kIdle : RelayReject::kHandshakeTimeout, now);
}

void RelayCore::poll(Time now) {
  tell_rates(now);
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
      return entry.second->clients.empty() && entry.second->busy_until <= nanos(now);
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
  std::size_t ready = 0;
  for (const auto& [id, client] : clients_) {
    ready += client->ready ? 1U : 0U;
    K2_ASSERT(client->queued <= limits_.send_queue_bytes + sbd::kMaxMessageBytes + (64U << 10));
  }
  K2_ASSERT(ready == routes_.size());
  K2_ASSERT(counters_.clients.get() == clients_.size());
}

}  // namespace kitsune2::server
