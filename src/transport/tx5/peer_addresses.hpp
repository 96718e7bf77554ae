// The addresses from which the peers of a relay inside this process connect, as that relay reports them.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "core/slots/slots.hpp"
#include "kitsune2/url.hpp"
#include "transport/sbd/sbd_frames.hpp"

namespace kitsune2::tx5 {

/// What the node's link has learnt, shared with those that count by address. The relay may be that of sbd or iroh,
/// whose ids have the same size. Bounded: beyond `most` peers the first ones are forgotten. Strand only.
class PeerAddresses {
 public:
  explicit PeerAddresses(std::size_t most = 16'384) : most_(most) {}

  /// A new connection to `relay`: nothing is known about its peers yet.
  void begin(const Url& relay);
  void learn(const sbd::NodeId& peer, const slots::Address& address);
  std::optional<slots::Address> of(const sbd::NodeId& peer) const;
  /// A short text that is equal for all peers of one address group: an IPv4 address, or the /56 of an IPv6 address.
  /// nullopt: unknown, or at another relay.
  std::optional<std::string> group_of(const Url& peer) const;

 private:
  const std::size_t most_;
  std::optional<Url> relay_;
  std::map<sbd::NodeId, slots::Address> known_;
  std::deque<sbd::NodeId> in_order_;
};

}  // namespace kitsune2::tx5
