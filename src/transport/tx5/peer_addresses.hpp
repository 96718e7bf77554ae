// The addresses from which the peers of a relay inside this process connect, as that relay reports them.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "core/slots/slots.hpp"
#include "kitsune2/url.hpp"
#include "transport/sbd/sbd_frames.hpp"

namespace kitsune2::tx5 {

/// What the node's link has learnt, shared with those that count by address. The relay may be that of sbd or iroh,
/// whose ids have the same size.
///
///  A1  An address is known from when the relay reports it until the relay reports that the peer has left, or the
///      node's own connection to the relay begins anew.
///  A2  Beyond `most` peers, the first one of the group that has most is forgotten; of several groups, of that which
///      has the first one. Rationale: keys are free. Whoever has many of them at one address makes the relay's
///      node forget those only, and not where others are.
/// Pure. Calls are O(log peers). Strand only.
class PeerAddresses {
 public:
  explicit PeerAddresses(std::size_t most = 16'384) : most_(most) {}

  /// A new connection to `relay`: nothing is known about its peers yet.
  void begin(const Url& relay);
  void learn(const sbd::NodeId& peer, const slots::Address& address);
  /// The peer has left the relay. No effect if it is not known.
  void forget(const sbd::NodeId& peer);
  std::optional<slots::Address> of(const sbd::NodeId& peer) const;
  /// A short text that is equal for all peers of one address group: an IPv4 address, or the /56 of an IPv6 address.
  /// nullopt: unknown, or at another relay.
  std::optional<std::string> group_of(const Url& peer) const;
  std::size_t size() const { return known_.size(); }
  /// For tests: aborts if the tables do not agree. O(n).
  void check_invariants() const;

 private:
  /// Those of one group, in the order in which they were learnt, with their numbers in that order.
  using Peers = std::list<std::pair<std::uint64_t, sbd::NodeId>>;
  using Groups = std::map<slots::Address, Peers>;
  struct Entry {
    slots::Address address{};
    Peers::iterator place;
  };
  /// A group, as A2 compares them: how many it has, and how much earlier than others its first one is.
  struct Rank {
    std::size_t count = 0;
    std::uint64_t seniority = 0;
    slots::Address group{};
    friend auto operator<=>(const Rank&, const Rank&) = default;
  };

  static Rank rank_of(const Groups::value_type& group);

  const std::size_t most_;
  std::optional<Url> relay_;
  std::map<sbd::NodeId, Entry> known_;
  Groups groups_;         ///< by `in_group`; none is empty
  std::set<Rank> ranks_;  ///< of the same groups
  std::uint64_t last_ = 0;
};

}  // namespace kitsune2::tx5
