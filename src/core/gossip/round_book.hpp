// With which peer to gossip, and when.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/gossip/candidates.hpp"
#include "core/gossip/owed_rounds.hpp"
#include "kitsune2/time.hpp"
#include "kitsune2/url.hpp"

namespace kitsune2::gossip {

/// The waits, from the config section `k2Gossip`.
struct Pace {
  Duration initiate_interval{};          ///< between two regular rounds that we start
  Duration initiate_jitter{};            ///< up to this much is added to it, at random
  Duration min_initiate_interval{};      ///< between two rounds with the same stock node
  Duration initial_initiate_interval{};  ///< the longest wait between two attempts during a catch-up
  /// So many rounds one stock peer may start in any stretch of time so long; it is believed to allow us the same. D9
  std::size_t burst_rounds = 15;
  Duration burst_window = std::chrono::minutes(10);
  /// Whether every stock peer allows bursts; otherwise it may be one that takes a round in `min_initiate_interval`.
  bool bursts_are_taken = false;
};

/// Decides with which peer the next round of gossip begins, and when; and how to answer a peer that begins one. It
/// remembers of each peer when a round with it took place, and whether one is owed to it.
///
/// A peer is called *ours* if its INITIATE or ACCEPT shows that it runs this implementation. Such a peer takes part in
/// a round whenever there is a reason for one. All others are stock nodes. Those of 0.2.2 accept one round in
/// `min_initiate_interval`, and count a second one against us; those from 0.2.8 on accept a burst.
///
/// *Rules*.
///  D1  With a stock node no round of ours begins within `min_initiate_interval` of our last attempt, or of the last
///      round with it, whichever side began that. (D10 has an exception.) Stock nodes know us by our url, so with a new
///      own url we are strangers to all of them. The exception are peers on another relay than ours: they know us by
///      our link to their relay, which outlives the loss of our own.
///  D2  Nothing of this is kept beyond the process. Rationale: a start brings a new own url, and a node that lacks ops
///      must not wait because of what it did before it was restarted.
///  D3  A catch-up begins at the start, with a new own url, and when the relay is back. During a catch-up the peers not
///      met since then are asked one after the other, without the usual interval. It ends after `kCatchUpRounds`
///      rounds, or after `kCatchUpLasts` if at least one round has taken place by then. The first attempt comes after
///      10 ms; each wait is 1.2 times the one before, up to `initial_initiate_interval`. Rationale: one peer that was
///      online in the meantime knows all that we missed; several are asked because each of them may have been away
///      itself; more would be a storm when a large network comes back.
///  D4  A round is *owed* to a peer if something that we published may not have arrived there, or if the last round
///      with it broke off or was cut short by a limit. It is due at once. While it fails it is tried again after a
///      quarter of the time for which it has been owed, at least `kQuickest` and at most `initiate_interval`. If the
///      peer moves to another url, so does the debt. It is forgotten after `kOwedLasts`. Regular rounds go first.
///      Rationale: the wait is in proportion to the outage, however long that was; and peers can cause owed rounds,
///      which must not keep other peers from their turn.
///  D5  Rounds that we start with a peer of ours are at least `kQuickest` apart. Of the rounds that it starts, a burst
///      of `kBurst` is accepted, after that one in `kQuickest`; the others are answered with BUSY. Rationale: no two
///      nodes can keep each other busy.
///  D6  Peers whose storage arc overlaps ours come first; among equals, those never met, in random order; then the one
///      whose last round is longest ago. A peer that did not answer the last time comes after all others, whatever its
///      arc, and is left alone twice as long with each failure, up to eight times `min_initiate_interval`. One in
///      `kSilentOneIn` choices begins with such peers. Rationale: the agent info of a dead node claims a full arc for
///      up to 20 minutes, and that of a node with another relay claims it for ever. The last sentence is for large
///      networks: a peer that was out of reach for a while must get a turn some day.
///  D7  While a round of ours is under way, another one begins only if the latest is older than `kPatience` (or than
///      `initial_initiate_interval` if that is shorter, or a fifth of it if that is longer), and at most `kMostAtOnce`
///      are under way. Rationale: a peer that is gone delays the others for a moment, and not for the whole time limit
///      of a round.
///  D8  If a peer of ours asks within `min_initiate_interval` for what it was told already, the answer is charged to
///      the allowance of newcomers. Rationale: rounds once a second are for going on where the last one stopped. A peer
///      that has lost what it was told is a newcomer.
///  D9  Of the rounds that a stock peer starts, `burst_rounds` are accepted in any `burst_window`. Each one that is not
///      too soon counts, also if it is answered with BUSY for another reason; one that is too soon does not. If not
///      `bursts_are_taken`, one is accepted beyond that too if the last round with the peer took place
///      `min_initiate_interval` ago. Rationale: the first is the reference's rule from 0.2.8 on, in all dialects,
///      because a stock node that joins starts the next round as soon as it has fetched what the last one named. The
///      second is that of 0.2.2: where that interval is short, its nodes come more often than in a burst.
///  D10 If `bursts_are_taken`, a round that is owed to a stock peer begins as soon as with a peer of ours, unless the
///      peer did not answer the last time. But for what is owed at most four fifths of `burst_rounds` are used, and
///      for all rounds together no more than `burst_rounds`, in any `burst_window` and `kOnTheWay`, or an eighth of it
///      if that is less. Rationale: a node that joins among stock nodes catches up as fast as it can fetch, and none of
///      them finds it too fast. They count by when a message arrives. The fifth is for regular rounds, and for a peer
///      that allows a bit less. After a silence, which may mean that a peer allows much less, D1 and D6 hold.
///  D11 If a peer shows for the first time that it knows us (`on_knows_us`), an attempt made before that which nobody
///      answers, or has answered, is as if it had not been made, and a round is owed to the peer. Rationale: where only
///      known peers are heard, a stock node drops what it is sent until its next poll of the bootstrap server, within 5
///      minutes. A node that joins would begin with a silence, and wait `min_initiate_interval` longer than that.
///
/// Told the time, by a monotonic clock. At most `kMostPeers` peers and `kMostOwed` owed rounds are kept; those touched
/// longest ago are dropped. Candidates and OwedRounds are indexes, so the cost of a choice depends on what has changed
/// since the last one and not on the number of peers. Only a new own url, another pace or another relay re-files all.
class RoundBook {
 public:
  static constexpr std::size_t kCatchUpRounds = 8;
  static constexpr Duration kCatchUpLasts = std::chrono::minutes(5);
  static constexpr Duration kFirstTry = std::chrono::milliseconds(10);
  static constexpr Duration kQuickest = std::chrono::seconds(1);
  static constexpr Duration kOwedLasts = std::chrono::hours(1);
  static constexpr Duration kAfterFailure = std::chrono::milliseconds(100);  ///< until the next peer is asked
  static constexpr double kBurst = 8;
  static constexpr std::uint32_t kSilentOneIn = 4;
  static constexpr std::size_t kMostAtOnce = 3;
  static constexpr Duration kPatience = std::chrono::seconds(1);
  static constexpr std::size_t kMostPeers = 20'000;
  static constexpr std::size_t kMostOwed = 4'096;
  static constexpr Duration kAfterBusy = std::chrono::seconds(5);  ///< until the peer is asked again. D4
  static constexpr Duration kOnTheWay = std::chrono::seconds(15);  ///< by how much two messages may differ. D10
  static constexpr Duration kLookAgain = std::chrono::minutes(1);  ///< at a candidate that could not be asked

