// The relay that a configuration names, and the transport over it: the one place of a node that knows which transport
// its dialect uses.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "kitsune2/builder.hpp"
#include "transport/ws.hpp"

namespace kitsune2 {

/// Whether a relay has been set: by default there is none.
bool names_relay(const Config& config);
/// The relay that is set. Errc::invalid_config naming the key.
Result<Url> relay_of(const Config& config);
/// Sets it. `plain_text`: also if it has no TLS, which the configuration does not allow by itself.
void set_relay(Config& config, const Url& relay, bool plain_text);

/// Whether the transport can be made: Errc::invalid_config naming the key.
Result<void> check_relay(const Config& config);
/// Gives `builder` the transport of its configuration's dialect over the relay that is set, and what that knows of
/// where peers come from (`address_group`). `usefulness`: how much a peer is worth to a node that is connected to as
/// many as it may be; null: all the same.
void use_relay_transport(Builder& builder, std::function<std::shared_ptr<WsConnector>()> connector,
                         std::function<std::uint64_t(const Url&)> usefulness = nullptr);

}  // namespace kitsune2
