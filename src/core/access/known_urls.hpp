// The urls of the peers that may speak in a space, where the dialect has that rule.
#pragma once

#include <cstddef>
#include <list>
#include <unordered_map>
#include <utility>

#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// Whether an agent of one space is known at a url (`known_peers_only`).
///
///  K1  A url is known for kKept after an info of an agent there was accepted. A tombstone changes nothing: an agent
///      that leaves is heard until then. Reason: as in the reference. Infos are renewed every 15 minutes, so an agent
///      that stays is always known.
///  K2  There are at most `most` of them; then the one that was renewed longest ago is given up. Reason: agents are
///      free. It may be that of an honest peer, since a flood of newcomers is faster than its renewals; therefore a url
///      is known too as long as the peer store holds an info there (CoreSpace::is_known), and the peer store protects
///      peers in use.
/// Pure. O(1).
class KnownUrls {
 public:
  static constexpr Duration kKept = std::chrono::hours(1);
  static constexpr std::size_t kMost = 20'000;

  explicit KnownUrls(std::size_t most = kMost) : most_(most) {}

  /// An info with this url was accepted. False: it was known already.
  bool on_info(const Url& url, Time now) {
    const auto found = places_.find(url);
    const bool is_new = found == places_.end() || found->second->second + kKept <= now;
    if (found != places_.end()) renewed_.erase(found->second);
    renewed_.emplace_back(url, now);
    places_[url] = std::prev(renewed_.end());
    while (renewed_.size() > most_ || renewed_.front().second + kKept <= now) {
      places_.erase(renewed_.front().first);
      renewed_.pop_front();
    }
    return is_new;
  }
  bool is_known(const Url& url, Time now) const {
    const auto found = places_.find(url);
    return found != places_.end() && now < found->second->second + kKept;
  }
  std::size_t size() const { return renewed_.size(); }

 private:
  using Entries = std::list<std::pair<Url, Time>>;

  const std::size_t most_;
  Entries renewed_;  ///< the one renewed longest ago first
  std::unordered_map<Url, Entries::iterator> places_;
};

}  // namespace kitsune2
