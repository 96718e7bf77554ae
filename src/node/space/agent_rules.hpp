// Which agent infos of other nodes are accepted.
#pragma once

#include <string>

#include "kitsune2/agent.hpp"
#include "kitsune2/budget.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2 {

/// How far a peer's clock may be ahead of ours, and how long an info may be valid. The bootstrap server of 0.2.2 has
/// the same limits. *Rationale*: an info that never expires would be kept for a peer that is long gone, and one from
/// the future could not be replaced by its agent.
inline constexpr Duration kMaxClockSkew = std::chrono::minutes(3);
inline constexpr Duration kMaxInfoLifetime = std::chrono::minutes(30);
/// How long our own infos are valid, as in 0.2.2.
inline constexpr Duration kInfoLifetime = std::chrono::minutes(20);

/// Judges a verified info. Errc::peer_fault (another space), Errc::expired, Errc::invalid_argument (from the future, or
/// valid for too long).
inline Result<void> judge_agent_info(const AgentInfo& info, const SpaceId& space, Timestamp now) {
  if (info.space != space) return make_error(Errc::peer_fault, "of another space");
  if (info.expires_at <= now) return make_error(Errc::expired, "has expired");
  if (info.created_at > now + kMaxClockSkew) return make_error(Errc::invalid_argument, "is from the future");
  if (info.expires_at <= info.created_at || info.expires_at - info.created_at > kMaxInfoLifetime)
    return make_error(Errc::invalid_argument, "is valid for too long");
  return {};
}

/// The holder of the quota of the peer store (PeerStore::insert_from) for what `peer` brings: its address, if known.
/// *Reason*: urls cost nothing.
inline std::string bringer_of(const PeerBudget& budget, const Url& peer) {
  auto group = budget.address_group(peer);
  return group ? "address " + *group : peer.to_string();
}

}  // namespace kitsune2
