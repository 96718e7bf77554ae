// The transport of a history's dialect, over simulated sockets.
#include "sim/sim_transport.hpp"

#include <array>
#include <utility>

#include "kitsune2/dialect.hpp"
#include "kitsune2/transport_iroh.hpp"

namespace kitsune2::sim {

Dialect draw_dialect(testing::SimWorld& world, Over over) {
  if (over == Over::tx5) return Dialect::v0_2;
  return world.random(4) == 0 ? Dialect::v0_4 : Dialect::v0_5;
}

void set_transport(Config& config, const TransportDraw& draw) {
  if (uses_iroh(config.network.spoken())) {
    auto& iroh = config.iroh_transport;
    iroh.relay_url = "http://relay:1";
    iroh.relay_allow_plain_text = true;
    iroh.connect_timeout_s = draw.timeout_s;
    iroh.max_frame_bytes = draw.max_message_bytes;
    if (draw.max_queue_bytes != 0) iroh.max_queue_bytes_per_peer = draw.max_queue_bytes;
    return;
  }
  auto& tx5 = config.tx5_transport;
  tx5.server_url = "ws://relay:1";
  tx5.signal_allow_plain_text = true;
  tx5.timeout_s = draw.timeout_s;
  tx5.message_size_max = draw.max_message_bytes;
  if (draw.max_queue_bytes != 0) tx5.max_queue_bytes_per_peer = draw.max_queue_bytes;
}

std::unique_ptr<SimPaths> draw_paths(testing::SimWorld& world, SimNet& net, const Config& config) {
  if (!uses_iroh(config.network.spoken()) || world.random(2) == 0) return nullptr;
  return std::make_unique<SimPaths>(world, net);
}

Result<std::unique_ptr<TransportBackend>> make_backend(testing::SimRuntime& runtime, const Sockets& sockets,
                                                       const Config& config, const tx5::LinkLimits& limits) {
  std::shared_ptr<WsConnector> connector = net::make_ws_connector(runtime, sockets.net.dial(sockets.host));
  if (uses_iroh(config.network.spoken())) {
    std::array<std::uint8_t, 32> seed{};
    runtime.random_bytes(seed);
    return make_iroh_transport(runtime, std::move(connector), config.iroh_transport, seed, config.network, nullptr,
                               sockets.paths ? sockets.paths->binder(runtime, sockets.host) : nullptr);
  }
  auto made = tx5::Tx5Transport::create(runtime, std::move(connector), config.tx5_transport, limits);
  if (!made) return made.error();
  return std::unique_ptr<TransportBackend>(std::move(*made));
}

}  // namespace kitsune2::sim
