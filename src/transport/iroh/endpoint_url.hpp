// The urls of iroh endpoints and of their relay.
#pragma once

#include <optional>

#include "kitsune2/config.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/url.hpp"
#include "transport/iroh/relay_frames.hpp"

namespace kitsune2::iroh {

/// The relay that a configuration names, as `Url::relay` of its peers gives it. Errc::invalid_config naming the key:
/// there is none, or it has no TLS and must have it.
Result<Url> relay_of(const IrohTransportConfig& config);

/// The url of the endpoint with this id on `relay`.
Url endpoint_url(const Url& relay, const EndpointId& id);
/// The id in such a url: 64 lower-case hexadecimal digits. nullopt: it is not one.
std::optional<EndpointId> endpoint_id(const Url& url);

}  // namespace kitsune2::iroh
