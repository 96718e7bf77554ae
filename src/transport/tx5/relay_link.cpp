// One connection to a relay, and the peers behind it.
#include "transport/tx5/relay_link.hpp"

#include <sodium.h>

#include <algorithm>
#include <array>
#include <bit>

namespace kitsune2::tx5 {
namespace {

/// How many control frames are sent in a row while messages wait.
constexpr unsigned kControlStreak = 8;
/// R3. A frame of at most so many bytes is small.
constexpr std::size_t kSmallBytes = 4096;
/// A stop waits this long for the last frames to leave, asking this often.
constexpr Duration kLingerLimit = std::chrono::seconds(1);
constexpr Duration kLingerStep = std::chrono::milliseconds(10);
constexpr Duration kEvictInterval = std::chrono::seconds(1);
/// A mark is the serial number of a connection and, in so many of its bits, how much was sent.
constexpr std::uint64_t kMarkBytes = (std::uint64_t{1} << 40) - 1;

Error unresponsive(const std::string& why) { return make_error(Errc::peer_unresponsive, why); }

}  // namespace

RelayLink::RelayLink(LinkShared& shared, Url relay, Role role, LinkOwner& owner)
    : shared_(shared), relay_(std::move(relay)), role_(role), owner_(owner), reconnect_(shared.limits.reconnect) {}

RelayLink::~RelayLink() {
  shared_.runtime.cancel(timer_);
  generation_ += 1;
  if (socket_) socket_->close();
  for (auto& [id, peer] : peers_) {
    peer->gone = true;
    shared_.peer_count -= 1;
    shared_.forget_permits(*peer);
    for (Handler<>& done : peer->connection.take_handlers()) {
      shared_.complete(std::move(done), make_error(Errc::cancelled, "the transport stopped"));
    }
  }
  if (unsent_) shared_.complete(std::move(unsent_->done), make_error(Errc::cancelled, "the transport stopped"));
  end_early(make_error(Errc::cancelled, "the transport stopped"));
}

void RelayLink::start() {
  idle_since_ = shared_.runtime.now();
  connect();
}

Url RelayLink::peer_url(const NodeId& id) const {
  Result<Url> url = Url::parse(relay_.to_string() + "/" + sbd::to_path(id));
  K2_ASSERT(url.has_value());
  return *url;
}

std::optional<Url> RelayLink::url() const {
  if (state_ != State::ready) return std::nullopt;
  return peer_url(key_->id());
}

// ---------------------------------------------------------------- the relay connection

void RelayLink::connect() {
  if (state_ != State::offline) return;
  key_.reset();
  while (!key_) {
    NodeKey::Seed seed;
    shared_.entropy(seed);
    if (std::optional<NodeKey> key = NodeKey::from_seed(seed)) key_.emplace(std::move(*key));
    sodium_memzero(seed.data(), seed.size());
  }
  state_ = State::connecting;
  const std::uint64_t generation = ++generation_;
  WsOptions options;
  options.max_message_bytes = sbd::kMaxMessageBytes;
  options.max_queue_bytes = shared_.limits.max_socket_queue;
  options.tls_ca_file = shared_.tls_ca_file;
  options.pings = shared_.limits.pings;
  WsHandlers handlers;
  const auto current = [this, generation] { return generation == generation_; };
  handlers.on_open = lifetime_.guard([this, current] {
    if (current()) on_open();
  });
  handlers.on_message = lifetime_.guard([this, current](Bytes message) {
    if (current()) on_message(message);
  });
  handlers.on_close = lifetime_.guard([this, current](Error why) {
    if (current()) on_lost(why);
  });
  handlers.on_writable = lifetime_.guard([this, current] {
    if (!current()) return;
    pump();
    arm_timer();
  });
  socket_ = shared_.connector->connect(relay_.to_string() + "/" + sbd::to_path(key_->id()), options, handlers);
}

void RelayLink::on_open() {
  if (state_ != State::connecting) return;
  state_ = State::authenticating;
  client_.emplace(*key_, shared_.runtime.now());
  arm_timer();
}

void RelayLink::on_message(const Bytes& message) {
  if (state_ != State::authenticating && state_ != State::ready) return;
  const Time now = shared_.runtime.now();
  Result<SbdClient::Action> action = client_->on_message(message, now);
  if (!action) {
    on_lost(action.error());
    return;
  }
  switch (action->kind) {
    case SbdClient::Action::Kind::none:
      break;
    case SbdClient::Action::Kind::send:
      if (!socket_->send(action->bytes)) {
        on_lost(make_error(Errc::io, "the relay's socket takes no data"));
        return;
      }
      client_->on_sent(action->bytes.size(), now);
      break;
    case SbdClient::Action::Kind::ready:
      on_ready();
      break;
    case SbdClient::Action::Kind::forward:
      on_forward(action->peer, action->body);
      break;
    case SbdClient::Action::Kind::group:
      if (socket_->is_in_process()) learn_address(action->peer, action->group);
      break;
    case SbdClient::Action::Kind::credit:
      if (socket_->is_in_process()) on_credit(action->peer, action->credited);
      break;
    case SbdClient::Action::Kind::gone:
      if (socket_->is_in_process()) on_gone(action->peer);
      break;
  }
  if (state_ != State::ready) return;
  pump();
  arm_timer();
}

void RelayLink::on_ready() {
  state_ = State::ready;
  if (socket_->is_in_process()) shared_.addresses->begin(relay_);
  idle_since_ = shared_.runtime.now();
  reconnect_.on_connected(idle_since_);
  failure_.reset();
  log::debug("tx5", "connected to relay " + relay_.to_string());
  owner_.on_link_up(*this);
  std::deque<Early> early;
  early.swap(early_);
  early_bytes_ = 0;
  for (Early& e : early) send(e.peer, e.url, std::move(e.message), std::move(e.done));
}

void RelayLink::on_lost(const Error& why) {
  const bool was_ready = state_ == State::ready;
  if (state_ == State::offline || state_ == State::stopped) return;
  const Time now = shared_.runtime.now();
  log::debug("tx5", "relay " + relay_.to_string() + " lost: " + why.to_string());
  state_ = State::offline;
  if (!failure_) failure_.emplace().since = shared_.runtime.wall_now();
  failure_->error = why;
  failure_->attempts += 1;
  generation_ += 1;
  if (socket_) socket_->close();
  socket_.reset();
  client_.reset();
  key_.reset();
  shared_.runtime.cancel(timer_);
  timer_ = 0;
  deadlines_.clear();
  control_ring_.clear();
  large_ring_.clear();
  small_ring_.clear();
  closing_.clear();
  strangers_.clear();
  order_.clear();
  streams_.clear();  // they belonged to the node key, which is wiped
  streams_in_order_.clear();
  const Error error = make_error(Errc::disconnected, "the relay was lost: " + why.message);
  if (unsent_) shared_.complete(std::move(unsent_->done), error);
  unsent_.reset();

  std::map<NodeId, std::shared_ptr<Peer>> peers;
  peers.swap(peers_);
  for (auto& [id, peer] : peers) {
    peer->gone = true;
    peer->stranger.reset();
    shared_.peer_count -= 1;
    shared_.forget_permits(*peer);
    for (Handler<>& done : peer->connection.take_handlers()) shared_.complete(std::move(done), error);
  }
  end_early(unresponsive("the peer's relay could not be reached: " + why.message));

  if (role_ == Role::home) {
    connect_at(reconnect_.on_lost(now, random()));
  }
  // The owner's turn comes last: it may call back into here.
  for (auto& [id, peer] : peers) {
    if (std::exchange(peer->announced, false)) shared_.events->peer_disconnect(peer->url, error.message);
  }
  shared_.grant_waiting();
  if (was_ready) owner_.on_link_down(*this);
  if (role_ == Role::foreign) owner_.on_link_finished(*this);
}

std::uint32_t RelayLink::random() {
  std::array<std::uint8_t, sizeof(std::uint32_t)> bytes{};
  shared_.entropy(bytes);
  return std::bit_cast<std::uint32_t>(bytes);
}

void RelayLink::connect_at(Time when) {
  shared_.runtime.cancel(timer_);
  timer_at_ = when;
  timer_ = shared_.runtime.schedule(when, lifetime_.guard([this] {
    timer_ = 0;
    connect();
  }));
}

void RelayLink::on_server_answered() {
  if (state_ != State::offline || role_ != Role::home || timer_ == 0) return;
  if (const auto soon = reconnect_.on_sign_of_life(shared_.runtime.now(), random())) connect_at(*soon);
}

void RelayLink::end_early(const Error& why) {
  std::deque<Early> early;
  early.swap(early_);
  early_bytes_ = 0;
  for (Early& e : early) shared_.complete(std::move(e.done), why);
}

// ---------------------------------------------------------------- peers

std::shared_ptr<Peer> RelayLink::add_peer(const NodeId& id, const Url& url, Connection::Origin origin) {
  std::optional<SessionKeys> keys = SessionKeys::derive(*key_, id);
  if (!keys) return nullptr;
  auto peer = std::make_shared<Peer>(
      *this, id, url, std::move(*keys), shared_.connection, shared_.entropy, origin, shared_.runtime.now(),
      client_->round_trip(), socket_->is_in_process() ? SendCredit::Source::relay : SendCredit::Source::permits);
  peer->opened_at = shared_.runtime.wall_now();
  peer->serial = ++shared_.last_serial;
  peer->address = address_of(id);
  if (auto known = streams_.extract(id); !known.empty()) peer->connection.remember_streams(std::move(known.mapped()));
  peers_.emplace(id, peer);
  peer->rank = order_.size();
  order_.push_back(peer.get());
  shared_.peer_count += 1;
  return peer;
}

/// R6.
bool RelayLink::make_room_for_stranger(const NodeId& id) {
  const auto newcomer = address_of(id);
  const auto full = [this] { return shared_.peer_count >= shared_.limits.max_peers; };
  const std::size_t own_places = std::min(shared_.limits.max_strangers, shared_.limits.max_peers / 16);
  if (full() && strangers_.size() < own_places && evict(newcomer, Tell::later)) return !full();
  while (!strangers_.empty() && (full() || strangers_.size() >= shared_.limits.max_strangers)) {
    const std::shared_ptr<Peer> peer = stranger_to_go(newcomer);
    if (!peer) return false;
    close_peer(peer, make_error(Errc::overloaded, "too many peers connect at once"), {}, Tell::later);
  }
  return !full() || evict(newcomer, Tell::later);
}

/// The stranger that leaves: the oldest one, unless addresses are known. Null: the newcomer is refused.
std::shared_ptr<Peer> RelayLink::stranger_to_go(const std::optional<slots::Address>& newcomer) {
  std::vector<slots::Slot> sample;
  std::vector<std::shared_ptr<Peer>> who;
  bool known = false;
  for (const NodeId& id : strangers_) {
    if (sample.size() == slots::kSample) break;
    who.push_back(peers_.at(id));
    known = known || who.back()->address;
    sample.push_back({who.back()->address, who.back()->since, 0, false});
  }
  if (!known) return who.front();
  const auto chosen = slots::choose(sample, newcomer, random());
  return chosen ? who[*chosen] : nullptr;
}

bool RelayLink::keeps_its_place(const Peer& peer) {
  if (peer.stranger || peer.connection.has_data()) return true;
  const bool opening = peer.connection.phase() != Connection::Phase::open;
  return peer.dialled && (opening || peer.connection.has_queued() || peer.useful_bytes() > 0);
}

/// Gives the place of one of this link's peers away. False: all keep theirs.
bool RelayLink::evict(const std::optional<slots::Address>& newcomer, Tell tell) {
  const std::uint64_t drawn = std::uint64_t{random()} << 32 | random();
  Peer* chosen = slots::choose_from(order_, newcomer, drawn, [&](const Peer& peer) {
    const std::uint64_t useful = shared_.usefulness ? shared_.usefulness(peer.url) : peer.useful_bytes();
    return std::optional(slots::Slot{peer.address, peer.since, useful, keeps_its_place(peer)});
  });
  if (chosen == nullptr) return false;
  close_peer(chosen->shared_from_this(), make_error(Errc::overloaded, "its place is given to a newcomer"), {}, tell);
  return true;
}

void RelayLink::leave_order(Peer& peer) {
  order_[peer.rank] = order_.back();
  order_[peer.rank]->rank = peer.rank;
  order_.pop_back();
}

std::optional<slots::Address> RelayLink::address_of(const NodeId& id) const {
  return socket_->is_in_process() ? shared_.addresses->of(id) : std::nullopt;
}

void RelayLink::learn_address(const NodeId& id, const slots::Address& address) {
  shared_.addresses->learn(id, address);
  if (const auto found = peers_.find(id); found != peers_.end()) found->second->address = address;
}

/// Remembers what is known of the peer's streams, for its next connection under the same keys.
void RelayLink::remember_streams(const Peer& peer) {
  if (peer.connection.streams().empty()) return;
  if (streams_.insert_or_assign(peer.id, peer.connection.streams()).second) streams_in_order_.push_back(peer.id);
  // The order may name peers that have returned; they come to the front once more when they leave.
  while (streams_in_order_.size() > shared_.limits.max_stream_memories) {
    streams_.erase(streams_in_order_.front());
    streams_in_order_.pop_front();
  }
}

void RelayLink::on_credit(const NodeId& id, std::uint32_t bytes) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  found->second->connection.on_credit_returned(bytes, shared_.runtime.now());
  touch(found->second);
}