  // ------------------------------------------------------------------ what happened

  /// Sets the waits and begins a new interval. `random` gives the jitter.
  void set_pace(const Pace& pace, Time now, std::uint32_t random);
  /// This node has got a url: its first, a new one, or the earlier one again. D3.
  void on_own_url(Time now);
  /// `relay` is the relay of our own url. D1.
  void on_home(Url relay);
  /// INITIATE is on its way to `peer`.
  void on_attempt(const Url& peer, Time now);
  /// A stock peer counts `min_initiate_interval` from now: it has made an attempt, or our ACCEPT has reached it. D1
  void on_interval(const Url& peer, Time now);
  /// INITIATE could not be sent, or was not answered. `waited`: the whole time limit of a round has passed.
  void on_no_answer(const Url& peer, Time now, bool waited);
  /// The peer has answered INITIATE with BUSY.
  void on_busy(const Url& peer, Time now);
  /// A round takes place: the peer has accepted ours, or we accept one that it has begun.
  void on_met(const Url& peer, Time now);
  /// A round that began at `begun` has ended well. It pays what was owed to the peer before that time.
  void on_completed(const Url& peer, Time begun);
  /// A round that took place has broken off.
  void on_broken(const Url& peer, Time now);
  /// The peer has shown that it runs this implementation.
  void on_is_ours(const Url& peer, Time now);
  /// A connection with the peer was opened, so it can be reached.
  void on_connected(const Url& peer, Time now);
  /// The peer has shown that it knows an agent of ours, which was not certain before. D11
  void on_knows_us(const Url& peer, Time now);
  /// Something that we published to `peer` may not have arrived. If the peer has moved since, the round is owed to it
  /// at its new url. D4.
  void on_publish_lost(const Url& peer, Time now);
  /// The peer at `old_url` is at `new_url` now. What is owed to it is owed there, also if we learn of it later.
  void on_moved(const Url& old_url, const Url& new_url, Time now);
  /// The peer has named as much as fits into one round, and has more to name. D4.
  void on_has_more(const Url& peer, Time now);

  // ------------------------------------------------------------------ rounds that we start

