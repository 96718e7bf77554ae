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

}  // namespace kitsune2
