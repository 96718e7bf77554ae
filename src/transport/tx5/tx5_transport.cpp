// The transport's backend over relay links: which link a url belongs to, and the node's own url.
#include "transport/tx5/tx5_transport.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include "core/relay_url.hpp"

namespace kitsune2 {
namespace tx5 {
namespace {

Error bad_config(std::string_view key, const std::string& what) {
  return make_error(Errc::invalid_config, "tx5Transport." + std::string(key) + ": " + what);
}

/// What is wrong with a number that no node's configuration has judged.
Result<void> check_numbers(const Tx5TransportConfig& config) {
  const std::tuple<const char*, std::uint64_t, KeyRange> numbers[] = {
      {"timeoutS", config.timeout_s, Tx5TransportConfig::kTimeoutS},
      {"messageSizeMax", config.message_size_max, Tx5TransportConfig::kMessageSizeMax},
      {"maxQueueBytesPerPeer", config.max_queue_bytes_per_peer, Tx5TransportConfig::kMaxQueueBytesPerPeer},
      {"maxPeers", config.max_peers, Tx5TransportConfig::kMaxPeers},
  };
  for (const auto& [key, value, range] : numbers) {
    if (const std::string fault = range.fault(value); !fault.empty()) return bad_config(key, fault);
  }
  return {};
}

}  // namespace

Result<Url> relay_of(const Tx5TransportConfig& config) {
  if (config.server_url == Tx5TransportConfig{}.server_url) return bad_config("serverUrl", "is not set");
  Result<Url> relay = canonical_relay_url(config.server_url);
  if (!relay) return bad_config("serverUrl", relay.error().message);
  if (!relay->uses_tls() && !config.signal_allow_plain_text) {
    return bad_config("serverUrl", "is not encrypted (ws://); use wss:// or set signalAllowPlainText to true");
  }
  return relay;
}

Result<std::unique_ptr<Tx5Transport>> Tx5Transport::create(Runtime& runtime, std::shared_ptr<WsConnector> connector,
                                                           const Tx5TransportConfig& config, const LinkLimits& limits,
                                                           const NetworkConfig& network) {
  if (!crypto_ready()) return make_error(Errc::internal, "libsodium could not be initialised");
  K2_ASSERT(check_numbers(config).has_value());
  Result<Url> relay = relay_of(config);
  if (!relay) return relay.error();

  std::unique_ptr<Tx5Transport> transport(
      new Tx5Transport(runtime, std::move(connector), *relay, config.signal_allow_plain_text));
  LinkShared& shared = transport->shared_;
  shared.limits = limits;
  shared.limits.max_peers = config.max_peers;
  shared.connection.timeout = std::chrono::seconds(config.timeout_s);
  shared.connection.message_size_max = std::min<std::uint64_t>(config.message_size_max, kMaxFrameValue);
  shared.connection.max_queue_bytes = config.max_queue_bytes_per_peer;
  shared.limits.permits.max_granted_bytes =
      std::max(limits.permits.max_granted_bytes, shared.connection.message_size_max);
  shared.tls_ca_file = network.tls_ca_file;
  shared.entropy = [&runtime](std::span<std::uint8_t> out) { runtime.random_bytes(out); };
  return transport;
}

Tx5Transport::Tx5Transport(Runtime& runtime, std::shared_ptr<WsConnector> connector, Url relay, bool allow_plain_text)
    : shared_(runtime, std::move(connector)), relay_(std::move(relay)), allow_plain_text_(allow_plain_text) {}

void Tx5Transport::start(TransportEvents& events) {
  K2_ASSERT(!shared_.events);
  shared_.events = &events;
  home_ = std::make_unique<RelayLink>(shared_, relay_, RelayLink::Role::home, owner());
  home_->start();
}

std::optional<Url> Tx5Transport::url() const { return home_ ? home_->url() : std::nullopt; }

std::optional<TransportFailure> Tx5Transport::failure() const { return home_ ? home_->failure() : std::nullopt; }

Result<RelayLink*> Tx5Transport::link_for(const Url& relay) {
  if (stopped_ || !home_) return make_error(Errc::disconnected, "the transport is stopped");
  if (relay == relay_) return home_.get();
  const auto found = foreign_.find(relay);
  if (found != foreign_.end()) return found->second.get();
  if (!relay.uses_tls() && !allow_plain_text_) {
    return make_error(Errc::unsupported, "the peer's relay is not encrypted (ws://)");
  }
  if (foreign_.size() >= shared_.limits.max_foreign_relays) {
    return make_error(Errc::overloaded, "connected to too many relays");
  }
  auto link = std::make_unique<RelayLink>(shared_, relay, RelayLink::Role::foreign, owner());
  RelayLink* out = link.get();
  foreign_.emplace(relay, std::move(link));
  out->start();
  return out;
}

void Tx5Transport::send(const Url& peer, ByteChain message, Handler<> done) {
  const std::optional<std::string_view> path = peer.peer_id();
  const std::optional<NodeId> id = path ? sbd::node_id_from_path(*path) : std::nullopt;
  if (!id) {
    shared_.complete(std::move(done), make_error(Errc::invalid_argument, "not a peer's url: " + peer.to_string()));
    return;
  }
  Result<RelayLink*> link = link_for(peer.relay());
  if (!link) {
    shared_.complete(std::move(done), link.error());
    return;
  }
  (*link)->send(*id, peer, std::move(message), std::move(done));
}

std::pair<RelayLink*, NodeId> Tx5Transport::find(const Url& peer) const {
  const std::optional<std::string_view> path = peer.peer_id();
  const std::optional<NodeId> id = path ? sbd::node_id_from_path(*path) : std::nullopt;
  if (!id || stopped_) return {nullptr, {}};
  const Url relay = peer.relay();
  if (relay == relay_) return {home_.get(), *id};
  const auto found = foreign_.find(relay);
  return {found == foreign_.end() ? nullptr : found->second.get(), *id};
}

void Tx5Transport::disconnect(const Url& peer, const CloseReason& reason, Bytes farewell) {
  if (const auto [link, id] = find(peer); link != nullptr) link->disconnect(id, reason.text, farewell);
}

std::optional<Duration> Tx5Transport::round_trip(const Url& peer) const {
  const auto [link, id] = find(peer);
  return link != nullptr ? link->round_trip(id) : std::nullopt;
}

std::uint64_t Tx5Transport::sent_mark(const Url& peer) const {
  const auto [link, id] = find(peer);
  return link != nullptr ? link->sent_mark(id) : 0;
}

void Tx5Transport::was_read(const Url& peer, std::uint64_t mark) {
  if (const auto [link, id] = find(peer); link != nullptr) link->was_read(id, mark);
}

void Tx5Transport::wasted(const Url& peer, std::uint64_t bytes) {
  if (const auto [link, id] = find(peer); link != nullptr) link->wasted(id, bytes);
}

void Tx5Transport::on_server_answered() {
  if (home_ && !stopped_) home_->on_server_answered();
}

TransportStats Tx5Transport::stats() const {
  TransportStats stats;
  stats.backend = "tx5-relay";
  if (const std::optional<Url> own = url()) stats.peer_urls.push_back(*own);
  if (home_) home_->append_stats(stats.connections);
  for (const auto& [relay, link] : foreign_) link->append_stats(stats.connections);
  return stats;
}

void Tx5Transport::stop(std::function<void()> done) {
  if (stopped_ || !home_) {
    shared_.runtime.post(std::move(done));
    return;
  }
  stopped_ = true;
  auto open = std::make_shared<std::size_t>(1 + foreign_.size());
  const auto one_done = [open, done = std::move(done)] {
    if (--*open == 0) done();
  };
  for (auto& [relay, link] : foreign_) link->stop(one_done);
  home_->stop(one_done);
}

void Tx5Transport::on_link_up(RelayLink& link) {
  if (&link != home_.get()) return;
  if (const std::optional<Url> own = link.url()) shared_.events->new_listening_address(*own);
}

void Tx5Transport::on_link_down(RelayLink& link) {
  if (&link == home_.get()) shared_.events->listening_address_lost();
}

bool Tx5Transport::make_room(RelayLink& asking) {
  if (asking.give_a_place()) return true;
  if (home_.get() != &asking && home_->give_a_place()) return true;
  return std::ranges::any_of(
      foreign_, [&](const auto& entry) { return entry.second.get() != &asking && entry.second->give_a_place(); });
}

void Tx5Transport::on_link_finished(RelayLink& link) {
  // The link is in the middle of a call: it goes later. A new one may take its place at once.
  const auto found = foreign_.find(link.relay());
  if (found == foreign_.end() || found->second.get() != &link) return;
  finished_.push_back(std::move(found->second));
  foreign_.erase(found);
  shared_.runtime.post(lifetime_.guard([this] { finished_.clear(); }));
}

}  // namespace tx5

Result<std::unique_ptr<TransportBackend>> make_tx5_transport(Runtime& runtime, std::shared_ptr<WsConnector> connector,
                                                             const Tx5TransportConfig& config,
                                                             const NetworkConfig& network) {
  if (auto fine = tx5::check_numbers(config); !fine) return fine.error();
  Result<std::unique_ptr<tx5::Tx5Transport>> transport =
      tx5::Tx5Transport::create(runtime, std::move(connector), config, tx5::LinkLimits{}, network);
  if (!transport) return transport.error();
  return std::unique_ptr<TransportBackend>(std::move(*transport));
}

}  // namespace kitsune2