  /// An agent at `peer` has become known, or its info has changed. `overlaps`: its storage arc overlaps one of ours.
  /// (If several agents are at `peer`, `Look` finds out whether the arc of any of them does.) `last_gossip`: the noted
  /// time of the last round, perhaps from before a restart; it only counts for the order. nullopt leaves it as it was.
  void on_candidate(const Url& peer, bool overlaps, std::optional<Timestamp> last_gossip = {});
  /// The wall-clock time of an attempt or a round was noted. From now on the peer comes later in the order.
  void on_gossip_noted(const Url& peer, Timestamp at);
  void forget_candidates() { candidates_.clear(); }
  bool is_candidate(const Url& peer) const { return candidates_.find(peer) != nullptr; }
  std::size_t candidates() const { return candidates_.size(); }
  /// What the caller sees when it looks at a candidate.
  struct Seen {
    enum Is : std::uint8_t {
      usable,
      not_now,  ///< the book asks again after `kLookAgain`, or when something happens with the peer
      gone      ///< the peer is no candidate any more
    };
    Is is = usable;
    bool overlaps = false;
  };
  using Look = std::function<Seen(const Url& peer)>;
  /// When to call `choose` next; never before `now`.
  Time next_try(Time now) const;
  /// Returns the peer with which to begin a round now, or nullopt. Call it at the time that `next_try` has given; it
  /// sets the next one. `look` is asked about each peer that is about to be chosen and must not call the book; if it is
  /// empty, nobody can be asked. `random` and `jitter` are two random numbers.
  std::optional<Url> choose(const Look& look, Time now, std::uint32_t random, std::uint32_t jitter);
  /// How old the latest round of ours must be before another one begins. D7.
  Duration patience() const {
    const Duration initial = pace_.initial_initiate_interval;
    return std::max(std::min(kPatience, initial), initial / 5);
  }
  /// No round begins before `until`, because the latest one is too young. D7.
  void put_off(Time until) { not_before_ = until; }

  // ------------------------------------------------------------------ rounds that others start

  enum class Answer { accept, too_soon, busy };
  /// How to answer an INITIATE of `peer`. `ours`: the message shows that the peer runs this implementation. Each call
  /// counts for D5 or D9.
  Answer answer(const Url& peer, bool ours, Time now);
  /// We have told `peer` of all that we stored before `next`.
  void on_told(const Url& peer, Timestamp next, Time now);
  /// Whether `peer`, by asking from `since` on, asks again for what it was told within `min_initiate_interval`. D8.
  bool starts_over(const Url& peer, Timestamp since, Time now) const;

  /// Whether there was a round with the peer, or an attempt at one.
  bool knows(const Url& peer) const { return peers_.contains(peer); }
  std::size_t size() const { return peers_.size(); }
  std::size_t owed() const { return owed_.size(); }
  /// See Candidates::work.
  std::uint64_t work() const { return candidates_.work(); }

 private:
  enum class Reason { none, regular, catch_up, owed };
  struct Peer {
    bool ours = false;
    std::optional<Time> met;         ///< when the last round took place
    std::optional<Time> tried;       ///< when our last attempt was made, or given up
    std::optional<Time> knew_us_at;  ///< when it showed that it knows us. D11
    Reason tried_for = Reason::none;
    std::uint32_t unanswered = 0;   ///< how many attempts, since the peer was last heard of
    double tokens = kBurst;         ///< how many rounds it may start now. D5
    std::vector<Time> began;        ///< when it started rounds, a stock peer. D9
    std::vector<Time> asked;        ///< when we did, with a stock peer. D10
    std::optional<Timestamp> told;  ///< it was told of all that we stored before this. D8
    Time touched = Time::min();
  };

  Peer& at(const Url& peer, Time now);
  void owe(const Url& peer, Time now, Time due);
  void postpone(const Url& peer, Time now, Duration least = kQuickest);
  void forget_unheard(const Url& url, Peer& peer, Time now);
  void make_room();
  bool catching_up(Time now) const;
  /// When the peer last had a round or an attempt with us under our present url; nullopt: never.
  std::optional<Time> contact(const Url& url, const Peer& peer) const;
  /// Whether a round with the peer took place within `min_initiate_interval`, under our present url.
  bool met_lately(const Url& url, Time now) const;
  /// The earliest time at which the burst that the stock peer allows us is not used up. D10
  Time burst_leaves_room_at(const Peer& peer, bool owed) const;
  /// The earliest time at which the peer may be asked. D1, D5, D6, D10.
  Time may_ask_at(const Url& peer, bool owed) const;
  void file(const Url& peer, Candidates::Standing standing);
  void file(const Url& peer);
  void file_all();
  std::optional<Url> choose_owed(const Look& look, Time now);
  std::optional<Url> choose_turn(const Look& look, bool strangers_only, Time now, std::uint32_t random);
  bool look_at(const Look& look, const Url& peer, Candidates::Standing standing, Time now);

  Pace pace_;
  std::unordered_map<Url, Peer> peers_;
  OwedRounds owed_;
  Candidates candidates_;
  std::unordered_map<Url, Url> moved_;  ///< from an old url to the next one; at most `kMostOwed`
  std::optional<Url> home_;             ///< our relay; nullopt: not known
  std::optional<Time> own_url_at_;      ///< when we got our present url; nullopt: we have none yet
  std::size_t met_since_ = 0;           ///< how many peers have had a round with us since then
  Duration catch_up_wait_{};
  Time next_catch_up_ = Time::max();
  Time regular_at_ = Time::max();
  Time not_before_ = Time::min();
  std::uint32_t choices_ = 0;
};

}  // namespace kitsune2::gossip
