// What is kept about peers, up to a number of them.
#pragma once

#include <cstddef>
#include <list>
#include <unordered_map>
#include <utility>

#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

/// A value for each of at most `kMost` peers. When there is one more, the peer that was touched longest ago is dropped.
template <class T, std::size_t kMost>
class PeerNotes {
 public:
  /// nullptr: nothing is kept about `peer`. Does not touch it. The pointer holds until the peer is dropped.
  T* find(const Url& peer) {
    const auto it = places_.find(peer);
    return it == places_.end() ? nullptr : &it->second->second;
  }
  const T* find(const Url& peer) const {
    const auto it = places_.find(peer);
    return it == places_.end() ? nullptr : &it->second->second;
  }
  /// Its value, at first T{}.
  T& touch(const Url& peer) {
    if (const auto it = places_.find(peer); it != places_.end()) {
      by_touch_.splice(by_touch_.begin(), by_touch_, it->second);
      return it->second->second;
    }
    by_touch_.emplace_front(peer, T{});
    places_.emplace(peer, by_touch_.begin());
    if (places_.size() > kMost) {
      places_.erase(by_touch_.back().first);
      by_touch_.pop_back();
    }
    return by_touch_.front().second;
  }
  void erase(const Url& peer) {
    const auto it = places_.find(peer);
    if (it == places_.end()) return;
    by_touch_.erase(it->second);
    places_.erase(it);
  }
  std::size_t size() const { return places_.size(); }

 private:
  using Order = std::list<std::pair<Url, T>>;
  Order by_touch_;  ///< the most recent first
  std::unordered_map<Url, typename Order::iterator> places_;
};

}  // namespace kitsune2::gossip
