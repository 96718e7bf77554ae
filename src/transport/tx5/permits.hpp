// Who may send a large message, and when: the permits of all connections of a transport. Pure: it is told the time.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "kitsune2/time.hpp"
#include "transport/tx5/framing.hpp"

namespace kitsune2::tx5 {

struct PermitLimits {
  /// The sum of the permits of all incoming messages (P1).
  std::uint64_t max_granted_bytes = 256U << 20;
  /// The most bytes of a message that arrives in one frame.
  std::uint32_t frame_bytes = kMaxChunkBytes;
  /// While others wait, a permit without any progress for this long is taken away (P6).
  Duration stall = std::chrono::seconds(10);
  /// The same for a newcomer's permit.
  Duration first_stall = std::chrono::seconds(5);
  /// While others wait, a permit that brings fewer bytes per second than this is taken away, and so is one whose
  /// message would take longer than `longest` at its average rate. The average is judged after 3 x `stall`.
  std::uint64_t min_rate = 1024;
  Duration longest = std::chrono::minutes(5);
  /// The rate, in bytes per second, at which a holder pays for what it wasted (P5), and that of all who owe together.
  std::uint64_t waste_per_second = 1U << 20;
  std::uint64_t all_waste_per_second = 4U << 20;
  /// What a waste counts at least: to receive and refuse a message of one byte is work, too.
  std::uint64_t least_waste = 4096;
  /// The longest wait of a holder for what it wasted. It is less than the 60 s after which a stock node gives up its
  /// wait for a permit.
  Duration longest_waste_wait = std::chrono::seconds(10);
};

/// The permits for messages over one chunk (protocol-tx5.md, section 4). A peer asks before it sends such a message,
/// because the receiver must keep the chunks until the message is complete. The bank decides whose turn it is.
///
///  P1  All permits together hold at most `max_granted_bytes`. Of its sixteenths, 12 are for *large* permits (over
///      1/256 of it), 3 for *medium* ones (over 1/4096), and one for *small* ones. Permits of at most `frame_bytes`
///      take no room. One permit alone in its part may always be granted. No part waits for another. Reason: the sum
///      bounds the memory that peers can make us use; a message of one frame is not kept. Parts, because what is small
///      must not wait until messages of 64 MiB have arrived, whoever sends them.
///  P2  A holder is a *newcomer* until it has used a permit to its end, and again after each waste (P5), until it uses
///      the next one. While newcomers and others wait for the same part, one of each is granted in turn. A smaller
///      request does not overtake a large one for lack of room.
///      Reason: peers that send without end always wait. If they came first for having sent before, a newcomer would
///      never have its turn; if smaller requests went first, a large one would never.
///  P3  Among newcomers the smallest request comes first, among the others the order of asking decides.
///      Reason: many that ask for as much as they may, and send nothing, cannot delay one that sends.
///  P4  Newcomers have at most half of each part. Their turn is left out while the next of them finds no room there.
///      Reason: permits that are requested and not used must not keep out those that are.
///  P5  A holder that wasted bytes is not queued until it has paid for them, at its own rate, or if many owe at an
///      equal part of the rate of all, as it was when it wasted them.
///      Reason: receiving what is then dropped costs more than sending it, and the other peers pay for it. What is
///      received in vain of many must not grow with their number, because keys cost nothing.
///  P6  While a request finds no room in its part, a permit there that stalls or crawls is taken away (`stalled`), the
///      oldest first.
///      Reason: while nobody waits, a slow holder costs nothing but its place.
///
/// Every call costs O(log n) in the holders, but `stalled` and a newcomer's place in its queue: O(n). Memory: O(n).
/// Thread rule: confined to the owner's strand.
class PermitBank {
 public:
  /// The caller's number of a connection. It must not be reused before `forget`.
  using Holder = std::uint64_t;
  /// How far a granted message has come.
  struct Progress {
    Time last_sign;              ///< when its last chunk came, or its grant went out
    std::uint64_t received = 0;  ///< bytes
  };