/// R7.
void RelayLink::on_gone(const NodeId& id) {
  shared_.addresses->forget(id);
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  const std::shared_ptr<Peer> peer = found->second;
  close_peer(peer, make_error(Errc::disconnected, "it has left the relay"), {}, Tell::now);
}

void RelayLink::forget_stranger(Peer& peer) {
  if (!peer.stranger) return;
  strangers_.erase(*peer.stranger);
  peer.stranger.reset();
}

void RelayLink::on_forward(const NodeId& from, ByteView body) {
  if (from == key_->id()) return;
  auto found = peers_.find(from);
  std::shared_ptr<Peer> peer;
  if (found != peers_.end()) {
    peer = found->second;
  } else {
    // From an unknown peer only a new stream can be read. Anything else must cost nothing.
    if (role_ == Role::foreign || body.size() != 1 + kStreamHeaderBytes || body[0] != kNewStream) return;
    if (!make_room_for_stranger(from)) return;
    if (state_ != State::ready || peers_.contains(from)) return;
    peer = add_peer(from, peer_url(from), Connection::Origin::peer);
    if (!peer) return;
    peer->stranger = strangers_.insert(strangers_.end(), from);
  }
  process(peer, peer->connection.on_body(body, shared_.runtime.now()));
}

bool RelayLink::open_peer(const std::shared_ptr<Peer>& peer) {
  forget_stranger(*peer);
  Result<Bytes> preflight = shared_.events->peer_connect(peer->url);
  if (!preflight) {
    if (!peer->gone) close_peer(peer, preflight.error(), {}, Tell::now);
    return false;
  }
  if (peer->gone) {
    shared_.events->peer_disconnect(peer->url, std::nullopt);
    return false;
  }
  peer->announced = true;
  if (auto opened = peer->connection.open_with(std::move(*preflight), shared_.runtime.now()); !opened) {
    close_peer(peer, opened.error(), {}, Tell::now);
    return false;
  }
  return true;
}

