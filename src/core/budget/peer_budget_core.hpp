// The work that each peer has caused, and which peers must wait, are closed and put aside.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kitsune2/budget.hpp"
#include "kitsune2/config.hpp"
#include "kitsune2/ids.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2 {

/// The accounts behind PeerBudget. Work is in microseconds of one core. An account holds up to its burst, and what is
/// taken from it flows back at its rate.
///
/// *Rules*
///  B1  Work is charged to the account of the peer's url. For a *newcomer* it is also charged to a common account: that
///      of its address group if the group is known, else that of all newcomers together. An account can be overdrawn,
///      down to the negative of its burst; that of all newcomers, and that of known peers (B9), by no more than what
///      flows back in kCommonDebtSeconds.
///      Reason: urls and agents cost nothing to make, so peers without a past must share. Addresses cost something, so
///      each group has a share of its own. What an attacker leaves of an account that puts nobody aside is a debt of
///      others: with a debt of its whole burst they waited for 80 s after the attack.
///  B2  A peer waits while its own account is overdrawn, a newcomer also while its common account is. A *known* peer
///      never waits because of what newcomers have used.
///      Reason: behind a foreign relay no addresses are visible. Without this rule a thousand fresh keys would use up
///      the whole node, or known peers would not be served while newcomers are held back.
///  B3  A peer that must wait and goes on is over when its own account reaches the negative of its burst; a newcomer
///      also when the account of its address group does. Then the url, its agents and, for its newcomers, such a group
///      are put aside. The account of all newcomers, that of known peers (B9), and one that is shared for lack of room
///      (B8), put nobody aside.
///      Reason: a peer that goes on after it was told to wait (by silence) does so on purpose; one that asked for a
///      single thing that cost more than expected did not. Nobody is put aside for the work of others, unless they come
///      from one address.
///  B4  Being put aside lasts `first_aside`, and twice as long each time that it happens again within `longest_aside`
///      after the last end, up to `longest_aside`. It is remembered until then, connected or not.
///      Reason: it must survive a reconnect, and one mistake must not count for ever.
///  B5  A peer is aside if its url is, or if agents are known at its url and all of them are, or if its group is and it
///      is a newcomer that was not known before it left (B7).
///      Reason for "all": anybody can sign an info with another's url, and must not be able to put that peer aside.
///  B6  Useful exchange gives back what was charged for it, to the same accounts and never beyond their bursts, and
///      makes the peer known. At most `max_known` peers are known, the most useful ones: a new one must be more useful
///      than the least useful of them, which becomes a newcomer again.
///      Reason: honest catch-up costs nothing in the end, however long it is; and a peer that has taken or given little
///      does not displace one that has taken or given much.
///  B7  The last `max_known` known peers that left are remembered: by the agent if only one is known at the url, else
///      by the url. Such a peer is known again when it returns.
///      Reason for "only one": as in B5, an info with another's url must not earn what that peer has earned.
///  B8  At most `max_accounts` peers and as many groups have an account of their own that is not full; the others share
///      one. A full account of a newcomer is the same as none. At most `max_aside` entries are put aside; when there
///      are more, the one that ends first is dropped.
///      Reason: memory is bounded in any case.
///  B9  Known peers have a common account besides, but for the `most_useful` of them; while it is overdrawn, those that
///      share it wait.
///      Reason: it takes one useful op to become known, and with 256 keys it is 256 accounts. Those that have been most
///      useful are hard to displace, so whoever uses up the common account does not hold up them.
///  B10 A penalty, for what no honest node sends, is charged like work to the account of the url and to that of a known
///      address group, and to no other one.
///      Reason: it is no work that was done. Behind a foreign relay a few fresh keys that sent nothing else used up the
///      account of all newcomers in a moment, and honest ones were not served as long as that went on.
///
/// *What fits*. Catching up with 1,000,000 ops, 300 MB, from one peer costs that peer 1 s of look-ups, 1 s of rows if
/// the store is durable, and 0.3 s of bytes before anything is given back, and nothing in the end. The default burst of
/// one peer is 5 s, that of the newcomers 20 s. 30 rounds of catch-up with a stock node, 10,000 ids each, cost 0.3 s of
/// look-ups and 30 x 0.05 s of scans. A round of gossip without news costs some milliseconds; an account gets back 100
/// ms each second.
///
/// Pure: it is told the time and calls nothing. A `now` before the latest one counts as that one. Calls are O(1)
/// expected (O(most_useful) for a known peer), and O(log max_known) where usefulness changes; where a table is full,
/// O(its size) once a second.
class PeerBudgetCore {
 public:
  struct Rate {
    std::int64_t micros_per_second = 0;
    std::int64_t burst_micros = 0;
    std::int64_t debt_micros = burst_micros;  ///< by how much it can be overdrawn (B1); at most the burst
  };
  struct Limits {
    Rate peer, group, newcomers, known;
    std::size_t most_useful = 16;
    Duration first_aside = std::chrono::minutes(1);
    Duration longest_aside = std::chrono::hours(1);
    std::size_t max_accounts = 8192;
    std::size_t max_known = 256;
    std::size_t max_aside = 8192;
  };
  static Limits limits_of(const PeerBudgetConfig& config);
  /// B1. So the account of all newcomers can be overdrawn by 2 s by default. The dearest message, of a million ids,
  /// costs 1 s: the work of many is still held to the rate.
  static constexpr std::int64_t kCommonDebtSeconds = 8;
  /// The time between sweeps of a full table (B8).
  static constexpr Duration kSweepEvery = std::chrono::seconds(1);

