// With which peer to gossip, written naively: each list is searched, and everything is computed each time. Also the run
// that gives the same commands to the twin and to RoundBook.
#pragma once

#include <algorithm>
#include <deque>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/gossip/round_book.hpp"
#include "kitsune2/bytes.hpp"
#include "model/commands.hpp"

namespace kitsune2::model {

/// The rules of RoundBook, without its bounds on memory.
class RoundBookTwin {
 public:
  using Seen = gossip::RoundBook::Seen;
  using Look = gossip::RoundBook::Look;

  void set_pace(const gossip::Pace& pace, Time now, std::uint32_t random) {
    pace_ = pace;
    regular_at_ = now + jitter(random);
    end_put_offs();
    if (!own_url_at_) return;
    catch_up_wait_ = std::min(catch_up_wait_, pace_.initial_initiate_interval);
    next_catch_up_ = now + catch_up_wait_;
  }
  void on_own_url(Time now) {
    own_url_at_ = now;
    met_since_ = 0;
    catch_up_wait_ = std::min(Book::kFirstTry, pace_.initial_initiate_interval);
    next_catch_up_ = now + catch_up_wait_;
    for (Peer& peer : peers_) peer.unanswered = 0;
    end_put_offs();
  }
  void on_home(Url relay) {
    home_ = std::move(relay);
    end_put_offs();
  }
  void on_attempt(const Url& url, Time now) {
    Peer& peer = at(url, now);
    if (!peer.ours && pace_.bursts_are_taken) peer.asked.push_back(now);
    on_interval(url, now);
  }
  void on_interval(const Url& url, Time now) {
    at(url, now).tried = now;
    end_put_off(url);
  }
  void on_no_answer(const Url& url, Time now, bool waited) {
    Peer& peer = at(url, now);
    const bool was_unheard = peer.tried && peer.knew_us_at && *peer.tried < *peer.knew_us_at;
    if (was_unheard) {
      peer.tried.reset();
      peer.unanswered = 0;
      owe(url, now, now + Book::kQuickest);
    } else {
      ++peer.unanswered;
      if (peer.tried && own_url_at_ && *peer.tried >= *own_url_at_) peer.tried = now;
      if (peer.ours && find_owed(url) == nullptr) owe(url, now, now + Book::kQuickest);
      postpone(url, now);
    }
    end_put_off(url);
    const Time next = waited ? now : now + Book::kAfterFailure;
    if (peer.tried_for == Reason::regular) regular_at_ = std::min(regular_at_, next);
    if (peer.tried_for == Reason::catch_up) next_catch_up_ = std::min(next_catch_up_, next);
  }
  void on_busy(const Url& url, Time now) {
    Peer& peer = at(url, now);
    peer.tried = now;
    peer.unanswered = 0;
    end_put_off(url);
    if (peer.ours) {
      owe(url, now, now + Book::kAfterBusy);
    } else {
      postpone(url, now, Book::kAfterBusy);
    }
  }
  void on_met(const Url& url, Time now) {
    Peer& peer = at(url, now);
    if (own_url_at_ && (!peer.met || *peer.met < *own_url_at_)) ++met_since_;
    peer.met = now;
    peer.unanswered = 0;
    end_put_off(url);
  }
  void on_completed(const Url& url, Time begun) {
    Owed* owed = find_owed(url);
    if (owed == nullptr) return;
    if (owed->reason_at < begun) return forget_owed(url);
    owed->since = owed->reason_at;
  }
  void on_broken(const Url& url, Time now) { owe(url, now, now + Book::kQuickest); }
  void on_is_ours(const Url& url, Time now) {
    at(url, now).ours = true;
    end_put_off(url);
  }
  void on_connected(const Url& url, Time now) {
    if (Peer* peer = find(url)) peer->unanswered = 0;
    end_put_off(url);
    if (Owed* owed = find_owed(url)) owed->due = std::min(owed->due, now);
  }
  void on_knows_us(const Url& url, Time now) {
    Peer* peer = find(url);
    if (peer == nullptr) return;
    peer->knew_us_at = now;
    if (peer->unanswered == 0) return;
    peer->tried.reset();
    peer->unanswered = 0;
    end_put_off(url);
    owe(url, now, now + Book::kQuickest);
  }
  void on_publish_lost(const Url& url, Time now) {
    Url to = url;
    for (const auto& [from, moved_to] : moved_) {
      if (from == url) to = moved_to;
    }
    owe(to, now, now + Book::kQuickest);
  }
  void on_moved(const Url& old_url, const Url& new_url, Time now) {
    if (old_url == new_url) return;
    for (auto& [from, to] : moved_) {
      if (to == old_url) to = new_url;
    }
    std::erase_if(moved_, [&](const auto& m) { return m.first == old_url || m.first == new_url; });
    moved_.emplace_back(old_url, new_url);
    const Owed* owed = find_owed(old_url);
    if (owed == nullptr) return;
    const Time reason_at = owed->reason_at;
    forget_owed(old_url);
    owe(new_url, reason_at, now + Book::kQuickest);
  }
  void on_has_more(const Url& url, Time now) { owe(url, now, now + Book::kQuickest); }