void RelayLink::process(const std::shared_ptr<Peer>& peer, Connection::Outcome outcome) {
  if ((outcome.error || outcome.restarted || outcome.handshake_done) && log::enabled(log::Level::debug) &&
      peer_log_.open(shared_.runtime.now())) {
    log::debug("tx5", peer->url.to_string() + ": " +
                          (outcome.error       ? outcome.error->to_string()
                           : outcome.restarted ? "the peer started over"
                                               : "handshake done") +
                          peer_log_.left_out());
  }
  if (outcome.error) {
    close_peer(peer, *outcome.error, {}, Tell::now);
    return;
  }
  if (outcome.restarted) {
    shared_.release_permit(*peer);
    schedule_grants();
    if (std::exchange(peer->announced, false)) {
      shared_.events->peer_disconnect(peer->url, "the connection began anew");
      if (peer->gone) return;
    }
  }
  if (outcome.handshake_done && !open_peer(peer)) return;
  if (outcome.permit_wanted) {
    shared_.want_permit(*peer);
    shared_.grant_waiting();
  }
  if (outcome.permit_done) {
    shared_.on_permit_used(*peer);
    shared_.grant_waiting();
  }
  if (outcome.progress > 0) {
    shared_.events->recv_progress(peer->url, outcome.progress);
    if (peer->gone) return;
  }
  if (outcome.message) {
    const Result<void> taken = shared_.events->recv_data(peer->url, std::move(*outcome.message));
    if (peer->gone) return;
    if (!taken) {
      close_peer(peer, taken.error(), {}, Tell::now);
      return;
    }
  }
  touch(peer);
}

