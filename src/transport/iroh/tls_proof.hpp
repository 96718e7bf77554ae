// How a client of an iroh relay proves its key to the relay's TLS, so that it need not be sent a challenge.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "transport/iroh/endpoint_key.hpp"
#include "transport/iroh/relay_frames.hpp"
#include "transport/ws.hpp"

namespace kitsune2::iroh {

/// The header of the request for the WebSocket that has the proof.
inline constexpr std::string_view kTlsProofHeader = "X-Iroh-Relay-Client-Auth-V1";

/// The proof for this TLS session: 32 bytes of keying material are exported from it for the key. The client signs the
/// first half, and tells the second half, by which the relay sees whether it is at the other end of the same session.
/// nullopt: the session exports nothing. The proof is of no use in another session.
std::optional<std::string> make_tls_proof(const EndpointKey& key, const KeyExporter& exporter);
/// The proven key. nullopt: the proof is malformed, is of another session (as behind a proxy that ends TLS), or its
/// signature is wrong. Then the client is sent a challenge like any other, as by the reference.
std::optional<EndpointId> check_tls_proof(std::string_view proof, const KeyExporter& exporter);

}  // namespace kitsune2::iroh
