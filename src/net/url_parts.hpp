// The parts of a ws, wss, http or https url that a client needs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kitsune2/error.hpp"

namespace kitsune2::net {

struct UrlParts {
  bool tls = false;
  std::string host;  ///< without brackets
  std::uint16_t port = 0;
  std::string authority;  ///< for the Host header, as written
  std::string target;     ///< path and query, at least "/"
};

/// Parses "<plain>://…" and "<secure>://…" ("ws", "wss"), with the default ports 80 and 443, and not only canonical
/// kitsune2 urls. Errc::invalid_argument, naming the url: another scheme, a user, a fragment, spaces or control
/// characters.
Result<UrlParts> parse_url(std::string_view url, std::string_view plain, std::string_view secure);

}  // namespace kitsune2::net
