// The iroh transport as nodes make it, and whether this library was built with it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "kitsune2/transport_iroh.hpp"
#include "kitsune2/url.hpp"
#include "transport/tx5/peer_addresses.hpp"

namespace kitsune2::iroh {

/// False for a build without QUIC (K2_IROH=OFF), in which the transport cannot be made (Errc::unsupported).
bool has_quic();

/// What a node knows besides its configuration; each may be empty.
struct NodeKnowledge {
  /// Is told where the peers of a relay in this process are.
  std::shared_ptr<tx5::PeerAddresses> addresses;
  /// How useful a peer has been, for choosing whom to keep.
  std::function<std::uint64_t(const Url&)> usefulness;
};
/// See make_iroh_transport.
Result<std::unique_ptr<TransportBackend>> make_transport_of_node(Runtime& runtime,
                                                                 std::shared_ptr<WsConnector> connector,
                                                                 const Config& config,
                                                                 const std::array<std::uint8_t, 32>& key_seed,
                                                                 RelayAccess access, std::shared_ptr<UdpBinder> binder,
                                                                 NodeKnowledge knowledge);

}  // namespace kitsune2::iroh
