// When to connect to a relay again. The rules are in the header.
#include "transport/sbd/reconnect.hpp"

#include <algorithm>

namespace kitsune2::sbd {
namespace {

/// `whole` x random / 2^32.
Duration part(Duration whole, std::uint32_t random) {
  // In microseconds: an hour times 2^32 fits.
  return Duration(static_cast<std::int64_t>((static_cast<std::uint64_t>(whole.count()) * random) >> 32));
}

}  // namespace

void Reconnect::on_connected(Time now) {
  connected_at_ = now;
  next_try_.reset();
}

Time Reconnect::on_lost(Time now, std::uint32_t random) {
  if (connected_at_ && now - *connected_at_ >= limits_.stable_after) backoff_ = limits_.first;
  connected_at_.reset();
  const Duration half = backoff_ / 2;
  next_try_ = now + half + part(backoff_ - half, random);
  backoff_ = std::min(backoff_ * 2, limits_.longest);
  return *next_try_;
}

std::optional<Time> Reconnect::on_sign_of_life(Time now, std::uint32_t random) {
  const Time soon = now + part(limits_.sign_spread, random);
  if (!next_try_ || *next_try_ <= soon || now < next_sign_) return std::nullopt;
  next_sign_ = now + limits_.longest;
  next_try_ = soon;
  return soon;
}

}  // namespace kitsune2::sbd
