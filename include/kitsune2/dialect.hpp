// The generations of Kitsune2's protocol that a node may speak, and the differences between them.
#pragma once

#include <optional>
#include <string_view>

#include "kitsune2/abi.hpp"

namespace kitsune2 {

/// A generation of Kitsune2's protocol. A node speaks one, in all its spaces and with all its peers: messages do not
/// say to which generation they belong, so a peer's cannot be detected. A process that needs two runs two nodes.
///
/// Ask the functions below for the differences; never compare values. The forms of messages and the rules of the
/// transport are separate, because 0.4 has the messages of 0.2 and the transport of 0.5. The differences were read from
/// the crates of kitsune2 0.2.2, 0.4.1 and 0.5.3; docs/protocol-wire.md lists them under "Later dialects".
enum class Dialect {
  v0_2,  ///< kitsune2 0.2 over tx5
  v0_4,  ///< kitsune2 0.4 over iroh, through its relay
  v0_5,  ///< kitsune2 0.5 over iroh, through its relay
};

/// "0.2", "0.4", "0.5": the name in the configuration.
constexpr std::string_view to_string(Dialect dialect) noexcept {
  switch (dialect) {
    case Dialect::v0_2:
      return "0.2";
    case Dialect::v0_4:
      return "0.4";
    case Dialect::v0_5:
      break;
  }
  return "0.5";
}
/// The dialect with that name; nullopt if there is none.
constexpr std::optional<Dialect> dialect_of(std::string_view name) noexcept {
  for (const Dialect dialect : {Dialect::v0_2, Dialect::v0_4, Dialect::v0_5}) {
    if (name == to_string(dialect)) return dialect;
  }
  return std::nullopt;
}

// --- forms of messages

/// Whether an op in a response of fetch has its id beside its bytes. Otherwise the receiver computes the id.
constexpr bool op_carries_id(Dialect dialect) noexcept { return dialect == Dialect::v0_5; }
/// Whether a published op id may have metadata of the host beside it.
constexpr bool publish_carries_metadata(Dialect dialect) noexcept { return dialect == Dialect::v0_5; }
/// Whether the two sides of a gossip round tell each other how many ops they hold.
constexpr bool gossip_tells_op_count(Dialect dialect) noexcept { return dialect != Dialect::v0_2; }

// --- rules of the transport

/// Whether the transport is QUIC through an iroh relay. Otherwise it is tx5 through an sbd relay.
constexpr bool uses_iroh(Dialect dialect) noexcept { return dialect != Dialect::v0_2; }
/// What a url may be beyond `ws://` or `wss://`, host, port and peer id: see Url.
struct UrlForm {
  bool http = false;        ///< also `http://` and `https://`
  bool relay_path = false;  ///< the relay may have a path of its own, which comes before the peer's id
  friend bool operator==(const UrlForm&, const UrlForm&) = default;
};
/// For stores, which keep the urls of any dialect. Who takes a url from a peer or a user asks `url_form`.
inline constexpr UrlForm kAnyUrlForm{.http = true, .relay_path = true};
/// The urls of this dialect's peers and relays.
constexpr UrlForm url_form(Dialect dialect) noexcept {
  return {.http = uses_iroh(dialect), .relay_path = uses_iroh(dialect)};
}
/// A peer is heard, and spoken to, in a space only while one of the space's agents is known at its url.
constexpr bool known_peers_only(Dialect dialect) noexcept { return dialect != Dialect::v0_2; }
/// Whether one connection to a peer counts and the others are closed. Otherwise the last one made is written to and all
/// are read.
constexpr bool one_connection_counts(Dialect dialect) noexcept { return dialect == Dialect::v0_5; }
/// Whether who dials names the peer in the handshake (TLS's server name). No peer looks at it.
constexpr bool dials_by_name(Dialect dialect) noexcept { return dialect == Dialect::v0_4; }
/// Whether the relay is offered version 2 of its protocol beside version 1.
constexpr bool offers_relay_v2(Dialect dialect) noexcept { return dialect == Dialect::v0_5; }
/// Whether a close has a code that tells the peer whether it is a failure or on purpose. (In 0.4 every close counts as
/// a failure.)
constexpr bool close_has_code(Dialect dialect) noexcept { return dialect == Dialect::v0_5; }
/// Whether the reason for a close travels in the transport's own close, not in a last message (DISCONNECT).
constexpr bool close_has_text(Dialect dialect) noexcept { return uses_iroh(dialect); }
/// Whether the connection ends with a message that does not decode or that its handler refuses, and with DISCONNECT.
/// Otherwise such a message is dropped, and only a refused preflight ends the connection.
constexpr bool refused_message_closes(Dialect dialect) noexcept { return dialect == Dialect::v0_2; }

}  // namespace kitsune2
