// The iroh transport of a library that was built without QUIC (K2_IROH=OFF): there is none.
#include "kitsune2/transport_iroh.hpp"
#include "transport/iroh/built.hpp"

namespace kitsune2 {

bool iroh::has_quic() { return false; }

Result<std::unique_ptr<TransportBackend>> make_iroh_transport(Runtime& /*runtime*/,
                                                              std::shared_ptr<WsConnector> /*connector*/,
                                                              const IrohTransportConfig& /*config*/,
                                                              const std::array<std::uint8_t, 32>& /*key_seed*/,
                                                              const NetworkConfig& /*network*/, RelayAccess /*access*/,
                                                              std::shared_ptr<UdpBinder> /*binder*/) {
  return make_error(Errc::unsupported, "this library was built without QUIC (K2_IROH=OFF)");
}

Result<std::unique_ptr<TransportBackend>> iroh::make_transport_of_node(
    Runtime& runtime, std::shared_ptr<WsConnector> connector, const Config& config,
    const std::array<std::uint8_t, 32>& key_seed, RelayAccess access, std::shared_ptr<UdpBinder> binder,
    NodeKnowledge /*knowledge*/) {
  return make_iroh_transport(runtime, std::move(connector), config.iroh_transport, key_seed, config.network,
                             std::move(access), std::move(binder));
}

}  // namespace kitsune2
