// Who may send a large message, and when: the permits of all connections of a transport. Pure: it is told the time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "kitsune2/time.hpp"

namespace kitsune2::tx5 {

struct PermitLimits {
  /// The sum of the permits of all incoming messages (rules P1 to P4).
  std::uint64_t max_granted_bytes = 256U << 20;
  /// While others wait, a permit without any progress for this long is taken away (P6).
  Duration stall = std::chrono::seconds(10);
  /// The same for a holder that has never used a permit to its end.
  Duration first_stall = std::chrono::seconds(5);
  /// While others wait, a permit that brings fewer bytes per second than this is taken away. The average is judged
  /// after 3 x `stall`.
  std::uint64_t min_rate = 1024;
  /// The rate, in bytes per second, at which a holder pays for what it wasted (P5).
  std::uint64_t waste_per_second = 1U << 20;
  /// The longest wait of a holder for what it wasted. It is less than the 60 s after which a stock node gives up its
  /// wait for a permit.
  Duration longest_waste_wait = std::chrono::seconds(10);
};

/// The permits for messages over one chunk (protocol-tx5.md, section 4). A peer asks before it sends such a message,
/// because the receiver must keep the chunks until the message is complete. The bank decides whose turn it is.
///
///  P1  All permits together hold at most `max_granted_bytes`; one may always be granted when none is out. *Rationale*:
///      this bounds the memory that peers can make us use.
///  P2  Holders that have used a permit to its end come first, in the order of asking. A smaller request does not
///      overtake a large one. *Rationale*: the large one would starve.
///  P3  Among the others ("first permits") the smallest request comes first, then the order of asking. *Rationale*:
///      many that ask for as much as they may, and send nothing, cannot delay one that sends.
///  P4  First permits have at most half of `max_granted_bytes`. Of that half, those over 1/4096 of `max_granted_bytes`
///      have three quarters, and those over 1/256 one half. *Rationale*: permits that are requested and not used must
///      not keep out those that are used, and large unused ones must not keep out small ones.
///  P5  A holder that wasted bytes is not queued until it has paid for them. *Rationale*: receiving what is then
///      dropped costs more than sending it, and the other peers pay for it.
///  P6  While a request finds no room, a permit that stalls or crawls is taken away (`stalled`), the oldest first.
///      *Rationale*: while nobody waits, a slow holder costs nothing but its place.
///
/// Every call costs O(log n) in the holders, but `stalled` and a first permit's place in its queue: O(n). Memory: O(n).
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
  /// The permit of `holder` was used to its end. Without a permit, `holder` only counts as a user from now on.
  void on_used(Holder holder);
  /// Takes back what `holder` holds and forgets what it asked for. Remembers what it wasted and whether it has used a
  /// permit. No effect on an unknown holder.
  void release(Holder holder);
  /// The connection is closed: forgets everything about it.
  void forget(Holder holder);
  /// `bytes` that `holder` sent were dropped. The wait for them is added to what it owes already (P5).
  void wasted(Holder holder, std::uint64_t bytes, Time now);
  /// Queues the holders that have paid. Call it at `next_deadline`, then `next_grant`.
  void on_time(Time now);
  /// When the next holder has paid; nullopt: no holder that owes is asking. `stalled` needs no alarm of its own: call
  /// it once a second while `is_waited_for`.
  std::optional<Time> next_deadline() const;
  /// The oldest permit to be taken away now (P6): close its connection and `forget` it, then call again.
  std::optional<Holder> stalled(Time now, const std::function<Progress(Holder)>& progress) const;
  /// Whether a request is in a queue. One that has not paid is not.
  bool is_waited_for() const { return !queue_.empty() || !first_queue_.empty(); }

  std::uint64_t granted_bytes() const { return granted_; }
  std::size_t holders() const { return accounts_.size(); }
  /// O(n); tests.
  void check_invariants() const;

 private:
  struct Account {
    std::uint32_t bytes = 0;  ///< requested or granted
    bool is_user = false;     ///< has used a permit to its end
    bool owing = false;       ///< its request is not in a queue yet
    Time owes_until = Time::min();
    Time granted_at{};
    std::optional<std::list<Holder>::iterator> waits;  ///< in its queue
    std::optional<std::list<Holder>::iterator> holds;  ///< in granted_order_
  };

  std::list<Holder>& queue_of(const Account& account) { return account.is_user ? queue_ : first_queue_; }
  void stand_in_queue(Holder holder, Account& account);
  void give_back(Account& account);
  /// The number of sums in first_granted_ that include a permit of this size.
  std::size_t first_sums(std::uint32_t bytes) const;
  std::optional<Holder> next() const;

  const PermitLimits& limits_;
  std::map<Holder, Account> accounts_;
  std::list<Holder> queue_;        ///< of users, in the order of asking
  std::list<Holder> first_queue_;  ///< of the others, the smallest first
  std::list<Holder> granted_order_;
  std::set<std::pair<Time, Holder>> owing_;
  std::uint64_t granted_ = 0;
  /// The part of it that first permits have: all of them, those that are not small, and the large ones (P4).
  std::array<std::uint64_t, 3> first_granted_{};
};

}  // namespace kitsune2::tx5
