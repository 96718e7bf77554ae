// A QUIC endpoint behind an iroh relay that need not keep the rules of the transport. For attackers and for peers that
// claim to be somebody else.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "kitsune2/asio_runtime.hpp"
#include "kitsune2/dialect.hpp"
#include "net/ws_connector.hpp"
#include "transport/iroh/endpoint_url.hpp"
#include "transport/iroh/framing.hpp"
#include "transport/iroh/relay_link.hpp"
#include "transport/quic/endpoint.hpp"
#include "wire/k2proto.hpp"

namespace kitsune2::test {

/// What endpoints have done and met.
struct RawTally {
  std::uint64_t messages = 0, bytes = 0, failed = 0, closed = 0, received = 0;
};

struct RawEndpointOptions {
  bool reads = true;                                 ///< false: nothing of a connection is read
  bool preflights = true;                            ///< false: none is sent on an open connection
  bool other_key = false;                            ///< to its peers it proves another key than to the relay
  std::string claimed_url;                           ///< in its preflights; empty: its own
  std::function<void(const std::string&)> on_event;  ///< what happens to connections, in words; null: not told
};

/// The relay with this url, not encrypted, as the urls of its endpoints have it.
inline Url relay_at(const std::string& url) {
  IrohTransportConfig config;
  config.relay_url = url;
  config.relay_allow_plain_text = true;
  return iroh::relay_of(config).value();
}

/// It has one connection of its own making at most, and reads others of which it is dialled. Strand.
class RawEndpoint final : private iroh::RelayLinkOwner {
 public:
  /// `relay`: its url, not encrypted.
  RawEndpoint(AsioRuntime& runtime, std::shared_ptr<WsConnector> ws, const std::string& relay, RawTally& tally,
              RawEndpointOptions options)
      : runtime_(runtime),
        tally_(tally),
        options_(std::move(options)),
        seed_(random_seed(runtime)),
        key_(seed_),
        relay_(relay_at(relay)),
        endpoint_(quic::Identity::create(options_.other_key ? random_seed(runtime) : seed_).value(), quic::Config(),
                  [&runtime](std::span<std::uint8_t> out) { runtime.random_bytes(out); }),
        link_(runtime, std::move(ws), key_, link_options(relay_), *this) {
    link_.start();
  }

  Url url() const { return iroh::endpoint_url(relay_, key_.id()); }
  bool is_up() const { return link_.up(); }
  /// Whether the connection that it dialled is open, and the preflight is queued on it.
  bool is_open() const { return open_.has_value(); }

  void dial(const iroh::EndpointId& peer) {
    if (const auto id = endpoint_.dial(peer, runtime_.now())) {
      dialled_ = *id;
      tally_.messages += 1;
    } else {
      tally_.failed += 1;
    }
  }
  /// Forgets the connection that it dialled, without a word to the peer.
  void vanish() {
    if (dialled_) endpoint_.release(*dialled_, runtime_.now());
    while (endpoint_.produce(runtime_.now())) {
    }
    dialled_.reset();
    open_.reset();
  }
  /// Bytes of the stream. False: too much waits.
  bool write(ByteChain bytes) {
    quic::Connection* connection = open_ ? endpoint_.find(*open_) : nullptr;
    if (connection == nullptr) return false;
    const std::size_t size = bytes.size();
    if (!connection->send(std::move(bytes))) return false;
    tally_.messages += 1;
    tally_.bytes += size;
    endpoint_.touched(*open_);
    return true;
  }
  std::size_t queued() {
    const quic::Connection* connection = open_ ? endpoint_.find(*open_) : nullptr;
    return connection != nullptr ? connection->queued_bytes() : 0;
  }
  /// Datagrams that are none of QUIC's doing. False: the relay takes no more now.
  bool send_raw(const iroh::EndpointId& peer, Bytes content, std::uint16_t segment_bytes) {
    const std::size_t size = content.size();
    if (!link_.send({peer, 0, segment_bytes, std::move(content)})) return false;
    tally_.messages += (size + segment_bytes - 1) / segment_bytes;
    tally_.bytes += size;
    return true;
  }
  /// What is due, and what is to be sent. To be called every few milliseconds.
  void turn() {
    const Time now = runtime_.now();
    if (endpoint_.next_deadline() <= now) endpoint_.on_deadline(now);
    service();
    pump();
  }