  explicit PermitBank(const PermitLimits& limits) : limits_(limits) {}

  /// `holder` asks for `bytes` (at least 1). It must neither hold a permit nor wait for one. Call `next_grant`
  /// afterwards.
  void ask(Holder holder, std::uint32_t bytes, Time now);
  /// Grants the request whose turn it is. nullopt: nobody waits, or there is no room for the next one. Call it until it
  /// returns nullopt, after every call that may have made room.
  std::optional<Holder> next_grant(Time now);
  /// The permit of `holder` was used to its end. Without a permit, `holder` is only no newcomer from now on.
  void on_used(Holder holder);
  /// Takes back what `holder` holds and forgets what it asked for. Remembers what it wasted and whether it has used a
  /// permit. No effect on an unknown holder.
  void release(Holder holder);
  /// The connection is closed: forgets everything about it.
  void forget(Holder holder);
  /// `bytes` that `holder` sent were dropped (P2). The wait for them is added to what it owes already (P5).
  void wasted(Holder holder, std::uint64_t bytes, Time now);
  /// Queues the holders that have paid. Call it at `next_deadline`, then `next_grant`.
  void on_time(Time now);
  /// Until when `holder` owes; in the past: it has paid, or never owed.
  Time owes_until(Holder holder) const;
  /// When the next holder has paid; nullopt: no holder that owes is asking. `stalled` needs no alarm of its own: call
  /// it once a second while `is_waited_for`.
  std::optional<Time> next_deadline() const;
  /// The oldest permit to be taken away now (P6): close its connection and `forget` it, then call again.
  std::optional<Holder> stalled(Time now, const std::function<Progress(Holder)>& progress) const;
  /// Whether a request is in a queue. One that has not paid is not.
  bool is_waited_for() const {
    return std::ranges::any_of(parts_, [](const Part& part) { return part.is_waited_for(); });
  }

  /// Of all parts that have a bound.
  std::uint64_t granted_bytes() const;
  std::size_t holders() const { return accounts_.size(); }
  /// O(n); tests.
  void check_invariants() const;

 private:
  struct Account {
    std::uint32_t bytes = 0;  ///< requested or granted
    bool is_newcomer = true;  ///< P2; holds for the next request
    bool as_newcomer = true;  ///< the same for the request that waits or is granted
    bool owing = false;       ///< its request is not in a queue yet
    Time owes_until = Time::min();
    Time granted_at{};
    std::optional<std::list<Holder>::iterator> waits;  ///< in its queue
    std::optional<std::list<Holder>::iterator> holds;  ///< in granted_order_
  };
  /// The permits of one size (P1).
  struct Part {
    std::list<Holder> newcomers;  ///< that wait, the smallest request first
    std::list<Holder> others;     ///< that wait, in the order of asking
    std::uint64_t granted = 0, newcomers_granted = 0;
    bool newcomers_turn = false;
    bool is_waited_for() const { return !newcomers.empty() || !others.empty(); }
    std::list<Holder>& queue_of(const Account& account) { return account.as_newcomer ? newcomers : others; }
  };
  static constexpr std::size_t kParts = 4;  ///< one frame, small, medium, large

  void stand_in_queue(Holder holder, Account& account);
  void give_back(Account& account);
  std::size_t part_of(std::uint32_t bytes) const;
  std::uint64_t room_of(std::size_t part) const;
  std::optional<Holder> next(std::size_t part) const;

  const PermitLimits& limits_;
  std::map<Holder, Account> accounts_;
  std::array<Part, kParts> parts_;
  std::list<Holder> granted_order_;
  std::set<std::pair<Time, Holder>> owing_;
  std::set<std::pair<Time, Holder>> debts_;  ///< of all that owe, and of some that have paid since the last waste
};

}  // namespace kitsune2::tx5