void RelayLink::close_peer(const std::shared_ptr<Peer>& peer, const Error& why, const Bytes& farewell, Tell tell) {
  if (peer->gone) return;
  peer->gone = true;
  peers_.erase(peer->id);
  leave_order(*peer);
  remember_streams(*peer);
  shared_.peer_count -= 1;
  if (peers_.empty()) idle_since_ = shared_.runtime.now();
  forget_stranger(*peer);
  if (peer->armed) deadlines_.erase({*peer->armed, peer->id});
  peer->armed.reset();
  shared_.forget_permits(*peer);
  if (why.code != Errc::disconnected) {
    std::vector<Bytes> frames = peer->connection.closing_frames(farewell);
    if (closing_.size() + frames.size() <= shared_.limits.max_closing_frames) {
      std::ranges::move(frames, std::back_inserter(closing_));
    }
  }
  const Error error = unresponsive("the connection was closed: " + why.message);
  for (Handler<>& done : peer->connection.take_handlers()) shared_.complete(std::move(done), error);
  schedule_pump();
  schedule_grants();
  if (!std::exchange(peer->announced, false)) return;
  if (tell == Tell::now) {
    shared_.events->peer_disconnect(peer->url, why.message);
  } else {
    shared_.runtime.post(lifetime_.guard([this, url = peer->url, reason = why.message] {
      shared_.events->peer_disconnect(url, reason.empty() ? std::nullopt : std::optional(reason));
    }));
  }
}

