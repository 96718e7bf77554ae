// Up to where a peer has named its ops to us, so that we need not ask for them again.
#pragma once

#include <algorithm>
#include <optional>

#include "core/dht/sector_set.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2::gossip {

/// A peer has named us all ops of `sectors` that it stored before `at`, by its own clock. The next round asks it for
/// what comes after.
///
/// *Rules*.
///  K1  A bookmark moves on only when the ops that were named are pending or held. The caller sees to that.
///  K2  It holds for the sectors that were common when it moved. If more sectors are common, it is worthless, and the
///      peer names everything once more. Rationale: a peer names only what lies in the common sectors. So a node that
///      begins to store more, or meets a peer that does, lacks the older ops of the other sectors.
///  K3  It never moves back, except from the future. Rationale: a peer whose clock was ahead may have stored ops at
///      that time, and all of them are to be named. But its clock may also have been set back; then a bookmark in the
///      future would hide all that the peer stores until that time comes. So such a bookmark is followed as long as it
///      leads to ops. When it does not any more, it is set to shortly before the present.
///  K4  A node without a bookmark that holds many ops asks for those of the last `kRecent`, as a stock node does, and
///      leaves the rest to the comparison in the same round; the bookmark then begins there. A node that holds few ops,
///      or that found twice in a row that the peer cannot be compared with, asks for everything. Rationale: where both
///      hold the same, a comparison costs next to nothing, and a list of everything 34 bytes an op. It is tried twice,
///      because the reason may pass: a node that has just started compares when it has read its store. But a node
///      without ops needs no comparison to know what it lacks. What is in no comparison, because it is dated before
///      1970 or in the future, or because its id has another length, a node that holds many learns only while it is
///      new; one that holds few is named it again when more sectors are common (K2).
struct Bookmark {
  Timestamp at;
  SectorSet sectors;

  bool holds_for(const SectorSet& common) const { return common.is_within(sectors); }
  friend bool operator==(const Bookmark&, const Bookmark&) = default;
};

/// What a peer has named in a round: all ops of `common` that it stored from `since` on and before `next`.
struct Named {
  Timestamp since;
  Timestamp next;
  SectorSet common;
  /// What the two hold from before `since` was compared in this round, by a node that holds many ops (K4).
  bool is_compared = false;
};

/// As in the reference.
inline constexpr Duration kRecent = std::chrono::minutes(30);

/// From when on to ask a peer for its ops. `can_compare`: whether to leave the rest to a comparison (K4).
inline Timestamp since(const std::optional<Bookmark>& bookmark, bool can_compare, Timestamp now) {
  if (bookmark) return bookmark->at;
  return can_compare ? std::max(now - kRecent, Timestamp{0}) : Timestamp{0};
}

/// The bookmark after a round, or nullopt if it stays as it is. `known`: the bookmark before it, if that holds for
/// `named.common`. `skew`: the most by which the clocks of honest peers differ.
std::optional<Bookmark> moved(const std::optional<Bookmark>& known, const Named& named, bool named_something,
                              Timestamp now, Duration skew);

}  // namespace kitsune2::gossip
