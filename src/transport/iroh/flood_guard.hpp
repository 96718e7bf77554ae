// Floods of the UDP socket for direct paths with names that this node has told somebody, and what is done about them.
#pragma once

#include <chrono>
#include <cstddef>

#include "kitsune2/time.hpp"
#include "transport/iroh/direct_paths.hpp"

namespace kitsune2::iroh {

/// What comes to the socket with a marked name (DatagramFilter) was sent by somebody who was told a name, or who sees
/// the traffic. That may be as much as the line carries, and what finds no room in the socket is lost, honest datagrams
/// among it.
///
///  G1  Datagrams with names that are not in use (any more) are counted. When more come than kMostForNobody at once and
///      one more each kForNobodyEach, only names in use are let in, by the system, for kLeastPeriod; for twice as long
///      as before, up to kMostPeriod, if the last time ended less than kCalm ago. *Rationale*: names that a connection
///      has had before cost nothing, and are as many as its peer likes. While the filter is strict nobody sees whether
///      the flood goes on.
///  G2  It lets in names of kMostPeers peers, first of those that are reached on direct paths. *Rationale*: each ping
///      has a new name, and each new name needs a new filter, about 0.1 ms. The others are reached by the relay.
///  G3  Of datagrams with names that are in use those are counted that bring their connection nothing new, and all
///      pings and pongs; for each kBytesForOne that others bring, one less. A peer under whose names more come than
///      kMostUseless at once, and one more each kUselessEach, is reached by the relay only, as long as the connection
///      lives. *Rationale*: a name is told to one peer, inside the connection or on its path. Whoever else sees it
///      could break the path anyway. After a datagram that is lost or late the next ones bring nothing new, a window of
///      them at most (some 14,000), until it comes and brings all that they had.
///  G4  What a strict filter lets in and is for nobody has a name that was in use when the filter was made: another one
///      is made, kMostRenewals at once and one more each kRenewalEach.
/// Pure. Thread rule: confined to the owner's strand.
class FloodGuard {
 public:
  static constexpr unsigned kMostForNobody = 16'384, kMostUseless = 32'768;
  static constexpr Duration kForNobodyEach = std::chrono::milliseconds(1);
  static constexpr Duration kUselessEach = std::chrono::milliseconds(1);
  static constexpr Duration kLeastPeriod = std::chrono::minutes(1), kMostPeriod = std::chrono::minutes(16);
  static constexpr Duration kCalm = std::chrono::minutes(20);
  static constexpr std::uint64_t kBytesForOne = 512;
  static constexpr std::size_t kMostPeers = 64;
  static constexpr unsigned kMostRenewals = 8;
  static constexpr Duration kRenewalEach = std::chrono::milliseconds(125);

  /// What is remembered of a peer.
  class Peer {
   public:
    /// G3: it is reached by the relay only.
    bool is_ignored() const { return ignored_; }

   private:
    friend FloodGuard;
    std::uint64_t useless_ = 0;
    Time since_{};  ///< up to when those that were forgiven are taken off
    bool ignored_ = false;
  };

  /// G1. Returns whether only names in use are let in from now on, and were not before.
  bool on_for_nobody(std::size_t count, Time now);
  /// G4. `count`: of the same.
  bool is_stale(std::size_t count, Time now);
  /// G3. Returns whether the peer is ignored from now on, and was not before.
  static bool on_datagrams(Peer& peer, std::size_t useless, std::uint64_t brought, Time now);
  bool is_strict(Time now) const { return now < until_; }
  /// How long the last strict time is or was.
  Duration period() const { return period_; }

 private:
  PacketBudget left_{kMostForNobody, kForNobodyEach};
  PacketBudget renewals_{kMostRenewals, kRenewalEach};
  Time until_{};  ///< of the last strict time
  Duration period_{};
};

}  // namespace kitsune2::iroh