void RelayLink::touch(const std::shared_ptr<Peer>& peer) {
  if (peer->gone) return;
  if (!peer->in_control && peer->connection.has_control()) {
    peer->in_control = true;
    control_ring_.push_back(peer);
  }
  if (!peer->in_data && peer->connection.has_data()) {
    peer->in_data = true;
    (peer->connection.next_data_bytes() > kSmallBytes ? large_ring_ : small_ring_).push_back(peer);
  }
  const Time next = peer->connection.next_deadline();
  if (!peer->armed || next < *peer->armed) {
    if (peer->armed) deadlines_.erase({*peer->armed, peer->id});
    peer->armed = next;
    deadlines_.emplace(next, peer->id);
  }
}

// ---------------------------------------------------------------- calls from the owner

void RelayLink::send(const NodeId& id, const Url& url, ByteChain message, Handler<> done) {
  if (state_ != State::ready) {
    if (role_ == Role::home || state_ == State::stopped) {
      shared_.complete(std::move(done), make_error(Errc::disconnected, "not connected to the relay"));
    } else if (early_bytes_ + message.size() > shared_.connection.max_queue_bytes) {
      shared_.complete(std::move(done), make_error(Errc::overloaded, "the queue to this relay is full"));
    } else {
      early_bytes_ += message.size() + Connection::kMessageOverhead;
      early_.push_back({id, url, std::move(message), std::move(done)});
    }
    return;
  }
  auto found = peers_.find(id);
  std::shared_ptr<Peer> peer;
  if (found != peers_.end()) {
    peer = found->second;
    // The peer has begun a stream and sent no more; it may have given up.
    forget_stranger(*peer);
    peer->dialled = true;
    peer->connection.dial(shared_.runtime.now());
  } else {
    if (id == key_->id()) {
      shared_.complete(std::move(done), make_error(Errc::invalid_argument, "the peer is this node"));
      return;
    }
    if (shared_.peer_count >= shared_.limits.max_peers && !owner_.make_room(*this)) {
      shared_.complete(std::move(done), make_error(Errc::overloaded, "connected to too many peers"));
      return;
    }
    peer = add_peer(id, url, Connection::Origin::local);
    if (!peer) {
      shared_.complete(std::move(done), make_error(Errc::invalid_argument, "the peer's url has no valid key"));
      return;
    }
  }
  if (auto queued = peer->connection.enqueue(std::move(message), done); !queued) {
    shared_.complete(std::move(done), queued.error());
  }
  touch(peer);
  schedule_pump();
}

