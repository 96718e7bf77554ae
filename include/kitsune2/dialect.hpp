// The generations of Kitsune2 that a node may speak, and what differs between them.
#pragma once

#include <optional>
#include <string_view>

#include "kitsune2/abi.hpp"

namespace kitsune2 {

/// A generation of Kitsune2's protocol. A node speaks one, in all its spaces and to all its peers: the messages do not
/// say which one they are of, so it cannot be found out from a peer. A process that is to speak two runs two nodes.
///
/// What differs is asked by the functions below, never by comparing values. Message forms and transport rules are
/// apart, because 0.4 has the messages of 0.2 and the transport of 0.5. Sources: the crates of kitsune2 0.2.2, 0.4.1
/// and 0.5.3.
enum class Dialect {
  v0_2,  ///< kitsune2 0.2 over tx5
  v0_4,  ///< kitsune2 0.4 over iroh. Not built yet
  v0_5,  ///< kitsune2 0.5 over iroh. Not built yet
};

/// Whether a node of this version can speak it. A configuration with another one is refused.
constexpr bool is_built(Dialect dialect) noexcept { return dialect == Dialect::v0_2; }

/// "0.2", "0.4", "0.5": its name in the configuration.
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
/// The dialect of that name; nullopt: there is none.
constexpr std::optional<Dialect> dialect_of(std::string_view name) noexcept {
  for (const Dialect dialect : {Dialect::v0_2, Dialect::v0_4, Dialect::v0_5}) {
    if (name == to_string(dialect)) return dialect;
  }
  return std::nullopt;
}

// --- forms of messages

/// An op in an answer of fetch has its id beside its bytes. Otherwise the receiver computes it.
constexpr bool op_carries_id(Dialect dialect) noexcept { return dialect == Dialect::v0_5; }
/// An op id that is published may have metadata of the host beside it.
constexpr bool publish_carries_metadata(Dialect dialect) noexcept { return dialect == Dialect::v0_5; }
/// Who starts or accepts a gossip round tells how many ops it holds.
constexpr bool gossip_tells_op_count(Dialect dialect) noexcept { return dialect != Dialect::v0_2; }

// --- rules of the transport

/// QUIC through an iroh relay. Otherwise tx5 through an sbd relay.
constexpr bool uses_iroh(Dialect dialect) noexcept { return dialect != Dialect::v0_2; }
/// A peer is heard, and spoken to, in a space only while one of the space's agents is known at its url.
constexpr bool known_peers_only(Dialect dialect) noexcept { return dialect != Dialect::v0_2; }
/// A connection is closed with a code by which the peer tells a failure from a close on purpose. (In 0.4 every close
/// counts as a failure.)
constexpr bool close_has_code(Dialect dialect) noexcept { return dialect == Dialect::v0_5; }
/// The reason of a close travels in the transport's own close, not in a last message (DISCONNECT).
constexpr bool close_has_text(Dialect dialect) noexcept { return uses_iroh(dialect); }
/// A message that does not decode or that its handler refuses ends the connection, and DISCONNECT does. Otherwise it is
/// dropped and the connection stays; only a preflight that is refused ends it.
constexpr bool refused_message_closes(Dialect dialect) noexcept { return dialect == Dialect::v0_2; }

}  // namespace kitsune2