  void on_candidate(const Url& url, bool overlaps, std::optional<Timestamp> last) {
    Candidate* held = find_candidate(url);
    if (held == nullptr) held = &candidates_.emplace_back(Candidate{url, false, {}, Time::min()});
    held->overlaps |= overlaps;
    if (last) held->last = last;
    held->put_off = Time::min();
  }
  void on_gossip_noted(const Url& url, Timestamp at) {
    if (find_candidate(url) != nullptr) on_candidate(url, false, at);
  }

  Time next_try(Time now) const {
    Time out = regular_at_;
    if (catching_up(now)) out = std::min(out, next_catch_up_);
    for (const Owed& owed : owed_) out = std::min(out, owed.due);
    return std::max(out, now);
  }

  /// `looks`: the peers that the book has looked at, in order. Where chance decides, the twin takes the next one of
  /// them, provided that chance may have chosen it.
  std::optional<Url> choose(const Look& look, Time now, std::uint32_t jitter_random, std::deque<Url> looks) {
    looks_ = std::move(looks);
    const bool regular = now >= regular_at_;
    const bool catch_up = catching_up(now) && now >= next_catch_up_;
    if (regular) regular_at_ = now + jitter(jitter_random);
    if (catch_up) {
      catch_up_wait_ =
          std::clamp(catch_up_wait_ * 6 / 5, Duration(1), std::max(Duration(1), pace_.initial_initiate_interval));
      next_catch_up_ = now + catch_up_wait_;
    }
    std::optional<Url> out;
    if (!out && regular && look) out = choose_turn(look, false, now, Reason::regular);
    if (!out && catch_up && look) out = choose_turn(look, true, now, Reason::catch_up);
    if (!out) out = choose_owed(look, now);
    if (!looks_.empty()) throw std::logic_error("the book has looked at more than the twin");
    return out;
  }

  gossip::RoundBook::Answer answer(const Url& url, bool ours, Time now) {
    using Answer = gossip::RoundBook::Answer;
    Peer& peer = at(url, now);
    if (!ours) {
      const auto lately = std::count_if(peer.began.begin(), peer.began.end(),
                                        [&](Time began) { return began > now - pace_.burst_window; });
      const bool fits_burst = static_cast<std::size_t>(lately) < pace_.burst_rounds;
      const bool fits_interval = !pace_.bursts_are_taken && !met_lately(url, now);
      if (!fits_burst && !fits_interval) return Answer::too_soon;
      peer.began.push_back(now);
      return Answer::accept;
    }
    peer.ours = true;
    if (peer.tokens < 1) return Answer::busy;
    peer.tokens -= 1;
    return Answer::accept;
  }
  void on_told(const Url& url, Timestamp next, Time now) { at(url, now).told = next; }
  bool starts_over(const Url& url, Timestamp since, Time now) {
    const Peer* peer = find(url);
    return peer != nullptr && peer->told && since < *peer->told && met_lately(url, now);
  }
  std::size_t size() const { return peers_.size(); }
  std::size_t owed() const { return owed_.size(); }
  std::size_t candidates() const { return candidates_.size(); }

