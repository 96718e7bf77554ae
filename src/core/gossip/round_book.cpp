// With which peer to gossip, and when: what is kept about each peer, and the choice.
#include "core/gossip/round_book.hpp"

#include <algorithm>

namespace kitsune2::gossip {
namespace {

/// The part of `most` that `random` selects.
Duration part_of(Duration most, std::uint32_t random) {
  return Duration(static_cast<Duration::rep>(static_cast<double>(most.count()) * (random / 4294967296.0)));
}

}  // namespace

// -------------------------------------------------------------------- what happened

void RoundBook::set_pace(const Pace& pace, Time now, std::uint32_t random) {
  pace_ = pace;
  file_all();
  regular_at_ = now + pace_.initiate_interval + part_of(pace_.initiate_jitter, random);
  if (!own_url_at_) return;
  catch_up_wait_ = std::min(catch_up_wait_, pace_.initial_initiate_interval);
  next_catch_up_ = now + catch_up_wait_;
}

void RoundBook::on_own_url(Time now) {
  own_url_at_ = now;
  met_since_ = 0;
  catch_up_wait_ = std::min(kFirstTry, pace_.initial_initiate_interval);
  next_catch_up_ = now + catch_up_wait_;
  // The peer that did not answer may not have been the one that was away.
  for (auto& [url, peer] : peers_) peer.unanswered = 0;
  file_all();
}

void RoundBook::on_home(Url relay) {
  home_ = std::move(relay);
  file_all();
}

void RoundBook::on_attempt(const Url& url, Time now) {
  Peer& peer = at(url, now);
  if (!peer.ours && pace_.bursts_are_taken) {
    if (peer.asked.size() >= std::max<std::size_t>(1, pace_.burst_rounds)) peer.asked.erase(peer.asked.begin());
    peer.asked.push_back(now);
  }
  on_interval(url, now);
}

void RoundBook::on_interval(const Url& url, Time now) {
  at(url, now).tried = now;
  file(url);
}

void RoundBook::on_no_answer(const Url& url, Time now, bool waited) {
  Peer& peer = at(url, now);
  if (peer.tried && peer.knew_us_at && *peer.tried < *peer.knew_us_at) {
    forget_unheard(url, peer, now);
  } else {
    peer.unanswered += 1;
    // It may have arrived just now, so the wait starts here. D1. But not if it was sent from an earlier own url.
    if (peer.tried && own_url_at_ && *peer.tried >= *own_url_at_) peer.tried = now;
    file(url);
    if (peer.ours && owed_.find(url) == nullptr) owe(url, now, now + kQuickest);
    postpone(url, now);
  }
  const Time next = waited ? now : now + kAfterFailure;
  if (peer.tried_for == Reason::regular) regular_at_ = std::min(regular_at_, next);
  if (peer.tried_for == Reason::catch_up) next_catch_up_ = std::min(next_catch_up_, next);
}

void RoundBook::on_busy(const Url& url, Time now) {
  Peer& peer = at(url, now);
  peer.tried = now;
  peer.unanswered = 0;
  file(url);
  if (peer.ours) {
    owe(url, now, now + kAfterBusy);
  } else {
    postpone(url, now, kAfterBusy);
  }
}

void RoundBook::on_met(const Url& url, Time now) {
  Peer& peer = at(url, now);
  if (own_url_at_ && (!peer.met || *peer.met < *own_url_at_)) ++met_since_;
  peer.met = now;
  peer.unanswered = 0;
  file(url);
}

void RoundBook::on_completed(const Url& url, Time begun) {
  const auto* owed = owed_.find(url);
  if (owed == nullptr) return;
  if (owed->reason_at < begun) return owed_.erase(url);
  owed_.put(url, {owed->reason_at, owed->reason_at, owed->due});
}

void RoundBook::on_broken(const Url& url, Time now) { owe(url, now, now + kQuickest); }

void RoundBook::on_is_ours(const Url& url, Time now) {
  at(url, now).ours = true;
  file(url);
}

void RoundBook::on_connected(const Url& url, Time now) {
  if (const auto peer = peers_.find(url); peer != peers_.end()) peer->second.unanswered = 0;
  file(url);
  if (const auto* owed = owed_.find(url)) owed_.put(url, {owed->since, owed->reason_at, std::min(owed->due, now)});
}

void RoundBook::on_knows_us(const Url& url, Time now) {
  const auto peer = peers_.find(url);
  if (peer == peers_.end()) return;
  peer->second.knew_us_at = now;
  // An attempt that is under way is judged at its end.
  if (peer->second.unanswered > 0) forget_unheard(url, peer->second, now);
}

/// D11
void RoundBook::forget_unheard(const Url& url, Peer& peer, Time now) {
  peer.tried.reset();
  peer.unanswered = 0;
  file(url);
  owe(url, now, now + kQuickest);
}

void RoundBook::on_publish_lost(const Url& url, Time now) {
  const auto moved = moved_.find(url);
  owe(moved == moved_.end() ? url : moved->second, now, now + kQuickest);
}

void RoundBook::on_moved(const Url& old_url, const Url& new_url, Time now) {
  if (old_url == new_url) return;
  // The loss of a publish is noticed within minutes; what is forgotten here is asked in its turn.
  if (moved_.size() >= kMostOwed) moved_.clear();
  for (auto& [from, to] : moved_) {
    if (to == old_url) to = new_url;
  }
  moved_.insert_or_assign(old_url, new_url);
  moved_.erase(new_url);
  const auto* owed = owed_.find(old_url);
  if (owed == nullptr) return;
  const Time reason_at = owed->reason_at;
  owed_.erase(old_url);
  owe(new_url, reason_at, now + kQuickest);
}

void RoundBook::on_has_more(const Url& url, Time now) { owe(url, now, now + kQuickest); }

RoundBook::Peer& RoundBook::at(const Url& url, Time now) {
  if (peers_.size() >= kMostPeers && !peers_.contains(url)) make_room();
  Peer& peer = peers_[url];
  if (peer.touched != Time::min() && now > peer.touched) {
    peer.tokens = std::min(kBurst, peer.tokens + std::chrono::duration<double>(now - peer.touched) / kQuickest);
  }
  peer.touched = std::max(peer.touched, now);
  return peer;
}

/// What is owed already stays owed since then; otherwise each new reason would make the next attempt an early one.
void RoundBook::owe(const Url& url, Time now, Time due) {
  if (const auto* owed = owed_.find(url)) return owed_.put(url, {owed->since, now, std::max(owed->due, due)});
  if (owed_.size() >= kMostOwed) owed_.erase(*owed_.oldest());
  owed_.put(url, {now, now, due});
}

void RoundBook::postpone(const Url& url, Time now, Duration least) {
  const auto* owed = owed_.find(url);
  if (owed == nullptr) return;
  if (now - owed->since > kOwedLasts) return owed_.erase(url);
  const Duration most = std::max(least, pace_.initiate_interval);
  owed_.put(url, {owed->since, owed->reason_at, now + std::clamp((now - owed->since) / 4, least, most)});
}

void RoundBook::make_room() {
  std::vector<Time> touched;
  touched.reserve(peers_.size());
  for (const auto& [url, peer] : peers_) touched.push_back(peer.touched);
  const auto middle = touched.begin() + static_cast<std::ptrdiff_t>(touched.size() / 2);
  std::nth_element(touched.begin(), middle, touched.end());
  std::erase_if(peers_, [limit = *middle](const auto& entry) { return entry.second.touched <= limit; });
  file_all();
}

bool RoundBook::catching_up(Time now) const {
  if (!own_url_at_) return false;
  return met_since_ == 0 || (met_since_ < kCatchUpRounds && now - *own_url_at_ < kCatchUpLasts);
}

std::optional<Time> RoundBook::contact(const Url& url, const Peer& peer) const {
  const bool knows_our_link = !peer.ours && home_ && url.relay() != *home_;
  std::optional<Time> out;
  for (const auto& time : {peer.met, peer.tried}) {
    if (time && (knows_our_link || (own_url_at_ && *time >= *own_url_at_))) out = out ? std::max(*out, *time) : *time;
  }
  return out;
}

Time RoundBook::burst_leaves_room_at(const Peer& peer, bool owed) const {
  if (peer.ours || !pace_.bursts_are_taken) return Time::min();
  const std::size_t all = pace_.burst_rounds, most = std::max<std::size_t>(1, owed ? all * 4 / 5 : all);
  if (peer.asked.size() < most) return Time::min();
  return peer.asked[peer.asked.size() - most] + pace_.burst_window + std::min(kOnTheWay, pace_.burst_window / 8);
}

Time RoundBook::may_ask_at(const Url& url, bool owed) const {
  const auto it = peers_.find(url);
  if (it == peers_.end()) return Time::min();
  const Peer& peer = it->second;
  const Time room = burst_leaves_room_at(peer, owed);
  const auto last = contact(url, peer);
  if (!last) return room;
  const bool is_quick = peer.ours || (pace_.bursts_are_taken && peer.unanswered == 0);
  if (is_quick && owed) return std::max(room, *last + kQuickest);
  const auto doubled = std::min<std::uint32_t>(peer.unanswered < 2 ? 0 : peer.unanswered - 1, 3);
  return std::max(room, *last + pace_.min_initiate_interval * (1U << doubled));
}

// -------------------------------------------------------------------- who may be asked

void RoundBook::on_candidate(const Url& url, bool overlaps, std::optional<Timestamp> last_gossip) {
  const auto* held = candidates_.find(url);
  Candidates::Standing standing = held == nullptr ? Candidates::Standing() : *held;
  standing.overlaps |= overlaps;
  if (last_gossip) standing.last = last_gossip;
  file(url, standing);
}

void RoundBook::on_gossip_noted(const Url& url, Timestamp at) {
  if (is_candidate(url)) on_candidate(url, false, at);
}

/// Files it by what is known about it now.
void RoundBook::file(const Url& url, Candidates::Standing standing) {
  const auto it = peers_.find(url);
  standing.is_silent = it != peers_.end() && it->second.unanswered > 0;
  standing.from = may_ask_at(url, false);
  standing.is_stranger = standing.from == Time::min();
  candidates_.file(url, standing);
}

void RoundBook::file(const Url& url) {
  if (const auto* held = candidates_.find(url)) file(url, Candidates::Standing(*held));
}

void RoundBook::file_all() {
  std::vector<Url> all;
  all.reserve(candidates_.size());
  candidates_.for_each([&](const Url& url, const Candidates::Standing&) { all.push_back(url); });
  // In a defined order, so that a run can be repeated.
  std::sort(all.begin(), all.end());
  for (const Url& url : all) file(url);
}

// -------------------------------------------------------------------- rounds that we start

Time RoundBook::next_try(Time now) const {
  Time out = regular_at_;
  if (catching_up(now)) out = std::min(out, next_catch_up_);
  if (const auto due = owed_.next_due()) out = std::min(out, *due);
  return std::max({out, not_before_, now});
}

std::optional<Url> RoundBook::choose(const Look& look, Time now, std::uint32_t random, std::uint32_t jitter) {
  const bool regular = now >= regular_at_;
  const bool catch_up = catching_up(now) && now >= next_catch_up_;
  if (regular) regular_at_ = now + pace_.initiate_interval + part_of(pace_.initiate_jitter, jitter);
  if (catch_up) {
    catch_up_wait_ =
        std::clamp(catch_up_wait_ * 6 / 5, Duration(1), std::max(Duration(1), pace_.initial_initiate_interval));
    next_catch_up_ = now + catch_up_wait_;
  }
  const auto take = [&](const Url& chosen, Reason reason) {
    at(chosen, now).tried_for = reason;
    return chosen;
  };
  candidates_.advance(now);
  if (regular && look) {
    if (const auto chosen = choose_turn(look, false, now, random)) return take(*chosen, Reason::regular);
  }
  if (catch_up && look) {
    if (const auto chosen = choose_turn(look, true, now, random)) return take(*chosen, Reason::catch_up);
  }
  if (const auto chosen = choose_owed(look, now)) return take(*chosen, Reason::owed);
  return std::nullopt;
}

std::optional<Url> RoundBook::choose_owed(const Look& look, Time now) {
  while (auto url = owed_.oldest_due(now)) {
    // Not a candidate now: its info may arrive again, or another url.
    const auto* standing = look ? candidates_.find(*url) : nullptr;
    const Time from = standing != nullptr ? may_ask_at(*url, true) : now;
    if (from > now) {
      const auto* owed = owed_.find(*url);
      owed_.put(*url, {owed->since, owed->reason_at, from});
    } else if (standing != nullptr && look_at(look, *url, *standing, now)) {
      return url;
    } else {
      postpone(*url, now);
    }
  }
  return std::nullopt;
}

std::optional<Url> RoundBook::choose_turn(const Look& look, bool strangers_only, Time now, std::uint32_t random) {
  const bool silent_first = !strangers_only && ++choices_ % kSilentOneIn == 0;
  const auto best = [&]() -> const Url* {
    for (const bool of_silent : {silent_first, !silent_first}) {
      for (const bool of_overlapping : {true, false}) {
        if (const Url* found = candidates_.pick(of_silent, of_overlapping, strangers_only, random)) return found;
      }
    }
    return nullptr;
  };
  while (const Url* found = best()) {
    const Url url = *found;
    const auto standing = *candidates_.find(url);
    // A peer that turns out to overlap, or not to, is filed again and may not be the best one any more.
    const bool is_usable = look_at(look, url, standing, now);
    const auto* held = candidates_.find(url);
    if (is_usable && held != nullptr && held->overlaps == standing.overlaps) return url;
  }
  return std::nullopt;
}

/// Returns false if it is gone or put off.
bool RoundBook::look_at(const Look& look, const Url& url, Candidates::Standing standing, Time now) {
  const Seen seen = look(url);
  if (seen.is == Seen::gone) {
    candidates_.erase(url);
  } else if (seen.is == Seen::not_now) {
    standing.from = std::max(standing.from, now + kLookAgain);
    candidates_.file(url, standing);
  } else if (seen.overlaps != standing.overlaps) {
    standing.overlaps = seen.overlaps;
    candidates_.file(url, standing);
  }
  return seen.is == Seen::usable;
}

// -------------------------------------------------------------------- rounds that others start

RoundBook::Answer RoundBook::answer(const Url& url, bool ours, Time now) {
  Peer& peer = at(url, now);
  if (!ours) {
    std::erase_if(peer.began, [&](Time at) { return at <= now - pace_.burst_window; });
    const bool is_burst_used = peer.began.size() >= pace_.burst_rounds;
    if (is_burst_used && (pace_.bursts_are_taken || met_lately(url, now))) return Answer::too_soon;
    // No more than the burst is kept.
    if (is_burst_used && !peer.began.empty()) peer.began.erase(peer.began.begin());
    if (pace_.burst_rounds > 0) peer.began.push_back(now);
    return Answer::accept;
  }
  peer.ours = true;
  if (peer.tokens < 1) return Answer::busy;
  peer.tokens -= 1;
  return Answer::accept;
}

void RoundBook::on_told(const Url& url, Timestamp next, Time now) { at(url, now).told = next; }

bool RoundBook::starts_over(const Url& url, Timestamp since, Time now) const {
  const auto it = peers_.find(url);
  return it != peers_.end() && it->second.told && since < *it->second.told && met_lately(url, now);
}

bool RoundBook::met_lately(const Url& url, Time now) const {
  const auto it = peers_.find(url);
  if (it == peers_.end()) return false;
  const auto& met = it->second.met;
  return met && own_url_at_ && *met >= *own_url_at_ && now - *met < pace_.min_initiate_interval;
}

}  // namespace kitsune2::gossip
