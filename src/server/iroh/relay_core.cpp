// The decisions of the relay of dialect 0.5; the rules are in the header.
#include "server/iroh/relay_core.hpp"

#include <algorithm>
#include <functional>
#include <string>
#include <tuple>
#include <utility>

#include "core/slots/slots.hpp"
#include "kitsune2/error.hpp"
#include "transport/iroh/endpoint_key.hpp"

namespace kitsune2::server {

using kitsune2::iroh::RelayFrame;
using kitsune2::iroh::RelayVersion;
using kitsune2::iroh::Sender;

namespace {

constexpr std::uint8_t kDatagram = 4, kBatch = 5, kPing = 9, kPong = 10;
constexpr std::uint8_t kFromRelay = 2;  // what is added to a type of datagrams on the way to the receiver
constexpr std::size_t kDatagramHead = 1 + 32 + 1, kBatchHead = FairQueue::kBatchHead;
constexpr std::size_t kPingBytes = 1 + 8;
constexpr std::size_t kFrameOverhead = FairQueue::kFrameOverhead;
constexpr Duration kPruneAfter = std::chrono::seconds(5);

std::int64_t nanos(Time t) { return static_cast<std::int64_t>(t.time_since_epoch().count()) * 1000; }
/// Not before `ns`.
Time not_before(std::int64_t ns) { return Time(Duration((ns + 999) / 1000)); }

std::int64_t price(std::size_t bytes, std::uint64_t bytes_per_second) {
  return static_cast<std::int64_t>(bytes * 1'000'000'000ULL / std::max<std::uint64_t>(bytes_per_second, 1));
}

/// R10. How far somebody may be ahead of its rate.
std::int64_t burst_price(std::uint64_t burst_bytes, std::uint64_t bytes_per_second) {
  const std::int64_t gap = std::chrono::nanoseconds(IrohRelayCore::kTurnGap).count();
  return std::max(price(burst_bytes, bytes_per_second), gap);
}

Bytes frame_of(const RelayFrame& frame) { return kitsune2::iroh::encode_relay_frame(Sender::relay, frame); }

}  // namespace

std::string_view to_string(IrohReject reason) {
  switch (reason) {
    case IrohReject::limit_clients:
      return "limit_clients";
    case IrohReject::bad_signature:
      return "bad_signature";
    case IrohReject::not_authorized:
      return "not_authorized";
    case IrohReject::handshake_timeout:
      return "handshake_timeout";
    case IrohReject::malformed:
      return "malformed";
    case IrohReject::no_pong:
      return "no_pong";
    case IrohReject::slow_receiver:
      return "slow_receiver";
    case IrohReject::duplicates:
      return "duplicates";
    case IrohReject::evicted:
      return "evicted";
    case IrohReject::rate_limited:
      return "rate_limited";
  }
  return "unknown";
}

struct IrohRelayCore::Address {
  std::size_t clients = 0;
  std::size_t queued = 0;       // of its clients
  std::int64_t busy_until = 0;  // ns: up to here its bytes are paid for
  bool fading = false;          // it has its entry in fading_
};

struct IrohRelayCore::Client {
  ConnId id = 0;
  Ip ip{};
  Address* address = nullptr;
  RelayVersion version = RelayVersion::v1;
  Right right = Right::granted;
  std::array<std::uint8_t, 16> challenge{};
  std::uint64_t random = 0;
  std::size_t draws = 0;
  std::optional<Id> key;    // once proven
  Client* older = nullptr;  // the next older connection of the same endpoint
  std::size_t rank = 0;     // its index in order_
  Time since{};
  Time last_heard{};
  std::uint64_t useful_bytes = 0;
  std::uint64_t sent_bytes = 0;
  std::uint64_t other_frames = 0;

  // What it is sent.
  std::size_t socket = 0;           // bytes in its socket
  std::unique_ptr<FairQueue> kept;  // null: nothing waits
  Time last_taken{};                // when the socket last took something, or was empty
  bool stall_armed = false;

  // Pings.
  std::optional<kitsune2::iroh::PingPayload> pinged;
  Time pinged_at{};
  std::optional<Duration> round_trip;

  // Rates.
  std::int64_t busy_until = 0;  // ns
  Time ready_at{};              // its next turn begins then
  std::size_t turn_left = 0;    // bytes that it may still send in its turn
  bool held = false;
  bool ever_held = false;

