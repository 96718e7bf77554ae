// With which peer to gossip, and when.
#pragma once

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
  Duration initiate_interval{};          ///< between rounds that we start
  Duration initiate_jitter{};            ///< added to it, at random
  Duration min_initiate_interval{};      ///< until the next round with a peer
  Duration initial_initiate_interval{};  ///< most between two tries while catching up
};

/// Knows of each peer when a round with it took place and whether one is owed; chooses the next and says when.
///
/// A peer is *ours* if its INITIATE or ACCEPT said so: it takes rounds as often as they have a reason. Of others, stock
/// nodes, we know that they take one in `min_initiate_interval` and hold a second one against us.
///
/// *Rules*.
/// D1: with a peer that is not ours, no round begins within `min_initiate_interval` of our last attempt or of the last
/// round that took place, by whomever. It remembers us by our url: with a new own url we are strangers. But
/// a peer on another relay than ours knows us by our link to that relay, which outlives the loss of our own.
/// D2: nothing of this outlives the process. *Rationale*: a start brings a new own url, and nobody who lacks ops should
/// wait because of what another life of the node did.
/// D3: a start, a new own url and a relay that is back begin a catch-up: peers that were not met since are asked one
/// after the other, without the interval in between, until `kCatchUpRounds` rounds took place or `kCatchUpLasts` has
/// passed; but it lasts at least until one took place. Tries follow each other after 10 ms, then 1.2 times as long, up
/// to `initial_initiate_interval`. *Rationale*: one peer that was online meanwhile knows it all; several, since any of
/// them may have been away itself. More would be a storm when a large network comes back.
/// D4: a round with one peer is *owed* if what we published may not have arrived there, the last round was cut by a
/// limit, or one broke off. It is due soon, and tried again, while it fails, after a quarter of the time that it has
/// been owed: at least `kQuickest`, at most `initiate_interval`. A peer that moves to another url takes it along. It is
/// forgotten after `kOwedLasts`. Rounds in their turn go before it. *Rationale*: after an outage of any length the wait
/// is in proportion to it. And what peers can cause must not keep the others from their turn. D5: with a peer of ours,
/// rounds that we start are at least `kQuickest` apart. Of those that it starts, a burst of `kBurst` is answered, then
/// one in `kQuickest`; more are told BUSY. So no two nodes keep each other busy. D6: whose turn it is: overlapping
/// storage arcs first, then never-met peers at random, then the one that has waited longest. But peers that did not
/// answer the last time come after all others, whatever their arcs; each time they are left alone twice as long, up to
/// eight times `min_initiate_interval`; and one in `kSilentOneIn` choices begins with them. *Rationale*: a dead node's
/// info says a full arc for up to 20 minutes, and one with a changed relay for ever. The last one, so that in a large
/// network somebody who was unreachable for a while is not left out for good. D7: while a round of ours is not over,
/// another one begins only when the latest is older than a fifth of `initial_initiate_interval` (1 s), and at most
/// `kMostAtOnce` are under way. *Rationale*: a peer that is gone costs a moment and not the limit of a round. D8: what
/// a peer asks for over again, within `min_initiate_interval`, is named out of the allowance for newcomers.
/// *Rationale*: rounds as often as once a second are for going on. Who has lost what it was told is a newcomer.
///
/// Told the time; the clock is monotonic. At most `kMostPeers` peers are kept, and `kMostOwed` rounds; what was touched
/// longest ago goes. Who may be asked is kept in an index: a choice costs what has changed since the last one, and not
/// what there is (Candidates, OwedRounds). But a new own url, another pace and another home file all of them anew.
class RoundBook {
 public:
  static constexpr std::size_t kCatchUpRounds = 8;
  static constexpr Duration kCatchUpLasts = std::chrono::minutes(5);
  static constexpr Duration kFirstTry = std::chrono::milliseconds(10);
  static constexpr Duration kQuickest = std::chrono::seconds(1);
  static constexpr Duration kOwedLasts = std::chrono::hours(1);
  static constexpr Duration kAfterFailure = std::chrono::milliseconds(100);  ///< to the next peer
  static constexpr double kBurst = 8;
  static constexpr std::uint32_t kSilentOneIn = 4;
  static constexpr std::size_t kMostAtOnce = 3;
  static constexpr std::size_t kMostPeers = 20'000;
  static constexpr std::size_t kMostOwed = 4'096;
  static constexpr Duration kAfterBusy = std::chrono::seconds(5);  ///< D4, of a peer of ours
  static constexpr Duration kLookAgain = std::chrono::minutes(1);  ///< at a peer that cannot be asked now

  // ------------------------------------------------------------------ what happened

