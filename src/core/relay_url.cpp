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

Result<Url> canonical_relay_url(std::string_view text, const UrlForm& form) {
  std::string canonical(text);
  while (canonical.ends_with('/')) canonical.pop_back();
  const std::size_t scheme = canonical.find("://");
  if (scheme != std::string::npos) {
    const std::size_t begin = scheme + 3;
    const std::string_view rest = std::string_view(canonical).substr(begin);
    const std::size_t slash = rest.find('/');
    if (!has_port(rest.substr(0, slash)) && (slash == std::string_view::npos || form.relay_path)) {
      const bool tls = canonical.starts_with("wss:") || canonical.starts_with("https:");
      canonical.insert(slash == std::string_view::npos ? canonical.size() : begin + slash, tls ? ":443" : ":80");
    }
  }
  Result<Url> url = Url::parse(canonical, form);
  const auto bad = [&](const char* what) {
    return make_error(Errc::invalid_config,
                      std::string("must be a relay's url") + what + ", got \"" + std::string(text) + '"');
  };
  if (!url) return bad(" like wss://host:port");
  if (!url->is_peer()) return url;
  if (!form.relay_path) return bad(", without a path");
  // It is the relay of any peer on it.
  return Url::parse(canonical + "/peer", form).value().relay();
}

}  // namespace kitsune2