void RelayLink::disconnect(const NodeId& id, const std::string& reason, const Bytes& farewell) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  const std::shared_ptr<Peer> peer = found->second;
  close_peer(peer, make_error(Errc::cancelled, reason), farewell, Tell::later);
}

std::optional<Duration> RelayLink::round_trip(const NodeId& id) const {
  const auto found = peers_.find(id);
  return found == peers_.end() ? std::nullopt : found->second->connection.round_trip();
}

std::uint64_t RelayLink::sent_mark(const NodeId& id) const {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return 0;
  const std::uint64_t bytes = found->second->connection.next_position();
  return bytes == 0 || bytes > kMarkBytes ? 0 : found->second->serial * (kMarkBytes + 1) + bytes;
}

void RelayLink::was_read(const NodeId& id, std::uint64_t mark) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  const std::shared_ptr<Peer> peer = found->second;
  if (mark - mark % (kMarkBytes + 1) != peer->serial * (kMarkBytes + 1)) return;
  peer->connection.on_read(mark % (kMarkBytes + 1), shared_.runtime.now());
  touch(peer);
  schedule_pump();
}

void RelayLink::wasted(const NodeId& id, std::uint64_t bytes) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  found->second->wasted_bytes += bytes;
  shared_.wasted(*found->second, bytes);
}

void RelayLink::append_stats(std::vector<TransportConnectionStats>& out) const {
  for (const auto& [id, peer] : peers_) {
    if (!peer->announced) continue;
    const Connection::Stats& stats = peer->connection.stats();
    TransportConnectionStats entry;
    entry.peer = peer->url;
    entry.send_message_count = stats.sent_messages;
    entry.send_bytes = stats.sent_bytes;
    entry.recv_message_count = stats.received_messages;
    entry.recv_bytes = stats.received_bytes;
    entry.opened_at = peer->opened_at;
    out.push_back(std::move(entry));
  }
}

void RelayLink::stop(std::function<void()> done) {
  std::vector<std::shared_ptr<Peer>> peers;
  for (auto& [id, peer] : peers_) peers.push_back(peer);
  const Error stopped = make_error(Errc::cancelled, "the transport stopped");
  for (const auto& peer : peers) close_peer(peer, stopped, {}, Tell::later);
  if (state_ == State::ready) {
    // The closing frames are sent without pacing: a few dozen bytes for each peer. Those that the socket refuses are
    // lost.
    if (unsent_) static_cast<void>(socket_->send(unsent_->frame));
    for (const Bytes& frame : closing_) {
      if (!socket_->send(frame)) break;
    }
  }
  if (unsent_) shared_.complete(std::move(unsent_->done), stopped);
  unsent_.reset();
  closing_.clear();
  control_ring_.clear();
  large_ring_.clear();
  small_ring_.clear();
  end_early(stopped);
  shared_.runtime.cancel(timer_);
  timer_ = 0;
  const bool linger = state_ == State::ready;
  state_ = State::stopped;
  generation_ += 1;
  client_.reset();
  key_.reset();
  stopped_ = std::move(done);
  linger_until_ = shared_.runtime.now() + (linger ? kLingerLimit : Duration(0));
  shared_.runtime.post(lifetime_.guard([this] { end_linger(); }));
}