 private:
  static iroh::EndpointKey::Seed random_seed(AsioRuntime& runtime) {
    iroh::EndpointKey::Seed out{};
    runtime.random_bytes(out);
    return out;
  }
  static iroh::RelayLinkOptions link_options(const Url& relay) {
    iroh::RelayLinkOptions out;
    out.server = "ws://" + std::string(relay.addr());
    return out;
  }
  void on_relay_up() override {}
  void on_relay_down() override { unsent_.reset(); }
  void on_relay_datagrams(const iroh::Datagrams& datagrams) override {
    for (const Bytes& one : datagrams.split()) {
      tally_.received += one.size();
      endpoint_.receive(datagrams.peer, one, runtime_.now());
      service();
    }
    pump();
  }
  void on_relay_address(const iroh::PeerAddress&) override {}
  void on_relay_gone(const iroh::EndpointId&) override {}
  void on_relay_writable() override { pump(); }

  void tell(const std::string& event) {
    if (options_.on_event) options_.on_event(event);
  }
  void service() {
    while (const auto id = endpoint_.next_changed()) {
      quic::Connection* connection = endpoint_.find(*id);
      if (connection == nullptr) continue;
      (void)connection->take_sent();
      const bool own = id == dialled_;
      if (!own && connection->is_dialled()) {
        endpoint_.release(*id, runtime_.now());  // an earlier dial
        continue;
      }
      if (own && connection->is_open() && !open_) {
        open_ = id;
        tell("OPEN");
        if (options_.preflights) {
          const std::string claim = options_.claimed_url.empty() ? url().to_string() : options_.claimed_url;
          write(ByteChain(iroh::encode_preflight(claim, wire::encode_preflight({}))));
        }
      } else if (!own) {
        tell("DIALLED");
      }
      while (options_.reads) {
        const auto part = connection->read();
        if (!part) break;
        tell("READ " + std::to_string(part->data.size()));
        endpoint_.touched(*id);
      }
      if (!connection->closed()) continue;
      const quic::Closed& closed = *connection->closed();
      tell("CLOSED " + (closed.application ? std::to_string(closed.code) : "-") + ' ' + closed.error.message);
      tally_.closed += 1;
      endpoint_.release(*id, runtime_.now());
      if (!own) continue;
      dialled_.reset();
      open_.reset();
    }
  }
  void pump() {
    if (!link_.up()) return;
    if (unsent_) {
      if (!link_.send(*unsent_)) return;
      unsent_.reset();
    }
    while (auto out = endpoint_.produce(runtime_.now())) {
      const bool single = out->batch.content.size() <= out->batch.segment_bytes;
      iroh::Datagrams datagrams{out->to, 0, static_cast<std::uint16_t>(single ? 0 : out->batch.segment_bytes),
                                std::move(out->batch.content)};
      if (link_.send(datagrams)) continue;
      unsent_ = std::move(datagrams);
      return;
    }
  }

  AsioRuntime& runtime_;
  RawTally& tally_;
  const RawEndpointOptions options_;
  const iroh::EndpointKey::Seed seed_;
  const iroh::EndpointKey key_;
  const Url relay_;
  quic::Endpoint endpoint_;
  std::optional<quic::Endpoint::Id> dialled_, open_;
  std::optional<iroh::Datagrams> unsent_;
  iroh::RelayLink link_;  // last, so that it is destroyed first
};

}  // namespace kitsune2::test