 private:
  using Book = gossip::RoundBook;
  enum class Reason { none, regular, catch_up, owed };
  struct Peer {
    Url url;
    bool ours = false;
    std::optional<Time> met = {}, tried = {}, knew_us_at = {};
    Reason tried_for = Reason::none;
    std::uint32_t unanswered = 0;
    double tokens = Book::kBurst;
    std::vector<Time> began = {}, asked = {};  ///< all of them
    std::optional<Timestamp> told = {};
    Time touched = Time::min();
  };
  struct Owed {
    Url url;
    Time since, reason_at, due;
  };
  struct Candidate {
    Url url;
    bool overlaps = false;
    std::optional<Timestamp> last;
    Time put_off;
  };

  template <class List>
  static auto* find_in(List& list, const Url& url) {
    const auto it = std::find_if(list.begin(), list.end(), [&](const auto& entry) { return entry.url == url; });
    return it == list.end() ? nullptr : &*it;
  }
  Peer* find(const Url& url) { return find_in(peers_, url); }
  Owed* find_owed(const Url& url) { return find_in(owed_, url); }
  Candidate* find_candidate(const Url& url) { return find_in(candidates_, url); }
  void forget_owed(const Url& url) {
    std::erase_if(owed_, [&](const Owed& owed) { return owed.url == url; });
  }
  void end_put_off(const Url& url) {
    if (Candidate* held = find_candidate(url)) held->put_off = Time::min();
  }
  void end_put_offs() {
    for (Candidate& candidate : candidates_) candidate.put_off = Time::min();
  }
  Duration jitter(std::uint32_t random) const {
    const double part = static_cast<double>(pace_.initiate_jitter.count()) * (random / 4294967296.0);
    return pace_.initiate_interval + Duration(static_cast<Duration::rep>(part));
  }

  Peer& at(const Url& url, Time now) {
    Peer* peer = find(url);
    if (peer == nullptr) peer = &peers_.emplace_back(Peer{url});
    if (peer->touched != Time::min() && now > peer->touched) {
      const double seconds = std::chrono::duration<double>(now - peer->touched) / Book::kQuickest;
      peer->tokens = std::min(Book::kBurst, peer->tokens + seconds);
    }
    peer->touched = std::max(peer->touched, now);
    return *peer;
  }
  void owe(const Url& url, Time now, Time due) {
    if (Owed* owed = find_owed(url)) {
      owed->reason_at = now;
      owed->due = std::max(owed->due, due);
    } else {
      owed_.push_back({url, now, now, due});
    }
  }
  void postpone(const Url& url, Time now, Duration least = Book::kQuickest) {
    Owed* owed = find_owed(url);
    if (owed == nullptr) return;
    if (now - owed->since > Book::kOwedLasts) return forget_owed(url);
    const Duration most = std::max(least, pace_.initiate_interval);
    owed->due = now + std::clamp((now - owed->since) / 4, least, most);
  }
  bool catching_up(Time now) const {
    if (!own_url_at_) return false;
    return met_since_ == 0 || (met_since_ < Book::kCatchUpRounds && now - *own_url_at_ < Book::kCatchUpLasts);
  }
  Time may_ask_at(const Url& url, bool owed) {
    const Peer* peer = find(url);
    if (peer == nullptr) return Time::min();
    const bool knows_our_link = !peer->ours && home_ && url.relay() != *home_;
    std::optional<Time> last;
    for (const auto& time : {peer->met, peer->tried}) {
      if (time && (knows_our_link || (own_url_at_ && *time >= *own_url_at_))) last = std::max(last, time);
    }
    // The first time at which fewer than `most` attempts lie within the window and what messages may be late.
    Time room = Time::min();
    if (!peer->ours && pace_.bursts_are_taken) {
      const std::size_t most = std::max<std::size_t>(1, owed ? pace_.burst_rounds * 4 / 5 : pace_.burst_rounds);
      for (const Time attempt : peer->asked) {
        const Duration late = std::min<Duration>(Book::kOnTheWay, pace_.burst_window / 8);
        const Time over = attempt + pace_.burst_window + late;
        const auto later = std::count_if(peer->asked.begin(), peer->asked.end(), [&](Time a) { return a > attempt; });
        if (static_cast<std::size_t>(later) < most && peer->asked.size() >= most) {
          room = over;
          break;
        }
      }
    }
    if (!last) return room;
    if (owed && (peer->ours || (pace_.bursts_are_taken && peer->unanswered == 0)))
      return std::max(room, *last + Book::kQuickest);
    Duration wait = pace_.min_initiate_interval;
    for (std::uint32_t i = 1; i < peer->unanswered && i < 4; ++i) wait *= 2;
    return std::max(room, *last + wait);
  }
  bool met_lately(const Url& url, Time now) {
    const Peer* peer = find(url);
    return peer != nullptr && peer->met && own_url_at_ && *peer->met >= *own_url_at_ &&
           now - *peer->met < pace_.min_initiate_interval;
  }

