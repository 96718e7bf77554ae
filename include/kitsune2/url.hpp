// Urls of peers and relays, in the reference's canonical form.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "kitsune2/dialect.hpp"
#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"

namespace kitsune2 {

/// The address of a peer or of a relay: `wss://host:port/<peer id>`.
///
/// Only the canonical spelling is accepted, as by `Url` of kitsune2_api: the scheme in lower case, a host, an explicit
/// port even for 80 and 443, no empty path segment, no trailing slash, no query, fragment or user. Without a path it
/// addresses a relay. With one it addresses a peer, whose id is the last segment. *Rationale*: urls are compared as
/// strings all over the protocol. One difference from the reference is known: an "xn--" label is accepted if it
/// decodes, because IDNA's tables of permitted characters are not consulted.
///
/// Which schemes there are, and whether a relay may have a path, is the transport's business: its dialect's `UrlForm`.
/// In 0.2 a url is `ws://…` or `wss://…` with at most one path segment; in the later ones it may be
/// `https://host:port/relay/<peer id>`. What an id looks like is known to the transport alone.
/// Immutable; copies are cheap (shared). See docs/protocol-wire.md, "Urls".
class Url {
 public:
  Url() = default;  ///< the empty url: addresses nothing

  /// Errc::malformed if it is no canonical url of this form, with the expected one where that is clear.
  static Result<Url> parse(std::string_view text, const UrlForm& form = url_form(Dialect::v0_2));

  std::string_view str() const noexcept { return text_.text(); }
  std::string to_string() const { return std::string(str()); }
  bool empty() const noexcept { return text_.empty(); }

  /// "ws", "wss", "http" or "https".
  std::string_view scheme() const noexcept;
  bool uses_tls() const noexcept { return scheme() == "wss" || scheme() == "https"; }
  /// "host:port" as written.
  std::string_view addr() const noexcept;
  /// The host without the brackets of an IPv6 literal.
  std::string_view host() const noexcept;
  std::uint16_t port() const noexcept;
  /// The last path segment, if there is one. A relay's url has none: its path ends with a slash.
  std::optional<std::string_view> peer_id() const noexcept;
  bool is_peer() const noexcept { return peer_id().has_value(); }
  /// This url without the peer's id: the relay that the peer is on. If the relay has a path, it ends with a slash, by
  /// which it is known from a peer; `parse` takes no such url.
  Url relay() const;

  friend bool operator==(const Url& a, const Url& b) noexcept { return a.text_ == b.text_; }
  friend std::strong_ordering operator<=>(const Url& a, const Url& b) noexcept { return a.text_ <=> b.text_; }

 private:
  Bytes text_;
};

}  // namespace kitsune2

template <>
struct std::hash<kitsune2::Url> {
  std::size_t operator()(const kitsune2::Url& u) const noexcept {
    return kitsune2::keyed_hash(kitsune2::as_bytes(u.str()));
  }
};