  using Group = std::optional<AddressGroup>;
  using Agents = std::span<const AgentId>;

  explicit PeerBudgetCore(const Limits& limits)
      : limits_(limits),
        others_{full(limits.peer)},
        other_groups_(full(limits.group)),
        newcomers_(full(limits.newcomers)),
        known_peers_(full(limits.known)) {}

  /// B1 to B3, B10. `over` means: call `put_aside` and close the connection.
  struct Charge {
    std::int64_t work = 0, penalty = 0;  ///< in microseconds
  };
  PeerStanding charge(const Url& peer, const Group& group, Charge what, Time now);
  PeerStanding charge(const Url& peer, const Group& group, std::int64_t work, Time now) {
    return charge(peer, group, {work, 0}, now);
  }
  /// B6. `value`: the worth of the exchange, in any unit.
  void useful(const Url& peer, const Group& group, std::int64_t micros, std::uint64_t value, Time now);
  std::optional<Time> waits_until(const Url& peer, const Group& group, Time now) const;

  /// Puts aside whatever of them is over (B3, B4); the group only if its own account is. Their accounts start again.
  void put_aside(const Url& peer, Agents agents, const Group& group, Time now);
  /// B5.
  bool is_aside(const Url& peer, Agents agents, const Group& group, Time now) const;
  /// Cheap: whether `is_aside` can return true at all.
  bool has_aside(Time now) const { return now < last_aside_end_; }

  /// The peer's connection is open, or an agent has become known at its url. B7.
  void on_connect(const Url& peer, Agents agents);
  /// The peer's connection is closed. B7.
  void on_disconnect(const Url& peer, Agents agents);

  bool is_known(const Url& peer) const;
  std::uint64_t usefulness(const Url& peer) const;
  std::size_t accounts() const { return peers_.size() + groups_.size(); }
  std::size_t known() const { return known_.size(); }
  std::size_t aside(Time now) const;

  /// For tests: asserts what must hold between calls.
  void check_invariants() const;

 private:
  /// In millionths of a microsecond, so that what flows back is exact.
  struct Account {
    std::int64_t level = 0;
    Time at = Time::min();
  };
  struct Peer {
    Account account;
    std::uint64_t value = 0;
    bool is_known = false;
  };
  struct Aside {
    Time until;
    Duration length{};
  };
  using Known = std::set<std::pair<std::uint64_t, Url>>;

  static constexpr std::int64_t kUnit = 1'000'000;
  static Account full(const Rate& rate) { return {rate.burst_micros * kUnit, Time::min()}; }
  static std::int64_t level_at(const Account& account, const Rate& rate, Time now);
  static void change(Account& account, const Rate& rate, std::int64_t micros, Time now);
  static PeerStanding charge(Account& account, const Rate& rate, std::int64_t micros, Time now);
  static std::optional<Time> good_at(const Account& account, const Rate& rate, Time now);

  /// The peer's own account, a new one if there is room, or else the shared one.
  Peer& own(const Url& peer);
  const Peer& own(const Url& peer) const;
  Account& common(const Group& group);
  const Account& common(const Group& group) const;
  const Rate& common_rate(const Group& group) const { return group ? limits_.group : limits_.newcomers; }
  /// Whether a known peer has its own account only (B9).
  bool is_most_useful(const Url& url, const Peer& peer) const;
  void sweep();
  void add_value(const Url& url, Peer& peer, std::uint64_t value);
  void add_aside(const std::string& key);
  void drop_aside(std::map<std::string, Aside>::iterator it);
  bool is_held_aside(const std::string& key, Time now) const;
  void advance(Time now) { now_ = std::max(now_, now); }

  const Limits limits_;
  Time now_ = Time::min();
  std::unordered_map<Url, Peer> peers_;
  std::map<AddressGroup, Account> groups_;
  Peer others_;           ///< of peers without an account of their own (B8)
  Account other_groups_;  ///< the same
  Account newcomers_;
  Account known_peers_;  ///< of known peers together (B9)
  std::optional<Time> swept_at_;
  Known known_;                                                          ///< by value; the first one is dropped first
  std::map<std::string, std::pair<std::uint64_t, std::uint64_t>> gone_;  ///< value, number
  std::map<std::uint64_t, std::string> gone_order_;
  std::uint64_t last_gone_ = 0;
  std::map<std::string, Aside> aside_;
  std::set<std::pair<Time, std::string>> aside_order_;  ///< by their ends
  Time last_aside_end_ = Time::min();
};

}  // namespace kitsune2