void RelayLink::end_linger() {
  if (socket_ && socket_->queued_bytes() > 0 && shared_.runtime.now() < linger_until_) {
    shared_.runtime.schedule_after(kLingerStep, lifetime_.guard([this] { end_linger(); }));
    return;
  }
  if (socket_) socket_->close();
  socket_.reset();
  if (auto stopped = std::exchange(stopped_, nullptr)) stopped();
}

// ---------------------------------------------------------------- output and time

void RelayLink::schedule_pump() {
  if (pump_posted_ || state_ != State::ready) return;
  pump_posted_ = true;
  shared_.runtime.post(lifetime_.guard([this] {
    pump_posted_ = false;
    pump();
    arm_timer();
  }));
}

void RelayLink::schedule_grants() {
  if (!shared_.permits_waited_for()) return;
  shared_.runtime.post(lifetime_.guard([this] { shared_.grant_waiting(); }));
}

std::optional<Connection::Pulled> RelayLink::next_frame() {
  if (!closing_.empty()) {
    Connection::Pulled out{std::move(closing_.front()), {}};
    closing_.pop_front();
    return out;
  }
  const Time now = shared_.runtime.now();
  while (!control_ring_.empty() || has_data()) {
    const bool control = !control_ring_.empty() && (control_streak_ < kControlStreak || !has_data());
    const bool small = large_ring_.empty() || (!small_ring_.empty() && small_bytes_ < kSmallBytes);
    std::deque<std::shared_ptr<Peer>>& ring = control ? control_ring_ : small ? small_ring_ : large_ring_;
    const std::shared_ptr<Peer> peer = std::move(ring.front());
    ring.pop_front();
    (control ? peer->in_control : peer->in_data) = false;
    if (peer->gone || !(control ? peer->connection.has_control() : peer->connection.has_data())) continue;
    control_streak_ = control ? control_streak_ + 1 : 0;
    Connection::Pulled out = control ? peer->connection.pull_control(now) : peer->connection.pull_data(now);
    if (!control) small_bytes_ = small ? std::min(small_bytes_ + out.frame.size(), kSmallBytes) : 0;
    touch(peer);
    return out;
  }
  return std::nullopt;
}

bool RelayLink::hand_over(Bytes frame, Handler<> done) {
  if (!socket_->send(frame)) {
    unsent_.emplace(Unsent{std::move(frame), std::move(done)});
    return false;
  }
  client_->on_sent(frame.size(), shared_.runtime.now());
  if (done) shared_.complete(std::move(done), {});
  return true;
}

void RelayLink::pump() {
  if (state_ != State::ready) return;
  if (unsent_) {
    Unsent unsent = std::move(*unsent_);
    unsent_.reset();
    if (!hand_over(std::move(unsent.frame), std::move(unsent.done))) return;
  }
  while (client_->may_send(shared_.runtime.now())) {
    std::optional<Connection::Pulled> next = next_frame();
    if (!next || !hand_over(std::move(next->frame), std::move(next->done))) return;
  }
}

