// The transport's direct paths: the socket, who is told where this node is, and which way datagrams go.
#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "log/log.hpp"
#include "transport/iroh/iroh_transport.hpp"

namespace kitsune2::iroh {
namespace {

/// More are lost, as on the network.
constexpr std::size_t kMostRelayProbes = 1024;

bool is_loopback(const Url& relay) {
  const std::string host(relay.host());
  if (host == "localhost") return true;
  const bool is_v6 = host.find(':') != std::string::npos;
  const std::optional<UdpAddress> address = UdpAddress::parse((is_v6 ? "[" + host + "]" : host) + ":1");
  return address && scope_of(*address) == AddressScope::loopback;
}

static_assert(DatagramSize::kBase == quic::kLeastDatagram);

/// All addresses, of both kinds; where the relay is on loopback, that one.
UdpAddress default_bind(bool loopback) { return loopback ? UdpAddress::v4(127, 0, 0, 1, 0) : UdpAddress{}; }

}  // namespace

void IrohTransport::open_socket() {
  if (!config_.direct_paths || !binder_) return;
  const bool loopback = is_loopback(relay_);
  UdpAddress bind = default_bind(loopback);
  // The configuration was checked (create).
  if (config_.direct_bind_address) bind = *UdpAddress::parse(*config_.direct_bind_address);
  UdpHandlers handlers;
  handlers.on_datagrams = lifetime_.guard(
      [this](const UdpAddress& from, ByteView content, std::size_t bytes) { on_udp(from, content, bytes); });
  handlers.on_unreachable = lifetime_.guard([this](const UdpAddress& to) {
    if (!direct_) return;
    direct_->on_unreachable(to, runtime_.now());
    apply_routes();
    turn();
  });
  handlers.on_writable = lifetime_.guard([this] { turn(); });
  Result<std::shared_ptr<UdpSocket>> socket = binder_->bind(bind, std::move(handlers));
  if (!socket) {
    // Everything works without, and only who has named an address has asked for this.
    log::write(config_.direct_bind_address ? log::Level::warn : log::Level::info, "iroh",
               "no direct paths to peers, the relay carries everything: " + socket.error().to_string());
    return;
  }
  udp_ = std::move(*socket);
  const auto random = [this](std::span<std::uint8_t> out) { runtime_.random_bytes(out); };
  filter_.emplace(direct_shapes(), random);
  udp_->let_in_only(*filter_);
  direct_.emplace(random, endpoint_.key(), loopback, quic::Config{}.datagram_bytes,
                  [this](DatagramFilter::Name name) { filter_->mark(name); });
}

void IrohTransport::close_socket() {
  if (udp_) udp_->close();
  udp_.reset();
  direct_.reset();
  filter_.reset();
  unsent_direct_.reset();
  relay_probes_.clear();
}

std::vector<UdpAddress> IrohTransport::own_addresses() const {
  std::vector<UdpAddress> out;
  if (config_.direct_external_address) out.push_back(*UdpAddress::parse(*config_.direct_external_address));
  for (const UdpAddress& address : udp_->addresses()) out.push_back(address);
  return out;
}

void IrohTransport::offer_addresses(const std::shared_ptr<Link>& link) {
  if (!direct_ || !link->knows_direct || link->offered || !link->announced || !events_->shares_space(link->url)) return;
  if (link->from_anywhere.is_ignored()) return;
  if (link->offer.empty()) {
    endpoint_.listen_anywhere(link->id);
    link->offer = encode_offer(direct_->offer_to(link->id, link->key, own_addresses(), runtime_.now()));
    apply_routes();
  }
  // What is refused because too much waits is told with the peer's next message.
  link->offered = hand_over(*link, {encode_data(ByteChain(link->offer)), {}, true});
}

void IrohTransport::on_direct_offer(const std::shared_ptr<Link>& link, const Bytes& message) {
  if (link->from_anywhere.is_ignored()) return;
  const Result<DirectOffer> offer = decode_offer(message);
  if (!offer) {
    log::debug("iroh", link->url.to_string() + ": " + offer.error().to_string());
    return;
  }
  direct_->on_offer(link->id, link->key, *offer, runtime_.now());
  offer_addresses(link);
}

void IrohTransport::on_udp(const UdpAddress& from, ByteView content, std::size_t segment_bytes) {
  if (stopped_ || !direct_) return;
  const Time now = runtime_.now();
  bool is_ours = false;
  quic::Endpoint::Useless useless;
  for_each_run(
      content, segment_bytes,
      [&](DatagramKind kind, ByteView run) {
        if (kind == DatagramKind::quic && endpoint_.receive_from_anywhere(run, segment_bytes, now)) is_ours = true;
        if (kind != DatagramKind::probe) return;
        if (const std::optional<Id> id = direct_->told_to(run)) {
          ++useless.of_connections[*id].useless;
        } else {
          ++useless.for_nobody;
        }
        if (direct_->on_probe(from, run, now)) is_ours = true;
      },
      [&](ByteView datagram) { return filter_->lets_in(datagram) ? kind_of(datagram) : DatagramKind::nonsense; });
  const quic::Endpoint::Useless of_quic = endpoint_.take_useless();
  useless.for_nobody += of_quic.for_nobody;
  for (const auto& [id, came] : of_quic.of_connections) {
    useless.of_connections[id].useless += came.useless;
    useless.of_connections[id].brought += came.brought;
  }
  if (judge(useless, now)) is_ours = true;
  // Strangers can send much: it costs no more than to see that nobody wants it.
  if (!is_ours) return;
  apply_routes();
  turn();
}

bool IrohTransport::judge(const quic::Endpoint::Useless& useless, Time now) {
  bool changed = false;
  for (const auto& [id, came] : useless.of_connections) {
    const auto found = links_.find(id);
    if (found == links_.end()) continue;
    Link& link = *found->second;
    if (!FloodGuard::on_datagrams(link.from_anywhere, came.useless, came.brought, now)) continue;
    log::info("iroh", link.url.to_string() + ": reached by the relay only, because of a flood of useless datagrams");
    endpoint_.listen_anywhere(id, false);
    forget_paths(link);
    changed = true;
  }
  if (guard_.on_for_nobody(useless.for_nobody, now)) {
    log::write(log::Level::warn, "iroh",
               "a flood of datagrams for nobody at the UDP port: for " +
                   std::to_string(std::chrono::duration_cast<std::chrono::seconds>(guard_.period()).count()) +
                   " s only what names a direct path in use is let in");
  }
  renew_filter(now, guard_.is_stale(useless.for_nobody, now));
  return changed;
}

void IrohTransport::renew_filter(Time now, bool is_stale) {
  if (!guard_.is_strict(now)) {
    if (!filter_->names()) return;
    *filter_ = filter_->all();
  } else {
    const std::uint64_t version = endpoint_.names_version() + direct_->names_version();
    if (filter_->names() && version == filtered_version_ && !is_stale) return;
    filtered_version_ = version;
    *filter_ = filter_->only(names_in_use());
  }
  udp_->let_in_only(*filter_);
}

DatagramFilter::Names IrohTransport::names_in_use() const {
  std::set<Id> chosen;
  for (const bool used : {true, false}) {
    for (const auto& [id, link] : links_) {
      if (chosen.size() >= FloodGuard::kMostPeers) break;
      if (direct_->route(id).has_value() == used) chosen.insert(id);
    }
  }
  DatagramFilter::Names out;
  for (const Id id : chosen) {
    for (const quic::ConnectionName& name : endpoint_.names_from_anywhere(id)) {
      if (name.view().size() != DatagramFilter::kNameBytes) continue;
      std::ranges::copy(name.view(), out.at(kQuicShape).emplace_back().begin());
    }
  }
  const auto add = [&](const std::map<DirectPaths::Name, Id>& names, std::size_t shape) {
    for (const auto& [name, id] : names) {
      if (chosen.contains(id)) out.at(shape).push_back(name);
    }
  };
  add(direct_->offer_names(), kPingShape);
  add(direct_->ping_names(), kPongShape);
  return out;
}

void IrohTransport::apply_routes() {
  if (!direct_) return;
  while (const std::optional<Id> id = direct_->next_changed()) {
    const std::optional<UdpAddress> route = direct_->route(*id);
    const std::size_t bytes = direct_->datagram_bytes(*id);
    if (route) {
      endpoint_.set_lane(*id, quic::Lane::direct, bytes);
    } else {
      endpoint_.set_lane(*id, quic::Lane::relay);
    }
    const auto found = links_.find(*id);
    if (found == links_.end()) continue;
    const std::string way =
        route ? "at " + route->to_string() + ", " + std::to_string(bytes) + " bytes a datagram" : "by the relay";
    log::debug("iroh", found->second->url.to_string() + ": reached " + way);
  }
}

void IrohTransport::forget_paths(const Link& link) {
  if (!direct_) return;
  direct_->forget(link.id, runtime_.now());
  endpoint_.set_lane(link.id, quic::Lane::relay);
}

/// Pings that the UDP socket does not take are lost, as on the network. Those through the relay wait for its socket,
/// like what they are compared for.
void IrohTransport::pump_direct() {
  if (!direct_) return;
  // The answers to pings must be let in when they come.
  renew_filter(runtime_.now());
  while (const std::optional<DirectPaths::Packet> packet = direct_->next_packet()) {
    if (packet->to) {
      static_cast<void>(udp_->send(*packet->to, packet->content, packet->content.size()));
    } else if (relay_link_.up() && relay_probes_.size() < kMostRelayProbes) {
      relay_probes_.push_back({packet->who, 0, 0, packet->content});
    }
  }
  if (unsent_direct_) {
    if (!udp_->send(unsent_direct_->to, unsent_direct_->batch.content, unsent_direct_->batch.segment_bytes)) return;
    unsent_direct_.reset();
  }
  const Time now = runtime_.now();
  while (std::optional<quic::Endpoint::Output> out = endpoint_.produce(now, quic::Lane::direct)) {
    const std::optional<UdpAddress> to = direct_->route(out->id);
    if (!to) continue;
    direct_->on_sent(out->id, now);
    if (udp_->send(*to, out->batch.content, out->batch.segment_bytes)) continue;
    unsent_direct_ = Direct{*to, std::move(out->batch)};
    return;
  }
}

}  // namespace kitsune2::iroh
