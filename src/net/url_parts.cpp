// Parses a ws, wss, http or https url.
#include "net/url_parts.hpp"

#include <algorithm>

#include "net/conn.hpp"

namespace kitsune2::net {

Result<UrlParts> parse_url(std::string_view url, std::string_view plain, std::string_view secure) {
  const std::string shown(url.substr(0, 200));
  const auto bad = [&](std::string_view why) {
    return make_error(Errc::invalid_argument, "url \"" + shown + "\": " + std::string(why));
  };
  if (std::any_of(url.begin(), url.end(), [](char c) { return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f; })) {
    return make_error(Errc::invalid_argument, "a url with spaces or control characters");
  }
  const auto colon = url.find("://");
  const std::string_view scheme = url.substr(0, colon);
  if (colon == std::string_view::npos || (scheme != plain && scheme != secure)) {
    return bad("must begin with " + std::string(plain) + ":// or " + std::string(secure) + "://");
  }
  UrlParts out;
  out.tls = scheme == secure;
  std::string_view rest = url.substr(colon + 3);
  if (rest.find('#') != std::string_view::npos) return bad("has a fragment");
  const auto end = rest.find_first_of("/?");
  const std::string_view authority = rest.substr(0, end);
  out.target = end == std::string_view::npos ? "/" : std::string(rest.substr(end));
  if (out.target.front() == '?') out.target.insert(out.target.begin(), '/');
  if (authority.empty()) return bad("has no host");
  if (authority.find('@') != std::string_view::npos) return bad("has a user");
  out.authority = authority;
  const bool has_port = authority.back() != ']' && authority.rfind(':') != std::string_view::npos;
  const auto parts = split_host_port(has_port ? out.authority : out.authority + (out.tls ? ":443" : ":80"));
  if (!parts) return bad("the host or port is not valid");
  if (parts->second == 0) return bad("port 0");
  out.host = parts->first;
  out.port = parts->second;
  return out;
}

}  // namespace kitsune2::net
