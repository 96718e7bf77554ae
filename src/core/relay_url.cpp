// Parses the address of a relay in the forms that people write.
#include "core/relay_url.hpp"

#include <string>

namespace kitsune2 {
namespace {

bool has_port(std::string_view authority) {
  const std::size_t colon = authority.rfind(':');
  const std::size_t bracket = authority.rfind(']');
  return colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket);
}

}  // namespace

Result<Url> canonical_relay_url(std::string_view text) {
  std::string canonical(text);
  while (canonical.ends_with('/')) canonical.pop_back();
  const std::size_t scheme = canonical.find("://");
  if (scheme != std::string::npos) {
    const std::string_view authority = std::string_view(canonical).substr(scheme + 3);
    if (!has_port(authority) && authority.find('/') == std::string_view::npos) {
      canonical += canonical.starts_with("wss:") ? ":443" : ":80";
    }
  }
  Result<Url> url = Url::parse(canonical);
  const auto bad = [&](const char* what) {
    return make_error(Errc::invalid_config,
                      std::string("must be a relay's url") + what + ", got \"" + std::string(text) + '"');
  };
  if (url.has_error()) return bad(" like wss://host:port");
  if (url->is_peer()) return bad(", without a path");
  return url;
}

}  // namespace kitsune2
