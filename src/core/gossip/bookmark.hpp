// Where a peer's new ops go on.
#pragma once

#include <optional>

#include "core/dht/sector_set.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2::gossip {

/// The time, by the peer's clock, at which its next ops begin, and the sectors whose ops it has named up to there.
///
/// *Rules*. K1: a bookmark moves on only when what was named is pending or held (the caller sees to it). K2: it holds
/// for the sectors that were common when it moved; when more are common it is worth nothing, and everything is named
/// once more. K3: it never goes back, except from the future. *Rationale*: K2, a peer names what lies in the common
/// sectors and nothing else, so whoever comes to store more, or meets a peer that does, lacks the older ops. K3, a peer
/// whose clock was ahead may have stored ops then, and all of them are to be named; but its clock may also have been
/// set back, and a bookmark of the future would hide what it stores until that time comes. So such a bookmark is
/// followed as long as it leads to ops, and after that begins shortly before the present again.
struct Bookmark {
  Timestamp at;
  SectorSet sectors;

  bool holds_for(const SectorSet& common) const { return common.is_within(sectors); }
  friend bool operator==(const Bookmark&, const Bookmark&) = default;
};

/// What was asked for in a round, and what the peer said of its answer.
struct Named {
  Timestamp since;  ///< what the peer named is complete from here on …
  Timestamp next;   ///< … to here
  SectorSet common;
};

/// Where to begin asking. Without a bookmark: 1970. *Rationale*: a stock node asks for the last 30 minutes then,
/// because its comparison finds the rest, in two rounds or more. This is one.
inline Timestamp since(const std::optional<Bookmark>& bookmark) { return bookmark ? bookmark->at : Timestamp{0}; }

/// The bookmark after a round; nullopt: it stays as it is. `known` holds for `named.common`, or is nullopt.
/// `skew`: by how much clocks of honest peers may differ.
std::optional<Bookmark> moved(const std::optional<Bookmark>& known, const Named& named, bool named_something,
                              Timestamp now, Duration skew);

}  // namespace kitsune2::gossip
