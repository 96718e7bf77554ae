// The transport's backend over QUIC through an iroh relay: connections, messages that wait for them, and whose turn it
// is.
#include "transport/iroh/iroh_transport.hpp"

#include <sodium.h>

#include <algorithm>
#include <array>
#include <bit>
#include <tuple>

#include "core/slots/slots.hpp"
#include "kitsune2/dialect.hpp"
#include "log/log.hpp"
#include "transport/iroh/built.hpp"

namespace kitsune2 {
namespace iroh {
namespace {

constexpr std::size_t kMaxReason = 1024;
constexpr std::string_view kStopReason = "the node stops";
constexpr const char* kStopped = "the transport stopped";
/// While a permit is waited for, stalled ones are looked for this often.
constexpr Duration kStallInterval = std::chrono::seconds(1);
/// T12. Long enough for a datagram that is lost and sent again; a stop as a whole stays within a second.
constexpr Duration kStopPatience = std::chrono::milliseconds(500);
/// Connections beyond maxPeers that may be in their handshake or their end.
constexpr std::size_t kSpareConnections = 512;

std::string websocket_server(const Url& relay) {
  return (relay.uses_tls() ? "wss://" : "ws://") + std::string(relay.addr());
}

Error bad_config(std::string_view key, const std::string& what) {
  return make_error(Errc::invalid_config, "irohTransport." + std::string(key) + ": " + what);
}

/// What is wrong with a number or an address that no node's configuration has judged.
Result<void> check_values(const IrohTransportConfig& config) {
  const std::tuple<const char*, std::uint64_t, KeyRange> numbers[] = {
      {"maxFrameBytes", config.max_frame_bytes, IrohTransportConfig::kMaxFrameBytes},
      {"connectTimeoutS", config.connect_timeout_s, IrohTransportConfig::kConnectTimeoutS},
      {"maxQueueBytesPerPeer", config.max_queue_bytes_per_peer, IrohTransportConfig::kMaxQueueBytesPerPeer},
      {"maxPeers", config.max_peers, IrohTransportConfig::kMaxPeers},
  };
  for (const auto& [key, value, range] : numbers) {
    if (const std::string fault = range.fault(value); !fault.empty()) return bad_config(key, fault);
  }
  const std::pair<const char*, std::optional<std::string>> addresses[] = {
      {"directBindAddress", config.direct_bind_address},
      {"directExternalAddress", config.direct_external_address},
  };
  for (const auto& [key, text] : addresses) {
    if (!text) continue;
    if (const std::string fault = fault_of_address(*text); !fault.empty()) return bad_config(key, fault);
  }
  return {};
}

/// A peer that closes as if another connection were active, and has none, must not have a message sent for ever.
constexpr unsigned kMostMoves = 3;

/// What peers may have sent ahead of what is read, on all connections together, as long as each has its least window.
constexpr std::uint64_t kMaxUnread = std::uint64_t{2} << 30U;
constexpr std::uint64_t kLeastWindow = 256U << 10U;

/// What the QUIC library may allocate for all connections: for quiet ones, and beyond that.
constexpr std::size_t kLibraryBytesOfPeer = 96U << 10U;
constexpr std::size_t kLibraryBytes = 256U << 20U;

/// The dialect of the node, or 0.5 for an owner that has set none that uses iroh.
Dialect dialect_of_node(const NetworkConfig& network) {
  return uses_iroh(network.spoken()) ? network.spoken() : Dialect::v0_5;
}

quic::Config quic_config(const IrohTransportConfig& config, Dialect dialect,
                         std::function<void(DatagramFilter::Name)> mark_name) {
  quic::Config out;
  out.mark_name = std::move(mark_name);
  out.server_name = dials_by_name(dialect);
  out.connection_window = std::clamp<std::uint64_t>(kMaxUnread / config.max_peers, kLeastWindow, out.connection_window);
  out.stream_window = std::min(out.stream_window, out.connection_window);
  out.handshake_timeout = std::chrono::seconds(config.connect_timeout_s);
  out.max_queue_bytes = config.max_queue_bytes_per_peer;
  return out;
}

quic::EndpointLimits endpoint_limits(const IrohTransportConfig& config) {
  quic::EndpointLimits out;
  out.max_connections = config.max_peers + kSpareConnections;
  out.max_library_bytes = kLibraryBytes + config.max_peers * kLibraryBytesOfPeer;
  return out;
}

}  // namespace

// ---------------------------------------------------------------- start and end

Result<std::unique_ptr<IrohTransport>> IrohTransport::create(Runtime& runtime, std::shared_ptr<WsConnector> connector,
                                                             const IrohTransportConfig& config,
                                                             const NetworkConfig& network,
                                                             const EndpointKey::Seed& seed, RelayAccess access,
                                                             std::shared_ptr<UdpBinder> binder) {
  if (sodium_init() < 0) return make_error(Errc::internal, "libsodium could not be initialised");
  K2_ASSERT(check_values(config).has_value());
  Result<Url> relay = relay_of(config);
  if (!relay) return relay.error();
  Result<std::shared_ptr<const quic::Identity>> identity = quic::Identity::create(seed);
  if (!identity) return identity.error();
  RelayLinkOptions options;
  options.server = websocket_server(*relay);
  options.tls_ca_file = network.tls_ca_file;
  options.access = std::move(access);
  const Dialect dialect = dialect_of_node(network);
  if (!offers_relay_v2(dialect)) options.versions = std::string(to_string(RelayVersion::v1));
  return std::unique_ptr<IrohTransport>(new IrohTransport(
      runtime, std::move(connector), config, dialect, std::move(options), *relay, seed, *identity, std::move(binder)));
}

IrohTransport::IrohTransport(Runtime& runtime, std::shared_ptr<WsConnector> connector,
                             const IrohTransportConfig& config, Dialect dialect, RelayLinkOptions relay_options,
                             Url relay, const EndpointKey::Seed& seed, std::shared_ptr<const quic::Identity> identity,
                             std::shared_ptr<UdpBinder> binder)
    : runtime_(runtime),
      config_(config),
      dialect_(dialect),
      relay_(std::move(relay)),
      key_(seed),
      own_url_(endpoint_url(relay_, key_.id())),
      endpoint_(
          std::move(identity),
          quic_config(config, dialect,
                      [this](DatagramFilter::Name name) {
                        if (filter_) filter_->mark(name);
                      }),
          [&runtime](std::span<std::uint8_t> out) { runtime.random_bytes(out); }, endpoint_limits(config)),
      registry_(key_.id(), one_connection_counts(dialect) ? Registry::Spares::closed : Registry::Spares::kept),
      relay_link_(runtime, std::move(connector), key_, std::move(relay_options), *this),
      binder_(std::move(binder)) {
  permit_limits_.max_granted_bytes = std::max(permit_limits_.max_granted_bytes, config.max_frame_bytes);
  permit_limits_.longest_waste_wait = kLongestWasteWait;
  endpoint_.group_by([this](const EndpointId& peer) { return addresses_->of(peer); });
}

IrohTransport::~IrohTransport() {
  runtime_.cancel(timer_);
  close_socket();
  const Error stopped = make_error(Errc::cancelled, kStopped);
  for (const auto& [id, link] : links_) {
    link->gone = true;
    for (auto& [ticket, message] : link->sent) complete(std::move(message.done), stopped);
  }
  for (auto& [key, waiting] : waiting_) {
    for (Message& message : waiting.messages) complete(std::move(message.done), stopped);
  }
}

void IrohTransport::start(TransportEvents& events) {
  K2_ASSERT(events_ == nullptr);
  events_ = &events;
  open_socket();
  relay_link_.start();
}

std::optional<Url> IrohTransport::url() const { return relay_link_.up() ? std::optional(own_url_) : std::nullopt; }

void IrohTransport::stop(std::function<void()> done) {
  if (stop_by_ || events_ == nullptr) {
    runtime_.post(std::move(done));
    return;
  }
  stop_by_ = runtime_.now() + kStopPatience;
  on_stopped_ = std::move(done);
  while (!waiting_.empty()) fail_waiting(waiting_.begin()->first, make_error(Errc::cancelled, kStopped));
  turn();
}

/// T12.
bool IrohTransport::is_delivering(const Link& link) {
  const quic::Connection* connection = endpoint_.find(link.id);
  const bool is_reachable = relay_link_.up() || (direct_ && direct_->route(link.id));
  return connection != nullptr && is_reachable && connection->is_open() &&
         connection->queued_bytes() + connection->unacknowledged_bytes() > 0;
}

void IrohTransport::stop_if_delivered() {
  const auto delivering = [this](const auto& link) { return is_delivering(*link.second); };
  if (runtime_.now() < *stop_by_ && std::ranges::any_of(links_, delivering)) return;
  stopped_ = true;
  for (const auto& [id, link] : std::map(links_)) close_for_stop(link, Tell::later);
  while (!waiting_.empty()) fail_waiting(waiting_.begin()->first, make_error(Errc::cancelled, kStopped));
  pump();
  unsent_.reset();
  close_socket();
  runtime_.cancel(std::exchange(timer_, 0));
  relay_link_.stop(std::move(on_stopped_));
}

void IrohTransport::close_for_stop(const std::shared_ptr<Link>& link, Tell tell) {
  const std::string reason(kStopReason);
  close(link, close_code::kOnPurpose, reason, {false, make_error(Errc::cancelled, kStopped), reason}, tell);
}

// ---------------------------------------------------------------- calls from the owner

std::optional<EndpointId> IrohTransport::peer_on_our_relay(const Url& peer) const {
  const std::optional<EndpointId> id = endpoint_id(peer);
  return id && peer.relay() == relay_ ? id : std::nullopt;
}

IrohTransport::Link* IrohTransport::active_link(const EndpointId& key) const {
  const std::optional<Registry::Id> holder = registry_.holder(key);
  if (!holder) return nullptr;
  Link* link = links_.at(*holder).get();
  return link->greeted ? link : nullptr;
}

void IrohTransport::complete(Handler<> done, Result<void> result) {
  if (!done) return;
  runtime_.post([done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
}

Error IrohTransport::unreachable(const std::string& why) const {
  if (!relay_link_.up()) return make_error(Errc::disconnected, "not connected to the relay");
  return make_error(Errc::peer_unresponsive, why);
}

void IrohTransport::send(const Url& peer, ByteChain message, Handler<> done) {
  if (stop_by_ || events_ == nullptr) {
    complete(std::move(done), make_error(Errc::disconnected, "the transport is stopped"));
    return;
  }
  const std::optional<EndpointId> id = endpoint_id(peer);
  if (!id || *id == key_.id()) {
    complete(std::move(done), make_error(Errc::invalid_argument,
                                         id ? "the peer is this node" : "not a peer's url: " + peer.to_string()));
    return;
  }
  if (!peer_on_our_relay(peer)) {
    complete(std::move(done), make_error(Errc::peer_unresponsive, "the peer is on another relay: " + peer.to_string()));
    return;
  }
  if (message.size() > max_message_bytes()) {
    complete(std::move(done),
             make_error(Errc::too_large, "a message of " + std::to_string(message.size()) + " bytes; the most is " +
                                             std::to_string(max_message_bytes())));
    return;
  }
  Message framed{encode_data(message), std::move(done), false};
  if (Link* link = active_link(*id)) {
    hand_over(*link, std::move(framed));
  } else {
    wait_for_connection(*id, std::move(framed));
  }
  schedule_turn();
}

bool IrohTransport::hand_over(Link& link, Message message) {
  quic::Connection* connection = endpoint_.find(link.id);
  const Result<quic::Connection::Ticket> ticket =
      connection != nullptr ? connection->send(message.frame)
                            : Result<quic::Connection::Ticket>(make_error(Errc::peer_unresponsive, "it has ended"));
  if (!ticket) {
    complete(std::move(message.done), ticket.error().code == Errc::overloaded
                                          ? ticket.error()
                                          : unreachable("the connection was closed: " + ticket.error().message));
    return false;
  }
  link.sent_messages += 1;
  link.sent_bytes += message.frame.size();
  link.sent.emplace(*ticket, std::move(message));
  endpoint_.touched(link.id);
  return true;
}

void IrohTransport::wait_for_connection(const EndpointId& key, Message message) {
  if (!relay_link_.up()) {
    complete(std::move(message.done), unreachable({}));
    return;
  }
  const auto [found, is_first] = waiting_.try_emplace(key);
  Waiting& waiting = found->second;
  if (!is_first && waiting.bytes + message.frame.size() > config_.max_queue_bytes_per_peer) {
    complete(std::move(message.done), make_error(Errc::overloaded, "too much waits to be sent to this peer"));
    return;
  }
  if (is_first) {
    waiting.until = runtime_.now() + std::chrono::seconds(config_.connect_timeout_s);
    waiting_until_.emplace(waiting.until, key);
  }
  waiting.bytes += message.frame.size();
  waiting.messages.push_back(std::move(message));
  if (!registry_.holder(key) && !dials_.contains(key)) dial(key);
}

void IrohTransport::dial(const EndpointId& key) {
  if (places_ >= config_.max_peers && !make_room()) {
    fail_waiting(key, make_error(Errc::overloaded, "connected to too many peers"));
    return;
  }
  const Result<Id> id = endpoint_.dial(key, runtime_.now());
  if (!id) {
    fail_waiting(key, id.error());
    return;
  }
  add(*id, key, true);
  dials_.emplace(key, *id);
}

std::shared_ptr<IrohTransport::Link> IrohTransport::add(Id id, const EndpointId& key, bool dialled) {
  auto link = std::make_shared<Link>(id, key, endpoint_url(relay_, key));
  link->dialled = dialled;
  link->since = runtime_.now();
  links_.emplace(id, link);
  if (has_place(*link)) ++places_;
  return link;
}

bool IrohTransport::is_keeping_its_place(const Link& link) {
  const quic::Connection* connection = endpoint_.find(link.id);
  const bool has_queued = connection != nullptr && connection->queued_bytes() > 0;
  return has_queued || (link.dialled && (!link.greeted || link.received_bytes > 0));
}

bool IrohTransport::make_room() {
  std::vector<Link*> places;
  for (const auto& [id, link] : links_) {
    if (has_place(*link)) places.push_back(link.get());
  }
  std::array<std::uint8_t, sizeof(std::uint64_t)> drawn{};
  runtime_.random_bytes(drawn);
  Link* chosen = slots::choose_from(places, std::nullopt, std::bit_cast<std::uint64_t>(drawn), [&](const Link& link) {
    const std::uint64_t useful = usefulness_ ? usefulness_(link.url) : link.received_bytes;
    return std::optional(slots::Slot{addresses_->of(link.key), link.since, useful, is_keeping_its_place(link)});
  });
  if (chosen == nullptr) return false;
  const std::string why = "its place is given to a newcomer";
  close(std::shared_ptr<Link>(links_.at(chosen->id)), close_code::kOnPurpose, why, {false, unreachable(why), why},
        Tell::later);
  return true;
}

void IrohTransport::fail_waiting(const EndpointId& key, const Error& why) {
  const auto found = waiting_.find(key);
  if (found == waiting_.end()) return;
  waiting_until_.erase({found->second.until, key});
  std::deque<Message> messages = std::move(found->second.messages);
  waiting_.erase(found);
  for (Message& message : messages) complete(std::move(message.done), why);
}

void IrohTransport::flush(const std::shared_ptr<Link>& link) {
  const auto found = waiting_.find(link->key);
  if (found == waiting_.end()) return;
  waiting_until_.erase({found->second.until, link->key});
  std::deque<Message> messages = std::move(found->second.messages);
  waiting_.erase(found);
  for (Message& message : messages) hand_over(*link, std::move(message));
}

void IrohTransport::disconnect(const Url& peer, const CloseReason& reason, Bytes /*farewell*/) {
  const std::optional<EndpointId> key = peer_on_our_relay(peer);
  if (!key || stopped_) return;
  const End how{false, make_error(Errc::peer_unresponsive, "the connection was closed: " + reason.text), reason.text};
  const auto code = static_cast<std::uint64_t>(reason.code);
  for (const auto& [id, link] : std::map(links_)) {
    if (link->key == *key) close(link, code, reason.text, how, Tell::later);
  }
  schedule_turn();
}

std::optional<Duration> IrohTransport::round_trip(const Url& peer) const {
  const std::optional<EndpointId> key = peer_on_our_relay(peer);
  const Link* link = key ? active_link(*key) : nullptr;
  if (link == nullptr) return std::nullopt;
  // The endpoint gives no constant access, because it has to learn of what is done with a connection; this does
  // nothing.
  quic::Connection* connection = const_cast<quic::Endpoint&>(endpoint_).find(link->id);  // NOLINT
  return connection != nullptr ? connection->round_trip() : std::nullopt;
}

TransportStats IrohTransport::stats() const {
  TransportStats stats;
  stats.backend = "iroh-relay";
  if (const std::optional<Url> own = url()) stats.peer_urls.push_back(*own);
  for (const auto& [id, link] : links_) {
    if (!link->announced) continue;
    TransportConnectionStats entry;
    entry.peer = link->url;
    entry.send_message_count = link->sent_messages;
    entry.send_bytes = link->sent_bytes;
    entry.recv_message_count = link->received_messages;
    entry.recv_bytes = link->received_bytes;
    entry.opened_at = link->opened_at;
    entry.is_direct = direct_ && direct_->route(id).has_value();
    stats.connections.push_back(std::move(entry));
  }
  return stats;
}

// ---------------------------------------------------------------- the relay

void IrohTransport::on_relay_up() {
  if (relay_link_.is_in_process()) addresses_->begin(relay_);
  events_->new_listening_address(own_url_);
  turn();
}

void IrohTransport::on_relay_down() {
  unsent_.reset();
  relay_probes_.clear();
  events_->listening_address_lost();
  if (stopped_) return;
  if (direct_) {
    direct_->on_relay_lost(runtime_.now());
    apply_routes();
  }
  turn();
}

void IrohTransport::on_relay_datagrams(const Datagrams& datagrams) {
  if (stopped_) return;
  const Time now = runtime_.now();
  const std::size_t size = datagrams.segment_size == 0 ? quic::kAnySize : datagrams.segment_size;
  for_each_run(datagrams.content, size, [&](DatagramKind kind, ByteView run) {
    if (kind == DatagramKind::quic) endpoint_.receive(datagrams.peer, run, size, now);
    if (kind == DatagramKind::probe && direct_) direct_->on_relay_probe(datagrams.peer, run, now);
  });
  apply_routes();
  turn();
}

void IrohTransport::on_relay_address(const PeerAddress& address) { addresses_->learn(address.id, address.address); }

/// Its QUIC connection stays: an endpoint keeps its key, and the connection goes on when it is back, or on a direct
/// path. While nothing is acknowledged, nothing more is sent to it.
void IrohTransport::on_relay_gone(const EndpointId& id) { addresses_->forget(id); }

void IrohTransport::on_relay_writable() { turn(); }

// ---------------------------------------------------------------- connections

bool IrohTransport::service() {
  bool any = false;
  while (const std::optional<Id> id = endpoint_.next_changed()) {
    any = true;
    const auto found = links_.find(*id);
    service(found != links_.end() ? std::shared_ptr<Link>(found->second) : add(*id, endpoint_.peer_of(*id), false));
    if (stopped_) return true;
  }
  return any;
}

void IrohTransport::service(const std::shared_ptr<Link>& link) {
  quic::Connection* connection = endpoint_.find(link->id);
  if (connection == nullptr) return;
  if (connection->is_open() && !link->opened) {
    if (stop_by_) {
      close_for_stop(link, Tell::now);
      return;
    }
    if (!has_place(*link)) ++places_;
    link->opened = true;
    link->opened_at = runtime_.wall_now();
    if (link->dialled) dials_.erase(link->key);
    if (places_ > config_.max_peers && !make_room()) {
      fail(link, make_error(Errc::overloaded, "connected to too many peers"));
      return;
    }
    if (link->gone) return;
    apply(registry_.on_opened(link->id, link->key, link->dialled, runtime_.now()));
    if (link->gone) return;
  }
  note_sent(*link, *connection);
  read(link);
  if (link->gone) return;
  connection = endpoint_.find(link->id);
  if (!connection->closed()) return;
  const quic::Closed closed = *connection->closed();
  const bool by_peer = closed.by == quic::Closed::By::peer && closed.application;
  End how;
  how.superseded = by_peer && closed.code == close_code::kSuperseded;
  how.error = unreachable(closed.error.message);
  how.reason = by_peer ? closed.reason : closed.error.message;
  end(link, how, Tell::now);
}

void IrohTransport::read(const std::shared_ptr<Link>& link) {
  for (;;) {
    quic::Connection* connection = endpoint_.find(link->id);
    if (connection == nullptr || link->permit == Link::Permit::asked || is_owing(*link)) return;
    std::optional<quic::Connection::Part> part = connection->read();
    if (!part) return;
    endpoint_.touched(link->id);
    on_part(link, std::move(*part));
    if (link->gone || stopped_) return;
  }
}

void IrohTransport::on_part(const std::shared_ptr<Link>& link, quic::Connection::Part part) {
  // The preflight comes on the first stream, before anything else.
  if (!link->reader) link->reader.emplace(!link->greeted && part.stream == 0, config_.max_frame_bytes);
  const std::size_t bytes = part.data.size();
  link->last_part = runtime_.now();
  link->reader->feed(std::move(part.data));
  for (;;) {
    Result<std::optional<Frame>> frame = link->reader->next();
    if (!frame && !link->greeted) {
      fail(link, frame.error());
      return;
    }
    if (!frame) {
      log::debug("iroh", link->url.to_string() + ": a stream is given up: " + frame.error().to_string());
      if (!part.end) endpoint_.find(link->id)->stop_reading();
      endpoint_.touched(link->id);
      link->reader.reset();
      give_permit_back(link, false);
      return;
    }
    if (!*frame) break;
    give_permit_back(link, true);
    on_frame(link, std::move(**frame));
    if (link->gone) return;
  }
  if (link->announced && link->greeted && link->reader->waiting() > 0) {
    events_->recv_progress(link->url, bytes);
    if (link->gone) return;
  }
  if (part.end) {
    link->reader.reset();
    give_permit_back(link, false);
  } else if (link->reader->announced() > kSmallFrame && link->permit == Link::Permit::none) {
    ask_for_permit(link);
  }
}

void IrohTransport::ask_for_permit(const std::shared_ptr<Link>& link) {
  link->permit = Link::Permit::asked;
  permits_.ask(link->id, static_cast<std::uint32_t>(link->reader->announced()), runtime_.now());
  grant_permits();
}

void IrohTransport::give_permit_back(const std::shared_ptr<Link>& link, bool used) {
  if (std::exchange(link->permit, Link::Permit::none) == Link::Permit::none) return;
  if (used) {
    permits_.on_used(link->id);
  } else {
    permits_.release(link->id);
  }
  grant_permits();
}

void IrohTransport::grant_permits() {
  const Time now = runtime_.now();
  while (const auto holder = permits_.next_grant(now)) {
    const std::shared_ptr<Link>& link = links_.at(*holder);
    link->permit = Link::Permit::granted;
    link->last_part = now;
    // What waits in QUIC is read in a turn of its own: this may be in the middle of another connection's.
    runtime_.post(lifetime_.guard([this, link = link] {
      if (link->gone || stopped_) return;
      read(link);
      turn();
    }));
  }
}

void IrohTransport::close_stalled() {
  const auto progress = [this](tx5::PermitBank::Holder holder) {
    const Link& link = *links_.at(holder);
    return tx5::PermitBank::Progress{link.last_part, link.reader ? link.reader->waiting() : 0};
  };
  while (const auto holder = permits_.stalled(runtime_.now(), progress)) {
    const std::shared_ptr<Link> link = links_.at(*holder);
    fail(link, make_error(Errc::overloaded, "a message that does not go on, while others wait for its room"));
  }
}

bool IrohTransport::is_owing(Link& link) {
  stop_owing(link);
  if (link.permit == Link::Permit::granted) return false;
  const Time until = permits_.owes_until(link.id);
  if (until <= runtime_.now()) return false;
  link.owes_until = until;
  owing_.emplace(until, link.id);
  return true;
}

void IrohTransport::stop_owing(Link& link) {
  if (link.owes_until) owing_.erase({*std::exchange(link.owes_until, std::nullopt), link.id});
}

void IrohTransport::read_those_who_have_paid() {
  while (!owing_.empty() && owing_.begin()->first <= runtime_.now()) {
    const std::shared_ptr<Link> link = links_.at(owing_.begin()->second);
    stop_owing(*link);
    read(link);
    if (stopped_) return;
  }
}

void IrohTransport::wasted(const Url& peer, std::uint64_t bytes) {
  const std::optional<EndpointId> key = peer_on_our_relay(peer);
  const Link* link = key ? active_link(*key) : nullptr;
  if (link == nullptr) return;
  permits_.wasted(link->id, bytes, runtime_.now());
  schedule_turn();
}

void IrohTransport::on_frame(const std::shared_ptr<Link>& link, Frame frame) {
  link->received_messages += 1;
  link->received_bytes += kFrameHeaderBytes + frame.body.size();
  if (frame.kind == FrameKind::preflight) {
    on_preflight(link, frame.body);
    return;
  }
  if (!link->greeted) {
    fail(link, make_error(Errc::peer_fault, "data before the preflight"));
    return;
  }
  if (direct_ && link->knows_direct && is_direct_offer(frame.body)) {
    on_direct_offer(link, frame.body);
    return;
  }
  const Result<void> taken = events_->recv_data(link->url, std::move(frame.body));
  if (link->gone) return;
  if (!taken) {
    fail(link, taken.error());
    return;
  }
  offer_addresses(link);
}

void IrohTransport::on_preflight(const std::shared_ptr<Link>& link, const Bytes& body) {
  const Result<Preflight> preflight = decode_preflight(body);
  if (!preflight) {
    fail(link, preflight.error());
    return;
  }
  if (preflight->url.text() != link->url.str()) {
    fail(link, make_error(Errc::peer_fault,
                          "the preflight's url is not that of this endpoint on the relay " + relay_.to_string()));
    return;
  }
  const Registry::Outcome outcome = registry_.on_preflight(link->id, runtime_.now());
  apply(outcome);
  if (link->gone) return;
  const Result<void> taken = events_->recv_data(link->url, preflight->k2proto);
  if (link->gone) return;
  if (!taken) {
    fail(link, taken.error());
    return;
  }
  if (!outcome.active) return;
  link->greeted = true;
  link->knows_direct = has_direct_mark(preflight->k2proto);
  if (const auto own = dials_.find(link->key); own != dials_.end()) {
    // A copy: closing takes the link out of the table.
    close(std::shared_ptr<Link>(links_.at(own->second)), close_code::kSuperseded, "another connection is active",
          {true, unreachable("another connection is active"), {}}, Tell::now);
    if (link->gone) return;
  }
  flush(link);
}

std::shared_ptr<IrohTransport::Link> IrohTransport::announced_link(const EndpointId& key, const Link& but) const {
  for (const auto& [id, link] : links_) {
    if (link->key == key && link->announced && link.get() != &but) return link;
  }
  return nullptr;
}

bool IrohTransport::greet(const std::shared_ptr<Link>& link) {
  const std::shared_ptr<Link> before = one_connection_counts(dialect_) ? nullptr : announced_link(link->key, *link);
  if (before) {
    before->announced = false;
    events_->peer_disconnect(link->url, std::nullopt);
    if (link->gone) return false;
  }
  const Result<Bytes> preflight = events_->peer_connect(link->url);
  if (!preflight) {
    if (!link->gone) fail(link, preflight.error());
    if (before && !before->gone) fail(before, preflight.error());
    return false;
  }
  if (link->gone) {
    events_->peer_disconnect(link->url, std::nullopt);
    return false;
  }
  link->announced = true;
  hand_over(
      *link,
      {ByteChain(encode_preflight(own_url_.str(), direct_ ? with_direct_mark(*preflight) : *preflight)), {}, true});
  return true;
}

void IrohTransport::note_sent(Link& link, quic::Connection& connection) {
  for (const quic::Connection::Sent& sent : connection.take_sent()) {
    const auto found = link.sent.find(sent.ticket);
    // What a closed connection has not sent is dealt with in its end.
    if (found == link.sent.end() || (!sent.whole && connection.closed())) continue;
    complete(std::move(found->second.done),
             sent.whole ? Result<void>() : unreachable("the peer has stopped the message"));
    link.sent.erase(found);
  }
}

void IrohTransport::apply(const Registry::Outcome& outcome) {
  for (const Registry::Close& one : outcome.close) {
    const auto found = links_.find(one.id);
    if (found == links_.end()) continue;
    const std::string reason(one.reason);
    close(std::shared_ptr<Link>(found->second), one.code, reason,
          {one.code == close_code::kSuperseded, unreachable(reason), reason}, Tell::now);
  }
  if (!outcome.send_preflight) return;
  const auto found = links_.find(*outcome.send_preflight);
  if (found != links_.end()) static_cast<void>(greet(std::shared_ptr<Link>(found->second)));
}

void IrohTransport::fail(const std::shared_ptr<Link>& link, const Error& why) {
  log::debug("iroh", link->url.to_string() + ": " + log::printable(why.to_string(), kMaxReason));
  close(link, close_code::kFailure, why.message,
        {false, unreachable("the connection was closed: " + why.message), why.message}, Tell::now);
}

void IrohTransport::close(const std::shared_ptr<Link>& link, std::uint64_t code, const std::string& reason, End how,
                          Tell tell) {
  if (link->gone) return;
  if (quic::Connection* connection = endpoint_.find(link->id)) {
    note_sent(*link, *connection);
    connection->close(close_has_code(dialect_) ? code : close_code::kFailure, reason, runtime_.now());
  }
  end(link, how, tell);
}

void IrohTransport::end(const std::shared_ptr<Link>& link, const End& how, Tell tell) {
  link->gone = true;
  stop_owing(*link);
  permits_.forget(link->id);
  link->permit = Link::Permit::none;
  registry_.on_ended(link->id);
  forget_paths(*link);
  endpoint_.release(link->id, runtime_.now());
  links_.erase(link->id);
  if (has_place(*link)) --places_;
  const auto own_dial = dials_.find(link->key);
  if (own_dial != dials_.end() && own_dial->second == link->id) dials_.erase(own_dial);

  // T4.
  std::map<quic::Connection::Ticket, Message> unsent = std::move(link->sent);
  std::erase_if(unsent, [](const auto& entry) { return entry.second.of_connection; });
  for (auto entry = unsent.begin(); how.superseded && entry != unsent.end();) {
    if (++entry->second.moves <= kMostMoves) {
      ++entry;
      continue;
    }
    complete(std::move(entry->second.done), how.error);
    entry = unsent.erase(entry);
  }
  if (how.superseded && !stopped_ && !unsent.empty()) {
    const auto [found, is_first] = waiting_.try_emplace(link->key);
    if (is_first) {
      found->second.until = runtime_.now() + std::chrono::seconds(config_.connect_timeout_s);
      waiting_until_.emplace(found->second.until, link->key);
    }
    for (auto entry = unsent.rbegin(); entry != unsent.rend(); ++entry) {
      found->second.bytes += entry->second.frame.size();
      found->second.messages.push_front(std::move(entry->second));
    }
  } else {
    for (auto& [ticket, message] : unsent) complete(std::move(message.done), how.error);
  }
  if (waiting_.contains(link->key)) {
    if (Link* other = active_link(link->key)) {
      flush(std::shared_ptr<Link>(links_.at(other->id)));
    } else if (!registry_.holder(link->key) && !dials_.contains(link->key)) {
      if (how.superseded && !stop_by_) {
        dial(link->key);
      } else {
        fail_waiting(link->key, how.error);
      }
    }
  }

  if (!stopped_) grant_permits();
  if (!std::exchange(link->announced, false)) return;
  // T9. The slot's holder has had our preflight.
  const auto other = one_connection_counts(dialect_) ? std::nullopt : registry_.holder(link->key);
  if (other && links_.contains(*other)) {
    links_.at(*other)->announced = true;
    return;
  }
  const std::optional<std::string> reason = how.reason.empty() ? std::nullopt : std::optional(how.reason);
  if (tell == Tell::now) {
    events_->peer_disconnect(link->url, reason);
  } else {
    runtime_.post(lifetime_.guard([this, url = link->url, reason] { events_->peer_disconnect(url, reason); }));
  }
}

// ---------------------------------------------------------------- output and time

void IrohTransport::schedule_turn() {
  if (turn_posted_) return;
  turn_posted_ = true;
  runtime_.post(lifetime_.guard([this] {
    turn_posted_ = false;
    turn();
  }));
}

void IrohTransport::turn() {
  if (stopped_) return;
  service();
  do {
    pump();
  } while (!stopped_ && service());
  if (stop_by_ && !stopped_) stop_if_delivered();
  if (!stopped_) arm_timer();
}

/// T6.
void IrohTransport::pump() {
  pump_direct();
  if (unsent_) {
    if (!relay_link_.send(*unsent_)) return;
    unsent_.reset();
  }
  for (; !relay_probes_.empty(); relay_probes_.pop_front()) {
    if (!relay_link_.send(relay_probes_.front())) return;
  }
  const bool up = relay_link_.up();
  while (std::optional<quic::Endpoint::Output> out = endpoint_.produce(runtime_.now(), quic::Lane::relay)) {
    if (!up) continue;
    const bool single = out->batch.content.size() <= out->batch.segment_bytes;
    Datagrams datagrams{out->to, 0, static_cast<std::uint16_t>(single ? 0 : out->batch.segment_bytes),
                        std::move(out->batch.content)};
    if (relay_link_.send(datagrams)) continue;
    unsent_ = std::move(datagrams);
    return;
  }
}

void IrohTransport::on_timer() {
  if (stopped_) return;
  const Time now = runtime_.now();
  endpoint_.on_deadline(now);
  if (direct_) {
    direct_->on_deadline(now);
    apply_routes();
  }
  apply(registry_.on_deadline(now));
  permits_.on_time(now);
  if (permits_.is_waited_for()) close_stalled();
  grant_permits();
  read_those_who_have_paid();
  if (stopped_) return;
  while (!waiting_until_.empty() && waiting_until_.begin()->first <= now) {
    const EndpointId key = waiting_until_.begin()->second;
    fail_waiting(key, unreachable("no connection in time"));
  }
  turn();
}

void IrohTransport::arm_timer() {
  Time next = registry_.next_deadline();
  if (!waiting_until_.empty()) next = std::min(next, waiting_until_.begin()->first);
  if (const auto paid = permits_.next_deadline()) next = std::min(next, *paid);
  if (permits_.is_waited_for()) next = std::min(next, runtime_.now() + kStallInterval);
  if (!owing_.empty()) next = std::min(next, owing_.begin()->first);
  // What is due while a socket is full is done when it takes data again.
  if (!unsent_ && relay_probes_.empty()) next = std::min(next, endpoint_.next_deadline(quic::Lane::relay));
  if (!unsent_direct_) next = std::min(next, endpoint_.next_deadline(quic::Lane::direct));
  if (direct_) next = std::min(next, direct_->next_deadline());
  if (stop_by_) next = std::min(next, *stop_by_);
  if (timer_ != 0 && timer_at_ <= next) return;
  runtime_.cancel(std::exchange(timer_, 0));
  if (next == Time::max()) return;
  timer_at_ = next;
  timer_ = runtime_.schedule(next, lifetime_.guard([this] {
    timer_ = 0;
    on_timer();
  }));
}

}  // namespace iroh

bool iroh::has_quic() { return true; }

Result<std::unique_ptr<TransportBackend>> iroh::make_transport_of_node(
    Runtime& runtime, std::shared_ptr<WsConnector> connector, const Config& config,
    const std::array<std::uint8_t, 32>& key_seed, RelayAccess access, std::shared_ptr<UdpBinder> binder,
    NodeKnowledge knowledge) {
  if (auto fine = check_values(config.iroh_transport); !fine) return fine.error();
  Result<std::unique_ptr<IrohTransport>> transport =
      IrohTransport::create(runtime, std::move(connector), config.iroh_transport, config.network, key_seed,
                            std::move(access), std::move(binder));
  if (!transport) return transport.error();
  if (knowledge.addresses) (*transport)->note_addresses(std::move(knowledge.addresses));
  if (knowledge.usefulness) (*transport)->judge_by(std::move(knowledge.usefulness));
  return std::unique_ptr<TransportBackend>(std::move(*transport));
}

Result<std::unique_ptr<TransportBackend>> make_iroh_transport(Runtime& runtime, std::shared_ptr<WsConnector> connector,
                                                              const IrohTransportConfig& config,
                                                              const std::array<std::uint8_t, 32>& key_seed,
                                                              const NetworkConfig& network, RelayAccess access,
                                                              std::shared_ptr<UdpBinder> binder) {
  Config whole;
  whole.iroh_transport = config;
  whole.network = network;
  return iroh::make_transport_of_node(runtime, std::move(connector), whole, key_seed, std::move(access),
                                      std::move(binder), {});
}

}  // namespace kitsune2
