// Reads and writes links, and puts into words what a fetch waits for and what is wrong with a path.
#include <algorithm>
#include <charconv>
#include <optional>

#include "files/format.hpp"
#include "kitsune2/files.hpp"
#include "log/log.hpp"

namespace kitsune2::files {

namespace {
constexpr std::string_view kScheme = "kitsune2://";
constexpr std::size_t kMaxRelayPath = 200;

Error bad(std::string_view what) { return make_error(Errc::invalid_argument, "link: " + std::string(what)); }

bool is_host_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}
bool is_ipv6_char(char c) {
  return (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || (c >= '0' && c <= '9') || c == ':' || c == '.';
}

/// Removes what often surrounds a link in a text; none of it can begin or end a link.
std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBefore = " \t\r\n\"'`<([{";
  constexpr std::string_view kBehind = " \t\r\n\"'`>)]}.,;:!/";
  text.remove_prefix(std::min(text.find_first_not_of(kBefore), text.size()));
  text.remove_suffix(text.size() - (text.find_last_not_of(kBehind) + 1));
  return text;
}

bool is_path_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~/").find(c) != std::string_view::npos;
}

/// Whether a relay's path can be in a link.
bool is_relay_path(std::string_view path) {
  if (path.size() > kMaxRelayPath || !std::all_of(path.begin(), path.end(), is_path_char)) return false;
  return !path.starts_with('/') && !path.ends_with('/') && path.find("//") == std::string_view::npos;
}

/// What follows the question mark. The parts are separated by commas, because a shell takes a bare & for the command's
/// end, and what is left would be the link of another network.
std::string query_of(const Link& link) {
  std::string out;
  const auto add = [&out](const std::string& part) { out += (out.empty() ? "" : ",") + part; };
  if (link.tls) add("tls=1");
  if (uses_iroh(link.network) && link.relay_path != Link::kRelayPath) add("relay=" + link.relay_path);
  // The last one, because what may surround a link in a text can end a path.
  if (link.network != Dialect::v0_2) add("network=" + std::string(to_string(link.network)));
  return out;
}

Result<void> read_query(std::string query, Link& link) {
  std::replace(query.begin(), query.end(), '&', ',');  // so it is written elsewhere
  const auto value_of = [](std::string_view part, std::string_view key) -> std::optional<std::string_view> {
    return part.starts_with(key) ? std::optional(part.substr(key.size())) : std::nullopt;
  };
  for (std::string_view rest = query; !rest.empty();) {
    const std::string_view part = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    if (part == "tls=1") link.tls = true;
    if (const auto path = value_of(part, "relay="); path && is_relay_path(*path)) link.relay_path = *path;
    if (const auto name = value_of(part, "network=")) {
      const auto dialect = dialect_of(*name);
      if (!dialect) return bad("network \"" + printable(*name) + "\" is not one that this version knows");
      link.network = *dialect;
    }
  }
  if (!query.empty() && query_of(link) == query) return {};
  return bad('"' + printable(query) +
             "\" after the question mark; only tls=1, relay=PATH and network=" + std::string(to_string(Dialect::v0_4)) +
             " or " + std::string(to_string(Dialect::v0_5)) + " are known, in this order");
}

}  // namespace

Result<std::pair<std::string, std::uint16_t>> parse_host_port(std::string_view text) {
  const auto fault = [&](std::string_view what) {
    return make_error(Errc::invalid_argument, '"' + printable(text.substr(0, 300)) + "\": " + std::string(what));
  };
  std::string_view host, port;
  if (text.starts_with('[')) {
    const auto close = text.find(']');
    if (close == std::string_view::npos) return fault("the IPv6 address has no closing bracket");
    host = text.substr(1, close - 1);
    if (!text.substr(close + 1).starts_with(':')) return fault("the port is missing, expected [HOST]:PORT");
    port = text.substr(close + 2);
    if (host.find(':') == std::string_view::npos) return fault("no IPv6 address in the brackets");
    for (const char c : host) {
      if (!is_ipv6_char(c)) return fault("no IPv6 address in the brackets");
    }
  } else {
    const auto colon = text.find(':');
    if (colon == std::string_view::npos) return fault("the port is missing, expected HOST:PORT");
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    if (port.find(':') != std::string_view::npos) return fault("an IPv6 address needs brackets, [HOST]:PORT");
    if (host.empty()) return fault("the host is missing");
    for (const char c : host) {
      if (!is_host_char(c)) return fault("a character that is not allowed in a host name");
    }
  }
  if (host.size() > 253) return fault("the host is too long");
  unsigned value = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), value);
  if (port.empty() || port.size() > 5 || error != std::errc() || end != port.data() + port.size() || value > 65535) {
    return fault("the port is not a number from 0 to 65535");
  }
  return std::pair(std::string(host), static_cast<std::uint16_t>(value));
}

