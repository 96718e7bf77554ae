// Counts what floods bring.
#include "transport/iroh/flood_guard.hpp"

#include <algorithm>

namespace kitsune2::iroh {

bool FloodGuard::on_for_nobody(std::size_t count, Time now) {
  if (count == 0 || is_strict(now) || left_.take(now, count)) return false;
  const bool again = period_ > Duration::zero() && now < until_ + kCalm;
  period_ = again ? std::min(2 * period_, kMostPeriod) : kLeastPeriod;
  until_ = now + period_;
  return true;
}

bool FloodGuard::is_stale(std::size_t count, Time now) { return count > 0 && is_strict(now) && renewals_.take(now); }

bool FloodGuard::on_datagrams(Peer& peer, std::size_t useless, std::uint64_t brought, Time now) {
  if (peer.ignored_) return false;
  const auto forgiven = static_cast<std::uint64_t>((now - peer.since_) / kUselessEach);
  peer.since_ += kUselessEach * static_cast<Duration::rep>(forgiven);
  peer.useless_ -= std::min(peer.useless_, forgiven);
  peer.useless_ += useless;
  peer.useless_ -= std::min(peer.useless_, brought / kBytesForOne);
  peer.ignored_ = peer.useless_ > kMostUseless;
  return peer.ignored_;
}

}  // namespace kitsune2::iroh