  /// The peers of which one is to be chosen next.
  std::vector<Url> best(bool silent_first, bool strangers_only, Time now) {
    for (const bool silent : {silent_first, !silent_first}) {
      for (const bool overlaps : {true, false}) {
        std::vector<Url> fresh;
        const Candidate* longest = nullptr;
        for (const Candidate& candidate : candidates_) {
          const Peer* peer = find(candidate.url);
          const Time from = may_ask_at(candidate.url, false);
          if ((peer != nullptr && peer->unanswered > 0) != silent || candidate.overlaps != overlaps) continue;
          if (from > now || candidate.put_off > now || (strangers_only && from != Time::min())) continue;
          if (!candidate.last) {
            fresh.push_back(candidate.url);
          } else if (longest == nullptr ||
                     std::pair(*candidate.last, candidate.url) < std::pair(*longest->last, longest->url)) {
            longest = &candidate;
          }
        }
        if (!fresh.empty()) return fresh;
        if (longest != nullptr) return {longest->url};
      }
    }
    return {};
  }
  Url next_look() {
    if (looks_.empty()) throw std::logic_error("the book has looked at fewer than the twin");
    Url out = looks_.front();
    looks_.pop_front();
    return out;
  }
  /// Takes in what `Look` says of the peer. False: it was put off, or is gone.
  bool see(const Look& look, const Url& url, Time now) {
    const Seen seen = look(url);
    Candidate& candidate = *find_candidate(url);
    if (seen.is == Seen::gone) {
      std::erase_if(candidates_, [&](const Candidate& c) { return c.url == url; });
    } else if (seen.is == Seen::not_now) {
      candidate.put_off = std::max(candidate.put_off, now + Book::kLookAgain);
    } else {
      candidate.overlaps = seen.overlaps;
    }
    return seen.is == Seen::usable;
  }
  std::optional<Url> choose_turn(const Look& look, bool strangers_only, Time now, Reason reason) {
    const bool silent_first = !strangers_only && ++choices_ % Book::kSilentOneIn == 0;
    for (;;) {
      const auto among = best(silent_first, strangers_only, now);
      if (among.empty()) return std::nullopt;
      const Url url = next_look();
      if (std::find(among.begin(), among.end(), url) == among.end())
        throw std::logic_error("the book has looked at one whose turn it is not");
      const bool overlapped = find_candidate(url)->overlaps;
      if (!see(look, url, now) || find_candidate(url)->overlaps != overlapped) continue;
      at(url, now).tried_for = reason;
      return url;
    }
  }
  std::optional<Url> choose_owed(const Look& look, Time now) {
    for (;;) {
      Owed* first = nullptr;
      for (Owed& owed : owed_) {
        if (owed.due > now) continue;
        if (first == nullptr || std::pair(owed.since, owed.url) < std::pair(first->since, first->url)) first = &owed;
      }
      if (first == nullptr) return std::nullopt;
      const Url url = first->url;
      if (!look || find_candidate(url) == nullptr) {
        postpone(url, now);
      } else if (const Time from = may_ask_at(url, true); from > now) {
        first->due = from;
      } else if (next_look() != url) {
        throw std::logic_error("the book has looked at another one than was owed a round for the longest");
      } else if (see(look, url, now)) {
        at(url, now).tried_for = Reason::owed;
        return url;
      } else {
        postpone(url, now);
      }
    }
  }