  // Whom it sent something.
  boost::unordered_flat_set<Id, Hash> told;
  ConnId last_to = 0;
  ConnId address_told_to = 0;  // the connection of this process's node that was told its address

  std::size_t kept_bytes() const { return kept ? kept->bytes() : 0; }
  Duration pong_wait() const {
    return round_trip ? std::clamp<Duration>(*round_trip * 3, kLeastPongWait, kMostPongWait) : Duration(kMostPongWait);
  }
};

IrohRelayCore::IrohRelayCore(const IrohRelayLimits& limits, IsListed is_listed)
    : limits_(limits), is_listed_(std::move(is_listed)) {}

IrohRelayCore::~IrohRelayCore() = default;

IrohRelayCore::Client* IrohRelayCore::find(ConnId conn) const {
  const auto it = clients_.find(conn);
  return it == clients_.end() ? nullptr : it->second.get();
}

std::optional<IrohRelayCore::Id> IrohRelayCore::key_of(ConnId conn) const {
  const Client* client = find(conn);
  return client == nullptr ? std::nullopt : client->key;
}

std::optional<IrohRelayCore::ConnId> IrohRelayCore::active(const Id& id) const {
  const auto it = routes_.find(id);
  return it == routes_.end() ? std::nullopt : std::optional(it->second->id);
}

void IrohRelayCore::for_each_key(const std::function<void(ConnId, const Id&)>& use) const {
  for (const Client* client : order_) {
    if (client->key) use(client->id, *client->key);
  }
}

// --- coming and going

std::optional<IrohReject> IrohRelayCore::on_open(ConnId conn, const Opening& opening, Time now) {
  const bool is_full = clients_.size() >= limits_.clients;
  if (is_full && (opening.right == Right::none || !make_place(opening.ip, opening.random, now))) {
    ++counters_.rejects[static_cast<std::size_t>(IrohReject::limit_clients)];
    return IrohReject::limit_clients;
  }
  auto& slot = clients_[conn];
  K2_ASSERT(!slot);
  slot = std::make_unique<Client>();
  Client& client = *slot;
  client.id = conn;
  client.ip = opening.ip;
  client.version = opening.version;
  client.right = opening.right;
  client.challenge = opening.challenge;
  client.random = opening.random;
  client.since = client.last_heard = client.last_taken = now;
  client.rank = order_.size();
  order_.push_back(&client);
  auto& address = addresses_[opening.ip];
  if (!address) address = std::make_unique<Address>();
  client.address = address.get();
  ++address->clients;
  if (limits_.ip_bytes_per_second != 0 && client.ip != kThisProcess) {
    const auto burst = burst_price(limits_.ip_burst_bytes, limits_.ip_bytes_per_second);
    client.ready_at = not_before(address->busy_until - burst);
  }
  counters_.clients.store(clients_.size());
  wake_at(now + kHandshakeLimit, conn, Check::silence);
  if (opening.proven) {
    client.key = opening.proven;
    join(client, now);
  } else {
    send(client, frame_of(kitsune2::iroh::ServerChallenge{client.challenge}), now);
  }
  return std::nullopt;
}

IrohRelayCore::Routed IrohRelayCore::on_proof(Client& client, ByteView head, std::size_t size, Time now) {
  const auto closed = [&](IrohReject reason) {
    reject(client, reason, now);
    return Routed{Verdict::closed};
  };
  if (size > kHeadBytes) return closed(IrohReject::malformed);
  const auto frame = decode_relay_frame(client.version, Sender::client, Bytes::copy_of(head.first(size)));
  const auto* auth = frame ? std::get_if<kitsune2::iroh::ClientAuth>(&*frame) : nullptr;
  if (auth == nullptr) return closed(IrohReject::malformed);
  const auto message = kitsune2::iroh::to_be_signed({client.challenge});
  if (!kitsune2::iroh::EndpointKey::verify(auth->key, message, auth->signature)) {
    send(client, frame_of(kitsune2::iroh::ServerDeniesAuth{"signature invalid"}), now);
    return closed(IrohReject::bad_signature);
  }
  client.key = auth->key;
  const ConnId conn = client.id;
  join(client, now);
  if (find(conn) == nullptr) return {Verdict::closed};
  Routed out;
  out.joined = true;
  return out;
}

/// R2, R3. `client.key` is set, and nobody knows of it yet.
void IrohRelayCore::join(Client& client, Time now) {
  const bool may =
      client.right == Right::granted || (client.right != Right::none && is_listed_(*client.key, client.right));
  if (!may) {
    client.key.reset();
    send(client, frame_of(kitsune2::iroh::ServerDeniesAuth{"not authorized"}), now);
    return reject(client, IrohReject::not_authorized, now);
  }
  client.last_heard = now;
  ++counters_.accepts;
  send(client, frame_of(kitsune2::iroh::ServerConfirmsAuth{}), now);
  Client*& route = routes_[*client.key];
  client.older = std::exchange(route, &client);
  if (client.older == nullptr) return;
  tell_status(*client.older, false, now);
  std::size_t count = 1;
  Client* oldest = &client;
  for (; oldest->older != nullptr; oldest = oldest->older) ++count;
  if (count > kDuplicates) reject(*oldest, IrohReject::duplicates, now);
}

void IrohRelayCore::tell_status(Client& client, bool is_active, Time now) {
  if (client.version == RelayVersion::v1) {
    const std::string problem(is_active ? std::string_view() : kSecondConnection);
    send_if_room(client, frame_of(kitsune2::iroh::Health{problem}), now);
  } else {
    using kitsune2::iroh::Status;
    send_if_room(client, frame_of(Status{is_active ? Status::kHealthy : Status::kSameIdElsewhere}), now);
  }
}

/// R3, R11.
void IrohRelayCore::leave_routes(Client& client, Time now) {
  const auto it = routes_.find(*client.key);
  Client* heir = it->second;
  if (heir == &client) {
    heir = it->second = client.older;
    if (heir != nullptr) tell_status(*heir, true, now);
  } else {
    Client* newer = heir;
    while (newer->older != &client) newer = newer->older;
    newer->older = client.older;
  }
  told_ -= client.told.size();
  if (heir != nullptr) {
    for (const Id& id : client.told) add_told(*heir, id);
    return;
  }
  routes_.erase(it);
  const Bytes gone = frame_of(kitsune2::iroh::EndpointGone{*client.key});
  std::vector<Client*> to;  // looked at before any is sent, so that their order does not matter
  for (const Id& id : client.told) {
    const auto route = routes_.find(id);
    if (route != routes_.end() && has_room(*route->second, gone.size())) to.push_back(route->second);
  }
  for (Client* other : to) send(*other, gone, now);
  counters_.gone_sent += to.size();
}

void IrohRelayCore::on_close(ConnId conn, Time now) {
  if (Client* client = find(conn)) forget(*client, now);
}

void IrohRelayCore::forget(Client& client, Time now) {
  set_queued(client, 0, 0);
  if (client.key) {
    leave_routes(client, now);
    ++counters_.disconnects;
  }
  if (--client.address->clients == 0 && !std::exchange(client.address->fading, true)) {
    fading_.emplace_back(now + kPruneAfter, client.ip);
  }
  order_[client.rank] = order_.back();
  order_[client.rank]->rank = client.rank;
  order_.pop_back();
  clients_.erase(client.id);
  counters_.clients.store(clients_.size());
}

void IrohRelayCore::reject(Client& client, IrohReject reason, Time now) {
  ++counters_.rejects[static_cast<std::size_t>(reason)];
  actions_.push_back({Action::Kind::close, client.id, {}, reason});
  forget(client, now);
}

/// R12. It makes no room for a limit that has become lower.
bool IrohRelayCore::make_place(const Ip& newcomer, std::uint64_t random, Time now) {
  if (clients_.size() > limits_.clients) return false;
  Client* chosen = slots::choose_from(order_, newcomer, random, [](const Client& client) {
    return std::optional(slots::Slot{client.ip, client.since, client.useful_bytes, client.ip == kThisProcess});
  });
  if (chosen == nullptr) return false;
  reject(*chosen, IrohReject::evicted, now);
  return true;
}

// --- messages

IrohRelayCore::Routed IrohRelayCore::on_message(ConnId conn, ByteView head, std::size_t size, Time now) {
  Client* client = find(conn);
  if (client == nullptr) return {Verdict::closed};
  if (size == 0 || head.size() < std::min(size, kHeadBytes)) {
    reject(*client, IrohReject::malformed, now);
    return {Verdict::closed};
  }
  if (has_to_wait(*client, size, now)) return {Verdict::hold};
  pay(*client, size, now);
  client->last_heard = now;
  client->sent_bytes += size;
  Routed out = on_paid(*client, head, size, now);
  if (out.verdict == Verdict::closed) return out;
  out.last = client->turn_left == 0 && client->ready_at > now;
  if (out.last) hold(*client, size);
  return out;
}

IrohRelayCore::Routed IrohRelayCore::on_paid(Client& client, ByteView head, std::size_t size, Time now) {
  if (!client.key) return on_proof(client, head, size, now);
  const bool datagrams = head.front() == kDatagram || head.front() == kBatch;
  return datagrams ? on_datagrams(client, head, size, now) : on_control(client, head, size, now);
}

IrohRelayCore::Routed IrohRelayCore::on_datagrams(Client& client, ByteView head, std::size_t size, Time now) {
  const bool batch = head.front() == kBatch;
  const std::size_t in_head = batch ? kBatchHead : kDatagramHead;
  if (size < in_head || size > kitsune2::iroh::kMaxRelayBody + 1) {
    reject(client, IrohReject::malformed, now);
    return {Verdict::closed};
  }
  const std::size_t content = size - in_head;
  ++counters_.frames_recv;
  counters_.bytes_recv += content;
  if (content == 0 || size == kitsune2::iroh::kMaxRelayBody + 1) {
    ++counters_.dropped_unwritable;
    return {};
  }
  Id to_key;
  std::copy_n(head.begin() + 1, to_key.size(), to_key.begin());
  const auto route = routes_.find(to_key);
  if (route == routes_.end()) {
    ++counters_.dropped_absent;
    return {};
  }
  Client& to = *route->second;
  const bool one = !batch || (head[kDatagramHead] == 0 && head[kDatagramHead + 1] == 0);
  Routed out;
  out.to = to.id;
  out.replaces = in_head;
  out.head_size = one ? kDatagramHead : kBatchHead;
  out.head[0] = (one ? kDatagram : kBatch) + kFromRelay;
  std::copy(client.key->begin(), client.key->end(), out.head.begin() + 1);
  out.head[kDatagramHead - 1] = head[kDatagramHead - 1] & 3U;
  if (!one) std::copy_n(head.begin() + kDatagramHead, 2, out.head.begin() + kDatagramHead);
  const std::size_t bytes = out.head_size + content;
  out.verdict = place(client, to, bytes);
  if (out.verdict == Verdict::taken) {
    ++counters_.dropped_full;
    return {};
  }
  client.useful_bytes += size;
  to.useful_bytes += size;
  if (std::exchange(client.last_to, to.id) != to.id) add_told(client, to_key);
  if (to.ip == kThisProcess && client.ip != kThisProcess && std::exchange(client.address_told_to, to.id) != to.id) {
    send(to, frame_of(kitsune2::iroh::PeerAddress{*client.key, client.ip}), now);
  }
  ++counters_.frames_sent;
  counters_.bytes_sent += content;
  if (out.verdict == Verdict::forward) add_to_socket(to, bytes, now);
  return out;
}

/// R6. Whether `to` may hold `bytes` more.
bool IrohRelayCore::may_hold(const Client& to, std::size_t bytes) const {
  const std::size_t free = limits_.all_queue_bytes - std::min(limits_.all_queue_bytes, queued_);
  if (bytes > free) return false;
  const std::size_t held = to.address->queued;
  return to.ip == kThisProcess || held + bytes <= (held + free) / 4;
}

/// R4. Where a frame of `size` bytes for `to` goes; `taken`: nowhere.
IrohRelayCore::Verdict IrohRelayCore::place(const Client& from, const Client& to, std::size_t size) const {
  size += kFrameOverhead;
  if (!may_hold(to, size)) return Verdict::taken;
  if (!to.kept && to.socket + size <= kSocketBytes) return Verdict::forward;
  static const FairQueue kEmpty;
  const FairQueue& queue = to.kept ? *to.kept : kEmpty;
  const bool may = queue.may_add(from.ip, *from.key, size, limits_.queue_frames, limits_.queue_bytes);
  return may ? Verdict::keep : Verdict::taken;
}

void IrohRelayCore::keep(ConnId from, ConnId to, Bytes frame) {
  const Client* sender = find(from);
  Client* client = find(to);
  if (sender == nullptr || client == nullptr) return;
  set_queued(*client, client->socket, client->kept_bytes() + frame.size() + kFrameOverhead);
  if (!client->kept) client->kept = std::make_unique<FairQueue>();
  client->kept->add(sender->ip, *sender->key, std::move(frame));
}

IrohRelayCore::Routed IrohRelayCore::on_control(Client& client, ByteView head, std::size_t size, Time now) {
  const std::uint8_t type = head.front();
  if ((type != kPing && type != kPong) || size != kPingBytes) {
    reject(client, IrohReject::malformed, now);
    return {Verdict::closed};
  }
  kitsune2::iroh::PingPayload payload;
  std::copy_n(head.begin() + 1, payload.size(), payload.begin());
  if (type == kPing) {
    ++counters_.got_ping;
    if (send_if_room(client, frame_of(kitsune2::iroh::Pong{payload}), now)) ++counters_.sent_pong;
  } else if (client.pinged == payload) {
    client.round_trip = now - client.pinged_at;
    client.pinged.reset();
  }
  return {};
}

void IrohRelayCore::on_other_frame(ConnId conn, Time now) {
  Client* client = find(conn);
  if (client == nullptr || client->ip == kThisProcess) return;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - client->since).count();
  const std::uint64_t allowed = kFreeFrames + client->sent_bytes / kBytesForAFrame +
                                static_cast<std::uint64_t>(std::max<std::int64_t>(seconds, 0));
  if (++client->other_frames > allowed) reject(*client, IrohReject::rate_limited, now);
}

bool IrohRelayCore::on_ws_ping(ConnId conn, std::size_t size, Time now) {
  Client* client = find(conn);
  if (client == nullptr || !has_room(*client, size)) return false;
  add_to_socket(*client, size, now);
  return true;
}

/// R11.
void IrohRelayCore::add_told(Client& from, const Id& to) {
  if (from.told.size() >= kMostTold || told_ >= kAllTold) return;
  if (from.told.insert(to).second) ++told_;
}

// --- rates (R10)

/// What a client may send in one turn, beside a message that is larger.
std::size_t IrohRelayCore::turn_bytes() const {
  std::uint64_t out = kTurnBytes;
  for (const std::uint64_t rate : {std::uint64_t{limits_.client_bytes_per_second}, limits_.ip_bytes_per_second}) {
    if (rate != 0) out = std::min(out, rate / static_cast<std::uint64_t>(std::chrono::seconds(1) / kTurnTime));
  }
  return static_cast<std::size_t>(out);
}

bool IrohRelayCore::has_to_wait(Client& client, std::size_t size, Time now) {
  if (client.ready_at <= now) {
    client.turn_left = std::max(turn_bytes(), size);
    return false;
  }
  if (client.held) return true;
  if (size <= client.turn_left) return false;
  hold(client, size);
  return true;
}

/// Because of a message of `size` bytes.
void IrohRelayCore::hold(Client& client, std::size_t size) {
  client.held = true;
  ++counters_.waits;
  counters_.wait_bytes += size;
  if (!std::exchange(client.ever_held, true)) ++counters_.waited;
  wake_for_turn(client);
}

void IrohRelayCore::pay(Client& client, std::size_t size, Time now) {
  if (client.ip == kThisProcess) return;
  client.turn_left -= size;
  const auto charge = [&](std::int64_t& busy_until, std::uint64_t rate, std::uint64_t burst) {
    if (rate == 0) return;
    busy_until = std::max(busy_until, nanos(now)) + price(size, rate);
    client.ready_at = std::max(client.ready_at, not_before(busy_until - burst_price(burst, rate)));
  };
  const std::uint64_t rate = limits_.client_bytes_per_second;
  charge(client.busy_until, rate, limits_.client_burst_bytes != 0 ? limits_.client_burst_bytes : rate / 10);
  charge(client.address->busy_until, limits_.ip_bytes_per_second, limits_.ip_burst_bytes);
}

void IrohRelayCore::set_limits(const IrohRelayLimits& limits, Time now) {
  const auto rates = [](const IrohRelayLimits& of) {
    return std::tuple(of.client_bytes_per_second, of.client_burst_bytes, of.ip_bytes_per_second, of.ip_burst_bytes);
  };
  const bool same = rates(limits) == rates(limits_);
  limits_ = limits;
  if (same) return;
  for (const auto& [ip, address] : addresses_) address->busy_until = 0;
  std::erase_if(heap_, [](const Due& due) { return due.check == Check::rate; });
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  for (Client* client : order_) {
    client->busy_until = 0;
    client->ready_at = Time();
    if (client->held) check_rate(*client, now);
  }
}

// --- what clients are sent

/// Before `client.kept` changes.
void IrohRelayCore::set_queued(Client& client, std::size_t socket, std::size_t kept) {
  const std::size_t before = client.socket + client.kept_bytes();
  queued_ = queued_ - before + socket + kept;
  client.address->queued = client.address->queued - before + socket + kept;
  client.socket = socket;
  counters_.queued_bytes.store(queued_);
}

void IrohRelayCore::add_to_socket(Client& client, std::size_t bytes, Time now) {
  if (client.socket == 0) client.last_taken = now;
  set_queued(client, client.socket + bytes + kFrameOverhead, client.kept_bytes());
  if (std::exchange(client.stall_armed, true)) return;
  wake_at(client.last_taken + std::chrono::milliseconds(limits_.slow_receiver_millis), client.id, Check::stall);
}

/// R8. Whether a frame of the relay's own that may be left out is sent.
bool IrohRelayCore::has_room(const Client& to, std::size_t size) const {
  const std::size_t bytes = size + kFrameOverhead;
  return to.socket == 0 || (to.socket + bytes <= kSocketBytes && may_hold(to, bytes));
}

bool IrohRelayCore::send_if_room(Client& client, Bytes frame, Time now) {
  if (!has_room(client, frame.size())) return false;
  send(client, std::move(frame), now);
  return true;
}

/// A frame of the relay's own goes past the queue.
void IrohRelayCore::send(Client& client, Bytes frame, Time now) {
  add_to_socket(client, frame.size(), now);
  actions_.push_back({Action::Kind::send, client.id, std::move(frame)});
}

void IrohRelayCore::on_queue(ConnId conn, std::size_t queued, Time now) {
  Client* client = find(conn);
  if (client == nullptr) return;
  if (queued < client->socket || queued == 0) client->last_taken = now;
  set_queued(*client, queued, client->kept_bytes());
  if (!client->kept) return;
  while (!client->kept->empty()) {
    const std::size_t size = client->kept->front().size() + kFrameOverhead;
    if (client->socket + size > kSocketBytes) return;
    set_queued(*client, client->socket, client->kept_bytes() - size);
    Bytes next = client->kept->take();
    add_to_socket(*client, next.size(), now);
    actions_.push_back({Action::Kind::send, conn, std::move(next)});
  }
  client->kept.reset();
}

// --- time

void IrohRelayCore::wake_at(Time at, ConnId conn, Check check) {
  heap_.push_back({at, conn, check});
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

void IrohRelayCore::wake_for_turn(const Client& client) {
  const Duration ready = client.ready_at.time_since_epoch();
  wake_at(Time((ready + kTurnGap - Duration(1)) / kTurnGap * kTurnGap), client.id, Check::rate);
}

void IrohRelayCore::check_rate(Client& client, Time now) {
  if (client.ready_at > now) return wake_for_turn(client);
  client.held = false;
  client.last_heard = now;  // it was not read from, so its silence does not count
  actions_.push_back({Action::Kind::resume, client.id, {}});
}

/// R7.
void IrohRelayCore::check_stall(Client& client, bool late, Time now) {
  client.stall_armed = false;
  if (client.socket == 0) return;
  const Duration limit = std::chrono::milliseconds(limits_.slow_receiver_millis);
  if (late) client.last_taken = now;
  if (now >= client.last_taken + limit) return reject(client, IrohReject::slow_receiver, now);
  client.stall_armed = true;
  wake_at(client.last_taken + limit, client.id, Check::stall);
}

/// R1, R9.
void IrohRelayCore::check_silence(Client& client, bool late, Time now) {
  const auto again = [&](Time at) { wake_at(at, client.id, Check::silence); };
  if (!client.key) {
    if (!late && !client.held) return reject(client, IrohReject::handshake_timeout, now);
    return again(now + kHandshakeLimit);
  }
  if (client.pinged) {
    if (late || client.held) client.pinged_at = now;
    const Time end = client.pinged_at + client.pong_wait();
    return now < end ? again(end) : reject(client, IrohReject::no_pong, now);
  }
  if (client.held) client.last_heard = now;
  const auto jitter =
      Duration(static_cast<Duration::rep>(client.random % static_cast<std::uint64_t>(kPingJitter.count())));
  const Time due = client.last_heard + kPingInterval + jitter;
  if (now < due) return again(due);
  kitsune2::iroh::PingPayload payload;
  const std::uint64_t random = slots::drawn(client.random, ++client.draws);
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<std::uint8_t>(random >> (8 * i));
  send(client, frame_of(kitsune2::iroh::Ping{payload}), now);
  client.pinged = payload;
  client.pinged_at = now;
  again(now + client.pong_wait());
}

void IrohRelayCore::poll(Time now) {
  while (!heap_.empty() && heap_.front().at <= now) {
    const Due due = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    heap_.pop_back();
    Client* client = find(due.conn);
    if (client == nullptr) continue;
    const bool late = now - due.at >= kLateCheck;
    if (due.check == Check::rate) check_rate(*client, now);
    if (due.check == Check::stall) check_stall(*client, late, now);
    if (due.check == Check::silence) check_silence(*client, late, now);
  }
  while (!fading_.empty() && fading_.front().first <= now) {
    const Ip ip = fading_.front().second;
    fading_.pop_front();
    const auto it = addresses_.find(ip);
    K2_ASSERT(it != addresses_.end());
    Address& address = *it->second;
    if (address.clients > 0) {
      address.fading = false;
    } else if (address.busy_until > nanos(now)) {
      fading_.emplace_back(now + kPruneAfter, ip);
    } else {
      addresses_.erase(it);
    }
  }
}

std::optional<Time> IrohRelayCore::next_deadline() const {
  std::optional<Time> out;
  if (!heap_.empty()) out = heap_.front().at;
  if (!fading_.empty()) out = out ? std::min(*out, fading_.front().first) : fading_.front().first;
  return out;
}

void IrohRelayCore::take_actions(std::vector<Action>& out) {
  out.insert(out.end(), std::make_move_iterator(actions_.begin()), std::make_move_iterator(actions_.end()));
  actions_.clear();
}

void IrohRelayCore::check_invariants() const {
  std::size_t queued = 0, told = 0, proven = 0, routed = 0;
  boost::unordered_flat_map<Ip, std::pair<std::size_t, std::size_t>, Hash> of_address;
  for (const auto& [id, client] : clients_) {
    K2_ASSERT(client->id == id && order_[client->rank] == client.get());
    if (client->kept) client->kept->check_invariants();
    K2_ASSERT(!client->kept || (!client->kept->empty() && client->kept->frames() <= limits_.queue_frames));
    const std::size_t kept = client->kept_bytes();
    queued += client->socket + kept;
    told += client->told.size();
    proven += client->key ? 1U : 0U;
    auto& [count, bytes] = of_address[client->ip];
    ++count;
    bytes += client->socket + kept;
    K2_ASSERT(addresses_.at(client->ip).get() == client->address);
  }
  for (const auto& [key, active] : routes_) {
    std::size_t count = 0;
    for (const Client* client = active; client != nullptr; client = client->older, ++count) {
      K2_ASSERT(client->key == key && clients_.contains(client->id));
    }
    K2_ASSERT(count <= kDuplicates);
    routed += count;
  }
  std::size_t fading = 0;
  for (const auto& [ip, address] : addresses_) {
    fading += address->fading ? 1U : 0U;
    K2_ASSERT(address->fading || address->clients > 0);
    K2_ASSERT(of_address[ip] == std::pair(address->clients, address->queued));
  }
  K2_ASSERT(fading == fading_.size());
  K2_ASSERT(queued == queued_ && told == told_ && proven == routed && order_.size() == clients_.size());
  K2_ASSERT(told <= kAllTold && counters_.clients.get() == clients_.size());
}

}  // namespace kitsune2::server
