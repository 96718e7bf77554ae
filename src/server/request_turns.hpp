// When an HTTP request is answered: shares of the time for each address and for all. Pure: it is told the time.
#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <utility>

#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"

namespace kitsune2::server {

/// Shares of the loop's time, in percent. The time of requests is not measured but given as a cost.
struct RequestShares {
  std::uint32_t all_percent = 0;  ///< 0: no limit at all
  std::uint32_t address_percent = 10;
  Duration all_burst = std::chrono::milliseconds(250);      ///< how much work may be done at once
  Duration address_burst = std::chrono::milliseconds(500);  ///< the same for one address
  Duration together{};                                      ///< T4
};

/// Decides when a request is answered, by shares of the time.
///
/// *Rules*.
///  T1  All requests together get `all_percent` of the time, and those of one address `address_percent`; unused time is
///      saved, up to a burst. Rationale: a request costs more than its bytes (a signature is checked, a list is
///      written), so a limit on bytes does not notice it; and the rest of the loop's time is for other work. Work that
///      cannot wait (`charge`) takes what is saved of the share of all, and no more. Rationale: connections from many
///      addresses must not delay the requests for ever.
///  T2  A request that exceeds its share waits; none is refused. Addresses take turns. A flood delays only itself.
///  T3  An address that had nothing waiting stands before those that always have something, for `kFirst` requests; then
///      it is one of them until each of them has had a turn. In the same way the first requests of a connection stand
///      before those of the same address that come over connections which were answered already. Where both kinds
///      wait they take turns, so that nobody waits for ever. Rationale: a node that connects makes a few requests one
///      after another, and would wait for each until the whole crowd has had its turn.
///  T4  Requests that wait are answered together: after a turn in which one was answered, the next turn comes
///      `together` later at the earliest. Rationale: else a flood of HTTP requests wakes the loop for each of them, and
///      a wake-up costs about a quarter of what a request does. A client whose request waits loses some milliseconds.
///  T5  For kBlamed, an address of which a client has broken a rule (`blame`) stands behind all others. Where such
///      addresses and others wait, they take turns. Rationale: a client that is sent away and comes again has nothing
///      waiting in between, so its address stood before others each time; and a node that connects waited for all 64
///      addresses of such clients. Neighbours of them have turns, too.
/// Memory: an entry for each address that asked within its burst or was blamed, and one for each waiting request.
/// Calls: O(log n). Thread rule: one thread.
class RequestTurns {
 public:
  using Address = std::array<std::uint8_t, 16>;
  using Waiter = std::uint64_t;

  explicit RequestTurns(const RequestShares& shares) : shares_(shares) {}

  /// How many requests of an address that had nothing waiting, and of a new connection, stand before others.
  static constexpr std::uint32_t kFirst = 4;

  static constexpr Duration kBlamed = std::chrono::minutes(1);

  /// True: answer the request now. False: it waits, and `next` will return it. `waiter` must not be waiting already.
  /// `is_first`: it is one of the first requests of its connection.
  bool take(Waiter waiter, const Address& address, Duration cost, bool is_first, Time now);
  /// Charges work that is done already or must be done at once, such as a connection. Returns false if the address
  /// would exceed its share; then nothing was charged.
  bool charge(const Address& address, Duration cost, Time now);
  /// Returns the request to answer now, or nullopt if there is none before `next_deadline`, which ends the turn (T4).
  std::optional<Waiter> next(Time now);
  /// T5.
  void blame(const Address& address, Time now);
  /// The request is no longer wanted. No effect if it does not wait.
  void forget(Waiter waiter);
  std::optional<Time> next_deadline() const;
  /// Changes the shares from now on.
  void set_shares(const RequestShares& shares) { shares_ = shares; }

  std::size_t waiting() const { return waiters_.size(); }
  std::size_t addresses() const { return addresses_.size(); }
  /// O(n), for tests.
  void check_invariants() const;

 private:
  struct AddressHash {
    std::size_t operator()(const Address& address) const noexcept { return keyed_hash(address); }
  };
  using Requests = std::deque<std::pair<Waiter, Duration>>;
  struct Account {
    Time full_until{};  ///< the work done reaches up to here
    Requests first;     ///< of new connections
    Requests further;
    std::uint32_t before_others = kFirst;  ///< so many requests stand before those of others
    bool first_had_turn = false;
    bool stands = false;     ///< in one of the rings, with something that waits
    bool is_marked = false;  ///< in the ring of the others, to stand before them again once they have had a turn
    std::optional<Time> rests_until;
    Time blamed_until = Time::min();

    bool waits() const { return !first.empty() || !further.empty(); }
  };
  struct Place {
    Address address;
    bool is_mark = false;
    bool is_blamed = false;
  };

  static void add(Time& full_until, Duration cost, std::uint32_t percent, Time now);
  Time free_at(Time full_until, std::uint32_t percent, Duration burst) const;
  Time all_free_at() const { return free_at(all_full_until_, shares_.all_percent, shares_.all_burst); }
  Time free_at(const Account& account) const;
  void pay(Account& account, Duration cost, Time now);
  void stand(const Address& address, Account& account, Time now);
  std::optional<Place> next_place();
  static void settle(Account& account);
  void end_turn(Time now);
  void drop_marks();
  void prune(Time now);

  RequestShares shares_;
  Time all_full_until_{};
  boost::unordered_flat_map<Address, Account, AddressHash> addresses_;
  boost::unordered_flat_map<Waiter, Address> waiters_;
  std::deque<Place> first_ring_;                ///< those that stand before the others
  std::deque<Place> ring_;                      ///< the others
  std::deque<Place> blamed_ring_;               ///< T5
  std::size_t standing_ = 0;                    ///< in all three, marks apart
  bool blamed_had_turn_ = true;                 ///< the last turn was of the blamed ones
  bool first_had_turn_ = false;                 ///< the last turn was of the first ring
  std::set<std::pair<Time, Address>> resting_;  ///< those that wait for their share
  Time prune_at_{};
  bool has_answered_ = false;  ///< in this turn
  Time next_turn_{};           ///< T4
};

}  // namespace kitsune2::server