  gossip::Pace pace_;
  std::deque<Peer> peers_;
  std::vector<Owed> owed_;
  std::vector<Candidate> candidates_;
  std::vector<std::pair<Url, Url>> moved_;
  std::optional<Url> home_;
  std::optional<Time> own_url_at_;
  std::size_t met_since_ = 0;
  Duration catch_up_wait_{};
  Time next_catch_up_ = Time::max(), regular_at_ = Time::max();
  std::uint32_t choices_ = 0;
  std::deque<Url> looks_;
};

/// How often the runs have reached each important case, so that a test can see that none was left out.
struct RoundBookCoverage {
  std::uint64_t commands = 0, choices = 0, chosen = 0, of_strangers = 0, gone = 0, not_now = 0, changed = 0;
  std::uint64_t owed = 0, answers_busy = 0, answers_too_soon = 0, starts_over = 0;
  std::uint64_t of_a_burst = 0;  ///< a stock peer was asked within `min_initiate_interval`
  std::uint64_t bursts_used_up = 0;
  std::uint64_t unheard = 0;  ///< attempts forgotten because the peer did not know us yet
};

/// Reads commands from bytes and gives them to the book and to the twin. Throws std::logic_error when they differ, or
/// when a peer is asked earlier than it takes it.
class RoundBookTwinRun {
 public:
  explicit RoundBookTwinRun(ByteView commands, RoundBookCoverage* coverage = nullptr) : commands_(commands) {
    if (coverage != nullptr) coverage_ = coverage;
    pace_.bursts_are_taken = byte() % 2 == 1;
    for (int i = 0; i < 8; ++i) {
      const std::string relay = i < 6 ? "ws://r:1/p" : "ws://other:1/p";
      peers_.push_back({Url::parse(relay + std::to_string(i)).value()});
    }
    both([&](auto& book) {
      book.set_pace(pace_, now_, 0);
      book.on_own_url(now_);
    });
  }

  void run() {
    while (!commands_.is_empty()) {
      ++coverage_->commands;
      step();
      compare();
    }
    come_to_rest();
  }

 private:
  struct Peer {
    Url url;
    bool is_ours = false;
    bool is_known = false;
    bool overlaps = false;
    bool is_blocked = false;
    std::optional<Time> contact = {};  ///< under our present url
    std::optional<Time> met = {};      ///< the last one that was a round
    bool is_asked = false, is_silent = false;
    std::vector<Time> asked = {};
  };

  std::uint8_t byte() { return commands_.byte(); }
  template <class F>
  void both(F call) {
    call(book_);
    call(twin_);
  }
  void check(bool same, const char* what) const {
    if (same) return;
    throw std::logic_error(std::string("RoundBook: ") + what + ", after command " +
                           std::to_string(coverage_->commands));
  }