Result<Link> Link::parse(std::string_view text) {
  if (text.size() > 4096) return bad("too long");
  text = trimmed(text);
  if (!text.starts_with(kScheme)) return bad("does not begin with kitsune2://");
  text.remove_prefix(kScheme.size());
  Link link;
  if (const auto query = text.find('?'); query != std::string_view::npos) {
    if (auto read = read_query(std::string(text.substr(query + 1)), link); !read) return read.error();
    text = text.substr(0, query);
  }
  const auto first = text.find('/');
  if (first == std::string_view::npos) return bad("the space is missing, expected HOST:PORT/SPACE/ROOT");
  const auto second = text.find('/', first + 1);
  if (second == std::string_view::npos) return bad("the root is missing, expected HOST:PORT/SPACE/ROOT");
  auto address = parse_host_port(text.substr(0, first));
  if (!address) return address.error().context("link");
  if (address->second == 0) return bad("nobody can connect to port 0");
  link.host = std::move(address->first);
  link.port = address->second;
  std::vector<std::uint8_t> raw;
  if (!from_base64url(text.substr(first + 1, second - first - 1), raw) || raw.empty() || raw.size() > 1024) {
    return bad("the space is not base64 (URL-safe, no padding) of 1 to 1024 bytes");
  }
  link.space = SpaceId(ByteView(raw));
  if (!from_base64url(text.substr(second + 1), raw) || raw.size() != kIdBytes) {
    return bad("the root is not base64 (URL-safe, no padding) of 32 bytes; is the link cut off?");
  }
  link.root = OpId(ByteView(raw));
  return link;
}

std::string Link::to_string() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  const std::string query = query_of(*this);
  return std::string(kScheme) + (ipv6 ? '[' + host + ']' : host) + ':' + std::to_string(port) + '/' +
         space.to_string() + '/' + root.to_string() + (query.empty() ? query : '?' + query);
}

std::string Link::relay_url() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  const std::string address = (ipv6 ? '[' + host + ']' : host) + ':' + std::to_string(port);
  if (!uses_iroh(network)) return (tls ? "wss://" : "ws://") + address;
  return (tls ? "https://" : "http://") + address + '/' + relay_path;
}

std::string_view to_string(FetchWait wait) {
  switch (wait) {
    case FetchWait::nothing:
      return "nothing";
    case FetchWait::connecting:
      return "connecting";
    case FetchWait::relay:
      return "relay";
    case FetchWait::bootstrap:
      return "bootstrap";
    case FetchWait::empty_space:
      return "empty_space";
    case FetchWait::no_source:
      return "no_source";
    case FetchWait::no_answer:
      return "no_answer";
  }
  return "unknown";
}

std::string_view to_string(PathIssue::Kind kind) {
  switch (kind) {
    case PathIssue::Kind::skipped:
      return "skipped";
    case PathIssue::Kind::unreadable:
      return "unreadable";
    case PathIssue::Kind::changed:
      return "changed";
    case PathIssue::Kind::missing:
      return "missing";
    case PathIssue::Kind::exists:
      return "exists";
    case PathIssue::Kind::unwritable:
      return "unwritable";
  }
  return "unknown";
}

std::string printable(std::string_view path) { return log::escaped(path); }

}  // namespace kitsune2::files