  /// Begins a new interval. `random`: for the jitter.
  void set_pace(const Pace& pace, Time now, std::uint32_t random);
  /// The own url is known, is a new one, or is back. D3.
  void on_own_url(Time now);
  /// The relay of the own url. D1.
  void on_home(Url relay);
  /// INITIATE is on its way to `peer`.
  void on_attempt(const Url& peer, Time now);
  /// It could not be sent, or nothing came of it. `waited`: for as long as a round may take.
  void on_no_answer(const Url& peer, Time now, bool waited);
  void on_busy(const Url& peer, Time now);
  /// A round takes place: it has accepted ours, or we accept its.
  void on_met(const Url& peer, Time now);
  /// A round that began at `begun` has ended well: what was owed before is paid.
  void on_completed(const Url& peer, Time begun);
  /// A round that took place has broken off.
  void on_broken(const Url& peer, Time now);
  void on_is_ours(const Url& peer, Time now);
  /// It is there: a connection with it was opened.
  void on_connected(const Url& peer, Time now);
  /// What we published to it may not have arrived. It may be known at another url by now.
  void on_publish_lost(const Url& peer, Time now);
  /// Who was at `old_url` is at `new_url` now: what is owed to it is owed there, also what is found out later.
  void on_moved(const Url& old_url, const Url& new_url, Time now);
  /// It has named what fitted into a round, and there is more.
  void on_has_more(const Url& peer, Time now);

  // ------------------------------------------------------------------ rounds that we start

  /// An agent is known at `peer`. `overlaps`: its storage arc and one of ours; whether any of those at `peer` does is
  /// seen by `Look`. `last_gossip`: as noted, also in an earlier life, for the order only; nullopt: what was said
  /// before holds.
  void on_candidate(const Url& peer, bool overlaps, std::optional<Timestamp> last_gossip = {});
  /// An attempt or a round was noted, by the wall clock: it is of a later turn.
  void on_gossip_noted(const Url& peer, Timestamp at);
  void forget_candidates() { candidates_.clear(); }
  bool is_candidate(const Url& peer) const { return candidates_.find(peer) != nullptr; }
  std::size_t candidates() const { return candidates_.size(); }
  /// What the caller sees when it looks at a candidate.
  struct Seen {
    enum Is : std::uint8_t {
      usable,
      not_now,  ///< it is looked at again after `kLookAgain`, or when something happens with it
      gone      ///< it is no candidate any more
    };
    Is is = usable;
    bool overlaps = false;
  };
  using Look = std::function<Seen(const Url& peer)>;
  /// When to look next; never before `now`.
  Time next_try(Time now) const;
  /// The candidate to ask now, if there is one. To be called at the time that `next_try` gave, which it moves on.
  /// `look` is asked about those who are about to be chosen, and must not call the book; empty: nobody can be asked.
  /// `random`: one number for the choice, one for the jitter.
  std::optional<Url> choose(const Look& look, Time now, std::uint32_t random, std::uint32_t jitter);
  /// How long a round of ours keeps others from beginning. D7.
  Duration patience() const { return pace_.initial_initiate_interval / 5; }
  /// Nothing can begin until then: the latest round is too young.
  void put_off(Time until) { not_before_ = until; }

  // ------------------------------------------------------------------ rounds that others start

  enum class Answer { accept, too_soon, busy };
  /// How to answer an INITIATE of `peer`, which says that it is ours or not. Counts for D5.
  Answer answer(const Url& peer, bool ours, Time now);
  /// `peer` was named what we stored before `next`.
  void on_told(const Url& peer, Timestamp next, Time now);
  /// Whether it asks for what it was told already, and that within `min_initiate_interval`. D8.
  bool starts_over(const Url& peer, Timestamp since, Time now) const;

  /// Whether it has taken part in a round, or an attempt at one.
  bool knows(const Url& peer) const { return peers_.contains(peer); }
  std::size_t size() const { return peers_.size(); }
  std::size_t owed() const { return owed_.size(); }
  /// See Candidates::work.
  std::uint64_t work() const { return candidates_.work(); }

 private:
  enum class Reason { none, regular, catch_up, owed };
  struct Peer {
    bool ours = false;
    std::optional<Time> met;    ///< the last round that took place
    std::optional<Time> tried;  ///< our last attempt, or when it was given up
    Reason tried_for = Reason::none;
    std::uint32_t unanswered = 0;  ///< attempts, since it was last heard of
    double tokens = kBurst;        ///< rounds that it may start. D5
    std::optional<Timestamp> told;
    Time touched = Time::min();
  };

  Peer& at(const Url& peer, Time now);
  void owe(const Url& peer, Time now, Time due);
  void postpone(const Url& peer, Time now);
  void make_room();
  bool catching_up(Time now) const;
  /// The last time that we had to do with each other at this own url; nullopt: never.
  std::optional<Time> contact(const Url& url, const Peer& peer) const;
  /// Whether a round with it took place within `min_initiate_interval`, at this own url.
  bool met_lately(const Url& url, Time now) const;
  /// From when on it may be asked. D1, D5, D6.
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
  std::unordered_map<Url, Url> moved_;  ///< at most `kMostOwed`; from old urls to those after them
  std::optional<Url> home_;             ///< nullopt: not known
  std::optional<Time> own_url_at_;      ///< nullopt: no own url yet
  std::size_t met_since_ = 0;           ///< peers, for the first time since then
  Duration catch_up_wait_{};
  Time next_catch_up_ = Time::max();
  Time regular_at_ = Time::max();
  Time not_before_ = Time::min();
  std::uint32_t choices_ = 0;
};

}  // namespace kitsune2::gossip