  void step() {
    const std::uint8_t what = byte() % 25, more = byte();
    Peer& peer = peers_[more % peers_.size()];
    switch (what) {
      case 0:
        now_ += Duration(std::chrono::milliseconds(more));
        break;
      case 1:
        now_ += Duration(std::chrono::seconds(more));
        break;
      case 2:
        return change_url(more);
      case 3:
        if (!peer.contact && !peer.is_asked) break;
        both([&](auto& b) { b.on_no_answer(peer.url, now_, more % 16 < 8); });
        peer.is_silent = std::exchange(peer.is_asked, false);
        break;
      case 4:
        both([&](auto& b) { b.on_publish_lost(peer.url, now_); });
        break;
      case 5:
        both([&](auto& b) { b.on_has_more(peer.url, now_); });
        break;
      case 6:
        both([&](auto& b) { b.on_broken(peer.url, now_); });
        break;
      case 7:
        both([&](auto& b) { b.on_connected(peer.url, now_); });
        break;
      case 8:
        if (more % 2 != 0) break;
        peer.is_ours = true;
        both([&](auto& b) { b.on_is_ours(peer.url, now_); });
        break;
      case 9:
        if (!peer.contact) break;
        peer.contact = now_;
        both([&](auto& b) { b.on_busy(peer.url, now_); });
        break;
      case 10:
        for (int i = more >= 224 ? 12 : 1; i > 0; --i) answer(peer, more);
        break;
      case 11:
        both([&](auto& b) { b.on_completed(peer.url, now_ - Duration(std::chrono::milliseconds(more))); });
        break;
      case 12:
        both([&](auto& b) { b.set_pace(pace_, now_, more * 16'777'216U); });
        break;
      case 13:
        both([&](auto& b) { b.on_moved(peer.url, peers_[more / 8 % peers_.size()].url, now_); });
        break;
      case 14:
        both([&](auto& b) { b.on_gossip_noted(peer.url, Timestamp{more}); });
        break;
      case 15:
        peer.is_blocked = more >= 128;
        break;
      case 16:
        peer.is_known = false;
        break;
      case 17:
      case 18:
        return know(peer, more);
      case 24:
        coverage_->unheard += peer.is_silent ? 1 : 0;
        // What was sent before and nobody has answered does not count.
        peer.contact = peer.met;
        both([&](auto& b) { b.on_knows_us(peer.url, now_); });
        break;
      default:
        return choose(what, more);
    }
  }

  void change_url(std::uint8_t more) {
    if (more % 4 == 0) {
      both([&](auto& b) { b.on_home(Url::parse(more % 8 == 0 ? "ws://r:1" : "ws://other:1").value()); });
    }
    both([&](auto& b) { b.on_own_url(now_); });
    // Peers on other relays still know us; the twin looks after those.
    for (Peer& peer : peers_) {
      peer.contact.reset();
      peer.met.reset();
    }
  }
  void answer(Peer& peer, std::uint8_t more) {
    using Answer = gossip::RoundBook::Answer;
    const Timestamp since{more};
    const bool over = book_.starts_over(peer.url, since, now_);
    check(over == twin_.starts_over(peer.url, since, now_), "starts_over");
    coverage_->starts_over += over ? 1 : 0;
    const auto answer = book_.answer(peer.url, peer.is_ours, now_);
    check(answer == twin_.answer(peer.url, peer.is_ours, now_), "answer");
    coverage_->answers_busy += answer == Answer::busy ? 1 : 0;
    coverage_->answers_too_soon += answer == Answer::too_soon ? 1 : 0;
    if (answer != Answer::accept) {
      if (!peer.is_ours) both([&](auto& b) { b.on_interval(peer.url, now_); });
      return;
    }
    peer.contact = peer.met = now_;
    peer.is_silent = false;
    both([&](auto& b) {
      b.on_met(peer.url, now_);
      b.on_told(peer.url, Timestamp{more / 2}, now_);
    });
  }
  void know(Peer& peer, std::uint8_t more) {
    peer.is_known = true;
    peer.overlaps = more >= 128;
    const auto last = more / 8 % 4 == 0 ? std::optional(Timestamp{more}) : std::nullopt;
    both([&](auto& b) { b.on_candidate(peer.url, more / 8 % 2 == 0, last); });
  }

