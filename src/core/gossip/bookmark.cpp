// Moves a bookmark after a round.
#include "core/gossip/bookmark.hpp"

#include <algorithm>

namespace kitsune2::gossip {

std::optional<Bookmark> moved(const std::optional<Bookmark>& known, const Named& named, bool named_something,
                              Timestamp now, Duration skew) {
  if (!known && named.is_compared) {
    return moved(Bookmark{named.since, named.common}, named, named_something, now, skew);
  }
  const auto of_the_future = [&](Timestamp at) { return at > now + skew; };
  // What was stored between the bookmark and where the request began was not announced.
  if (named.since > (known ? known->at : Timestamp{0})) return std::nullopt;
  const auto to = [&](Timestamp at) { return Bookmark{at, known && at <= known->at ? known->sectors : named.common}; };
  const bool was_of_the_future = known && of_the_future(known->at);
  if (!named_something && (was_of_the_future || of_the_future(named.next))) {
    return to(std::min(named.next, now - skew));
  }
  if (known && known->at > named.next && !was_of_the_future) return std::nullopt;
  return to(named.next);
}

}  // namespace kitsune2::gossip