void RelayLink::on_timer() {
  timer_ = 0;
  const Time now = shared_.runtime.now();
  if (client_ && client_->is_handshake_overdue(now)) {
    on_lost(make_error(Errc::timed_out, "the relay did not accept us in time"));
    return;
  }
  if (state_ != State::ready) {
    arm_timer();
    return;
  }
  if (std::optional<Bytes> keepalive = client_->keepalive(now)) {
    // A refusal means that the socket is full of other data: no need for a keepalive.
    static_cast<void>(socket_->send(*keepalive));
    client_->on_sent(keepalive->size(), now);
  }
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const NodeId id = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    const auto found = peers_.find(id);
    K2_ASSERT(found != peers_.end());
    const std::shared_ptr<Peer> peer = found->second;
    peer->armed.reset();
    process(peer, peer->connection.on_time(now));
    if (state_ != State::ready) return;
  }
  if (shared_.permits_waited_for()) shared_.evict_stalled();
  if (role_ == Role::foreign && peers_.empty() && closing_.empty() &&
      now >= idle_since_ + shared_.limits.foreign_idle) {
    on_lost(make_error(Errc::cancelled, "not used"));
    return;
  }
  pump();
  arm_timer();
}

void RelayLink::arm_timer() {
  if (!client_ || state_ == State::offline || state_ == State::stopped) return;
  const Time now = shared_.runtime.now();
  Time next = client_->next_deadline();
  if (state_ == State::ready) {
    if (!deadlines_.empty()) next = std::min(next, deadlines_.begin()->first);
    if (has_output() && !unsent_) next = std::min(next, client_->next_send());
    if (shared_.permits_waited_for()) next = std::min(next, now + kEvictInterval);
    if (role_ == Role::foreign && peers_.empty()) next = std::min(next, idle_since_ + shared_.limits.foreign_idle);
  }
  if (timer_ != 0 && timer_at_ <= next) return;
  shared_.runtime.cancel(timer_);
  timer_at_ = next;
  timer_ = shared_.runtime.schedule(next, lifetime_.guard([this] { on_timer(); }));
}

// ---------------------------------------------------------------- permits

void LinkShared::complete(Handler<> done, Result<void> result) {
  if (!done) return;
  runtime.post([done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
}

PermitBank::Holder LinkShared::holder_of(Peer& peer) {
  if (peer.holder == 0) {
    peer.holder = ++last_holder;
    holders.emplace(peer.holder, &peer);
  }
  return peer.holder;
}

void LinkShared::want_permit(Peer& peer) {
  permits.ask(holder_of(peer), peer.connection.permit_bytes(), runtime.now());
  arm_permits();
}

void LinkShared::on_permit_used(Peer& peer) { permits.on_used(holder_of(peer)); }

void LinkShared::wasted(Peer& peer, std::uint64_t bytes) {
  permits.wasted(holder_of(peer), bytes, runtime.now());
  arm_permits();
}

void LinkShared::grant_waiting() {
  while (const auto holder = permits.next_grant(runtime.now())) {
    Peer& peer = *holders.at(*holder);
    peer.connection.grant();
    peer.link.touch(peer.shared_from_this());
    peer.link.schedule_pump();
  }
}

void LinkShared::release_permit(Peer& peer) {
  if (peer.holder != 0) permits.release(peer.holder);
}

void LinkShared::forget_permits(Peer& peer) {
  if (peer.holder == 0) return;
  permits.forget(peer.holder);
  holders.erase(peer.holder);
  peer.holder = 0;
}

void LinkShared::evict_stalled() {
  const auto progress = [this](PermitBank::Holder holder) {
    const Connection& granted = holders.at(holder)->connection;
    return PermitBank::Progress{granted.last_chunk(), granted.permit_received()};
  };
  while (const auto holder = permits.stalled(runtime.now(), progress)) {
    const auto peer = holders.at(*holder)->shared_from_this();
    peer->link.close_peer(peer, make_error(Errc::overloaded, "a permit that others wait for is not used"), {},
                          RelayLink::Tell::now);
  }
}

/// Wakes requests for permits that have to wait because of what their peers have wasted.
void LinkShared::arm_permits() {
  const std::optional<Time> next = permits.next_deadline();
  if (!next || (permit_timer != 0 && permit_alarm <= *next)) return;
  runtime.cancel(permit_timer);
  permit_alarm = *next;
  permit_timer = runtime.schedule(*next, lifetime.guard([this] {
    permit_timer = 0;
    permits.on_time(runtime.now());
    grant_waiting();
    arm_permits();
  }));
}

}  // namespace kitsune2::tx5
