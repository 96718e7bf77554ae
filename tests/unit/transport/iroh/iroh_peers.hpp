// Nodes over the iroh backend, and peers that are played by hand, beside a relay in virtual time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "transport/iroh/iroh_transport.hpp"
#include "unit/transport/iroh/fake_iroh_relay.hpp"
#include "unit/transport/tx5/fake_relay.hpp"

namespace kitsune2::tests {

inline iroh::EndpointKey::Seed seed_of(std::uint8_t byte) {
  iroh::EndpointKey::Seed out{};
  out.fill(byte);
  return out;
}
inline iroh::EndpointId id_of(std::uint8_t byte) { return iroh::EndpointKey(seed_of(byte)).id(); }

inline IrohTransportConfig iroh_config(std::string relay, bool plain_text) {
  IrohTransportConfig out;
  out.relay_url = std::move(relay);
  out.relay_allow_plain_text = plain_text;
  return out;
}
/// Everything goes through the relay.
inline IrohTransportConfig plain_iroh_config() {
  IrohTransportConfig out = iroh_config("http://relay:80/relay", true);
  out.direct_paths = false;
  return out;
}

inline const Url& iroh_relay_url() {
  static const Url url = iroh::relay_of(plain_iroh_config()).value();
  return url;
}
inline Url url_of(std::uint8_t byte) { return iroh::endpoint_url(iroh_relay_url(), id_of(byte)); }

inline NetworkConfig network_of(Dialect dialect) {
  NetworkConfig out;
  out.dialect = dialect;
  return out;
}

/// A node with its backend, and what that tells.
struct IrohTestNode {
  IrohTestNode(testing::SimWorld& world, FakeIrohRelay& relay, std::uint8_t key,
               IrohTransportConfig config = plain_iroh_config(), Dialect dialect = Dialect::v0_5,
               const std::function<std::shared_ptr<UdpBinder>(testing::SimRuntime&)>& binder = nullptr)
      : runtime(world.make_runtime()),
        transport(iroh::IrohTransport::create(*runtime, relay.connector(*runtime), config, network_of(dialect),
                                              seed_of(key), nullptr, binder ? binder(*runtime) : nullptr)
                      .value()) {
    transport->start(events);
  }
  ~IrohTestNode() {
    runtime->crash();
    K2_ASSERT(events.violations == 0);
  }
  IrohTestNode(const IrohTestNode&) = delete;
  IrohTestNode& operator=(const IrohTestNode&) = delete;

  void send(const Url& to, const std::string& text) {
    transport->send(to, ByteChain(Bytes::copy_of(text)), [this](Result<void> r) { results.push_back(std::move(r)); });
  }

  std::unique_ptr<testing::SimRuntime> runtime;
  Recorder events;
  std::unique_ptr<iroh::IrohTransport> transport;
  std::vector<Result<void>> results;
};

/// A peer whose QUIC is right; what it says is the test's choice.
class IrohHandPeer {
 public:
  using Id = quic::Endpoint::Id;

  IrohHandPeer(testing::SimWorld& world, FakeIrohRelay& relay, std::uint8_t key)
      : runtime_(world.make_runtime()),
        relay_(relay),
        id_(id_of(key)),
        endpoint_(quic::Identity::create(seed_of(key)).value(), {},
                  [this](std::span<std::uint8_t> out) { runtime_->random_bytes(out); }) {
    relay_.attach(id_, [this](const iroh::Datagrams& datagrams) {
      for (const Bytes& datagram : datagrams.split()) {
        endpoint_.receive(datagrams.peer, datagram, runtime_->now());
        look();
      }
      pump();
    });
  }
  ~IrohHandPeer() {
    relay_.detach(id_);
    runtime_->crash();
  }
  IrohHandPeer(const IrohHandPeer&) = delete;
  IrohHandPeer& operator=(const IrohHandPeer&) = delete;

  Id dial(std::uint8_t key) {
    const Id id = endpoint_.dial(id_of(key), runtime_->now()).value();
    ids.push_back(id);
    pump();
    return id;
  }
  void send(Id id, const ByteChain& frame) {
    if (endpoint_.find(id) == nullptr) return;
    static_cast<void>(endpoint_.find(id)->send(frame));
    endpoint_.touched(id);
    pump();
  }
  void send_preflight(Id id, const Url& url) {
    send(id, ByteChain(iroh::encode_preflight(url.str(), as_bytes("\x08\x01"))));
  }
  void send_data(Id id, std::string_view text) { send(id, iroh::encode_data(ByteChain(Bytes::copy_of(text)))); }
  void close(Id id, std::uint64_t code) {
    if (endpoint_.find(id) == nullptr) return;
    endpoint_.find(id)->close(code, "by hand", runtime_->now());
    endpoint_.touched(id);
    pump();
  }
  const quic::Closed* closed(Id id) const {
    const auto found = ends_.find(id);
    return found == ends_.end() ? nullptr : &found->second;
  }
  bool opened(Id id) { return endpoint_.find(id) != nullptr && endpoint_.find(id)->is_open(); }

  bool answers = true;                           ///< an incoming preflight is answered with ours
  std::map<Id, std::vector<std::string>> heard;  ///< bodies of frames, the preflight with its url
  std::vector<Id> incoming;
  std::vector<Id> ids;  ///< of all connections

 private:
  void look() {
    while (const auto id = endpoint_.next_changed()) {
      quic::Connection& connection = *endpoint_.find(*id);
      if (!connection.is_dialled() && !readers_.contains(*id)) {
        incoming.push_back(*id);
        ids.push_back(*id);
      }
      iroh::FrameReader& reader = readers_.try_emplace(*id, true, 200U << 20).first->second;
      while (auto part = connection.read()) {
        endpoint_.touched(*id);
        reader.feed(std::move(part->data));
        while (auto frame = reader.next().value()) {
          heard[*id].push_back(frame->body.str());
          if (frame->kind != iroh::FrameKind::preflight || connection.is_dialled() || !answers) continue;
          static_cast<void>(connection.send(ByteChain(
              iroh::encode_preflight(iroh::endpoint_url(iroh_relay_url(), id_).str(), as_bytes("\x08\x01")))));
          endpoint_.touched(*id);
        }
      }
      if (connection.closed()) ends_.emplace(*id, *connection.closed());
    }
  }
  void pump() {
    const Time now = runtime_->now();
    while (auto out = endpoint_.produce(now)) {
      const bool single = out->batch.content.size() <= out->batch.segment_bytes;
      relay_.forward(id_, iroh::Datagrams{out->to, 0, static_cast<std::uint16_t>(single ? 0 : out->batch.segment_bytes),
                                          out->batch.content});
    }
    look();
    runtime_->cancel(timer_);
    if (endpoint_.next_deadline() == Time::max()) return;
    timer_ = runtime_->schedule(std::max(endpoint_.next_deadline(), now + std::chrono::milliseconds(1)), [this] {
      endpoint_.on_deadline(runtime_->now());
      pump();
    });
  }

  std::unique_ptr<testing::SimRuntime> runtime_;
  FakeIrohRelay& relay_;
  const iroh::EndpointId id_;
  quic::Endpoint endpoint_;
  std::map<Id, iroh::FrameReader> readers_;
  std::map<Id, quic::Closed> ends_;
  Runtime::TimerId timer_ = 0;
};

}  // namespace kitsune2::tests
