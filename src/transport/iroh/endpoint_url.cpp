// Urls of iroh endpoints: relay and id.
#include "transport/iroh/endpoint_url.hpp"

#include <string>
#include <string_view>

#include "core/relay_url.hpp"

namespace kitsune2::iroh {
namespace {

Error bad_config(const std::string& what) {
  return make_error(Errc::invalid_config, "irohTransport.relayUrl: " + what);
}

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

Result<Url> relay_of(const IrohTransportConfig& config) {
  if (!config.relay_url) {
    return bad_config("is not set; name a relay (this node never uses anybody's public relays unasked)");
  }
  Result<Url> relay = canonical_relay_url(*config.relay_url, url_form(Dialect::v0_5));
  if (relay.has_error()) return bad_config(relay.error().message);
  if (!relay->uses_tls() && !config.relay_allow_plain_text) {
    return bad_config("is not encrypted (" + std::string(relay->scheme()) +
                      "://); use https:// or set relayAllowPlainText to true");
  }
  return relay;
}

Url endpoint_url(const Url& relay, const EndpointId& id) {
  std::string text = relay.to_string();
  if (!text.ends_with('/')) text += '/';
  Result<Url> url = Url::parse(text + to_hex(id), url_form(Dialect::v0_5));
  K2_ASSERT(url.has_value());
  return *url;
}

std::optional<EndpointId> endpoint_id(const Url& url) {
  const std::optional<std::string_view> text = url.peer_id();
  EndpointId id{};
  if (!text || text->size() != 2 * id.size()) return std::nullopt;
  for (std::size_t i = 0; i < id.size(); ++i) {
    const int high = digit((*text)[2 * i]), low = digit((*text)[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    id[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return id;
}

}  // namespace kitsune2::iroh
