// How many agent infos of a peer are examined. The rules are in the header.
#include "core/peers/info_rates.hpp"

#include <algorithm>

namespace kitsune2 {

namespace {
constexpr std::int64_t kOne = 1'000'000;
}

void InfoRates::Allowance::refill(std::int64_t burst, std::int64_t per_second, Time now) {
  if (!at) {
    left = burst * kOne;
  } else if (now > *at) {
    left = std::min(burst * kOne, left + std::min<std::int64_t>((now - *at).count(), burst * kOne) * per_second);
  }
  at = at ? std::max(*at, now) : now;
}

std::size_t InfoRates::take(const Url& peer, bool is_known, std::size_t count, Time now) {
  Allowance& own = peers_[peer];
  own.refill(kBurst, kPerSecond, now);
  auto out = std::min<std::int64_t>(own.left / kOne, static_cast<std::int64_t>(count));
  if (!is_known) {
    newcomers_.refill(kNewcomersBurst, kNewcomersPerSecond, now);
    out = std::min(out, newcomers_.left / kOne);
    newcomers_.left -= out * kOne;
  }
  own.left -= out * kOne;
  return static_cast<std::size_t>(out);
}

}  // namespace kitsune2