  gossip::RoundBook::Seen see(const Url& url) const {
    using Seen = gossip::RoundBook::Seen;
    for (const Peer& peer : peers_) {
      if (peer.url != url || !peer.is_known) continue;
      return {peer.is_blocked ? Seen::not_now : Seen::usable, peer.overlaps};
    }
    return {Seen::gone, false};
  }
  void choose(std::uint8_t what, std::uint8_t more) {
    ++coverage_->choices;
    const Time next = book_.next_try(now_);
    if (next - now_ > std::chrono::hours(1)) return;
    if (what != 19) now_ = next;
    std::deque<Url> looks;
    gossip::RoundBook::Look look, naive_look;
    if (more != 255) {
      naive_look = [this](const Url& url) { return see(url); };
      look = [&](const Url& url) {
        looks.push_back(url);
        const auto out = see(url);
        coverage_->gone += out.is == out.gone ? 1 : 0;
        coverage_->not_now += out.is == out.not_now ? 1 : 0;
        return out;
      };
    }
    const auto chosen = book_.choose(look, now_, more, more);
    coverage_->changed += looks.size() > 1 ? 1 : 0;
    check(chosen == twin_.choose(naive_look, now_, more, looks), "choose");
    if (!chosen) return;
    ++coverage_->chosen;
    Peer& peer = *std::find_if(peers_.begin(), peers_.end(), [&](const Peer& p) { return p.url == *chosen; });
    check(peer.is_known && !peer.is_blocked, "one is asked who cannot be");
    if (!peer.contact) ++coverage_->of_strangers;
    const bool is_quick = peer.is_ours || pace_.bursts_are_taken;
    const Duration least = is_quick ? gossip::RoundBook::kQuickest : pace_.min_initiate_interval;
    check(!peer.contact || now_ - *peer.contact >= least, "a peer is asked too soon");
    if (!peer.is_ours && peer.contact && now_ - *peer.contact < pace_.min_initiate_interval) ++coverage_->of_a_burst;
    peer.contact = now_;
    if (!peer.is_ours && pace_.bursts_are_taken) {
      std::erase_if(peer.asked, [&](Time at) { return at <= now_ - pace_.burst_window; });
      peer.asked.push_back(now_);
      check(peer.asked.size() <= pace_.burst_rounds, "a peer is asked more often than it allows");
      if (peer.asked.size() == pace_.burst_rounds) ++coverage_->bursts_used_up;
    }
    both([&](auto& b) { b.on_attempt(peer.url, now_); });
    peer.is_asked = true;
    // Sometimes it answers.
    if (what % 2 == 0) {
      peer.met = now_;
      peer.is_asked = peer.is_silent = false;
      both([&](auto& b) { b.on_met(peer.url, now_); });
    }
  }

  void compare() {
    check(book_.next_try(now_) == twin_.next_try(now_), "next_try");
    check(book_.next_try(now_) >= now_, "a try in the past");
    check(book_.size() == twin_.size(), "size");
    check(book_.owed() == twin_.owed(), "owed");
    check(book_.candidates() == twin_.candidates(), "candidates");
    coverage_->owed += book_.owed() > 0 ? 1 : 0;
  }

  /// Checks that without further events there are regular rounds and nothing in between.
  void come_to_rest() {
    now_ += std::chrono::hours(3);
    std::size_t tries = 0;
    for (const Time end = now_ + std::chrono::hours(1); book_.next_try(now_) < end; ++tries) {
      now_ = book_.next_try(now_);
      check(tries < 2'000, "no rest");
      book_.choose({}, now_, 0, 0);
    }
  }

  gossip::Pace pace_{
      std::chrono::seconds(120), std::chrono::seconds(10), std::chrono::seconds(300), std::chrono::seconds(5), 6,
      std::chrono::seconds(600)};
  Commands commands_;
  RoundBookCoverage own_coverage_;
  RoundBookCoverage* coverage_ = &own_coverage_;
  gossip::RoundBook book_;
  RoundBookTwin twin_;
  Time now_ = Time(std::chrono::hours(1));
  std::vector<Peer> peers_;
};

}  // namespace kitsune2::model
