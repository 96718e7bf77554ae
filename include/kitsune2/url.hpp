// Peer urls in kitsune2 0.2.2's canonical form.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "kitsune2/error.hpp"
#include "kitsune2/ids.hpp"

namespace kitsune2 {

/// The address of a peer (or of a relay): `ws://host:port/<peer id>` or `wss://…`.
///
/// Only the canonical spelling is accepted, the same table as the reference: scheme ws or wss in lower case, a host, an
/// explicit port even for 80 and 443, at most one path segment, no trailing slash, no query, fragment or user. Without
/// the path it addresses a relay, with it a peer there. *Rationale*: urls are compared as strings all over the
/// protocol. The one known difference: an "xn--" label is accepted if it decodes, without IDNA's tables of permitted
/// characters. Immutable; copies are cheap (shared). Source: wire 0.2.2 (f).
class Url {
 public:
  Url() = default;  ///< the empty url: addresses nothing

  /// Errc::malformed, with the expected canonical form where there is one.
  static Result<Url> parse(std::string_view text);

  std::string_view str() const noexcept { return text_.text(); }
  std::string to_string() const { return std::string(str()); }
  bool empty() const noexcept { return text_.empty(); }

  bool uses_tls() const noexcept { return str().starts_with("wss"); }
  /// "host:port" as written.
  std::string_view addr() const noexcept;
  /// The host without the brackets of an IPv6 literal.
  std::string_view host() const noexcept;
  std::uint16_t port() const noexcept;
  /// The last path segment, if there is one.
  std::optional<std::string_view> peer_id() const noexcept;
  bool is_peer() const noexcept { return peer_id().has_value(); }
  /// This url without its path: the relay the peer is on.
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
